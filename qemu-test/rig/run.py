# SPDX-License-Identifier: GPL-2.0
"""Runs scenarios one after the other and says in KTAP what became of each.

A scenario is a file of scenarios/ with a docstring and `def run(t)`; it may set
  HOST = "shared"         it never loses its host and may share a booted one with others
  HARDWARE = {...}        arguments for Host: cpus, parallel, memory, pmem_size, persistence, reports
  POOL = False            its host comes up without pool and module
  NEEDS = ["bin/nvhv"]    files of the payload without which it is skipped
  LIMIT = 300             seconds it may take, at least twice what it does

An emulated host keeps one processor of this machine busy, or as many as it has itself if those run in parallel, so
as many hosts run at a time as there are processors for them. Those that share a host run one after the other; the
long ones begin first.
"""

import os
import shutil
import sys
import threading
import time
import traceback
from contextlib import contextmanager
from itertools import groupby

from .agent import HostLost
from .check import CheckFailed
from .host import Host
from .paths import HERE, OUT, PAYLOAD
from .payload import Payload
from .vm import load

NEEDED = ["nvhv.ko", "bin/nvhv"]


class Skip(Exception):
    """The scenario cannot run here, and says why."""


class Scenario:
    def __init__(self, path, parallel):
        self.name = path.stem
        self.module = load(path)
        self.title = (self.module.__doc__ or "").strip().split("\n")[0]
        setting = lambda name, otherwise: getattr(self.module, name, otherwise)
        self.pool = setting("POOL", True)
        self.hardware = {"parallel": parallel, **setting("HARDWARE", {})}
        self.shared = setting("HOST", "own") == "shared"
        self.needs = setting("NEEDS", NEEDED if self.pool else [])
        self.limit = setting("LIMIT", 300)
        self.keeps_busy = self.hardware.get("cpus", 1) if self.hardware["parallel"] else 1

    def host_key(self):
        """Scenarios that may share a host have the same."""
        return self.shared, repr((self.pool, self.hardware)) if self.shared else self.name


def find(names, folder="scenarios", parallel=False):
    """The scenarios with these names, or all of them. Emulated processors run in PARALLEL, or in some of them only."""
    paths = {path.stem: path for path in sorted((HERE / folder).glob("*.py"))}
    unknown = [name for name in names if name not in paths]
    if unknown:
        raise SystemExit(f"no such scenario: {' '.join(unknown)} (see --list)")
    return [Scenario(paths[name], parallel) for name in names or paths]


def ends(lines, count=8):
    """The first and the last of many lines."""
    if len(lines) <= 2 * count:
        return lines
    return [*lines[:count], f"... {len(lines) - 2 * count} lines ...", *lines[-count:]]


class Processors:
    """This machine's processors, as many as may be kept busy at a time."""

    def __init__(self, count):
        self.count = self.free = count
        self.waiting = []
        self.changed = threading.Condition()

    @contextmanager
    def taken(self, wanted):
        """Waits for some processors, or for all there are, and keeps them for a while. Who waits for several is
        not passed by those who want one."""
        wanted = min(wanted, self.count)
        turn = object()
        with self.changed:
            self.waiting.append(turn)
            self.changed.wait_for(lambda: self.waiting[0] is turn and self.free >= wanted)
            self.waiting.remove(turn)
            self.free -= wanted
            self.changed.notify_all()
        try:
            yield
        finally:
            with self.changed:
                self.free += wanted
                self.changed.notify_all()


class Trial:
    """What a scenario is given: it boots hosts, and is told the time."""

    def __init__(self, runner, scenario, directory):
        self.runner = runner
        self.scenario = scenario
        self.directory = directory
        self.payload = runner.payload
        self.hosts = []
        self.notes = []
        self.expired = False

    def boot(self, **hardware):
        """A host with an empty pool and the module loaded: a new one, or the shared one as good as new."""
        scenario = self.scenario
        if scenario.shared and not hardware:
            host = self.runner.shared_host(scenario)
        else:
            name = f"host{len(self.hosts)}" if self.hosts else ""
            host = Host(self.payload, self.directory / name, **{**scenario.hardware, **hardware})
            self.hosts.append(host)
            host.boot()
            if scenario.pool:
                host.make_pool()
        if host not in self.hosts:
            self.hosts.append(host)
        host.mark(f"scenario {scenario.name} begins")
        return host

    def note(self, text):
        """A line for the reader of the report, such as a time that was measured."""
        self.notes.append(text)

    def skip(self, reason):
        raise Skip(reason)

    def expire(self):
        self.expired = True
        for host in self.hosts:
            host.forbidden = "the time is over"
            host.release()


