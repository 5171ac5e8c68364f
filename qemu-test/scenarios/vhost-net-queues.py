# SPDX-License-Identifier: GPL-2.0
"""How many pairs of queues its driver uses is told to each VMM's network device, and by that to the host's tap."""

import json

from rig.check import check

LIMIT = 400
SENT, RECEIVED = range(2)


def run(t):
    host = t.boot()
    vm = host.start_vm("vm0", vmm="q35", cpus=2, work="net", devices={"net": "vhost", "net_queues": 2}, append="reconnect=yes")
    vm.wait_for("tick", 5, limit=150)
    vm.wait_progress(SENT, RECEIVED)
    expect_both(host, vm)
    for outage in ("kill", "kill", "cut"):
        host.through(vm, outage, columns=(SENT, RECEIVED))
        expect_both(host, vm)


def expect_both(host, vm):
    """Both of the tap's queues are in use: QEMU disables the second one until its device is told otherwise."""
    [link] = json.loads(host.run(f"ip -d -j link show {vm.devices.tap}"))
    about = link["linkinfo"]["info_data"]
    found = about["numqueues"], about["numdisabled"]
    check(found == (2, 0), f"queues of the tap in use and disabled: {found}")
