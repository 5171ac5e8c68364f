# SPDX-License-Identifier: GPL-2.0
"""VMs of libkrun, unmodified, outlive their VMM and their host, with the interrupt controllers in the kernel and in the VMM."""

from vmm import libkrun

LIMIT = 1200
NEEDS = libkrun.NEEDS
DISK = {"disk": "16M"}
# Counters: a disk's writes, reads and flushes; then bytes of entropy, or records sent and received.
WITH_RNG = range(4)
WITH_NET = range(5)


def run(t):
    host = t.boot()
    vm = host.start_vm("counter", vmm="libkrun", work="counter")
    vm.wait_for("tick", 5, limit=150)
    host.through(vm, "kill", "cut")
    host.kill_vmm(vm, "KILL")

    disk = host.start_vm("disk", vmm="libkrun", work="disk+rng", devices=DISK)
    outlives(host, disk, WITH_RNG, "kill", "cut", "reboot", "kill")
    split = host.start_vm("split", vmm="libkrun", irqchip="split", work="disk+rng", devices=DISK)
    outlives(host, split, WITH_RNG, "kill", "cut", "reboot", "kill")
    more = host.start_vm("more", vmm="libkrun", irqchip="split", cpus=2, vsock=True, work="disk+net", devices={**DISK, "net": "tap"})
    outlives(host, more, WITH_NET, "kill", "kill")


def outlives(host, vm, columns, *outages):
    vm.wait_for("tick", 5, limit=150)
    vm.wait_progress(*columns)
    host.through(vm, *outages, columns=columns)
    host.kill_vmm(vm, "KILL")
