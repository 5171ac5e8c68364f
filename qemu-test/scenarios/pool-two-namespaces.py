# SPDX-License-Identifier: GPL-2.0
"""A pool on each of two NVDIMMs: new VMs go to the nearest that has room, all are resumed from where they are; what becomes
of one pool stops nobody in the other, and of two images with one name neither is taken for the right one."""

import mmap
import time
from types import SimpleNamespace

from rig.check import check
from vmm import tiny
from vmm.tiny import bound, check_goes_on

POOL = False
NEEDS = tiny.NEEDS
HARDWARE = {"cpus": 2, "nodes": 2, "pmem_size": "130M"}
LIMIT = 600

RAM = {"far": 8, "near": 80, "next": 60}
ON = {"far": 1, "near": 0, "next": 0}


class Lives:
    """What the VMs have printed, life by life."""

    def __init__(self, host):
        self.host = host
        self.count = 0
        self.of = {}

    def command(self, name, *options):
        argv = bound(name, "bench", "--irqchip", "kernel", "--ram", str(RAM[name]))
        return ["taskset", "-c", str(ON[name]), *argv[:2], *options, *argv[2:]]

    def start(self, *names, options=()):
        """Starts VMs, and waits until each has counted further."""
        for name in names:
            path = f"{name}.{self.count}"
            self.count += 1
            self.of.setdefault(name, []).append(path)
            self.host.agent.ask("spawn", name=name, argv=self.command(name, *options), output=f"/share/{path}")
            deadline = time.monotonic() + 120
            while len(self.said(path).lines) < 5:
                check(time.monotonic() < deadline, f"{name} does not count: {self.said(path).text}")
                time.sleep(0.2)

    def said(self, path):
        text = (self.host.share / path).read_text() if (self.host.share / path).exists() else ""
        return tiny.Life(path, SimpleNamespace(status=None, late=False, stdout=text.rpartition("\n")[0]))

    def check(self, *names):
        """Each has gone on through all its lives."""
        for name in names:
            check_goes_on(*map(self.said, self.of[name]))


def rows(host):
    return host.nvhv_json("list")["vms"]


def seal_and_cut(host, absent=()):
    """All VMs are sealed as when power fails, and it does; when it is back, some NVDIMMs are not there."""
    host.run("nvhv seal --now --budget 60000")
    host.power_cut()
    host.hardware["absent"] = absent
    host.boot()


def kill(host, *names):
    for name in names:
        host.agent.ask("kill", name=name, number=9)
        host.expect_state(name, "sealed")


def damage(path):
    """Neither superblock of the pool in PATH is good any more."""
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        at, found = data.find(b"NVHVPOOL"), 0
        while at >= 0:
            data[at + 24] ^= 0xFF
            found += 1
            at = data.find(b"NVHVPOOL", at + 1)
    check(found == 2, f"{found} superblocks to damage")


def refused(host, lives, name, status, *words):
    result = host.attempt(lives.command(name))
    check(result.status == status and all(word in result.stderr for word in words), f"{name}: not refused with {words}: {result}")


def run(t):
    host = t.boot()
    lives = Lives(host)
    for number in range(2):
        host.run(f"ndctl create-namespace -f -e namespace{number}.0 -m devdax -M mem --align=2M", 60)
        host.run(f"nvhv format /dev/dax{number}.0", 120)
    host.has_pool = True
    host.load_module()
    pools = host.nvhv_json("list")["pools"]
    check([pool["device"] for pool in pools] == ["dax0.0", "dax1.0"], f"the pools are {pools}")
    # The kernel numbers them as it likes.
    node_of = lambda device: int(host.run(f"cat /sys/bus/dax/devices/{device}/numa_node"))
    device = {node_of(pool["device"]): pool["device"] for pool in pools}
    check(set(device) == {0, 1}, f"they are on nodes {device}")

    # Where they go.
    lives.start("far", "near", "next")
    placed = {row["name"]: row["device"] for row in rows(host)}
    check(placed == {"far": device[1], "near": device[0], "next": device[1]}, f"they are on {placed}, of {device}")
    check(f"next: no room on {device[0]}" in host.console.text(0), "nothing says why `next` is not near")
    held = host.attempt("nvhv format /dev/dax1.0 --force")
    check(held.status == 1 and "holds it" in held.stderr, f"the second device is not held: {held}")

    # All come back from where they are.
    seal_and_cut(host)
    check({row["name"]: row["state"] for row in rows(host)} == dict.fromkeys(RAM, "sealed"), f"there are {rows(host)}")
    lives.start("next", "far", "near")
    lives.check(*RAM)
    check({row["name"]: row["device"] for row in rows(host)} == placed, f"they have moved: {rows(host)}")

    # One device is not there: who is on the other goes on. Of those on it nobody knows, so one starts anew.
    seal_and_cut(host, absent=(1,))
    before = lives.of.pop("far")
    lives.start("near", "far")
    lives.check("near")
    seal_and_cut(host)

    # Now there are two of it: neither counts until one is given up.
    lives.start("near", "next")
    lives.check("near", "next")
    twins = {row["device"]: row for row in rows(host) if row["name"] == "far"}
    check(len(twins) == 2 and all(row["clash"] for row in twins.values()), f"not two: {twins}")
    host.note_log()
    refused(host, lives, "far", 125, "two pools")
    check("far: refused to bind: two pools have" in host.kernel_log(), "the log does not say it")
    for words in (["discard", "far", "--force"], ["show", "far"]):
        result = host.attempt(["nvhv", *words])
        check(result.status == 1 and all(f"#{twin['slot']}'" in result.stderr for twin in twins.values()), f"{words} is not refused: {result}")
    shown = host.attempt("nvhv check").stdout
    check(shown.count("with a name that another pool has") == 2, f"nvhv check: {shown}")
    host.run(["nvhv", "discard", f"#{twins[device[0]]['slot']}", "--force"])
    lives.of["far"] = before
    lives.start("far")
    lives.check("far")

    # One pool is damaged. What may be in it is not taken for lost.
    kill(host, *RAM)
    host.poweroff()
    damage(f"{host.pmem}1")
    host.boot()
    lives.start("near")
    lives.check("near")
    listed = host.attempt("nvhv list")
    check(listed.status == 0 and f"the pool on {device[1]} is damaged" in listed.stderr, f"nvhv list: {listed}")
    shown = host.attempt("nvhv show far")
    check(shown.status == 4 and device[1] in shown.stderr, f"nvhv show: {shown}")
    page = host.run("nvhv metrics").splitlines()
    good = [f'nvhv_device_good{{device="{device[node]}"}} {1 - node}' for node in (0, 1)]
    for line in ("nvhv_pool_good 0", *good):
        check(line in page, f"{line} is not in {page}")
    shown = host.attempt("nvhv check").stdout
    check(f"{device[1]}: damaged superblock" in shown and f"{device[0]}: nothing is wrong" in shown, f"nvhv check: {shown}")
    refused(host, lives, "far", 125, "torn or damaged")
    lives.of.pop("far")
    lives.start("far", options=("--policy", "torn=cold"))
    kill(host, "near", "far")
