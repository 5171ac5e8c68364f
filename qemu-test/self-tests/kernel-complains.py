# SPDX-License-Identifier: GPL-2.0
"""A complaint in the kernel's log fails a scenario that passed otherwise."""

POOL = False
EXPECT = "the host's kernel complained"


def run(t):
    t.boot().run("echo '<2>BUG: this is only a test' >/dev/kmsg")
