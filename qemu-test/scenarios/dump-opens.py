# SPDX-License-Identifier: GPL-2.0
"""`nvhv dump` writes images, sealed and torn, as cores that drgn, crash and vmcore-dmesg open: they find the guest's kernel in them."""

import subprocess

from rig.check import check
from rig.paths import HERE, in_root, script

LOOK = HERE / "rig" / "look-into-core"


def run(t):
    host = t.boot()
    vm = host.start_vm("seen", cpus=2, work="smp")
    vm.wait_ticks(3)
    check(host.attempt("nvhv dump seen /share/live").status == 1, "it dumps a VM that runs")
    host.kill_vmm(vm, "KILL")
    host.expect_state(vm, "sealed")
    said = host.run("nvhv dump seen /share/sealed", 120)
    check("2 vCPUs" in said, said)
    check(host.attempt("nvhv dump seen /share/sealed").status == 1, "it replaces a file")
    release = host.run("uname -r").strip()
    opens(host, "sealed", release, threads=2)

    host.start_vm_again(vm)
    vm.expect_continued(ticks=3)
    host.power_cut()
    host.boot()
    host.expect_state(vm, "torn")
    torn = host.attempt("nvhv dump seen /share/torn", 120)
    check(torn.status == 0 and "no registers" in torn.stderr, f"{torn}")
    opens(host, "torn", release, threads=0)


def opens(host, core, release, threads):
    """Guest and host run the same kernel."""
    log = host.run(f"vmcore-dmesg /share/{core}", 60)
    check("Linux version " + release in log, f"its log begins: {log[:300]}")
    size, blocks = map(int, host.run(f"stat -c '%s %b' /share/{core}").split())
    check(blocks * 512 < size * 0.9, f"it has no holes: {size} bytes, {blocks} blocks")
    debug = script("debug-root")
    path = host.share / core
    said = tool(debug, "crash", "--osrelease", path)
    check(said.strip() == release, f"crash takes it for {said}")
    said = tool(debug, "python3", LOOK, path)
    check(said.split() == [release, str(threads)], f"drgn finds {said}")


def tool(root, *command):
    done = subprocess.run(in_root(root, *command), capture_output=True, text=True)
    check(done.returncode == 0, f"{command}: {done.stdout}{done.stderr}")
    return done.stdout
