# SPDX-License-Identifier: GPL-2.0
"""Power is said to fail by the tool, by sysfs, by an NMI, by the power button, and then fails: each time the VM goes on."""

from rig import power

LIMIT = 600


def run(t):
    host = t.boot()
    power.listen(host)
    vm = host.start_vm("vm0", work="mem", append="size=32")
    for trigger in ("now", "sysfs", "nmi", "button"):
        vm.wait_ticks(10)
        power.tell(host, trigger)
        host.expect_state(vm, "sealed")
        host.power_cut()
        host.boot()
        host.expect_cause(vm, "power")
        host.start_vm_again(vm)
        vm.expect_continued()
