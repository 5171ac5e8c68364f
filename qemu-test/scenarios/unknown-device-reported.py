# SPDX-License-Identifier: GPL-2.0
"""A device that is not understood is reported by where it is, and the devices that are by what they are."""

from rig.check import check

HOST = "shared"
PORT = 0x4E0  # a second debug port, which the guest is told to write to


def run(t):
    host = t.boot()
    options = ["-chardev", "null,id=unknown", "-device", f"isa-debugcon,iobase={PORT:#x},chardev=unknown"]
    vm = host.start_vm("vm0", vmm="q35", work="rng", devices={"rng": True}, options=options, append=f"poke={PORT:#x}")
    vm.wait_for("poked", limit=150)
    vm.wait_ticks(3)
    said = host.run("nvhv show vm0")
    check(f"{PORT:#x}" in said, f"the unknown port is not reported: {said}")
    check("virtio-rng at 00:01.0: kept" in said, f"the entropy device is not reported: {said}")
    check("0xe9" not in said, f"a debug port that keeps no state is reported: {said}")
    check("CANNOT" not in said, f"something cannot be kept: {said}")
    shown = host.nvhv_json("show", "vm0")
    kinds = {device["kind"] for device in shown["devices"]}
    check({"virtio", "queue", "pci", "registers"} <= kinds, f"reported are only {kinds}")
    queues = [device for device in shown["devices"] if device["kind"] == "queue"]
    check([(q["keeping"], q["in_flight"] in (0, 1)) for q in queues] == [("kept", True)], f"its queues are {queues}")
