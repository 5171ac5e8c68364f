# SPDX-License-Identifier: GPL-2.0
"""A guest that restarts itself stays the same VM, and continues after its VMM dies."""

from rig.check import check

HOST = "shared"


def run(t):
    host = t.boot()
    vm = host.start_vm("vm0", vmm="q35", work="reset")
    vm.wait_for("restart", limit=120)
    vm.wait_for("restarted", limit=120)
    check(len(vm.messages("boot")) == 2, "the guest should have booted twice")
    vm.wait_ticks(10)
    host.expect_state(vm, "live")
    host.kill_vmm(vm, "KILL")
    host.start_vm_again(vm)
    vm.expect_continued()
