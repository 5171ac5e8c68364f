# SPDX-License-Identifier: GPL-2.0
"""The module is built for each stock kernel that it is meant for, from the same source, and the newest is booted."""

import re

from rig.check import check

HOST = "shared"


def run(t):
    host = t.boot()
    kernels = t.payload.matrix()
    check(kernels, "`make matrix` has not come to its end, or was not run")
    for version, built in kernels.items():
        if built.failed.exists():
            check(False, f"{version}: it was not built:\n{built.failed.read_text()[-3000:]}")
        if built.lacks.exists():
            t.note(f"{version}: not built: {built.lacks.read_text().strip()}")
            continue
        is_for = re.search(rb"vermagic=(\S+)", built.module.read_bytes())
        check(is_for and is_for[1].decode() == version, f"{version}: what was built is for {is_for and is_for[1]}")
        t.note(f"{version}: built")
    newest, *_ = kernels
    check(kernels[newest].module.exists(), f"it is not built for the newest kernel, {newest}")
    running = host.run("uname -r").strip()
    check(running == newest, f"the host runs {running}, not {newest}")
    check("nvhv" in host.run("cut -d' ' -f1 /proc/modules").split(), "the module is not loaded")
