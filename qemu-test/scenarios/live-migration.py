# SPDX-License-Identifier: GPL-2.0
"""A bound VM leaves by its VMM's own live migration, and its image goes; if it may have left, its image is not resumed. One
that comes from elsewhere is kept once its guest has rebooted."""

import time

from rig.check import check

HARDWARE = {"reports": 6}
LIMIT = 900
DISK = "/srv/moving.img"
# As all their disks are the same, so are their devices.
TRAVELLER = {"vmm": "q35", "work": "disk+rng", "append": "depth=4", "devices": {"disk": DISK, "rng": True}}
PLAIN = {"work": "mem", "append": "size=32", "accel": "kvm,dirty-ring-size=4096"}
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


def expect_unsealable(host, vm, *words):
    """It is not sealed on request, and runs on or stands still as before."""
    refused = host.attempt(["nvhv", "seal", vm.name])
    said = f"{refused.stderr} {host.run(['nvhv', 'show', vm.name])}"
    check(refused.status == 1 and all(word in said for word in words), f"nothing says {words}: {refused} {said}")
    check(host.images()[vm.name]["unkept"], f"the list does not say that it is not kept: {host.images()}")
    check(host.state_of(vm) == "live", f"{vm.name} is {host.state_of(vm)}")


def refuses(host, vm, *words):
    host.expect_state(vm, "sealed")
    host.start_vm_again(vm)
    vm.expect_refused(vm.name, *words)
    host.expect_state(vm, "sealed")


def goes_on(host, vm):
    host.expect_state(vm, "sealed")
    host.start_vm_again(vm)
    vm.expect_continued(ticks=3)


def run(t):
    host = t.boot()
    host.run(f"mkdir -p /srv && head -c 16M /dev/zero >{DISK} && sync", 60)
    with_devices(host)
    without(host)


def with_devices(host):
    here = host.start_vm("here", **TRAVELLER)
    here.wait_ticks(3, limit=200).wait_progress(0, 3)

    # It does not go after all.
    migrate(here, NOWHERE, "active", 1 << 20)
    here.wait_ticks(2)
    here.qmp("migrate_cancel")
    wait_status(here, "cancelled")
    here.wait_progress(0, 3).expect_healthy()

    # It goes.
    there = awaiting(host, "there", bound=False, **TRAVELLER)
    migrate(here, address("there"))
    expect_unsealable(host, here, "migrated")
    expect_arrived(there, here)
    here.qmp("quit")
    check(here.wait_exit() == 0, "QEMU has not quit in order")
    host.expect_state(here, None)
    there.wait_progress(0, 3).expect_healthy()

    # It comes back, to a VMM that is bound, and is kept once it has rebooted.
    back = awaiting(host, "back", **TRAVELLER)
    migrate(there, address("back"))
    host.kill_vmm(there, "KILL")
    expect_arrived(back, there)
    check("back: cannot be kept until its guest reboots" in host.kernel_log(), "nothing says that it is not kept")
    expect_unsealable(host, back, "configured elsewhere")
    back.is_about_to_start()
    back.is_ours = True
    back.qmp("system_reset")
    back.wait_for("tick", 3, limit=200)
    check(not host.images()["back"]["unkept"], "it has rebooted and is not kept")
    back.wait_progress(0, 3)
    host.kill_vmm(back, "KILL")
    back.extra["options"] = []
    goes_on(host, back)
    back.wait_progress(0, 3).expect_healthy()

    # Now its queues count otherwise: it stays, which QEMU takes for a reason to abort.
    back.qmp("migrate", uri=NOWHERE)
    status = back.wait_exit()
    check(status == -6, f"QEMU ended with {status}")
    check("cannot be migrated until its guest has rebooted" in host.kernel_log(), "nothing says why it stays")
    goes_on(host, back)
    back.wait_progress(0, 3).expect_healthy()
    host.kill_vmm(back, "KILL")


def without(host):
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
