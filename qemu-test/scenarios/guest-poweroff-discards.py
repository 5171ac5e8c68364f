# SPDX-License-Identifier: GPL-2.0
"""A guest that powers itself off leaves no image behind."""

from rig.check import check

HOST = "shared"


def run(t):
    host = t.boot()
    vm = host.start_vm("vm0", vmm="q35", work="poweroff")
    vm.wait_for("poweroff", limit=120)
    status = vm.wait_exit()
    check(status == 0, f"QEMU ended with {status}")
    host.expect_state(vm, None)
    host.start_vm_again(vm)
    vm.expect_cold()
