# SPDX-License-Identifier: GPL-2.0
"""The host reboots in good order; its guest continues."""


def run(t):
    host = t.boot()
    vm = host.start_vm("vm0", work="counter")
    vm.wait_ticks(10)
    for _ in range(2):
        host.reboot()
        host.boot()
        host.expect_state(vm, "sealed")
        host.start_vm_again(vm)
        vm.expect_continued()
