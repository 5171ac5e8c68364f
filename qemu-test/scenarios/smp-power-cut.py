# SPDX-License-Identifier: GPL-2.0
"""Four processors under load outlive seal and power cut, and an orderly reboot."""

HARDWARE = {"cpus": 2}
LIMIT = 600


def run(t):
    host = t.boot()
    vm = host.start_vm("vm0", work="smp", cpus=4)
    vm.wait_ticks(15, limit=150)
    host.run("nvhv seal vm0")
    host.power_cut()
    host.boot()
    host.start_vm_again(vm)
    vm.expect_continued(ticks=15)
    host.reboot()
    host.boot()
    host.start_vm_again(vm)
    vm.expect_continued(ticks=15)
