# SPDX-License-Identifier: GPL-2.0
"""A VMM that gives the guest another CPUID does not get the image, and the image stays."""

HOST = "shared"


def run(t):
    host = t.boot()
    vm = host.start_vm("vm0", work="counter")
    vm.wait_ticks(10)
    host.kill_vmm(vm, "KILL")
    for wrong in ("EPYC", "host,-avx2"):
        right, vm.cpu = vm.cpu, wrong
        host.start_vm_again(vm)
        vm.expect_refused("vm0", "cpuid")
        vm.cpu = right
        host.expect_state(vm, "sealed")
    host.start_vm_again(vm)
    vm.expect_continued()
