"""A chapter's first cell: profile, seed, box; its quizzes; its last cell."""

import re
import subprocess
import sys

import pytest

from shared import chapter, results
from shared.evaluate import Interval


@pytest.fixture
def shell():
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    InteractiveShell.instance()
    try:
        with capture_output() as seen:
            yield seen
    finally:
        InteractiveShell.clear_instance()


@pytest.mark.parametrize(
    ("asked", "environment", "runs"),
    [
        ("auto", None, "lesson"),
        ("auto", "smoke", "smoke"),
        ("full", "smoke", "full"),
        ("smoke", None, "smoke"),
    ],
)
def test_profile_asked_for_wins_then_environment_then_lesson(monkeypatch, asked, environment, runs):
    monkeypatch.delenv("BORROWED_PROFILE", raising=False)
    if environment:
        monkeypatch.setenv("BORROWED_PROFILE", environment)
    assert chapter.resolve_profile(asked) == runs


@pytest.mark.parametrize("asked", ["quick", "", "SMOKE"])
def test_unknown_profile_names_the_known_ones(monkeypatch, asked):
    with pytest.raises(ValueError, match="smoke, lesson, full or auto"):
        chapter.resolve_profile(asked)
    monkeypatch.setenv("BORROWED_PROFILE", asked or "none")
    with pytest.raises(ValueError, match="is not known"):
        chapter.resolve_profile("auto")


@pytest.mark.parametrize("seed", [-1, 1.5, "0", True])
def test_bad_seed_is_refused(seed):
    with pytest.raises(ValueError, match="whole number"):
        chapter.setup("demo", profile="smoke", seed=seed)


def test_sizes_and_seeds_follow_the_profile(shell):
    made = {p: chapter.setup("demo", profile=p, seed=3) for p in results.PROFILES}
    assert [b.size(smoke=1, lesson=2, full=3) for b in made.values()] == [1, 2, 3]
    assert made["smoke"].seeds == (3, 4)
    assert len(made["lesson"].seeds) >= 3 and len(made["full"].seeds) >= 10


def test_the_seed_sets_every_generator(shell):
    import random

    import numpy as np
    import torch

    draws = []
    for _ in range(2):
        chapter.setup("demo", profile="smoke", seed=7)
        draws.append((random.random(), np.random.rand(), torch.rand(1).item()))  # noqa: NPY002
    assert draws[0] == draws[1]


def test_the_box_says_what_was_measured_not_what_was_hoped(monkeypatch, shell):
    def measured(slug, shelf=None):
        return {"profiles": {"smoke": {"provenance": {"seconds": 12.4, "peak_mib": 900, "machine": "Linux, 2 cores"}}}}

    chapter.setup("demo", profile="smoke")
    assert "not measured yet" in shell.outputs[-1].data["text/html"]
    monkeypatch.setattr(results, "load", measured)
    chapter.setup("demo", profile="smoke")
    box = shell.outputs[-1].data["text/html"]
    assert "12 seconds on Linux, 2 cores" in box and "0.9 GiB" in box


def test_close_leaves_the_provenance(shell):
    book = chapter.setup("demo", profile="smoke")
    book.run.data["pbmc"] = "ab" * 32
    table = book.close()
    assert shell.outputs[-1].metadata["provenance"]["data"] == {"pbmc": "ab" * 32}
    assert "abababababab…" in table.loc["data", "value"]
    assert table.loc["versions", "value"].rsplit(", ", 1)[1] in table._repr_html_()


def test_loading_data_enters_its_hash(shell):
    book = chapter.setup("demo", profile="smoke")
    adata = book.load("tissues")
    assert book.run.data == {"tissues": adata.uns["sha256"]}
    book.record("n_samples", adata.n_obs)
    assert book.run.records["n_samples"]["value"] == 189


