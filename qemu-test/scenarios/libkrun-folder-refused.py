# SPDX-License-Identifier: GPL-2.0
"""A VM of libkrun that has a folder of its host by virtio-fs, with a DAX window, says that it is not kept with it,
and goes on without it if its owner allows that."""

from rig.check import check
from vmm import libkrun

LIMIT = 600
HOST = "shared"
NEEDS = libkrun.NEEDS
WHY = "virtio-fs (type 26) at mmio@"


def run(t):
    host = t.boot()
    vm = host.start_vm("vm0", vmm="libkrun", work="rng", devices={"rng": True}, share="/srv", window=32)
    vm.wait_for("tick", 5, limit=150)
    sealed = host.attempt("nvhv seal vm0")
    check(sealed.status == 1 and WHY in sealed.stderr, f"a seal on request: {sealed}")
    vm.wait_ticks(3)
    host.kill_vmm(vm, "KILL")
    host.start_vm_again(vm)
    vm.expect_refused("vm0: refused", WHY)
    host.expect_state(vm, "sealed")
    vm.run_options = ["--allow-partial"]
    host.start_vm_again(vm)
    vm.expect_continued().wait_progress(0)
    host.kill_vmm(vm, "KILL")
