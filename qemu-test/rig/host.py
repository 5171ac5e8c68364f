# SPDX-License-Identifier: GPL-2.0
"""The host under test: one disk and one NVDIMM through many boots, and the ways to lose it.

Each way of losing it says what was meant. A host that goes away otherwise raises HostLost, so
"lost as intended", "lost unexpectedly" and "a check failed" stay three different results.
"""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from . import panics, schemas
from .agent import Agent, HostLost
from .check import check
from .console import Console
from .machine import Machine
from .paths import in_root
from .vm import Vm

BOOT_LIMIT = 120


class Host:
    def __init__(self, payload, directory, *, pmem_size="1026M", guest_disk=False, **hardware):
        """A new host: an empty NVDIMM and a fresh disk; GUEST_DISK adds /dev/vdb with a Debian for a guest.
        HARDWARE goes to the machine."""
        self.payload = payload
        self.kernel = payload.kernel  # what it boots next
        self.directory = Path(directory)
        self.hardware = {"pmem_size": pmem_size, **hardware}
        self.share = self.directory / "share"
        self.share.mkdir(parents=True, exist_ok=True)
        self.pmem = self.directory / "pmem"
        self.disk = self.directory / "disk.qcow2"
        self.console = Console(self.directory / "console.log")
        self.machine = None
        self.agent = None
        self.vms = {}
        self.boots = 0
        self.log_from = 0
        self.outage_from = 0
        self.has_pool = False
        self.is_installed = False
        self.before_module = "true"  # what finds the pool's device
        self.module_parameters = ""
        self.forbidden = None  # why this host may not be booted any more
        self.overlay(payload.image, self.disk)
        if guest_disk:
            self.hardware["guest_disk"] = self.directory / "guest.qcow2"
            self.overlay(payload.guest_image(), self.hardware["guest_disk"])

    def overlay(self, image, disk):
        """A disk that begins as an image, which stays as it is."""
        subprocess.run(in_root(self.payload.tools, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw",
                               "-b", image, disk), check=True)

    # Up.

    def boot(self):
        """Power on, and wait until the host takes commands; its module is loaded if it has a pool."""
        assert self.machine is None or not self.machine.is_on(), "the host is on already"
        if self.forbidden:
            raise HostLost(self.forbidden)
        self.machine = Machine(self.payload, self.kernel, self.directory, self.disk, self.pmem, **self.hardware)
        self.agent = Agent(self.machine)
        self.come_up(1)
        return self

    def come_up(self, count):
        try:
            hello = self.agent.wait_hello(count, BOOT_LIMIT)
        except HostLost as error:
            raise HostLost(f"{error}; console: {self.console.tail()}") from None
        self.boots += 1
        self.boot_id = hello["hello"]
        self.mark(f"boot {self.boots} is up")
        if not self.hardware.get("init"):
            self.run("mount --bind /payload/modules /lib/modules")
        if self.has_pool:
            self.load_module()

    def mark(self, text):
        """Puts a line of ours into the kernel's log."""
        self.agent.ask("mark", text=text)

    # Doing things.

    def run(self, command, timeout=30, **more):
        """Runs a command in the host and fails the scenario unless it succeeds; returns what it printed."""
        result = self.agent.run(command, timeout, **more)
        check(result.status == 0 and not result.late, str(result))
        return result.stdout

    def attempt(self, command, timeout=30, **more):
        """Runs a command that may fail; returns its Result."""
        return self.agent.run(command, timeout, **more)

    def note_log(self):
        """From here on kernel_log() tells what is new."""
        self.log_from = self.console.size()

    def kernel_log(self):
        """What the kernel logged since a VM was last started, or since note_log()."""
        return self.console.text(self.log_from)

    # The pool and its module.

    def make_device(self):
        """Makes the NVDIMM a devdax device, /dev/dax0.0: once in a host's life."""
        self.run("ndctl create-namespace -f -e namespace0.0 -m devdax -M mem --align=2M", 240)

    def make_pool(self):
        """Writes an empty pool on a new device, and loads the module now and after each boot."""
        self.make_device()
        self.run("nvhv format /dev/dax0.0", 240)  # it writes all of it
        self.has_pool = True
        self.load_module()

    def load_module(self):
        if self.is_installed:
            self.run("systemctl start nvhv", 120)  # which it does by itself, some time soon
            return
        self.run(f"{self.before_module} && insmod {self.kernel.module} {self.module_parameters}", 60)

    def install(self):
        """Installs what a user installs, on a host with systemd; from now on it works by itself after each boot."""
        self.run("cp -a /payload/install/. / && depmod && systemd-tmpfiles --create nvhv.conf && systemctl daemon-reload", 240)
        self.run("udevadm control --reload && udevadm trigger --settle --subsystem-match=misc", 120)
        self.run("systemctl enable nvhv nvhv-resume nvhv-seal nvhv-libvirt", 120)
        self.is_installed = True

    def unload_module(self):
        self.run("rmmod nvhv", 60)

    def nvhv_json(self, *words, timeout=30, status=0):
        """What a verb prints as JSON, which is as its schema says; STATUS is how it has to end."""
        result = self.attempt(["nvhv", *words, "--json"], timeout)
        check(result.status == status and not result.late, str(result))
        return schemas.read(words[0], result.stdout)

    def images(self):
        """What the pool holds: name to the row that `nvhv list` shows."""
        return {row["name"]: row for row in self.nvhv_json("list")["vms"]}

    def state_of(self, vm):
        """State of a VM's image: live, sealed, torn, ... or None when there is no image."""
        row = self.images().get(getattr(vm, "name", vm))
        return row and row["state"]

    def expect_state(self, vm, state, limit=60):
        """Waits until the image of a VM is in a state; None: until there is none."""
        deadline = time.monotonic() + limit
        while (now := self.state_of(vm)) != state:
            check(time.monotonic() < deadline, f"{getattr(vm, 'name', vm)}: the image is {now}, not {state}")
            time.sleep(0.1)

    def expect_cause(self, vm, cause):
        """What a VM that waits to go on was sealed because of."""
        said = self.images()[vm.name]["cause"]
        check(said == cause, f"{vm.name}: the cause of its seal is {said}, not {cause}")

    # VMs.

    def start_vm(self, name, **description):
        """Starts a VM (see Vm for what can be described) and leaves it to itself."""
        vm = Vm(self, name, len(self.vms), **description)
        check(vm.name not in self.vms, f"two VMs are named {name}")
        check(len(self.vms) < self.hardware.get("reports", 4), "this host has too few report ports: boot it with reports=N")
        self.vms[name] = vm
        return vm.start()

    def start_vm_again(self, vm):
        """Starts the same command again, after its VMM or its host was lost."""
        return vm.start()

    def kill_vmm(self, vm, signal_name):
        """Sends the VMM a signal and waits for its end."""
        self.outage_from = self.console.size()
        self.agent.ask("kill", name=vm.name, number=getattr(signal, f"SIG{signal_name}").value)
        return vm.wait_exit()

    def end_vms(self):
        """Kills every VMM that still runs and throws the images away: for the end of a scenario."""
        for vm in self.vms.values():
            self.agent.ask("end", name=vm.name)
        if self.has_pool:
            deadline = time.monotonic() + 10
            # What is being discarded goes away by itself, as soon as nothing holds its memory.
            passing = ("live", "discarding")
            while any(row["state"] in passing for row in self.images().values()) and time.monotonic() < deadline:
                time.sleep(0.1)
            for name in self.images():
                self.run(["nvhv", "discard", name, "--force"])
        for vm in self.vms.values():
            vm.devices.release()
        self.vms.clear()

    def through(self, vm, *outages, columns=(), more=10):
        """Takes a VM through outages: its VMM is killed (`kill`), or it is sealed and the power cut (`cut`), or
        the host is lost in an orderly way, or by `panic CAUSE AFTER`. Each time it must go on, and its counters in COLUMNS with it."""
        for number, outage in enumerate(outages, 1):
            self.mark(f"{vm.name}: outage {number}: {outage}")
            if outage in ("kill", "term", "segv"):
                self.kill_vmm(vm, outage.upper())
            elif outage.startswith("panic "):
                self.panic(*outage.split()[1:])
                self.boot()
                check(self.state_of(vm) == "sealed", f"{vm.name}: after {outage} its image is {self.state_of(vm)}")
            elif outage == "cut":
                self.run(["nvhv", "seal", vm.name])
                self.power_cut()
                self.boot()
            else:
                getattr(self, outage)()
                if outage != "kexec":
                    self.boot()
            self.start_vm_again(vm)
            vm.expect_continued(ticks=3)
            vm.wait_progress(*columns, more=more).expect_healthy()

    def resume_or_refuse(self, vm):
        """After an outage that may have come at a bad moment: the VM goes on; or its image is torn, the kernel said so
        at once, and it is refused, thrown away and started anew. Says whether it has gone on."""
        state = self.state_of(vm)
        check(state in ("sealed", "torn"), f"{vm.name}: its image is {state}")
        said = self.console.text(self.outage_from)
        resumed = state == "sealed"
        if not resumed:
            check(any(text in said for text in (f"{vm.name}: cannot be sealed", "VMs are torn")),
                  f"{vm.name}: nothing said that it would be torn: {said[-3000:]}")
            self.start_vm_again(vm)
            vm.expect_refused(vm.name, "torn")
            self.run(["nvhv", "discard", vm.name, "--force"])
        self.start_vm_again(vm)
        if resumed:
            vm.expect_continued(ticks=3, limit=120)
        else:
            vm.expect_cold(limit=200)
        return resumed

    def outlives_panic(self, vm, cause, after=""):
        """The kernel panics in one of the ways of panics.py, and boots; as resume_or_refuse()."""
        self.panic(cause, after)
        self.boot()
        return self.resume_or_refuse(vm)

    # Down.

    def power_cut(self):
        """The plug is pulled: no instruction of the host runs after this one."""
        self.outage_from = self.console.size()
        self.machine.cut_power()

    def reset(self):
        """The reset button: as sudden as a power cut, but memory modules keep power."""
        self.machine.tell("system_reset")
        self.expect_off("guest-reset", "host-qmp-system-reset")

    def reboot(self, grace=10):
        """An orderly reboot, as init does it; the machine has gone through reset when this returns."""
        if self.hardware.get("init"):
            self.run("systemctl reboot --no-block")
        else:
            self.agent.post("lose", how="reboot", grace=grace)
        self.expect_off("guest-reset")

    def poweroff(self, grace=10):
        """An orderly shutdown."""
        self.agent.post("lose", how="poweroff", grace=grace)
        self.expect_off("guest-shutdown")

    def kexec(self, grace=10):
        """An orderly reboot straight into the same kernel; the host is up again when this returns."""
        self.run("kexec -c -l /payload/vmlinuz --initrd=/payload/initramfs --reuse-cmdline", 120)
        self.agent.post("lose", how="kexec", grace=grace)
        self.come_up(len(self.agent.hellos) + 1)

    def panic(self, cause="sysrq", after="", cpu=0):
        """The kernel panics in one of the ways of panics.py."""
        self.outage_from = self.console.size()
        panics.panic(self, cause, after, cpu)
        self.expect_off("guest-reset", "guest-panic")

    def panic_and_dump(self, cause):
        """The kernel panics with a crash kernel loaded; returns the log that is in the memory that this finds, after
        which the host has booted again."""
        self.run("kexec -c -p /payload/vmlinuz --initrd=/payload/initramfs --reuse-cmdline --append='nr_cpus=1 reset_devices'", 120)
        panics.panic(self, cause)
        self.has_pool, had_pool = False, self.has_pool
        self.come_up(len(self.agent.hellos) + 1)
        log = self.run("vmcore-dmesg /proc/vmcore", 60)
        self.reboot()
        self.has_pool = had_pool
        self.boot()
        return log

    def expect_off(self, *reasons, limit=120):
        if not self.machine.wait_off(limit):
            raise HostLost(f"the host should have gone down within {limit} s; console: {self.console.tail()}")
        reason = self.machine.reason()
        self.machine.cut_power()
        if reason not in reasons:
            raise HostLost(f"the host went down by {reason}, not {reasons[0]}")

    def release(self):
        """Ends whatever still runs; what was written stays for the reader."""
        if self.machine:
            self.machine.cut_power()

    def forget_storage(self):
        for pmem in self.directory.glob("pmem*"):
            pmem.unlink()
        self.disk.unlink(missing_ok=True)
        for name in ("cxl", "cxl-labels"):
            (self.directory / name).unlink(missing_ok=True)
        if disk := self.hardware.get("guest_disk"):
            disk.unlink(missing_ok=True)
