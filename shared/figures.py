"""The house style, and every plot the chapters draw.

Each function returns a matplotlib figure whose ``alt_text`` tells a reader who cannot see it the finding and the
numbers that carry it. :func:`show` puts the figure on the page with a caption and a label.

Text and axes are drawn in one ink and the background in one paper colour; the book swaps both for the page's own, so
figures follow light and dark. Every mark has a contrast of at least 3 to 1 against white and against the dark page,
and no two meanings differ by colour alone.
"""

from __future__ import annotations

import io
import textwrap

import matplotlib as mpl
import numpy as np
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


def new(width=6.4, height=3.6, ncols=1, nrows=1, **options):
    """A figure and its axes in the house style, in inches; nothing is shown until :func:`show`."""
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


def _label(axes, title, x, y):
    """Axis labels, and the title over the whole figure: long row labels must not push it off the page."""
    with mpl.rc_context(STYLE):
        axes.set(xlabel=x, ylabel=y)
        _title(axes.figure, title)


def _title(figure, title):
    """The figure's answer, in bold at the left edge, on as many lines as its width needs (nine letters an inch)."""
    lines = textwrap.fill(title, int(9 * figure.get_figwidth()))
    figure.suptitle(lines, x=0.01, ha="left", fontsize=STYLE["axes.titlesize"], fontweight="bold", color=INK)


def _listed(items) -> str:
    items = list(items)
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def dots(table, metric: str, *, title: str, xlabel: str, roles=None, chance=None):
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
        Marks of :data:`ROLES`; ``"baseline"`` for what is not named.
    chance : float, optional
        Where guessing stands, drawn as a dashed line.
    """
    table = table.dropna(subset=[metric]).sort_values(metric)
    figure, axes = new(6.4, 0.9 + 0.32 * len(table))
    for i, (label, row) in enumerate(table.iterrows()):
        colour, marker = ROLES[(roles or {}).get(label, "baseline")]
        axes.plot([row[f"{metric}_low"], row[f"{metric}_high"]], [i, i], color=colour, solid_capstyle="round")
        axes.plot(row[metric], i, marker, color=colour, markersize=6.5)
    axes.set_yticks(range(len(table)), table.index)
    axes.set_ylim(-0.6, len(table) - 0.4)
    if chance is not None:
        axes.axvline(chance, color=INK, linestyle=(0, (4, 3)), linewidth=1)
    _label(axes, title, xlabel, "")
    rows = [
        f"{label} {row[metric]:.2f} ({row[f'{metric}_low']:.2f} to {row[f'{metric}_high']:.2f})"
        for label, row in table.iloc[::-1].iterrows()
    ]
    guess = "" if chance is None else f" Guessing would score {chance:.2f}." if chance else " The line is at no change."
    figure.alt_text = f"{title}. {xlabel} with intervals, best first: {_listed(rows)}.{guess}"
    return figure


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
        Marks of :data:`ROLES`.
    reference : dict of label to (x values, y values), optional
        Published values, drawn as open marks and named in the legend.
    """
    from scipy.stats import t

    figure, axes = new(6.4, 3.8)
    said = []
    ticks = sorted(set(runs[x]))
    for i, (label, part) in enumerate(runs.groupby(by, sort=False)):
        colour, marker = ROLES[roles[label]] if roles and label in roles else (CYCLE[i % 7], MARKERS[i % 11])
        stats = part.groupby(x)[y].agg(["mean", "sem", "count"])
        half = stats["sem"].fillna(0) * t.ppf(0.975, np.maximum(stats["count"] - 1, 1))
        axes.plot(part[x], part[y], marker, color=colour, alpha=0.3, markersize=3.5, markeredgewidth=0)
        axes.fill_between(stats.index, stats["mean"] - half, stats["mean"] + half, color=colour, alpha=0.2, linewidth=0)
        axes.plot(stats.index, stats["mean"], marker=marker, color=colour, label=label)
        first, last = stats["mean"].iloc[0], stats["mean"].iloc[-1]
        said.append(f"{label} from {first:.2f} at {stats.index[0]} to {last:.2f} at {stats.index[-1]}")
    for i, (label, (at, values)) in enumerate((reference or {}).items()):
        axes.plot(at, values, f"{MARKERS[i % 11]}--", color=INK, markerfacecolor=PAPER, linewidth=1, label=label)
        said.append(f"{label} from {values[0]:.2f} at {at[0]} to {values[-1]:.2f} at {at[-1]}")
    if len(ticks) > 1 and ticks[0] > 0 and ticks[-1] / ticks[0] >= 10:
        axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{v:g}" for v in ticks])
    axes.minorticks_off()
    with mpl.rc_context(STYLE):
        # Several published lines leave no room for a legend inside.
        figure.legend(loc="outside lower center", ncols=2) if len(reference or {}) > 1 else axes.legend()
    _label(axes, title, xlabel, ylabel)
    figure.alt_text = f"{title}. {ylabel} against {xlabel}: {_listed(said)}."
    return figure


