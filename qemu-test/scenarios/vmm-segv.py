# SPDX-License-Identifier: GPL-2.0
"""The VMM crashes; its guest continues."""

HOST = "shared"


def run(t):
    host = t.boot()
    for name in ("SEGV", "ABRT"):
        vm = host.start_vm(f"vm-{name.lower()}", work="counter")
        vm.wait_ticks(10)
        host.kill_vmm(vm, name)
        host.expect_state(vm, "sealed")
        host.start_vm_again(vm)
        vm.expect_continued()
        host.kill_vmm(vm, "KILL")
