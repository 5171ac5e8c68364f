# SPDX-License-Identifier: GPL-2.0
"""Each way of losing the host is told apart, and keeps the disk and the NVDIMM."""

from rig.check import check

POOL = False
LIMIT = 400
PEEK = "import mmap, os; m = mmap.mmap(os.open('/dev/dax0.0', os.O_RDWR), 2 << 20); "


def run(t):
    host = t.boot()
    host.make_device()
    host.run(["python3", "-IS", "-c", PEEK + "m[4096:4100] = b'kept'"])
    for how in ("power_cut", "reset", "reboot", "poweroff", "kexec", "panic"):
        host.run(f"echo {how} >/root/how && sync")
        before = host.boot_id
        getattr(host, how)()
        if how != "kexec":
            host.boot()
        check(host.boot_id != before, f"{how} did not happen")
        check(host.run("cat /root/how").strip() == how, "the disk was not kept")
        kept = host.run(["python3", "-IS", "-c", PEEK + "print(m[4096:4100])"])
        check("kept" in kept, f"the NVDIMM was not kept over {how}: {kept}")
