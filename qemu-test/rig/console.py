# SPDX-License-Identifier: GPL-2.0
"""The host's kernel console: kept whole, and read for anything a healthy kernel does not say."""

import re

TROUBLE = re.compile(
    r"WARNING:|BUG[: ]|Oops|Call Trace|general protection fault|Kernel panic|lockup|rcu.*stall|hung task"
    r"|Bad page|refcount_t|use-after-free|unable to handle|page allocation failure|nvhv: BUG|nvhv:.*leak"
    r"|blocked for more than|scheduling while atomic|list_(add|del) corruption|Modules linked in")

# Said by any stock kernel on this emulated machine, and no trouble.
HARMLESS = re.compile(r"nvhv-test: |TSC_DEADLINE disabled due to Errata|Spectre|debug_check|Command line:|RETBleed")

BOOT = "Linux version"


class Console:
    def __init__(self, path):
        self.path = path
        self.read_to = 0
        self.expected = []

    def expect(self, *texts):
        """From now on a line with one of these texts begins a loss that was meant: what follows it until
        the kernel boots again is no trouble."""
        self.expected += texts

    def new_lines(self):
        try:
            with open(self.path, "rb") as file:
                file.seek(self.read_to)
                data = file.read()
        except FileNotFoundError:
            return []
        self.read_to += len(data)
        return data.decode(errors="replace").splitlines()

    def trouble(self):
        """Lines since the last look that a healthy kernel does not print."""
        lines, lost = [], False
        for line in self.new_lines():
            if BOOT in line:
                lost = False
            lost = lost or any(text in line for text in self.expected)
            if not lost and TROUBLE.search(line) and not HARMLESS.search(line):
                lines.append(line)
        return lines

    def size(self):
        return self.path.stat().st_size if self.path.exists() else 0

    def text(self, start):
        with open(self.path, "rb") as file:
            file.seek(start)
            return file.read().decode(errors="replace")

    def tail(self, count=12):
        try:
            lines = self.path.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return "(empty)"
        return "\n  ".join(["", *lines[-count:]])
