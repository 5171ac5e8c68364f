# SPDX-License-Identifier: GPL-2.0
"""Pages that a guest gave away by a balloon, or reported as free, are not used after the loss of VMM and host, and
come back; what it stored in persistent memory, a file of the host, is there, flushed or not."""

import re

from rig.check import check

LIMIT = 900
VERIFIED, SWEEPS, INSIDE, ROUNDS, WRITES, READS, FLUSHES = range(7)
ALIVE = (VERIFIED, WRITES, READS, FLUSHES)
MIB = 1 << 20
PAGES = MIB // 4096
WHOLE, SMALL, SMALLEST = 256, 240, 208
TRACE = "/tmp/vm0.discards"
# Only looked at: what the VMM gave back of its view of the RAM, and whether the kernel took it.
OPTIONS = ["-object", "iothread,id=hints", "-trace", "ram_block_discard_range", "-D", TRACE]
DISCARD = re.compile(r"\+ (0x[0-9a-f]+): madvise: \d fallocate: \d ret: (-?\d+)")


def resize(vm, mib):
    """Asks for a guest of this size, and waits until its balloon has what that leaves."""
    vm.qmp("balloon", value=mib * MIB)
    wanted = (WHOLE - mib) * PAGES
    vm.wait_until(lambda: vm.progress()[INSIDE] == wanted, f"balloon of {wanted} pages", 90)
    vm.wait_until(lambda: vm.qmp("query-balloon")["actual"] == mib * MIB, "word of that by the VMM", 10)


def given_back(host, such):
    """How often this VMM has given back such numbers of bytes of its view of the RAM, with the kernel's leave."""
    all_of_it = [(int(size, 0), int(status)) for size, status in DISCARD.findall(host.run(["cat", TRACE]))]
    check(not any(status for _, status in all_of_it), "the kernel did not take what was given back")
    return sum(such(size) for size, _ in all_of_it)


def run(t):
    host = t.boot()
    # Its room for memory above 4 GiB would make the guest set 64 MiB apart for bouncing.
    vm = host.start_vm("vm0", vmm="q35", work="mem+balloon+disk", memory=f"{WHOLE}M,maxmem=512M", append="size=16 depth=4 swiotlb=noforce",
                       devices={"balloon": ",free-page-reporting=on,free-page-hint=on,iothread=hints", "disk": "16M", "bus": "pmem"},
                       options=OPTIONS)
    vm.wait_for("filled", limit=150)
    check("are a file, which keeps them" in host.kernel_log(), "the log does not say where the storage is")
    vm.wait_progress(*ALIVE)
    vm.wait_until(lambda: given_back(host, lambda size: size >= 2 * MIB), "report of free pages", 60)

    # In the middle of it: how large the guest should be is the VMM's business, and a fresh one wants all of it.
    vm.qmp("balloon", value=SMALLEST * MIB)
    vm.wait_until(lambda: vm.progress()[INSIDE] > 0, "page in the balloon", 60)
    host.through(vm, "kill", columns=ALIVE)

    resize(vm, SMALL)
    host.through(vm, "cut", columns=ALIVE)
    check(vm.progress()[INSIDE] == (WHOLE - SMALL) * PAGES, f"the balloon has {vm.progress()[INSIDE]} pages")
    check(vm.qmp("query-balloon")["actual"] == SMALL * MIB, "the VMM was not told of the balloon")
    resize(vm, WHOLE)
    vm.wait_progress(ROUNDS, more=1)
    resize(vm, SMALL)
    check(given_back(host, lambda size: size == 4096) == (WHOLE - SMALL) * PAGES, "the balloon's pages were not given back")

    host.kill_vmm(vm, "KILL")
    host.expect_state(vm, "sealed")
    bus, vm.devices.bus = vm.devices.bus, "blk"
    host.start_vm_again(vm)
    vm.expect_refused("vm0: refused", "what a file keeps")
    vm.devices.bus = bus
    host.start_vm_again(vm)
    vm.expect_continued(ticks=3)
    resize(vm, WHOLE)
    vm.wait_progress(*ALIVE).expect_healthy()
