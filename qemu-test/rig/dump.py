# SPDX-License-Identifier: GPL-2.0
"""The data of the Redis guest (tests/guest/src/redis.rs) as Redis itself leaves it on a disk.

Debian's redis-server is run here, outside any VM, filled with the same keys and shut down; what it
wrote goes into an initramfs, from which a guest boots cold as it would after an ordinary power cut.
"""

import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from .paths import OUT, PAYLOAD, in_root
from .payload import Cpio

MASK = (1 << 64) - 1


def value(number):
    """The same sixty-four characters as `value` of the guest."""
    words, state = [], number
    for _ in range(4):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        x = state
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
        words.append(f"{x ^ (x >> 31):016x}")
    return "".join(words)


def make(payload, kind, keys):
    """Makes the initramfs guest-redis-KIND.cpio (rdb or aof) with so many keys, unless it is there."""
    out = PAYLOAD / f"guest-redis-{kind}.cpio"
    plain = PAYLOAD / "guest-redis.cpio"
    if out.exists() and out.stat().st_mtime > plain.stat().st_mtime:
        return
    with tempfile.TemporaryDirectory(prefix="dump-", dir=OUT) as directory:
        server = subprocess.Popen(
            in_root(payload.root, "redis-server", "--port", "0", "--unixsocket", f"{directory}/s", "--dir", directory,
                    "--save", "", "--appendonly", "yes" if kind == "aof" else "no"), stdout=subprocess.DEVNULL)
        try:
            fill(f"{directory}/s", keys, "SAVE" if kind == "rdb" else "NOSAVE")
            server.wait(60)
        finally:
            server.kill()
        archive = Cpio()
        archive.directory("data")
        archive.directory("data/appendonlydir")
        for path in sorted(Path(directory).rglob("*")):
            if path.is_file():
                archive.file(f"data/{path.relative_to(directory)}", path.read_bytes(), 0o644)
        archive.write(out)
    # The kernel unpacks one archive after the other.
    with open(out, "ab") as both, open(plain, "rb") as programs:
        shutil.copyfileobj(programs, both)


def fill(path, keys, how_to_end):
    deadline = time.monotonic() + 30
    while True:
        peer = socket.socket(socket.AF_UNIX)
        try:
            peer.connect(path)
            break
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
    for first in range(0, keys, 1000):
        last = min(first + 1000, keys)
        for number in range(first, last):
            key, text = f"key:{number}", value(number)
            peer.sendall(f"*3\r\n$3\r\nSET\r\n${len(key)}\r\n{key}\r\n${len(text)}\r\n{text}\r\n".encode())
        wanted = (last - first) * len(b"+OK\r\n")
        while wanted:
            wanted -= len(peer.recv(wanted))
    peer.sendall(f"SHUTDOWN {how_to_end}\r\n".encode())
    peer.recv(1)
