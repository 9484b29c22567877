"""The house style: one ink, one paper, a colour and a marker for each role, and how a figure is put on the page."""

from __future__ import annotations

import io
import textwrap

import matplotlib as mpl
from matplotlib.figure import Figure

INK, PAPER = "#1b1f24", "#ffffff"
# Colour and marker of each role, the same through the whole book.
ROLES = {
    "source": ("#2a7fc1", "o"),
    "target": ("#d2601a", "^"),
    "baseline": ("#7a828c", "s"),
    "method": ("#0f9a72", "D"),
    "control": ("#8f6bd0", "X"),
}
CYCLE = ("#2a7fc1", "#d2601a", "#0f9a72", "#b0609a", "#a6761d", "#8f6bd0", "#7a828c")
MARKERS = "o^sDvP*X<>p"
STYLE = {
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
    "axes.titlecolor": INK,
    "legend.labelcolor": INK,
    "axes.prop_cycle": mpl.cycler(color=CYCLE),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.labelsize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "figure.constrained_layout.use": True,
    "figure.dpi": 110,
    "svg.fonttype": "path",
    "svg.hashsalt": "borrowed-strength",
}


def mark(i: int) -> tuple[str, str, bool]:
    """Colour, marker, and whether the marker is filled, of group `i`; the first 22 differ in shape or fill.

    The colours stand out from the light page and from the dark one, which leaves them so close in lightness that some
    are one colour to a colour-blind reader. So the shape alone tells the groups apart.
    """
    return CYCLE[i % len(CYCLE)], MARKERS[i % len(MARKERS)], i // len(MARKERS) % 2 == 0


def new(width=6.4, height=3.6, ncols=1, nrows=1, **options):
    """A figure and its axes in the house style, in inches; nothing is shown until :func:`shared.figures.show`."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.subplots(nrows, ncols, **options)


def to_svg(figure) -> str:
    """The figure as SVG text: the same bytes for the same figure."""
    buffer = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def show(figure, name: str, caption: str) -> None:
    """Put `figure` on the page as ``{numref}`name``` with its caption and its alternative text.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        With ``alt_text`` set, as every function of this module does.
    name : str
        The label, beginning with ``fig-``.
    caption : str
        What was done, on what, how often; Markdown.

    Raises
    ------
    ValueError
        If the label, the caption or the alternative text is missing.
    """
    alt = getattr(figure, "alt_text", "").strip()
    if not (name.startswith("fig-") and caption.strip() and alt):
        raise ValueError(
            "a figure needs a label that begins with 'fig-', a caption, and alt_text that tells its finding"
        )
    from IPython.display import Markdown, display

    meta = {"figure": {"name": name, "caption": caption, "alt": alt}}
    display({"image/svg+xml": to_svg(figure), "text/plain": alt}, raw=True, metadata=meta)
    display(Markdown(f"*{caption}*"), metadata={"caption_of": name})


def finished(figure, title, told, /, *, legend=0, **legend_options):
    """The figure with its title, its alternative text (the title and what is `told`) and a `legend` of so many columns
    under it, or one inside each panel.

    The title stands over the whole figure, because long row labels must not push it off the page, at the left edge, on
    as many lines as its width needs (nine letters an inch).
    """
    with mpl.rc_context(STYLE):
        if legend == "inside":
            for axis in figure.axes:
                axis.legend(**legend_options)
        elif legend:
            handles = figure.axes[0].get_legend_handles_labels()
            figure.legend(*handles, loc="outside lower center", ncols=legend, **legend_options)
        lines = textwrap.fill(title, int(9 * figure.get_figwidth()))
        figure.suptitle(lines, x=0.01, ha="left", fontsize=STYLE["axes.titlesize"], fontweight="bold", color=INK)
    figure.alt_text = f"{title}. {told}"
    return figure


def listed(items) -> str:
    items = list(items)
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]
