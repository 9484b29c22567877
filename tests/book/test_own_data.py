"""What README and *Your own data* print is run as it stands, on files made of a bundled set."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

from shared.data import __main__ as cli
from shared.data import load

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = 40  # what a phone shows of a box of code
BLOCK = re.compile(r"^```(python|sh|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def replay(text: str) -> list[tuple[str, str]]:
    """Run the blocks of a page in their order; each box of output beside what came."""
    space, said, pairs = {}, "", []
    for language, code in BLOCK.findall(text):
        if language == "python":
            exec(compile(code, "<page>", "exec"), space)
        elif language == "sh":
            said = "".join(map(shell, code.replace("\\\n", " ").splitlines()))
        else:
            pairs.append((code, said))
    return pairs


def shell(line: str) -> str:
    """What a command prints; those that install or build are looked up and not run."""
    words = shlex.split(line, comments=True)
    if words[:3] == ["python", "-m", "shared.data"]:
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            assert cli.main(words[3:]) in (0, 1, 2)
        assert "usage:" not in out.getvalue(), out.getvalue()
        return out.getvalue()
    if words[:1] == ["make"]:
        targets = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert re.search(rf"^(.* )?{words[1]}\b.*:", targets, re.MULTILINE), line
    else:
        assert words[:2] in ([], ["pip", "install"]), f"a command that nobody ran: {line}"
    return ""


def with_output(text: str, pairs) -> str:
    """A page whose boxes of output hold what came."""
    came = iter(said for _, said in pairs)
    fill = lambda m: f"```text\n{next(came)}```" if m[1] == "text" else m[0]  # noqa: E731
    return BLOCK.sub(fill, text)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", str(COLUMNS))


@pytest.mark.filterwarnings("ignore")
def test_your_own_data_runs_as_printed(folder):
    page = ROOT / "book" / "your-own-data.md"
    text = page.read_text(encoding="utf-8")
    pairs = replay(text)
    if os.environ.get("BORROWED_WRITE_PAGES"):
        page.write_text(with_output(text, pairs), encoding="utf-8")
        return
    assert len(pairs) == 6
    for printed, came in pairs:
        assert printed == came
        assert all(len(line) <= COLUMNS for line in printed.splitlines() if "python -m" not in line)


@pytest.mark.filterwarnings("ignore")
def test_readme_runs_as_printed(folder):
    blood = load("pbmc")
    cells = np.arange(0, blood.n_obs, 4)
    genes = np.argsort(-np.asarray(blood.X.sum(0)).ravel(), kind="stable")[:300]
    mine = ad.AnnData(blood.X[cells][:, genes], obs=blood.obs.iloc[cells], var=blood.var.iloc[genes])
    mine.obs["donor"] = mine.obs["run"].map({"run1": "A", "run2": "B"}).astype(str)
    mine.write_h5ad("my_cells.h5ad")
    replay((ROOT / "README.md").read_text(encoding="utf-8"))
