"""Notebooks are the reader's: copies in ``work/`` that stay as they were left, and nothing lost from ``chapters/``."""

import copy
import json
import subprocess

import nbformat
import pytest

from book import build, notebooks, work


@pytest.fixture
def alpha(mini):
    build.sync(None, mini)
    return notebooks.chapters(["alpha"], mini)[0]


def ran(path):
    """Save a notebook as Jupyter does after its first cell ran; returns what the file then holds."""
    nb = nbformat.read(path, as_version=4)
    cell = next(c for c in nb.cells if c.cell_type == "code")
    cell.execution_count = 7
    cell.outputs = [nbformat.v4.new_output("stream", text="mine\n")]
    nb.metadata.language_info = {"name": "python", "version": "3.12.1"}
    nbformat.write(nb, path)
    return path.read_bytes()


def names(mini):
    return sorted(p.name for p in (mini / "work" / "01-alpha").iterdir())


def test_a_copy_is_renewed_until_the_reader_changes_it(mini, alpha, change):
    """One story: copied; unchanged copies follow the chapter; a changed one stays, with the new version beside it."""
    assert [line.split("  ")[0] for line in work.copies(None, mini)] == [
        "work/01-alpha/alpha.ipynb",
        "work/02-beta/beta.ipynb",
    ]
    mine = mini / "work/01-alpha/alpha.ipynb"
    assert mine.read_bytes() == alpha.notebook.read_bytes() and work.copies(None, mini) == []

    change(alpha.text, "Made of", "Built of")
    assert len(work.copies(None, mini)) == 1 and b"Built of" in mine.read_bytes()

    kept = ran(mine)
    assert work.copies(None, mini) == [], "the chapter did not change: there is nothing to say"
    change(alpha.text, "Built of", "Grown of")
    said = work.copies(None, mini)
    new = "work/01-alpha/alpha.new.ipynb"
    assert said == [f"work/01-alpha/alpha.ipynb  is yours and stays; the chapter changed, see {new}"]
    assert mine.read_bytes() == kept and work.copies(None, mini) == []

    change(alpha.text, "Grown of", "Laid of")
    assert len(work.copies(None, mini)) == 1, "the new version, which nobody touched, is renewed"
    assert names(mini) == ["alpha.ipynb", "alpha.new.ipynb"]
    new = ran(mini / "work/01-alpha/alpha.new.ipynb")
    change(alpha.text, "Laid of", "Cut of")
    assert "alpha.new-2.ipynb" in work.copies(None, mini)[0]
    assert (mine.read_bytes(), (mini / "work/01-alpha/alpha.new.ipynb").read_bytes()) == (kept, new)

    mine.unlink()
    assert "copied from" in work.copies(None, mini)[0]


@pytest.mark.parametrize("left", [None, "{torn", "[]"])
def test_without_its_notes_every_copy_counts_as_changed(mini, alpha, change, left):
    work.copies(None, mini)
    kept = (mini / "work/01-alpha/alpha.ipynb").read_bytes()
    notes = mini / "work/.made.json"
    notes.write_text(left) if left else notes.unlink()
    assert work.copies(None, mini) == []
    notes.write_text(left) if left else notes.unlink()
    change(alpha.text, "Made of", "Built of")
    assert "stays" in work.copies(None, mini)[0]
    assert (mini / "work/01-alpha/alpha.ipynb").read_bytes() == kept


def edited(nb):
    nb["cells"][1]["source"] = "# Mine"


def added(nb):
    nb["cells"].append({**copy.deepcopy(notebooks.code_cells(nb)[0]), "id": "deadbeef"})


def executed(nb):
    notebooks.code_cells(nb)[0] |= {"execution_count": 1, "outputs": [{"output_type": "stream", "text": "x"}]}


def removed_in_jupyter(nb):
    del nb["cells"][1]
    nb["metadata"]["language_info"] = {"name": "python", "version": "3.12.1"}


