# SPDX-License-Identifier: GPL-2.0
"""A guest that restarts itself under Alioth, which gives it fresh RAM and does not set its processor to the
reset vector, continues with the devices of its present life."""

LIMIT = 900
NEEDS = ["nvhv.ko", "bin/nvhv", "bin/alioth"]


def run(t):
    host = t.boot()
    # It has no memory that outlives a restart, so it restarts itself again and again.
    vm = host.start_vm("vm0", vmm="alioth", work="reset", devices={"rng": True}, append="reboot=acpi with=rng after=60")
    vm.wait_for("boot", 2, limit=500)
    vm.wait_ticks(5)
    for _ in range(2):
        host.kill_vmm(vm, "KILL")
        host.start_vm_again(vm)
        vm.expect_continued()
    vm.wait_for("boot", 1, limit=240)
    vm.wait_ticks(5)
    vm.expect_healthy()
