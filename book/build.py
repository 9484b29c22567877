"""The book's build tool: ``python -m book.build JOB``. ``run.py`` and the Makefile call it.

sync     chapters/NN-slug/*.md -> *.ipynb (the text is the source; stored outputs stay, hand-made changes go to work/);
         list them in the contents
lab      sync, and copy the notebooks into work/, where they are the reader's
run      run the pages that changed -> _build/executed/<profile>/; a study shows what was recorded
stage    executed pages and book/ -> _build/src/
html     _build/src -> _build/html
book     sync, run, stage, html
full     run one chapter's published protocol, lesson and study, and store its numbers (--chapter)
refs     run lesson and study at smoke and lesson, store the checked outputs in the notebooks and the numbers in
         book/results/
gpu      run chapters on the accelerator (--device), compare them with what is stored, keep all of it in _build/gpu/
links    follow every link of the rendered book, the outside ones too (needs the network)
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from book import execute, gpu, notebooks, publish, work
from book.notebooks import CHECKED, ROOT, BookError, code_cells, store_outputs, tags

PROFILES = ("smoke", "lesson", "full")


def sync(only=None, root: Path = ROOT) -> list[str]:
    """Write every page's notebook from its text, and the chapters into the contents; returns the names that changed.

    A notebook that somebody changed by hand is kept in ``work/``, and said so.
    """
    pages = notebooks.pages(only, root, drafts=True)
    changed = [page.name for page in pages if renew(page, lambda page: notebooks.synced(page, root), root)]
    toc = notebooks.write(root / "book" / "_toc.yml", notebooks.contents(root).encode())
    return changed + ["book/_toc.yml"] * toc


def renew(page, made, root: Path = ROOT) -> bool:
    """Write what ``made(page)`` gives as the page's notebook, and keep what somebody changed by hand; True when new."""
    if mine := work.set_aside(page, root):
        lost = "" if page.notebook.exists() else ", but for stored outputs, which 'make refs' makes"
        print(
            f"{page.where} was changed by hand: that version is kept as {mine.relative_to(root).as_posix()}, and the "
            f"notebook is made again from {page.text.name}{lost}. To work on copies, use 'make lab'."
        )
    new = notebooks.write(page.notebook, made(page))
    work.note(page, root)
    return new


def lab(only=None, root: Path = ROOT) -> None:
    """Lay the reader's copies in ``work/``, and say which are new and which stay as the reader left them."""
    sync(only, root)
    print("\n".join(work.copies(only, root)) or "every copy in work/ is up to date")


def out_of_step(root: Path = ROOT) -> list[str]:
    """Pages whose notebook is not what its text and the recorded results make it."""
    return [
        p.name
        for p in notebooks.pages(None, root, drafts=True)
        if not p.notebook.exists() or p.notebook.read_bytes() != notebooks.synced(p, root)
    ]


def run(only=None, profile="lesson", jobs=1, force=False, root: Path = ROOT, measure=False) -> None:
    """Run pages; raises BookError naming those that failed."""
    failed = execute.run(only, profile, jobs, root, force, measure=measure)
    if failed:
        raise BookError(f"{len(failed)} page(s) failed: {', '.join(failed)}")


def book(profile="lesson", jobs=1, root: Path = ROOT) -> None:
    """Everything from the text to the pages; pages that fail are named after the others have run."""
    for name in sync(None, root):
        print(f"{name}  made from the text")
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
    pages = notebooks.pages(only, root)
    # A study may quote its lesson, so the lessons' numbers are stored before it runs.
    for some in ([p for p in pages if not p.study], [p for p in pages if p.study]):
        for profile in profiles:
            run(some, profile, jobs, root=root, measure=True)
        for page in some:
            for profile in profiles:
                found = results.from_notebook(execute.executed(page, profile, root))
                if found["records"]:
                    results.save(page.stem, profile, found)
            if "smoke" in profiles:
                store(page, root)
    sync(only, root)


def store(page, root: Path = ROOT) -> None:
    """Put the smoke outputs of the checked cells into the page's notebook."""
    nb = notebooks.make(page, root)
    ran = code_cells(notebooks.load(execute.executed(page, "smoke", root)))
    for cell, done in zip(code_cells(nb), ran, strict=True):
        if CHECKED in tags(cell):
            store_outputs(cell, done["outputs"])
    renew(page, lambda page: notebooks.dump(nb), root)


def main(words=None) -> int:
    parser = argparse.ArgumentParser(
        prog="book.build", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("job", choices=["sync", "lab", "run", "stage", "html", "book", "full", "gpu", "refs", "links"])
    parser.add_argument("--profile", default=os.environ.get("PROFILE") or "lesson", choices=PROFILES)
    parser.add_argument("--chapter", action="append", help="slug, number or page (tmp-lesson); may be repeated")
    parser.add_argument("--jobs", type=int, default=int(os.environ.get("JOBS") or 0))
    parser.add_argument("--device", default=os.environ.get("DEVICE") or "auto", help="with gpu: auto, cpu, cuda, mps")
    parser.add_argument("--measure", action="store_true", help="with run: studies run their experiments")
    parser.add_argument("--force", action="store_true", help="run even what did not change")
    a = parser.parse_args(words)
    # What is timed and recorded runs alone, and so does what may share one accelerator.
    a.jobs = a.jobs or (execute.fitting_jobs() if a.job in ("run", "book") else 1)
    try:
        if a.job == "sync":
            print("\n".join(f"{n}  changed" for n in sync(a.chapter)) or "every notebook is in step with its text")
        elif a.job == "lab":
            lab(a.chapter)
        elif a.job == "gpu":
            gpu.run(a.chapter, a.profile, a.device, a.force)
        elif a.job == "run":
            run(a.chapter, a.profile, a.jobs, a.force, measure=a.measure)
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
