# SPDX-License-Identifier: GPL-2.0
"""Debian packages alone: installed, they take a VM through a power cut and nobody types anything; upgraded or removed, they
leave one alone that runs."""

import json

from rig.check import check

POOL = False
HARDWARE = {"init": "systemd"}
NEEDS = ["nvhv.ko", "bin/nvhv", "deb"]
LIMIT = 900
INSTALL = "dpkg -i /payload/deb/*.deb"


def runs_on(vm):
    vm.wait_ticks(3, limit=200)
    check(len(vm.expect_healthy().messages("boot")) == 1, f"{vm.name} has booted again")


def run(t):
    host = t.boot()
    host.make_device()
    host.run(INSTALL, 300)
    check(host.run("command -v nvhv").strip() == "/usr/bin/nvhv", "the command is not the installed one")
    check(host.run("systemctl is-enabled nvhv nvhv-resume nvhv-seal").split() == ["enabled"] * 3, "the units are not enabled")
    check("no pool" in host.console.text(0), "nothing told that there is no pool")
    checks = {row["what"]: row["holds"] for row in json.loads(host.attempt("nvhv check --json").stdout)}
    check(checks["module"] and checks["works by itself"] and not checks["pool"], f"`nvhv check` has another opinion: {checks}")
    host.run("nvhv format /dev/dax0.0", 240)
    host.run("modprobe -r nvhv && modprobe nvhv", 60)
    host.has_pool = host.is_installed = True
    vm = host.start_vm("kept")
    vm.wait_ticks(5, limit=200)
    host.run("nvhv enable kept")

    host.run(INSTALL, 300)
    runs_on(vm)
    check(not host.images()["kept"]["frozen"], "an upgrade froze the VM")

    host.run("nvhv seal --all")
    vm.is_about_to_start()
    host.power_cut()
    host.boot()
    vm.expect_continued(ticks=3, limit=200)

    host.run("dpkg --purge nvhv $(dpkg-query -f '${Package} ' -W 'nvhv-module-*')", 300)
    runs_on(vm)
    left = host.attempt("find /usr/bin /usr/lib /usr/share /etc /var/lib/nvhv /var/log -name '*nvhv*' -not -name 'nvhv-agent*'").stdout.split()
    check(not left, f"this is left: {left}")
    host.run("systemctl stop nvhv-vm-kept")
    host.expect_state(vm, "sealed")
    host.run("nvhv discard kept --force")
    host.unload_module()
    host.has_pool = False
