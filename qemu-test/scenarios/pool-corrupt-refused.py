# SPDX-License-Identifier: GPL-2.0
"""Each structure of the pool damaged in turn: nothing damaged is resumed, and the host is unharmed."""

import mmap
import shutil

from rig.check import check

LIMIT = 900

# Every copy of a structure is damaged at once, at some byte of it: nothing sound is left to fall back on.
DAMAGE = [
    ("superblock", b"NVHVPOOL", 0), ("superblock", b"NVHVPOOL", 8), ("superblock", b"NVHVPOOL", 40),
    ("image header", b"NVHVHEAD", 0), ("image header", b"NVHVHEAD", 20), ("image header", b"NVHVHEAD", 100),
    ("record", b"NVHVRECD", 0), ("record", b"NVHVRECD", 24), ("record", b"NVHVRECD", 1500),
]


def damage(path, magic, offset):
    """Flips the bits of one byte in each structure that begins with a magic word; returns how many."""
    found = 0
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        at = data.find(magic)
        while at >= 0:
            if at % 64 == 0:
                data[at + offset] ^= 0xFF
                found += 1
            at = data.find(magic, at + 1)
    return found


def run(t):
    host = t.boot()
    vm = host.start_vm("vm0", work="counter")
    vm.wait_ticks(10)
    host.kill_vmm(vm, "KILL")
    host.expect_state(vm, "sealed")
    host.poweroff()
    sound = host.pmem.with_suffix(".sound")
    shutil.copyfile(host.pmem, sound)
    host.has_pool = False  # from here on the module is loaded by hand: it may refuse

    for structure, magic, offset in DAMAGE:
        shutil.copyfile(sound, host.pmem)
        check(damage(host.pmem, magic, offset), f"there is no {structure} ({magic}) to damage")
        host.boot()
        host.note_log()
        load = host.attempt(f"insmod /payload/nvhv.ko {host.module_parameters}", 60)
        if load.status == 0:
            state = host.state_of(vm)
            host.start_vm_again(vm)
            vm.expect_refused()
            t.note(f"{structure} damaged at {offset}: loaded, the image is {state}, the VM is refused")
        else:
            t.note(f"{structure} damaged at {offset}: not loaded: {load.stderr.strip()}")
        said = [line for line in host.kernel_log().splitlines() + vm.complaint().splitlines() if "nvhv" in line]
        check(said, f"{structure} damaged at {offset}: not a word about it")
        host.power_cut()

    shutil.copyfile(sound, host.pmem)
    sound.unlink()
    host.has_pool = True
    host.boot()
    host.expect_state(vm, "sealed")
    host.start_vm_again(vm)
    vm.expect_continued()
