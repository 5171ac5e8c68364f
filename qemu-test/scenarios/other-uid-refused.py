# SPDX-License-Identifier: GPL-2.0
"""An image belongs to the user who made it: nobody else resumes, reads or discards it."""

from rig.check import check

HOST = "shared"


ALICE, BOB = 1001, 1002


def run(t):
    host = t.boot()
    denied = host.attempt("nvhv list", uid=ALICE)
    check(denied.status != 0, "/dev/nvhv is root's alone until the administrator says otherwise")
    host.run("chmod 666 /dev/nvhv /dev/kvm && chmod 1777 /share")
    vm = host.start_vm("alices", work="counter", uid=ALICE)
    vm.wait_ticks(10)
    host.kill_vmm(vm, "KILL")
    host.expect_state(vm, "sealed")
    check(host.images()["alices"]["uid"] == ALICE, "the image should be Alice's")
    host.run("rm -f /tmp/alices.qmp; chmod 666 /share/alices.*")

    vm.uid = BOB
    host.start_vm_again(vm)
    vm.expect_refused("alices")
    for verb in ("nvhv discard alices --force", "nvhv seal alices", "nvhv thaw alices"):
        result = host.attempt(verb, uid=BOB)
        check(result.status != 0, f"Bob should not be allowed: {verb}")
    host.expect_state(vm, "sealed")

    host.run("rm -f /tmp/alices.qmp")
    vm.uid = ALICE
    host.start_vm_again(vm)
    vm.expect_continued()
    host.run("chmod 600 /dev/nvhv")
