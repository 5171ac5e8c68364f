# SPDX-License-Identifier: GPL-2.0
"""Sixteen VMs on one host, all of which continue, each as itself, after the host rebooted.

They are those of the tiny VMM: sixteen nested Linux guests are more than an emulated processor bears.
"""

import time
from types import SimpleNamespace

from rig.check import check
from vmm import tiny
from vmm.tiny import bound, check_goes_on

NEEDS = tiny.NEEDS
LIMIT = 400
VMS = {f"vm{number}": number for number in range(16)}


def start(host, life, names=VMS):
    """Starts them, each with a RAM of another size, and waits until each has counted further."""
    for name in names:
        ram = VMS[name]
        argv = bound(name, "bench", "--irqchip", "kernel", "--ram", str(ram))
        host.agent.ask("spawn", name=name, argv=argv, output=f"/share/{name}.{life}")
    deadline = time.monotonic() + 120
    while waiting := [name for name in names if len(said(host, name, life).lines) < 5]:
        check(time.monotonic() < deadline, f"{waiting} do not count: {said(host, waiting[0], life).text}")
        time.sleep(0.2)


def said(host, name, life):
    """What a VM has printed in one of its lives, but for a line that is half written."""
    text = (host.share / f"{name}.{life}").read_text()
    result = SimpleNamespace(status=None, late=False, stdout=text.rpartition("\n")[0])
    return tiny.Life(f"{name}.{life}", result)


def check_all_lives(host, name, first, last):
    """A VM has gone on from its FIRST life to its LAST."""
    check_goes_on(*(said(host, name, life) for life in range(first, last + 1)))


def check_refused(host, name):
    """A VM is torn, and therefore refused; it is thrown away."""
    refused = host.attempt(bound(name, "bench", "--irqchip", "kernel", "--ram", str(VMS[name])))
    check(refused.status == 125 and "torn" in refused.stderr, f"{name} is torn, but: {refused}")
    host.run(["nvhv", "discard", name, "--force"])


def run(t):
    host = t.boot()
    start(host, 0)
    host.reboot(grace=30)
    host.boot()
    check(set(host.images()) == set(VMS), f"there are {sorted(host.images())}")
    for name in VMS:
        host.expect_state(name, "sealed")
    start(host, 1)
    for name in VMS:
        check_all_lives(host, name, 0, 1)
    for name in VMS:
        host.agent.ask("kill", name=name, number=9)
        host.expect_state(name, "sealed")
