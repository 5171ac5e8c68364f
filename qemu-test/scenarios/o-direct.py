# SPDX-License-Identifier: GPL-2.0
"""I/O still holds a guest's RAM when its VMM is gone: nobody else gets that memory before it is done."""

import time

from rig import slow
from rig.check import check
from vmm import tiny
from vmm.tiny import bound, check_goes_on, live

NEEDS = tiny.NEEDS

SIZE = 4 << 20
DELAY = 5


def run(t):
    host = t.boot()
    slow.make(host, SIZE, (0, SIZE, DELAY * 1000))
    device = ("--device", slow.DEVICE)

    # Killed: it is sealed at once, and has what arrived after that.
    began = time.monotonic()
    host.agent.ask("spawn", name="kept", argv=bound("kept", "direct-io", *device, "--die", "count:9"), output="/share/kept")
    host.expect_state("kept", "sealed", limit=DELAY)
    check(time.monotonic() - began < DELAY, "it took too long to see anything")
    check(host.agent.ask("wait", DELAY + 10, name="kept", timeout=DELAY + 10) == tiny.KILLED, "the VMM was not killed")
    check(time.monotonic() - began > DELAY, "the read was through before")
    one = host.run("cat /share/kept").splitlines()
    check(one[1] == "found 0" and one[-1] == "count 0 9", f"{one}")
    two = live(host, "kept", "direct-io", *device, "--stop", "submitted:1", status=0)
    check(two.lines[:2] == ["count 0 9", "found 256"], f"the image lacks what was read: {two.text}")
    host.expect_state("kept", None, limit=DELAY + 10)

    # Ended on its own, so discarded: its memory is nobody's until the read is through, or the pipe closed.
    for case, last, options in (("direct-io", "submitted", device), ("spliced", "spliced", ("--keep", str(DELAY * 1000)))):
        argv = bound("gone", case, *options, "--stop", f"{last}:1")
        host.agent.ask("spawn", name="gone", argv=argv, output="/share/gone")
        host.expect_state("gone", "discarding")
        watcher = live(host, "watcher", "watch-ram", "--die", "found:5", timeout=60)
        host.expect_state("gone", "discarding", limit=0)
        host.expect_state("gone", None, limit=2 * DELAY)
        more = live(host, "watcher", "watch-ram", "--stop", "found:5", timeout=60, status=0)
        for life in (watcher, more):
            check(all(words == ["0"] for words in life.of("found")), f"another VM's data arrived: {life.text}")
        check_goes_on(watcher, more)
    slow.remove(host)
