# SPDX-License-Identifier: GPL-2.0
"""Lines over a virtio console come back through outages; at most those on their way at a cut come again."""

from rig.check import check

LIMIT = 600
ECHOED, AGAIN, DAMAGED = range(3)


def run(t):
    host = t.boot()
    for vmm in ("q35", "microvm"):
        vm = host.start_vm(vmm, vmm=vmm, work="console", devices={"console": True})
        vm.wait_for("tick", 5, limit=150)
        vm.wait_progress(ECHOED)
        _, again, damaged = vm.progress()
        outages = ["kill", "kill", "cut", "kill"]
        host.through(vm, *outages, columns=(ECHOED,))
        now = vm.progress()
        check(now[AGAIN] - again <= len(outages), f"{now[AGAIN] - again} lines were lost by {len(outages)} outages")
        check(now[DAMAGED] - damaged <= len(outages), f"{now[DAMAGED] - damaged} lines were damaged by {len(outages)} outages")
        host.kill_vmm(vm, "KILL")
