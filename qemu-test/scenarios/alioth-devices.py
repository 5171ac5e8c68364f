# SPDX-License-Identifier: GPL-2.0
"""The disk, network and entropy devices of Alioth, on PCI with MSI-X, go on in another Alioth."""

from rig.check import check

LIMIT = 900
NEEDS = ["nvhv.ko", "bin/nvhv", "bin/alioth"]
# Alioth keeps a disk in the host's page cache and acknowledges a flush without one.
DEVICES = {"disk": "16M", "sync": True, "net": "tap", "rng": True}
WRITES, READS, FLUSHES, SENT, RECEIVED, CONNECTIONS, BYTES = range(7)
ALIVE = (WRITES, READS, FLUSHES, SENT, RECEIVED, BYTES)


def run(t):
    host = t.boot()
    vm = host.start_vm("vm0", vmm="alioth", backend="memfd", work="disk+net+rng", devices=DEVICES, append="depth=8 reconnect=yes")
    vm.wait_for("tick", 5, limit=150)
    vm.wait_progress(*ALIVE)
    check("page cache" not in host.kernel_log(), "an image file that is written out at once is taken for one that is not")
    host.through(vm, "kill", "kill", "cut", "reboot", "kill", columns=ALIVE)
    t.note(f"at the end: {vm.progress()}")
