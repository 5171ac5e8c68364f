# SPDX-License-Identifier: GPL-2.0
"""Debian packages alone: installed as the README shows, they take a VM through a power cut and nobody types anything; upgraded
to the next version, downgraded or removed, they leave one alone that runs."""

from rig.check import check
from rig.docs import commands

POOL = False
HARDWARE = {"init": "systemd"}
NEEDS = ["nvhv.ko", "bin/nvhv", "deb", "deb-next"]
LIMIT = 900
PACKAGES = "nvhv_*.deb", "nvhv-module-*.deb"


def install(host, kind="deb"):
    host.run(f"cd /payload/{kind} && dpkg -i {' '.join(PACKAGES)}", 300)


def is_installed(host):
    """That the packages are there, and say what is missing."""
    check(host.run("command -v nvhv").strip() == "/usr/bin/nvhv", "the command is not the installed one")
    check(host.run("systemctl is-enabled nvhv nvhv-resume nvhv-seal").split() == ["enabled"] * 3, "the units are not enabled")
    check("no pool" in host.console.text(0), "nothing told that there is no pool")
    checks = {row["what"]: row["holds"] for row in host.nvhv_json("check", status=1)}
    check(checks["module"] and checks["works by itself"] and not checks["pool"], f"`nvhv check` has another opinion: {checks}")


def versions(host):
    """Of the command, and of the module that is loaded."""
    found = next(row for row in host.nvhv_json("check") if row["what"] == "same version")
    command = host.run("nvhv --version").split()[1]
    module = host.run("nvhv metrics").partition('nvhv_info{version="')[2].partition('"')[0]
    check(found["holds"] == (command == module), f"it is {command} and {module}, and `nvhv check` says: {found}")
    check(command in found["found"] and module in found["found"], f"{found}")
    return command, module


def runs_on(vm):
    vm.wait_ticks(3, limit=200)
    check(len(vm.expect_healthy().messages("boot")) == 1, f"{vm.name} has booted again")


def run(t):
    host = t.boot()
    for line in commands("README.md", "By itself"):
        if line.startswith("nvhv run --name redis "):
            vm = host.start_vm("redis").wait_ticks(5, limit=200)
        else:
            host.run(line.replace("build/deb", "/payload/deb"), 300)
        if line.startswith("dpkg"):
            is_installed(host)
            host.has_pool = host.is_installed = True
    old = versions(host)
    check(old[0] == old[1], f"the command and the module that were installed together are {old}")

    host.run("systemctl restart nvhv", 120)
    runs_on(vm)

    # The module stays, and the new command talks to it.
    install(host, "deb-next")
    new, loaded = versions(host)
    check(new != old[0] and loaded == old[1], f"after an upgrade from {old} the command is {new}, the module {loaded}")
    runs_on(vm)
    check(not host.images()["redis"]["frozen"], "an upgrade froze the VM")
    host.run("nvhv seal redis && nvhv thaw redis")
    runs_on(vm)

    host.run("nvhv seal --all")
    vm.is_about_to_start()
    host.power_cut()
    host.boot()
    vm.expect_continued(ticks=3, limit=200)
    check(versions(host) == (new, new), f"after the next boot it is {versions(host)}, not {new}")

    install(host)
    check(versions(host) == (old[0], new), f"after a downgrade it is {versions(host)}")
    runs_on(vm)

    host.run("dpkg --purge nvhv $(dpkg-query -f '${Package} ' -W 'nvhv-module-*')", 300)
    runs_on(vm)
    left = host.attempt("find /usr/bin /usr/lib /usr/share /etc /var/lib/nvhv /var/log -name '*nvhv*' -not -name 'nvhv-agent*'").stdout.split()
    check(not left, f"this is left: {left}")
    host.run("systemctl stop nvhv-vm-redis")
    host.expect_state(vm, "sealed")
    host.run("nvhv discard redis --force")
    host.unload_module()
    host.has_pool = False
