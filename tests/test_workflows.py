"""Continuous integration runs the README's command, with pinned actions and no more rights than it needs."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
MAY_WRITE = {"pages", "id-token"}


def problems(text: str) -> list[str]:
    """Actions that are not pinned by a whole commit with its version beside it, and rights beyond reading."""
    said = []
    for line in re.findall(r"uses:\s*(.+)", text):
        if not re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+(\.\d+){0,2}", line.strip()):
            said.append(f"not pinned by commit and version: {line.strip()}")
    found = yaml.safe_load(text)
    if found.get("permissions") != {"contents": "read"}:
        said.append("the workflow's rights are not {contents: read}")
    if "pull_request_target" in (found.get(True) or found.get("on") or {}):
        said.append("it runs anybody's code with the repository's rights")
    for name, job in found["jobs"].items():
        rights = job.get("permissions", {})
        if not isinstance(rights, dict) or any(v == "write" and k not in MAY_WRITE for k, v in rights.items()):
            said.append(f"the job {name} may write more than pages")
        if "timeout-minutes" not in job:
            said.append(f"the job {name} has no time limit")
    return said


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_pinned_and_least(path):
    assert problems(path.read_text(encoding="utf-8")) == []


def test_what_runs():
    texts = {p.stem: p.read_text(encoding="utf-8") for p in WORKFLOWS}
    assert {"test", "book", "links", "nightly", "gpu"} <= texts.keys()
    assert yaml.safe_load(texts["test"])["jobs"]["test"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    assert "run: .ci/run" in texts["test"] and "run: make book\n" in texts["book"]
    assert all("schedule" in yaml.safe_load(texts[name])[True] for name in ("links", "nightly"))
    assert "run: make gpu\n" in texts["gpu"] and "if: vars.GPU_RUNNER" in texts["gpu"]
    assert "pytest tests -m nightly" in texts["nightly"]
    assert (
        'pytest chapters/[0-9][0-9]-"$CHAPTER" --nbval-lax' in texts["nightly"] and "BORROWED_LIVE" in texts["nightly"]
    )


@pytest.mark.skipif(os.name == "nt", reason="a shell script")
def test_ci_calls_make_test(tmp_path):
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "set -eo pipefail" in script.read_text() and script.read_text().rstrip().endswith("exec make test")
    # With a browser there and a stand-in for make, it calls make test in the repository and passes its status on.
    for name, body in {
        "chromium": "",
        "chromedriver": "",
        "make": 'pwd > "$SEEN"; echo "$@" >> "$SEEN"; exit 3',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SEEN": str(tmp_path / "seen")}
    assert subprocess.run([script], env=env, cwd=tmp_path).returncode == 3
    assert (tmp_path / "seen").read_text().split("\n")[:2] == [str(ROOT), "test"]


GOOD = "on: push\npermissions: {contents: read}\njobs: {a: {timeout-minutes: 5, steps: [\n{uses: x}]}}\n"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("{uses: x}", "\n    uses: actions/checkout@v5\n", "not pinned"),
        ("permissions: {contents: read}", "", "rights are not"),
        ("{contents: read}", "write-all", "rights are not"),
        ("timeout-minutes: 5, ", "", "no time limit"),
        ("timeout-minutes: 5, ", "timeout-minutes: 5, permissions: {contents: write}, ", "may write more"),
        ("on: push", "on: {pull_request_target: {}}", "anybody's code"),
    ],
)
def test_bad_workflows_are_seen(old, new, said):
    good = GOOD.replace("[\n{uses: x}]", "[]")
    assert problems(good) == []
    if old.startswith("{uses"):
        good = good.replace("steps: []", "uses: actions/checkout@v5")
        assert said in " ".join(problems(good))
    else:
        assert said in " ".join(problems(good.replace(old, new)))
