# SPDX-License-Identifier: GPL-2.0
"""A bound VM leaves with its devices by its VMM's own live migration, and its image goes. It comes back to a VMM that is
bound, and is kept once it has rebooted; once it was resumed, it stays."""

from rig.check import check
from rig.migration import NOWHERE, address, awaiting, expect_arrived, expect_unsealable, goes_on, migrate, reset, wait_status

LIMIT = 900
DISK = "/srv/moving.img"
# As all their disks are the same, so are their devices.
TRAVELLER = {"vmm": "q35", "work": "disk+rng", "append": "depth=4", "devices": {"disk": DISK, "rng": True}}


def run(t):
    host = t.boot()
    host.run(f"mkdir -p /srv && head -c 16M /dev/zero >{DISK} && sync", 60)
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

    # It comes back, and reboots.
    back = awaiting(host, "back", **TRAVELLER)
    migrate(there, address("back"))
    host.kill_vmm(there, "KILL")
    expect_arrived(back, there)
    check("back: cannot be kept until its guest reboots" in host.kernel_log(), "nothing says that it is not kept")
    expect_unsealable(host, back, "configured elsewhere")
    reset(back)
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
