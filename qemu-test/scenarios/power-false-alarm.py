# SPDX-License-Identifier: GPL-2.0
"""Power is said to fail and does not: two VMs stand still until they are thawed, and then go on; it is no outage of theirs."""

from rig import power
from rig.check import check

LIMIT = 600


def run(t):
    host = t.boot()
    power.listen(host)
    vms = [host.start_vm("several", work="smp", cpus=2), host.start_vm("one", work="mem", append="size=32")]
    for trigger in ("nmi", "sysfs", "now"):
        for vm in vms:
            vm.wait_ticks(10, limit=200)
        power.tell(host, trigger)
        for vm in vms:
            host.expect_state(vm, "sealed")
        before = [len(vm.messages()) for vm in vms]
        host.run("sleep 1")
        check(before == [len(vm.messages()) for vm in vms], f"after {trigger} a VM goes on before it is thawed")
        host.run("nvhv thaw --all")
    for vm in vms:
        check(len(vm.expect_healthy().messages("boot")) == 1, f"{vm.name} has booted again")
    host.through(vms[1], "kill")
    check(vms[0].is_running(), "the other VMM has ended")
