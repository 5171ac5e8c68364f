# SPDX-License-Identifier: GPL-2.0
"""Alioth, a VMM that has nothing in common with QEMU: its guest outlives VMM and host."""

NEEDS = ["nvhv.ko", "bin/nvhv", "bin/alioth"]


def run(t):
    host = t.boot()
    vm = host.start_vm("vm0", vmm="alioth", work="counter")
    vm.wait_ticks(10, limit=150)
    host.through(vm, "kill", "cut", "reboot", "kill")
