# SPDX-License-Identifier: GPL-2.0
"""Archives that a kernel unpacks as its initramfs."""

import lzma
import stat
from pathlib import Path


class Cpio:
    """An uncompressed newc archive, as the kernel wants its initramfs."""

    def __init__(self):
        self.parts = []
        self.inode = 0

    def entry(self, name, mode, data=b"", major=0, minor=0):
        self.inode += 1
        fields = [self.inode, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(name) + 1, 0]
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        self.parts += [pad4(head), pad4(data)]

    def directory(self, name):
        self.entry(name, stat.S_IFDIR | 0o755)

    def node(self, name, major, minor):
        self.entry(name, stat.S_IFCHR | 0o600, b"", major, minor)

    def link(self, name, to):
        self.entry(name, stat.S_IFLNK | 0o777, to.encode())

    def file(self, name, data, mode=0o755):
        self.entry(name, stat.S_IFREG | mode, data)

    def module(self, path):
        """Adds a kernel module to modules/; returns a line of the list that whoever loads them reads."""
        name = path.name.removesuffix(".xz")
        data = path.read_bytes()
        self.file(f"modules/{name}", lzma.decompress(data) if path.suffix == ".xz" else data, 0o644)
        return f"/modules/{name}\n"

    def tree(self, root, names):
        """Adds files of a root under their own names, with the directories and links on the way."""
        made = set()
        for name in names:
            path = Path(name)
            for parent in reversed(path.parents):
                if str(parent) not in ("/", ".") and parent not in made:
                    made.add(parent)
                    self.directory(str(parent).lstrip("/"))
            self.file(str(path).lstrip("/"), (Path(root) / str(path).lstrip("/")).read_bytes())

    def write(self, path):
        self.entry("TRAILER!!!", 0)
        new = path.with_suffix(".new")
        data = b"".join(self.parts)
        # In whole pages: a VMM may put its end at the end of RAM, and the kernel wants its beginning at a page's.
        new.write_bytes(data + bytes(-len(data) % 4096))
        new.rename(path)


def pad4(data):
    return data + b"\0" * (-len(data) % 4)
