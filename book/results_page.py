"""Two pages made from ``book/results/*.json``: what the chapters measured, and what running them costs.

Only what was recorded is shown: the runs of a lesson, then those of its study. A chapter without a recorded run is not
mentioned, nor is a draft, and a page without any says so.
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path

from book import notebooks
from shared.results import STUDY

ROOT = Path(__file__).resolve().parent.parent
PROFILES = ("full", "lesson", "smoke")
PAGES = {"": "profiles", STUDY: "study"}  # how a page's name ends, and where its runs stand

RESULTS_HEAD = """---
myst:
  html_meta:
    description: "Every number the chapters recorded, with its interval and its origin, beside the published figure."
---

# Results

Each number below was written down by the code of a chapter while it ran, with the commit, the seeds, the versions and
the data it came from. Where a paper reports the same quantity, its figure stands beside ours. Intervals are 95 %
unless a row says otherwise.
"""

TIMES_HEAD = """---
myst:
  html_meta:
    description: "Measured time and peak memory of each lesson and study at each profile, with the machine."
---

# Run times

Measured when the numbers on the [results](results.md) page were made, from the first cell to the last, packages
already installed. Your machine differs; the ratio between two rows should not differ much.
"""

NOTHING = "\nNo run has been recorded yet.\n"


class PageError(ValueError):
    """A recorded result cannot be shown; the message names the file and the record."""


def recorded(folder: Path | None = None) -> list[dict]:
    """The contents of every ``*.json`` of the results folder, in order of file name.

    Raises
    ------
    PageError
        If a file is not valid JSON or lacks ``chapter`` or ``profiles``.
    """
    found = []
    for path in sorted((folder or ROOT / "book" / "results").glob("*.json")):
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            held["chapter"], held["profiles"]
        except (ValueError, KeyError, TypeError) as e:
            raise PageError(f"book/results/{path.name} is not a recorded result ({e!r}): run 'make refs'") from e
        found.append(held)
    return found


def number(value) -> str:
    """A value as a reader wants it: two decimals or three digits, whole numbers in full, words as they are."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int) or float(value).is_integer():
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3g}"


def cell(text) -> str:
    """Text that is safe inside a Markdown table."""
    return re.sub(r"\s+", " ", str(text)).replace("|", "\\|").strip()


@functools.cache
def citation_keys(path: Path) -> frozenset[str]:
    """The keys of a BibTeX file."""
    return frozenset(re.findall(r"^@\w+\{([^,\s]+),", path.read_text(encoding="utf-8"), re.M))


def source(text: str | None, keys: frozenset[str] = frozenset()) -> str:
    """Where a published figure stands, with a citation when the text begins with a key of the bibliography."""
    if not text:
        return ""
    key, _, rest = text.partition(" ")
    bare = key.rstrip(",;:")
    return f"{{cite:t}}`{bare}` {cell(rest)}".strip() if bare in keys else cell(text)


def interval(entry: dict) -> str:
    """``[low, high]``, or nothing for a record without one."""
    return f"[{number(entry['low'])}, {number(entry['high'])}]" if "low" in entry else ""


def row(name: str, entry: dict) -> str:
    """One Markdown table row: what, ours, interval, how many."""
    parts = [f"`{name}`", entry.get("unit") or "", number(entry["value"]), interval(entry), number(entry.get("n", ""))]
    return f"| {' | '.join(cell(p) for p in parts)} |"


def provenance(p: dict) -> str:
    """One sentence that says where a run's numbers came from."""
    seeds = p.get("seeds", [])
    span = (
        f"{len(seeds)} seeds, {min(seeds)} to {max(seeds)}" if len(seeds) > 1 else f"seed {seeds[0]}" if seeds else ""
    )
    versions = ", ".join(f"{k} {v}" for k, v in p.get("versions", {}).items())
    data = ", ".join(f"`{k}` (sha256 `{v[:12]}`)" for k, v in p.get("data", {}).items())
    commit = str(p.get("commit", "unknown"))
    commit = f"`{commit[:12]}`" + (" with uncommitted changes" if commit.endswith("+changes") else "")
    return (
        f"Commit {commit}, {cell(p.get('date', 'date unknown'))}, {span}, device {cell(p.get('device', 'unknown'))}. "
        f"Data: {data}. Versions: {cell(versions)}."
    )


def page_of(name: str, root: Path = ROOT) -> notebooks.Page | None:
    """The page of that name, a draft too, or None when there is none."""
    return next((page for page in notebooks.pages(None, root, drafts=True) if page.stem == name), None)


