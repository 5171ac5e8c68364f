# SPDX-License-Identifier: GPL-2.0
"""The VM's descriptors in other processes, and two VMs that claim one name."""

from rig.check import check
from vmm import tiny
from vmm.tiny import check_goes_on, live

HOST = "shared"
HARDWARE = {"cpus": 2}
NEEDS = tiny.NEEDS

NOTHING = " ".join(["EIO"] * 6)


def run(t):
    host = t.boot()

    # Passed to a process that lives on: the image is sealed, and resumed, while that one has them still.
    one = live(host, "passed", "passed", "--report", "/tmp/passed", "--keep", "6000", "--die", "count:8")
    host.expect_state("passed", "sealed")
    host.run("for i in $(seq 50); do [ -e /tmp/passed ] && exit; sleep 0.1; done; exit 1")
    report = host.run("cat /tmp/passed")
    check(report == f"before: {NOTHING}\nafter: {NOTHING}\n", f"another process was let in: {report}")
    two = live(host, "passed", "count", "--stop", "count:5", status=0)
    check_goes_on(one, two)

    one = live(host, "forked", "forked", "--keep", "4000", "--die", "count:12")
    check(one.of("child") == [["exited", "0"], ["stays"]], one.text)
    host.expect_state("forked", "sealed")
    report = host.run("cat /tmp/forked")
    check(report == f"mapped: false\nioctls: {NOTHING}\n", f"a child has what is not its own: {report}")
    two = live(host, "forked", "count", "--stop", "count:5", status=0)
    check_goes_on(one, two)

    for case in ("two-vms", "two-processes"):
        one = live(host, case, case, "--die", "count:12")
        check(one.of("second") and all(words == ["EBUSY"] for words in one.of("second")), one.text)
        check_goes_on(one, live(host, case, "count", "--stop", "count:5", status=0))
    host.run("pkill -KILL tiny-vmm || true")
    host.expect_state("passed", None)
    check(host.images() == {}, "images are left")
