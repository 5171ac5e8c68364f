# SPDX-License-Identifier: GPL-2.0
"""Redis with 200,000 keys outlives a power cut: same process, same data, no acknowledged write missing.

Beside it, for comparison: the time a plain cold boot of the same guest needs until it answers its
first GET, loading the same data from an RDB file and from an append-only file. Both lie in the
guest's initramfs, so neither pays for reading a disk.
"""

import time

from rig import dump
from rig.check import check

KEYS = 200_000
LIMIT = 1200


def run(t):
    host = t.boot()
    vm = host.start_vm("redis", work="redis", initrd="guest-redis.cpio", memory="320M", append=f"keys={KEYS}")
    vm.wait_for("ready", limit=300)
    vm.wait_for("ack", 10, limit=120)
    host.run("nvhv seal redis")
    # Whatever was acknowledged until the power went was reported outside the host before.
    server = vm.messages("server")[-1].text
    dataset = vm.messages("dataset")[-1].text
    acknowledged = int(vm.messages("ack")[-1].text)
    host.power_cut()

    power_on = time.monotonic()
    host.boot()
    host.start_vm_again(vm)
    vm.wait_for("ack", 1, limit=120)  # each one answers GETs and SETs
    continued = time.monotonic() - power_on
    again = lambda kind: vm.wait_for(kind, 1, limit=240).text
    check(again("server") == server, f"the server was {server}, is {again('server')}")
    check(again("dataset") == dataset, f"the data was {dataset}, is {again('dataset')}")
    verified = dict(word.split("=") for word in again("verify").split())
    check(int(verified["upto"]) >= acknowledged, f"{acknowledged} was acknowledged, the guest knows of {verified['upto']}")
    check(verified["missing"] == "0", f"acknowledged writes are missing: {verified}")
    check(" bad=0 " in dataset, f"the data set was bad before: {dataset}")
    vm.expect_continued(ticks=0)  # Redis guests report no ticks
    host.kill_vmm(vm, "KILL")
    t.note(f"host power-on to first answer, continued: {continued:.1f} s ({KEYS} keys, {acknowledged} writes acknowledged)")

    for data in ("rdb", "aof"):
        dump.make(t.payload, data, KEYS)
        host.power_cut()
        power_on = time.monotonic()
        host.boot()
        cold = host.start_vm(f"cold-{data}", work="redis", initrd=f"guest-redis-{data}.cpio", memory="512M",
                             append=f"keys={KEYS} data={data}", bound=False)
        cold.wait_for("ready", limit=300)
        t.note(f"host power-on to first answer, cold boot with {data.upper()}: {time.monotonic() - power_on:.1f} s")