def test_many_numbers_are_recorded_at_once_and_seeds_become_an_interval(shell):
    book = chapter.setup("demo", profile="smoke")
    book.load("tissues")
    book.record_all({"from scratch, 15": 0.5, "free": [0.2, 0.4, 0.6], "who": "ridge"}, "won_")
    found = book.run.records
    assert list(found) == ["won_from_scratch_15", "won_free", "won_who"]
    assert found["won_from_scratch_15"]["value"] == 0.5 and found["won_who"]["value"] == "ridge"
    assert found["won_free"]["n"] == 3 and found["won_free"]["low"] < found["won_free"]["value"] == pytest.approx(0.4)


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A results folder in which chapter demo has a lesson run and two runs of its study."""
    monkeypatch.setattr(results, "folder", lambda: tmp_path)
    for page, profile, seeds in (("demo", "lesson", 5), ("demo-study", "lesson", 5), ("demo-study", "full", 20)):
        run = results.Run(page, profile, tuple(range(seeds)), "cpu", {"pbmc": "0" * 64})
        run.record("score" if page == "demo" else "gain_a", Interval(seeds / 100, 0.0, 0.5, n=seeds))
        if page != "demo":
            run.record("gain_b", "ridge")
        results.save(page, profile, {"provenance": run.provenance() | {"seconds": 120.0}, "records": run.records})


def test_a_study_shows_what_was_recorded(shelf, shell, monkeypatch):
    monkeypatch.setenv("BORROWED_PROFILE", "smoke")
    book = chapter.setup("demo-study")
    assert not book.reruns and book.seeds == tuple(range(20)) and book.size(smoke=1, lesson=2, full=3) == 3
    box = shell.outputs[-1].data["text/html"]
    assert "at the full profile" in box and "set profile = &quot;full&quot;" in box and "2.0 minutes" in box
    assert f"{book.recorded('gain_a')}" == "0.20 [0.00, 0.50]" and book.recorded("gain_a").n == 20
    assert [*book.recorded_all("gain_")] == ["a", "b"] and book.recorded("gain_b") == "ridge"
    assert book.recorded("score").value == 0.05, "the lesson's numbers are there too"
    with pytest.raises(results.ResultError, match=r"nothing called loss….*make refs CHAPTER=demo'"):
        book.recorded("loss")
    with pytest.raises(results.ResultError, match="'gain' was not recorded; there are gain_a, gain_b"):
        book.recorded("gain")
    with pytest.raises(results.ResultError, match="set profile = "):
        book.record("gain_c", 1.0)
    assert "0, 1, 2" in book.close().loc["seeds", "value"]


def test_a_study_that_runs_again_shows_its_own_numbers(shelf, shell):
    book = chapter.setup("demo-study", profile="smoke")
    assert book.reruns and len(book.seeds) == 2
    book.load("tissues")
    with pytest.raises(results.ResultError, match="nothing called gain_"):
        book.recorded_all("gain_")
    book.record("gain_a", 0.5)
    assert book.recorded_all("gain_") == {"a": 0.5} and book.recorded("score").value == 0.05


def test_a_study_that_shows_what_was_recorded_loads_no_torch(root):
    code = "import sys\nfrom shared import figures\nfrom shared.chapter import setup\nsetup('tmp-study')\n"
    words = [sys.executable, "-c", f"{code}assert not {{'torch', 'tensorflow', 'keras'}} & {{*sys.modules}}"]
    subprocess.run(words, cwd=root, check=True, capture_output=True)


def test_a_study_without_a_recorded_run_says_what_to_do(shelf, shell):
    with pytest.raises(results.ResultError, match="'make refs CHAPTER=other' records one"):
        chapter.setup("other-study")


def test_a_table_has_its_caption(shelf, shell):
    import pandas as pd

    chapter.setup("demo-study").table(pd.DataFrame({"x": [1]}), "One number < two & nothing more")
    shown = shell.outputs[-1].data
    assert "<caption>One number &lt; two &amp; nothing more</caption>" in shown["text/html"]
    assert shown["text/html"].startswith('<table border="1" class="dataframe">\n  <caption>')
    assert shown["text/plain"].startswith("One number < two")


def test_quiz_is_a_labelled_fieldset_with_a_reason_for_each_answer():
    page = chapter.quiz("Which?", {"a < b": (True, "Because."), "b": (False, "Look again.")}, name="order").data
    ids = re.findall(r'<input[^>]* id="([^"]+)"', page)
    assert ids == re.findall(r'<label for="([^"]+)"', page) and len(set(ids)) == 2
    assert "<legend>Which?</legend>" in page and "a &lt; b" in page
    assert page.count("bs-right") == 1 and "<script" not in page


@pytest.mark.parametrize(
    "answers",
    [{"a": (True, "")}, {"a": (True, ""), "b": (True, "")}, {"a": (False, ""), "b": (False, "")}],
)
def test_quiz_needs_one_right_answer(answers):
    with pytest.raises(ValueError, match="exactly one"):
        chapter.quiz("Which?", answers, name="q")


@pytest.mark.parametrize(
    ("inside", "said"),
    [
        ("assert x == 1, 'no'", "Right."),
        ("assert x == 2, 'count again'", "Not yet: count again"),
        ("assert x == 2", "Not yet: a check fails"),
        ("assert y", "Not yet: NameError: name 'y' is not defined"),
        ("assert ... > x", "Not yet: there is a ... left to fill in"),
    ],
)
def test_a_check_says_what_is_wrong_and_stops_nothing(shell, inside, said):
    book = chapter.setup("demo", profile="smoke")
    with book.check("ex-one"):
        exec(inside, {"x": 1})
    told = shell.outputs[-1]
    assert told.data == {"text/plain": said}
    assert told.metadata == {"check": {"label": "ex-one", "passed": said == "Right."}}
