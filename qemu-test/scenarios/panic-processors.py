# SPDX-License-Identifier: GPL-2.0
"""A host with two processors panics: four VMs go on, also if the scheduler of one processor is what panics, which the other
one then does without, unless it waits for that very lock itself; those that cannot be sealed are said to be torn, and refused."""

from rig.check import check
from rig.paths import HERE
from rig.vm import load
from vmm import tiny

HARDWARE = {"cpus": 2}
NEEDS = tiny.NEEDS
LIMIT = 600
VMS = [f"vm{number}" for number in range(4)]
# How many of the four may be torn: those that the lost processor has in the middle of something.
PANICS = (("call", "", 0), ("lock", "", 0), ("call", 20_000, 1), ("nmi", "", 1)) + 3 * (("runqueue", 300, 4),)
many = load(HERE / "scenarios/sixteen-vms.py")


def run(t):
    host = t.boot()
    many.start(host, 0, VMS)
    born = dict.fromkeys(VMS, 0)
    whole = set()
    for life, (cause, after, may_be_torn) in enumerate(PANICS):
        host.panic(cause, after)
        host.boot()
        said = host.console.text(host.outage_from)
        states = {name: row["state"] for name, row in host.images().items()}
        torn = {name for name, state in states.items() if state == "torn"}
        sealed = {name for name, state in states.items() if state == "sealed"}
        check(sealed | torn == set(VMS), f"after {cause} there are {states}")
        check(len(torn) <= may_be_torn, f"after {cause} {torn} are torn: {said[-3000:]}")
        check(not torn or "VMs are torn" in said, f"nothing says that {torn} are torn: {said[-3000:]}")
        t.note(f"{cause} {after}: {len(sealed)} of {len(VMS)} were sealed")
        if not torn:
            whole.add(cause)
        for name in torn:
            many.check_refused(host, name)
            born[name] = life + 1
        many.start(host, life + 1, VMS)
        for name in sealed:
            many.check_all_lives(host, name, born[name], life + 1)
    check("runqueue" in whole, "no processor does without another one's scheduler")
    for name in VMS:
        host.agent.ask("kill", name=name, number=9)
        host.expect_state(name, "sealed")
