# SPDX-License-Identifier: GPL-2.0
"""As microvm-full, with virtio-pci on q35."""

from rig.paths import HERE
from rig.vm import load

LIMIT = 1800
HARDWARE = {"guest_disk": True}


def run(t):
    load(HERE / "scenarios/microvm-full.py").run(t, vmm="q35", modern=False)
