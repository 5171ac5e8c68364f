# SPDX-License-Identifier: GPL-2.0
"""VMs that were sealed under one series of stock kernels go on under another, the newer and the older."""

from rig.check import check
from vmm import tiny
from vmm.tiny import check_goes_on, live

NEEDS = tiny.NEEDS
LIMIT = 900
DEVICES = {"disk": "16M", "rng": True}


def run(t):
    older = t.payload.other_kernel()
    if not older:
        t.skip("the module is built for no kernel of another series: kernel-matrix says why")
    host = t.boot()
    newer = host.kernel

    def into(kernel):
        host.reboot()
        host.kernel = kernel
        host.boot()
        running = host.run("uname -r").strip()
        check(running == kernel.version, f"the host runs {running}, not {kernel.version}")

    # One VM that is born under each, of either VMM; all are sealed by the host's orderly end.
    first = host.start_vm("born-newer", vmm="q35", work="disk+rng", devices=DEVICES)
    lives = [live(host, "tiny", "count", "--die", "count:5", "--irqchip", "kernel")]
    first.wait_ticks(3, limit=200)
    first.wait_progress(0, 1)
    into(older)
    host.expect_state(first, "sealed")
    host.start_vm_again(first)
    lives.append(live(host, "tiny", "count", "--die", "count:5", "--irqchip", "kernel"))
    first.expect_continued(ticks=3)
    first.wait_progress(0, 1)
    second = host.start_vm("born-older", work="fpu")
    second.wait_ticks(5)
    into(newer)
    for vm in (first, second):
        host.start_vm_again(vm)
    lives.append(live(host, "tiny", "count", "--stop", "count:5", "--irqchip", "kernel", status=0))
    check_goes_on(*lives)
    for vm in (first, second):
        vm.expect_continued(ticks=5)
    first.wait_progress(0, 1)
    t.note(f"between {newer.version} and {older.version}")
