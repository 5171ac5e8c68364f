# SPDX-License-Identifier: GPL-2.0
"""With a split irqchip, PIC, PIT and IOAPIC live in the VMM; the guest's devices go on nevertheless."""

LIMIT = 600
DEVICES = {"disk": "16M", "rng": True}
WRITES, READS, FLUSHES, BYTES = range(4)


def run(t):
    host = t.boot()
    for vmm in ("q35", "pc", "microvm"):
        vm = host.start_vm(vmm, vmm=vmm, irqchip="split", work="disk+rng", devices=DEVICES)
        vm.wait_for("tick", 5, limit=150)
        vm.wait_progress(WRITES, READS, FLUSHES, BYTES)
        host.through(vm, "kill", "cut", "kill", columns=(WRITES, READS, FLUSHES, BYTES))
        host.kill_vmm(vm, "KILL")
