# SPDX-License-Identifier: GPL-2.0
"""A command that fails in the host is a failed check, with what it printed."""

HOST = "shared"
POOL = False
EXPECT = "check failed: `echo no; exit 3`: status 3"


def run(t):
    t.boot().run("echo no; exit 3")
