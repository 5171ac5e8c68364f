# SPDX-License-Identifier: GPL-2.0
"""RAM blocks whose sizes and addresses are no multiples of 2 MiB."""

HOST = "shared"


def run(t):
    host = t.boot()
    for number, (vmm, memory) in enumerate((("microvm", "131080K"), ("q35", "133M"), ("microvm", "129M"))):
        vm = host.start_vm(f"vm{number}", vmm=vmm, work="mem", memory=memory, append="size=40")
        vm.wait_for("filled", limit=120)
        vm.wait_ticks(5)
        host.kill_vmm(vm, "KILL")
        host.start_vm_again(vm)
        vm.expect_continued()
        host.kill_vmm(vm, "KILL")
