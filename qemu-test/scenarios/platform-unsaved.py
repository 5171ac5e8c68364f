# SPDX-License-Identifier: GPL-2.0
"""The platform says that it did not save memory: images that were to survive that outage are refused, for good; so are
those with bad blocks, and nobody else gets those. What is said by sysfs is said by files of ours in its place."""

from rig.check import check

LIMIT = 600
MODULE = "/sys/bus/nd/devices/nmem0/nfit"
REGION = "/sys/bus/nd/devices/region0"
DEVICE = "/sys/bus/dax/devices/dax0.0"
GRANULE = 2 << 20


def says(host, flags="", dirty=0, bad=""):
    """Loads the module anew, with a platform that says so."""
    host.attempt(f"rmmod nvhv; umount {MODULE} {REGION}/badblocks")
    host.run(f"mkdir -p /tmp/nfit && echo '{flags} ' >/tmp/nfit/flags && echo {dirty} >/tmp/nfit/dirty_shutdown"
             f" && echo 8680-01 >/tmp/nfit/id && printf '{bad}' >/tmp/badblocks"
             f" && mount --bind /tmp/nfit {MODULE} && mount --bind /tmp/badblocks {REGION}/badblocks")
    host.load_module()


def cut_and_say(host, **what):
    host.power_cut()
    host.has_pool = False
    host.boot()
    says(host, **what)
    host.has_pool = True


def expect_unsaved(host, vm, *words):
    check(host.images()[vm.name]["unsaved"], f"{vm.name} is not marked: {host.images()}")
    host.start_vm_again(vm)
    vm.expect_refused(vm.name, "unsaved")
    said = host.console.text(host.outage_from)
    check(all(word in said for word in (f"{vm.name}: it is not resumed", *words)), f"nothing says {words}: {said[-2000:]}")


def goes_on(host, vm):
    check(not host.images()[vm.name]["unsaved"], f"{vm.name} is marked")
    host.start_vm_again(vm)
    vm.expect_continued(ticks=3)


def sealed(host, vm):
    host.run(["nvhv", "seal", vm.name])


def run(t):
    host = t.boot()
    says(host, dirty=4)
    vm = host.start_vm("vm0", work="mem", append="size=16")
    vm.wait_ticks(5)

    # Nothing is wrong.
    sealed(host, vm)
    cut_and_say(host, dirty=4)
    goes_on(host, vm)

    # A number that has grown; it is remembered when it has not any more.
    sealed(host, vm)
    cut_and_say(host, dirty=5)
    expect_unsaved(host, vm, "8680-01 counts 5 dirty shutdowns, and 4 when it was sealed")
    says(host, dirty=4)
    expect_unsaved(host, vm)
    host.run(["nvhv", "discard", vm.name, "--force"])

    # A word. What is sealed after that outage is no matter of it, though the word stays.
    host.start_vm_again(vm)
    vm.expect_cold()
    sealed(host, vm)
    cut_and_say(host, flags="smart_notify flush_fail", dirty=4)
    expect_unsaved(host, vm, "nmem0: flush_fail")
    check(not host.attempt("nvhv check | grep -q 'nmem0: flush_fail'").status, "nvhv check does not tell")
    host.run(["nvhv", "discard", vm.name, "--force"])
    host.start_vm_again(vm)
    vm.expect_cold()
    host.kill_vmm(vm, "KILL")
    says(host, flags="smart_notify flush_fail", dirty=4)
    goes_on(host, vm)

    # Bad blocks: in its RAM, in the last granule, which is nobody's, and then where its record is.
    sealed(host, vm)
    start, size, region = (int(host.run(f"cat {path}"), 0) for path in (f"{DEVICE}/resource", f"{DEVICE}/size", f"{REGION}/resource"))
    free = host.nvhv_json("list")["pool"]["free_bytes"]
    bad = lambda *places: "".join(f"{(start - region + at) // 512} 8\\n" for at in places)
    cut_and_say(host, dirty=4, bad=bad(20 * GRANULE, size - 4096))
    expect_unsaved(host, vm, "its memory is bad at offset 0x2800000")
    left = host.nvhv_json("list")["pool"]["free_bytes"]
    check(left == free - GRANULE, f"{free} bytes were free, and {left} are with a bad block")
    other = host.start_vm("other", work="mem", append="size=16")
    other.wait_ticks(5)
    host.kill_vmm(other, "KILL")
    goes_on(host, other)
    host.kill_vmm(other, "KILL")
    says(host, dirty=4, bad=bad(2 * GRANULE))
    host.expect_state(vm, "damaged")
    host.start_vm_again(vm)
    vm.expect_refused(vm.name, "damaged")
    says(host, dirty=4)
    goes_on(host, other)
