# SPDX-License-Identifier: GPL-2.0
"""The architecture: rooms in layers, each above what it uses.

Arrows are drawn for what does not follow from others: of `a` uses `b` uses `c`, not that `a` uses `c`. What the module's
rooms use of the pure ones is a row of tags in each, and `sys` is the floor that they all stand on.
"""

from . import rooms
from .svg import INK, SOFT, Card, width, wrap

WIDE = 960
MODULE, PURE, OUTSIDE = "#e8f0fb", "#e9f5ea", "#f4efe6"
TAG = "#cfe8d2"
MODULE_LINE, PURE_LINE, OUTSIDE_LINE = "#7d9cc6", "#7fb088", "#b9a67f"
LEFT, HALF, GAP = 216, 192, 12  # the module's rooms
RIGHT, NARROW = 672, 258  # the pure ones
LOOSE = {"messages"}  # it joins others, and is no room

# Room to its row, column and share of the width; rows from the top.
MODULE_ROWS = [["control", "trace"], ["outage", "host"], ["kvm"], ["queue"], ["ram"], ["pool"], ["sys"]]
PURE_ROWS = ["abi", "state", "shadow", "ring", "format", "life"]
FLOOR = "sys"


class Place:
    def __init__(self, x, y, wide, high):
        self.x, self.y, self.wide, self.high = x, y, wide, high

    @property
    def middle(self):
        return self.x + self.wide / 2

    @property
    def foot(self):
        return self.y + self.high


def draw(src):
    known = rooms.read(src)
    placed = {name for row in MODULE_ROWS for name in row} | set(PURE_ROWS)
    if missing := set(known) - placed - LOOSE:
        raise SystemExit(f"scripts/lib/figures/architecture.py: give a place to {', '.join(sorted(missing))}")
    if FLOOR not in set.intersection(*(set(known[name][1]) | {name} for row in MODULE_ROWS for name in row)):
        raise SystemExit(f"scripts/lib/figures/architecture.py: the legend says that all rooms on the left use {FLOOR}")
    card = Card(WIDE, 0, "The rooms of the module, what each is for, and which others it uses")
    top = 116
    places = {}
    foot = lay_module(known, places, top)
    lay_pure(known, places, top, foot)
    card.size = WIDE, round(foot + 22 + 40)
    ground(card, top, foot)
    for name, place in places.items():
        room(card, name, known[name], place)
    for one, other, both in arrows(known, placed):
        arrow(card, places, one, other, both)
    outside(card, places, foot)
    legend(card, foot)
    return str(card)


def high(known, name, wide):
    lines = len(wrap(known[name][0], 12, wide - 24))
    tags = any(used in PURE_ROWS for used in known[name][1]) and name not in PURE_ROWS
    return 32 + lines * 15.6 + (25 if tags else 4)


def lay_module(known, places, y):
    for row in MODULE_ROWS:
        wide = HALF if len(row) == 2 else 2 * HALF + GAP
        tall = max(high(known, name, wide) for name in row)
        for column, name in enumerate(row):
            places[name] = Place(LEFT + column * (HALF + GAP), y, wide, tall)
        y += tall + 24
    return y - 24


def lay_pure(known, places, y, foot):
    tall = [high(known, name, NARROW) for name in PURE_ROWS]
    gap = (foot - y - sum(tall)) / (len(PURE_ROWS) - 1)
    for name, own in zip(PURE_ROWS, tall):
        places[name] = Place(RIGHT, y, NARROW, own)
        y += own + gap


def ground(card, top, foot):
    """The user's side, and the module, with the pure rooms on its right."""
    card.text(22, 25, "processes", 12, SOFT, bold=True)
    card.path([(20, 86), (WIDE - 20, 86)], "#b8b3a8", arrow=False, more="stroke-dasharray='5 4'")
    card.text(22, 104, "kernel", 12, SOFT, bold=True)
    card.box(LEFT - 14, top - 22, WIDE - LEFT - 4, foot - top + 36, "#ffffff", "#c9ced6", 12)
    card.text(LEFT, top - 7, "nvhv.ko", 12, SOFT, bold=True)
    card.text(RIGHT, top - 7, "its pure rooms", 12, SOFT, bold=True)


def room(card, name, told, place):
    purpose, uses = told
    pure = name in PURE_ROWS
    card.box(place.x, place.y, place.wide, place.high, PURE if pure else MODULE, PURE_LINE if pure else MODULE_LINE)
    card.text(place.x + 12, place.y + 20, name, 14, INK, bold=True)
    card.lines(place.x + 12, place.y + 38, wrap(purpose, 12, place.wide - 24))
    if not pure:
        x = place.x + 10
        for used in PURE_ROWS:
            if used in uses:
                x = card.tag(x, place.foot - 23, used, TAG)


