"""Figures of cells and genes: maps, shares, zeros, distributions."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
from matplotlib.patheffects import withStroke

from shared.figures.style import CYCLE, INK, PAPER, ROLES, STYLE, finished, listed, mark, new

FEW = 5  # groups that marks alone tell apart among thousands of cells; of more, each has its number on the map


def _draw_groups(axis, panel, points, labels, size):
    """Cells in the plane, marked by their labels, without a scale; many groups are numbered at their medians."""
    groups = sorted(set(labels))
    for i, group in enumerate(groups):
        colour, marker, filled = mark(i)
        x, y = np.asarray(points)[labels == group, :2].T
        # Thousands of paths make a heavy page, so the points become one picture inside the drawing.
        style = {"facecolor": colour if filled else "none", "edgecolor": colour, "linewidth": 0 if filled else 0.7}
        name = f"{i + 1} {group}" if len(groups) > FEW else group
        axis.scatter(x, y, size, marker=marker, label=name, rasterized=True, **style)
        if len(groups) > FEW:
            halo = [withStroke(linewidth=2.5, foreground=PAPER)]
            at = np.median(x), np.median(y)
            axis.annotate(i + 1, at, ha="center", va="center", color=INK, fontsize=9, weight="bold", path_effects=halo)
    axis.set(xticks=[], yticks=[])
    with mpl.rc_context(STYLE):
        axis.set_title(panel, fontweight="normal")


def embedding(points, panels: dict, *, title: str, xlabel="PC 1", ylabel="PC 2", finding=""):
    """The same two coordinates once for each panel, coloured by its labels, with every group named where it lies.

    Parameters
    ----------
    points : ndarray of shape (n_cells, 2 or more)
        Coordinates; the first two columns are drawn.
    panels : dict of panel title to labels of shape (n_cells,)
        One panel each.
    title, xlabel, ylabel : str
        The title is the answer.
    finding : str
        What the picture shows, for the alternative text.
    """
    figure, axes = new(4.0 * len(panels), 4.4, ncols=len(panels), squeeze=False)
    for axis, (panel, labels) in zip(axes[0], panels.items(), strict=True):
        _draw_groups(axis, panel, points, np.asarray(labels), 9)
        axis.set(xlabel=xlabel, ylabel=ylabel)
        with mpl.rc_context(STYLE):
            beneath = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.09), "ncols": min(3, len(set(labels)))}
            axis.legend(fontsize=8, markerscale=1.8, handletextpad=0.2, columnspacing=1.2, **beneath)
    seen = [f"{panel} ({len(set(labels))} groups)" for panel, labels in panels.items()]
    told = f"{len(points)} cells at {xlabel} and {ylabel}, coloured by {listed(seen)}. {finding}"
    return finished(figure, title, told.strip())


def maps(panels: dict, labels, *, title: str, finding: str):
    """Several maps of the same cells side by side, with one legend.

    Parameters
    ----------
    panels : dict of panel title to ndarray of shape (n_cells, 2 or more)
        Coordinates; the first two columns are drawn, without a scale.
    labels : sequence of shape (n_cells,)
        Groups, coloured and marked the same in every panel.
    title : str
        The title is the answer.
    finding : str
        What the maps show and the numbers that carry it, for the alternative text.
    """
    figure, axes = new(2.5 * len(panels), 4.0, ncols=len(panels), squeeze=False)
    for axis, (panel, points) in zip(axes[0], panels.items(), strict=True):
        _draw_groups(axis, panel, points, np.asarray(labels), 8)
    told = f"{len(labels)} cells of {len(set(labels))} groups in {listed(panels)}. {finding}"
    return finished(figure, title, told, legend=4, markerscale=1.8, handletextpad=0.2)


def episode(points, labels, is_support, *, title: str, finding: str, axis="PC"):
    """One few-shot problem twice: as the grid in which it is drawn, and as cells in the plane with their prototypes.

    Parameters
    ----------
    points : ndarray of shape (n_cells, 2 or more)
        Coordinates of the episode's cells; the first two columns are drawn, the prototypes are means over the support.
    labels : sequence of shape (n_cells,)
        The class of each cell.
    is_support : sequence of bool of shape (n_cells,)
        True for a labelled cell, False for a query.
    title : str
        The title is the answer.
    finding : str
        What the plane shows and the numbers that carry it, for the alternative text.
    axis : str
        What the coordinates are called; 1 and 2 are added.
    """
    points, labels, given = np.asarray(points)[:, :2], np.asarray(labels), np.asarray(is_support, bool)
    groups = list(dict.fromkeys(labels))
    figure, axes = new(7.6, 3.7, ncols=2, width_ratios=(1, 1.15))
    for i, group in enumerate(groups):
        here, (colour, marker, _) = labels == group, mark(i)
        shots, asked = np.count_nonzero(here & given), np.count_nonzero(here & ~given)
        row = [len(groups) - 1 - i]
        axes[0].plot(np.arange(shots), row * shots, marker, color=colour)
        axes[0].plot(shots + 0.7 + np.arange(asked), row * asked, marker, color=colour, markerfacecolor=PAPER)
        axes[1].plot(*points[here & ~given].T, marker, color=colour, markerfacecolor=PAPER, markersize=4)
        axes[1].plot(*points[here & given].T, marker, color=colour, markersize=4)
        middle = points[here & given].mean(0)
        axes[1].plot(*middle, marker, color=colour, markersize=12, markeredgecolor=INK, markeredgewidth=1.4)
    axes[0].set_yticks(range(len(groups)), groups[::-1])
    axes[0].set_xticks([(shots - 1) / 2, shots + 0.7 + (asked - 1) / 2], ["support", "query"])
    axes[0].tick_params(length=0)
    axes[0].set_ylim(-0.6, len(groups) - 0.4)
    axes[0].spines[["left", "bottom"]].set_visible(False)
    axes[1].set(xlabel=f"{axis} 1", ylabel=f"{axis} 2", xticks=[], yticks=[])
    told = (
        f"Left, a grid of {len(groups)} rows, one a class ({listed(groups)}), with {shots} filled support "
        f"marks and {asked} open query marks each. Right, the same cells in the plane with a large mark at each "
        f"class's prototype. {finding}"
    )
    return finished(figure, title, told)


def shares(table, *, title: str, xlabel: str):
    """One bar a row, divided into parts that are told apart by colour, hatching and their order.

    Parameters
    ----------
    table : DataFrame
        Rows are bars, columns are parts in the order drawn; values from 0 to 1. A part may be slightly negative and is
        then drawn as nothing.
    title, xlabel : str
        The title is the answer.
    """
    figure, axes = new(6.4, 1.5 + 0.42 * len(table))
    hatches = ("", "////", "....", "xxxx")
    colours = [ROLES[r][0] for r in ("target", "baseline", "source", "control")]
    left = np.zeros(len(table))
    rows = range(len(table))[::-1]
    for i, part in enumerate(table.columns):
        width = np.maximum(table[part].to_numpy(float), 0)
        style = {"color": colours[i % 4], "hatch": hatches[i % 4], "edgecolor": PAPER, "linewidth": 0.6, "height": 0.62}
        axes.barh(rows, width, left=left, label=part, **style)
        left += width
    axes.set_yticks(rows, table.index)
    axes.set(xlim=(0, None), xlabel=xlabel)
    said = [
        f"{row}: " + listed(f"{part} {value:.1%}" for part, value in values.items()) for row, values in table.T.items()
    ]
    return finished(figure, title, f"{xlabel}. {'; '.join(said)}.", legend=len(table.columns))


def zeros(table, *, title: str):
    """Share of zeros against mean count, one point a gene, under the curves that models of counting expect.

    Parameters
    ----------
    table : DataFrame
        One row a gene: ``mean`` count above 0, ``observed`` share of zeros, and one column for each model's expected
        share, drawn as a running median of 101 genes.
    title : str
        The title is the answer.
    """
    table = table.sort_values("mean")
    figure, axes = new(6.4, 3.8)
    axes.scatter(table["mean"], table["observed"], 6, CYCLE[0], "o", alpha=0.5, linewidth=0, rasterized=True)
    said = []
    for i, model in enumerate(c for c in table.columns if c not in ("mean", "observed")):
        line = table[model].rolling(101, center=True, min_periods=1).median()
        axes.plot(table["mean"], line, color=(CYCLE[1], INK)[i % 2], linestyle=("-", "--")[i % 2], label=model)
        said.append(f"{(table['observed'] - table[model]).mean():+.3f} from the {model}'s")
    axes.set(xscale="log", ylim=(-0.02, 1.02), xlabel="Mean count of the gene", ylabel="Share of cells without it")
    told = f"Over {len(table)} genes the share of zeros differs on average by {listed(said)}."
    return finished(figure, title, told, legend="inside", title="Expected", loc="lower left")


def realism(real, simulated, *, title: str):
    """Four looks at a real and a simulated set of counts: if you can tell them apart, so can a method.

    Parameters
    ----------
    real, simulated : AnnData
        Counts of the same genes.
    title : str
        The answer.
    """
    from shared.data.simulate import compare, summary

    sets = {"real": (real, "source"), "simulated": (simulated, "target")}
    figure, axes = new(6.8, 5.4, ncols=2, nrows=2)
    for name, (adata, role) in sets.items():
        colour, marker = ROLES[role]
        said = summary(adata.layers.get("counts", adata.X))
        seen = np.argsort(said["mean"])[np.count_nonzero(said["mean"] == 0) :]
        seen = seen[np.linspace(0, len(seen) - 1, min(500, len(seen))).astype(int)]  # a light drawing
        dots = {
            "color": colour,
            "markersize": 2,
            "alpha": 0.35,
            "markeredgewidth": 0,
            "linestyle": "",
            "marker": marker,
        }
        axes[0, 0].plot(said["mean"][seen], np.maximum(said["variance"][seen], 1e-6), **dots)
        axes[0, 1].plot(said["mean"][seen], said["zeros"][seen], **dots)
        steps = {"histtype": "step", "density": True, "color": colour, "label": name, "linewidth": 1.6}
        steps["linestyle"] = "-" if name == "real" else (0, (4, 2))
        axes[1, 0].hist(np.log10(1 + said["depth"]), bins=30, **steps)
        axes[1, 1].hist(said["correlation"], bins=np.linspace(-0.6, 1, 60), **steps)
    axes[0, 0].set(xscale="log", yscale="log", xlabel="Mean of a gene", ylabel="Variance")
    axes[0, 1].set(xscale="log", xlabel="Mean of a gene", ylabel="Share of zeros")
    axes[1, 0].set(xlabel="Counts of a cell, log10", ylabel="Density")
    axes[1, 1].set(xlabel="Correlation of two genes", ylabel="Density")
    with mpl.rc_context(STYLE):
        axes[1, 0].legend()
    far = [f"{what} {row['distance']:.3f} ({row['within']:.3f} between halves of the real cells)"
           for what, row in compare(real, simulated).iterrows()]  # fmt: skip
    told = (
        f"Four panels lay simulated over real: variance against mean, zeros against mean, counts of a cell, "
        f"correlation of genes. Distances: {listed(far)}."
    )
    return finished(figure, title, told)
