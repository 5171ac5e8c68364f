# SPDX-License-Identifier: GPL-2.0
"""A host with a crash kernel loaded panics, and has an oops that starts it without a panic: the VM is sealed before, the dump
is written, and has it on record; then the VM goes on."""

from rig.check import check

HARDWARE = {"cmdline": "crashkernel=384M"}
LIMIT = 600


def run(t):
    host = t.boot()
    vm = host.start_vm("vm0", work="mem", append="size=32")
    for cause, words in (("call", "Kernel panic - not syncing: crash test"), ("null", "Oops: ")):
        vm.wait_ticks(10)
        log = host.panic_and_dump(cause)
        check(words in log, f"the dump does not tell of the panic: {log[-3000:]}")
        sealed = log.find("vm0: record of ")
        check(0 <= sealed < log.rfind(words) or cause == "null" and sealed >= 0, f"in the dump vm0 is not sealed: {log[-3000:]}")
        host.expect_state(vm, "sealed")
        host.start_vm_again(vm)
        vm.expect_continued()
