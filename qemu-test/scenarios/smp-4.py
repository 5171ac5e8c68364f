# SPDX-License-Identifier: GPL-2.0
"""Four processors under load, with timers and interrupts between them, continue together."""

from rig.check import check

HARDWARE = {"cpus": 2}
LIMIT = 600


def run(t):
    host = t.boot()
    vm = host.start_vm("vm0", work="smp", cpus=4)
    vm.wait_ticks(15, limit=150)
    for _ in range(3):
        before = vm.progress()
        host.kill_vmm(vm, "KILL")
        host.start_vm_again(vm)
        vm.expect_continued(ticks=15)
        after = vm.progress()
        check(all(a > b for a, b in zip(after, before)), f"ring, barriers, shootdowns, timers: {before}, then {after}")
