"""Start a method: ``python -m book.new name`` writes its module, test, lesson, study and API page from templates.

What it writes is a draft that works: the method fits, both pages run, and ``make check`` passes. The lesson and the
study say ``draft: true``, so they are not built until they are named (``make refs CHAPTER=name``) or finished. A name
that cannot be used is refused before anything is written, and a failure on the way leaves nothing behind.
"""

from __future__ import annotations

import keyword
import re
import sys
from pathlib import Path

from book import build, notebooks
from book.notebooks import ROOT, STUDY, BookError

# Template to the file it becomes. One line more, and `make new` writes one file more.
FILES = {
    "method": "shared/methods/@name@.py",
    "test": "tests/methods/test_@name@.py",
    "lesson": "chapters/@number@-@slug@/@slug@.md",
    "study": "chapters/@number@-@slug@/@slug@-study.md",
    "api": "book/api/@slug@.md",
}
KIT = {"base", "protocols", "torch_method", "keras_method"}  # of shared/methods, and no methods


def refuse(name: str, root: Path = ROOT) -> None:
    """Raise BookError where a method cannot be called so; the message says why."""
    slug = name.replace("_", "-")
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or not 3 <= len(name) <= 23:
        raise BookError(f"{name!r} cannot name a module: write 3 to 23 small letters, digits and single underscores")
    if keyword.iskeyword(name) or keyword.issoftkeyword(name) or name in sys.stdlib_module_names | KIT:
        raise BookError(f"{name!r} is taken by Python or by the kit: choose another name")
    if slug.endswith(STUDY):
        raise BookError(f"{name!r} ends as the name of a study does: choose another name")
    places = [f"shared/methods/{name}", f"chapters/[0-9][0-9]-{slug}", f"book/results/{slug}.json"]
    places += [
        place.replace("@name@", name).replace("@slug@", slug) for place in FILES.values() if "@number@" not in place
    ]
    for place in places:
        if there := sorted(root.glob(place)):
            raise BookError(f"{name!r} exists already: {there[0].relative_to(root).as_posix()}")


def words(name: str, root: Path = ROOT) -> dict[str, str]:
    """What stands for each ``@word@`` of the templates."""
    numbers = [int(c.folder.name[:2]) for c in notebooks.chapters(None, root, drafts=True)]
    number = max(numbers, default=0) + 1
    if number > 99:
        raise BookError("chapters are numbered with two digits, and 99 is taken")
    return {
        "name": name,
        "slug": name.replace("_", "-"),
        "Name": "".join(part.capitalize() for part in name.split("_")),
        "title": name.replace("_", " ").capitalize(),
        "number": f"{number:02d}",
        "setup": notebooks.setup_cell(root=root),
    }


def listed(text: str, line: str, before: str) -> str:
    """The text with `line` put above the first line that begins with `before`."""
    found = re.search(rf"^{re.escape(before)}", text, re.M)
    if not found:
        raise BookError(f"no line begins with {before.strip()!r}, so there is no place for {line.strip()!r}")
    return f"{text[: found.start()]}{line}\n{text[found.start() :]}"


def files(said: dict[str, str], root: Path = ROOT) -> dict[Path, str]:
    """Every file that a new method writes or changes, but for the notebooks, with its text; see :func:`words`."""

    def fill(text):
        return re.sub(r"@(\w+)@", lambda found: said[found[1]], text)

    made = {}
    for template, place in FILES.items():
        text = (root / "book" / "templates" / f"{template}.txt").read_text(encoding="utf-8")
        made[root / fill(place)] = fill(text)
    entries = {
        "book/_toc.yml": ("          - file: book/api/@slug@", "          - file: book/api/evaluate"),
        "book/api/index.md": ("| [methods.@name@](@slug@.md) | @title@ |", "| [evaluate]("),
    }
    for place, (line, before) in entries.items():
        made[root / place] = listed((root / place).read_text(encoding="utf-8"), fill(line), before)
    return made


def new(name: str, root: Path = ROOT) -> list[str]:
    """Write the draft of a method: all of it or nothing; returns the paths written, relative to `root`.

    Raises
    ------
    BookError
        If the name cannot be used, or the contents or the API page have no place for it.
    """
    refuse(name, root)
    said = words(name, root)
    made = files(said, root)
    folder = root / "chapters" / f"{said['number']}-{said['slug']}"
    pages = [notebooks.Page(folder), notebooks.Page(folder, study=True)]
    before = {path: path.read_bytes() if path.exists() else None for path in [*made, *(p.notebook for p in pages)]}
    try:
        for path, text in made.items():
            notebooks.write(path, text.encode())
        build.sync([p.stem for p in pages], root)
    except BaseException:
        for path, content in before.items():
            path.unlink(missing_ok=True) if content is None else notebooks.write(path, content)
        if folder.is_dir():
            folder.rmdir()
        raise
    return [path.relative_to(root).as_posix() for path in before]


def main(name: str) -> int:
    try:
        written = new(name)
    except BookError as e:
        print(f"\n{e}", file=sys.stderr)
        return 1
    slug = name.replace("_", "-")
    print("\n".join(f"  {path}" for path in written))
    print(f"A draft of {name}. Next: 'make check' says what is missing, 'make refs CHAPTER={slug}' runs both pages.")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
