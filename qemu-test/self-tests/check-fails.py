# SPDX-License-Identifier: GPL-2.0
"""A check that fails is a failed check."""

from rig.check import check

HOST = "shared"
POOL = False
EXPECT = "check failed: two is not one"


def run(t):
    t.boot()
    check(1 == 2, "two is not one")
