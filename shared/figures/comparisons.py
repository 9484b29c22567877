"""Figures of what was measured: models beside models, with their intervals."""

from __future__ import annotations

import numpy as np

from shared.figures.style import CYCLE, INK, PAPER, ROLES, finished, listed, mark, new


def as_rows(intervals: dict, metric: str):
    """Intervals by row label as the table that :func:`shared.figures.dots` draws.

    Its columns are `metric`, ``<metric>_low`` and ``<metric>_high``.
    """
    import pandas as pd

    rows = {k: {metric: v.value, f"{metric}_low": v.low, f"{metric}_high": v.high} for k, v in intervals.items()}
    return pd.DataFrame.from_dict(rows, orient="index")


def _label_rows(axes, names, xlabel, chance, below=0.6):
    """Names of the rows from below, the x-axis, and the line where guessing stands."""
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel=xlabel, ylim=(-below, len(names) - 0.4))
    if chance is not None:
        axes.axvline(chance, color=INK, linestyle=(0, (4, 3)), linewidth=1, label="chance")


def dots(table, metric: str, *, title: str, xlabel: str, roles=None, chance=None, ranked=True):
    """One row a model: a dot with its interval, best at the top.

    Parameters
    ----------
    table : DataFrame
        Indexed by row label, with columns `metric`, ``<metric>_low`` and ``<metric>_high``.
    metric : str
        The column to draw.
    title, xlabel : str
        The title is the answer; the label names the metric.
    roles : dict of row label to role, optional
        Marks of :data:`shared.figures.ROLES`; ``"baseline"`` for what is not named.
    chance : float, optional
        Where guessing stands, drawn as a dashed line.
    ranked : bool, default True
        False: the rows stand in the table's order, the first at the top.
    """
    table = table.dropna(subset=[metric])
    table = table.sort_values(metric) if ranked else table.iloc[::-1]
    figure, axes = new(6.4, 0.9 + 0.32 * len(table))
    for i, (label, row) in enumerate(table.iterrows()):
        colour, marker = ROLES[(roles or {}).get(label, "baseline")]
        axes.plot([row[f"{metric}_low"], row[f"{metric}_high"]], [i, i], color=colour, solid_capstyle="round")
        axes.plot(row[metric], i, marker, color=colour, markersize=6.5)
    _label_rows(axes, table.index, xlabel, chance)
    rows = [
        f"{label} {row[metric]:.2f} ({row[f'{metric}_low']:.2f} to {row[f'{metric}_high']:.2f})"
        for label, row in table.iloc[::-1].iterrows()
    ]
    guess = "" if chance is None else f" Guessing would score {chance:.2f}." if chance else " The line is at no change."
    return finished(figure, title, f"{xlabel} with intervals{', best first' * ranked}: {listed(rows)}.{guess}")


def _marks(labels, roles):
    """Label, and the colour, marker and fill of its mark; of labels with one role all but the first are hollow."""
    met = set()
    for i, label in enumerate(labels):
        role = (roles or {}).get(label)
        colour, marker, filled = (*ROLES[role], role not in met) if role else mark(i)
        yield label, colour, marker, colour if filled else PAPER
        met.add(role or label)


