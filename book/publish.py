"""From executed notebooks to pages: lay out one source tree, render it, finish the HTML.

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
from book.notebooks import ROOT, BookError, Page, code_cells, source, tags
from book.plain import PlainError, glued

REMOVED = {"parameters", "setup"}
NOT_PAGES = {".py", ".pyc"}
NOT_STAGED = {"__pycache__", "templates"}


def staged(page: Page, profile: str, root: Path = ROOT) -> dict:
    """The page as the renderer gets it: text from the source as it is now, outputs from the executed copy.

    Raises
    ------
    BookError
        If there is no executed copy, its code is not the page's, or the text quotes what was never recorded.
    """
    at = page.shown_at(profile)
    path = executed(page, at, root)
    if not path.exists():
        raise BookError(f"{page.name} has not run at {at}: 'python3 run.py book --profile {profile}' runs it")
    nb, ran = notebooks.read(page), code_cells(notebooks.load(path))
    mine = code_cells(nb)
    if [source(c) for c in mine] != [source(c) for c in ran]:
        raise BookError(f"{page.name}: the executed copy at {at} is not of this code; run it again")
    for cell, done in zip(mine, ran, strict=True):
        # A plain notebook shows the caption below its figure; here the renderer does, from the figure's own metadata.
        hidden = {"provenance", "caption_of"}
        cell["outputs"] = [o for o in done["outputs"] if not hidden & set(o.get("metadata") or {})]
        cell["execution_count"] = done["execution_count"]
        if REMOVED & set(tags(cell)):
            cell["metadata"]["tags"] = [*tags(cell), "remove-cell"]
        if figure := _figure(cell, page):
            cell["metadata"]["mystnb"] = figure
    _quote(nb, page, root)
    _lead(nb, page)
    notebooks.identify(page.stem, nb["cells"])
    nb["metadata"]["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    nb["metadata"]["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    return nb


def _quote(nb, page, root):
    """Fill in the numbers that the page's own run did not leave in it: a study's, and those of the other page."""
    outputs = (o.get("metadata") or {} for c in code_cells(nb) for o in c["outputs"])
    own = {meta["scrapbook"]["name"] for meta in outputs if "scrapbook" in meta}
    known = notebooks.context(page, root)

    def fill(found):
        name = found[1].partition(":")[0]
        if name in own:
            return found[0]
        if known.record(name) is None:
            raise BookError(f"{page.text.name} quotes {name}, which was never recorded")
        try:
            return glued(found[1], known)
        except PlainError as e:
            raise BookError(f"{page.text.name}: {e}") from e

    for cell in nb["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = re.sub(r"\{glue:text\}`(\w+(?::[^`]*)?)`", fill, source(cell))


def _lead(nb, page):
    """Put the line that leads to the chapter's other page below the title."""
    line = notebooks.partner(page, f"{page.other.stem}.ipynb") if page.other else None
    for cell in nb["cells"] if line else ():
        if cell["cell_type"] == "markdown" and (title := re.search(r"^# .+$", cell["source"], re.M)):
            cell["source"] = f"{cell['source'][: title.end()]}\n\n*{line}*{cell['source'][title.end() :]}"
            return


def _figure(cell, page):
    """What the renderer needs to number and describe the figure a cell shows."""
    figures = [o["metadata"]["figure"] for o in cell["outputs"] if (o.get("metadata") or {}).get("figure")]
    if not figures:
        return None
    if len(figures) > 1:
        names = ", ".join(f["name"] for f in figures)
        raise BookError(f"{page.name}: one cell shows the figures {names}; give each a cell, so each gets a number")
    found = figures[0]
    return {"image": {"alt": found["alt"]}, "figure": {"caption": found["caption"], "name": found["name"]}}


def stage(profile: str, only=None, root: Path = ROOT) -> Path:
    """Lay out ``_build/src`` and return it. Files that did not change keep their times; others that lie there go."""
    src = root / "_build" / "src"
    wanted: dict[str, bytes] = {}
    for path in sorted((root / "book").rglob("*")):
        inside = path.relative_to(root)
        if path.is_file() and path.suffix not in NOT_PAGES and not NOT_STAGED & {*inside.parts}:
            wanted[inside.as_posix()] = path.read_bytes()
    for page in notebooks.pages(only, root):
        wanted[page.where] = notebooks.dump(staged(page, profile, root))
        for path in sorted(page.folder.rglob("*")):
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
