"""Pages that are made and not written: results, run times, the data sets, how to cite, the licences of the data.

:func:`generate` is called when the book is staged, before it is rendered.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from book import data_page, results_page
from book.results_page import ROOT, PageError, cell

CITE = """---
myst:
  html_meta:
    description: "How to cite the book and its package, in words, BibTeX and CFF, and what to cite besides."
---

# How to cite

Cite the book for its text, its figures or its package, and the paper of each method and data set you use: each
chapter names them, and the [bibliography](references.md) lists them.

## In words

> {words}

## BibTeX

```bibtex
{bibtex}
```

## CITATION.cff

The repository carries this file at its root, where GitHub and reference managers find it.

```yaml
{cff}
```

To name a number exactly, add the commit that the [results](results.md) page gives for it.
"""


def citation(root: Path = ROOT) -> str:
    """The page on how to cite, made from ``CITATION.cff`` so that the two cannot differ.

    Raises
    ------
    PageError
        If ``CITATION.cff`` lacks a field that the page shows.
    """
    text = (root / "CITATION.cff").read_text(encoding="utf-8")
    held = yaml.safe_load(text)
    missing = [k for k in ("title", "authors", "version", "date-released", "repository-code") if not held.get(k)]
    if missing:
        raise PageError(f"CITATION.cff lacks {', '.join(missing)}")
    people = [a.get("name") or f"{a['family-names']}, {a['given-names']}" for a in held["authors"]]
    year = str(held["date-released"])[:4]
    url = held["repository-code"]
    words = f"{'; '.join(people)} ({year}). *{held['title']}*, version {held['version']}. <{url}>"
    bibtex = "\n".join(
        [
            f"@misc{{borrowedstrength{year},",
            # Double braces keep BibTeX from taking a group's name apart.
            f"  author       = {{{' and '.join('{' + p + '}' for p in people)}}},",
            f"  title        = {{{{{held['title']}}}}},",
            f"  year         = {{{year}}},",
            f"  version      = {{{held['version']}}},",
            f"  howpublished = {{\\url{{{url}}}}}",
            "}",
        ]
    )
    return CITE.format(words=words, bibtex=bibtex, cff=text.strip())


def data_licences(root: Path = ROOT) -> str:
    """A table of the catalogue's data sets and their terms; one sentence when there is no catalogue yet."""
    path = root / "data" / "catalog.yml"
    held = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else None
    entries = (held or {}).get("datasets", held) if isinstance(held, dict) else None
    if not entries:
        return "No data set is in the catalogue yet.\n"
    rows = ["| name | what | licence | source |", "|---|---|---|---|"]
    for name, entry in entries.items():
        if not isinstance(entry, dict):
            continue
        origin = entry.get("citation") or entry.get("accession") or ""
        rows.append(
            f"| `{name}` | {cell(entry.get('title', ''))} | {cell(entry.get('licence', ''))} | {cell(origin)} |"
        )
    return "\n".join(rows) + "\n"


def generate(dest_src_dir: Path, root: Path = ROOT) -> list[Path]:
    """Write every made page into the staged tree, leaving files that already say so untouched.

    Parameters
    ----------
    dest_src_dir : Path
        Root of the staged tree; pages go to its ``book/``.
    root : Path
        The repository.

    Returns
    -------
    list of Path
        What was made, whether or not it changed.

    Raises
    ------
    PageError
        If a recorded result or ``CITATION.cff`` cannot be shown.
    """
    book = Path(dest_src_dir) / "book"
    made = results_page.write(book, root / "book" / "results", root) + data_page.write(book, root)
    for name, text in (("cite.md", citation(root)), ("data-licences.md", data_licences(root))):
        path = book / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        made.append(path)
    return made
