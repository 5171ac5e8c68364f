# SPDX-License-Identifier: GPL-2.0
"""A queue of a small virtio device goes on, whatever calls driver and device and wherever the rings lie."""

from rig.check import check
from vmm import tiny
from vmm.tiny import check_goes_on, live

HOST = "shared"
HARDWARE = {"cpus": 2}
NEEDS = tiny.NEEDS

WAYS = {
    "events": (),
    "together": ("--layout", "together", "--event-idx", "1"),
    "huge-pages": ("--layout", "high", "--look", "1"),
    "exits": ("--kick", "exit", "--interrupt", "msi"),
    "resets": ("--reset", "7", "--look", "1", "--event-idx", "1"),
}


def run(t):
    host = t.boot()
    for name, way in WAYS.items():
        options = ("--irqchip", "kernel", *way)
        lives = [live(host, name, "requests", "--die", f"served:{n}", *options) for n in (102, 1, 3, 103, 60)]
        lives.append(live(host, name, "requests", "--stop", "count:30", *options, status=0))
        rounds = [life for life in lives if life.of("count")]
        check_goes_on(*rounds)
        # Each round asks four numbers. What was answered before a cut and not seen by the guest is asked
        # again: no more than one round's at each cut.
        asked = [int(number) for life in lives for number, in life.of("served")]
        last = rounds[-1].numbers("count")[-1]
        check(set(range(4 * last)) <= set(asked), f"{name}: requests were lost: {lives[-1].text}")
        check(len(asked) - len(set(asked)) <= 4 * (len(lives) - 1), f"{name}: requests came twice: {lives[-1].text}")
    check(host.images() == {}, "images are left")
