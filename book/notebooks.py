"""Chapters as files: find them, read the text, and make the notebook that a reader opens from it.

``chapters/NN-slug/slug.md`` is the one source. ``slug.ipynb`` beside it is generated, byte for byte the same from the
same text and the same recorded results; it keeps the stored outputs of the cells tagged ``nbval-check-output``, which
are the only outputs in the repository.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from book.plain import Context, PlainError, plain, survey

ROOT = Path(__file__).resolve().parent.parent
CHECKED = "nbval-check-output"
HIDDEN = {"solution", "hide-input"}


class BookError(Exception):
    """Something in the book's sources stops the build; the message names the file and the cure."""


@dataclass(frozen=True)
class Chapter:
    """One chapter's folder. `text` and `notebook` are the pair; `slug` is the name that runs through the book."""

    folder: Path

    @property
    def slug(self) -> str:
        return self.folder.name.partition("-")[2]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def text(self) -> Path:
        return self.folder / f"{self.slug}.md"

    @property
    def notebook(self) -> Path:
        return self.folder / f"{self.slug}.ipynb"

    @property
    def where(self) -> str:
        """Path of the notebook in the repository, with forward slashes."""
        return f"chapters/{self.name}/{self.slug}.ipynb"


def chapters(only: list[str] | None = None, root: Path | None = None) -> list[Chapter]:
    """Every chapter in reading order, or those named in `only` by slug, number or folder name.

    Raises
    ------
    BookError
        If a folder ``NN-slug`` lacks its ``slug.md``, or `only` names a chapter that does not exist.
    """
    found = []
    for folder in sorted((root or ROOT).glob("chapters/[0-9][0-9]-*")):
        chapter = Chapter(folder)
        if not folder.is_dir():
            continue
        if not chapter.text.exists():
            raise BookError(f"chapters/{folder.name} has no {chapter.slug}.md: the text carries the folder's name")
        found.append(chapter)
    if not only:
        return found
    chosen = [c for c in found if {c.slug, c.name, c.name[:2], c.name[:2].lstrip("0")} & set(only)]
    for word in only:
        if not any(word in (c.slug, c.name, c.name[:2], c.name[:2].lstrip("0")) for c in chosen):
            raise BookError(
                f"no chapter is called {word!r}: there are {', '.join(c.slug for c in found) or 'none yet'}"
            )
    return chosen


def read(chapter: Chapter) -> dict:
    """The chapter's text as a notebook; see :func:`parse`."""
    return parse(chapter.text.read_text(encoding="utf-8"), chapter.text.name)


def parse(text: str, name: str = "text") -> dict:
    """MyST text as a notebook: Markdown cells as written, code cells with their tags, front matter as metadata.

    Raises
    ------
    BookError
        If the front matter or a cell's options cannot be read; the message begins with `name`.
    """
    import jupytext

    try:
        nb = jupytext.reads(text, fmt="md:myst")
    except Exception as e:
        raise BookError(f"{name}: {e}") from e
    cells = []
    for cell in nb.cells:
        made = {"cell_type": cell.cell_type, "metadata": dict(cell.metadata), "source": cell.source}
        if cell.cell_type == "code":
            made |= {"execution_count": None, "outputs": []}
        cells.append(made)
    book = nb.metadata.get("book", {})
    if not isinstance(book, dict):
        raise BookError(f"{name}: the front matter's 'book:' holds no keys")
    return {"cells": cells, "metadata": {"book": dict(book)}, "nbformat": 4, "nbformat_minor": 5}


def code_cells(nb: dict) -> list[dict]:
    """The code cells a chapter's author wrote; a cell that the runner injected is left out."""
    return [c for c in nb["cells"] if c["cell_type"] == "code" and "injected-parameters" not in tags(c)]


def tags(cell: dict) -> list[str]:
    return list(cell["metadata"].get("tags", []))


def source(cell: dict) -> str:
    return cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])


