# SPDX-License-Identifier: GPL-2.0
"""What a host under test is made of: kernel, initramfs, disk image and the read-only payload share.

Everything is cached under build/ and made again when what it is made of changes. The disk image
holds only the Debian root; what changes often (module, tool, guests, the host's init) travels in
the payload share, so a rebuilt module needs no new image.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from .cpio import Cpio
from .kernel import Kernel
from .paths import BUILD, HERE, OUT, PAYLOAD, in_root, script

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


class Built(NamedTuple):
    """What became of the module for a kernel: one of these files is there."""

    module: Path
    lacks: Path
    failed: Path


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
        self.kernel = Kernel(script("kernel-image"), self.root, "/payload/nvhv.ko")
        self.image = self.disk_image()
        self.fill_share()
        self.guest_initramfs()

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
        copies = {"vmlinuz": self.kernel.vmlinuz, "vmlinux": self.kernel.vmlinux, "initramfs": self.kernel.initrd,
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
        self.share_modules(self.kernel)

    def share_modules(self, kernel):
        """Adds the modules of a kernel to what a host finds in /lib/modules."""
        modules = PAYLOAD / "modules" / kernel.version
        mark = PAYLOAD / f"modules.{kernel.version}"
        if mark.exists():
            return
        shutil.rmtree(modules, ignore_errors=True)
        shutil.copytree(kernel.modules, modules, copy_function=os.link)
        mark.touch()

    @staticmethod
    def matrix():
        """What `make matrix` has made of each kernel, the newest first; nothing if it has not come to its end."""
        listed = BUILD / "matrix/list"
        versions = listed.read_text().split() if listed.exists() else []
        return {version: Built(*(BUILD / "matrix" / version / name for name in Built._fields)) for version in versions}

    def other_kernel(self):
        """The newest kernel of another series that the module is built for, or None."""
        series = lambda version: version.split(".")[:2]
        for version, built in self.matrix().items():
            if built.module.exists() and series(version) != series(self.kernel.version):
                with self.locked():
                    kernel = Kernel(script("kernel-image", KERNEL=version), self.root, f"/payload/nvhv-{version}.ko")
                    refresh(built.module, PAYLOAD / f"nvhv-{version}.ko")
                    self.share_modules(kernel)
                return kernel
        return None

    def guest_initramfs(self):
        """The guests' initramfs: our program alone, with Debian's Redis and a network beside it, or with modules for devices."""
        program = Path(script("build-guest"))
        refresh(program, PAYLOAD / "bin/nvhv-guest")
        line = Path(script("build-guest-line"))
        newest = max(path.stat().st_mtime for path in (program, line, Path(__file__), Path(f"{self.root}.recipe"), self.kernel.made))
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
            paths = self.kernel.modules_in_order(modules) + ([line] if name == "guest-line" else [])
            order = [archive.module(path) for path in paths]
            archive.file("modules/order", "".join(order).encode(), 0o644)
            archive.tree(self.root, [name for file in files for name in (file, *self.libraries(file))])
            archive.write(out)

    def newer_vmm(self):
        """Adds the QEMU that the rig itself runs, of backports, to the share, with all that it needs: a /usr for it alone."""
        program = "/usr/bin/qemu-system-x86_64"
        recipe = Path(f"{self.tools}.recipe").read_text()
        usr, mark = PAYLOAD / "newer/usr", PAYLOAD / "newer/recipe"
        with self.locked():
            if mark.exists() and mark.read_text() == recipe:
                return
            shutil.rmtree(usr, ignore_errors=True)
            for name in (program, *self.libraries(program, self.tools)):
                target = usr / name.removeprefix("/usr").lstrip("/")
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(self.tools / name.lstrip("/"), target)
            for name in ("share/qemu", "share/seabios"):
                shutil.copytree(self.tools / "usr" / name, usr / name, ignore_dangling_symlinks=True)
            mark.write_text(recipe)

    def libraries(self, program, root=None):
        """The shared libraries that a program of a root loads, the host's if no other is named."""
        out = subprocess.run(in_root(root or self.root, "ldd", program), check=True, stdout=subprocess.PIPE, text=True).stdout
        return [word for line in out.splitlines() for word in line.split() if word.startswith("/")]


def refresh(source, target):
    """Copies a file when it is newer or missing, so that a reader never sees half of it."""
    if not source.exists():
        target.unlink(missing_ok=True)
    elif not target.exists() or source.stat().st_mtime != target.stat().st_mtime:
        new = target.with_name(target.name + ".new")
        shutil.copy2(source, new)
        new.rename(target)
