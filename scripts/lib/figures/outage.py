# SPDX-License-Identifier: GPL-2.0
"""An outage as it was recorded: the whole by the second, and under two lenses what takes milliseconds."""

import json

from .svg import INK, SOFT, Card, width, wrap

WIDE, EDGE = 960, 22
GUEST, SEAL, VMM, BACK = "#8cc79a", "#e8906a", "#9db8e0", "#c3a3d9"
RESET, FIRMWARE, KERNEL, POOL = "#d5d0c6", "#cdd5df", "#b9c3d0", "#a5b1c2"
SEAL_TONES = ["#e8906a", "#f0b48f", "#d9713f", "#b9532a", "#f6d9c6"]
BACK_TONES = ["#c3a3d9", "#8f67b3"]
BEFORE = AFTER = 0.06  # of the width: the guest, before and after


def draw(path):
    told = json.loads(path.read_text())
    seconds, seal, back = (told[name] for name in ("seconds", "seal_us", "back_us"))
    start, end = seconds["panic"], seconds["first_word"]
    sealed = start + seal["all"] / 1e6
    card = Card(WIDE, 430, "An outage as it was recorded: from the panic of a host until its guest goes on")
    card.text(EDGE, 28, "The host panics, and the guest goes on", 14, INK, bold=True)
    card.text(EDGE, 46, f"{told['vm']}; a record of {told['record_bytes']} bytes. "
              "Host emulated, on a machine that did other work: compare the parts.", 11, SOFT)

    room = WIDE - 2 * EDGE
    left, scale = EDGE + BEFORE * room, (1 - BEFORE - AFTER) * room / (end - start)
    at = lambda moment: left + (moment - start) * scale
    gone = at(seconds["resumed"])

    card.text(EDGE, 74, "guest", 11.5, SOFT, bold=True)
    stripe(card, EDGE, left, 80, GUEST, "runs")
    stripe(card, gone, WIDE - EDGE, 80, GUEST, "runs")
    card.path([(left + 8, 91), (gone - 8, 91)], "#a9a79f", arrow=False, more="stroke-dasharray='2 5'")
    words = f"no time passes for {seconds['resumed'] - start:.1f} s"
    card.box((left + gone - width(words, 11.5)) / 2 - 8, 80, width(words, 11.5) + 16, 22, "#fbfaf7", "none")
    card.text((left + gone) / 2, 95, words, 11.5, SOFT, "middle")

    run = seconds["resumed"] - (back["resumed"] - back["first_run"]) / 1e6  # the VMM's first KVM_RUN, by the clock outside
    card.text(EDGE, 126, "host", 11.5, SOFT, bold=True)
    parts = [
        ("sealing", start, sealed, SEAL), ("reset", sealed, seconds["power_on"], RESET),
        ("firmware", seconds["power_on"], seconds["kernel"], FIRMWARE), ("kernel boots", seconds["kernel"], seconds["up"], KERNEL),
        ("pool", seconds["up"], seconds["start"], POOL), ("VMM starts", seconds["start"], run, VMM), ("", run, seconds["resumed"], BACK),
    ]
    above = EDGE + width("host", 11.5, bold=True)
    for name, since, until, fill in parts:
        told_inside = stripe(card, at(since), at(until), 132, fill, name)
        middle, half = (at(since) + at(until)) / 2, width(name, 10) / 2
        if not told_inside and at(until) - at(since) > 8 and middle - half > above:
            card.text(middle, 127, name, 10, SOFT, "middle")
            above = middle + half + 4
    ticks(card, at, end)

    half = (room - 24) / 2
    lens(card, at(start), at(sealed), EDGE, half, f"Sealing: {ms(seal['all'])}, while the panic waits", [
        ("freeze", seal["freeze"], "every processor leaves the guest"),
        ("capture", seal["capture"], "what KVM and devices have, as a record"),
        ("write back", seal["write_back"], "caches to persistent memory"),
        ("commit", seal["commit"], "the word that makes it an image"),
        ("between", seal["all"] - sum(seal[part] for part in ("freeze", "capture", "write_back", "commit")), "keeper and scheduler"),
    ], SEAL_TONES)
    lens(card, at(run), gone, EDGE + half + 24, half, f"Coming back: {ms(back['resumed'] - back['first_run'])}, from the first KVM_RUN on", [
        ("replay", back["replayed"] - back["first_run"], f"devices are configured, in {told['steps']} steps"),
        ("restore", back["resumed"] - back["replayed"], "processors and interrupts, by KVM's ioctls"),
    ], BACK_TONES)
    card.lines(EDGE + half + 38, 348, wrap(
        f"Then the guest executes its next instruction, and requests that its devices had are made again. "
        f"What it said next was heard outside {ms((end - seconds['resumed']) * 1e6)} later.", 11, half - 28), 11)
    return str(card)


def ms(us):
    return f"{us / 1000:.1f} ms" if us < 100_000 else f"{us / 1000:.0f} ms" if us < 1e6 else f"{us / 1e6:.1f} s"


def stripe(card, left, right, y, fill, words):
    """A part of a row, with its name if there is room; says whether there was."""
    card.box(left, y, max(right - left, 2), 22, fill, "#ffffff", 3)
    fits = width(words, 11) < right - left - 6
    if fits:
        card.text((left + right) / 2, y + 15, words, 11, INK, "middle")
    return fits


def ticks(card, at, end):
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100) if end / step <= 12)
    for second in range(0, int(end) + 1, step):
        card.path([(at(second), 157), (at(second), 161)], "#8792a0", arrow=False)
        card.text(at(second), 173, f"{second} s", 10.5, SOFT, "middle")


def lens(card, since, until, x, wide, title, parts, tones):
    """Magnifies a part of the time line: a bar in proportion, and each of its parts by name."""
    y = 226
    until = max(until, since + 2)
    card.shape([(since, 154), (until, 154), (x + wide, y), (x, y)], tones[0], "fill-opacity='0.16'")
    card.box(x, y, wide, 182, "#ffffff", "#c9ced6", 10)
    card.text(x + 14, y + 24, title, 12.5, INK, bold=True)
    all_of_it = sum(us for _, us, _ in parts)
    bar = x + 14
    for (_, us, _), tone in zip(parts, tones):
        part = us / all_of_it * (wide - 28)
        card.box(bar, y + 36, max(part, 0.8), 20, tone, "none", 0)
        bar += part
    for number, ((name, us, words), tone) in enumerate(zip(parts, tones)):
        line = y + 80 + number * 21
        card.box(x + 14, line - 10, 12, 12, tone, "none", 2)
        card.text(x + 34, line, name, 12, INK)
        card.text(x + 166, line, ms(us), 12, INK, "end")
        card.text(x + 180, line, words, 11, SOFT)
