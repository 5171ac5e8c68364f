# SPDX-License-Identifier: GPL-2.0
"""What an interrupt came upon goes on when it panics, also where a lock has just been let go of, in a softirq, and by way of a
warning; not if the interrupt holds a lock itself, which then waits on a stack of its own. The VM goes on in any case."""

from rig.check import check

# Cause, upon what, whether that goes on.
PANICS = (("call", "unlock", True), ("warning", "unlock", True), ("call", "softirq", True), ("warning", "softirq", True),
          ("lock", "unlock", False))
# The kernel says so of a panic that another context finished.
TOLD = "The kernel panicked at"


def run(t):
    host = t.boot()
    vm = host.start_vm("vm0", work="counter")
    vm.wait_ticks(10)
    for cause, upon, goes_on in PANICS:
        check(host.outlives_panic(vm, cause, upon), f"{cause} upon {upon}: the VM was torn")
        said = host.console.text(host.outage_from)
        check((TOLD in said) == goes_on, f"{cause} upon {upon}: it should {'' if goes_on else 'not '}have gone on: {said[-5000:]}")
