# SPDX-License-Identifier: GPL-2.0
"""Two VMs live side by side; each continues as itself."""

from rig.check import check

HOST = "shared"


def run(t):
    host = t.boot()
    one = host.start_vm("one", work="counter")
    two = host.start_vm("two", work="mem", append="size=40")
    one.wait_ticks(10)
    two.wait_for("filled")
    host.kill_vmm(one, "KILL")
    two.wait_ticks(10)
    host.start_vm_again(one)
    one.expect_continued()
    second_claim = host.attempt(one.command(), timeout=20)
    check(second_claim.status != 0, "a name that lives cannot be claimed again")
    host.kill_vmm(two, "KILL")
    host.kill_vmm(one, "KILL")
    host.start_vm_again(two)
    host.start_vm_again(one)
    two.expect_continued()
    one.expect_continued()
