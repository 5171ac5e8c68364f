# SPDX-License-Identifier: GPL-2.0
"""The host's kernel has no memory left and panics of it: its VM is sealed nevertheless, and goes on after."""

HARDWARE = {"memory": "1G"}  # little to fill


def run(t):
    host = t.boot()
    vm = host.start_vm("vm0", work="counter")
    vm.wait_ticks(10)
    host.through(vm, "panic oom")
