# SPDX-License-Identifier: GPL-2.0
"""A VMM that ends on its own, with no signal, is done with its guest: the image goes."""

from rig.check import check

HOST = "shared"


def run(t):
    host = t.boot()
    vm = host.start_vm("vm0", work="counter")
    vm.wait_ticks(10)
    vm.qmp("quit")
    status = vm.wait_exit()
    check(status == 0, f"QEMU quit with {status}")
    host.expect_state(vm, None)
    host.start_vm_again(vm)
    vm.expect_cold()
