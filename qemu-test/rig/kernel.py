# SPDX-License-Identifier: GPL-2.0
"""A stock kernel, as a host under test boots it."""

import subprocess
from pathlib import Path

from .cpio import Cpio
from .paths import BUILD, HERE, OUT, in_root

HOST_MODULES = {"first": ["virtio_blk", "ext4", "9pnet_virtio", "9p"],
                "rest": ["nfit", "nd_pmem", "dax_pmem", "device_dax", "kvm_amd"],
                "systemd": ["overlay"]}


class Kernel:
    """DIRECTORY is what scripts/kernel-image has made; MODULE is where in the host the nvhv.ko for it is."""

    def __init__(self, directory, root, module):
        self.directory = Path(directory)
        self.root = root
        self.module = module
        self.version = self.directory.name.removeprefix("kernel-")
        self.made = self.directory / ".complete"
        self.modules = self.directory / "lib/modules" / self.version
        self.vmlinuz = self.directory / "vmlinuz"
        self.vmlinux = self.unpacked()
        self.initrd = self.initramfs()

    def unpacked(self):
        """The ELF kernel inside the bzImage: booting it spares the emulated decompression."""
        out = self.directory / "vmlinux"
        if not out.exists():
            data = self.vmlinuz.read_bytes()
            setup = (data[0x1F1] or 4) + 1
            start = setup * 512 + int.from_bytes(data[0x248:0x24C], "little")
            length = int.from_bytes(data[0x24C:0x250], "little")
            packed = self.directory / "payload.zst"
            packed.write_bytes(data[start:start + length - 4])
            subprocess.run(in_root(BUILD / "root", "zstd", "-q", "-d", "-f", packed, "-o", out), check=True)
            packed.unlink()
        return out

    def modules_in_order(self, wanted):
        """Module files to load for the wanted ones, each after what it needs."""
        depends = {}
        for line in (self.modules / "modules.dep").read_text().splitlines():
            path, _, needs = line.partition(":")
            depends[path.split("/")[-1].split(".")[0].replace("-", "_")] = [path, *needs.split()]
        builtin = (self.modules / "modules.builtin").read_text().replace("-", "_")
        order = []
        for name in wanted:
            if name not in depends:
                if f"/{name}.ko" in builtin:
                    continue
                raise SystemExit(f"kernel {self.version} has no module {name}")
            for path in reversed(depends[name]):
                if path not in order:
                    order.append(path)
        return [self.modules / path for path in order]

    def initramfs(self):
        """The host's: modules for its disk and shares, KVM and the NVDIMM."""
        out = OUT / f"host-{self.version}.cpio"
        init = HERE / "host/initramfs-init"
        newest = max(path.stat().st_mtime for path in (init, Path(__file__), self.made))
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
