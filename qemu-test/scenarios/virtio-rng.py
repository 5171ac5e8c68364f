# SPDX-License-Identifier: GPL-2.0
"""A virtio entropy device goes on giving, on PCI and on virtio-mmio."""

LIMIT = 400


def run(t):
    host = t.boot()
    for vmm in ("q35", "microvm"):
        vm = host.start_vm(vmm, vmm=vmm, work="rng", devices={"rng": True})
        vm.wait_for("tick", 5, limit=150)
        vm.wait_progress(0)
        host.through(vm, "kill", "kill", "cut", columns=(0,))
        host.kill_vmm(vm, "KILL")
