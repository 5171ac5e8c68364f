# SPDX-License-Identifier: GPL-2.0
"""A host that goes away by itself was lost unexpectedly."""

POOL = False
EXPECT = "host lost unexpectedly"


def run(t):
    host = t.boot()
    host.run("echo b >/proc/sysrq-trigger; sleep 30", 40)
