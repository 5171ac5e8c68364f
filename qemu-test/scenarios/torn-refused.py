# SPDX-License-Identifier: GPL-2.0
"""A power cut with no seal leaves a torn image: it is never resumed, and says so."""

from rig.check import check


def run(t):
    host = t.boot()
    vm = host.start_vm("vm0", work="counter")
    vm.wait_ticks(10)
    host.power_cut()
    host.boot()
    host.expect_state(vm, "torn")
    host.start_vm_again(vm)
    vm.expect_refused("vm0", "torn")
    host.expect_state(vm, "torn")
    vm.run_options = ["--policy", "torn=cold"]
    host.start_vm_again(vm)
    vm.expect_cold()
    host.expect_state(vm, "live")
    aside = [image for image in host.nvhv_json("list")["vms"] if image["state"] == "torn"]
    check(len(aside) == 1, f"the torn image was not set aside: {aside}")
    host.run(f"nvhv discard '#{aside[0]['slot']}' --force")
    host.kill_vmm(vm, "KILL")
    host.run("nvhv discard vm0 --force")
    vm.run_options = []
    host.start_vm_again(vm)
    vm.wait_ticks(3)
    host.power_cut()
    host.boot()
    host.expect_state(vm, "torn")
    check(host.attempt("nvhv discard vm0").status != 0, "discard without --force must say what would be lost and stop")
    host.run("nvhv discard vm0 --force")
    host.start_vm_again(vm)
    vm.expect_cold()
