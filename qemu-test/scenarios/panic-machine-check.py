# SPDX-License-Identifier: GPL-2.0
"""The host's kernel panics of a fatal machine check: neither its processor nor its memory can be trusted, so nothing is
sealed; the VM is torn, said to be and refused."""

from rig.check import check


def run(t):
    host = t.boot()
    vm = host.start_vm("vm0", work="counter")
    vm.wait_ticks(10)
    check(not host.outlives_panic(vm, "machine-check"), "it went on, with what a broken machine had sealed")
