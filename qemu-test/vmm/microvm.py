# SPDX-License-Identifier: GPL-2.0
"""QEMU's microvm: no PCI; virtio devices, if any, are virtio-mmio. `modern=True` makes them virtio 1,
which microvm does not by itself.

The stock kernel finds virtio-mmio through ACPI only (CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES is off), so a
microvm has ACPI when it has devices and none otherwise, unless `acpi=` says so. With ACPI the firmware
is SeaBIOS, which starts the kernel by an option ROM; without, it is qboot, which needs none. A second
IOAPIC, which QEMU adds for virtio-mmio and keeps to itself, gets no EOI from an irqchip in the kernel:
its first level-triggered interrupt is its last. So it is there with a split irqchip only.
"""

from vmm import qemu

MACHINE = "microvm,pit=off,pic=off,rtc=on,isa-serial=on"


def command(vm):
    acpi = vm.extra.get("acpi", vm.devices.any())
    more = f"acpi=on,ioapic2={'on' if vm.irqchip == 'split' else 'off'}" if acpi else "acpi=off,x-option-roms=off"
    modern = ("-global", "virtio-mmio.force-legacy=false") if vm.extra.get("modern") else ()
    return qemu.command(vm, f"{MACHINE},{more}", "device", *modern)
