# SPDX-License-Identifier: GPL-2.0
"""What a guest says through its debug port: lines `~SEQUENCE TEXT*CRC32` (tests/guest/src/report.rs).

Delivery is at least once: when the VMM dies within a line, the bytes around the cut may come twice.
The reader knows where the cuts are and finds the overlap that makes the checksum right. A reset may
come within a line, which the first line of the next boot then ends. Anything else that is damaged, or
missing from the sequence, is a fault of what carried the guest over.
"""

import re
import zlib
from dataclasses import dataclass

LINE = re.compile(rb"~(\d+) ([^*~]*)\*([0-9a-f]{8})$")


@dataclass
class Message:
    sequence: int
    kind: str
    text: str
    boot: int  # how many times the guest had booted


def parse_line(line):
    """(sequence, text) of a sound line, else None."""
    match = LINE.fullmatch(line)
    if match and zlib.crc32(line[1:-9]) == int(match[3], 16):
        return int(match[1]), match[2].decode()
    return None


def repair(line, cut):
    """A line whose bytes around CUT came twice, put together again."""
    before, after = line[:cut], line[cut:]
    for kept in range(len(before) + 1):
        found = parse_line(before[:kept] + after)
        if found:
            return found
    return None


def first_of_boot(line):
    """What a guest says first, behind what it was saying when it was reset."""
    found = parse_line(line[line.rfind(b"~"):])
    return found if found and found[0] == 0 and found[1].startswith("boot ") else None


def read(data, cuts):
    """All messages in DATA and a list of faults; CUTS are the offsets where a VMM was started again."""
    messages, faults = [], []
    boot, start, previous = 0, 0, b""
    while (end := data.find(b"\n", start)) >= 0:
        line = data[start:end]
        within = [cut - start for cut in cuts if start <= cut <= end]
        found = parse_line(line) or next(filter(None, (repair(line, cut) for cut in within)), None) or first_of_boot(line)
        if found:
            sequence, text = found
            kind, _, rest = text.partition(" ")
            expected = messages[-1].sequence + 1 if messages else 0
            if sequence == 0 and kind == "boot":
                boot += 1
                messages.append(Message(sequence, kind, rest, boot))
            elif sequence == expected:
                messages.append(Message(sequence, kind, rest, boot))
            elif sequence >= expected:
                faults.append(f"lines {expected} to {sequence - 1} are missing")
                messages.append(Message(sequence, kind, rest, boot))
            elif not within:
                faults.append(f"line {sequence} came again although nothing was cut")
        elif not (within and previous.endswith(line)):
            faults.append(f"damaged line at byte {start}: {line!r}")
        previous, start = line, end + 1
    return messages, faults
