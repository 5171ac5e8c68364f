# SPDX-License-Identifier: GPL-2.0
"""A nested guest: the command that runs it, and what can be said of it from outside its host."""

import importlib.util
import json
import re
import time
from pathlib import Path

from . import report
from .agent import HostLost
from .check import CheckFailed, check
from .devices import Devices
from .paths import HERE


def load(path):
    """Loads a VMM description or a scenario: one small file of Python."""
    spec = importlib.util.spec_from_file_location(path.stem.replace("-", "_"), path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


QMP = """
import socket, sys
peer = socket.socket(socket.AF_UNIX)
peer.connect(sys.argv[1])
for command in ('{"execute": "qmp_capabilities"}', sys.argv[2]):
    peer.sendall(command.encode() + b'\\n')
peer.settimeout(3)
answers = []
try:
    # The VMM may be gone before it answers.
    for line in peer.makefile():
        answers += [line] if '"return"' in line else []
        if len(answers) == 2: break
except OSError:
    pass
print(*answers[1:])
"""


class Vm:
    def __init__(self, host, name, port, *, vmm="microvm", work="counter", cpus=1, memory="128M", cpu="host",
                 irqchip="on", bound=True, run_options=(), wrapper=(), uid=0, initrd=None, append="", devices=None, **extra):
        """VMM names a file of vmm/; WRAPPER becomes the VMM; WORK and APPEND go to the guest's program; DEVICES are arguments for
        Devices, none by default; EXTRA is for that VMM."""
        self.host = host
        self.name = name
        self.vmm = vmm
        self.cpus = cpus
        self.memory = memory
        self.cpu = cpu
        self.irqchip = irqchip
        self.bound = bound
        self.run_options = list(run_options)
        self.wrapper = list(wrapper)
        self.uid = uid
        self.extra = extra
        self.kernel = "/payload/vmlinuz"
        self.devices = Devices(self, port, **(devices or {}))
        self.initrd = f"/payload/{initrd or self.devices.initrd()}"
        words = f"console=ttyS0 loglevel=3 panic=-1 reboot=t work={work}", self.devices.words(), append
        self.cmdline = " ".join(filter(None, words))
        self.report = f"/dev/report/{port}"
        self.console = f"/share/{name}.console"
        self.log = f"/share/{name}.vmm.log"
        self.log_outside = host.share / f"{name}.vmm.log"
        self.outside = host.directory / f"report-{port}"
        self.base = self.outside.stat().st_size if self.outside.exists() else 0
        self.cuts = []
        self.is_ours = True
        self.seen = 0

    # The VMM.

    def command(self):
        """The whole command: the unmodified VMM, behind `nvhv run` when the VM is bound to its name."""
        argv = [*self.wrapper, *load(HERE / "vmm" / f"{self.vmm}.py").command(self)]
        return ["nvhv", "run", "--name", self.name, *self.run_options, "--", *argv] if self.bound else argv

    def start(self):
        """Starts the VMM's process, the first time or again, always with the same command."""
        self.is_about_to_start()
        self.is_ours = True
        self.devices.prepare()
        self.pid = self.host.agent.ask("spawn", name=self.name, argv=self.command(), output=self.log, uid=self.uid)
        return self

    def is_about_to_start(self):
        """What it says from now on, its VMM says that this or somebody else starts."""
        self.is_ours = False
        self.cuts.append(len(self.data()))
        self.seen = len(self.messages())
        self.host.note_log()
        self.log_base = self.log_outside.stat().st_size if self.log_outside.exists() else 0

    def wait_exit(self, limit=30):
        """The VMM's exit status (negative: the signal that ended it); it must end by itself in time."""
        status = self.host.agent.ask("wait", limit, name=self.name, timeout=limit)
        check(status is not None, f"{self.name}: its VMM still runs after {limit} s")
        return status

    def is_running(self):
        if not self.is_ours:
            return self.host.state_of(self) == "live"
        return self.host.agent.ask("wait", name=self.name, timeout=0) is None

    def qmp(self, command, **arguments):
        """Gives a QEMU a command through its control socket; returns what it answered, if it did."""
        command = json.dumps({"execute": command, "arguments": arguments})
        answer = self.host.run(["python3", "-IS", "-c", QMP, f"/tmp/{self.name}.qmp", command])
        return json.loads(answer)["return"] if answer.strip() else None

    def complaint(self):
        """What the VMM and `nvhv run` wrote to their standard output and error since they were last started."""
        return self.log_outside.read_bytes()[self.log_base:].decode(errors="replace")

    # The guest.

    def data(self):
        return self.outside.read_bytes()[self.base:] if self.outside.exists() else b""

    def messages(self, kind=None):
        messages, self.faults = report.read(self.data(), self.cuts)
        return [message for message in messages if kind in (None, message.kind)]

    def new(self, kind=None):
        """Messages since the VMM was last started."""
        return [message for message in self.messages()[self.seen:] if kind in (None, message.kind)]

    def wait_for(self, kind, count=1, limit=90):
        """Waits for COUNT messages of a kind since the VMM was last started; returns the last."""
        return self.wait_until(lambda: found[-1] if len(found := self.new(kind)) >= count else None,
                               f"{count} times `{kind}`", limit)

    def wait_ticks(self, count, limit=90):
        """Waits for COUNT more ticks from now on."""
        already = len(self.messages("tick"))
        self.wait_until(lambda: len(self.messages("tick")) >= already + count, f"{count} more ticks", limit)
        return self

    def wait_progress(self, *columns, more=10, limit=120):
        """Waits until counters of its ticks have each grown by MORE from now on."""
        before = self.progress()
        def grown():
            now = self.progress()
            return all(now[column] >= before[column] + more for column in columns)
        self.wait_until(grown, f"progress beyond {before}", limit)
        return self

    def wait_until(self, condition, what, limit):
        deadline = time.monotonic() + limit
        while not (found := condition()):
            check(not self.new("fail"), f"{self.name}: {[m.text for m in self.new('fail')]}")
            if time.monotonic() > deadline:
                if self.host.machine.is_on():
                    check(self.is_running(), f"{self.name}: its VMM ended: {self.complaint()[-2000:]}")
                last = self.messages()[-1:]
                check(False, f"{self.name}: no {what} within {limit} s; last heard: {last}; {self.last_words()}")
            if not self.host.machine.is_on():
                raise HostLost(f"the host went down while {self.name} worked; console: {self.host.console.tail()}")
            time.sleep(0.02)
        return found

    def last_words(self):
        """For the reader of a failure: what the VMM, the guest's console and its processors say at last."""
        console = self.host.share / f"{self.name}.console"
        said = console.read_text(errors="replace").splitlines()[-15:] if console.exists() else []
        registers = self.registers() if self.host.machine.is_on() else ""
        return "\n  ".join(["its VMM:", *self.complaint().splitlines()[-5:], "its console:", *said, "its processors:", registers])

    def registers(self):
        """Where its processors are, and the stack of the first, if its VMM is a QEMU that answers."""
        monitor = lambda line: self.qmp("human-monitor-command", **{"command-line": line}) or ""
        try:
            said = monitor("info registers -a")
            registers = [line for line in said.splitlines() if line.startswith(("CPU#", "RIP", "CR0", "RSI"))]
            stack = re.search(r"RSP=(\w+)", said)
            return "\n  ".join(registers + (monitor(f"x /96gx 0x{stack[1]}").splitlines() if stack else []))
        except CheckFailed:
            return "unknown"

    def expect_healthy(self):
        """Nothing it said is wrong, damaged, or missing."""
        for kind in ("fail", "splat"):
            said = [message.text for message in self.messages(kind)]
            details = [message.text for message in self.messages("detail")]
            check(not said, "\n  ".join([f"{self.name}: {kind}: {said[:5]}", *details[:40]]))
        check(not self.faults, f"{self.name}: {self.faults[:5]}")
        self.devices.expect_healthy()
        return self

    def expect_continued(self, ticks=10, limit=60):
        """It went on where it was: it works, checks out, and did not boot again."""
        if ticks:
            self.wait_for("tick", ticks, limit)
        check(not self.new("boot"), f"{self.name}: it booted again instead of going on")
        return self.expect_healthy()

    def expect_cold(self, limit=90):
        """It started from nothing."""
        self.wait_for("boot", 1, limit)
        self.wait_for("tick", 3, limit)
        return self.expect_healthy()

    def expect_refused(self, *words, limit=30):
        """It was started again and must not run: not one instruction of the guest, no lost image, and
        the kernel's log or the VMM's own output says why, with all of these words in one line."""
        def said():
            lines = self.host.kernel_log().splitlines() + self.complaint().splitlines()
            return any(all(word.lower() in line.lower() for word in words) for line in lines)
        deadline = time.monotonic() + limit
        while not said():
            check(not self.new(), f"{self.name}: it runs although it must be refused")
            check(time.monotonic() < deadline, f"{self.name}: nothing says {words} within {limit} s: {self.complaint()[-500:]}"
                  f"\n{self.host.kernel_log()[-1500:]}")
            time.sleep(0.1)
        # Silence alone proves nothing: a guest that starts cold is silent too while it boots. The VMM
        # must have ended in failure, or stand still because KVM_RUN failed, as QEMU does.
        while (running := self.is_running()) and "kvm run failed" not in self.complaint():
            check(time.monotonic() < deadline + 10, f"{self.name}: it was refused, but its VMM goes on")
            time.sleep(0.1)
        check(not self.new(), f"{self.name}: it runs although it was refused")
        status = self.host.kill_vmm(self, "KILL") if running else self.wait_exit()
        check(status != 0, f"{self.name}: it was refused, but its VMM reports success")
        return self

    def progress(self):
        """The counters of its last tick."""
        return [int(word) for word in self.messages("tick")[-1].text.split()[-1].split(",")]
