"""Chapters as files: find them, read their pages, and make the notebook that a reader opens from each.

``chapters/NN-slug/`` holds two pages. The lesson, ``slug.md``, teaches; it runs anew when the book is built. The study,
``slug-study.md``, is the evidence; it fits nothing when the book is built, but shows what was recorded in
``book/results/slug.json``, where both pages' runs stand. Its experiments are functions of ``shared.studies``, tested
at tiny size in ``tests/studies``, and it calls them under ``if book.reruns:``. That is true when a profile is asked
for: by ``make refs`` and ``make full``, which record the run, or by a reader, at home or in Colab, who sets ``profile``
in the first cell. So the code that made a number stands beside it, in one notebook, with no switch but the profile.

The text of a page is the one source. The ``.ipynb`` beside it is generated, byte for byte the same from the same text
and the same recorded results; it keeps the stored outputs of the cells tagged ``nbval-check-output``, which are the
only outputs in the repository. A page whose front matter says ``draft: true`` is held to the rules as far as it has
got; it is not run, rendered or listed in the contents unless it is named.
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

from book import exercises
from book.plain import Context, PlainError, plain, survey
from shared.results import RECORDED, STUDY, recorded, runs

ROOT = Path(__file__).resolve().parent.parent
CHECKED = "nbval-check-output"
HIDDEN = {"solution", "hide-input"}
INJECTED = {"injected-parameters", exercises.TRIAL}


class BookError(Exception):
    """Something in the book's sources stops the build; the message names the file and the cure."""


@dataclass(frozen=True)
class Page:
    """One page of a chapter: its lesson, or its study. `text` and `notebook` are the pair."""

    folder: Path
    study: bool = False

    @property
    def slug(self) -> str:
        """The chapter's one name, which runs through the book."""
        return self.folder.name.partition("-")[2]

    @property
    def stem(self) -> str:
        """The page's name: that of its files and of its recorded runs."""
        return self.slug + STUDY * self.study

    @property
    def name(self) -> str:
        """The page's name with the chapter's number."""
        return self.folder.name + STUDY * self.study

    @property
    def text(self) -> Path:
        return self.folder / f"{self.stem}.md"

    @property
    def notebook(self) -> Path:
        return self.folder / f"{self.stem}.ipynb"

    @property
    def where(self) -> str:
        """Path of the notebook in the repository, with forward slashes."""
        return f"chapters/{self.folder.name}/{self.stem}.ipynb"

    @property
    def other(self) -> Page | None:
        """The chapter's other page, if it has one."""
        other = Page(self.folder, not self.study)
        return other if other.text.exists() else None

    @property
    def draft(self) -> bool:
        """Whether the page, or the lesson that it belongs to, is not finished."""
        return any(front_matter(page).get("draft") for page in {self, Page(self.folder)})

    def shown_at(self, profile: str) -> str:
        """The profile that the book shows the page at when it is built at `profile`: a study fits nothing then."""
        return RECORDED if self.study else profile

    @classmethod
    def of(cls, text: Path) -> Page:
        """The page with this text."""
        return cls(text.parent, text.stem.endswith(STUDY))


