"""An executed copy in the place of a kernel, so that nbval judges a run that was already paid for.

nbval asks a kernel to run a cell and reads messages from it. :class:`Replay` answers with the outputs that the cell has
in the executed copy: what nbval makes of them, errors included, is what it would make of a kernel's.

``python -m book.replay`` prints the chapter whose turn it is to run a second time, in a kernel: another one every day.
"""

from __future__ import annotations

import os
from datetime import date

from book import execute, notebooks
from book.notebooks import ROOT, code_cells, source
from book.outputs import FLOAT_TOLERANCE, differences

RECORD = "application/papermill.record/"


class Replay:
    """Looks like nbval's ``RunningKernel`` and runs nothing.

    Parameters
    ----------
    nb : dict
        The executed copy. A cell that papermill injected has no counterpart in the chapter and is left out.
    """

    def __init__(self, nb: dict):
        self.cells = code_cells(nb)
        self.at = -1
        self.waiting: list[dict] = []

    def execute_cell_input(self, text: str, allow_stdin=None) -> str:
        """Go on to the next cell with this code, and have its outputs ready."""
        following = range(self.at + 1, len(self.cells))
        found = next((i for i in following if source(self.cells[i]) == text), None)
        if found is None:
            raise RuntimeError("the executed copy has no such cell from here on")
        self.at = found
        name = f"cell {found}"
        self.waiting = [_message(name, output) for output in self.cells[found]["outputs"]]
        self.waiting.append({**_message(name, {"output_type": "status"}), "content": {"execution_state": "idle"}})
        return name

    def get_message(self, stream, timeout=None) -> dict:
        return self.waiting.pop(0)

    def await_reply(self, name, timeout=None):
        """There is nothing to wait for."""

    def await_idle(self, name, timeout=None):
        self.waiting.clear()

    def is_alive(self) -> bool:
        return True

    def stop(self):
        """There is nothing to stop."""


def _message(name, output):
    content = {k: v for k, v in output.items() if k != "output_type"}
    if "text" in content:
        content["text"] = "".join(content["text"])
    if "data" in content:
        content["data"] = {k: _joined(k, v) for k, v in content["data"].items()}
    return {"msg_type": output["output_type"], "parent_header": {"msg_id": name}, "content": content}


def _joined(kind, value):
    # A notebook file keeps texts as lists of lines; JSON data stay what they are.
    return "".join(value) if isinstance(value, list) and not kind.endswith("json") else value


def executed_copy(path, profile: str, root=ROOT) -> dict | None:
    """The executed copy of the notebook at `path`, or None when there is none of this code and these data."""
    page = next((p for p in notebooks.pages(None, root) if p.notebook == path), None)
    if page is None or not execute.is_current(page, page.shown_at(profile), root):
        return None
    return notebooks.load(execute.executed(page, page.shown_at(profile), root))


def live(slug: str) -> bool:
    """Whether ``BORROWED_LIVE`` asks for this chapter in a kernel: it names chapters, or is 1 for all."""
    return bool({slug, "1"} & set(os.environ.get("BORROWED_LIVE", "").replace(",", " ").split()))


def records_differ(new: list[dict], copied: list[dict], tolerance: float | None = None) -> list[str]:
    """What differs between the numbers that two runs of one cell recorded on one machine."""

    def records(outputs):
        return [{"data": {k: v for k, v in o.get("data", {}).items() if k.startswith(RECORD)}} for o in outputs]

    # Six digits are recorded, and the last may turn over.
    return differences(records(new), records(copied), tolerance or 10 * FLOAT_TOLERANCE)


def tonight(day: date, root=ROOT) -> str:
    """The slug of the chapter whose turn it is on a day."""
    chapters = notebooks.chapters(None, root)
    if not chapters:
        raise notebooks.BookError("there is no chapter yet")
    return chapters[day.toordinal() % len(chapters)].slug


if __name__ == "__main__":
    print(tonight(date.today()))
