# SPDX-License-Identifier: GPL-2.0
"""libkrun (https://github.com/containers/libkrun), started by the program of tests/libkrun-vmm: no firmware,
no ACPI and no PCI, an MP table, virtio-mmio of version 2. A balloon and an entropy device are always there;
the rest is asked for. With a split irqchip it has an I/O APIC of its own, and there is neither PIC nor PIT.

It tells the kernel of its devices on the command line, which takes a module of ours in the guest
(tests/guest-line). Reports leave by its second serial port, which has no state while nobody uses it.
`vsock=True` adds a socket device, `share=` a folder of the host by virtio-fs, with a DAX window of `window=` MiB.
"""

NEEDS = ["nvhv.ko", "bin/nvhv", "bin/libkrun-vmm"]
REPORT = 0x2F8  # COM2


def command(vm):
    return [
        "libkrun-vmm", "--cpus", str(vm.cpus), "--memory", str(vm.memory).removesuffix("M"), "--irqchip", vm.irqchip,
        "--kernel", "/payload/vmlinux", "--initrd", "/payload/guest-line.cpio",
        "--append", f"{vm.cmdline} report={REPORT:#x}",
        "--serial", vm.console, "--serial", vm.report,
        *virtio(vm.devices),
        *(("--vsock", "on") if vm.extra.get("vsock") else ()),
        *(("--share", vm.extra["share"], "--window", str(vm.extra.get("window", 0))) if "share" in vm.extra else ()),
    ]


def virtio(devices):
    """The virtio devices of a VM, each with its back end in the host."""
    if devices.disk:
        yield from ("--disk", devices.disk_path, "--disk-cache", devices.cache)
    if devices.net:
        yield from ("--tap", devices.tap, "--mac", devices.mac)
