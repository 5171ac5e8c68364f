# SPDX-License-Identifier: GPL-2.0
"""The host's one processor panics in interrupts and NMIs that come upon a guest, upon KVM, or upon whatever else there
is: its VM goes on, or is torn, said to be and refused, if that was the scheduler or held a lock; and it seldom is."""

from rig.check import check

LIMIT = 900
PANICS = (("nmi", ""), ("call", 20_000), ("nmi", ""), ("lock", 30_000), ("call", 23_456), ("nmi", ""))
REFUSED = 2  # of those, at most, for each of the two guests


def run(t):
    host = t.boot()
    for work, append in (("counter", ""), ("mem", "size=32")):
        vm = host.start_vm(work, work=work, append=append)
        vm.wait_ticks(10)
        refused = [f"{cause} {after}" for cause, after in PANICS if not host.outlives_panic(vm, cause, after)]
        t.note(f"work={work}: {len(refused)} of {len(PANICS)} were refused: {', '.join(refused) or 'none'}")
        check(len(refused) <= REFUSED, f"work={work}: too many were refused")
        host.kill_vmm(vm, "KILL")
