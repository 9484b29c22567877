"""The reader's own notebooks: copies of the chapters in ``work/``, which nothing here overwrites once they changed.

``work/`` mirrors ``chapters/`` and is no part of the repository. ``work/.made.json`` holds the hash of every copy as it
was made: a copy that still has it is renewed with its chapter, one that has not is the reader's, and the chapter's new
version is put beside it.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

from book import notebooks
from book.notebooks import CHECKED, ROOT, Page, code_cells, source, tags

NOTES = "_build/notebooks.json"


def folder(root: Path = ROOT) -> Path:
    return root / "work"


def copies(only=None, root: Path = ROOT) -> list[str]:
    """Copy the chapters' notebooks into ``work/``; returns what the reader should know, one line a chapter."""
    said, made = [], _hashes(folder(root) / ".made.json")
    for page in notebooks.pages(only, root):
        content = notebooks.synced(page, root)
        path = _place(page, content, made, root)
        first = _path(page, "", root)
        if path is None:
            continue
        name = path.relative_to(root).as_posix()
        if path == first:
            said.append(f"{name}  copied from {page.where}")
        else:
            said.append(f"{first.relative_to(root).as_posix()}  is yours and stays; the chapter changed, see {name}")
    notebooks.write(folder(root) / ".made.json", json.dumps(made, indent=1, sort_keys=True).encode())
    return said


def _path(page: Page, more: str, root: Path) -> Path:
    return folder(root) / page.folder.name / f"{page.stem}{more}.ipynb"


def _names(word: str):
    """``.new``, ``.new-2``, ``.new-3``: endings until one is free."""
    n = 1
    while True:
        yield f".{word}" if n == 1 else f".{word}-{n}"
        n += 1


def _hashes(path: Path) -> dict[str, str]:
    """The hash of each file as it was made, by name; empty where the notes are not there or cannot be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _place(page, content, made, root) -> Path | None:
    """Write a chapter's copy where no work of the reader's lies; None when this version was handed out before."""
    new = _names("new")
    more = ""
    while True:
        path = _path(page, more, root)
        name = path.relative_to(folder(root)).as_posix()
        if not path.exists():
            break
        if made.get(name) == _hash(content) or path.read_bytes() == content:
            made[name] = _hash(content)
            return None
        if made.get(name) == _hash(path.read_bytes()):
            break
        more = next(new)
    notebooks.write(path, content)
    made[name] = _hash(content)
    return path


def changed_by_hand(page: Page, root: Path = ROOT) -> bool:
    """True when the notebook in ``chapters/`` is not what a sync made, of this text or of any other.

    A sync names each cell after its content, stores outputs in checked cells alone, and writes no version of Python.
    A cell that was edited or added, an output of a run, and a save by Jupyter all break one of these. Anything else,
    such as a cell that an editor removed, is seen where a sync of this checkout noted what it wrote (:func:`note`) and
    the file is neither that nor the committed one.
    """
    content = page.notebook.read_bytes()
    noted = _hashes(root / NOTES).get(page.where)
    if noted == _hash(content):
        return False
    if noted and _committed(page, root) not in (None, content):
        return True
    return _by_its_form(page)


def _by_its_form(page):
    nb = notebooks.load(page.notebook)
    if nb.get("metadata", {}).get("language_info") != {"name": "python"}:
        return True
    again = [{"cell_type": c["cell_type"], "source": source(c)} for c in nb["cells"]]
    notebooks.identify(page.stem, again)
    if [c.get("id") for c in nb["cells"]] != [c["id"] for c in again]:
        return True
    return any(
        (c.get("outputs") and CHECKED not in tags(c)) or c.get("execution_count") != (1 if c.get("outputs") else None)
        for c in code_cells(nb)
    )


def set_aside(page: Page, root: Path = ROOT) -> Path | None:
    """Move a notebook that somebody changed in ``chapters/`` to ``work/``, and put the committed one in its place.

    Returns
    -------
    Path or None
        Where it lies now; None when a sync made what is there. A file that is no notebook at all stays where it is.
    """
    if not page.notebook.exists() or not changed_by_hand(page, root):
        return None
    mine = page.notebook.read_bytes()
    for more in _names("yours"):
        path = _path(page, more, root)
        if not path.exists() or path.read_bytes() == mine:
            break
    notebooks.write(path, mine)
    # Its outputs may be those of another profile, so the stored ones come from the last commit, or from 'make refs'.
    page.notebook.unlink()
    if committed := _committed(page, root):
        notebooks.write(page.notebook, committed)
        if _by_its_form(page):
            page.notebook.unlink()
    return path


def note(page: Page, root: Path = ROOT) -> None:
    """Remember what was written as the page's notebook, to know it from what somebody makes of it."""
    known, now = _hashes(root / NOTES), _hash(page.notebook.read_bytes())
    if known.get(page.where) != now:
        notebooks.write(root / NOTES, json.dumps(known | {page.where: now}, indent=1, sort_keys=True).encode())


def _committed(page: Page, root) -> bytes | None:
    """The notebook as it was last committed; None where there is no git, no commit, or no such file in it."""
    words = ["git", "-C", str(root), "show", f"HEAD:./{page.where}"]
    try:
        return subprocess.run(words, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
