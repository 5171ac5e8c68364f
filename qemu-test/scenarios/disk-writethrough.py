# SPDX-License-Identifier: GPL-2.0
"""A file system on a disk in the host's page cache, with holes in its image file, loses nothing in power cuts
if the guest's driver is not shown the cache."""

from rig.check import check

LIMIT = 900
APPENDED, SYNCED, COMPARED = range(3)
DISK = {"disk": "32M", "filesystem": True, "holes": True, "cache": "writeback"}


def run(t, options=("--disk=writethrough",)):
    host = t.boot()
    vm = host.start_vm("vm0", vmm="q35", work="ext4", devices=DISK, append="until=60", run_options=options)
    vm.wait_for("mounted", limit=150)
    vm.wait_ticks(3)
    check_report(host, vm)
    vm.wait_progress(APPENDED, COMPARED, more=5)
    host.through(vm, "kill", "cut", "cut", columns=(APPENDED, COMPARED), more=5)
    check_report(host, vm)
    vm.wait_for("unmounted", limit=300)
    vm.expect_healthy()
    host.kill_vmm(vm, "KILL")
    vm.devices.check_filesystem()


def check_report(host, vm):
    """The image file is known to be in the page cache, and the guest to know of no cache."""
    check(vm.devices.disk_path in host.kernel_log(), "the log does not say which disk is in the page cache")
    shown = host.nvhv_json("show", vm.name)
    cached = [device["name"] for device in shown["devices"] if device["kind"] == "cached"]
    check(cached == [vm.devices.disk_path], f"in the page cache are {cached}")
    disk, = (device for device in shown["devices"] if device["name"] == "virtio-blk")
    check(disk["text"] == "its driver knows of no cache", f"the disk is {disk}")
    check("disk=writethrough" in shown["policy"], f"the policy is {shown['policy']}")
