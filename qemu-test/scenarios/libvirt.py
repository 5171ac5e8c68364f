# SPDX-License-Identifier: GPL-2.0
"""Domains of Debian's libvirt: a marked one goes on after a power cut, a reboot and the death of its QEMU, and an unmarked one
does not; what virsh does to the marked one is what docs/libvirt.md says. It is confined by AppArmor until the power cut: under
emulation that costs each start half a minute."""

import json
import re

from rig.check import check
from rig.paths import TOP
from rig.vm import Vm

HARDWARE = {"init": "systemd"}
LIMIT = 1800
PLAIN = "/usr/bin/qemu-system-x86_64"
MARKED = "/usr/bin/nvhv-qemu-system-x86_64"
NAMES = ("kept", "plain")
# Reports leave through a device of the rig, which libvirt knows nothing of. Profiles of programs that are not here take long.
RIG = r"""
sed -i 's|^#stdio_handler.*|stdio_handler = "file"|; s|^cgroup_device_acl = \[|&"/dev/report/0", "/dev/report/1", |' /etc/libvirt/qemu.conf
mkdir -p /etc/apparmor.d/local/abstractions
echo '/dev/vport* rw,' >>/etc/apparmor.d/local/abstractions/libvirt-qemu
find /etc/apparmor.d -maxdepth 1 -type f -not -name '*libvirt*' -delete
"""


class Domain(Vm):
    """A guest that libvirt starts."""

    def __init__(self, host, name, **description):
        super().__init__(host, name, NAMES.index(name), vmm="q35", **description)
        self.emulator = MARKED
        self.uuid = f"087616dd-f0c0-48ac-bf5b-{NAMES.index(name):012}"
        host.vms[name] = self
        self.log_outside.touch()
        self.devices.prepare()

    def xml(self):
        disk = (f"<disk type='file' device='disk'><driver name='qemu' type='raw' cache='none'/><source file='{self.devices.disk_path}'/>"
                "<target dev='vda' bus='virtio'/></disk>") if self.devices.disk else ""
        return f"""<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{self.name}</name>
  <uuid>{self.uuid}</uuid>
  <memory unit='MiB'>{self.memory.removesuffix('M')}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{self.kernel}</kernel>
    <initrd>{self.initrd}</initrd>
    <cmdline>{self.cmdline}</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode='host-passthrough'/>
  <devices>
    <emulator>{self.emulator}</emulator>
    <controller type='usb' model='none'/>
    {disk}
    <serial type='file'><source path='{self.console}' append='on'/><target port='0'/></serial>
  </devices>
  <qemu:commandline>
    <qemu:arg value='-chardev'/><qemu:arg value='file,id=report,path={self.report},append=on'/>
    <qemu:arg value='-device'/><qemu:arg value='isa-debugcon,iobase=0xe9,chardev=report'/>
  </qemu:commandline>
</domain>"""

    def define(self):
        self.host.agent.write(f"/root/{self.name}.xml", self.xml().encode())
        self.virsh("define", f"/root/{self.name}.xml", named=False)

    def virsh(self, verb, *words, named=True):
        return self.host.run(["virsh", verb, *[self.name][:named], *words], 600)

    def fails(self, verb, *words):
        """That virsh does not do it, and that one line says all of these words."""
        result = self.host.attempt(["virsh", verb, self.name], 600)
        check(result.status != 0, f"`virsh {verb} {self.name}` succeeds")
        check(any(all(word in line for word in words) for line in result.stderr.splitlines()), f"virsh {verb}: {result.stderr}")

    def start(self):
        self.is_about_to_start()
        self.virsh("start")
        return self

    def expect(self, state, limit=120):
        """Waits until `virsh domstate --reason` says so."""
        last = self.host.run(f"for i in $(seq {limit}); do said=$(virsh domstate {self.name} --reason); "
                             f"[ \"$said\" = '{state}' ] && break; sleep 1; done; echo \"$said\"", limit * 10).strip()
        check(last == state, f"{self.name} is {last}, not {state}")

    def end(self, signal):
        pid = self.host.images()[self.name]["pid"]
        self.host.run(["kill", f"-{signal}", str(pid)])


