# SPDX-License-Identifier: GPL-2.0
"""A TCP connection with streams both ways outlives the VMM; after the loss of the host, where its
other end was, the guest's network works and the guest connects again."""

from rig.check import check

LIMIT = 600
NET = {"net": "tap"}
SENT, RECEIVED, CONNECTIONS = range(3)


def run(t, net=NET, cpus=1):
    host = t.boot()
    vm = host.start_vm("vm0", vmm="q35", cpus=cpus, work="net", devices=net, append="reconnect=yes")
    vm.wait_for("tick", 5, limit=150)
    vm.wait_progress(SENT, RECEIVED)
    host.through(vm, "kill", "kill", "kill", columns=(SENT, RECEIVED), more=50)
    check(vm.progress()[CONNECTIONS] == 1, f"the connection was lost: {vm.messages('reconnect')}, {vm.devices.said('stream')}")
    host.through(vm, "cut", "kill", columns=(SENT, RECEIVED), more=50)
    check(vm.progress()[CONNECTIONS] == 2, f"one new connection was expected: {vm.messages('reconnect')}")
