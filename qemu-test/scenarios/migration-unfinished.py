# SPDX-License-Identifier: GPL-2.0
"""A VMM is lost while it migrates its guest: the VM is resumed if it had not left yet, and refused if it may have. A guest
that has come from elsewhere and was not rebooted is refused as well."""

from rig.check import check
from rig.migration import NOWHERE, address, awaiting, expect_arrived, expect_unsealable, goes_on, migrate

LIMIT = 600
PLAIN = {"work": "mem", "append": "size=16", "accel": "kvm,dirty-ring-size=4096"}


def refuses(host, vm, *words):
    host.expect_state(vm, "sealed")
    host.start_vm_again(vm)
    vm.expect_refused(vm.name, *words)
    host.expect_state(vm, "sealed")


def run(t):
    host = t.boot()
    left = host.start_vm("left", **PLAIN)
    left.wait_for("filled")
    check("dirty ring not available" in left.complaint(), "it has a ring of dirty pages")

    # Lost while its guest still runs here.
    migrate(left, NOWHERE, "active", 1 << 20)
    host.kill_vmm(left, "KILL")
    goes_on(host, left)

    # Lost, and told to end, when nobody can know any more.
    for signal in ("KILL", "TERM"):
        migrate(left, NOWHERE)
        expect_unsealable(host, left, "migrated")
        host.kill_vmm(left, signal)
        refuses(host, left, "may live elsewhere")
        left.run_options = ["--policy", "moved=resume"]
        goes_on(host, left)
        left.run_options = []

    came = awaiting(host, "came", **PLAIN)
    migrate(left, address("came"))
    expect_arrived(came, left)
    host.kill_vmm(came, "KILL")
    came.extra["options"] = []
    refuses(host, came, "configured elsewhere")
