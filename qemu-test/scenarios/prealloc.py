# SPDX-License-Identifier: GPL-2.0
"""RAM that the VMM populated in advance is taken over and continues."""

HOST = "shared"


BACKEND = "memory-backend-ram,id=ram,size=128M,prealloc=on"


def run(t):
    host = t.boot()
    machine = "microvm,x-option-roms=off,pit=off,pic=off,rtc=on,isa-serial=on,acpi=off,kernel-irqchip=on,memory-backend=ram"
    vm = host.start_vm("vm0", machine=machine, options=["-object", BACKEND], work="mem", append="size=48")
    vm.wait_for("filled")
    for _ in range(2):
        vm.wait_ticks(10)
        host.kill_vmm(vm, "KILL")
        host.start_vm_again(vm)
        vm.expect_continued()
