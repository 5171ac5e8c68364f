# SPDX-License-Identifier: GPL-2.0
"""A card with boxes, words and arrows. It has a ground of its own, so that it reads on a light and on a dark page."""

from xml.sax.saxutils import escape

INK, SOFT, LINE, GROUND = "#1f2933", "#5b6773", "#8792a0", "#fbfaf7"
FONT = "font-family='DejaVu Sans, Verdana, sans-serif'"
# How wide a letter is, as a part of the size of DejaVu Sans; where it is missing, the words are narrower.
NARROW, WIDE = "ijltfrI.,:;'()[]/ !|", "mwMW@%"


def width(text, size, bold=False):
    em = sum(0.36 if c in NARROW else 0.95 if c in WIDE else 0.70 if c.isupper() else 0.615 for c in text)
    return em * size * (1.1 if bold else 1)


def wrap(text, size, room):
    """Lines that are no wider than there is room."""
    lines = []
    for word in text.split():
        if lines and width(f"{lines[-1]} {word}", size) <= room:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


class Card:
    def __init__(self, wide, high, title):
        self.size = wide, high
        self.title = title
        self.parts = []

    def box(self, x, y, wide, high, fill="#ffffff", stroke=LINE, radius=7, more=""):
        self.parts.append(f"<rect x='{x:.1f}' y='{y:.1f}' width='{wide:.1f}' height='{high:.1f}' rx='{radius}' fill='{fill}' stroke='{stroke}' {more}/>")

    def text(self, x, y, words, size=12, fill=INK, anchor="start", bold=False, mono=False):
        font = "font-family='DejaVu Sans Mono, monospace' " if mono else ""
        weight = "font-weight='bold' " if bold else ""
        self.parts.append(f"<text x='{x:.1f}' y='{y:.1f}' font-size='{size}' fill='{fill}' text-anchor='{anchor}' {font}{weight}>{escape(words)}</text>")

    def lines(self, x, y, lines, size=12, fill=SOFT, step=1.3, **more):
        for number, line in enumerate(lines):
            self.text(x, y + number * size * step, line, size, fill, **more)

    def path(self, points, stroke=SOFT, both=False, arrow=True, more=""):
        way = "M" + " L".join(f"{x:.1f},{y:.1f}" for x, y in points)
        ends = ("marker-end='url(#tip)' " if arrow else "") + ("marker-start='url(#tip)' " if both else "")
        self.parts.append(f"<path d='{way}' fill='none' stroke='{stroke}' stroke-width='1.5' stroke-linejoin='round' {ends}{more}/>")

    def shape(self, points, fill, more=""):
        self.parts.append(f"<polygon points='{' '.join(f'{x:.1f},{y:.1f}' for x, y in points)}' fill='{fill}' {more}/>")

    def tag(self, x, y, words, fill, size=10.5):
        """A small word on a ground; returns where the next one may stand."""
        wide = width(words, size) + 12
        self.box(x, y, wide, 17, fill, "none", 8)
        self.text(x + wide / 2, y + 12.3, words, size, INK, "middle")
        return x + wide + 5

    def __str__(self):
        wide, high = self.size
        return "\n".join([
            f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {wide} {high}' width='{wide}' height='{high}' role='img' {FONT}>",
            f"<title>{escape(self.title)}</title>",
            "<defs><marker id='tip' viewBox='0 0 10 10' refX='9' refY='5' markerWidth='7' markerHeight='7' orient='auto-start-reverse'>"
            f"<path d='M0,1 L9,5 L0,9 z' fill='{SOFT}'/></marker></defs>",
            f"<rect x='0.5' y='0.5' width='{wide - 1}' height='{high - 1}' rx='12' fill='{GROUND}' stroke='#d9d6cf'/>",
            *self.parts, "</svg>", ""])