def arrows(known, placed):
    """(a, b, both) for what is drawn: within the module's rooms and within the pure ones, without what follows from others."""
    uses = {}
    for name, (_, used) in known.items():
        if name in placed:
            side = set(PURE_ROWS) if name in PURE_ROWS else placed - set(PURE_ROWS) - {FLOOR, "trace"}
            uses[name] = set(used) & side
            if name in PURE_ROWS and set(used) & placed - side:
                raise SystemExit(f"{name} is no pure room any more: it uses {', '.join(sorted(set(used) & placed - side))}")
    rank = {name: number for row in (MODULE_ROWS, [[name] for name in PURE_ROWS]) for number, names in enumerate(row) for name in names}
    edges = {(a, b) for a in uses for b in uses[a]}
    one_way = [(a, b) for a, b in edges if (b, a) not in edges]
    for a, b in sorted(one_way, key=lambda edge: (-abs(rank[edge[0]] - rank[edge[1]]), edge)):
        uses[a].discard(b)
        if not reaches(uses, a, b):
            uses[a].add(b)
    kept = {(a, b) for a in uses for b in uses[a]}
    return sorted((a, b, (b, a) in kept) for a, b in kept if (b, a) not in kept or a < b)


def reaches(uses, start, end):
    seen, open_ = {start}, [start]
    while open_:
        for name in uses[open_.pop()] - seen:
            seen.add(name)
            open_.append(name)
    return end in seen


def arrow(card, places, one, other, both):
    a, b = places[one], places[other]
    if a.y > b.y:
        raise_unless(both, one, other)  # layers: nobody uses what is above
        a, b = b, a
    left, right = max(a.x, b.x), min(a.x + a.wide, b.x + b.wide)
    between = [p for p in places.values() if a.foot < p.y + p.high / 2 < b.y and p.x < right and p.x + p.wide > left]
    raise_unless(left < right, one, other)
    if not between:
        x = (left + right) / 2
        card.path([(x, a.foot), (x, b.y)], both=both)
    else:  # around what stands between, in the gutter on the right
        edge = max(a.x + a.wide, b.x + b.wide)
        card.path([(edge, a.y + a.high / 2), (edge + 11, a.y + a.high / 2), (edge + 11, b.y + 14), (edge, b.y + 14)], both=both)


def raise_unless(fine, one, other):
    if not fine:
        raise SystemExit(f"scripts/lib/figures/architecture.py: {one} uses {other}, for which there is no way in the picture: lay it out anew")


def outside(card, places, foot):
    """What the module stands between."""
    def thing(x, y, wide, name, words):
        lines = wrap(words, 11, wide - 20)
        card.box(x, y, wide, 28 + 14.3 * len(lines), OUTSIDE, OUTSIDE_LINE)
        card.text(x + 10, y + 19, name, 13, INK, bold=True)
        card.lines(x + 10, y + 35, lines, 11)

    kvm, pool, floor, control, trace = (places[name] for name in ("kvm", "pool", FLOOR, "control", "trace"))
    thing(20, 34, 140, "VMM", "unmodified")
    thing(control.x, 34, trace.x + trace.wide - control.x, "nvhv", "the command: bind, seal, thaw, list, events, ...")
    card.path([(control.middle, 76.3), (control.middle, control.y)], both=True)
    card.path([(trace.middle, trace.y), (trace.middle, 76.3)])
    # From the VMM through the module to KVM.
    x, upper = 104, kvm.y + 20
    card.path([(x, 76.3), (x, upper), (kvm.x, upper)], both=True)
    card.lines(22, 168, ["its ioctls,", "KVM_RUN,", "eventfds"], 11)
    thing(20, kvm.y + 42, 148, "/dev/kvm", "KVM as it is")
    card.path([(kvm.x, kvm.y + 63), (168, kvm.y + 63)], both=True)
    # The guest runs in KVM, on memory of the pool.
    guest = (kvm.y + 84 + pool.y + 8) / 2 - 35
    thing(20, guest, 148, "guest", "unmodified; what it has in RAM is in the pool from its first instruction on")
    card.path([(94, kvm.y + 84), (94, guest)], both=True)
    card.path([(94, guest + 85), (94, pool.y + 8)], both=True)
    thing(20, pool.y + 8, 148, "/dev/daxX.Y", "persistent memory: RAM and records of all VMs")
    card.path([(pool.x, pool.y + pool.high / 2), (168, pool.y + pool.high / 2)], both=True)
    thing(20, floor.y + 6, 148, "the kernel", "Debian's, unpatched")
    card.path([(floor.x, floor.y + 27), (168, floor.y + 27)], both=True)


def legend(card, foot):
    y = foot + 42
    card.path([(22, y - 4), (50, y - 4)])
    card.text(58, y, "uses; what follows from others is left out; all of the left rooms use sys", 11, SOFT)
    x = card.tag(500, y - 13, "life", TAG)
    card.text(x + 2, y, "uses that pure room: without kernel types, allocation, unsafe code", 11, SOFT)
