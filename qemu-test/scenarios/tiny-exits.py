# SPDX-License-Identifier: GPL-2.0
"""The VMM dies in the middle of each kind of exit: none is lost, and none is invented."""

from rig.check import check
from vmm import tiny
from vmm.tiny import check_goes_on, live

HOST = "shared"
HARDWARE = {"cpus": 2}
NEEDS = tiny.NEEDS


def run(t):
    host = t.boot()
    for irqchip in ("none", "split", "kernel"):
        def lives(case, *ends):
            """One life per end: each but the last is killed there, the last exits."""
            name = f"{case}-{irqchip}"
            made = [live(host, name, case, "--die", end, "--irqchip", irqchip) for end in ends[:-1]]
            return [*made, live(host, name, case, "--stop", ends[-1], "--irqchip", irqchip, status=0)]

        # Not retired: the guest does it again.
        check_goes_on(*lives("count", "count:5", "count:1", "count:3"))
        one, two = lives("port-in", "in:3", "in:3")
        check_answers(one, two, "in")
        one, two = lives("mmio-read", "read:3", "read:3")
        check_answers(one, two, "read")

        # Retired: the first exit of the next VMM, however often that one dies.
        made = lives("mmio-write", "write:3", "write:1", "write:1", "write:3")
        check_goes_on(*made, word="write")
        for before, after in zip(made, made[1:]):
            check(before.lines[-1] == after.lines[0], f"{before.lines[-1]} is not delivered again: {after.text}")

        # A string, one byte an exit; killed at each byte in turn, the last one too.
        for byte in range(1, 5):
            one, two, three = lives("string-out", f"string:{4 + byte}", "string:1", "count:2")
            before = [line for line in one.lines if line.startswith("string")]
            after = [line for line in three.lines if line.startswith("string")]
            check(two.lines == [before[-1]], f"{before[-1]} is not delivered again: {two.text}")
            check(after[0] == before[-1], f"{before[-1]} is not delivered a third time: {three.text}")
            # The counter was 2 and is 3: what is left of one string, and one whole.
            whole = (before + after[1:])[4:]
            check(whole == [f"string 0 {byte}" for byte in (2, 0, 0, 0, 3, 0, 0, 0)], f"{one.text}{three.text}")
            check_goes_on(one, three, again=0)

        one, two = lives("triple-fault", "shutdown:1", "shutdown:1")
        check(two.lines == ["shutdown 0"], f"the next VMM learns of it: {two.text}")
        if irqchip == "none":
            one, two = lives("hlt", "halt:2", "halt:3")
            check(two.lines[0] == "halt 0", f"the guest is still halted: {two.text}")
            check_goes_on(one, two, again=0)


def check_answers(one, two, word):
    """What the guest was answered is what it got, from whichever VMM answered it last."""
    for life in (one, two):
        asked, got = life.numbers(word), life.numbers("echo")
        check(got == asked[:len(got)], f"the guest got what nobody answered: {life.text}")
    check(two.lines[0].split()[0] == word, f"the question is not asked again: {two.text}")
    check_goes_on(one, two, again=0)
