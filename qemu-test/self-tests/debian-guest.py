# SPDX-License-Identifier: GPL-2.0
"""A whole Debian with systemd and Redis comes up on its disk and answers the outside; a guest restarts with its devices."""

POOL = False
LIMIT = 600
HARDWARE = {"guest_disk": True}


def run(t):
    host = t.boot()
    devices = {"disk": "/dev/vdb", "net": "tap", "console": True, "rng": True}
    vm = host.start_vm("full", vmm="q35", work="redis+net+console+rng", bound=False, memory="224M", devices=devices,
                       append="root=/dev/vda systemd.show_status=false data=service reconnect=yes keys=5000")
    vm.wait_for("ready", limit=300)
    t.note(f"Redis was ready after {vm.messages('ready')[-1].text} ms of the guest's time")
    vm.wait_for("tick", 1, limit=60)
    vm.wait_progress(0, 1, 2, 4, 7)
    host.run(f"redis-cli -h {vm.devices.network}.2 dbsize", 60)
    vm.expect_healthy()
    host.kill_vmm(vm, "KILL")
    vm = host.start_vm("restart", vmm="q35", work="reset", bound=False, append="with=disk+rng after=10 depth=8",
                       devices={"disk": "16M", "rng": True})
    vm.wait_for("restarted", limit=240)
    vm.wait_ticks(3)
    vm.wait_progress(0, 1, 3).expect_healthy()
