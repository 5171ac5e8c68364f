# SPDX-License-Identifier: GPL-2.0
"""A pool in ordinary memory that the kernel was told to leave alone (memmap=): a VM goes on after the host has started another
kernel by kexec. The host's NVDIMM stays empty."""

import json

from rig.check import check

POOL = False
NEEDS = ["nvhv.ko", "bin/nvhv"]
HARDWARE = {"memory": "4G", "cmdline": "memmap=1G!4G"}
LIMIT = 400


def run(t):
    host = t.boot()
    host.before_module = "modprobe nd_e820"
    host.run(host.before_module)
    namespace, = json.loads(host.run("ndctl list -b e820 -N"))
    made = json.loads(host.run(f"ndctl create-namespace -f -e {namespace['dev']} -m devdax -M mem --align=2M", 60))
    device = made["daxregion"]["devices"][0]["chardev"]
    host.run(f"nvhv format /dev/{device}", 240)
    host.has_pool = True
    host.load_module()
    check(host.nvhv_json("list")["pool"]["device"] == device, "the pool is on another device")
    vm = host.start_vm("kept", work="mem", append="size=32")
    vm.wait_ticks(5)
    host.through(vm, "kexec", "kill", "kexec")
