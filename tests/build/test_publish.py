"""From executed chapters to pages, with the real renderer and warnings as errors."""

import json
import os

import pytest

from book import build, execute, notebooks, publish
from book.notebooks import BookError, code_cells, source, tags


def run_both(mini):
    assert execute.run(None, "smoke", 2, mini) == []


@pytest.mark.slow
def test_text_to_pages_and_only_what_changed(mini, change, monkeypatch):
    for name in ("CI", "READTHEDOCS"):
        monkeypatch.delenv(name, raising=False)
    build.book("smoke", 2, mini)
    page = mini / "_build/html/chapters/01-alpha/alpha.html"
    other = mini / "_build/html/chapters/02-beta/beta.html"
    text = page.read_text(encoding="utf-8")
    assert "Made of" in text and "0.75" in text and "A line that rises." in text
    assert "Fig. 1" in text and 'class="solution dropdown' in text and "[0, 1, 2]" in text
    assert "google.colab" not in text and "profile = " not in text
    before = os.stat(other).st_mtime_ns

    change(mini / "chapters/01-alpha/alpha.md", "Made of", "Built of")
    build.book("smoke", 2, mini)
    assert "Built of" in page.read_text(encoding="utf-8")
    assert os.stat(other).st_mtime_ns == before, "a prose edit in one chapter rendered another"

    change(mini / "chapters/02-beta/beta.md", "# Beta", "# Gamma")
    build.book("smoke", 2, mini)
    assert "Gamma" in page.read_text(encoding="utf-8"), "a new title did not reach the other pages' sidebar"

    # A warning is an error, and stays one when nothing changes in between.
    change(mini / "chapters/02-beta/beta.md", "# Gamma", "# Gamma\n\n{numref}`fig-none`")
    for _ in range(2):
        with pytest.raises(BookError, match="did not render"):
            build.book("smoke", 2, mini)


def test_staged_chapter(mini):
    run_both(mini)
    alpha = notebooks.chapters(["alpha"], mini)[0]
    nb = publish.staged(alpha, "smoke", mini)
    cells = code_cells(nb)
    hidden = [c for c in cells if "remove-cell" in tags(c)]
    assert [set(tags(c)) & {"parameters", "setup"} for c in hidden] == [{"parameters"}, {"setup"}]
    drawn = next(c for c in cells if "mystnb" in c["metadata"])
    assert drawn["metadata"]["mystnb"] == {
        "image": {"alt": "A line that rises."},
        "figure": {"caption": "A *line*.", "name": "fig-line"},
    }
    assert "provenance" not in json.dumps([c["outputs"] for c in cells])
    assert any("{term}" in source(c) for c in nb["cells"]), "the renderer needs the text as it was written"


def test_two_figures_in_one_cell_are_refused(mini):
    run_both(mini)
    alpha = notebooks.chapters(["alpha"], mini)[0]
    path = execute.executed(alpha, "smoke", mini)
    nb = notebooks.load(path)
    cell = next(c for c in code_cells(nb) if "fig-line" in source(c))
    cell["outputs"] *= 2
    path.write_bytes(notebooks.dump(nb))
    with pytest.raises(BookError, match="one cell shows the figures fig-line, fig-line"):
        publish.staged(alpha, "smoke", mini)


def test_staging_touches_only_what_changed_and_sweeps(mini):
    run_both(mini)
    src = publish.stage("smoke", None, mini)
    times = {p: p.stat().st_mtime_ns for p in src.rglob("*") if p.is_file()}
    assert src / "chapters/01-alpha/alpha.ipynb" in times and src / "book/index.md" in times
    (src / "book" / "old.md").write_text("# Old")
    publish.stage("smoke", None, mini)
    assert {p: p.stat().st_mtime_ns for p in src.rglob("*") if p.is_file()} == times


def test_an_unrun_chapter_is_named(mini):
    with pytest.raises(BookError, match="01-alpha has not run at lesson"):
        publish.stage("lesson", None, mini)
