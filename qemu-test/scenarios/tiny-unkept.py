# SPDX-License-Identifier: GPL-2.0
"""An image is refused, by name, whose guest used a class of devices that is not carried, a queue that was broken or
cannot be shadowed, a feature that was hidden from it, or a device of the host that came late; only the first may go
on if its owner says so, and none of these is sealed on request."""

from rig.check import check
from vmm import tiny
from vmm.tiny import bound, check_goes_on, live, Life, KILLED

HOST = "shared"
HARDWARE = {"cpus": 2}
NEEDS = tiny.NEEDS
WAY = ("--irqchip", "kernel")


def not_sealed(host, name, case, word, lines, *words, options=WAY, state="sealed"):
    """A VM that has printed so many lines with WORD is not sealed on request, and runs on; killed, it is in a state."""
    said = f"/tmp/{name}"
    host.agent.ask("spawn", name=name, argv=bound(name, case, *options), output=said)
    host.run(f"until [ $(grep -c '^{word}' {said}) -ge {lines} ]; do sleep 0.1; done", 60)
    sealed = host.attempt(["nvhv", "seal", name])
    check(sealed.status == 1 and all(part in sealed.stderr for part in words), f"a seal on request: {sealed}")
    host.expect_state(name, "live")
    host.agent.ask("kill", name=name, number=9)
    check(host.agent.ask("wait", 30, name=name, timeout=30) == KILLED, f"{name}: it ended by itself")
    host.expect_state(name, state)


def refused(host, name, way, *words, options=(), case="requests", state="sealed"):
    """Another life of a VM does not come about, and the log says why."""
    host.note_log()
    life = host.attempt(["nvhv", "run", "--name", name, *options, "--", "tiny-vmm", case, *way], 30)
    log = host.kernel_log()
    check(life.status not in (0, KILLED), f"it ran: {life}")
    check(any(all(word in line for word in (f"{name}: refused", *words)) for line in log.splitlines()), f"the log: {log}")
    host.expect_state(name, state)


def run(t):
    host = t.boot()
    live(host, "liar", "requests", "--lie", "22", "--die", "lied:1", *WAY)
    check(host.images()["liar"]["unkept"], "the image does not say that a queue was broken")
    for options in ((), ("--allow-partial",)):
        refused(host, "liar", WAY, "queue 0 of mmio@", options=options)

    of_fs = (*WAY, "--type", "26")
    first = live(host, "fs", "requests", "--die", "served:60", *of_fs)
    check(host.images()["fs"]["unkept"], "the image does not say that a device is not kept")
    refused(host, "fs", of_fs, "virtio-fs (type 26) at mmio@")
    result = host.attempt(["nvhv", "run", "--name", "fs", "--allow-partial", "--", "tiny-vmm", "requests",
                           "--stop", "count:30", *of_fs], 30)
    last = Life("requests", result)
    check(last.status == 0, last.text)
    check_goes_on(first, last)

    nowhere = (*WAY, "--layout", "nowhere", "--kick", "exit")
    not_sealed(host, "nowhere", "requests", "nowhere", 2, "queue 0 of mmio@", options=nowhere)
    not_sealed(host, "late", "late-device", "count", 6, "VFIO")
    for options in ((), ("--allow-partial",)):
        refused(host, "nowhere", nowhere, "queue 0 of mmio@", options=options)
        refused(host, "late", WAY, "VFIO", options=options, case="late-device")
    # What cannot be described is not in a record either.
    packed = (*WAY, "--packed", "1")
    not_sealed(host, "packed", "requests", "count", 6, "cannot be described", options=packed, state="torn")
    refused(host, "packed", packed, "torn", state="torn")
    for name in host.images():
        host.run(["nvhv", "discard", name, "--force"])
    check(host.images() == {}, "images are left")
