# SPDX-License-Identifier: GPL-2.0
"""vCPUs with gaps in their numbers that come late, are interrupted, or lose `kvm_run` or their VM's file."""

from rig.check import check
from vmm import tiny
from vmm.tiny import check_goes_on, live

HOST = "shared"
HARDWARE = {"cpus": 2}
NEEDS = tiny.NEEDS


def run(t):
    host = t.boot()
    for irqchip in ("none", "split", "kernel"):
        options = ("--irqchip", irqchip)
        name = f"apart-{irqchip}"
        lives = [live(host, name, "vcpus-apart", "--die", "count:40", *options),
                 live(host, name, "vcpus-apart", "--apart", "1500", "--die", "count:40", *options),
                 live(host, name, "vcpus-apart", "--stop", "count:40", *options, status=0)]
        for vcpu in range(3):
            check_goes_on(*lives, vcpu=vcpu)

    one = live(host, "signals", "vcpus-apart", "--die", "count:30")
    two = live(host, "signals", "vcpus-interrupted", "--stop", "count:60", status=0)
    check(two.lines[0].endswith("EINTR"), f"nobody was interrupted before the last vCPU came: {two.text}")
    for vcpu in range(3):
        said = [line for line in two.lines if line.split()[1] == str(vcpu)]
        if vcpu < 2:
            check(said[0].endswith("EINTR"), f"vCPU {vcpu} ran before the last one came: {two.text}")
        check_goes_on(one, two, vcpu=vcpu)

    # The guest's counter in memory is all that is seen of it.
    one = live(host, "blind", "unmapped", "--die", "memory:10")
    two = live(host, "blind", "unmapped", "--after", "3", "--die", "memory:10")
    three = live(host, "blind", "unmapped", "--stop", "memory:5", status=0)
    seen = [[int(number) for number, in life.of("memory")] for life in (one, two, three)]
    check(seen[0] == list(range(1, 11)), one.text)
    check(two.numbers("count")[0] in (10, 11), two.text)
    check(seen[1][0] > seen[0][-1] and seen[2][0] >= seen[1][-1], f"{two.text}{three.text}")

    lives = [live(host, "orphan", "without-vm", "--die", "count:6"), live(host, "orphan", "without-vm", "--die", "count:6"),
             live(host, "orphan", "without-vm", "--stop", "count:6", status=0)]
    check_goes_on(*lives)
    check(host.images() == {}, "images are left")