def pairs(table, before: str, after: str, *, title: str, xlabel: str, chance=None):
    """Two values a row joined by a line: what one change did, row by row.

    `table` is indexed by row label and holds the two columns; the first is drawn open, the second filled.
    """
    figure, axes = new(6.4, 1.2 + 0.42 * len(table))
    colour = ROLES["target"][0]
    for i, (_, row) in enumerate(table.iloc[::-1].iterrows()):
        axes.plot([row[before], row[after]], [i, i], color=ROLES["baseline"][0], linewidth=1.2)
        axes.plot(row[before], i, "o", color=colour, markerfacecolor=PAPER, label=before if i == 0 else None)
        axes.plot(row[after], i, "o", color=colour, label=after if i == 0 else None)
    axes.set_yticks(range(len(table)), table.index[::-1])
    axes.set_ylim(-0.6, len(table) - 0.4)
    if chance is not None:
        axes.axvline(chance, color=INK, linestyle=(0, (4, 3)), linewidth=1, label="chance")
    with mpl.rc_context(STYLE):
        figure.legend(loc="outside lower center", ncols=3)
    _label(axes, title, xlabel, "")
    said = [f"{label} {row[before]:.2f} ({before}) and {row[after]:.2f} ({after})" for label, row in table.iterrows()]
    figure.alt_text = f"{title}. {xlabel}: {_listed(said)}." + ("" if chance is None else f" Chance is {chance:.2f}.")
    return figure


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
        axes.scatter(table["confidence"], table["accuracy"], sizes, CYCLE[i], MARKERS[i], label=label)
        gap = (table["count"] * (table["confidence"] - table["accuracy"])).sum() / table["count"].sum()
        said.append(f"{label} is {abs(gap):.2f} {'over' if gap > 0 else 'under'}confident on average")
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal")
    with mpl.rc_context(STYLE):
        axes.legend(loc="upper left")
    _label(axes, title, "Confidence of the top class", "Share that is right")
    figure.alt_text = f"{title}. Against the diagonal of perfect calibration, {_listed(said)}."
    return figure


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
    points = np.asarray(points)[:, :2]
    figure, axes = new(4.0 * len(panels), 4.4, ncols=len(panels), squeeze=False)
    for axis, (panel, labels) in zip(axes[0], panels.items(), strict=True):
        labels = np.asarray(labels)
        groups = list(dict.fromkeys(sorted(labels)))
        for i, group in enumerate(groups):
            here = points[labels == group]
            marker = MARKERS[i % 11]
            # Thousands of paths make a heavy page, so the points become one picture inside the drawing.
            axis.scatter(*here.T, s=9, color=CYCLE[i % 7], marker=marker, linewidth=0, label=group, rasterized=True)
        with mpl.rc_context(STYLE):
            beneath = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.09), "ncols": min(3, len(groups))}
            axis.legend(fontsize=8, markerscale=1.8, handletextpad=0.2, columnspacing=1.2, **beneath)
        with mpl.rc_context(STYLE):
            axis.set(xticks=[], yticks=[], xlabel=xlabel, ylabel=ylabel)
            axis.set_title(panel, fontweight="normal")
    _title(figure, title)
    seen = [f"{panel} ({len(set(labels))} groups)" for panel, labels in panels.items()]
    figure.alt_text = (
        f"{title}. {len(points)} cells at {xlabel} and {ylabel}, coloured by {_listed(seen)}. {finding}".strip()
    )
    return figure


