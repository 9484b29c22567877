"""``pytest chapters --nbval-lax`` compares each chapter's stored outputs with those of its run at ``BORROWED_PROFILE``.

Each chapter runs once: where its executed copy is of this code and these data, nbval replays it (``book/replay.py``)
and no kernel starts. Otherwise, and where ``BORROWED_LIVE`` is 1 or names the chapter, it runs live; a live run must
agree with the stored outputs and, where there is one, with the executed copy. Numbers may differ by the tolerance each
cell states (``book/outputs.py``).
"""

import os
import sys
import types
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from book.notebooks import code_cells, pages
from book.outputs import differences, tolerance_of
from book.replay import Replay, executed_copy, live, records_differ

ROOT = Path(__file__).resolve().parent.parent
# The stored outputs are those of smoke, so a kernel started here must run that too.
PROFILE = os.environ.setdefault("BORROWED_PROFILE", "smoke")
collect_ignore = [str(page.notebook) for page in pages(None, ROOT, drafts=True) if page.draft]


def _setup(self):
    """Replay where that is possible and nothing else was asked for; else start a kernel."""
    self.copy = executed_copy(self.path, PROFILE, ROOT)
    if self.copy and not live(self.path.stem):
        self.kernel = Replay(self.copy)
        self.setup_sanitize_files()
    else:
        type(self).setup(self)


def _compare_outputs(self, test, ref, skip_compare=None):
    tolerance = tolerance_of(self.cell.metadata.get("tags", []))
    self.comparison_traceback = differences(test, ref, tolerance)
    return not self.comparison_traceback


def _runtest(self):
    replayed = isinstance(self.parent.kernel, Replay)
    self.user_properties.append(("nbval", f"{'replayed' if replayed else 'live'} {self.path.stem}"))
    type(self).runtest(self)
    copied = None if replayed or self.options["skip"] else self.parent.copy
    if copied:
        compare = differences if self.options["check"] else records_differ
        tolerance = tolerance_of(self.cell.metadata.get("tags", []))
        if said := compare(self.test_outputs, code_cells(copied)[self.cell_num]["outputs"], tolerance):
            self.raise_cell_error("This run differs from the executed copy", "\n".join(said))


def pytest_itemcollected(item):
    """Give every notebook cell this book's run and comparison in place of nbval's own."""
    if type(item).__name__ == "IPyNbCell":
        item.compare_outputs = types.MethodType(_compare_outputs, item)
        item.runtest = types.MethodType(_runtest, item)
        item.parent.setup = types.MethodType(_setup, item.parent)


def pytest_terminal_summary(terminalreporter):
    """Say which notebooks were replayed and which ran."""
    reports = [r for group in terminalreporter.stats.values() for r in group if hasattr(r, "user_properties")]
    said = {v for r in reports for k, v in r.user_properties if k == "nbval"}
    for how in ("replayed", "live"):
        names = sorted(s.partition(" ")[2] for s in said if s.startswith(how))
        if names:
            terminalreporter.write_line(f"{how} at {PROFILE}: {', '.join(names)}")
