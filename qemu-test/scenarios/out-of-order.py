# SPDX-License-Identifier: GPL-2.0
"""A disk answers some requests late, while many times a ring's length of later ones pass: through kills, no
request is lost or done out of its place."""

from rig import slow

LIMIT = 400
SIZE = 16 << 20
RING = 16
ZONE = SIZE // 32  # the guest gives each of its threads such a part, and so the first a slow one
WRITES, READS = range(2)


def run(t):
    host = t.boot()
    slow.make(host, SIZE, (0, ZONE, 2500), (ZONE, SIZE - ZONE, 0))
    devices = {"disk": slow.DEVICE, "queues": 1, "disk_options": f",queue-size={RING}"}
    vm = host.start_vm("vm0", vmm="q35", work="disk", devices=devices)
    vm.wait_for("tick", 5, limit=150)
    vm.wait_progress(WRITES, READS)
    # One outage after the other finds the first thread's request in flight, and overtaken by all of these.
    host.through(vm, *["kill"] * 4, columns=(WRITES, READS), more=10 * RING)
