# SPDX-License-Identifier: GPL-2.0
"""The devices of a nested guest, and what serves them in its host: an image file, a tap, a socket.

A VM has no device unless its description says so. What stands here is made in the host before each
start of the VMM, as an outage of the host takes all of it away but the image file.
"""

from .check import check

SERVER = "/payload/bin/nvhv-guest"  # the guests' program also plays the other end
PORT = 7000


class Devices:
    def __init__(self, vm, port, *, disk=None, disk_options="", queues=2, cache="none", net=None, net_queues=1,
                 console=False, rng=False, filesystem=False, holes=False, sync=False, bus="blk", balloon=None, vsock=False):
        """DISK is the size of an image file such as "16M", or the path of a block device of the host; its
        cache=none is O_DIRECT, its BUS "blk", "scsi" or "pmem". NET is "tap" or "vhost". FILESYSTEM puts an ext4 on
        the disk. HOLES leaves its image file without room for what is not written yet. SYNC has the host's file
        system write each write to it out at once, for a VMM that does not open it so. BALLOON is a string of options."""
        self.vm = vm
        self.disk = disk
        self.disk_options = disk_options
        self.queues = queues
        self.cache = cache
        self.net = net
        self.net_queues = net_queues
        self.console = console
        self.rng = rng
        self.bus = bus
        self.balloon = balloon
        self.vsock = vsock
        self.cid = 100 + port
        self.filesystem = filesystem
        self.holes = holes
        self.sync = sync
        self.disk_path = disk if disk and disk.startswith("/") else f"/srv/{vm.name}.img"
        self.tap = f"tap{port}"
        self.network = f"10.0.{port}"
        self.mac = f"52:54:00:4e:56:{port:02x}"
        # The host's end is a router with an address of its own, which the guest remembers: it stays the same.
        self.tap_mac = f"52:54:00:4e:57:{port:02x}"
        self.socket = f"/tmp/{vm.name}.hvc"
        self.servers = {}

    def initrd(self):
        """The initramfs that has the drivers; what few guests use would cost all of them the time to load it."""
        if self.balloon is not None or self.vsock or self.bus != "blk":
            return "guest-more.cpio"
        return "guest-devices.cpio" if self.any() else "guest.cpio"

    def any(self):
        return bool(self.disk or self.net or self.console or self.rng or self.vsock or self.balloon is not None)

    def words(self):
        """What the guest has to know of them: its program, and a udev that would rename the interface."""
        words = []
        if self.net:
            words.append(f"net.ifnames=0 address={self.network}.2 peer={self.network}.1:{PORT}")
        elif self.vsock:
            words.append(f"peer=vsock:{PORT}")
        if self.bus != "blk":
            words.append(f"disk=/dev/{'sda' if self.bus == 'scsi' else 'pmem0'}")
        return " ".join(words)

    def prepare(self):
        """Makes in the host what is not there."""
        host = self.vm.host
        if self.disk and not self.disk.startswith("/"):
            # Written out and synced, and not punched by mke2fs: later writes to it change no metadata, of the
            # host's file system or of the qcow2 file below it, which a power cut would take back.
            # With holes, they are what somebody must flush.
            make = f"truncate -s {self.disk} {self.disk_path}.new" if self.holes else \
                f"head -c {self.disk} /dev/zero >{self.disk_path}.new"
            host.run(f"test -e {self.disk_path} || {{ mkdir -p /srv && {make} && "
                     + (f"mke2fs -q -t ext4 -E nodiscard {self.disk_path}.new && " if self.filesystem else "")
                     + (f"chattr +S {self.disk_path}.new && " if self.sync else "")
                     + f"sync && mv {self.disk_path}.new {self.disk_path} && sync; }}", 120)
        if self.net:
            if self.net == "vhost":
                host.run("modprobe vhost_net", 60)
            several = "multi_queue" if self.net_queues > 1 else ""
            host.run(f"ip link show {self.tap} >/dev/null 2>&1 || {{ modprobe tun && ip tuntap add {self.tap} mode tap {several} && "
                     f"ip address add {self.network}.1/24 dev {self.tap} && ip link set {self.tap} address {self.tap_mac} up; }}", 60)
            self.serve("stream", "peer", f"{self.network}.1:{PORT}")
        if self.vsock:
            host.run("modprobe vhost_vsock", 60)
            self.serve("stream", "peer", f"vsock:{PORT}")
        if self.console:
            self.serve("echo", "echo", self.socket)

    def serve(self, kind, *words):
        """Starts another end in the host unless it runs there."""
        host, name = self.vm.host, f"{self.vm.name}.{kind}"
        if self.servers.get(kind) == host.boot_id:
            return
        host.agent.ask("spawn", name=name, argv=[SERVER, *words], output=f"/share/{name}.log")
        self.servers[kind] = host.boot_id

    def expect_healthy(self):
        """The other ends have nothing to complain of."""
        for kind in self.servers:
            said = [line for line in self.said(kind) if line.startswith("fail")]
            check(not said, f"{self.vm.name}: {kind}: {said[:5]}")

    def said(self, kind):
        """What another end wrote."""
        log = self.vm.host.share / f"{self.vm.name}.{kind}.log"
        return log.read_text(errors="replace").splitlines() if log.exists() else []

    def check_filesystem(self):
        """What e2fsck thinks of the disk, now that nobody uses it; it repairs nothing."""
        self.vm.host.run(f"e2fsck -f -n {self.disk_path}", 120)

    def release(self):
        """Ends the other ends and forgets the disk's contents: for the end of a scenario."""
        host = self.vm.host
        for kind, boot_id in self.servers.items():
            if boot_id == host.boot_id:
                host.agent.ask("kill", name=f"{self.vm.name}.{kind}", number=9)
        self.servers.clear()
        if self.net:
            host.run(f"ip link delete {self.tap} 2>/dev/null || true")
        if self.disk and not self.disk.startswith("/"):
            host.run(f"rm -f {self.disk_path}")
