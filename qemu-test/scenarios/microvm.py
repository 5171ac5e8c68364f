# SPDX-License-Identifier: GPL-2.0
"""QEMU microvm through the death of its VMM and of its host."""


def run(t):
    host = t.boot()
    vm = host.start_vm("vm0", vmm="microvm", work="mem", append="size=48")
    vm.wait_for("filled")
    vm.wait_ticks(10)
    host.kill_vmm(vm, "KILL")
    host.start_vm_again(vm)
    vm.expect_continued()
    host.reboot()
    host.boot()
    host.start_vm_again(vm)
    vm.expect_continued(ticks=20)
