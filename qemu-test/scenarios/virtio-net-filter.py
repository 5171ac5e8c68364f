# SPDX-License-Identifier: GPL-2.0
"""A network device's filters, which its driver set by commands, are the same in each VMM that goes on with it."""

from rig.check import check

LIMIT = 400
SENT, RECEIVED = range(2)


def run(t):
    host = t.boot()
    # Devices are notified by eventfds on microvm, by exits on q35.
    for vmm, options in (("q35", ["-global", "virtio-pci.ioeventfd=off"]), ("microvm", [])):
        vm = host.start_vm(vmm, vmm=vmm, work="net", devices={"net": "tap"}, append="reconnect=yes", options=options)
        vm.wait_for("tick", 5, limit=150)
        vm.wait_progress(SENT, RECEIVED)
        before = vm.qmp("query-rx-filter")
        # Of itself a QEMU lets all pass.
        check(before and not before[0]["promiscuous"], f"the driver has set no filter: {before}")
        check(before[0]["multicast-table"], f"the driver has added no address: {before}")
        for outage in ("kill", "cut", "kill"):
            host.through(vm, outage, columns=(SENT, RECEIVED))
            now = vm.qmp("query-rx-filter")
            check(now == before, f"after {outage}: {now}; it was: {before}")
        host.kill_vmm(vm, "KILL")