def curves(runs, x: str, y: str, *, by: str, title: str, xlabel: str, ylabel: str, roles=None, reference=None):
    """A line for each `by` over `x`: every run a faint point, the mean a line with its 95 % t-interval.

    Parameters
    ----------
    runs : DataFrame
        One row a run, with columns `x`, `y` and `by`.
    x, y, by : str
        Column names.
    title, xlabel, ylabel : str
        The title is the answer.
    roles : dict of `by` value to role, optional
        Marks of :data:`shared.figures.ROLES`; the second line of one role is dashed, and its marks are hollow.
    reference : dict of label to (x values, y values), optional
        Published values, drawn as open marks and named in the legend.
    """
    from scipy.stats import t

    figure, axes = new(6.4, 3.8)
    said = []
    ticks = sorted(set(runs[x]))
    parts = dict(list(runs.groupby(by, sort=False)))
    for label, colour, marker, fill in _marks(parts, roles):
        part = parts[label]
        stats = part.groupby(x)[y].agg(["mean", "sem", "count"])
        half = stats["sem"].fillna(0) * t.ppf(0.975, np.maximum(stats["count"] - 1, 1))
        axes.plot(part[x], part[y], marker, color=colour, alpha=0.3, markersize=3.5, markeredgewidth=0)
        axes.fill_between(stats.index, stats["mean"] - half, stats["mean"] + half, color=colour, alpha=0.2, linewidth=0)
        line = "-" if fill == colour else "--"
        axes.plot(stats.index, stats["mean"], line, marker=marker, color=colour, markerfacecolor=fill, label=label)
        first, last = stats["mean"].iloc[0], stats["mean"].iloc[-1]
        said.append(f"{label} from {first:.2f} at {stats.index[0]} to {last:.2f} at {stats.index[-1]}")
    for i, (label, (at, values)) in enumerate((reference or {}).items()):
        axes.plot(at, values, f"{mark(i)[1]}--", color=INK, markerfacecolor=PAPER, linewidth=1, label=label)
        said.append(f"{label} from {values[0]:.2f} at {at[0]} to {values[-1]:.2f} at {at[-1]}")
    if len(ticks) > 1 and ticks[0] > 0 and ticks[-1] / ticks[0] >= 10:
        axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{v:g}" for v in ticks])
    axes.minorticks_off()
    axes.set(xlabel=xlabel, ylabel=ylabel)
    # Several published lines leave no room for a legend inside.
    legend = 2 if len(reference or {}) > 1 else "inside"
    return finished(figure, title, f"{ylabel} against {xlabel}: {listed(said)}.", legend=legend)


def pairs(table, before: str, after: str, *, title: str, xlabel: str, chance=None, between=None):
    """Two values a row joined by a line: what one change did, row by row.

    `table` is indexed by row label and holds the two columns; the first is drawn open, the second filled. A column for
    a step `between` them is drawn as a cross.
    """
    figure, axes = new(6.4, 1.2 + 0.42 * len(table))
    colour = ROLES["target"][0]
    for i, (_, row) in enumerate(table.iloc[::-1].iterrows()):
        ends = row[[before, after, *([between] if between else [])]].astype(float)
        axes.plot([ends.min(), ends.max()], [i, i], color=ROLES["baseline"][0], linewidth=1.2)
        axes.plot(row[before], i, "o", color=colour, markerfacecolor=PAPER, label=before if i == 0 else None)
        if between:
            axes.plot(row[between], i, "x", color=colour, markeredgewidth=1.6, label=between if i == 0 else None)
        axes.plot(row[after], i, "o", color=colour, label=after if i == 0 else None)
    _label_rows(axes, table.index[::-1], xlabel, chance)
    steps = [before, between, after] if between else [before, after]
    said = [f"{label} " + listed([f"{row[s]:.2f} ({s})" for s in steps]) for label, row in table.iterrows()]
    guess = "" if chance is None else f" Chance is {chance:.2f}."
    return finished(figure, title, f"{xlabel}: {listed(said)}.{guess}", legend=3)


def reliability(tables: dict, *, title: str):
    """Confidence against accuracy, bin by bin; a calibrated model lies on the diagonal.

    Parameters
    ----------
    tables : dict of label to DataFrame
        As ``shared.evaluate.reliability`` returns them: columns ``confidence``, ``accuracy``, ``count``.
    title : str
        The title is the answer.
    """
    figure, axes = new(5.2, 4.2)
    axes.plot([0, 1], [0, 1], color=INK, linestyle=(0, (4, 3)), linewidth=1)
    said = []
    for i, (label, table) in enumerate(tables.items()):
        table = table[table["count"] > 0]
        axes.plot(table["confidence"], table["accuracy"], color=CYCLE[i], linewidth=1, alpha=0.7)
        sizes = 14 + 130 * table["count"] / table["count"].sum()
        axes.scatter(table["confidence"], table["accuracy"], sizes, *mark(i)[:2], label=label)
        gap = (table["count"] * (table["confidence"] - table["accuracy"])).sum() / table["count"].sum()
        said.append(f"{label} is {abs(gap):.2f} {'over' if gap > 0 else 'under'}confident on average")
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal")
    axes.set(xlabel="Confidence of the top class", ylabel="Share that is right")
    told = f"Against the diagonal of perfect calibration, {listed(said)}."
    return finished(figure, title, told, legend="inside", loc="upper left")
