# SPDX-License-Identifier: GPL-2.0
"""The host's one processor panics with a spinlock held, by a warning, and as it lets nobody else run: its VM goes on."""

LIMIT = 600


def run(t):
    host = t.boot()
    vm = host.start_vm("vm0", work="mem", append="size=32")
    vm.wait_ticks(10)
    host.through(vm, "panic lock", "panic warning", "panic softlockup")
