# SPDX-License-Identifier: GPL-2.0
"""Power is said to fail, and is gone before sixteen VMs can be sealed: each is sealed and goes on, or torn and refused,
and all are sealed of which the kernel had said so."""

import re
import time

from rig.check import check
from rig.paths import HERE
from rig.vm import load
from vmm import tiny

NEEDS = tiny.NEEDS
LIMIT = 600
ATTEMPTS = 4  # at an instant when some are sealed and some are not
sixteen = load(HERE / "scenarios/sixteen-vms.py")


def cut_in_the_middle(host):
    """Says that power fails, and cuts it as soon as the kernel says that a VM is sealed; gives those of which it says so."""
    host.note_log()
    host.agent.post("run", argv=["nvhv", "seal", "--now"], timeout=60)
    deadline = time.monotonic() + 60
    while "committed in" not in host.kernel_log():
        check(time.monotonic() < deadline, "no VM is sealed")
        time.sleep(0.001)
    host.power_cut()
    return set(re.findall(r"nvhv: (\w+): record of .* committed in", host.kernel_log()))


def run(t):
    host = t.boot()
    sixteen.start(host, 0)
    said = host.run("nvhv seal --now --budget 1")
    check("of 1 ms that there are" in said, f"more than the budget was needed, and nothing says so: {said}")
    host.run("nvhv thaw --all")
    for life in range(ATTEMPTS):
        promised = cut_in_the_middle(host)
        host.boot()
        states = {name: row["state"] for name, row in host.images().items()}
        sealed = {name for name, state in states.items() if state == "sealed"}
        torn = {name for name, state in states.items() if state == "torn"}
        check(sealed | torn == set(sixteen.VMS), f"there are {states}")
        check(promised <= sealed, f"{promised} were said to be sealed: {states}")
        t.note(f"{len(sealed)} of 16 VMs were sealed when the power was gone")
        for name in torn:
            sixteen.check_refused(host, name)
        sixteen.start(host, life + 1, sealed)
        for name in sealed:
            sixteen.check_all_lives(host, name, 0, life + 1)
        if torn:
            break
        host.run("sleep 1")
    check(torn, "power was never gone too early: this shows nothing")
    for name in sealed:
        host.agent.ask("kill", name=name, number=9)
        host.expect_state(name, "sealed")
