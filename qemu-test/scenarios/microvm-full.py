# SPDX-License-Identifier: GPL-2.0
"""A whole Debian with systemd and Redis, on a disk of its own, with network, console and entropy,
outlives its VMM and its host on a microvm; Redis answers the outside through it all."""

from rig.check import check

LIMIT = 1800
HARDWARE = {"guest_disk": True}
KEYS = 5_000
DEVICES = {"disk": "/dev/vdb", "net": "tap", "console": True, "rng": True}
WORK = "redis+net+console+rng"
ACKNOWLEDGED, SENT, RECEIVED, CONNECTIONS, ECHOED, AGAIN, DAMAGED, BYTES = range(8)
ALIVE = (ACKNOWLEDGED, SENT, RECEIVED, ECHOED, BYTES)


def ask(host, vm):
    """What Redis in the guest tells a client in the host: its run and how many keys it has."""
    cli = f"redis-cli -h {vm.devices.network}.2"
    run_id = host.run(f"{cli} info server | grep run_id", 60).strip()
    return run_id, int(host.run(f"{cli} dbsize", 60))


def run(t, vmm="microvm", modern=True):
    host = t.boot()
    vm = host.start_vm("full", vmm=vmm, work=WORK, memory="224M", devices=DEVICES,
                       append=f"root=/dev/vda systemd.show_status=false systemd.getty_auto=false data=service reconnect=yes keys={KEYS}", modern=modern)
    vm.wait_for("ready", limit=600)
    vm.wait_for("tick", 5, limit=60)
    vm.wait_progress(*ALIVE)
    server = vm.messages("server")[-1].text
    run_id, keys = ask(host, vm)
    t.note(f"up after {vm.messages('ready')[-1].text} ms of the guest's time, with {keys} keys")
    for outage in ("kill", "cut", "reboot"):
        host.through(vm, outage, columns=ALIVE)
        now_id, now_keys = ask(host, vm)
        check(now_id == run_id, f"it was {run_id}, it is {now_id}")
        check(now_keys >= keys, f"there were {keys} keys, there are {now_keys}")
        keys = now_keys
    said = vm.wait_for("verify", 1, limit=300).text
    check(said.endswith("missing=0"), f"acknowledged writes are missing: {said}")
    check(vm.messages("server")[-1].text == server, "it is another process")
    check(" bad=0 " in vm.messages("dataset")[-1].text, f"the data is bad: {vm.messages('dataset')[-1].text}")
