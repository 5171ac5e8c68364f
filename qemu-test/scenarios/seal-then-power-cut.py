# SPDX-License-Identifier: GPL-2.0
"""A VM sealed on request outlives a power cut without any further notice."""

from rig.check import check


def run(t):
    host = t.boot()
    vm = host.start_vm("vm0", work="counter")
    vm.wait_ticks(10)
    host.run("nvhv seal vm0")
    host.expect_state(vm, "sealed")
    host.power_cut()
    host.boot()
    host.expect_state(vm, "sealed")
    host.start_vm_again(vm)
    vm.expect_continued()
    # A sealed VM that is thawed instead goes on under the VMM it has.
    host.run("nvhv seal --all")
    heard = len(vm.messages())
    host.run("sleep 2")
    check(len(vm.messages()) == heard, "a sealed guest still runs")
    host.run("nvhv thaw vm0")
    host.expect_state(vm, "live")
    vm.wait_ticks(5)
    vm.expect_healthy()
