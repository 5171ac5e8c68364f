# SPDX-License-Identifier: GPL-2.0
# What every set-up script shares: where things are, how progress is shown.
# Sourced, not run. BUILD may be set to put all artefacts elsewhere.

set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=${BUILD:-$top/build}
suite=trixie
flavour=${FLAVOUR:-amd64}
mkdir -p "$build"

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# The release of the kernel that build/nvhv.ko was built for.
built_for() { grep -ao 'vermagic=[^ ]*' "$build/nvhv.ko" | head -n 1 | cut -d= -f2; }

need_root() { [ "$(id -u)" = 0 ] || die "$(basename "$0") needs root: it makes Debian roots with mmdebstrap and mounts /proc in them"; }

# The Debian mirror this machine is configured for, so that a local mirror is honoured.
mirror() {
	local m=${MIRROR:-}
	[ -n "$m" ] || m=$(apt-get indextargets --format '$(REPO_URI)' \
		'Created-By: Packages' 'Origin: Debian' 'Label: Debian' 2>/dev/null | head -n 1)
	[ -n "$m" ] || die "no Debian mirror is configured: run 'apt-get update', or set MIRROR"
	printf '%s\n' "$m"
}

# The apt sources of the suite and its backports, for mmdebstrap.
sources() {
	local m key=/usr/share/keyrings/debian-archive-keyring.gpg s
	m=$(mirror)
	for s in "$suite" "$suite-updates" "$suite-backports"; do
		printf 'deb [signed-by=%s] %s %s main\n' "$key" "$m" "$s"
	done
}

# Installs packages on this machine unless they are there.
need_packages() {
	local p missing=()
	for p in "$@"; do
		dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null | grep -qx installed || missing+=("$p")
	done
	[ ${#missing[@]} = 0 ] && return
	need_root
	say "installing ${missing[*]}"
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# make_root DIR STAMP PACKAGE...: a Debian root in DIR, made anew only when STAMP's text changes.
# RELEASE=suite takes what it can from that suite.
make_root() {
	local dir=$1 recipe=$2
	shift 2
	if [ "$(cat "$dir.recipe" 2>/dev/null)" = "$recipe $*" ]; then return; fi
	need_root
	need_packages mmdebstrap debian-archive-keyring
	say "making $dir (${#} packages)"
	rm -rf "$dir" "$dir.recipe"
	sources | mmdebstrap --quiet --mode=root --variant=minbase \
		--aptopt='APT::Install-Recommends "false"' \
		--aptopt='Acquire::Languages "none"' \
		${RELEASE:+--aptopt="APT::Default-Release \"$RELEASE\""} \
		--dpkgopt='path-exclude=/usr/share/doc/*' \
		--dpkgopt='path-exclude=/usr/share/man/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' \
		--include="$(IFS=,; echo "$*")" \
		"$suite" "$dir" -
	printf '%s\n' "$recipe $*" >"$dir.recipe"
}

# in_root DIR COMMAND...: runs a command in a root with the machine's /proc, /dev and
# name resolution, and with this tree at its own path, in a mount namespace of its own.
# in_root_by=exec replaces the calling shell, so that the command keeps its process id.
in_root() {
	local dir=$1
	shift
	mkdir -p "$dir$top" "$dir$build"
	ROOT=$dir TOP=$top BUILD_DIR=$build ${in_root_by:-} unshare --mount --propagation private bash -c '
		set -e
		mount -t proc proc "$ROOT/proc"
		mount --rbind /dev "$ROOT/dev"
		mount --bind "$TOP" "$ROOT$TOP"
		[ "${BUILD_DIR#"$TOP"/}" != "$BUILD_DIR" ] || mount --bind "$BUILD_DIR" "$ROOT$BUILD_DIR"
		cp -L /etc/resolv.conf "$ROOT/etc/resolv.conf"
		# An authority that this machine trusts, such as a proxy, is trusted inside as well.
		! [ -d /etc/ssl/certs ] || ! [ -d "$ROOT/etc/ssl/certs" ] || mount --bind /etc/ssl/certs "$ROOT/etc/ssl/certs"
		exec chroot "$ROOT" env -i HOME=/root LANG=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin \
			${CARGO_TERM_COLOR:+CARGO_TERM_COLOR=$CARGO_TERM_COLOR} "$@"
	' in_root "$@"
}
