# SPDX-License-Identifier: GPL-2.0
"""A sealed image moves to another pool by `nvhv export` and `nvhv import`, and its guest goes on there. Whatever interrupts or damages
it, the image is whole on one side and nothing of it is left on the other."""

from rig.check import check

LIMIT = 500
FILE = "/root/moved.nvhv"
OTHER = 1000


def run(t):
    host = t.boot()
    empty = free(host)
    vm = host.start_vm("moved", work="mem", append="size=32")
    vm.wait_ticks(3)
    refused(host, f"nvhv export moved {FILE}", "busy")
    host.kill_vmm(vm, "KILL")
    host.expect_state(vm, "sealed")
    holding(host, vm)
    interrupted_export(host)

    host.run(f"nvhv export moved {FILE}.kept", 120)
    host.run(f"cmp {FILE} {FILE}.kept && rm {FILE}.kept", 60)
    check(host.run(f"stat -c %a {FILE}").strip() == "600", "others may read a guest's memory")
    refused(host, f"nvhv export moved {FILE}", "already")
    # Not to where it is lost with this host, and over nothing but a file.
    host.run("mkdir -p /root/memory && mount -t tmpfs none /root/memory")
    refused(host, "nvhv export moved /root/memory/file --discard", "in memory")
    for verb in ("export", "dump"):
        refused(host, f"nvhv {verb} moved /dev/null --force", "no ordinary file")
    host.run('test -c /dev/null && test ! -e /dev/null.part && test -z "$(ls /root/memory)" && umount /root/memory')
    host.run(f"nvhv export moved {FILE} --force --discard", 120)
    check(not host.images() and free(host) == empty, f"the image is here still: {host.nvhv_json('list')}")

    # Another pool, on a device of another length; the file was said to be durable.
    host.power_cut()
    host.pmem.unlink()
    host.hardware["pmem_size"] = "514M"
    host.has_pool = False
    host.boot()
    host.make_pool()
    empty = free(host)
    damaged_import(host, empty)
    interrupted_import(host, vm, empty)

    check("imported" in host.run(f"nvhv import moved - <{FILE}", 120), "it does not say so")
    refused(host, f"nvhv import moved {FILE}", "there is a VM of that name")
    host.expect_state(vm, "sealed")
    host.start_vm_again(vm)
    vm.expect_continued()
    # It is an ordinary image from now on.
    host.through(vm, "kill", "cut")


def free(host):
    return host.nvhv_json("list")["pool"]["free_bytes"]


def refused(host, command, *words, status=1, **more):
    result = host.attempt(command, 120, **more)
    check(result.status == status, f"it was not refused with {status}: {result}")
    check(all(word in result.stderr for word in words), f"it does not say {words}: {result}")


def holding(host, vm):
    """Who copies an image has it: nobody starts or discards it meanwhile."""
    host.run("mkfifo /tmp/pipe")
    host.agent.ask("spawn", name="slow", argv=["sh", "-c", "nvhv export moved - >/tmp/pipe"], output="/share/slow")
    # One end of the pipe is open and nobody reads: once its head is there, the image is held, and stays so.
    host.run("exec 3</tmp/pipe; head -c 4096 <&3 >/dev/null; "
             "nvhv discard moved --force; test $? = 1 && ! nvhv run --name moved -- true", 60)
    host.agent.ask("wait", 60, name="slow", timeout=60)
    refused(host, "nvhv export moved /tmp/others", uid=OTHER, status=1)
    host.expect_state(vm, "sealed")


def interrupted_export(host):
    """Killed within a part by a limit on its file's length, it goes on from there."""
    killed = host.attempt(f"ulimit -f 9000; exec nvhv export moved {FILE}", 120)
    check(killed.status not in (0, 1), f"it was not killed: {killed}")
    check(host.attempt(f"ls {FILE}").status != 0, "half a file has the name of a whole one")
    went_on = host.attempt(f"nvhv export moved {FILE}", 120)
    check(went_on.status == 0 and "going on after" in went_on.stderr, f"it began anew: {went_on}")
    # On a disk that is full it says so, and what it has written is of no harm.
    host.run("mount -t tmpfs -o size=4M none /mnt")
    refused(host, "nvhv export moved /mnt/moved", "No space left")
    host.run("umount /mnt")


def damaged_import(host, empty):
    size = int(host.run(f"stat -c %s {FILE}"))
    for at in (100, size // 2, size - 10):
        host.run(f"cp {FILE} /root/damaged && printf '\\377\\377\\377\\377' | dd of=/root/damaged bs=1 seek={at} conv=notrunc", 60)
        refused(host, "nvhv import moved /root/damaged", "damaged")
        refused(host, f"head -c {at} {FILE} | nvhv import moved -", "too early")
    refused(host, "nvhv import moved /bin/true", "no exported image")
    refused(host, f"nvhv import 'a b' {FILE}", status=2)
    host.run(f"chmod 666 /dev/nvhv; chmod 755 /root; cp {FILE} /tmp/others; chmod 644 /tmp/others", 60)
    refused(host, "nvhv import moved /tmp/others", "administrator", uid=OTHER)
    host.run("rm /tmp/others /root/damaged")
    check(not host.images() and free(host) == empty, f"something is left: {host.nvhv_json('list')}")


def interrupted_import(host, vm, empty):
    """Killed, or cut off from power, when half of it is there: nothing is left of it."""
    for cut in (False, True):
        half = f"(head -c 10000000 {FILE}; exec sleep 1000) | exec nvhv import moved -"
        host.agent.ask("spawn", name="half", argv=["sh", "-c", half], output="/share/half")
        host.expect_state(vm, "discarding")
        refused(host, "nvhv run --name moved -- true", "being exported, imported, dumped or discarded", status=125)
        refused(host, f"nvhv import moved {FILE}", "busy")
        if cut:
            host.power_cut()
            host.boot()
        else:
            host.run("pkill -KILL -x nvhv; while pgrep -x nvhv; do :; done", 60)
        check(not host.images() and free(host) == empty, f"something is left: {host.nvhv_json('list')}")
