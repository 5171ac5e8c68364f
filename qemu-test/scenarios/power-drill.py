# SPDX-License-Identifier: GPL-2.0
"""A drill seals two VMs as if power failed, tells what that took, and lets them go on unharmed; one that was frozen before stays
so, and so does what is sealed in earnest during a drill."""

from rig.check import check

LIMIT = 600
PARTS = ("freeze_ns", "capture_ns", "writeback_ns", "commit_ns")

# Runs in the host: begins a drill, and does something once the first VM is sealed. On one processor no other thread makes a
# step between the mark in the log and what comes after it. Looking is not left to the log's own wake-ups, which come late.
# Its exit status is the drill's.
MARK = "the first VM is sealed"
MEANWHILE = f"""
import fcntl, os, signal, subprocess, sys, time
what = sys.argv[1]
log = os.open('/dev/kmsg', os.O_RDWR | os.O_NONBLOCK)
os.lseek(log, 0, os.SEEK_END)
device = os.open('/dev/nvhv', os.O_RDWR)
drill = subprocess.Popen(['nvhv', 'drill', '--force'])
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(99))
record = b''
while b': record of' not in record:
    try:
        record = os.read(log, 8192)
    except BlockingIOError:
        time.sleep(0.0001)
os.write(log, b'{MARK}')
if what == 'alarm':
    open('/sys/module/nvhv/power_failing', 'w').write('1')
elif what == 'seal':
    fcntl.ioctl(device, 0x4040e705, b'one'.ljust(64, bytes(1)))
else:
    drill.send_signal(getattr(signal, what))
sys.exit(abs(drill.wait()))
"""


def go_on(host, *vms):
    """They run, and nothing of what they had is missing."""
    for vm in vms:
        host.expect_state(vm, "live")
        vm.wait_ticks(3)
        check(not host.images()[vm.name]["frozen"], f"{vm.name} stands still after the drill")
        check(len(vm.expect_healthy().messages("boot")) == 1, f"{vm.name} has booted again")


def meanwhile(host, what, status):
    """A drill in the middle of which something happens; which VMs are frozen after it."""
    for _ in range(20):
        host.note_log()
        done = host.attempt(["python3", "-IS", "-c", MEANWHILE, what], 60)
        frozen = {name for name, row in host.images().items() if row["frozen"]}
        log = host.kernel_log()
        check(MARK in log, f"{what} was not done: {done}: {log}")
        if MARK not in log.partition("nvhv: drill:")[2]:
            check(done.status == status, f"a drill with {what} in the middle ended with {done.status}: {done}: {log}")
            return frozen
        # It was over: that was an ordinary drill, and what was done to its VMs is undone.
        host.run("nvhv thaw --all")
    check(False, f"no drill was slow enough for {what} to come in the middle of it")


def measure(host, *vms):
    """A drill that must seal these VMs and no others; what it tells."""
    host.note_log()
    told = host.nvhv_json("drill", "--force", "--budget", "60000", timeout=120)
    rows = {row["name"]: row for row in told["vms"]}
    check(set(rows) == {vm.name for vm in vms}, f"not these VMs: {told}")
    check(told["asked"] == told["sealed"] == len(vms) and told["budget_ms"] == 60000 and not told["exceeded"], f"{told}")
    for row in rows.values():
        times = row["times"]
        parts = [times[part] for part in PARTS]
        check(row["sealed"] and not row["frozen"] and min(parts) > 0, f"{row}")
        check(0.5 * times["seal_ns"] < sum(parts) <= times["seal_ns"], f"the parts do not make the whole: {row}")
        shown = host.nvhv_json("show", row["name"])["timings"]
        check(shown["budget_ms"] == 60000 and all(shown[part] == times[part] for part in times), f"`show` has others: {shown}")
        check(f"nvhv: {row['name']}: record of" in host.kernel_log(), "the kernel does not say that it was sealed")
    check(told["durable_ns"] == max(row["times"]["seal_ns"] for row in rows.values()), f"not the last VM: {told}")
    return told


def run(t):
    host = t.boot()
    several = host.start_vm("several", work="smp", cpus=2)
    one = host.start_vm("one", work="mem", append="size=32")
    for vm in (several, one):
        vm.wait_ticks(5, limit=200)

    refused = host.attempt("nvhv drill")
    check(refused.status == 1 and "all 2 VMs that run here would stand still" in refused.stderr, f"without --force: {refused}")
    t.note(f"two VMs, last durable after {measure(host, several, one)['durable_ns'] // 1000} us")
    go_on(host, several, one)

    late = host.attempt("nvhv drill --force --budget 1", 60)
    check(late.status == 1 and "the budget is exceeded" in late.stderr and "one" in late.stdout, f"1 ms is enough: {late}")
    go_on(host, several, one)

    for sign, status in (("SIGTERM", 15), ("SIGINT", 2), ("SIGKILL", 9)):
        check(not (frozen := meanwhile(host, sign, status)), f"{frozen} stand still after a drill that {sign} ended")
        go_on(host, several, one)

    host.run("nvhv seal several")
    measure(host, one)
    check(host.images()["several"]["frozen"], "what was frozen before goes on")
    host.run("nvhv thaw several")
    go_on(host, several, one)

    # The drill has sealed `one` when it is to be sealed in earnest.
    for what, stay in (("alarm", {"several", "one"}), ("seal", {"one"})):
        check((frozen := meanwhile(host, what, 1)) == stay, f"after {what} during a drill {frozen} stand still, not {stay}")
        host.run("sleep 2")
        check({name for name, row in host.images().items() if row["frozen"]} == stay, f"after {what} they go on later")
        host.run("nvhv thaw --all")
        go_on(host, several, one)
    host.through(one, "kill")
