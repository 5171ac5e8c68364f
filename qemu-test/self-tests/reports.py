# SPDX-License-Identifier: GPL-2.0
"""The reader of a guest's reports: what a kill or a reset does to a line is no fault, and everything else is."""

import zlib

from rig import report
from rig.check import check


def line(sequence, text):
    body = f"{sequence} {text}".encode()
    return b"~%s*%08x\n" % (body, zlib.crc32(body))


BOOT, ONE, TWO = line(0, "boot x"), line(1, "tick 1"), line(2, "tick 2")
SOUND = [(0, "boot", 1), (1, "tick", 1), (2, "tick", 1)]
AGAIN = [(0, "boot", 1), (0, "boot", 2), (1, "tick", 2)]


def expect(what, data, heard, faults=0, cuts=()):
    messages, found = report.read(data, cuts)
    messages = [(message.sequence, message.kind, message.boot) for message in messages]
    check(messages == heard and len(found) == faults, f"{what}: {messages}, {found}")


def run(t):
    expect("whole", BOOT + ONE + TWO, SOUND)
    for at in range(len(ONE)):
        for twice in range(at + 1):
            data = BOOT + ONE[:at] + ONE[at - twice:] + TWO
            expect(f"killed after {at} bytes, {twice} of them twice", data, SOUND, cuts=[len(BOOT) + at])
        expect(f"reset after {at} bytes", BOOT + ONE[:at] + BOOT + ONE, AGAIN)
    expect("reset within its first line", BOOT[:5] + BOOT + ONE + TWO, SOUND)
    expect("damaged", BOOT + ONE.replace(b"tick", b"tock") + TWO, [SOUND[0], SOUND[2]], faults=2)
    expect("missing", BOOT + TWO, [SOUND[0], SOUND[2]], faults=1)
    expect("twice without a cut", BOOT + ONE + ONE + TWO, SOUND, faults=1)
    expect("bytes twice without a cut", BOOT + ONE[:9] + ONE[5:] + TWO, [SOUND[0], SOUND[2]], faults=2)
    expect("another line within a line", BOOT + ONE[:9] + TWO, [SOUND[0]], faults=1)
