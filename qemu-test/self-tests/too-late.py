# SPDX-License-Identifier: GPL-2.0
"""A scenario that takes too long is ended."""

POOL = False
LIMIT = 25
EXPECT = "the time of 25 s is over"


def run(t):
    t.boot().run("sleep 100", 120)
