# SPDX-License-Identifier: GPL-2.0
"""Alioth (https://github.com/google/alioth): it boots Linux without firmware, reaches PCI by ports and by
ECAM, and has an I/O APIC of its own and virtio-pci with MSI-X. There is no PIC, PIT, RTC or debug port.

Its only UART prints what it is sent at once, to standard output: that is where reports go, so it is not the
guest's console. Alioth wants a terminal as its standard input, which the master of a new one is.
`backend=` is what its RAM is made of: `anon` or `memfd`.
"""

REPORT = 0x3F8  # COM1, transmitter holding register


def command(vm):
    words = [word for word in vm.cmdline.split() if not word.startswith("console=")]
    return [
        "sh", "-c", f'exec "$@" <>/dev/ptmx >{vm.report}', "sh",
        "alioth", "boot",
        "--cpu", f"count={vm.cpus}", "--memory", f"size={vm.memory},backend={vm.extra.get('backend', 'anon')}",
        "--kernel", vm.kernel, "--initramfs", vm.initrd, "--cmdline", " ".join([*words, f"report={REPORT:#x}"]),
        *virtio(vm.devices),
    ]


def virtio(devices):
    """The virtio devices of a VM, each with its back end in the host."""
    if devices.disk:
        yield from ("--blk", f"file,path={devices.disk_path}")
    if devices.net:
        yield from ("--net", f"if={devices.tap},mac={devices.mac},mtu=1500,qp={devices.net_queues}")
    if devices.rng:
        yield "--entropy"
