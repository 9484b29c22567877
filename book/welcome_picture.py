"""Draw the picture on the welcome page: ``python -m book.welcome_picture`` writes ``book/welcome.svg``.

It is a drawing of the idea and shows no data. Text and lines carry the ink colour of the house style
(`shared.figures`), the background its paper colour; ``book/html.py`` swaps both for the page's own, so the picture
follows light and dark. A test draws it again and compares.
"""

from __future__ import annotations

import math
import random
from itertools import pairwise
from pathlib import Path

INK, PAPER = "#1b1f24", "#ffffff"
SOURCE, TARGET, BASELINE = "#2a7fc1", "#d2601a", "#7a828c"
WIDTH, HEIGHT = 560, 330
# Where the three types lie in the source, and where the same three lie after another laboratory measured them.
SOURCE_TYPES = [(46, 100, 34, 24), (132, 124, 28, 26), (72, 192, 32, 24)]
TARGET_TYPES = [(430, 118, 34, 24), (520, 98, 26, 26), (482, 188, 32, 24)]


def cloud(random_state, centre, n):
    """`n` points inside an ellipse ``(x, y, rx, ry)``, kept apart from each other so that every one can be seen."""
    x, y, rx, ry = centre
    points: list[tuple[float, float]] = []
    while len(points) < n:
        radius, angle = math.sqrt(random_state.random()), 2 * math.pi * random_state.random()
        point = (x + rx * radius * math.cos(angle), y + ry * radius * math.sin(angle))
        if all(math.dist(point, other) > 6.6 for other in points):
            points.append(point)
    return points


def triangle(x, y, size, style):
    """One triangle with its centre at (x, y)."""
    return f'<path d="M{x:.1f} {y - size:.1f} {x + size:.1f} {y + size:.1f} {x - size:.1f} {y + size:.1f}z" {style}/>'


def text(x, y, words, size=20, weight=400, anchor="middle"):
    """One line of text in the ink colour."""
    return f'<text x="{x}" y="{y}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}">{words}</text>'


def arrow(path):
    """A line in the ink colour that ends in a small open head; the path must end going right or up."""
    return f'<path d="{path}" fill="none" stroke="{INK}" stroke-width="1.6" marker-end="url(#head)"/>'


def network():
    """Three columns of nodes, every node joined to every node of the next column."""
    columns = [(242, [94, 124, 154, 184]), (280, [109, 139, 169]), (318, [94, 124, 154, 184])]
    lines, nodes = [], []
    for (x0, left), (x1, right) in pairwise(columns):
        lines += [f"M{x0} {a}L{x1} {b}" for a in left for b in right]
    for x, ys in columns:
        nodes += [f'<circle cx="{x}" cy="{y}" r="6" fill="{PAPER}" stroke="{INK}" stroke-width="1.6"/>' for y in ys]
    return [f'<path d="{"".join(lines)}" stroke="{INK}" stroke-width=".7" opacity=".5"/>', *nodes]


def ladder():
    """The ladder of baselines, lying on its side under the target: five rungs between two rails."""
    rails = "M400 286H548M400 310H548"
    rungs = "".join(f"M{x} 286V310" for x in range(416, 545, 29))
    return [f'<path d="{rails}{rungs}" stroke="{BASELINE}" stroke-width="3" stroke-linecap="round"/>']


def draw() -> str:
    """The whole picture as SVG text, the same bytes every time."""
    r = random.Random(7)
    parts = [text(88, 32, "Source", 24, 600), text(280, 32, "Network", 24, 600), text(474, 32, "Target", 24, 600)]
    for centre in SOURCE_TYPES:
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{SOURCE}"/>' for x, y in cloud(r, centre, 34)]
    for centre in TARGET_TYPES:
        for i, (x, y) in enumerate(cloud(r, centre, 15)):
            style = f'fill="{TARGET}"' if i < 4 else f'fill="{PAPER}" stroke="{TARGET}" stroke-width="1"'
            parts.append(triangle(x, y, 4.2 if i < 4 else 3.2, style))
    parts += network()
    parts += [arrow("M172 139H226"), arrow("M334 139H388")]
    parts += [text(199, 128, "learn", 18), text(360, 128, "lend", 18)]
    parts += [text(88, 248, "many, labelled", 18), text(474, 248, "few, labelled", 18)]
    parts += ladder()
    parts += [text(384, 305, "Does it beat simple methods?", 20, 400, "end")]
    body = "\n".join(parts)
    head = (
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        f'<path d="M1 1 7 4 1 7" fill="none" stroke="{INK}" stroke-width="1.2"/></marker></defs>'
    )
    font = "font-family=\"system-ui, -apple-system, 'Segoe UI', 'Liberation Sans', sans-serif\""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'fill="{INK}" {font}>\n{head}\n<rect width="{WIDTH}" height="{HEIGHT}" fill="{PAPER}"/>\n{body}\n</svg>\n'
    )


if __name__ == "__main__":
    (Path(__file__).parent / "welcome.svg").write_text(draw(), encoding="utf-8")