def as_rows(intervals: dict, metric: str):
    """Intervals by row label as the table that :func:`dots` draws: `metric`, ``<metric>_low``, ``<metric>_high``."""
    import pandas as pd

    rows = {k: {metric: v.value, f"{metric}_low": v.low, f"{metric}_high": v.high} for k, v in intervals.items()}
    return pd.DataFrame.from_dict(rows, orient="index")


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
    labels = np.asarray(labels)
    groups = sorted(set(labels))
    figure, axes = new(2.5 * len(panels), 4.0, ncols=len(panels), squeeze=False)
    for axis, (panel, points) in zip(axes[0], panels.items(), strict=True):
        for i, group in enumerate(groups):
            x, y = np.asarray(points)[labels == group, :2].T
            axis.scatter(x, y, 8, CYCLE[i % 7], MARKERS[i % 11], linewidth=0, label=group, rasterized=True)
        with mpl.rc_context(STYLE):
            axis.set(xticks=[], yticks=[])
            axis.set_title(panel, fontweight="normal")
    with mpl.rc_context(STYLE):
        handles = axes[0, 0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=4, markerscale=1.8, handletextpad=0.2)
    _title(figure, title)
    figure.alt_text = f"{title}. {len(labels)} cells of {len(groups)} groups in {_listed(panels)}. {finding}"
    return figure


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
    axes.set_xlim(0, None)
    with mpl.rc_context(STYLE):
        figure.legend(loc="outside lower center", ncols=len(table.columns))
    _label(axes, title, xlabel, "")
    said = [
        f"{row}: " + _listed(f"{part} {value:.1%}" for part, value in values.items()) for row, values in table.T.items()
    ]
    figure.alt_text = f"{title}. {xlabel}. {'; '.join(said)}."
    return figure


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
    axes.set_xscale("log")
    axes.set_ylim(-0.02, 1.02)
    with mpl.rc_context(STYLE):
        axes.legend(title="Expected", loc="lower left")
    _label(axes, title, "Mean count of the gene", "Share of cells without it")
    figure.alt_text = f"{title}. Over {len(table)} genes the share of zeros differs on average by {_listed(said)}."
    return figure


