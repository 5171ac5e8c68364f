# SPDX-License-Identifier: GPL-2.0
"""The module refuses to go while a bound VM lives, and goes and comes back otherwise."""

from rig.check import check


def run(t):
    host = t.boot()
    vm = host.start_vm("vm0", work="counter")
    vm.wait_ticks(10)
    check(host.attempt("rmmod nvhv").status != 0, "the module went away under a VM that lives")
    vm.wait_ticks(5)
    host.kill_vmm(vm, "KILL")
    host.expect_state(vm, "sealed")
    for _ in range(3):
        host.unload_module()
        host.load_module()
    host.expect_state(vm, "sealed")
    host.start_vm_again(vm)
    vm.expect_continued()
    plain = host.start_vm("plain", work="counter", bound=False)
    plain.wait_ticks(3)
    host.kill_vmm(vm, "KILL")
    host.expect_state(vm, "sealed")
    host.unload_module()
    plain.wait_ticks(5)
    plain.expect_healthy()
    host.load_module()
