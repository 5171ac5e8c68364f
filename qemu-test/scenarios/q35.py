# SPDX-License-Identifier: GPL-2.0
"""QEMU q35 with SeaBIOS, PAM slots, PIC, PIT and HPET, through the death of its VMM and of its host."""


def run(t):
    host = t.boot()
    vm = host.start_vm("vm0", vmm="q35", work="mem", cpus=2, append="size=48")
    vm.wait_for("filled", limit=150)
    vm.wait_ticks(10)
    host.kill_vmm(vm, "KILL")
    host.start_vm_again(vm)
    vm.expect_continued()
    host.reboot()
    host.boot()
    host.start_vm_again(vm)
    vm.expect_continued(ticks=20)