@functools.cache
def addresses(root: Path = ROOT) -> dict[str, str]:
    """Where the repository and the rendered book are published, read from ``pyproject.toml`` alone.

    Returns
    -------
    dict
        ``repository``, ``colab`` and ``raw`` (to be followed by ``/`` and a path), ``site``.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    home = project["urls"]["Homepage"].rstrip("/")
    found = re.fullmatch(r"https://github\.com/([\w.-]+)/([\w.-]+)", home)
    if not found:
        raise BookError(f"pyproject.toml: the Homepage {home!r} is not a GitHub repository")
    owner, name = found.groups()
    return {
        "repository": home,
        "colab": f"https://colab.research.google.com/github/{owner}/{name}/blob/main",
        "raw": f"https://raw.githubusercontent.com/{owner}/{name}/main",
        "site": f"https://{owner.lower()}.github.io/{name}",
    }


def setup_cell(extras: Sequence[str] = (), root: Path = ROOT) -> str:
    """The first thing every chapter runs: nothing at home; on Colab, install the package and change nothing shipped.

    What the runtime shipped with goes into a constraints file, so pip may add packages and may not move one. `extras`
    are those of ``pyproject.toml`` that the chapter's front matter names and the hosted runtime lacks.
    """
    name = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"]
    wanted = f"[{','.join(extras)}]" if extras else ""
    return "\n".join(
        [
            "import sys",
            "",
            'if "google.colab" in sys.modules:',
            "    %pip list --format=freeze > shipped.txt",
            f'    %pip install -q -c shipped.txt "{name}{wanted} @ git+{addresses(root)["repository"]}"',
        ]
    )


def results(slug: str, root: Path = ROOT) -> dict:
    """The recorded runs of a chapter by profile; empty when none were recorded."""
    path = root / "book" / "results" / f"{slug}.json"
    return json.loads(path.read_text(encoding="utf-8"))["profiles"] if path.exists() else {}


def glued_values(run: dict) -> dict:
    """Name to value as ``{glue:text}`` sees them: an interval also gives ``name_low`` and ``name_high``."""
    values = {}
    for name, entry in run.get("records", {}).items():
        values[name] = entry["value"]
        values |= {f"{name}_{end}": entry[end] for end in ("low", "high") if end in entry}
    return values


@functools.cache
def _bibliography(path: Path, stamp: float):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pybtex.database import parse_file

        return parse_file(str(path), bib_format="bibtex").entries


def _cite(key: str, root: Path) -> tuple[str, str, str]:
    path = root / "book" / "references.bib"
    entries = _bibliography(path, path.stat().st_mtime) if path.exists() else {}
    if key not in entries:
        raise PlainError(f"the citation key {key!r} is not in book/references.bib")
    entry = entries[key]
    people = entry.persons.get("author") or entry.persons.get("editor") or []
    names = [" ".join(p.prelast_names + p.last_names).replace("{", "").replace("}", "") for p in people]
    authors = " and ".join(names) if len(names) < 3 else f"{names[0]} et al."
    url = f"https://doi.org/{entry.fields['doi']}" if "doi" in entry.fields else entry.fields.get("url", "")
    return authors or entry.fields.get("title", key), entry.fields.get("year", "n.d."), url


def context(chapter: Chapter, root: Path = ROOT) -> Context:
    """What the plain text of this chapter is filled from: recorded lesson values, the bibliography, addresses."""
    values = glued_values(results(chapter.slug, root).get("lesson", {}))
    place = addresses(root)
    return Context(
        record=values.get,
        cite=lambda key: _cite(key, root),
        here=f"chapters/{chapter.name}",
        site=place["site"],
        raw=place["raw"],
    )


def make(chapter: Chapter, root: Path = ROOT) -> dict:
    """Make the notebook of a chapter from its text, without outputs.

    Returns
    -------
    dict
        A notebook in format 4.5 with deterministic cell identifiers, a first cell with the links to a hosted copy and
        to the rendered page, and, when the front matter says ``gpu: true``, the request for an accelerator.

    Raises
    ------
    BookError
        If the text holds markup that has no plain form; the message names the file and the markup.
    """
    nb = read(chapter)
    front = nb["metadata"]["book"]
    filled = context(chapter, root)
    for cell in nb["cells"]:
        if cell["cell_type"] == "markdown":
            survey(cell["source"], filled)
    cells = [_badge(chapter, addresses(root))]
    for cell in nb["cells"]:
        if cell["cell_type"] == "markdown":
            try:
                text = plain(cell["source"], filled)
            except PlainError as e:
                raise BookError(f"{chapter.text.name}: {e}") from e
            if text:
                cells.append({"cell_type": "markdown", "metadata": {}, "source": text})
        elif cell["cell_type"] == "code":
            meta = {"tags": tags(cell)} if tags(cell) else {}
            if HIDDEN & set(tags(cell)):
                meta |= {"cellView": "form", "jupyter": {"source_hidden": True}}
            cells.append({**cell, "metadata": meta})
    identify(chapter.slug, cells)
    metadata: dict = {"accelerator": "GPU"} if front.get("gpu") else {}
    metadata["book"] = {"slug": chapter.slug, "source": chapter.text.name}
    metadata["colab"] = {"provenance": [], "toc_visible": True} | ({"gpuType": "T4"} if front.get("gpu") else {})
    metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata["language_info"] = {"name": "python"}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def _badge(chapter, place):
    here = chapter.where
    image = "https://colab.research.google.com/assets/colab-badge.svg"
    colab = f"[![Open in Colab]({image})]({place['colab']}/{here})"
    page = f"{place['site']}/{here.removesuffix('.ipynb')}.html"
    said = f"This notebook is made from `{chapter.text.name}`; read it with its figures [in the book]({page})."
    return {"cell_type": "markdown", "metadata": {}, "source": f"{colab}\n\n{said}"}


def identify(slug, cells):
    """Give each cell an identifier from its own content, so that an edit changes that cell's and no other's."""
    seen: dict[str, int] = {}
    for cell in cells:
        digest = hashlib.sha256(f"{slug}\0{cell['cell_type']}\0{cell['source']}".encode()).hexdigest()[:12]
        seen[digest] = seen.get(digest, 0) + 1
        cell["id"] = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"


def dump(nb: dict) -> bytes:
    """The one way a notebook is written: sorted keys, one space of indentation, text as lines, a final newline."""
    cells = []
    for cell in nb["cells"]:
        cells.append({**cell, "source": source(cell).splitlines(keepends=True)})
    text = json.dumps({**nb, "cells": cells}, indent=1, ensure_ascii=False, sort_keys=True)
    return (text + "\n").encode()


def load(path: Path) -> dict:
    """Read a notebook file.

    Raises
    ------
    BookError
        If it is not valid JSON, for example after a merge left its marks.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as e:
        raise BookError(f"{path} is not a notebook ({e}): delete it and run 'python3 run.py refs'") from e


