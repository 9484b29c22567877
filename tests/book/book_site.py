"""One rendered book for all tests of this folder.

It is built at the smoke profile from a copy of the sources, so that nobody's own ``_build/html`` is touched; chapters
that already ran at smoke are not run again. Workers running side by side share it: the first builds, the others wait.
``BORROWED_SITE=path/to/html`` checks a book that was built before instead.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 1800


class Pages(Mapping):
    """Rendered pages by their place in the book, each parsed once, when somebody asks for it."""

    def __init__(self, html: Path):
        files = [p.relative_to(html) for p in sorted(html.rglob("*.html"))]
        self.html, self.names = html, [p.as_posix() for p in files if "_static" not in p.parts]
        self.parsed: dict[str, BeautifulSoup] = {}

    def __getitem__(self, name):
        if name not in self.parsed:
            if name not in self.names:
                raise KeyError(name)
            self.parsed[name] = BeautifulSoup((self.html / name).read_text(encoding="utf-8"), "html.parser")
        return self.parsed[name]

    def __iter__(self):
        return iter(self.names)

    def __len__(self):
        return len(self.names)


@dataclass(frozen=True)
class Site:
    """A rendered book: where it lies, and its pages."""

    html: Path
    log: str = ""

    @functools.cached_property
    def pages(self) -> Pages:
        return Pages(self.html)

    @functools.cached_property
    def written(self) -> list[str]:
        """The pages that somebody wrote: those of the table of contents."""
        return [name for name in contents() if name in self.pages]


def contents() -> list[str]:
    """Every page the table of contents lists, as ``path.html``."""

    def walk(nodes):
        for node in nodes:
            yield node["file"] + ".html"
            yield from walk(node.get("sections", []))

    toc = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text(encoding="utf-8"))
    return [toc["root"] + ".html", *(name for part in toc["parts"] for name in walk(part["chapters"]))]


def build(root: Path) -> None:
    """Lay out a copy of the repository under `root` and build the book there; what was said goes to ``build.log``."""
    from book import execute, publish

    said = io.StringIO()
    root.mkdir(parents=True)
    shutil.copytree(ROOT / "book", root / "book", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "chapters", root / "chapters", ignore=shutil.ignore_patterns("__pycache__", ".*"))
    # The listings of the package's source are two pages of three, and nobody wrote them: they are made every night.
    config = (ROOT / "_config.yml").read_text(encoding="utf-8")
    listings = "sphinx.ext.viewcode, "
    assert listings in config
    config = config if os.environ.get("BORROWED_LISTINGS") else config.replace(listings, "")
    (root / "_config.yml").write_text(config, encoding="utf-8")
    for name in ("shared", "data", "pyproject.toml", "constraints.txt", "CITATION.cff"):
        (root / name).symlink_to(ROOT / name)
    (ROOT / "_build" / "executed").mkdir(parents=True, exist_ok=True)
    (root / "_build").mkdir()
    (root / "_build" / "executed").symlink_to(ROOT / "_build" / "executed")
    try:
        with contextlib.redirect_stdout(said):
            failed = execute.run(None, "smoke", 1, ROOT)
            assert not failed, f"chapters failed at smoke: {failed}"
            publish.stage("smoke", None, root)
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(ROOT)])}
        code = "import sys; from pathlib import Path; from book import publish; "
        code += f"sys.exit(publish.render(Path({str(root)!r})))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=env)
        said.write(done.stdout + done.stderr)
        assert done.returncode == 0, "the book did not render"
        state = "done"
    except Exception as e:
        state = f"failed: {type(e).__name__}: {e}"
    (root / "build.log").write_text(said.getvalue(), encoding="utf-8")
    (root / "state").write_text(state, encoding="utf-8")