def guide():
    """What the guide has an administrator do to libvirt."""
    return "\n".join(re.findall(r"^```sh\n(.*?)^```", (TOP / "docs/libvirt.md").read_text(), re.MULTILINE | re.DOTALL))


def run(t):
    host = t.boot()
    host.install()
    host.run("systemctl enable libvirtd virtlogd libvirt-guests", 300)
    host.run(guide() + RIG, 600)
    host.run("systemctl start apparmor && systemctl restart libvirtd && systemctl start libvirt-guests", 600)
    checks = {row["what"]: row["holds"] for row in json.loads(host.attempt("nvhv check --json", 120).stdout)}
    check(checks["libvirt"], f"`nvhv check` has another opinion: {checks}")

    kept = Domain(host, "kept", work="disk", append="depth=2 pace=100", devices={"disk": "16M"})
    plain = Domain(host, "plain")
    plain.emulator = PLAIN
    for domain in (kept, plain):
        domain.define()
        domain.start()
    for domain in (kept, plain):
        domain.wait_ticks(5, limit=600)
    image = host.images()["kept"]
    check(list(host.images()) == ["kept"] and image["state"] == "live", f"there is more or less than the marked domain: {host.images()}")
    label = host.run(f"cat /proc/{image['pid']}/attr/current")
    check(label.startswith(f"libvirt-{kept.uuid} (enforce)"), f"its QEMU is confined as {label}")
    plain.virsh("destroy")  # two that work are much for one emulated processor

    # It cannot be taken elsewhere, and runs on.
    kept.fails("managedsave", "kept-by-nvhv")
    kept.wait_progress(0, 1)

    # A reset is a new life of the same VM.
    kept.is_about_to_start()
    kept.virsh("reset")
    kept.expect_cold(limit=600)
    check(host.images()["kept"]["uuid"] == image["uuid"], "it is another VM after a reset")

    # Power fails. libvirt starts the marked domain by itself, and it goes on.
    kept.virsh("autostart")
    host.run("nvhv seal kept && sync", 120)
    kept.is_about_to_start()
    host.power_cut()
    host.boot()
    kept.expect_continued(ticks=3, limit=600)
    plain.start()
    plain.expect_cold(limit=600)
    plain.virsh("destroy")

    # Its QEMU dies. Nobody else gets the image or its disks; one that is another machine does not, and leaves it alone.
    kept.end("KILL")
    kept.expect("shut off (crashed)")
    host.expect_state(kept, "sealed")
    kept.emulator = PLAIN
    kept.define()
    kept.fails("start", "its VM is still there")
    kept.virsh("undefine")
    kept.emulator, uuid, kept.uuid = MARKED, kept.uuid, plain.uuid[:-1] + "9"
    kept.define()
    kept.fails("start", "not this domain's")
    kept.virsh("undefine")
    kept.uuid, kept.memory = uuid, "160M"
    kept.define()
    kept.start()
    kept.expect("paused (unknown)")
    kept.virsh("destroy")
    host.expect_state(kept, "sealed")
    kept.memory = "128M"
    kept.define()
    kept.virsh("autostart")
    kept.start()
    kept.expect_continued(ticks=3, limit=600)

    # The host reboots. libvirt-guests does not get to shut it down.
    before = host.console.size()
    host.reboot()
    kept.is_about_to_start()
    check("nvhv: kept: sealed; kept: its VMM was told to end by a signal" in host.console.text(before), host.console.text(before)[-8000:])
    host.boot()
    kept.expect_continued(ticks=3, limit=600)

    # The plug is pulled: no image. So it is when the guest powers itself off.
    kept.virsh("destroy")
    host.expect_state(kept, None)
    kept.cmdline = kept.cmdline.replace("work=disk", "work=poweroff after=200")
    kept.define()
    kept.start()
    kept.wait_for("boot", limit=600)

    # A reboot by libvirt is a power-off of the guest, and then a reset: the VM is there after it. The next one is the end.
    kept.virsh("reboot", "--mode", "acpi")
    kept.wait_for("boot", 2, limit=600)
    kept.end("KILL")
    kept.expect("shut off (crashed)")
    kept.start()
    kept.expect_continued(ticks=3, limit=600)
    kept.wait_for("poweroff", limit=600)
    kept.expect("shut off (shutdown)")
    host.expect_state(kept, None)
