# SPDX-License-Identifier: GPL-2.0
"""What the operator's guide shows is what happens: its sessions are executed, in their order, on a host with systemd."""

import re
import shlex
import time

from rig.check import check
from rig.paths import TOP
from rig.vm import Vm

POOL = False
NEEDS = ["nvhv.ko", "bin/nvhv"]
HARDWARE = {"init": "systemd", "pmem_size": "1410M"}
LIMIT = 900
# The namespace that is there before, and leaves room for a larger one.
NAMESPACE = "ndctl create-namespace -r region0 -m devdax -M mem --align=2M --size=1040M"


def sessions(text):
    """Commands and what they print, in the order of the text."""
    for session in re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        command, printed = None, []
        for line in [*session.splitlines(), None]:
            if line is None or line.startswith(("# ", "(")):
                if command:
                    yield command, "\n".join(printed)
                command, printed = line, []
            else:
                printed.append(line)


def matches(shown, said):
    """Whether a command said what is shown, where `...` is anything and columns may be wider."""
    words = lambda text: "\n".join(" ".join(line.split()) for line in text.strip().splitlines())
    parts = [re.escape(part.strip(" ")) for part in words(shown).split("...")]
    return re.fullmatch(r"\s*.*?\s*".join(parts), words(said), re.DOTALL)


def say(host, command):
    return host.attempt(["sh", "-c", f"cd /root && {{ {command}\n}} 2>&1"], 240).stdout


def run(t):
    host = t.boot()
    host.install()
    host.run("ndctl disable-region region0 && ndctl init-labels -f nmem0 && ndctl enable-region region0", 60)
    host.run(NAMESPACE, 240)
    vm = Vm(host, "db", 0)
    vm.is_ours = False
    host.vms["db"] = vm
    command = shlex.join(vm.command()[5:])
    host.agent.write("/root/vm", f"#!/bin/sh\nexec {command}\n".encode(), 0o755)
    for command, shown in sessions((TOP / "docs/operating.md").read_text()):
        if command == "(the power is cut)":
            host.power_cut()
            host.boot()
            host.run("systemctl is-system-running --wait || true", 200)
        elif command == "# systemctl reboot":
            host.reboot()
            host.boot()
            host.run("systemctl is-system-running --wait || true", 200)
        else:
            said = say(host, command[2:])
            deadline = time.monotonic() + 120
            while command == "# nvhv list" and not matches(shown, said) and time.monotonic() < deadline:
                said = say(host, command[2:])
            check(matches(shown, said), f"{command}\n{said}\nis not\n{shown}")
            if "nvhv run" in command:
                vm.wait_ticks(3, limit=200)
    check(len(vm.messages("boot")) == 1, "the guest has booted again")
