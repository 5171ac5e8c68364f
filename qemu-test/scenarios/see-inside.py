# SPDX-License-Identifier: GPL-2.0
"""What becomes of a VM is told as it happens, by tracepoints and `nvhv events`, for Prometheus by `nvhv metrics`, and on a
terminal by `nvhv top`."""

from rig import schemas
from rig.check import check

LIMIT = 300
FOLLOW = ["nvhv", "events", "--follow", "--json"]

# Runs in the host: `nvhv top` on a terminal, until it has shown a page; then somebody quits. Prints what the terminal got.
TERMINAL = """
import os, pty, sys
pid, terminal = pty.fork()
if pid == 0:
    os.execvp('nvhv', ['nvhv', 'top'])
seen = b''
try:
    while b'seen' not in seen:
        seen += os.read(terminal, 4096)
    os.write(terminal, b'q')
    while True:
        seen += os.read(terminal, 4096)
except OSError:
    pass  # nobody has the other end
sys.stdout.buffer.write(seen)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def top(host, vm):
    """Two looks at a VM that works."""
    lines = host.run("nvhv top -b -n 2 -d 1", 60).splitlines()
    pool = host.nvhv_json("list")["pool"]
    shown = host.nvhv_json("show", vm.name)
    check(len(lines) == 11, f"{lines}")
    for head, count, _, columns, row in (lines[:5], lines[6:]):
        check(f"pool on {pool['device']}: " in head and "persistence domain: " in head, head)
        check(count == "1 VMs here, 0 at rest", count)
        of = lambda column: row[columns.index(column):].split("  ")[0].strip()
        check((of("NAME"), of("STATE"), of("VCPUS"), of("RAM")) == ("seen", "live", "1", "128 MiB"), row)
        check(0 < float(of("CPU%")) <= 110, f"it works, and its VMM takes nothing, or more than there is: {row}")
        check(of("RESUMES") == str(shown["resumes"]), row)
        check(of("REFUSED") == (shown["refusal"] or {"text": "-"})["text"], f"{row}: {shown['refusal']}")
        milliseconds = shown["timings"]["seal_ns"] // 100_000
        check(of("SEAL") == f"{milliseconds // 10}.{milliseconds % 10} ms", f"{row}: {shown['timings']}")
    seen = host.run(["python3", "-IS", "-c", TERMINAL], 60)
    check("REFUSED" in seen and seen.endswith("\x1b[?25h\x1b[?1049l"), f"the terminal is not as it was: {seen!r}")
    refused = host.attempt("nvhv top")
    check(refused.status == 1 and "-b" in refused.stderr, f"without a terminal: {refused}")


def run(t):
    host = t.boot()
    host.agent.ask("spawn", name="events", argv=FOLLOW, output="/share/events")
    instances = "ls /sys/kernel/tracing/instances"
    while not host.run(instances):
        pass
    vm = host.start_vm("seen")
    vm.wait_ticks(3)
    refused = host.attempt("nvhv run --name seen -- true")
    check(refused.status == 125, f"a second one was bound to the name: {refused}")
    host.run("nvhv seal seen")
    sealed = host.nvhv_json("show", "seen")["timings"]
    host.run("nvhv thaw seen")
    top(host, vm)
    host.kill_vmm(vm, "KILL")
    host.expect_state(vm, "sealed")
    check("0 VMs here, 1 at rest" in host.run("nvhv top --once"), "an image at rest is not shown")
    host.start_vm_again(vm)
    vm.expect_continued(ticks=3)
    shown = host.nvhv_json("show", "seen")

    host.agent.ask("kill", name="events", number=15)
    check(host.agent.ask("wait", 30, name="events", timeout=30) == 0, "it does not end in order")
    check(not host.run(instances), "its instance stays behind")
    events = [schemas.read("events", line) for line in (host.share / "events").read_text().splitlines()]
    check(all(event["vm"] == "seen" for event in events), f"{events}")
    kinds = [event["event"] for event in events]
    expected = ["bind", "adopt", "refuse", "freeze", "seal", "freeze", "seal", "bind", "replay", "resume"]
    check(kinds == expected, f"not {expected}, but {kinds}")
    check([event["time"] for event in events] == sorted(event["time"] for event in events), "they are not in order")
    adopt, refuse, freeze, seal, died, resume = (events[n] for n in (1, 2, 3, 4, 6, 9))
    check(adopt["pages"] == sealed["adopted_pages"] and adopt["ns"] == sealed["adopt_ns"], f"{adopt}: {sealed}")
    check(refuse["errno"] == 16 and refuse["why"], f"{refuse}")
    check(freeze["ns"] == sealed["freeze_ns"] and seal["ns"] == sealed["seal_ns"], f"{freeze}, {seal}: {sealed}")
    check((seal["cause"], died["cause"]) == ("request", "vmm-died"), f"{seal}, {died}")
    check(resume["number"] == shown["resumes"] == 1 and resume["ns"] == shown["timings"]["restore_ns"], f"{resume}: {shown}")

    host.run("nvhv metrics --output /tmp/nvhv.prom")
    page = dict(line.rsplit(" ", 1) for line in host.run("cat /tmp/nvhv.prom").splitlines() if not line.startswith("#"))
    listed = host.nvhv_json("list")
    check(float(page["nvhv_pool_bytes"]) == listed["pool"]["bytes"], f"{page}")
    check(float(page["nvhv_pool_free_bytes"]) == listed["pool"]["free_bytes"], f"{page}")
    check(page['nvhv_vm_state{vm="seen",state="live"}'] == "1" and page['nvhv_vm_state{vm="seen",state="torn"}'] == "0", f"{page}")
    check(page['nvhv_vm_resumes_total{vm="seen"}'] == "1", f"{page}")
    check(round(float(page['nvhv_vm_restore_seconds{vm="seen"}']) * 1e9) == shown["timings"]["restore_ns"], f"{page}")
    check(set(host.run("ls -A /tmp").split()) >= {"nvhv.prom"} and ".nvhv.prom" not in host.run("ls -A /tmp"), "it leaves half a file")
    check(host.attempt("nvhv metrics --output /nowhere/x").status == 1, "it wrote nowhere")
    check(host.attempt(FOLLOW, uid=1000).status != 0, "anybody may trace")
