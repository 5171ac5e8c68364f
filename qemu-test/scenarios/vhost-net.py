# SPDX-License-Identifier: GPL-2.0
"""As virtio-net, with two pairs of queues that the host's kernel serves (vhost-net)."""

from rig.paths import HERE
from rig.vm import load

LIMIT = 600


def run(t):
    load(HERE / "scenarios/virtio-net.py").run(t, {"net": "vhost", "net_queues": 2}, cpus=2)
