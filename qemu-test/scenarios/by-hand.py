# SPDX-License-Identifier: GPL-2.0
"""What the README shows under "By hand" works, line by line, on a host without systemd."""

from rig.check import check
from rig.docs import commands

POOL = False
NEEDS = ["nvhv.ko", "bin/nvhv"]


def run(t):
    host = t.boot()
    host.make_device()
    host.run("nvhv format /dev/dax0.0", 240)
    vm = None
    for line in commands("README.md", "By hand"):
        if line.startswith("nvhv run --name db "):
            vm = host.start_vm("db").wait_ticks(3)
        elif line == "kill %1":
            host.kill_vmm(vm, "TERM")
            host.expect_state(vm, "sealed")
            host.start_vm_again(vm)
            vm.expect_continued(ticks=3)
            host.kill_vmm(vm, "TERM")
        elif line == "nvhv check":
            said = host.attempt(line, 60)
            check("ok  module" in said.stdout and "ok  pool" in said.stdout, f"{line}: {said}")
        else:
            host.run(line.replace("build/nvhv.ko", host.kernel.module), 120)
            host.has_pool = host.has_pool or line.startswith("insmod")
        if line.startswith("nvhv thaw"):
            vm.wait_ticks(3)
    host.expect_state(vm, None)
    check(len(vm.expect_healthy().messages("boot")) == 1, "the guest has booted again")