_EXPLORER = """
(() => {
  const box = document.getElementById("NAME"), table = box.querySelector("table");
  const bar = box.querySelector(".bs-controls"), said = box.querySelector("output");
  const head = [...table.tHead.rows[0].cells], rows = [...table.tBodies[0].rows];
  const text = (row, i) => row.cells[i].textContent.trim();
  const controls = [...bar.querySelectorAll("select, input")];
  const show = () => {
    let left = 0;
    for (const row of rows) {
      const fits = controls.every(c => c.tagName === "SELECT"
        ? !c.value || text(row, +c.dataset.column) === c.value
        : row.textContent.toLowerCase().includes(c.value.toLowerCase()));
      row.hidden = !fits;
      left += fits;
    }
    said.textContent = `${left} of ${rows.length} shown`;
  };
  head.forEach((cell, i) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = cell.textContent;
    button.onclick = () => {
      const up = cell.getAttribute("aria-sort") !== "ascending";
      head.forEach(other => other.removeAttribute("aria-sort"));
      cell.setAttribute("aria-sort", up ? "ascending" : "descending");
      rows.sort((a, b) => (up ? 1 : -1) * text(a, i).localeCompare(text(b, i), "en", {numeric: true}));
      table.tBodies[0].append(...rows);
    };
    cell.replaceChildren(button);
  });
  controls.forEach(c => c.addEventListener("input", show));
  bar.hidden = false;
  show();
})();
"""
_EXPLORER_STYLE = (
    "<style>.bs-explorer{margin:1rem 0;overflow-x:auto}"
    ".bs-explorer .bs-controls{display:flex;flex-wrap:wrap;gap:.4rem 1rem;align-items:end;margin-bottom:.6rem}"
    ".bs-explorer .bs-controls[hidden]{display:none}.bs-explorer label{display:grid;font-size:.85rem}"
    ".bs-explorer :is(input,select){font:inherit;color:inherit;background:transparent;border:1px solid;"
    "border-radius:4px;padding:.2rem .4rem;max-width:100%}.bs-explorer output{font-size:.85rem}"
    ".bs-explorer option{color:#1b1f24;background:#fff}"
    ".bs-explorer table{border-collapse:collapse;font-size:.82rem;line-height:1.35}"
    ".bs-explorer caption{caption-side:top;text-align:left;padding-bottom:.4rem}"
    ".bs-explorer :is(td,th){text-align:left;vertical-align:top;padding:.3rem .6rem .3rem 0;"
    "border-bottom:1px solid rgba(127,127,127,.4)}"
    ".bs-explorer th button{font:inherit;color:inherit;background:none;border:0;padding:0;text-align:left}"
    ".bs-explorer th button:focus-visible{outline:2px solid;outline-offset:2px}"
    '.bs-explorer th button::after{content:" \\2195";opacity:.7}'
    '.bs-explorer th[aria-sort=ascending] button::after{content:" \\2191"}'
    '.bs-explorer th[aria-sort=descending] button::after{content:" \\2193"}</style>'
)


