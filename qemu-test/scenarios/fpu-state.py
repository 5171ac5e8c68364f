# SPDX-License-Identifier: GPL-2.0
"""The AVX registers hold their patterns across the death of the VMM and a power cut."""

LIMIT = 400


def run(t):
    host = t.boot()
    vm = host.start_vm("vm0", work="fpu", cpus=2)
    vm.wait_ticks(10)
    for _ in range(5):
        host.kill_vmm(vm, "KILL")
        host.start_vm_again(vm)
        vm.expect_continued(ticks=5)
    host.run("nvhv seal vm0")
    host.power_cut()
    host.boot()
    host.start_vm_again(vm)
    vm.expect_continued()
