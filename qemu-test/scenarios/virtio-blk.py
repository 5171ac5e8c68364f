# SPDX-License-Identifier: GPL-2.0
"""A virtio disk on PCI with two queues and 32 requests in flight goes on through ten outages."""

LIMIT = 900

OUTAGES = ["kill"] * 4 + ["cut"] + ["kill"] * 3 + ["cut", "kill"]


def run(t):
    host = t.boot()
    vm = host.start_vm("vm0", vmm="q35", cpus=2, work="disk", devices={"disk": "16M"})
    vm.wait_for("tick", 5, limit=150)
    vm.wait_progress(0, 1, 2)
    host.through(vm, *OUTAGES, columns=(0, 1, 2))
    t.note(f"the disk at the end: {vm.progress()} writes, reads, flushes")