def write(path: Path, content: bytes) -> bool:
    """Write `content` at once or not at all; a file that already holds it is not touched. True when it changed."""
    path = Path(path)
    if path.exists() and path.read_bytes() == content:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)
    return True


def keep_outputs(nb: dict, stored: dict) -> dict:
    """Carry the outputs of the checked cells of `stored` over to `nb`, where the code of the cell is still the same."""
    held = {source(c): c for c in code_cells(stored) if CHECKED in tags(c) and c.get("outputs")}
    for cell in code_cells(nb):
        if CHECKED in tags(cell) and source(cell) in held:
            store_outputs(cell, held[source(cell)]["outputs"])
    return nb


def store_outputs(cell: dict, outputs: list[dict]) -> None:
    """Put outputs in a cell with every run-dependent count set to 1, as a stored reference."""
    cell["outputs"] = [{**o, "execution_count": 1} if "execution_count" in o else dict(o) for o in outputs]
    cell["execution_count"] = 1 if outputs else None


def synced(chapter: Chapter, root: Path = ROOT) -> bytes:
    """The bytes the chapter's notebook should have now: made from the text, stored outputs kept."""
    nb = make(chapter, root)
    if chapter.notebook.exists():
        keep_outputs(nb, load(chapter.notebook))
    return dump(nb)


def front_matter(chapter: Chapter) -> dict:
    """The ``book:`` part of the chapter's front matter, without parsing the rest."""
    text = chapter.text.read_text(encoding="utf-8")
    head = re.match(r"^---\n(.*?)\n---\n", text, re.S)
    try:
        found = yaml.safe_load(head[1]) if head else {}
    except yaml.YAMLError as e:
        raise BookError(f"{chapter.text.name}: the front matter is not YAML: {e}") from e
    return (found or {}).get("book") or {}
