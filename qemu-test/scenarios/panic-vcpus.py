# SPDX-License-Identifier: GPL-2.0
"""Two VMs, one with four vCPUs that work, wait and interrupt each other, outlive panics in a process, without and with a
spinlock held."""

LIMIT = 900


def run(t):
    host = t.boot()
    several = host.start_vm("several", work="smp", cpus=4)
    several.wait_ticks(10, limit=200)
    one = host.start_vm("one", work="mem", append="size=16")
    one.wait_ticks(5, limit=200)
    for cause in ("call", "lock"):
        host.panic(cause)
        host.boot()
        for vm in (several, one):
            host.expect_state(vm, "sealed")
            host.start_vm_again(vm)
        for vm in (several, one):
            vm.expect_continued(ticks=10, limit=150)
