# SPDX-License-Identifier: GPL-2.0
"""QEMU's pc: SeaBIOS, ACPI, and the i440FX with conventional PCI; virtio-pci with MSI-X."""

from vmm import qemu


def command(vm):
    return qemu.command(vm, "pc", "pci")
