"""The house style, and every plot the chapters draw.

Each function returns a matplotlib figure whose ``alt_text`` tells a reader who cannot see it the finding and the
numbers that carry it. :func:`show` puts the figure on the page with a caption and a label.

Text and axes are drawn in one ink and the background in one paper colour; the book swaps both for the page's own, so
figures follow light and dark. Every mark has a contrast of at least 3 to 1 against white and against the dark page,
and no two meanings differ by colour alone.
"""

from shared.figures.cells import embedding, episode, maps, realism, shares, zeros
from shared.figures.comparisons import as_rows, curves, dots, pairs, reliability
from shared.figures.networks import wiring
from shared.figures.style import CYCLE, INK, PAPER, ROLES, STYLE, mark, new, show, to_svg
from shared.figures.tables import explorer

__all__ = [
    "CYCLE",
    "INK",
    "PAPER",
    "ROLES",
    "STYLE",
    "as_rows",
    "curves",
    "dots",
    "embedding",
    "episode",
    "explorer",
    "maps",
    "mark",
    "new",
    "pairs",
    "realism",
    "reliability",
    "shares",
    "show",
    "to_svg",
    "wiring",
    "zeros",
]
