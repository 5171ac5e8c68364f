# SPDX-License-Identifier: GPL-2.0
"""A guest that used its devices, restarted and uses them again continues: its first life is not replayed."""

from rig.check import check

LIMIT = 600
DEVICES = {"disk": "16M", "rng": True}
WRITES, READS, FLUSHES, BYTES = range(4)


def run(t):
    host = t.boot()
    for vmm in ("q35", "microvm"):
        vm = host.start_vm(vmm, vmm=vmm, work="reset", append="with=disk+rng after=5 depth=4", devices=DEVICES)
        vm.wait_for("restarted", limit=240)
        check(len(vm.messages("boot")) == 2, "the guest should have booted twice")
        vm.wait_ticks(3)
        vm.wait_progress(WRITES, READS, FLUSHES, BYTES)
        host.through(vm, "kill", "cut", columns=(WRITES, READS, FLUSHES, BYTES))
        host.kill_vmm(vm, "KILL")
