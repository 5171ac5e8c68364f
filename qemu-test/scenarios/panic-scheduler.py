# SPDX-License-Identifier: GPL-2.0
"""The host's one processor panics with the lock of its run queue held: nobody can seal the VM, and it is refused."""

from rig.check import check


def run(t):
    host = t.boot()
    vm = host.start_vm("vm0", work="counter")
    vm.wait_ticks(10)
    check(not host.outlives_panic(vm, "runqueue"), "it went on, though nobody can have sealed it")
