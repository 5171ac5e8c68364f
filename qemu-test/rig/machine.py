# SPDX-License-Identifier: GPL-2.0
"""The outer QEMU: one process that is the host's hardware, with its power switch.

It emulates AMD's SVM with nested paging on any machine, so kvm_amd works inside it. `-no-reboot`
turns each reset of the guest into the end of the process: whoever owns the machine starts it again.
"""

import ctypes
import json
import os
import signal
import socket
import subprocess
import threading
import time

from .paths import in_root

PR_SET_PDEATHSIG = 1

# Speed only: the emulated processor has no speculation to mitigate, and KASLR costs a relocation.
SPEED = "mitigations=off nokaslr no_timer_check tsc=reliable random.trust_cpu=on"
STRICT = "panic_on_warn=1 oops=panic panic=-1 ignore_loglevel printk.time=1 log_buf_len=4M"

CXL_WINDOW = "4G"


class Machine:
    """One power-on of the host's hardware."""

    def __init__(self, payload, kernel, directory, disk, pmem, *, cpus=1, parallel=False, memory="3G", pmem_size="1026M",
                 persistence=None, reports=4, cmdline="", guest_disk=None, init=None, cxl=None, nodes=1, absent=()):
        """Emulated processors take turns, unless PARALLEL: QEMU's threads do not always get along (see qemu-test/README.md)."""
        directory = os.fspath(directory)
        agent, far_agent = socket.socketpair()
        qmp, far_qmp = socket.socketpair()
        self.agent = agent
        if init:
            cmdline = f"{cmdline} rig.init={init}"
        platform = "q35,nvdimm=on" + (f",nvdimm-persistence={persistence}" if persistence else "")
        cpu = "max"
        if cxl:
            platform += f",cxl=on,cxl-fmw.0.targets.0=cxl,cxl-fmw.0.size={CXL_WINDOW}"
            # Linux makes no region of persistent memory on a machine that says that it is virtual: it could not be sure to
            # invalidate caches there.
            cpu += ",-hypervisor"
        command = [
            "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-accel", f"tcg,thread={'multi' if parallel else 'single'},tb-size=512",
            "-cpu", cpu, "-machine", platform, "-smp", f"{cpus},sockets={nodes}",
            "-m", f"{memory},slots=4,maxmem=32G",
            *numa(nodes, cpus, memory),
            "-kernel", kernel.vmlinux, "-initrd", kernel.initrd,
            "-append", f"console=ttyS0,115200 rdinit=/init rig.reports={reports} {SPEED} {STRICT} {cmdline}".strip(),
            "-chardev", f"file,id=console,path={directory}/console.log,append=on", "-serial", "chardev:console",
            "-chardev", f"socket,id=qmp,fd={far_qmp.fileno()}", "-mon", "chardev=qmp,mode=control",
            "-drive", f"if=none,id=disk,file={disk},format=qcow2,cache=writeback", "-device", "virtio-blk-pci,drive=disk",
            "-device", "virtio-serial-pci",
            "-chardev", f"socket,id=agent,fd={far_agent.fileno()}",
            "-device", "virtserialport,chardev=agent,name=nvhv.agent",
            "-virtfs", f"local,path={directory}/share,mount_tag=share,security_model=none",
            "-virtfs", f"local,path={payload.share},mount_tag=payload,security_model=none,readonly=on",
            *report_ports(directory, reports),
            *second_disk(guest_disk),
            "-device", "virtio-rng-pci",
            *nvdimms(nodes, absent, pmem, pmem_size),
            *cxl_memory(directory, cxl),  # the last, as its host bridge would take what is added behind it
        ]
        with open(f"{directory}/qemu.log", "ab") as log:
            self.process = subprocess.Popen(
                in_root(payload.tools, *command), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, preexec_fn=die_with_parent,
                pass_fds=[far_agent.fileno(), far_qmp.fileno()])
        self.started = time.monotonic()
        far_agent.close()
        far_qmp.close()
        self.events = []
        self.answers = []
        self.changed = threading.Condition()
        self.qmp = qmp.makefile("rw")
        self.listener = threading.Thread(target=self.listen, daemon=True)
        self.listener.start()
        self.tell("qmp_capabilities")

    def listen(self):
        try:
            for line in self.qmp:
                message = json.loads(line)
                with self.changed:
                    if "event" in message:
                        self.events.append(message)
                    elif "QMP" not in message:
                        self.answers.append(message)
                    self.changed.notify_all()
        except (OSError, ValueError):
            pass

    def tell(self, command, **arguments):
        """Sends a QMP command and returns its answer."""
        with self.changed:
            self.answers.clear()
            self.qmp.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
            self.qmp.flush()
            self.changed.wait_for(lambda: self.answers, 10)
            return self.answers.pop() if self.answers else None

    def reason(self):
        """Why the guest stopped, in QEMU's words: guest-reset, guest-shutdown, ... or None."""
        for event in self.events:
            if event["event"] == "SHUTDOWN":
                return event["data"]["reason"]
        return None

    def is_on(self):
        return self.process.poll() is None

    def wait_off(self, timeout):
        """True once the machine is off, and all that it said is known."""
        try:
            self.process.wait(timeout)
            self.listener.join(timeout)
            return True
        except subprocess.TimeoutExpired:
            return False

    def cut_power(self):
        """What was stored in the NVDIMM and sent to the disk stays; all else is gone."""
        if self.is_on():
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.agent.close()


