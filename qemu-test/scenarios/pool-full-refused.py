# SPDX-License-Identifier: GPL-2.0
"""A VM that does not fit is refused when it starts, and those that live go on."""

HARDWARE = {"pmem_size": "258M"}


def run(t):
    host = t.boot()
    first = host.start_vm("vm0", work="counter", memory="128M")
    first.wait_ticks(10)
    second = host.start_vm("vm1", work="counter", memory="160M")
    second.expect_refused("vm1", "refused", "free in the pool")
    first.wait_ticks(5)
    first.expect_healthy()
    host.kill_vmm(first, "KILL")
    host.start_vm_again(first)
    first.expect_continued()
    host.kill_vmm(first, "KILL")
    host.expect_state(first, "sealed")
    host.run("nvhv discard vm0 --force")
    host.start_vm_again(second)
    second.expect_cold()