def pages(only: Sequence[str] | None = None, root: Path | None = None, drafts: bool = False) -> list[Page]:
    """Every page in reading order, a lesson before its study.

    Parameters
    ----------
    only : sequence of str, optional
        Chapters by slug, number or folder name, or single pages (``"tmp-lesson"``, ``"tmp-study"``); drafts too, when
        named.
    root : Path, optional
        The repository.
    drafts : bool
        With the drafts.

    Raises
    ------
    BookError
        If a folder ``NN-slug`` lacks its ``slug.md`` or its slug ends as a study's, or `only` names what is not there.
    """
    found = []
    for folder in sorted((root or ROOT).glob("chapters/[0-9][0-9]-*")):
        if not folder.is_dir():
            continue
        lesson = Page(folder)
        if lesson.slug.endswith(STUDY):
            raise BookError(f"chapters/{folder.name} has the name of a study: a slug does not end in {STUDY!r}")
        if not lesson.text.exists():
            raise BookError(f"chapters/{folder.name} has no {lesson.slug}.md: the text carries the folder's name")
        found += filter(None, (lesson, lesson.other))
    if not only:
        return [p for p in found if drafts or not p.draft]

    def names(page):
        number = page.folder.name[:2]
        alone = page.stem if page.study else f"{page.slug}-lesson"
        return {page.slug, alone, page.folder.name, page.name, number, number.lstrip("0")}

    for word in only:
        if not any(word in names(page) for page in found):
            there = ", ".join(p.slug for p in found if not p.study) or "none yet"
            raise BookError(f"no chapter is called {word!r}: there are {there}")
    # With its chapter a study that is still a draft is named only where the lesson is one too.
    return [p for p in found if names(p) & set(only) and (not p.study or not p.draft or _asked(p, only))]


def _asked(page, only):
    return page.other.draft or bool({page.stem, page.name} & set(only))


def chapters(only: Sequence[str] | None = None, root: Path | None = None, drafts: bool = False) -> list[Page]:
    """The lessons among the :func:`pages`: one for each chapter."""
    return [p for p in pages(only, root, drafts) if not p.study]


def read(page: Page) -> dict:
    """The page's text as a notebook (:func:`parse`), with its exercises as a reader meets them."""
    nb = parse(page.text.read_text(encoding="utf-8"), page.text.name)
    return nb | {"cells": _exercises(exercises.expand, nb, page)}


def tasks(page: Page) -> list[exercises.Task]:
    """The page's exercises, with what a reader does not see."""
    return _exercises(exercises.tasks, parse(page.text.read_text(encoding="utf-8"), page.text.name), page)


def _exercises(made, nb, page):
    try:
        return made(nb["cells"])
    except exercises.ExerciseError as e:
        raise BookError(f"{page.text.name}: {e}") from e


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
    """The code cells a reader meets; cells that the runner injected are left out."""
    return [c for c in nb["cells"] if c["cell_type"] == "code" and not INJECTED & set(tags(c))]


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


def results(page: str, root: Path = ROOT) -> dict:
    """The recorded runs of a page by profile; empty when none were recorded."""
    return runs(page, root / "book" / "results")


def quotable(slug: str, root: Path = ROOT) -> dict:
    """What either page of a chapter may quote: name to entry; see :func:`shared.results.recorded`."""
    return recorded(slug, root / "book" / "results")


def glued_values(records: dict) -> dict:
    """Name to value as ``{glue:text}`` sees them: an interval also gives ``name_low`` and ``name_high``."""
    values = {}
    for name, entry in records.items():
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


def context(page: Page, root: Path = ROOT) -> Context:
    """What the plain text of this page is filled from: recorded values, the bibliography, addresses."""
    place = addresses(root)
    return Context(
        record=glued_values(quotable(page.slug, root)).get,
        cite=lambda key: _cite(key, root),
        here=f"chapters/{page.folder.name}",
        site=place["site"],
        raw=place["raw"],
    )


