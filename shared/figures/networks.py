"""Figures of networks: how they are wired, and which weights were copied."""

from __future__ import annotations

import numpy as np

from shared.figures.style import CYCLE, INK, PAPER, ROLES, finished, listed, new


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


def transplanted(model, genes, *, title: str, n_genes=4, n_units=12):
    """Rows of an encoder's weights before and after they are copied into one for another list of genes.

    Parameters
    ----------
    model : shared.methods.scpretrain.ScPretrain
        Pre-trained.
    genes : sequence of str
        Of the new data.
    title : str
        The title is the answer.
    n_genes, n_units : int
        How many known and as many unknown genes are drawn, with how many weights.
    """
    weight, known = model.pretrained_["weight"], list(model.pretrained_["genes"])
    both = [g for g in genes if g in known][:n_genes]
    own = [g for g in genes if g not in known][:n_genes]
    old = sorted({*both, *known[: n_genes + 1]}, key=known.index)
    drawn = sorted(both + own, key=list(genes).index)
    before = weight[[known.index(g) for g in old], :n_units]
    random = np.random.default_rng(0).uniform(-1, 1, (len(drawn), n_units)) * np.abs(before).mean()
    after = [before[old.index(g)] if g in both else random[i] for i, g in enumerate(drawn)]
    largest = max(np.abs(before).max(), np.abs(after).max())
    figure, axes = new(6.4, 0.9 + 0.26 * max(len(old), len(drawn)))
    for at, table, names in ((0, before, old), (2.2 * n_units, after, drawn)):
        for i, (name, values) in enumerate(zip(names, table, strict=True)):
            colour, marker = ROLES["target" if name in own else "source"]
            sizes = 4 + 60 * np.abs(values) / largest
            axes.scatter(at + np.arange(n_units), [-i] * n_units, sizes, colour, marker, linewidth=0)
    for name in both:
        ends = [-old.index(name), -drawn.index(name)]
        axes.plot([n_units - 0.4, 2.2 * n_units - 0.6], ends, color=ROLES["source"][0], linewidth=0.8)
    for x, side, names in ((-0.8, "right", old), (3.2 * n_units - 0.2, "left", drawn)):
        for i, name in enumerate(names):
            axes.text(x, -i, name, ha=side, va="center", size=8, color=INK, style="italic")
    axes.set(xlim=(-6, 3.2 * n_units + 6), ylim=(0.4 - max(len(old), len(drawn)), 0.6), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    rest = f"{listed(own)} have random ones" if own else "no gene is left with random ones"
    told = (
        f"Of {len(drawn)} genes of the new data, drawn with {n_units} weights each, {len(both)} take the row "
        f"of their name from the old list ({listed(both)}); {rest}."
    )
    return finished(figure, title, told)
