# SPDX-License-Identifier: GPL-2.0
"""QEMU's own live migration, from one VMM on a host to another."""

import time

from .check import check

NOWHERE = "exec:cat >/dev/null"


def awaiting(host, name, **description):
    """A VMM that waits for a guest."""
    vm = host.start_vm(name, options=["-incoming", address(name)], **description)
    listens = f"test -S {address(name).removeprefix('unix:')}"
    vm.wait_until(lambda: not host.attempt(listens).status, "socket for a migration", 60)
    return vm


def address(name):
    return f"unix:/tmp/{name}.migration"


def migrate(vm, to, until="completed", rate=1 << 30):
    """Sends a guest away, at so many bytes a second."""
    vm.qmp("migrate-set-parameters", **{"max-bandwidth": rate})
    vm.qmp("migrate", uri=to)
    wait_status(vm, until)


def wait_status(vm, status, limit=120):
    """Waits until its migration is as far as that."""
    deadline = time.monotonic() + limit
    while (now := vm.qmp("query-migrate").get("status")) != status:
        check(now not in ("failed", "completed") and time.monotonic() < deadline,
              f"{vm.name}: its migration is {now}, not {status}: {vm.complaint()}")
        time.sleep(0.2)


def expect_arrived(there, here):
    """The guest goes on: what it says THERE is the rest of what it said HERE."""
    before, rest = here.data(), there.data
    there.data = lambda: before + rest()
    there.cuts = list(here.cuts)
    there.seen = len(here.messages())
    there.expect_continued(ticks=5)


def reset(vm):
    """Resets the machine, maybe in the middle of a line that its guest says: what it says afterwards is all that counts."""
    before, whole = len(vm.data()), vm.data
    vm.qmp("system_reset")
    vm.data = lambda: b"".join(whole()[before:].partition(b"~0 boot")[1:])
    vm.cuts, vm.seen = [], 0


def expect_unsealable(host, vm, *words):
    """It is not sealed on request, which changes nothing."""
    refused = host.attempt(["nvhv", "seal", vm.name])
    said = f"{refused.stderr} {host.run(['nvhv', 'show', vm.name])}"
    check(refused.status == 1 and all(word in said for word in words), f"nothing says {words}: {refused} {said}")
    check(host.images()[vm.name]["unkept"], f"the list does not say that it is not kept: {host.images()}")
    check(host.state_of(vm) == "live", f"{vm.name} is {host.state_of(vm)}")


def goes_on(host, vm):
    """The same command resumes it."""
    host.expect_state(vm, "sealed")
    host.start_vm_again(vm)
    vm.expect_continued(ticks=3)
