# SPDX-License-Identifier: GPL-2.0
"""A VMM with other devices does not get the image, the image stays, and the right one continues."""

LIMIT = 400
WRONG = (("rng", False, "virtio-rng"), ("queues", 1, "virtio-blk"), ("net", "tap", "virtio-rng"),
         ("disk_options", ",serial=other,event_idx=off", "virtio-blk"))


def run(t):
    host = t.boot()
    vm = host.start_vm("vm0", vmm="q35", work="disk+rng", devices={"disk": "16M", "rng": True})
    vm.wait_for("tick", 5, limit=150)
    vm.wait_progress(0, 1, 3)
    host.kill_vmm(vm, "KILL")
    for what, wrong, device in WRONG:
        right = getattr(vm.devices, what)
        setattr(vm.devices, what, wrong)
        host.start_vm_again(vm)
        vm.expect_refused("vm0", "refused", f"another device: {device} ", " at 00:")
        setattr(vm.devices, what, right)
        host.expect_state(vm, "sealed")
    host.start_vm_again(vm)
    vm.expect_continued()
    vm.wait_progress(0, 1, 3)