def make(page: Page, root: Path = ROOT) -> dict:
    """Make the notebook of a page from its text, without outputs.

    Returns
    -------
    dict
        A notebook in format 4.5 with deterministic cell identifiers, a first cell with the links to a hosted copy, to
        the rendered page and to the chapter's other page, and, when the front matter says ``gpu: true``, the request
        for an accelerator.

    Raises
    ------
    BookError
        If the text holds markup that has no plain form; the message names the file and the markup.
    """
    nb = read(page)
    front = nb["metadata"]["book"]
    filled = context(page, root)
    for cell in nb["cells"]:
        if cell["cell_type"] == "markdown":
            survey(cell["source"], filled)
    cells = [_badge(page, addresses(root))]
    for cell in nb["cells"]:
        if cell["cell_type"] == "markdown":
            try:
                text = plain(cell["source"], filled)
            except PlainError as e:
                raise BookError(f"{page.text.name}: {e}") from e
            if text:
                cells.append({"cell_type": "markdown", "metadata": {}, "source": text})
        elif cell["cell_type"] == "code":
            meta = {"tags": tags(cell)} if tags(cell) else {}
            if HIDDEN & set(tags(cell)):
                meta |= {"cellView": "form", "jupyter": {"source_hidden": True}}
            cells.append({**cell, "metadata": meta})
    identify(page.stem, cells)
    metadata: dict = {"accelerator": "GPU"} if front.get("gpu") else {}
    metadata["book"] = {"slug": page.stem, "source": page.text.name}
    metadata["colab"] = {"provenance": [], "toc_visible": True} | ({"gpuType": "T4"} if front.get("gpu") else {})
    metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata["language_info"] = {"name": "python"}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def partner(page: Page, address: str) -> str | None:
    """The line that leads to the chapter's other page, at `address`; None where there is none."""
    if page.other is None or page.other.draft:
        return None
    if page.study:
        return f"This is the evidence; the method is taught in [the lesson]({address})."
    return f"This is the lesson; the evidence is in [the study]({address})."


def _badge(page, place):
    def shown(one):
        return f"{place['site']}/{one.where.removesuffix('.ipynb')}.html"

    image = "https://colab.research.google.com/assets/colab-badge.svg"
    colab = f"[![Open in Colab]({image})]({place['colab']}/{page.where})"
    said = f"This notebook is made from `{page.text.name}`; read it with its figures [in the book]({shown(page)})."
    led = partner(page, shown(page.other)) if page.other else None
    return {"cell_type": "markdown", "metadata": {}, "source": "\n\n".join(filter(None, [colab, said, led]))}


def identify(stem, cells):
    """Give each cell an identifier from its own content, so that an edit changes that cell's and no other's."""
    seen: dict[str, int] = {}
    for cell in cells:
        digest = hashlib.sha256(f"{stem}\0{cell['cell_type']}\0{cell['source']}".encode()).hexdigest()[:12]
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
        raise BookError(f"{path} is not a notebook ({e}): move it away and run 'python3 run.py refs'") from e


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


def synced(page: Page, root: Path = ROOT) -> bytes:
    """The bytes the page's notebook should have now: made from the text, stored outputs kept."""
    nb = make(page, root)
    if page.notebook.exists():
        keep_outputs(nb, load(page.notebook))
    return dump(nb)


def front_matter(page: Page) -> dict:
    """The ``book:`` part of the page's front matter, without parsing the rest."""
    text = page.text.read_text(encoding="utf-8")
    head = re.match(r"^---\n(.*?)\n---\n", text, re.S)
    try:
        found = yaml.safe_load(head[1]) if head else {}
    except yaml.YAMLError as e:
        raise BookError(f"{page.text.name}: the front matter is not YAML: {e}") from e
    return (found or {}).get("book") or {}


def contents(root: Path = ROOT) -> str:
    """The table of contents with the chapters that there are: each lesson, and under it its study."""
    path = root / "book" / "_toc.yml"
    text = path.read_text(encoding="utf-8")
    found = re.search(r"^( *)- caption: Chapters\n *chapters:\n((?:\1 .*\n)*)", text, re.M)
    if not found:
        raise BookError("book/_toc.yml has no part with the caption Chapters")
    lines = []
    for page in pages(None, root):
        deeper = [f"{found[1]}      sections:"] if page.study else []
        lines += [*deeper, f"{found[1]}{' ' * (8 if page.study else 4)}- file: {page.where.removesuffix('.ipynb')}"]
    return text[: found.start(2)] + "".join(f"{line}\n" for line in lines) + text[found.end(2) :]
