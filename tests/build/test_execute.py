"""Running chapters: what makes one run again, what a failure says, and what an interruption leaves."""

import io
import json
import os
import signal
import subprocess
import sys
import time
import types

import pytest

from book import build, execute, notebooks, publish
from book.notebooks import BookError
from shared import results


def keys(mini):
    return [execute.key(c, "smoke", mini) for c in notebooks.chapters(None, mini)]


@pytest.mark.parametrize(
    ("path", "old", "new", "changes"),
    [
        ("chapters/01-alpha/alpha.md", "Made of", "Built of", False),
        ("chapters/01-alpha/alpha.md", "scored 0.75", "scored 0.76", True),
        ("chapters/01-alpha/alpha.md", "tolerance=0.02", "tolerance=0.03", False),
        ("shared/one.py", "first = 1", "first = 2", True),
        ("shared/two.py", "second = 2", "second = 3", True),
        ("shared/other.py", "third = 3", "third = 4", False),
        ("data/catalog.yml", "abc", "abd", True),
        ("data/cells/cells.csv", "1,2", "1,3", True),
        ("constraints.txt", "numpy==2", "numpy==3", True),
        ("book/references.bib", "2020", "2021", False),
    ],
)
def test_what_makes_a_chapter_run_again(mini, change, path, old, new, changes):
    before = keys(mini)[0]
    assert keys(mini)[0] == before
    if path.endswith(".bib"):
        change(mini / path, "year = {2020}", "year = {2021}")
    else:
        change(mini / path, old, new)
    assert (keys(mini)[0] != before) is changes


def test_the_profile_is_part_of_it_and_data_must_exist(mini, change):
    alpha = notebooks.chapters(["alpha"], mini)[0]
    assert execute.key(alpha, "smoke", mini) != execute.key(alpha, "lesson", mini)
    change(alpha.text, "data: [cells]", "data: [sells]")
    with pytest.raises(BookError, match=r"'sells', which data/catalog\.yml does not have"):
        execute.key(alpha, "smoke", mini)


def test_run_skip_and_fail(mini, change):
    """One story: both run; nothing runs; an edit breaks one and the other still runs; the cure runs it again."""
    said = io.StringIO()
    assert execute.run(None, "smoke", 2, mini, stream=said) == []
    assert "01-alpha  cell 0/6  0:00, not timed before" in said.getvalue()
    assert "02-beta  ran in" in said.getvalue()
    alpha, beta = notebooks.chapters(None, mini)
    done = notebooks.load(execute.executed(alpha, "smoke", mini))
    measured = done["metadata"]["book"]
    assert measured["seconds"] > 0 and measured["peak_mib"] > 20 and measured["key"] == keys(mini)[0]
    text = json.dumps(done)
    assert "profile smoke scored" in text

    said = io.StringIO()
    change(alpha.text, "Made of", "Built of")
    assert execute.run(None, "smoke", 1, mini, stream=said) == []
    assert said.getvalue() == "01-alpha  unchanged\n02-beta  unchanged\n"
    assert "Built of" in json.dumps(publish.staged(alpha, "smoke", mini))

    said = io.StringIO()
    change(alpha.text, "list(range(3))", "y = 1\n1 / 0")
    change(beta.text, "x + 1", "x + 2")
    assert execute.run(None, "smoke", 1, mini, stream=said) == ["01-alpha"]
    report = said.getvalue()
    assert "01-alpha  FAILED in code cell 6 of 6 at profile smoke" in report
    assert "      y = 1\n      1 / 0" in report and "ZeroDivisionError: division by zero" in report
    left = mini / "_build/executed/smoke/01-alpha/alpha.failed.ipynb"
    assert left.relative_to(mini).as_posix() in report
    assert "profile smoke scored" in left.read_text()
    assert "of about 0:0" in report and "02-beta  ran in" in report
    with pytest.raises(BookError, match=r"1 page\(s\) failed: 01-alpha"):
        build.run(["alpha"], "smoke", 1, root=mini)
    with pytest.raises(BookError, match="the executed copy at smoke is not of this code"):
        publish.staged(alpha, "smoke", mini)

    change(alpha.text, "1 / 0", "1 / 1")
    assert execute.run(None, "smoke", 1, mini, stream=io.StringIO()) == []
    assert not left.exists()


