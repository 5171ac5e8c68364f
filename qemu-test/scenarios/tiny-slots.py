# SPDX-License-Identifier: GPL-2.0
"""Memory slots: many and odd, deleted and made again, read-only, mapped over, added late, and of other memory."""

import time

from rig.check import check
from vmm import tiny
from vmm.tiny import check_goes_on, live

HOST = "shared"
HARDWARE = {"cpus": 2}
NEEDS = tiny.NEEDS


def run(t):
    host = t.boot()
    one = live(host, "many", "many-slots", "--die", "count:4")
    two = live(host, "many", "many-slots", "--die", "count:4")
    check_goes_on(one, two, live(host, "many", "many-slots", "--stop", "count:4", status=0))

    # Killed while a slot is missing; forty slots in turn.
    lives = [live(host, "gone", "delete-slots", "--die", f"missing:{number}") for number in (45, 2, 31)]
    check_goes_on(*lives, live(host, "gone", "delete-slots", "--stop", "missing:5", status=0))

    lives = [live(host, "rom", "rom", "--die", "count:3"), live(host, "rom", "rom", "--stop", "count:3", status=0)]
    for life in lives:
        (content,), = life.of("rom")
        got = life.of("echo")
        check(got and all(value == content for _, value in got), f"the ROM is not this VMM's: {life.text}")
    check_goes_on(*lives)
    check_goes_on(*lives, word="write")

    # Mapping over a part of RAM fails: the guest would not see what is mapped there.
    lives = [live(host, "over", "map-over", "--die", "count:4"), live(host, "over", "map-over", "--stop", "count:4", status=0)]
    check_goes_on(*lives)
    for life in lives:
        said = life.of("over")
        check(said and all(words == ["false", "false"] for words in said), f"it could be mapped over: {life.text}")

    # Other memory in the place of RAM, and an end before the guest has seen it.
    lives = [live(host, "swap", "swap-ram", "--die", "swapped:7"), live(host, "swap", "swap-ram", "--die", "count:4")]
    check_goes_on(*lives, live(host, "swap", "swap-ram", "--stop", "count:4", status=0))

    # Added in the first life after five numbers, and at first in vain; in the second not at all; then late again. Other memory
    # does not take its place while its VMM has both.
    first = live(host, "late", "late-ram", "--die", "count:9")
    check(["first"] in first.of("late"), first.text)
    check(first.of("bad")[3:] == [["EFAULT"], ["EINVAL"]], first.text)
    never = live(host, "late", "late-ram", "--die", "count:4")
    again = live(host, "late", "late-ram", "--die", "count:9")
    check(["again"] in again.of("late"), again.text)
    once_more = live(host, "late", "late-ram", "--after", "2", "--stop", "count:6", status=0)
    check_goes_on(first, never, again, once_more)
    # The VMM waits until its image is given up for good; zeroing its memory may take longer.
    deadline = time.monotonic() + 20
    while host.images() and time.monotonic() < deadline:
        time.sleep(0.1)
    check(host.images() == {}, "images are left")