def link_to(page: notebooks.Page) -> str:
    """The page relative to ``book/``."""
    return f"../{page.where.removesuffix('.ipynb')}"


def title_of(name: str, root: Path = ROOT) -> str:
    """The first heading of a page, or its name."""
    page = page_of(name, root)
    found = re.search(r"^# (.+)$", page.text.read_text(encoding="utf-8"), re.M) if page else None
    return found[1].strip() if found else name.capitalize()


def recorded_pages(folder: Path | None = None, root: Path = ROOT) -> list[tuple[str, dict]]:
    """Name and runs of every page that recorded any and is not a draft, a lesson before its study."""
    held = [(c["chapter"] + end, c.get(key, {})) for c in recorded(folder) for end, key in PAGES.items()]
    return [(name, runs) for name, runs in held if runs and not ((page := page_of(name, root)) and page.draft)]


def results_markdown(folder: Path | None = None, root: Path = ROOT) -> str:
    """The results page as MyST text."""
    bib = root / "book" / "references.bib"
    keys = citation_keys(bib) if bib.exists() else frozenset()
    out = [RESULTS_HEAD]
    for name, held in recorded_pages(folder, root):
        runs = {p: held[p] for p in PROFILES if p in held}
        # Smoke exists to see that cells run; its numbers stand here only when nothing better was recorded.
        runs = {p: r for p, r in runs.items() if p != "smoke"} or runs
        title = title_of(name, root)
        out.append(f"\n## {title}\n")
        if page := page_of(name, root):
            out.append(f"Read how they were made in [the {'study' if page.study else 'lesson'}]({link_to(page)}).\n")
        for profile, run in runs.items():
            records = run["records"]
            published = {n: e for n, e in records.items() if "published" in e}
            out.append(f"\n### {title}, {profile} profile\n\n{provenance(run['provenance'])}\n")
            if published:
                out.append("\n| what | published | here | interval | n | published in |\n|---|---|---|---|---|---|")
                for record, entry in published.items():
                    what = cell(entry.get("unit") or record)
                    parts = [what, cell(number(entry["published"])), cell(number(entry["value"])), interval(entry)]
                    parts += [cell(number(entry.get("n", ""))), source(entry.get("source"), keys)]
                    out.append(f"| {' | '.join(parts)} |")
                out.append("")
            rest = {n: e for n, e in records.items() if n not in published}
            if rest:
                head = "| name in the code | what | value | interval | n |\n|---|---|---|---|---|"
                rows = "\n".join(row(n, e) for n, e in rest.items())
                out.append(f"\n:::{{dropdown}} All other recorded numbers ({len(rest)})\n\n{head}\n{rows}\n:::\n")
    return "\n".join(out) + ("" if len(out) > 1 else NOTHING)


def clock(seconds: float) -> str:
    """Seconds as a reader says them."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def times_markdown(folder: Path | None = None, root: Path = ROOT) -> str:
    """The run times page as MyST text."""
    rows = []
    for name, held in recorded_pages(folder, root):
        page, title = page_of(name, root), cell(title_of(name, root))
        shown = f"[{title}]({link_to(page)})" if page else title
        for profile in reversed(PROFILES):
            p = held.get(profile, {}).get("provenance", {})
            if not p.get("seconds"):
                continue
            memory = f"{p['peak_mib'] / 1024:.1f} GiB" if p.get("peak_mib") else ""
            rows.append(
                f"| {shown} | {profile} | {clock(p['seconds'])} | {memory} "
                f"| {cell(p.get('device', ''))} | {cell(p.get('machine', ''))} | {cell(p.get('date', ''))} |"
            )
    if not rows:
        return TIMES_HEAD + NOTHING
    head = "| page | profile | time | peak memory | device | machine | measured |\n|---|---|---|---|---|---|---|"
    return f"{TIMES_HEAD}\n{head}\n" + "\n".join(rows) + "\n\nThe [three profiles](profiles) differ in size only.\n"


def write(dest: Path, folder: Path | None = None, root: Path = ROOT) -> list[Path]:
    """Write ``results.md`` and ``run-times.md`` into the folder `dest`, leaving files that already say so untouched.

    Returns
    -------
    list of Path
        The two pages.
    """
    made = []
    for name, text in (
        ("results.md", results_markdown(folder, root)),
        ("run-times.md", times_markdown(folder, root)),
    ):
        path = Path(dest) / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        made.append(path)
    return made