def explorer(table, *, name: str, caption: str, filters=()):
    """A table that a reader can search, filter and sort, by mouse or keyboard; a plain table where scripts do not run.

    Parameters
    ----------
    table : DataFrame
        With a named index; shown as it stands.
    name : str
        Identifier, unique on the page: letters, digits and hyphens.
    caption : str
        What the table holds.
    filters : sequence of str
        Columns offered as a choice of their values.

    Returns
    -------
    IPython.display.HTML

    Raises
    ------
    ValueError
        If the name, the caption or a filter cannot be used.
    """
    import html
    import re

    from IPython.display import HTML

    unknown = [f for f in filters if f not in table.columns]
    if unknown or not caption.strip() or not re.fullmatch(r"[a-z][a-z0-9-]*", name):
        raise ValueError(
            f"a table needs a plain name, a caption, and filters that are columns: see {unknown or name!r}"
        )
    columns = [table.index.name or "", *map(str, table.columns)]
    controls = ["<label>Search <input type='search'></label>"]
    for column in filters:
        options = "".join(f"<option>{html.escape(v)}</option>" for v in sorted(set(map(str, table[column]))))
        controls.append(
            f"<label>{html.escape(column)} <select data-column='{columns.index(column)}'>"
            f"<option value=''>all</option>{options}</select></label>"
        )
    head = "".join(f"<th scope='col'>{html.escape(c)}</th>" for c in columns)
    body = "".join(
        f"<tr><th scope='row'>{html.escape(str(row))}</th>"
        + "".join(f"<td>{html.escape(str(v))}</td>" for v in values)
        + "</tr>"
        for row, values in zip(table.index, table.itertuples(index=False), strict=True)
    )
    return HTML(
        f"{_EXPLORER_STYLE}<div class='bs-explorer' id='{name}'><div class='bs-controls' hidden>{''.join(controls)}"
        f"<output role='status'></output></div><table><caption>{html.escape(caption)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        f"<script>{_EXPLORER.replace('NAME', name)}</script>"
    )


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
    found = {name: summary(a.layers.get("counts", a.X)) for name, (a, _) in sets.items()}
    figure, axes = new(6.8, 5.4, ncols=2, nrows=2)
    for name, (_, role) in sets.items():
        colour, marker = ROLES[role]
        said = found[name]
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
    with mpl.rc_context(STYLE):
        axes[0, 0].set(xscale="log", yscale="log", xlabel="Mean of a gene", ylabel="Variance")
        axes[0, 1].set(xscale="log", xlabel="Mean of a gene", ylabel="Share of zeros")
        axes[1, 0].set(xlabel="Counts of a cell, log10", ylabel="Density")
        axes[1, 1].set(xlabel="Correlation of two genes", ylabel="Density")
        axes[1, 0].legend()
        _title(figure, title)
    table = compare(real, simulated)
    far = [f"{what} {row['distance']:.3f} ({row['within']:.3f} between halves of the real cells)"
           for what, row in table.iterrows()]  # fmt: skip
    figure.alt_text = (
        f"{title}. Four panels lay simulated over real: variance against mean, zeros against mean, counts of a cell, "
        f"correlation of genes. Distances: {_listed(far)}."
    )
    return figure


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
        here, colour, marker = labels == group, CYCLE[i % 7], MARKERS[i % 11]
        shots, asked = np.count_nonzero(here & given), np.count_nonzero(here & ~given)
        row = np.full(shots, len(groups) - 1 - i)
        axes[0].plot(np.arange(shots), row, marker, color=colour)
        row = np.full(asked, len(groups) - 1 - i)
        axes[0].plot(shots + 0.7 + np.arange(asked), row, marker, color=colour, markerfacecolor=PAPER)
        axes[1].plot(*points[here & ~given].T, marker, color=colour, markerfacecolor=PAPER, markersize=4)
        axes[1].plot(*points[here & given].T, marker, color=colour, markersize=4)
        middle = points[here & given].mean(0)
        axes[1].plot(*middle, marker, color=colour, markersize=12, markeredgecolor=INK, markeredgewidth=1.4)
    with mpl.rc_context(STYLE):
        axes[0].set_yticks(range(len(groups)), groups[::-1])
        axes[0].set_xticks([(shots - 1) / 2, shots + 0.7 + (asked - 1) / 2], ["support", "query"])
        axes[0].tick_params(length=0)
        axes[0].set_ylim(-0.6, len(groups) - 0.4)
        axes[0].spines[["left", "bottom"]].set_visible(False)
        axes[1].set(xlabel=f"{axis} 1", ylabel=f"{axis} 2", xticks=[], yticks=[])
    _title(figure, title)
    figure.alt_text = (
        f"{title}. Left, a grid of {len(groups)} rows, one a class ({_listed(groups)}), with {shots} filled support "
        f"marks and {asked} open query marks each. Right, the same cells in the plane with a large mark at each "
        f"class's prototype. {finding}"
    )
    return figure