@pytest.mark.skipif(os.name == "nt", reason="signals are sent in another way there")
@pytest.mark.parametrize("blow", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_goes_on(mini, change, blow):
    """Stopped in the middle, nothing half-made counts as done; the next call finishes and sweeps up."""
    alpha, beta = notebooks.chapters(None, mini)
    change(beta.text, "x = 1", "import time\ntime.sleep(0 if __import__('os').path.exists('go') else 60)\nx = 1")
    code = "import sys, pathlib; from book import execute; execute.run(None, 'smoke', 1, pathlib.Path(sys.argv[1]))"
    env = {**os.environ, "PYTHONPATH": str(notebooks.ROOT)}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    child = subprocess.Popen([sys.executable, "-c", code, str(mini)], env=env, start_new_session=True, **quiet)
    folder = mini / "_build/executed/smoke/02-beta"
    until = time.monotonic() + 60
    while not list(folder.glob("*.running-*")) and time.monotonic() < until:
        time.sleep(0.1)
    os.killpg(child.pid, blow)
    assert child.wait(30) != 0
    assert execute.is_current(alpha, "smoke", mini) and not execute.is_current(beta, "smoke", mini)
    assert not execute.executed(beta, "smoke", mini).exists()
    (beta.folder / "go").touch()
    said = io.StringIO()
    assert execute.run(None, "smoke", 1, mini, stream=said) == []
    assert "01-alpha  unchanged" in said.getvalue() and "02-beta  ran in" in said.getvalue()
    assert [p.name for p in folder.iterdir()] == ["beta.ipynb"]


def test_a_study_shows_what_was_recorded_and_measures_when_asked(study, monkeypatch):
    """As the book is built the study fits nothing; what it shows makes it run again; `refs` measures and records."""
    monkeypatch.setattr(results, "folder", lambda: study / "book/results")
    said = io.StringIO()
    assert execute.run(["alpha"], "smoke", 2, study, stream=said) == []
    assert "01-alpha-study  cell 0/4" in said.getvalue() and "01-alpha-study  ran in" in said.getvalue()
    page = notebooks.pages(["alpha-study"], study)[0]
    done = notebooks.load(execute.executed(page, "recorded", study))
    assert "shown at recorded" in json.dumps(done) and done["metadata"]["book"]["cpu_after_setup"] < 5
    assert not execute.executed(page, "smoke", study).exists()

    text = json.dumps(publish.staged(page, "smoke", study))
    assert "gain is 0.50, and the lesson says 0.8" in text and "# Alpha, measured\\n\\n*This is the evidence" in text
    assert "[the lesson](alpha.ipynb)" in text
    lesson = json.dumps(publish.staged(page.other, "smoke", study))
    assert "# Alpha\\n\\n*This is the lesson; the evidence is in [the study](alpha-study.ipynb).*" in lesson
    assert "{glue:text}`score:.2f`" in lesson, "what the page's own run left is for the renderer"

    build.refs(["alpha-study"], 1, study, ("lesson",))
    assert notebooks.quotable("alpha", study)["gain"]["value"] == 0.125
    assert notebooks.results("alpha", study)["lesson"]["records"]["score"]["value"] == 0.75
    assert not execute.is_current(page, "recorded", study), "it shows other numbers now"
    (study / "book/results/alpha.json").unlink()
    with pytest.raises(BookError, match=r"alpha-study\.md quotes gain, which was never recorded"):
        publish.staged(page, "smoke", study)


@pytest.mark.parametrize(
    ("cores", "gib", "allowed", "jobs"),
    [(2, 8, "max", 2), (16, 6, "max", 2), (1, 64, "max", 1), (8, 5, "max", 1), (8, 64, 4 * 2**30, 1)],
)
def test_two_chapters_run_at_a_time_where_they_fit(monkeypatch, tmp_path, cores, gib, allowed, jobs):
    memory = types.SimpleNamespace(available=gib * 2**30)
    (tmp_path / "max").write_text(f"{allowed}\n")
    monkeypatch.setattr(execute, "ALLOWANCE", tmp_path / "max")
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory)
    monkeypatch.setattr(execute, "cores", lambda: cores)
    assert execute.fitting_jobs() == jobs


