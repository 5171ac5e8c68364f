# SPDX-License-Identifier: GPL-2.0
"""Each kind of guest work runs, checks out, and ends as it should."""

POOL = False
LIMIT = 600
HARDWARE = {"reports": 12}


def run(t):
    host = t.boot()
    for work, cpus in (("counter", 2), ("smp", 4), ("fpu", 2), ("clock", 2), ("mem", 1), ("idle", 1)):
        vm = host.start_vm(work, work=work, cpus=cpus, bound=False)
        first = vm.wait_for("tick", 1, limit=120)
        vm.wait_ticks(25)
        vm.expect_healthy()
        t.note(f"{work}: first tick at {first.text.split()[1]}, 25 ticks later {vm.messages('tick')[-1].text}")
        host.kill_vmm(vm, "KILL")
    for work, vmm in (("poweroff", "q35"), ("reset", "q35"), ("reset", "microvm")):
        vm = host.start_vm(f"{work}-{vmm}", vmm=vmm, work=work, bound=False)
        if work == "poweroff":
            assert vm.wait_exit(120) == 0
        else:
            vm.wait_for("restarted", limit=120)
            vm.wait_ticks(5)
            host.kill_vmm(vm, "KILL")
        vm.expect_healthy()
