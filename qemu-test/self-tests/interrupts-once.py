# SPDX-License-Identifier: GPL-2.0
"""The emulated processor delivers an injected interrupt once. It takes some hundred thousand to catch one that scripts/mend-qemu
has not mended."""

from rig.check import check
from vmm import tiny

POOL = False
NEEDS = tiny.NEEDS
LIMIT = 700
SECONDS = 300
# What interrupts the host makes the emulated processor leave its loop.
BUSY = "import time\nwhile True: time.sleep(3e-4)"


def run(t):
    host = t.boot()
    for _ in range(2):
        host.run(f"setsid python3 -IS -c '{BUSY}' >/dev/null 2>&1 &")
    result = host.attempt(f"timeout {SECONDS} tiny-vmm interrupts --irqchip kernel", 2 * SECONDS)
    last = result.stdout.splitlines()[-1:]
    check(result.status == 124, f"it ended with {result.status}: {last}")
    check(last and last[0].startswith("count"), f"it took no interrupts: {last}")
    t.note(f"interrupts: {last[0]}")