def test_a_torn_copy_does_not_count(mini):
    alpha = notebooks.chapters(["alpha"], mini)[0]
    path = execute.executed(alpha, "smoke", mini)
    path.parent.mkdir(parents=True)
    path.write_text('{"cells": [')
    assert not execute.is_current(alpha, "smoke", mini)
    assert execute.expected_seconds(alpha, "smoke", mini) is None


def test_expected_time_comes_from_the_record_when_nothing_ran_here(mini):
    alpha = notebooks.chapters(["alpha"], mini)[0]
    path = mini / "book/results/alpha.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"profiles": {"lesson": {"provenance": {"seconds": 75.0}, "records": {}}}}))
    assert execute.expected_seconds(alpha, "lesson", mini) == 75.0
    assert execute.expected_seconds(alpha, "smoke", mini) is None


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_on_a_terminal_redraws_one_line():
    now = [0.0]
    out = Terminal()
    progress = execute.Progress(out, lambda: now[0])
    progress.start("02-baselines", 41, 100.0)
    now[0] = 23.0
    progress.step("02-baselines", 13, 41)
    assert out.getvalue().endswith("\r\x1b[K02-baselines  cell 13/41  0:23 of about 1:40")
    progress.end("02-baselines", "02-baselines  ran in 0:30, peak 1 MiB")
    assert out.getvalue().endswith("\r\x1b[K02-baselines  ran in 0:30, peak 1 MiB\n")


def test_progress_elsewhere_writes_a_line_now_and_then():
    now = [0.0]
    out = io.StringIO()
    progress = execute.Progress(out, lambda: now[0])
    progress.start("a", 9, None)
    for cell, now[0] in [(1, 1.0), (2, 16.0), (3, 17.0), (4, 40.0)]:
        progress.step("a", cell, 9)
    cells = [line.split("cell ")[1][:3] for line in out.getvalue().splitlines()]
    assert cells == ["0/9", "2/9", "4/9"] and "\r" not in out.getvalue()


def test_a_kernel_that_dies_is_a_failure_with_its_notebook(mini, change):
    beta = notebooks.chapters(["beta"], mini)[0]
    change(beta.text, "x + 1", "import os\nos._exit(9)")
    said = io.StringIO()
    assert execute.run(["beta"], "smoke", 1, mini, stream=said) == ["02-beta"]
    assert "02-beta  FAILED" in said.getvalue() and "died" in said.getvalue().lower()
    assert "_build/executed/smoke/02-beta/beta.failed.ipynb" in said.getvalue()
    assert (mini / "_build/executed/smoke/02-beta/beta.failed.ipynb").exists()


def test_the_origin_of_what_a_study_shows_and_what_a_page_quotes_are_part_of_it(study, change):
    """Another date or commit of the recorded run is shown in the study's box; a lesson may quote the study."""
    shelf = study / "book/results/alpha.json"
    lesson, page = notebooks.pages(["alpha"], study)
    before = execute.key(page, "recorded", study), execute.key(lesson, "lesson", study)
    held = json.loads(shelf.read_text())
    held["study"]["lesson"]["provenance"]["commit"] = "another"
    shelf.write_text(json.dumps(held))
    assert execute.key(page, "recorded", study) != before[0]
    assert execute.key(lesson, "lesson", study) == before[1], "it quotes nothing"
    change(lesson.text, "list(range(3))", "book.recorded('gain')")
    quoting = execute.key(lesson, "lesson", study)
    held["study"]["lesson"]["records"]["gain"]["value"] = 0.75
    shelf.write_text(json.dumps(held))
    assert execute.key(lesson, "lesson", study) != quoting


def test_a_study_is_recorded_after_its_lesson(study, monkeypatch):
    monkeypatch.setattr(results, "folder", lambda: study / "book/results")
    monkeypatch.setattr(build, "store", lambda *_: None)
    done = []
    monkeypatch.setattr(build, "run", lambda some, profile, *_, **__: done.extend((p.stem, profile) for p in some))
    monkeypatch.setattr(results, "from_notebook", lambda path: {"records": {}})
    build.refs(["alpha"], 1, study)
    assert done == [(p, at) for p in ("alpha", "alpha-study") for at in ("smoke", "lesson")]
