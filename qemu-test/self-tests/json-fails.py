# SPDX-License-Identifier: GPL-2.0
"""JSON that says more than its schema is a failed check."""

HOST = "shared"
POOL = False
EXPECT = "check failed: `nvhv list --json` is not what its schema says: Additional properties"

PRINTS = '{"version": 1, "pool": {"device": "", "bytes": 0, "free_bytes": 0, "slots": 0}, "vms": [], "more": 1}'


def run(t):
    host = t.boot()
    host.agent.write("/usr/local/bin/nvhv", f"#!/bin/sh\necho '{PRINTS}'\n".encode(), 0o755)
    try:
        host.images()
    finally:
        host.run("rm /usr/local/bin/nvhv")