def bubbles(table, *, title: str, xlabel: str, ylabel: str):
    """A table as discs whose area is the value, with the value beside each of the larger ones.

    Parameters
    ----------
    table : DataFrame
        Values from 0 to 1.
    title, xlabel, ylabel : str
        The title is the answer.
    """
    values = table.to_numpy(float)
    height, width = values.shape
    figure, axes = new(2.2 + 0.72 * width, 1.3 + 0.42 * height)
    rows, columns = np.indices(values.shape)
    flipped = height - 1 - rows
    axes.scatter(columns, flipped, 230 * np.clip(values, 0, 1).ravel(), CYCLE[0], linewidth=0)
    for i, j in np.argwhere(values >= 0.095):
        beside = {"xytext": (9, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(f"{values[i, j]:.2f}", (j, height - 1 - i), **beside, size=7.5, color=INK)
    axes.set_xticks(range(width), table.columns, rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(height), table.index[::-1])
    axes.set(xlim=(-0.5, width - 0.2), ylim=(-0.6, height - 0.4))
    _label(axes, title, xlabel, ylabel)
    said = [
        f"{row}: " + _listed(f"{c} {v:.2f}" for c, v in line.sort_values(ascending=False).items() if v >= 0.095)
        for row, line in table.iterrows()
        if (line >= 0.095).any()
    ]
    figure.alt_text = f"{title}. {ylabel} by {xlabel}, values of 0.10 or more: {'; '.join(said)}."
    return figure


def histograms(panels: dict, *, title: str, ylabel="Share", bins=40, log=False):
    """Distributions laid over each other, one panel a question.

    Parameters
    ----------
    panels : dict of x-axis label to (dict of label to values)
        One panel each; all labels of a panel share its bins. Shares, so that groups of different size compare.
    title : str
        The title is the answer.
    ylabel : str
        Of the leftmost panel.
    bins : int
        Of equal width between the smallest and the largest value of a panel.
    log : bool
        A logarithmic share, where one bin holds most of the values.
    """
    figure, axes = new(3.4 * max(len(panels), 1.6), 3.2, ncols=len(panels), squeeze=False)
    said = []
    for axis, (xlabel, groups) in zip(axes[0], panels.items(), strict=True):
        pooled = np.concatenate([np.ravel(v) for v in groups.values()])
        edges = np.linspace(pooled.min(), pooled.max(), bins + 1)
        for i, (label, values) in enumerate(groups.items()):
            values = np.ravel(values)
            share = np.histogram(values, edges)[0] / len(values)
            style = {"color": CYCLE[i % 7], "linestyle": ("-", (0, (4, 2)), (0, (1, 1)))[i % 3], "linewidth": 1.8}
            axis.stairs(share, edges, label=label, **style)
            low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
            said.append(f"{xlabel}, {label}: median {middle:.2f}, nine tenths from {low:.2f} to {high:.2f}")
        with mpl.rc_context(STYLE):
            axis.set(xlabel=xlabel, yscale="log" if log else "linear")
            axis.legend()
    axes[0, 0].set_ylabel(ylabel, color=INK)
    _title(figure, title)
    figure.alt_text = f"{title}. {'; '.join(said)}."
    return figure


def beside(table, metric: str, published: dict, *, title: str, xlabel: str, roles=None, chance=None):
    """As :func:`dots`, in the order given, with published values as open marks under each row.

    Parameters
    ----------
    table : DataFrame
        As in :func:`dots`; the first row is drawn at the top.
    metric : str
        The column to draw.
    published : dict of row label to sequence of float
        What the paper reports for that row, one value a test set.
    title, xlabel : str
        The title is the answer.
    roles : dict of row label to role, optional
        Marks of :data:`ROLES`; ``"baseline"`` for what is not named.
    chance : float, optional
        Where guessing stands.
    """
    figure, axes = new(6.6, 1.3 + 0.44 * len(table))
    said = []
    for i, (label, row) in enumerate(table.iloc[::-1].iterrows()):
        colour, marker = ROLES[(roles or {}).get(label, "baseline")]
        low, high = row[f"{metric}_low"], row[f"{metric}_high"]
        axes.plot([low, high], [i, i], color=colour, solid_capstyle="round")
        axes.plot(row[metric], i, marker, color=colour, markersize=6.5, label="here" if i == len(table) - 1 else None)
        theirs = list(published.get(label, ()))
        axes.plot(theirs, [i - 0.27] * len(theirs), "|", color=INK, markersize=7, markeredgewidth=1.3)
        paper = f", in the paper {_listed(f'{v:.2f}' for v in theirs)}" if theirs else ""
        said.append(f"{label} {row[metric]:.2f} ({low:.2f} to {high:.2f}){paper}")
    axes.plot([], [], "|", color=INK, markeredgewidth=1.3, label="published, one a data set")
    axes.set_yticks(range(len(table)), table.index[::-1])
    axes.set_ylim(-0.7, len(table) - 0.4)
    if chance is not None:
        axes.axvline(chance, color=INK, linestyle=(0, (4, 3)), linewidth=1, label="chance")
    with mpl.rc_context(STYLE):
        figure.legend(loc="outside lower center", ncols=3)
    _label(axes, title, xlabel, "")
    guess = "" if chance is None else f" Guessing would score {chance:.2f}."
    figure.alt_text = f"{title}. {xlabel} with intervals: {'; '.join(reversed(said))}.{guess}"
    return figure


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
    with mpl.rc_context(STYLE):
        _title(figure, title)
    middle = " ".join(middle.split())
    said = [f"{name} has {len(own)} of its own ({_listed(own)})" for name, own in heads.items()]
    figure.alt_text = f"{title}. Cells of {len(heads)} data sets enter one box, {middle}; {'; '.join(said)}."
    return figure


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
    with mpl.rc_context(STYLE):
        _title(figure, title)
    rest = f"{_listed(own)} have random ones" if own else "no gene is left with random ones"
    figure.alt_text = (
        f"{title}. Of {len(drawn)} genes of the new data, drawn with {n_units} weights each, {len(both)} take the row "
        f"of their name from the old list ({_listed(both)}); {rest}."
    )
    return figure


def versus(x, ys: dict, *, title: str, xlabel: str, ylabel: str, roles=None):
    """Each data set a point of two scores, against the line where both are equal.

    Parameters
    ----------
    x : Series
        One score a data set.
    ys : dict of label to Series
        The other score, of one arm or several, by the same index.
    title, xlabel, ylabel : str
        The title is the answer.
    roles : dict of label to role, optional
        Marks of :data:`ROLES`.
    """
    figure, axes = new(5.2, 4.6)
    values = np.concatenate([x.to_numpy(), *(y.to_numpy() for y in ys.values())])
    edge = max(0.05 * np.ptp(values), 1e-3)
    limits = (values.min() - edge, values.max() + edge)
    axes.plot(limits, limits, color=INK, linestyle=(0, (4, 3)), linewidth=1)
    said = []
    for i, (label, y) in enumerate(ys.items()):
        colour, marker = ROLES[roles[label]] if roles and label in roles else (CYCLE[i % 7], MARKERS[i % 11])
        axes.plot(x, y.reindex(x.index), marker, linestyle="", color=colour, label=label, markersize=6)
        above = int((y.reindex(x.index) > x).sum())
        said.append(f"{label}: {above} of {len(y)} above, means {x.mean():.2f} and {y.mean():.2f}")
    axes.set(xlim=limits, ylim=limits, aspect="equal")
    with mpl.rc_context(STYLE):
        figure.legend(loc="outside lower center", ncols=2)
    _label(axes, title, xlabel, ylabel)
    figure.alt_text = f"{title}. {ylabel} against {xlabel}, with the line of equality. {'; '.join(said)}."
    return figure


def precision_recall(is_class, scores, hard, *, title: str):
    """The precision-recall curve of graded scores, and what straight lines make of hard labels.

    Parameters
    ----------
    is_class : bool array of shape (n_cells,)
        Which cells are of the class.
    scores, hard : arrays of shape (n_cells,)
        Graded scores, and the labels as 0 and 1.
    title : str
        The title is the answer.
    """
    from sklearn.metrics import auc, average_precision_score, precision_recall_curve

    soft, point = (precision_recall_curve(is_class, s)[:2] for s in (scores, hard))
    areas = (
        average_precision_score(is_class, scores),
        auc(point[1], point[0]),
        average_precision_score(is_class, hard),
    )
    words = ("graded scores, average precision", "hard labels, straight lines", "hard labels, average precision")
    names = [f"{word} {area:.2f}" for word, area in zip(words, areas, strict=True)]
    figure, axes = new(5.2, 4.6)
    axes.step(soft[1], soft[0], where="post", color=ROLES["method"][0], label=names[0])
    axes.plot(point[1], point[0], "o--", color=ROLES["target"][0], label=names[1])
    axes.step(point[1], point[0], where="post", color=ROLES["control"][0], linestyle=":", label=names[2])
    axes.set(xlim=(-0.02, 1.02), ylim=(0, 1.04))
    with mpl.rc_context(STYLE):
        figure.legend(loc="outside lower center", ncols=1)
    _label(axes, title, "Recall", "Precision")
    figure.alt_text = f"{title}. Areas under precision against recall: {'; '.join(names)}."
    return figure
