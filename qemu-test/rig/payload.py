# SPDX-License-Identifier: GPL-2.0
"""What a host under test is made of: kernel, initramfs, disk image and the read-only payload share.

Everything is cached under build/ and made again when what it is made of changes. The disk image
holds only the Debian root; what changes often (module, tool, guests, the host's init) travels in
the payload share, so a rebuilt module needs no new image.
"""

import fcntl
import hashlib
import lzma
import os
import shutil
import stat
import subprocess
from contextlib import contextmanager
from pathlib import Path

from .paths import BUILD, HERE, OUT, PAYLOAD, in_root, script

HOST_MODULES = {"first": ["virtio_blk", "ext4", "9pnet_virtio", "9p"],
                "rest": ["nfit", "nd_pmem", "dax_pmem", "device_dax", "kvm_amd"],
                "systemd": ["overlay"]}
# The agent as a service of a host with systemd. It goes down last, by the rig's own doing.
AGENT_UNIT = """[Unit]
Description=Agent of the rig
DefaultDependencies=no
After=local-fs.target
[Service]
ExecStart=/payload/host/init
KillMode=none
[Install]
WantedBy=sysinit.target
"""
# virtio-pci and virtio-console are part of the stock kernel.
GUEST_MODULES = ["virtio_mmio", "virtio_blk", "virtio_net", "virtio_rng", "ext4"]
# For VMMs that tell of virtio-mmio devices on the command line only: what such VMMs have is used.
GUEST_LINE_MODULES = [*GUEST_MODULES, "virtio_balloon", "vmw_vsock_virtio_transport", "virtiofs"]
MORE_GUEST_MODULES = ["virtio_scsi", "sd_mod", "virtio_balloon", "vmw_vsock_virtio_transport", "virtio_pmem", "nd_pmem"]
IMAGE_SIZE = "3G"  # sparse
GUEST_IMAGE_SIZE = "1G"


