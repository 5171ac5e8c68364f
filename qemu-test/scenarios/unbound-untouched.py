# SPDX-License-Identifier: GPL-2.0
"""A VM that is not bound to a name runs as if the module were not there."""

from rig.check import check

HOST = "shared"


def run(t):
    host = t.boot()
    host.note_log()
    vm = host.start_vm("plain", vmm="microvm", work="counter", bound=False)
    vm.wait_ticks(10)
    vm.expect_healthy()
    check("plain" not in host.images(), "an unbound VM has an image")
    # A VM that the module had touched would hold the module.
    host.unload_module()
    vm.wait_ticks(5)
    host.load_module()
    vm.wait_ticks(5)
    vm.expect_healthy()
    host.kill_vmm(vm, "KILL")
    host.start_vm_again(vm)
    vm.expect_cold()
    check("plain:" not in host.kernel_log(), "the module has something to say of an unbound VM")
