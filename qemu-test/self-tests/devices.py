# SPDX-License-Identifier: GPL-2.0
"""Each machine with each kind of device works and checks out, without the module and without an outage."""

POOL = False
LIMIT = 900
HARDWARE = {"reports": 12}

ALL = {"disk": "16M", "net": "tap", "console": True, "rng": True}
MACHINES = {
    "microvm-legacy": {"vmm": "microvm"},
    "microvm-modern": {"vmm": "microvm", "modern": True},
    "microvm-split": {"vmm": "microvm", "modern": True, "irqchip": "split"},
    "q35": {"vmm": "q35", "cpus": 2},
    "q35-split": {"vmm": "q35", "irqchip": "split"},
    "pc": {"vmm": "pc"},
}


def run(t):
    host = t.boot()
    for name, machine in MACHINES.items():
        vm = host.start_vm(name, work="disk+net+console+rng", bound=False, devices=ALL, append="depth=8", **machine)
        vm.wait_ticks(20, limit=150)
        vm.wait_until(lambda: all(vm.progress()[index] for index in (0, 1, 2, 3, 4, 6, 9)), "progress of each device", 60)
        t.note(f"{name}: {vm.messages('disk')[-1].text}; {vm.messages('tick')[-1].text}")
        vm.expect_healthy()
        host.kill_vmm(vm, "KILL")
        t.note(f"  its peer: {vm.devices.said('stream')}")
    for net in ("tap", "vhost"):
        vm = host.start_vm(f"net-{net}", vmm="q35", work="net", bound=False, devices={"net": net, "net_queues": 2}, cpus=2)
        vm.wait_until(lambda: vm.messages("tick") and vm.progress()[1] > 20, "records", 150)
        t.note(f"net-{net}: {vm.messages('tick')[-1].text}")
        vm.expect_healthy()
        host.kill_vmm(vm, "KILL")
    vm = host.start_vm("ext4", vmm="q35", work="ext4", bound=False, devices={"disk": "32M", "filesystem": True}, append="until=15")
    vm.wait_for("unmounted", limit=150)
    t.note(f"ext4: {vm.messages('tick')[-1].text}")
    vm.expect_healthy()
    host.kill_vmm(vm, "KILL")
    vm.devices.check_filesystem()
