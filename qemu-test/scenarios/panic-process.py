# SPDX-License-Identifier: GPL-2.0
"""The host's kernel panics where it holds no spinlock: with one processor too its VM is sealed before, and goes on after."""

LIMIT = 600


def run(t):
    host = t.boot()
    vm = host.start_vm("vm0", work="mem", append="size=32")
    vm.wait_ticks(10)
    host.through(vm, "panic sysrq", "panic call", "panic irqs-off", "panic null", "panic bug")
