# SPDX-License-Identifier: GPL-2.0
"""A pool whose namespace was made larger grows, and one that is damaged is repaired; each of that, and format, is killed in
between and given again. The VM in it goes on each time."""

import json

from rig.check import check
from vmm import tiny
from vmm.tiny import check_goes_on, live

POOL = False
NEEDS = tiny.NEEDS
HARDWARE = {"pmem_size": "514M"}
LIMIT = 400
DEVICE = "/dev/dax0.0"

# Bits of bytes at these offsets are flipped.
FLIP = """
import mmap, os, sys
with mmap.mmap(os.open("/dev/dax0.0", os.O_RDWR), int(sys.argv[1])) as memory:
    for at in map(int, sys.argv[2:]):
        memory[at] ^= 0xff
"""


def make_namespace(host, size):
    """Makes a namespace that is no more than a part of the NVDIMM; returns how long its device is."""
    made = json.loads(host.run(f"ndctl create-namespace -r region0 -m devdax -M mem --align=2M --size={size}", 60))
    device = made["daxregion"]["devices"][0]["chardev"]
    check(f"/dev/{device}" == DEVICE, f"the device is {device}")
    host.namespace = made["dev"]
    return int(host.run(f"cat /sys/bus/dax/devices/{device}/size"))


def killed(host, seconds, *words):
    """Begins something with the device, and kills it unless it was faster."""
    result = host.attempt(["timeout", "-s", "KILL", str(seconds), "nvhv", words[0], DEVICE, *words[1:]], 120)
    check(result.status in (0, 1, 137, -9), f"{words}: {result}")
    return result.status in (137, -9)


def pool(host):
    host.load_module()
    pool, = host.nvhv_json("list")["pools"]
    check(pool["state"] == "good", f"the pool is {pool}")
    return pool["bytes"]


def run(t):
    host = t.boot()
    host.run("ndctl disable-region region0 && ndctl init-labels -f nmem0 && ndctl enable-region region0", 60)
    small = make_namespace(host, "128M")
    for seconds in (0.05, 0.2, 0.8):
        was = killed(host, seconds, "format")
        host.load_module()
        pools = host.nvhv_json("list")["pools"]
        check(len(pools) <= 1 and all(p["state"] == "good" for p in pools), f"an interrupted format leaves {pools}")
        host.unload_module()
        t.note(f"format, {'killed' if was else 'done'} after {seconds} s: {len(pools)} pools")
    host.run(f"nvhv format {DEVICE} --force", 120)
    old = pool(host)
    lives = [live(host, "kept", "count", "--die", "count:8")]

    def goes_on():
        host.expect_state("kept", "sealed")
        lives.append(live(host, "kept", "count", "--die", "count:8"))
        check_goes_on(*lives)
        host.unload_module()

    # The namespace becomes larger. The pool does not, until it is told.
    host.expect_state("kept", "sealed")
    host.run(f"ln -s {DEVICE} /root/other")
    for name in (DEVICE, "/root/other"):
        held = host.attempt(f"nvhv grow {name}")
        check(held.status == 1 and "holds it" in held.stderr, f"nvhv grow {name}: {held}")
    host.unload_module()
    host.run(f"ndctl destroy-namespace -f {host.namespace}", 60)
    large = make_namespace(host, "448M")
    check(large > small, f"the device has {small} and then {large} bytes")
    check(pool(host) == old, "it has grown by itself")
    goes_on()
    for seconds in (0.05, 0.2, 0.8):
        was = killed(host, seconds, "grow")
        has = pool(host)
        check(has in (old, old + large - small), f"an interrupted growth leaves {has} bytes")
        t.note(f"grow, {'killed' if was else 'done'} after {seconds} s: {has >> 20} MiB of {old >> 20}, then {old + large - small >> 20}")
        goes_on()
    host.run(f"nvhv grow {DEVICE}", 120)
    check(pool(host) == old + large - small, "it has not grown by what the device has")
    live(host, "new", "bench", "--irqchip", "kernel", "--ram", "250", "--die", "count:8")
    host.expect_state("new", "sealed")
    row = host.images()["new"]
    goes_on()

    # A superblock, the commit word of one of two VMs, and free memory.
    word = (2 << 20) + row["slot"] * (32 << 10) + 3
    host.run(["python3", "-c", FLIP, str(large), "40", str(word), str(large - 4096)])
    killed(host, 0.1, "repair")
    said = host.attempt(f"nvhv repair {DEVICE}", 120)
    check(said.status == 1 and f"slot {row['slot']}: damaged" in said.stdout and "--force" in said.stderr, f"nvhv repair: {said}")
    host.load_module()
    check(host.state_of("kept") == "sealed", f"there are {host.images()}")
    checked = host.attempt("nvhv check").stdout
    check("1 damaged: " in checked, f"nvhv check: {checked}")
    goes_on()
    for seconds in (0.05, 0.2):
        killed(host, seconds, "repair", "--force")
    said = host.run(f"nvhv repair {DEVICE} --force", 120)
    check("the pool is sound" in said, f"nvhv repair --force: {said}")
    host.has_pool = True
    check(pool(host) == old + large - small and set(host.images()) == {"kept"}, f"there are {host.images()}")
    host.expect_state("kept", "sealed")
    lives.append(live(host, "kept", "count", "--stop", "count:5", status=0))
    check_goes_on(*lives)
