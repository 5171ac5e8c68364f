# SPDX-License-Identifier: GPL-2.0
"""The VMM is told to end by SIGTERM and exits in good order; the image is kept all the same."""

from rig.check import check

HOST = "shared"


def run(t):
    host = t.boot()
    for name in ("TERM", "INT", "HUP"):
        vm = host.start_vm(f"vm-{name.lower()}", work="counter")
        vm.wait_ticks(10)
        status = host.kill_vmm(vm, name)
        check(status == 0, f"QEMU should have exited by itself, not with {status}")
        host.expect_state(vm, "sealed")
        host.start_vm_again(vm)
        vm.expect_continued()
        host.kill_vmm(vm, "KILL")