class Runner:
    def __init__(self, kernel=None, keep=False, jobs=None, out=sys.stdout):
        self.payload = Payload(kernel)
        self.keep = keep
        self.processors = Processors(jobs or os.cpu_count())
        self.out = out
        self.saying = threading.Lock()
        self.shared = {}
        self.failures = []  # name, why; in lines

    def shared_host(self, scenario):
        """The host that this scenario shares with others: the one that is up, or a new one."""
        host = self.shared.get(scenario.host_key())
        if host is None or not host.machine.is_on():
            if host:
                host.release()
            directory = OUT / f"shared-{os.getpid()}-{scenario.name}"
            shutil.rmtree(directory, ignore_errors=True)
            host = self.shared[scenario.host_key()] = Host(self.payload, directory, **scenario.hardware)
            host.boot()
            if scenario.pool:
                host.make_pool()
        return host

    def run_all(self, scenarios):
        """Runs them all; returns how many passed, failed and were skipped."""
        counts = {"pass": 0, "fail": 0, "skip": 0}
        self.say("KTAP version 1", f"1..{len(scenarios)}")
        in_order = sorted(scenarios, key=Scenario.host_key)
        groups = [list(group) for _, group in groupby(in_order, Scenario.host_key)]
        # What takes long, or several processors, must not be what all the others are waited for.
        groups.sort(key=lambda group: (-group[0].keeps_busy, -sum(scenario.limit for scenario in group)))
        waiting = iter(groups)
        threads = [threading.Thread(target=self.run_groups, args=(waiting, counts), daemon=True)
                   for _ in range(self.processors.count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # Again where a reader looks first, and where a log that was cut in the middle still has it.
        for name, lines in self.failures:
            self.say(f"# {name} failed:", *(f"#   {line}" for line in ends(lines)))
        if lost := len(scenarios) - sum(counts.values()):
            self.say(f"# {lost} scenarios were not run: the rig is at fault")
            counts["fail"] += lost
        return counts

    def run_groups(self, waiting, counts):
        """Runs group after group until none waits."""
        while True:
            with self.saying:
                group = next(waiting, None)
            if group is None:
                return
            with self.processors.taken(group[0].keeps_busy):
                try:
                    for scenario in group:
                        self.run_and_say(scenario, counts)
                finally:
                    self.close(group[0])

    def run_and_say(self, scenario, counts):
        began = time.monotonic()
        verdict, reasons, notes = self.run_one(scenario)
        lines = notes + (reasons if verdict == "fail" else [])
        ok = "not ok" if verdict == "fail" else "ok"
        skip = f" SKIP {reasons[0]}" if verdict == "skip" else ""
        said = [line for text in lines for line in text.splitlines()]
        with self.saying:
            counts[verdict] += 1
            if verdict == "fail":
                self.failures.append((scenario.name, said))
            self.say(*(f"# {line}" for line in said),
                     f"{ok} {sum(counts.values())} {scenario.name} #{skip} {time.monotonic() - began:.1f} s")

    def say(self, *lines):
        print(*lines, sep="\n", file=self.out, flush=True)

    def close(self, scenario):
        """Ends the host that a scenario shared with others."""
        if host := self.shared.pop(scenario.host_key(), None):
            host.release()
            shutil.rmtree(host.directory, ignore_errors=True)

    def run_one(self, scenario):
        missing = [name for name in scenario.needs if not (PAYLOAD / name).exists()]
        if missing:
            return "skip", [f"not built: {', '.join(missing)}"], []
        directory = OUT / scenario.name
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        trial = Trial(self, scenario, directory)
        watchdog = threading.Timer(scenario.limit, trial.expire)
        watchdog.daemon = True
        watchdog.start()
        reasons = []
        try:
            for step in (lambda: scenario.module.run(trial), lambda: self.tidy(trial)):
                reasons += self.verdict_of(step, trial)
                if reasons:
                    break
        except Skip as skip:
            return "skip", [str(skip)], []
        finally:
            watchdog.cancel()
            reasons += self.put_away(trial, bool(reasons))
        return "fail" if reasons else "pass", reasons, trial.notes

    @staticmethod
    def verdict_of(step, trial):
        """Runs a step; what went wrong, in the words of the three results."""
        try:
            step()
            return []
        except Skip:
            raise
        except CheckFailed as failed:
            return [f"the time of {trial.scenario.limit} s is over" if trial.expired else f"check failed: {failed}"]
        except HostLost as lost:
            if trial.expired:
                return [f"the time of {trial.scenario.limit} s is over"]
            return [f"host lost unexpectedly: {lost}"]
        except Exception:
            return [f"the rig or the scenario is at fault: {traceback.format_exc()}"]

    def tidy(self, trial):
        """A host that is still up must let go of everything."""
        for host in trial.hosts:
            if host.machine.is_on():
                host.end_vms()
                if host.has_pool and host not in self.shared.values():
                    host.unload_module()

    def put_away(self, trial, failed):
        """Ends the hosts, reads their consoles, and keeps what a reader may want."""
        reasons = []
        for host in trial.hosts:
            trouble = host.console.trouble()
            shared = host in self.shared.values()
            if trouble:
                reasons.append("the host's kernel complained:\n  " + "\n  ".join(trouble[:20]))
            if shared:
                shutil.copytree(host.share, trial.directory / "share", dirs_exist_ok=True)
                for path in (host.console.path, *host.directory.glob("report-*")):
                    shutil.copy2(path, trial.directory)
            if failed or reasons or not shared:
                host.release()
            if not shared and not self.keep and not (failed or reasons):
                host.forget_storage()
        return reasons
