# SPDX-License-Identifier: GPL-2.0
"""A disk behind a virtio SCSI controller with 32 requests in flight goes on through the loss of VMM and host; a
connection to the host by vhost-vsock is reset by it, and a new one works."""

from rig.check import check

LIMIT = 600
WRITES, READS, FLUSHES, SENT, RECEIVED, CONNECTIONS = range(6)


def run(t):
    host = t.boot()
    vm = host.start_vm("vm0", vmm="q35", work="disk+net", devices={"disk": "16M", "bus": "scsi", "vsock": True},
                       append="reconnect=yes")
    vm.wait_for("tick", 5, limit=150)
    vm.wait_progress(WRITES, READS, FLUSHES, SENT, RECEIVED)
    for number, outage in enumerate(("kill", "cut", "kill"), 2):
        host.through(vm, outage, columns=(WRITES, READS, FLUSHES))
        vm.wait_progress(SENT, RECEIVED)
        check(vm.progress()[CONNECTIONS] == number, f"one new connection each time: {vm.messages('reconnect')}")
    t.note(f"at the end: {vm.progress()} writes, reads, flushes, sent, received, connections")
