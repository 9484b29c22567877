"""nbval replays the run that papermill made, and starts a kernel only where there is none or somebody asks."""

import json
import os
import re
import shutil
import subprocess
import sys
from datetime import date, timedelta

import pytest

from book import execute, notebooks
from book.replay import Replay, live, records_differ, tonight

TEXT = """\
---
book: {{slug: {slug}, module: shared.one, gpu: false, data: [], goals: [], claims: []}}
---

# Title

```{{code-cell}} ipython3
:tags: [parameters]

profile = "auto"
```

```{{code-cell}} ipython3
:tags: [nbval-check-output, tolerance=0.02]

6 * 7.0
```

```{{code-cell}} ipython3
print("a", end=""); print("b")
```
"""
INJECTED = {"cell_type": "code", "metadata": {"tags": ["injected-parameters"]}, "source": 'profile = "smoke"'}
PYPROJECT = '[project]\nname = "mini"\n[project.urls]\nHomepage = "https://github.com/some-one/mini"\n'


def result(value):
    return {"output_type": "execute_result", "execution_count": 1, "metadata": {}, "data": {"text/plain": [value]}}


def chapter_of(mini, number, slug, stored="42.0", ran="42.0", stale=False, error=False, kernel="none"):
    """A chapter with what its notebook stores and what its executed copy says, without running it."""
    folder = mini / "chapters" / f"{number:02d}-{slug}"
    folder.mkdir(parents=True)
    chapter = notebooks.Page(folder)
    chapter.text.write_text(TEXT.format(slug=slug))
    nb = notebooks.make(chapter, mini)
    # A kernel of no such name cannot start.
    nb["metadata"]["kernelspec"]["name"] = kernel
    notebooks.store_outputs(notebooks.code_cells(nb)[1], [result(stored)])
    chapter.notebook.write_bytes(notebooks.dump(nb))
    first, checked, printed = notebooks.code_cells(nb)
    checked["outputs"] = [result(ran)]
    printed["outputs"] = [{"output_type": "stream", "name": "stdout", "text": ["a", "b\n"]}]
    if error:
        said = {"ename": "ValueError", "evalue": "it broke", "traceback": ["it broke at line 1"]}
        printed["outputs"] = [{"output_type": "error", **said}]
    for cell in (first, checked, printed):
        cell["execution_count"] = 1
    at = nb["cells"].index(first) + 1
    nb["cells"].insert(at, {**INJECTED, "id": "injected", "execution_count": 1, "outputs": []})
    nb["metadata"]["book"]["key"] = "another" if stale else execute.key(chapter, "smoke", mini)
    notebooks.write(execute.executed(chapter, "smoke", mini), notebooks.dump(nb))
    return chapter


@pytest.fixture
def mini(root, tmp_path):
    """A small repository without chapters."""
    (tmp_path / "chapters").mkdir()
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    shutil.copy(root / "chapters" / "conftest.py", tmp_path / "chapters")
    return tmp_path


def nbval(root, mini, **env):
    """What ``pytest chapters --nbval-lax`` says there, and the outcome of each cell as ``{"slug 1": "PASSED"}``."""
    words = [sys.executable, "-m", "pytest", "-q", "-rA", "--nbval-lax", "-p", "no:cacheprovider", "--color=no"]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("BORROWED_", "PYTEST_"))}
    done = subprocess.run(
        [*words, "--rootdir", ".", "chapters"],
        cwd=mini,
        env={**kept, "PYTHONPATH": str(root), **env},
        capture_output=True,
        text=True,
    )
    cells = re.findall(r"^(PASSED|FAILED|ERROR) \S+?/([\w-]+)\.ipynb::Cell (\d+)", done.stdout, re.M)
    return done.stdout + done.stderr, {f"{slug} {cell}": how for how, slug, cell in cells}


def test_the_executed_copy_is_judged_and_nothing_runs(root, mini):
    chapter_of(mini, 1, "good")
    chapter_of(mini, 2, "near", stored="42.5")
    chapter_of(mini, 3, "altered", stored="44.0")
    chapter_of(mini, 4, "broken", error=True)
    said, cells = nbval(root, mini)
    assert cells.pop("altered 1") == "FAILED" and "the number 44.0 became 42.0; 0.88 is allowed" in said
    assert cells.pop("broken 2") == "FAILED" and "it broke at line 1" in said
    assert len(cells) == 10 and set(cells.values()) == {"PASSED"}, said
    assert "replayed at smoke: altered, broken, good, near" in said and "live at" not in said


def test_a_stale_copy_and_one_named_by_the_variable_run_live(root, mini):
    # Replayed, the first would fail and the second pass: each copy says what its code does not.
    chapter_of(mini, 1, "stale", ran="0.0", stale=True, kernel="python3")
    chapter_of(mini, 2, "asked", ran="45.0", kernel="python3")
    said, cells = nbval(root, mini, BORROWED_LIVE="asked")
    assert [cells[f"stale {i}"] for i in range(3)] == ["PASSED"] * 3, said
    assert cells["asked 1"] == "FAILED" and "This run differs from the executed copy" in said
    assert "the number 45.0 became 42.0" in said and cells["asked 2"] == "PASSED"
    assert "live at smoke: asked, stale" in said and "replayed" not in said


def test_the_variable_names_chapters_or_all(monkeypatch):
    monkeypatch.delenv("BORROWED_LIVE", raising=False)
    assert not live("tmp")
    monkeypatch.setenv("BORROWED_LIVE", "tmp, baselines")
    assert live("tmp") and live("baselines") and not live("scpretrain")
    monkeypatch.setenv("BORROWED_LIVE", "1")
    assert live("scpretrain")


def test_a_cell_that_the_copy_lacks_is_refused():
    replay = Replay({"cells": [{"cell_type": "code", "metadata": {}, "source": "1", "outputs": [result("1")]}]})
    replay.execute_cell_input("1")
    assert replay.get_message("iopub")["content"]["data"] == {"text/plain": "1"}
    with pytest.raises(RuntimeError, match="no such cell"):
        replay.execute_cell_input("1")


def test_recorded_numbers_of_two_runs_are_compared():
    def record(value):
        return [result("any " + value), {"data": {"application/papermill.record/text/plain": json.dumps(float(value))}}]

    assert records_differ(record("0.25"), record("0.25")) == []
    assert "the number 0.25 became 0.26" in records_differ(record("0.26"), record("0.25"))[0]
    assert records_differ([], record("0.25")) == ["stored application/papermill.record/text/plain, but none now"]


def test_every_chapter_has_its_turn_to_run_a_second_time():
    slugs = [c.slug for c in notebooks.chapters()]
    days = [date(2026, 12, 30) + timedelta(days) for days in range(len(slugs))]
    assert {tonight(day) for day in days} == set(slugs)
