# SPDX-License-Identifier: GPL-2.0
"""A client outside of the guest writes to its Redis and checks every write that was acknowledged to it: through the
VMM's death, which its connection outlives, and a power cut, after which another client goes on in its place."""

from rig.check import check
from rig.devices import SERVER

KEYS = 20_000
LIMIT = 900
MORE = 100


def run(t):
    host = t.boot()
    vm = host.start_vm("redis", vmm="q35", work="redis", initrd="guest-redis.cpio", memory="192M", devices={"net": "tap"},
                       append=f"keys={KEYS}")
    vm.wait_for("ready", limit=300)
    client = Client(host, vm, 0)
    client.expect_more()
    for outage in ("kill", "kill", "cut", "kill"):
        if outage == "kill":
            host.kill_vmm(vm, "KILL")
            host.start_vm_again(vm)
        else:
            host.run("nvhv seal redis")
            host.power_cut()
            acknowledged = client.acknowledged()
            host.boot()
            host.start_vm_again(vm)
            client = Client(host, vm, acknowledged)
        vm.expect_continued(ticks=0)  # Redis guests report no ticks
        client.expect_more()
    vm.expect_healthy()
    t.note(f"{client.acknowledged()} writes were acknowledged to the outside")


class Client:
    """Writes numbers in the host. What it says is outside of the host before the next write."""

    def __init__(self, host, vm, acknowledged):
        name = f"client-{acknowledged}"
        argv = [SERVER, "client", f"{vm.devices.network}.2:6379", str(acknowledged)]
        self.vm = vm
        self.log = host.share / name
        host.agent.ask("spawn", name=name, argv=argv, output=f"/share/{name}")

    def said(self):
        # The last line may be half written.
        return self.log.read_text().split("\n")[:-1] if self.log.exists() else []

    def acknowledged(self):
        last = [line for line in self.said() if line.startswith(("ack", "verify"))][-1:]
        return int(last[0].split()[1].removeprefix("upto=")) if last else 0

    def expect_more(self):
        """It goes on, by its only connection, in which it has found all that was acknowledged before."""
        before = self.acknowledged()
        self.vm.wait_until(lambda: self.acknowledged() >= before + MORE, f"writes of the client beyond {before}", 120)
        others = [line for line in self.said() if not line.startswith("ack ")]
        check(len(others) == 1 and others[0].endswith("missing=0"), f"the client: {others}")
