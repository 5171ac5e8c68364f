# SPDX-License-Identifier: GPL-2.0
"""A file system that was mounted through four outages has every byte, and e2fsck has nothing to say."""

LIMIT = 600
APPENDED, SYNCED, COMPARED = range(3)


def run(t):
    host = t.boot()
    vm = host.start_vm("vm0", vmm="q35", work="ext4", devices={"disk": "32M", "filesystem": True}, append="until=60")
    vm.wait_for("mounted", limit=150)
    vm.wait_ticks(3)
    vm.wait_progress(APPENDED, COMPARED, more=5)
    host.through(vm, "kill", "kill", "cut", "kill", columns=(APPENDED, COMPARED), more=5)
    vm.wait_for("unmounted", limit=300)
    vm.expect_healthy()
    host.kill_vmm(vm, "KILL")
    vm.devices.check_filesystem()
