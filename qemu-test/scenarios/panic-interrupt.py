# SPDX-License-Identifier: GPL-2.0
"""The host's one processor panics in interrupts: upon a guest that waits it goes on; upon one that works it goes on
too, or is torn and refused, if the interrupt came in the middle of what KVM did for it."""

from rig.check import check

LIMIT = 900


def run(t):
    host = t.boot()
    vm = host.start_vm("waits", work="counter")
    vm.wait_ticks(10)
    host.through(vm, "panic call 20000", "panic lock 30000", "panic nmi")
    host.kill_vmm(vm, "KILL")
    vm = host.start_vm("works", work="mem", append="size=32")
    vm.wait_ticks(10)
    resumed = 0
    for after in (20_000, 23_456, 31_415, 27_182):
        host.note_log()
        host.panic("call", after)
        host.boot()
        resumed += host.resume_or_refuse(vm)
    t.note(f"{resumed} of 4 went on when the interrupt came upon the guest")
    check(resumed, "it never went on")
