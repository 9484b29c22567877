"""From executed chapters to pages: lay out one source tree, render it, finish the HTML.

The tree ``_build/src`` mirrors the repository, so a page keeps its name and the links to its notebook. A file there is
rewritten only when its content changed, which is what lets a prose edit render one page and not the book.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from book import notebooks
from book.execute import executed
from book.notebooks import ROOT, BookError, Chapter, code_cells, source, tags

REMOVED = {"parameters", "setup"}
NOT_PAGES = {".py", ".pyc"}


def staged(chapter: Chapter, profile: str, root: Path = ROOT) -> dict:
    """The chapter as the renderer gets it: text from the source as it is now, outputs from the executed copy.

    Raises
    ------
    BookError
        If there is no executed copy, or its code is not the chapter's.
    """
    path = executed(chapter, profile, root)
    if not path.exists():
        raise BookError(f"{chapter.name} has not run at {profile}: 'python3 run.py book --profile {profile}' runs it")
    nb, ran = notebooks.read(chapter), code_cells(notebooks.load(path))
    mine = code_cells(nb)
    if [source(c) for c in mine] != [source(c) for c in ran]:
        raise BookError(f"{chapter.name}: the executed copy at {profile} is not of this code; run it again")
    for cell, done in zip(mine, ran, strict=True):
        # A plain notebook shows the caption below its figure; here the renderer does, from the figure's own metadata.
        hidden = {"provenance", "caption_of"}
        cell["outputs"] = [o for o in done["outputs"] if not hidden & set(o.get("metadata") or {})]
        cell["execution_count"] = done["execution_count"]
        if REMOVED & set(tags(cell)):
            cell["metadata"]["tags"] = [*tags(cell), "remove-cell"]
        if figure := _figure(cell, chapter):
            cell["metadata"]["mystnb"] = figure
    notebooks._identify(chapter.slug, nb["cells"])
    nb["metadata"]["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    nb["metadata"]["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    return nb


def _figure(cell, chapter):
    """What the renderer needs to number and describe the figure a cell shows."""
    figures = [o["metadata"]["figure"] for o in cell["outputs"] if (o.get("metadata") or {}).get("figure")]
    if not figures:
        return None
    if len(figures) > 1:
        names = ", ".join(f["name"] for f in figures)
        raise BookError(f"{chapter.name}: one cell shows the figures {names}; give each a cell, so each gets a number")
    found = figures[0]
    return {"image": {"alt": found["alt"]}, "figure": {"caption": found["caption"], "name": found["name"]}}


def stage(profile: str, only=None, root: Path = ROOT) -> Path:
    """Lay out ``_build/src`` and return it. Files that did not change keep their times; others that lie there go."""
    src = root / "_build" / "src"
    wanted: dict[str, bytes] = {}
    for path in sorted((root / "book").rglob("*")):
        inside = path.relative_to(root)
        if path.is_file() and path.suffix not in NOT_PAGES and "__pycache__" not in inside.parts:
            wanted[inside.as_posix()] = path.read_bytes()
    for chapter in notebooks.chapters(only, root):
        wanted[chapter.where] = notebooks.dump(staged(chapter, profile, root))
        for path in sorted(chapter.folder.rglob("*")):
            if path.suffix.lower() in (".svg", ".png", ".jpg", ".jpeg"):
                wanted[path.relative_to(root).as_posix()] = path.read_bytes()
    for name, content in wanted.items():
        notebooks.write(src / name, content)
    prepare = getattr(_finisher(root), "prepare", None)
    made = prepare(src, profile) if prepare else None
    keep = set(wanted) | {Path(p).relative_to(src).as_posix() for p in made or ()}
    for path in sorted(src.rglob("*"), reverse=True):
        if path.is_file() and path.relative_to(src).as_posix() not in keep:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    return src


def _finisher(root):
    """The pages' own module ``book/html.py`` when it is there: ``finish(html_dir)``, perhaps ``prepare(src, profile)``.

    ``prepare`` may write generated pages into the source tree and returns their paths.
    """
    return importlib.import_module("book.html") if (root / "book" / "html.py").exists() else None


def skeleton(src: Path, root: Path = ROOT) -> str:
    """Hash of what every page shows: configuration, contents, assets, and all first headings.

    When it changes, rendering only the changed pages would leave the others with an old sidebar.
    """
    digest = hashlib.sha256()
    for name in ("_config.yml", "book/_toc.yml", "constraints.txt", "book/references.bib"):
        path = root / name
        digest.update(path.read_bytes() if path.exists() else b"-")
    for path in sorted((root / "book" / "assets").rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    for path in sorted(src.rglob("*")):
        if path.suffix == ".ipynb":
            cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
            text = "\n".join(source(c) for c in cells if c["cell_type"] == "markdown")
        elif path.suffix == ".md":
            text = path.read_text(encoding="utf-8")
        else:
            continue
        title = re.search(r"^# .+$", text, re.M)
        digest.update(f"{path.name}{title[0] if title else ''}".encode())
    return digest.hexdigest()


def render(root: Path = ROOT, builder: str = "html") -> int:
    """Render ``_build/src`` with warnings as errors and finish the pages; returns the exit status."""
    src, stamp = root / "_build" / "src", root / "_build" / "rendered"
    now = skeleton(src, root)
    whole = not stamp.exists() or stamp.read_text() != now
    # A page that warned would not be read again, so its warning would be forgotten: start over after a failure.
    stamp.unlink(missing_ok=True)
    if whole:
        shutil.rmtree(root / "_build" / ".doctrees", ignore_errors=True)
        shutil.rmtree(root / "_build" / "html", ignore_errors=True)
    words = ["build", str(src), "--config", str(root / "_config.yml"), "--toc", str(root / "book" / "_toc.yml")]
    words += ["--path-output", str(root), "--builder", builder, "-W", "--keep-going", "--quiet"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))}
    # 'python -m jupyter_book.cli.main' does nothing and succeeds, so its main() is called by name.
    # The renderer keeps what it reads, so looking for garbage as often as Python does costs time and finds nothing.
    code = "import gc; gc.set_threshold(100_000, 50, 100); from jupyter_book.cli.main import main; main()"
    call = [sys.executable, "-c", code, *words]
    status = subprocess.call(call, cwd=root, env=env)
    if status:
        return status
    finish = getattr(_finisher(root), "finish", None)
    if finish and builder == "html":
        finish(root / "_build" / "html")
    stamp.write_text(now)
    return 0
