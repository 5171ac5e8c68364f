# SPDX-License-Identifier: GPL-2.0
"""VMs that stable's QEMU has started go on under the QEMU of backports, and back again; one whose devices or processor that QEMU
makes otherwise is refused, what differs named, and goes on under the QEMU that it knows."""

import re

from rig.check import check

LIMIT = 900
# In a mount namespace of its own, whose /usr has the other QEMU.
NEWER = ["unshare", "--mount", "sh", "-c", 'mount --bind /payload/newer/usr /usr && exec "$@"', "newer"]
NAMED = re.compile(r"refused: (another device: \S.* at (?:\d\d:\d\d\.\d|mmio@[0-9a-f]+)\b.*|vCPU 0: CPUID leaf .* was .*, now is .*)")


def series(host, *wrapper):
    """Of the QEMU that a VM gets: "10.0"."""
    said = host.run([*wrapper, "qemu-system-x86_64", "--version"], 120)
    return re.search(r"version (\d+\.\d+)", said)[1]


def goes_on_under(vm, wrapper):
    """Whether a VM goes on under a QEMU. If not, it was refused, and the device was named; says how."""
    vm.wrapper = wrapper
    vm.host.start_vm_again(vm)
    refusal = lambda: re.search(rf"nvhv: {vm.name}: refused.*", vm.host.kernel_log())
    vm.wait_until(lambda: vm.new("tick") or refusal(), "resume or refusal", 200)
    if not refusal():
        vm.expect_continued(ticks=3, limit=200)
        vm.host.kill_vmm(vm, "KILL")
        return True, "goes on"
    vm.expect_refused(vm.name, "refused")
    named = NAMED.search(refusal()[0])
    check(named, f"the refusal names neither a device nor what of the processor differs: {refusal()[0]}")
    vm.host.expect_state(vm, "sealed")
    return False, f"is refused: {named[1]}"


def run(t):
    t.payload.newer_vmm()
    host = t.boot()
    old, new = series(host), series(host, *NEWER)
    check(int(old.split(".")[0]) < int(new.split(".")[0]), f"QEMU {new} is not newer than QEMU {old}")
    versioned = {"vmm": "q35", "machine": f"pc-q35-{old},kernel-irqchip=on", "work": "disk", "devices": {"disk": "16M"}}
    for name, description in (("versioned", versioned), ("unversioned", {"vmm": "q35"}), ("micro", {"vmm": "microvm"})):
        vm = host.start_vm(name, **description)
        vm.wait_for("tick", 3, limit=200)
        host.kill_vmm(vm, "KILL")
        goes_on, how = goes_on_under(vm, NEWER)
        t.note(f"{name}, started by QEMU {old}, under QEMU {new}: {how}")
        # Debian's 10.0.13 has 1024 entries in each queue, whatever it is told and whatever machine it is.
        if not goes_on and "answers 0x100 where the image has 0x400" in how:
            vm.devices.disk_options = ",queue-size=1024"
            goes_on, how = goes_on_under(vm, NEWER)
            t.note(f"{name}, and its queues as large as before: {how}")
        check(goes_on or name != "versioned", f"a machine of the same version {how}")
        goes_on, how = goes_on_under(vm, [])
        check(goes_on, f"{name}: under the QEMU that it knows, it {how}")