def numa(nodes, cpus, memory):
    """Nodes with as much memory and as many processors each."""
    if nodes == 1:
        return
    each = int(memory.removesuffix("G")) * 1024 // nodes
    for node in range(nodes):
        own = "".join(f",cpus={cpu}" for cpu in range(cpus) if cpu % nodes == node)
        yield from ("-object", f"memory-backend-ram,id=ram{node},size={each}M",
                    "-numa", f"node,nodeid={node},memdev=ram{node}{own}")


def nvdimms(nodes, absent, pmem, size):
    """One on each node, the first in the file PMEM and the others beside it; those of ABSENT were taken out."""
    for node in set(range(nodes)) - set(absent):
        path = f"{pmem}{node}" if node else pmem
        place = f",node={node}" if nodes > 1 else ""
        yield from ("-object", f"memory-backend-file,id=nv{node},share=on,mem-path={path},size={size}",
                    "-device", f"nvdimm,id=nvd{node},memdev=nv{node},label-size=2M{place}")


def second_disk(image):
    """The disk that the host gives to a guest, /dev/vdb."""
    if image:
        yield from ("-drive", f"if=none,id=guest,file={image},format=qcow2,cache=writeback",
                    "-device", "virtio-blk-pci,drive=guest")


def cxl_memory(directory, size):
    """A CXL memory device with SIZE of persistent memory, alone behind its host bridge, and its labels."""
    if size:
        for name, length in (("cxl", size), ("cxl-labels", "256M")):
            yield from ("-object", f"memory-backend-file,id={name}-file,share=on,mem-path={directory}/{name},size={length}")
        yield from ("-device", "pxb-cxl,id=cxl,bus=pcie.0,bus_nr=12", "-device", "cxl-rp,id=cxl-port,bus=cxl,port=0,chassis=0,slot=2",
                    "-device", "cxl-type3,bus=cxl-port,persistent-memdev=cxl-file,lsa=cxl-labels-file,sn=1")


def report_ports(directory, count):
    """Ports that lead from /dev/report/N in the host to a file outside, one for each VM. What goes
    through them is outside at once, and a byte costs a tenth of what it costs through the share."""
    for number in range(count):
        yield from ("-chardev", f"file,id=report{number},path={directory}/report-{number},append=on",
                    "-device", f"virtserialport,chardev=report{number},name=nvhv.report.{number}")


def die_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
