# SPDX-License-Identifier: GPL-2.0
"""A disk in the host that takes its time: device mapper's `delay` over a RAM disk, without dmsetup."""

DEVICE = "/dev/dm-0"
PATTERN = 0x5A

# Runs in the host: the size in bytes, then first sector, sectors and delay in ms of each part.
MAKE = f"""
import fcntl, struct, sys
control = open('/dev/mapper/control', 'rb+', 0)
def dm(number, data=b'', targets=0):
    head = struct.pack('=6Ii3I', 4, 0, 0, 312 + len(data), 312, targets, 0, 0, 0, 0)
    head += struct.pack('=Q128s136s', 0, b'slow', b'')
    fcntl.ioctl(control, 0xc138fd00 + number, bytearray(head + data))
size, *parts = map(int, sys.argv[1:])
with open('/dev/ram0', 'wb') as disk:
    disk.write(bytes([{PATTERN}]) * size)
table = b''
for first, sectors, delay in zip(*[iter(parts)] * 3):
    words = b'/dev/ram0 %d' % first + (b' %d' % delay if delay else b'') + b'\\0'
    words = words.ljust((len(words) + 7) & ~7, b'\\0')
    table += struct.pack('=QQiI16s', first, sectors, 0, 40 + len(words), b'delay' if delay else b'linear') + words
dm(3)
dm(9, table, len(parts) // 3)
dm(6)
"""
REMOVE = """
import fcntl, struct
control = open('/dev/mapper/control', 'rb+', 0)
head = struct.pack('=6Ii3I', 4, 0, 0, 312, 312, 0, 0, 0, 0, 0) + struct.pack('=Q128s136s', 0, b'slow', b'')
fcntl.ioctl(control, 0xc138fd04, bytearray(head))
"""


def make(host, size, *parts):
    """Makes DEVICE of SIZE bytes, each of which is PATTERN. PARTS are first byte, bytes, and by how many ms an
    access is delayed."""
    host.run(f"modprobe brd rd_nr=1 rd_size={size >> 10} && modprobe dm-delay", 60)
    words = [str(word) for first, length, delay in parts for word in (first >> 9, length >> 9, delay)]
    host.run(["python3", "-IS", "-c", MAKE, str(size), *words])


def remove(host):
    """Takes it away again."""
    host.run(["python3", "-IS", "-c", REMOVE])