@pytest.mark.parametrize("how", [edited, added, executed, removed_in_jupyter], ids=lambda f: f.__name__)
def test_a_change_by_hand_is_seen(alpha, how):
    assert not work.changed_by_hand(alpha)
    nb = notebooks.load(alpha.notebook)
    how(nb)
    alpha.notebook.write_bytes(notebooks.dump(nb))
    assert work.changed_by_hand(alpha)


def test_a_notebook_of_an_older_text_is_no_change_by_hand(mini, alpha, change):
    change(alpha.text, "Made of", "Built of")
    assert not work.changed_by_hand(alpha) and work.set_aside(alpha, mini) is None
    assert build.sync(None, mini) == ["01-alpha"] and not (mini / "work").exists()


@pytest.mark.parametrize("committed", [True, False], ids=["git", "no git"])
def test_sync_keeps_what_was_changed_in_chapters(mini, alpha, capsys, committed):
    """The reader's version moves to work/, twice under two names; stored outputs are those of the commit."""
    nb = notebooks.load(alpha.notebook)
    checked = next(c for c in notebooks.code_cells(nb) if notebooks.CHECKED in notebooks.tags(c))
    notebooks.store_outputs(checked, [{"output_type": "stream", "name": "stdout", "text": "stored"}])
    notebooks.write(alpha.notebook, notebooks.dump(nb))
    made = alpha.notebook.read_bytes()
    assert build.sync(None, mini) == []
    if committed:
        git = ["git", "-C", str(mini), "-c", "user.name=a", "-c", "user.email=a@b"]
        for words in (["init", "-q"], ["add", "chapters"], ["commit", "-qm", "x"]):
            subprocess.run([*git, *words], check=True)
    mine = ran(alpha.notebook)
    capsys.readouterr()
    build.sync(None, mini)
    assert "kept as work/01-alpha/alpha.yours.ipynb" in capsys.readouterr().out
    assert (mini / "work/01-alpha/alpha.yours.ipynb").read_bytes() == mine
    assert (alpha.notebook.read_bytes() == made) is committed
    assert "mine" not in alpha.notebook.read_text() and ("stored" in alpha.notebook.read_text()) is committed
    alpha.notebook.write_bytes(mine)
    build.sync(None, mini)
    assert names(mini) == ["alpha.yours.ipynb"], "the same once more is kept once"
    nb = json.loads(mine)
    edited(nb)
    alpha.notebook.write_bytes(notebooks.dump(nb))
    build.sync(None, mini)
    assert names(mini) == ["alpha.yours-2.ipynb", "alpha.yours.ipynb"]


def test_lab_lays_the_copies_and_says_what_is_where(mini, alpha, capsys):
    mine = ran(alpha.notebook)
    build.lab(None, mini)
    said = capsys.readouterr().out
    assert "alpha.yours.ipynb" in said and "work/02-beta/beta.ipynb  copied from chapters/02-beta/beta.ipynb" in said
    assert (mini / "work/01-alpha/alpha.yours.ipynb").read_bytes() == mine
    build.lab(None, mini)
    assert capsys.readouterr().out == "every copy in work/ is up to date\n"


def test_a_cell_that_an_editor_removed_is_seen_where_a_sync_noted_the_file(mini, alpha):
    git = ["git", "-C", str(mini), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], check=True)
    nb = json.loads(alpha.notebook.read_text())
    fewer = notebooks.dump(nb | {"cells": nb["cells"][:-1]})
    alpha.notebook.write_bytes(fewer)
    kept = work.set_aside(alpha, mini)
    assert kept.read_bytes() == fewer and len(notebooks.load(alpha.notebook)["cells"]) == len(nb["cells"])


def test_storing_outputs_keeps_what_was_changed_meanwhile(mini, alpha, monkeypatch, capsys):
    mine = ran(alpha.notebook)
    monkeypatch.setattr(build.execute, "executed", lambda page, profile, root: page.notebook)
    monkeypatch.setattr(build, "store_outputs", lambda cell, outputs: None)
    build.store(alpha, mini)
    assert (mini / "work/01-alpha/alpha.yours.ipynb").read_bytes() == mine
    assert "was changed by hand" in capsys.readouterr().out
