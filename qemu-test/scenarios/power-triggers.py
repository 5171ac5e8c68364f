# SPDX-License-Identifier: GPL-2.0
"""Power is said to fail by the tool, by sysfs, by an NMI, by the power button, and then fails: each time the VM goes on."""

from rig import power

LIMIT = 600


def run(t):
    host = t.boot()
    power.listen(host)
    vm = host.start_vm("vm0", work="mem", append="size=32")
    for trigger in power.TRIGGERS:
        vm.wait_ticks(10)
        power.fail(host, trigger)
        host.boot()
        host.expect_cause(vm, "power")
        host.start_vm_again(vm)
        vm.expect_continued()
