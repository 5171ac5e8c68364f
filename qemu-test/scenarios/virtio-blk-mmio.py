# SPDX-License-Identifier: GPL-2.0
"""A virtio disk on microvm goes on, as a legacy and as a modern virtio-mmio device."""

LIMIT = 600


def run(t):
    host = t.boot()
    for name, modern in (("legacy", False), ("modern", True)):
        vm = host.start_vm(name, vmm="microvm", modern=modern, work="disk", devices={"disk": "16M"})
        vm.wait_for("tick", 5, limit=150)
        vm.wait_progress(0, 1, 2)
        host.through(vm, "kill", "kill", "cut", "kill", columns=(0, 1, 2))
        host.kill_vmm(vm, "KILL")
