# SPDX-License-Identifier: GPL-2.0
"""A VM with so many vCPUs that its record goes over the end of a huge page of the pool."""

from rig.check import check
from vmm import tiny
from vmm.tiny import check_goes_on, live

HOST = "shared"
NEEDS = tiny.NEEDS
VCPUS = 37  # the second record area then begins 60 KiB before the end of one


def run(t):
    host = t.boot()
    options = ("--irqchip", "kernel", "--vcpus", str(VCPUS))
    lives = [live(host, "many", "bench", *options, "--die", "count:3", timeout=120),
             live(host, "many", "bench", *options, "--die", "count:3", timeout=120),
             live(host, "many", "bench", *options, "--stop", "count:3", status=0, timeout=120)]
    check_goes_on(*lives)
    check(host.images() == {}, "images are left")
