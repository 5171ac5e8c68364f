# SPDX-License-Identifier: GPL-2.0
"""The VMM of tests/tiny-vmm. It runs in the foreground, one corner case per life."""

from rig.check import check

NEEDS = ["nvhv.ko", "bin/nvhv", "bin/tiny-vmm"]
KILLED = -9


def command(vm):
    return ["tiny-vmm", *vm.extra["case"]]


class Life:
    """What one process of the VMM printed, and how it ended."""

    def __init__(self, case, result):
        self.case = case
        self.status = result.status
        self.text = f"{case}: {result}"
        self.lines = [line for line in result.stdout.splitlines() if line and not line.startswith("#")]
        check(not result.late, self.text)

    def of(self, word):
        """The lines that begin with a word, without it, as lists of words."""
        return [line.split()[1:] for line in self.lines if line.split()[0] == word]

    def numbers(self, word, vcpu=0):
        """The numbers that a vCPU said under a word."""
        return [int(words[1], 0) for words in self.of(word) if words[0] == str(vcpu)]


def bound(name, case, *options):
    """The command of one life."""
    return ["nvhv", "run", "--name", name, "--", "tiny-vmm", case, *options]


def live(host, name, case, *options, status=KILLED, timeout=30):
    """One life of a VM: until it is killed, or, with STATUS 0, ends on its own."""
    life = Life(case, host.attempt(bound(name, case, *options), timeout))
    check(life.status == status, f"it ended with {life.status}, not {status}: {life.text}")
    return life


def check_goes_on(*lives, word="count", vcpu=0, again=1):
    """The numbers of a vCPU go on from one life to the next; at most AGAIN of them come twice, at the cut."""
    last = 0
    for life in lives:
        said = life.numbers(word, vcpu)
        check(said, f"vCPU {vcpu} said no `{word}`: {life.text}")
        first = said[0]
        check(last + 1 - (again if last else 0) <= first <= last + 1, f"after {last} came {first}: {life.text}")
        check(said == list(range(first, first + len(said))), f"numbers are missing: {life.text}")
        last = said[-1]
