# SPDX-License-Identifier: GPL-2.0
"""The host starts a new kernel by kexec, with no firmware in between; its guest continues."""


def run(t):
    host = t.boot()
    vm = host.start_vm("vm0", work="counter")
    vm.wait_ticks(10)
    host.kexec()
    host.expect_state(vm, "sealed")
    host.start_vm_again(vm)
    vm.expect_continued()
