# SPDX-License-Identifier: GPL-2.0
"""On a host with systemd, three enabled VMs go on after a power cut and after a reboot, and nobody types anything."""

from rig.check import CheckFailed, check

HARDWARE = {"init": "systemd"}
LIMIT = 900

# A VMM as many are: it does not start over what another process of it has left.
PICKY = ["sh", "-c", 'test ! -e "$1" || exit 9; echo $$ >"$1"; shift; exec "$@"', "vmm", "/var/tmp/vmm.pid"]


def go_on(host, vms):
    """They go on, though nobody has started them."""
    for vm in vms:
        try:
            host.expect_state(vm, "live", 120)
        except CheckFailed as failure:
            said = host.run(f"journalctl -b -o cat -u nvhv-resume -u nvhv-vm-{vm.name} -u nvhv")
            raise CheckFailed(f"{failure}: {said}") from None
        vm.expect_continued(ticks=3, limit=200)


def run(t):
    host = t.boot()
    host.install()
    host.run("useradd --uid 1000 --create-home --groups kvm owner && chmod 1777 /share")
    # Another user's; one that is picky; a third.
    owned = host.start_vm("owned", uid=1000)
    picky = host.start_vm("picky", wrapper=PICKY)
    third = host.start_vm("third")
    vms = (owned, picky, third)
    for vm in vms:
        vm.wait_ticks(5, limit=200)
    for priority, vm in enumerate(vms):
        host.run(f"nvhv enable {vm.name} --priority {priority}")

    # Without a word of anybody's, each at the priority that it was given.
    host.run("nvhv seal --all")
    for vm in vms:
        vm.is_about_to_start()
    host.power_cut()
    host.boot()
    go_on(host, vms)
    began = [line for line in host.run("journalctl -b -u nvhv-resume -o cat").splitlines() if "runs as process" in line]
    check(began and began[0].startswith("third: "), f"{began}: the one of the highest priority is not the first")
    journal = host.run("journalctl -b -u nvhv-vm-picky -o cat")
    check("/var/tmp/vmm.pid" in journal, f"nothing was left behind: {journal}")

    # As whom, and where, each was.
    pid = host.images()["owned"]["pid"]
    status = host.run(f"cat /proc/{pid}/status")
    check("Uid:\t1000\t1000" in status and "Gid:\t1000\t1000" in status, f"it does not run as its user: {status}")
    check(host.run("getent group kvm").split(":")[2] in status.partition("Groups:")[2].split("\n")[0].split(), f"it is not in group kvm: {status}")
    check("nvhv-vm-owned.service" in host.run(f"cat /proc/{pid}/cgroup"), "it is no service of its own")

    # All are sealed before systemd ends any of them, and end in order all the same.
    for vm in vms:
        vm.is_about_to_start()
    before = host.console.size()
    host.reboot()
    log = host.console.text(before)
    sealed, _, ended = log.partition(": thawed")
    for vm in vms:
        check(f"nvhv: {vm.name}: record of" in sealed, f"{vm.name} was not sealed early: {log[-8000:]}")
        check(f"nvhv: {vm.name}: sealed; kept: its VMM was told to end by a signal" in ended, f"{vm.name} has not ended in order: {log[-8000:]}")
    host.boot()
    go_on(host, vms)

    # One that is disabled waits until it is asked for; one that runs, or of which nothing is known, is not started.
    host.run("nvhv disable third")
    check("it runs" in host.attempt("nvhv resume picky").stderr, "one that runs can be resumed")
    check(host.attempt("nvhv resume nobody").status == 4, "one that nobody knows can be resumed")
    third.is_about_to_start()
    host.run("systemctl stop nvhv-vm-third")
    host.expect_state(third, "sealed")
    check("third" not in host.run("nvhv resume --all"), "a disabled one was resumed")
    host.expect_state(third, "sealed")
    host.run("nvhv resume third", 120)
    third.expect_continued(ticks=3, limit=200)

    # What was discarded is forgotten.
    host.run("systemctl stop nvhv-vm-third")
    host.run("nvhv discard third --force")
    check(host.attempt("nvhv resume third").status == 4, "it is known how to start what was discarded")
    host.run("systemctl stop nvhv-vm-owned nvhv-vm-picky")
