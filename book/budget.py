"""What the checks cost in CPU seconds, and what they may: a run's price must not grow faster than the book.

As a pytest plugin (``-p book.budget --budget-step NAME``) it notes the CPU seconds of every test, processes started by
it included, in ``_build/budget/NAME.json``. ``python -m book.budget NAME=SECONDS ...`` prints one table of the steps
with the slowest tests, and ends with 1 when the run cost too much.

CPU seconds differ between machines. More than the budget is said loudly, and fails only above `SLACK` times the budget,
which a slower machine does not explain, or with ``BORROWED_BUDGET=enforce``.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from book import execute, notebooks
from book.notebooks import ROOT

BASE, FIRST, EACH = 1500, 6, 90
SLACK = 2
SHOWN = 20
CHAPTERS = "chapters at smoke"


def limit(chapters: int) -> int:
    """CPU seconds that every check of a book with so many chapters may take."""
    return BASE + EACH * max(0, chapters - FIRST)


# --- measuring ----------------------------------------------------------------------------------------------------


def spent() -> float:
    """CPU seconds of this process, of its children that ended, and of its descendants that still run."""
    return sum(os.times()[:4]) + sum(_of_running(pid) for pid in _children(os.getpid()))


def _children(pid) -> list[int]:
    """The children a process has now; none where the system keeps no list of them."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += map(int, path.read_text().split())
        except OSError:
            continue
    return found


def _of_running(pid) -> float:
    try:
        # The name in brackets may hold spaces; user, system, and the same of children that ended are fields 14 to 17.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK") + sum(map(_of_running, _children(pid)))


def pytest_addoption(parser):
    parser.addoption("--budget-step", help="note each test's CPU seconds in _build/budget/<this name>.json")


def pytest_configure(config):
    if name := config.getoption("--budget-step"):
        config.pluginmanager.register(Meter(config, name))


class Meter:
    """Notes what each test costs; where several processes share the tests, the first one gathers."""

    def __init__(self, config, name):
        self.goal = ROOT / "_build" / "budget" / f"{name}.json"
        self.worker = getattr(config, "workerinput", {}).get("workerid")
        self.items: dict[str, float] = {}
        if not self.worker:
            self.goal.unlink(missing_ok=True)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item):
        before = spent()
        if not self.items:
            self.items[f"imports and collection, {self.worker or 'one process'}"] = round(before, 3)
        done = yield
        # A process that nobody waited for takes its seconds along, which must not be taken off this test's.
        self.items[item.nodeid] = round(max(0.0, spent() - before), 3)
        return done

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node):
        self.items |= getattr(node, "workeroutput", {}).get("budget", {})

    # After xdist's own, which waits for the workers.
    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session):
        if self.worker:
            session.config.workeroutput["budget"] = self.items
        else:
            self.goal.parent.mkdir(parents=True, exist_ok=True)
            self.goal.write_text(json.dumps(self.items, indent=0), encoding="utf-8")


# --- reporting ----------------------------------------------------------------------------------------------------


def chapter_seconds(root: Path = ROOT) -> dict[str, float]:
    """What running each page at smoke cost, whenever it ran: a fresh machine pays it again."""
    found = {}
    for page in notebooks.pages(None, root):
        if execute.is_current(page, page.shown_at("smoke"), root):
            measured = notebooks.load(execute.executed(page, page.shown_at("smoke"), root))["metadata"]["book"]
            found[page.name] = measured.get("cpu_seconds", 0.0)
    return found


def report(steps: dict[str, float], items: dict[str, float], chapters: int, enforce=False) -> tuple[str, bool]:
    """The table, and whether the run may pass."""
    total, most = sum(steps.values()), limit(chapters)
    lines = ["CPU seconds", *(f"{s:8,.0f}  {name}" for name, s in steps.items()), f"the slowest {SHOWN}"]
    slowest = sorted(items.items(), key=lambda kv: -kv[1])[:SHOWN]
    lines += [f"{s:8,.1f}  {name}" for name, s in slowest]
    lines.append(f"budget: {total:,.0f} of {most:,} CPU seconds")
    if total > most:
        lines.append(
            f"OVER BUDGET by {total - most:,.0f}: shorten what is slow, or mark nightly what is long and implied by the"
            f" rest. This fails above {SLACK * most:,}, or with BORROWED_BUDGET=enforce."
        )
    return "\n".join(lines), total <= (most if enforce else SLACK * most)


def main(words: list[str], root: Path = ROOT) -> int:
    steps = {name: float(seconds) for name, _, seconds in (w.rpartition("=") for w in words)}
    noted = {CHAPTERS: chapter_seconds(root)}
    for path in (root / "_build" / "budget").glob("*.json"):
        noted[path.stem] = json.loads(path.read_text(encoding="utf-8"))
    # A step's own total lacks the processes that nobody waited for, and the chapters that ran before.
    steps = {name: max(seconds, sum(noted.get(name, {}).values())) for name, seconds in steps.items()}
    items = {item: seconds for name in steps for item, seconds in noted.get(name, {}).items()}
    enforce = os.environ.get("BORROWED_BUDGET") == "enforce"
    text, fine = report(steps, items, len(notebooks.chapters(None, root)), enforce)
    print(text)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
