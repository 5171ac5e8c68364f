# SPDX-License-Identifier: GPL-2.0
"""The ways in which a host's kernel panics, by name: what is done to it, in one host that is up.

Those of tests/crash come over the shell that asks for them; with AFTER they come over whatever processor CPU
does so many microseconds later, in an interrupt of its timer, or upon the end of a lock ("unlock") or a softirq ("softirq").
"""

INJECTED = ("call", "bug", "null", "irqs-off", "warning", "lock", "runqueue", "softlockup")

# What the kernel may say once it has begun.
SAID = ("Kernel panic", "BUG: ", "kernel BUG at", "WARNING: ", "crash test", "sysrq: Trigger a crash", "soft lockup",
        "invoked oom-killer", "NMI received for unknown reason")

SYSCTL = {
    "softlockup": "kernel.watchdog_thresh=1 kernel.softlockup_panic=1",
    "oom": "vm.panic_on_oom=1 vm.overcommit_memory=1",
    "nmi": "kernel.unknown_nmi_panic=1",
}

# Processor 0, bank 4: an uncorrected error after which the processor's context is corrupt (AMD64 manual, volume 2, 9.3.2).
MACHINE_CHECK = "mce 0 4 0xbe00000000000000 0x4 0x1000 0x0"

COMMAND = {
    "sysrq": "echo c >/proc/sysrq-trigger",
    "oom": """python3 -IS -c 'everything = b"x" * (64 << 30)'""",
}


def panic(host, cause, after="", cpu=0):
    """Makes the kernel of HOST panic, some time soon."""
    if settings := SYSCTL.get(cause):
        host.run(f"sysctl -q {settings}")
    host.console.expect(*SAID)
    if cause == "nmi":
        host.machine.tell("inject-nmi")
    elif cause == "machine-check":
        host.machine.tell("human-monitor-command", **{"command-line": MACHINE_CHECK})
    elif cause in INJECTED:
        host.run("test -d /sys/module/nvhv_crash || insmod /payload/nvhv_crash.ko")
        post(host, f"echo {cause} {f'{cpu} {after}' if after else ''} >/sys/module/nvhv_crash/parameters/now")
    else:
        post(host, COMMAND[cause])


def post(host, command):
    host.agent.post("run", argv=["sh", "-c", command], timeout=120)
