"""Figures of networks: how they are wired, and which weights were copied."""

from __future__ import annotations

from shared.figures.style import CYCLE, INK, PAPER, finished, listed, new


def wiring(heads: dict, *, middle: str, title: str):
    """One shared network and the heads of each data set, as boxes joined by lines.

    Parameters
    ----------
    heads : dict of data set to sequence of str
        What stands in each of its heads.
    middle : str
        What stands in the shared box.
    title : str
        The title is the answer.
    """
    most = max(map(len, heads.values()))
    height = 0.32 * most + 0.2
    figure, axes = new(6.4, 0.8 + 0.85 * height * len(heads))
    centre = height * (len(heads) - 1) / 2
    frame = {"boxstyle": "round,pad=0.3", "facecolor": PAPER, "linewidth": 1.4}
    words = {"ha": "center", "va": "center", "color": INK, "size": 9}
    for i, (name, own) in enumerate(heads.items()):
        y, colour = height * (len(heads) - 1 - i), CYCLE[i % 7]
        axes.plot([0.5, 2], [y, centre], color=colour, zorder=0)
        axes.text(0.5, y, name, bbox=frame | {"edgecolor": colour}, **words)
        for j, what in enumerate(own):
            at = y + 0.32 * ((len(own) - 1) / 2 - j)
            axes.plot([2, 3.5], [centre, at], color=colour, zorder=0)
            axes.text(3.5, at, what, bbox=frame | {"edgecolor": colour, "boxstyle": "round,pad=0.2"}, **words)
    axes.text(2, centre, middle, bbox=frame | {"edgecolor": INK, "boxstyle": "round,pad=0.6"}, **words)
    axes.set(xlim=(0, 4), ylim=(-height / 2, height * (len(heads) - 0.5)), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    middle = " ".join(middle.split())
    said = [f"{name} has {len(own)} of its own ({listed(own)})" for name, own in heads.items()]
    return finished(figure, title, f"Cells of {len(heads)} data sets enter one box, {middle}; {'; '.join(said)}.")
