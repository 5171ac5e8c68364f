# SPDX-License-Identifier: GPL-2.0
"""The same VM through twenty outages of every kind."""

from rig.check import check

LIMIT = 600


OUTAGES = ["kill"] * 5 + ["cut"] + ["term"] * 3 + ["reboot"] + ["kill"] * 4 + ["kexec"] + ["cut"] + ["segv"] * 2 + ["poweroff", "cut"]


def run(t):
    host = t.boot()
    vm = host.start_vm("vm0", work="mem", cpus=2, append="size=32")
    vm.wait_for("filled")
    vm.wait_ticks(5)
    for number, outage in enumerate(OUTAGES, 1):
        host.mark(f"outage {number}: {outage}")
        if outage in ("kill", "term", "segv"):
            host.kill_vmm(vm, outage.upper())
        elif outage == "cut":
            host.run("nvhv seal vm0")
            host.power_cut()
            host.boot()
        elif outage == "kexec":
            host.kexec()
        else:
            getattr(host, outage)()
            host.boot()
        host.start_vm_again(vm)
        vm.expect_continued(ticks=3)
    check(len(OUTAGES) == 20 and len(vm.messages("boot")) == 1, "one guest, twenty outages")
