# SPDX-License-Identifier: GPL-2.0
"""A VMM of another shape (RAM, processors) does not get the image, and the image stays."""

from rig.check import check

HOST = "shared"


def run(t):
    host = t.boot()
    vm = host.start_vm("vm0", work="counter", cpus=1, memory="128M")
    vm.wait_ticks(10)
    host.kill_vmm(vm, "KILL")
    for what, wrong in (("memory", "160M"), ("memory", "96M"), ("cpus", 2)):
        right = getattr(vm, what)
        setattr(vm, what, wrong)
        host.start_vm_again(vm)
        vm.expect_refused("vm0", "refused")
        setattr(vm, what, right)
        host.expect_state(vm, "sealed")
    host.start_vm_again(vm)
    vm.expect_continued()
    # With the owner's consent a mismatching image is set aside instead, whole.
    host.kill_vmm(vm, "KILL")
    host.expect_state(vm, "sealed")
    vm.memory, vm.run_options = "160M", ["--policy", "torn=cold"]
    host.start_vm_again(vm)
    vm.expect_cold()
    aside = [image for image in host.nvhv_json("list")["vms"] if image["state"] == "sealed"]
    check(len(aside) == 1, f"the image was not set aside: {aside}")
    host.run(f"nvhv discard '#{aside[0]['slot']}' --force")
