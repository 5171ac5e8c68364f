# SPDX-License-Identifier: GPL-2.0
"""What is not built skips a scenario."""

NEEDS = ["bin/no-such-program"]
EXPECT = "not built: bin/no-such-program"


def run(t):
    raise AssertionError("not reached")
