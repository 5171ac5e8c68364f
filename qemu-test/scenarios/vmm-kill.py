# SPDX-License-Identifier: GPL-2.0
"""The VMM is killed by SIGKILL; its guest continues, as often as one likes."""

from rig.check import check

HOST = "shared"


def run(t):
    host = t.boot()
    vm = host.start_vm("vm0", work="counter")
    vm.wait_ticks(10)
    for _ in range(3):
        status = host.kill_vmm(vm, "KILL")
        check(status == -9, f"the VMM ended with {status}")
        host.expect_state(vm, "sealed")
        host.start_vm_again(vm)
        vm.expect_continued()
        host.expect_state(vm, "live")