class Payload:
    """Paths of all that a host under test boots from."""

    def __init__(self, kernel=None):
        if kernel:
            os.environ["KERNEL"] = kernel
        OUT.mkdir(parents=True, exist_ok=True)
        with self.locked():
            self.make()

    @staticmethod
    @contextmanager
    def locked():
        """Nobody else makes anything meanwhile."""
        with open(OUT / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def make(self):
        script("build-root")
        self.share = PAYLOAD
        self.tools = Path(script("tools-root"))
        self.root = Path(script("host-root"))
        self.kernel = Path(script("kernel-image"))
        self.version = self.kernel.name.removeprefix("kernel-")
        self.vmlinuz = self.kernel / "vmlinuz"
        self.vmlinux = self.unpacked_kernel()
        self.initrd = self.host_initramfs()
        self.image = self.disk_image()
        self.fill_share()
        self.guest_initramfs()

    def unpacked_kernel(self):
        """The ELF kernel inside the bzImage: booting it spares the emulated decompression."""
        out = self.kernel / "vmlinux"
        if not out.exists():
            data = self.vmlinuz.read_bytes()
            setup = (data[0x1F1] or 4) + 1
            start = setup * 512 + int.from_bytes(data[0x248:0x24C], "little")
            length = int.from_bytes(data[0x24C:0x250], "little")
            packed = self.kernel / "payload.zst"
            packed.write_bytes(data[start:start + length - 4])
            subprocess.run(in_root(BUILD / "root", "zstd", "-q", "-d", "-f", packed, "-o", out), check=True)
            packed.unlink()
        return out

    def modules_in_order(self, wanted):
        """Module files to load for the wanted ones, each after what it needs."""
        base = self.kernel / "lib/modules" / self.version
        depends = {}
        for line in (base / "modules.dep").read_text().splitlines():
            path, _, needs = line.partition(":")
            depends[path.split("/")[-1].split(".")[0].replace("-", "_")] = [path, *needs.split()]
        builtin = (base / "modules.builtin").read_text().replace("-", "_")
        order = []
        for name in wanted:
            if name not in depends:
                if f"/{name}.ko" in builtin:
                    continue
                raise SystemExit(f"kernel {self.version} has no module {name}")
            for path in reversed(depends[name]):
                if path not in order:
                    order.append(path)
        return [base / path for path in order]

    def host_initramfs(self):
        out = OUT / f"host-{self.version}.cpio"
        init = HERE / "host/initramfs-init"
        newest = max(path.stat().st_mtime for path in (init, Path(__file__), self.kernel / ".complete"))
        if out.exists() and out.stat().st_mtime > newest:
            return out
        archive = Cpio()
        for directory in ("bin", "dev", "proc", "sys", "root", "modules"):
            archive.directory(directory)
        archive.node("dev/console", 5, 1)
        busybox = self.root / "bin/busybox"
        archive.file("bin/busybox", busybox.read_bytes())
        for name in ("sh", "mount", "insmod", "chroot"):
            archive.link(f"bin/{name}", "busybox")
        done = set()
        for stage, wanted in HOST_MODULES.items():
            order = []
            for path in self.modules_in_order(wanted):
                if path not in done:
                    done.add(path)
                    order.append(archive.module(path))
            archive.file(f"modules/{stage}", "".join(order).encode(), 0o644)
        archive.file("init", init.read_bytes())
        archive.write(out)
        return out

    def disk_image(self):
        for directory in ("payload", "share", "lib/modules", "var/modules/upper", "var/modules/work", "etc/systemd/system/sysinit.target.wants"):
            (self.root / directory).mkdir(parents=True, exist_ok=True)
        unit = self.root / "etc/systemd/system/nvhv-agent.service"
        unit.write_text(AGENT_UNIT)
        wanted = unit.parent / "sysinit.target.wants" / unit.name
        wanted.unlink(missing_ok=True)
        wanted.symlink_to(f"../{unit.name}")
        return self.ext4_of(self.root, "host", IMAGE_SIZE)

    def ext4_of(self, root, kind, size):
        """An image of a root, made again when its recipe changes."""
        recipe = Path(f"{root}.recipe").read_text()
        name = hashlib.sha256((recipe + size + AGENT_UNIT).encode()).hexdigest()[:12]
        out = OUT / f"{kind}-{name}.ext4"
        if not out.exists():
            for old in OUT.glob(f"{kind}-*.ext4"):
                old.unlink()
            new = out.with_suffix(".new")
            new.unlink(missing_ok=True)
            subprocess.run(in_root(self.tools, "mke2fs", "-q", "-t", "ext4", "-E",
                                   "lazy_itable_init=1,lazy_journal_init=1", "-d", root, new, size), check=True)
            new.rename(out)
        return out

    def guest_image(self):
        """A disk with a whole Debian for a guest, made when a host first asks for it."""
        with self.locked():
            root = Path(script("guest-root"))
            return self.ext4_of(root, "guest", GUEST_IMAGE_SIZE)

    def fill_share(self):
        """Brings the payload share up to date; what is not built yet is left out."""
        (PAYLOAD / "bin").mkdir(parents=True, exist_ok=True)
        (PAYLOAD / "host").mkdir(exist_ok=True)
        copies = {"vmlinuz": self.vmlinuz, "vmlinux": self.vmlinux, "initramfs": self.initrd,
                  "host/init": HERE / "host/init", "nvhv.ko": BUILD / "nvhv.ko",
                  "nvhv_crash.ko": BUILD / "crash/nvhv_crash.ko", "bin/nvhv": BUILD / "nvhv",
                  "bin/tiny-vmm": BUILD / "tiny-vmm", "bin/alioth": BUILD / "alioth",
                  "bin/libkrun-vmm": BUILD / "libkrun-vmm"}
        for name, source in copies.items():
            refresh(source, PAYLOAD / name)
        if copies["bin/nvhv"].exists() and copies["nvhv.ko"].exists():
            shutil.rmtree(PAYLOAD / "install", ignore_errors=True)
            script("install", DESTDIR=PAYLOAD / "install")
        for kind in ("deb", "deb-next"):
            shutil.rmtree(PAYLOAD / kind, ignore_errors=True)
            for package in (BUILD / kind).glob("*.deb"):
                (PAYLOAD / kind).mkdir(exist_ok=True)
                refresh(package, PAYLOAD / kind / package.name)
        modules = PAYLOAD / "modules"
        if (modules / ".version").exists() and (modules / ".version").read_text() == self.version:
            return
        shutil.rmtree(modules, ignore_errors=True)
        shutil.copytree(self.kernel / "lib/modules", modules, copy_function=os.link)
        (modules / ".version").write_text(self.version)

    def guest_initramfs(self):
        """The guests' initramfs: our program alone, with Debian's Redis and a network beside it, or with modules for devices."""
        program = Path(script("build-guest"))
        refresh(program, PAYLOAD / "bin/nvhv-guest")
        line = Path(script("build-guest-line"))
        newest = max(path.stat().st_mtime for path in (program, line, Path(__file__), Path(f"{self.root}.recipe"), self.kernel / ".complete"))
        for name, files, modules in (("guest", [], []), ("guest-redis", ["/usr/bin/redis-server"], ["virtio_net"]),
                                     ("guest-devices", [], GUEST_MODULES), ("guest-more", [], MORE_GUEST_MODULES),
                                     ("guest-line", [], GUEST_LINE_MODULES)):
            out = PAYLOAD / f"{name}.cpio"
            if out.exists() and out.stat().st_mtime > newest:
                continue
            archive = Cpio()
            for directory in ("dev", "proc", "sys", "tmp", "data", "modules"):
                archive.directory(directory)
            archive.node("dev/console", 5, 1)
            archive.file("init", program.read_bytes())
            paths = self.modules_in_order(modules) + ([line] if name == "guest-line" else [])
            order = [archive.module(path) for path in paths]
            archive.file("modules/order", "".join(order).encode(), 0o644)
            archive.tree(self.root, [name for file in files for name in (file, *self.libraries(file))])
            archive.write(out)

    def libraries(self, program):
        """The shared libraries that a program of the host's root loads."""
        out = subprocess.run(in_root(self.root, "ldd", program), check=True, stdout=subprocess.PIPE, text=True).stdout
        return [word for line in out.splitlines() for word in line.split() if word.startswith("/")]


def refresh(source, target):
    """Copies a file when it is newer or missing, so that a reader never sees half of it."""
    if not source.exists():
        target.unlink(missing_ok=True)
    elif not target.exists() or source.stat().st_mtime != target.stat().st_mtime:
        new = target.with_name(target.name + ".new")
        shutil.copy2(source, new)
        new.rename(target)


class Cpio:
    """An uncompressed newc archive, as the kernel wants its initramfs."""

    def __init__(self):
        self.parts = []
        self.inode = 0

    def entry(self, name, mode, data=b"", major=0, minor=0):
        self.inode += 1
        fields = [self.inode, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(name) + 1, 0]
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        self.parts += [pad4(head), pad4(data)]

    def directory(self, name):
        self.entry(name, stat.S_IFDIR | 0o755)

    def node(self, name, major, minor):
        self.entry(name, stat.S_IFCHR | 0o600, b"", major, minor)

    def link(self, name, to):
        self.entry(name, stat.S_IFLNK | 0o777, to.encode())

    def file(self, name, data, mode=0o755):
        self.entry(name, stat.S_IFREG | mode, data)

    def module(self, path):
        """Adds a kernel module to modules/; returns a line of the list that whoever loads them reads."""
        name = path.name.removesuffix(".xz")
        data = path.read_bytes()
        self.file(f"modules/{name}", lzma.decompress(data) if path.suffix == ".xz" else data, 0o644)
        return f"/modules/{name}\n"

    def tree(self, root, names):
        """Adds files of a root under their own names, with the directories and links on the way."""
        made = set()
        for name in names:
            path = Path(name)
            for parent in reversed(path.parents):
                if str(parent) not in ("/", ".") and parent not in made:
                    made.add(parent)
                    self.directory(str(parent).lstrip("/"))
            self.file(str(path).lstrip("/"), (Path(root) / str(path).lstrip("/")).read_bytes())

    def write(self, path):
        self.entry("TRAILER!!!", 0)
        new = path.with_suffix(".new")
        data = b"".join(self.parts)
        # In whole pages: a VMM may put its end at the end of RAM, and the kernel wants its beginning at a page's.
        new.write_bytes(data + bytes(-len(data) % 4096))
        new.rename(path)


def pad4(data):
    return data + b"\0" * (-len(data) % 4)
