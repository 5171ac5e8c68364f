# SPDX-License-Identifier: GPL-2.0
"""Clocks never go back, and a long outage brings no soft lockup and no unstable clock source."""

LIMIT = 400


import time

from rig.check import check


def run(t):
    host = t.boot()
    vm = host.start_vm("vm0", work="clock", cpus=2)
    vm.wait_ticks(15)
    host.kill_vmm(vm, "KILL")
    time.sleep(30)  # longer than the soft lockup's limit
    host.start_vm_again(vm)
    vm.expect_continued(ticks=20)
    host.run("nvhv seal vm0")
    host.power_cut()
    host.boot()
    host.start_vm_again(vm)
    vm.expect_continued(ticks=40)
    distrust = [message.text for message in vm.messages("unstable")]
    check(not distrust, f"the guest trusts a clock no more: {distrust}")
    for jump in vm.messages("jump"):
        t.note(f"the guest saw a jump: {jump.text} ms")
