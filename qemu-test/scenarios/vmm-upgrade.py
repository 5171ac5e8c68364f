# SPDX-License-Identifier: GPL-2.0
"""VMs that stable's QEMU has started go on under the QEMU of backports, and back again; one whose devices that QEMU
makes otherwise is refused, the device named, and goes on under the QEMU that it knows."""

import re

from rig.check import check

LIMIT = 1800
# In a mount namespace of its own, whose /usr has the other QEMU.
NEWER = ["unshare", "--mount", "sh", "-c", 'mount --bind /payload/newer/usr /usr && exec "$@"', "newer"]
DEVICES = {"disk": "16M", "net": "tap", "rng": True}
DEVICE = re.compile(r"refused: another device: (\S+ .* at (?:\d\d:\d\d\.\d|mmio@[0-9a-f]+), .*)")


def series(host, *wrapper):
    """Of the QEMU that a VM gets: "10.0"."""
    said = host.run([*wrapper, "qemu-system-x86_64", "--version"], 120)
    return re.search(r"version (\d+\.\d+)", said)[1]


def runs_on(vm):
    vm.expect_continued(ticks=3, limit=200)
    vm.wait_progress(0, 1, 3, limit=200)


def run(t):
    t.payload.newer_vmm()
    host = t.boot()
    old, new = series(host), series(host, *NEWER)
    check(int(old.split(".")[0]) < int(new.split(".")[0]), f"QEMU {new} is not newer than QEMU {old}")
    for name, vmm, options in (("versioned", "q35", {"machine": f"pc-q35-{old},kernel-irqchip=on"}),
                               ("unversioned", "q35", {}), ("micro", "microvm", {})):
        vm = host.start_vm(name, vmm=vmm, work="disk+rng", devices=DEVICES, **options)
        vm.wait_for("tick", 5, limit=200)
        vm.wait_progress(0, 1, 3, limit=200)
        host.kill_vmm(vm, "KILL")
        vm.wrapper = NEWER
        host.start_vm_again(vm)
        vm.wait_until(lambda: vm.new("tick") or "refused" in host.kernel_log(), "resume or refusal", 200)
        if "refused" in host.kernel_log():
            check(name != "versioned", f"a machine of the same version is another one: {host.kernel_log()}")
            vm.expect_refused(name, "refused")
            named = DEVICE.search(host.kernel_log())
            check(named, f"{name}: the refusal names no device: {host.kernel_log()}")
            host.expect_state(vm, "sealed")
            t.note(f"{name}: QEMU {new} is refused: {named[1]}")
        else:
            runs_on(vm)
            t.note(f"{name}: goes on under QEMU {new}")
            host.kill_vmm(vm, "KILL")
        vm.wrapper = []
        host.start_vm_again(vm)
        runs_on(vm)
        host.kill_vmm(vm, "KILL")
