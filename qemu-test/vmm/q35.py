# SPDX-License-Identifier: GPL-2.0
"""QEMU's q35: SeaBIOS, ACPI, PCI Express with ECAM, the PAM registers, PIC, PIT and HPET; virtio-pci with MSI-X."""

from vmm import qemu


def command(vm):
    return qemu.command(vm, "q35", "pci")
