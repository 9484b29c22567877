"""The book's build tool: ``python -m book.build JOB``. ``run.py`` and the Makefile call it.

sync     chapters/NN-slug/slug.md -> slug.ipynb (the text is the source; stored outputs stay)
run      run the chapters that changed -> _build/executed/<profile>/
stage    executed chapters and book/ -> _build/src/
html     _build/src -> _build/html
book     sync, run, stage, html
full     run one chapter's published protocol and store its numbers (--chapter)
refs     run at smoke and lesson, store the checked outputs in the notebooks and the numbers in book/results/
links    follow every link of the rendered book, the outside ones too (needs the network)
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from book import execute, notebooks, publish
from book.notebooks import CHECKED, ROOT, BookError, code_cells, store_outputs, tags

PROFILES = ("smoke", "lesson", "full")


def sync(only=None, root: Path = ROOT) -> list[str]:
    """Write every chapter's notebook from its text; returns the names of those that changed."""
    return [c.name for c in notebooks.chapters(only, root) if notebooks.write(c.notebook, notebooks.synced(c, root))]


def out_of_step(root: Path = ROOT) -> list[str]:
    """Chapters whose notebook is not what its text and the recorded results make it."""
    return [
        c.name
        for c in notebooks.chapters(None, root)
        if not c.notebook.exists() or c.notebook.read_bytes() != notebooks.synced(c, root)
    ]


def run(only=None, profile="lesson", jobs=1, force=False, root: Path = ROOT) -> None:
    """Run chapters; raises BookError naming those that failed."""
    failed = execute.run(only, profile, jobs, root, force)
    if failed:
        raise BookError(f"{len(failed)} chapter(s) failed: {', '.join(failed)}")


def book(profile="lesson", jobs=1, root: Path = ROOT) -> None:
    """Everything from the text to the pages; chapters that fail are named after the others have run."""
    for name in sync(None, root):
        print(f"{name}  notebook made from the text")
    run(None, profile, jobs, root=root)
    publish.stage(profile, None, root)
    html(root)


def html(root: Path = ROOT, builder="html") -> None:
    began = time.monotonic()
    if publish.render(root, builder):
        raise BookError("the book did not render: every warning above is an error")
    where = root / "_build" / "html" / "index.html"
    print(f"rendered in {execute.clock(time.monotonic() - began)}: open {where}")


def refs(only=None, jobs=1, root: Path = ROOT, profiles=("smoke", "lesson")) -> None:
    """Refresh what the repository stores of the runs: checked smoke outputs, and the numbers of every profile run."""
    from shared import results

    sync(only, root)
    for profile in profiles:
        run(only, profile, jobs, root=root)
    for chapter in notebooks.chapters(only, root):
        for profile in profiles:
            found = results.from_notebook(execute.executed(chapter, profile, root))
            if found["records"]:
                results.save(chapter.slug, profile, found)
        if "smoke" in profiles:
            store(chapter, root)
    sync(only, root)


def store(chapter, root: Path = ROOT) -> None:
    """Put the smoke outputs of the checked cells into the chapter's notebook."""
    nb = notebooks.make(chapter, root)
    ran = code_cells(notebooks.load(execute.executed(chapter, "smoke", root)))
    for cell, done in zip(code_cells(nb), ran, strict=True):
        if CHECKED in tags(cell):
            store_outputs(cell, done["outputs"])
    notebooks.write(chapter.notebook, notebooks.dump(nb))


def main(words=None) -> int:
    parser = argparse.ArgumentParser(
        prog="book.build", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("job", choices=["sync", "run", "stage", "html", "book", "full", "refs", "links"])
    parser.add_argument("--profile", default=os.environ.get("PROFILE") or "lesson", choices=PROFILES)
    parser.add_argument("--chapter", action="append", help="slug or number; may be repeated")
    parser.add_argument("--jobs", type=int, default=int(os.environ.get("JOBS") or 0) or execute.fitting_jobs())
    parser.add_argument("--force", action="store_true", help="run even what did not change")
    a = parser.parse_args(words)
    try:
        if a.job == "sync":
            print("\n".join(f"{n}  changed" for n in sync(a.chapter)) or "every notebook is in step with its text")
        elif a.job == "run":
            run(a.chapter, a.profile, a.jobs, a.force)
        elif a.job == "stage":
            publish.stage(a.profile)
        elif a.job == "book":
            book(a.profile, a.jobs)
        elif a.job == "full":
            refs(a.chapter, a.jobs, profiles=("full",))
        elif a.job == "refs":
            refs(a.chapter, a.jobs)
        else:
            html(builder="linkcheck" if a.job == "links" else "html")
    except BookError as e:
        print(f"\n{e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted: run the same command again and it goes on from here", file=sys.stderr)
        return execute.INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
