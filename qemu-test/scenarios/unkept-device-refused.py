# SPDX-License-Identifier: GPL-2.0
"""A VM that uses a device whose state is not carried says so; it is not sealed on request, an outage leaves an
image that names the device and is refused, and its owner may allow to go on without."""

from rig.check import check

HOST = "shared"
USB = "USB controller (1b36:000d)"
BYTES, = range(1)


def run(t):
    host = t.boot()
    # SeaBIOS is the driver that puts it to use; the guest has none.
    vm = host.start_vm("vm0", vmm="q35", work="rng", devices={"rng": True}, options=["-device", "qemu-xhci"])
    vm.wait_for("tick", 3, limit=150)
    check(f"vm0: cannot be kept any more: its guest uses {USB}" in host.kernel_log(), "the log does not say so")
    check(host.images()["vm0"]["unkept"], "the list does not say so")
    said = host.run("nvhv show vm0")
    check("USB controller 1b36:000d at 00:02.0: CANNOT BE KEPT" in said, f"it is not shown: {said}")

    sealed = host.attempt("nvhv seal vm0")
    check(sealed.status == 1 and USB in sealed.stderr, f"a seal on request: {sealed}")
    vm.wait_ticks(3).wait_progress(BYTES)
    host.expect_state(vm, "live")

    host.kill_vmm(vm, "KILL")
    host.expect_state(vm, "sealed")
    check(host.images()["vm0"]["unkept"], "the image does not say so")
    host.start_vm_again(vm)
    vm.expect_refused("vm0: refused", USB)
    host.expect_state(vm, "sealed")

    vm.run_options = ["--allow-partial"]
    host.start_vm_again(vm)
    vm.expect_continued().wait_progress(BYTES)
    check("goes on without the state of" in host.kernel_log(), "the log does not say what is missing")
    check("partial=allow" in host.images()["vm0"]["policy"], "what was allowed is not kept")
    host.run("nvhv seal vm0")
    host.kill_vmm(vm, "KILL")
    # What was allowed once need not be said again.
    vm.run_options = []
    host.start_vm_again(vm)
    vm.expect_continued().wait_progress(BYTES)
    host.kill_vmm(vm, "KILL")

    # From the start: it is sealed on request, and says that this is not all of it.
    partial = host.start_vm("vm1", vmm="q35", work="rng", devices={"rng": True}, options=["-device", "qemu-xhci"],
                            run_options=["--allow-partial"])
    partial.wait_for("tick", 3, limit=150)
    row = host.images()["vm1"]
    check(row["partial"] and not row["unkept"], f"the list has {row}")
    host.run("nvhv seal vm1")
    host.kill_vmm(partial, "KILL")
    check(host.images()["vm1"]["partial"], "the image does not say that it is partial")
    host.start_vm_again(partial)
    partial.expect_continued().wait_progress(BYTES)
