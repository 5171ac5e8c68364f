# SPDX-License-Identifier: GPL-2.0
"""The Redis guest loads, serves and checks itself; its times are noted."""

import time

POOL = False
LIMIT = 900


def run(t):
    host = t.boot()
    began = time.monotonic()
    vm = host.start_vm("redis", work="redis", initrd="guest-redis.cpio", memory="320M", bound=False)
    for kind in ("boot", "loaded", "ready", "dataset", "ack"):
        message = vm.wait_for(kind, limit=400)
        t.note(f"{kind} {message.text} after {time.monotonic() - began:.1f} s")
    vm.wait_for("ack", 10)
    t.note(f"ack {vm.messages('ack')[-1].text} after {time.monotonic() - began:.1f} s")
    vm.expect_healthy()
