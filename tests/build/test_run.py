"""The front door: what run.py does on machines that lack something, without installing anything."""

import os
import subprocess
import sys
import types

import pytest

import run


@pytest.fixture
def house(tmp_path, monkeypatch):
    """An empty checkout for run.py, with calls noted and not made."""
    (tmp_path / "pyproject.toml").write_text("[project]")
    (tmp_path / "constraints.txt").write_text("a==1")
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.setattr(run, "VENV", tmp_path / ".venv")
    calls = []

    def make_venv():
        calls.append("venv")
        python = run.python_in(run.VENV)
        python.parent.mkdir(parents=True)
        python.touch()

    monkeypatch.setattr(run, "make_venv", make_venv)
    monkeypatch.setattr(run, "works", lambda python: python.exists() and not (run.VENV / "torn").exists())
    monkeypatch.setattr(run, "install", lambda python, extras: calls.append(extras))
    return types.SimpleNamespace(root=tmp_path, calls=calls)


@pytest.mark.parametrize(
    ("version", "said"),
    [((3, 10, 2), "too old"), ((3, 14, 0), "too new"), ((2, 7, 18), "too old"), ((3, 11, 0), None), ((3, 13, 9), None)],
)
def test_version(version, said):
    problem = run.version_problem(version)
    assert (problem is None) if said is None else said in problem and "3.11 to 3.13" in problem


def test_environment_is_made_once_and_again_when_the_pins_change(house):
    run.ready()
    assert house.calls == ["venv", run.EXTRAS]
    run.ready()
    assert house.calls == ["venv", run.EXTRAS]
    (house.root / "constraints.txt").write_text("a==2")
    run.ready()
    assert house.calls == ["venv", run.EXTRAS, run.EXTRAS]
    run.ready("lab", ".ready-lab")
    run.ready("lab", ".ready-lab")
    assert house.calls[3:] == ["lab"]


def test_an_interrupted_install_goes_on(house, monkeypatch):
    def stop(python, extras):
        raise KeyboardInterrupt

    install = run.install
    monkeypatch.setattr(run, "install", stop)
    with pytest.raises(KeyboardInterrupt):
        run.ready()
    monkeypatch.setattr(run, "install", install)
    run.ready()
    assert house.calls == ["venv", run.EXTRAS], "the environment was kept and the install done"
    (run.VENV / "torn").touch()
    (run.VENV / ".ready").unlink()
    run.ready()
    assert house.calls[2:] == ["venv", run.EXTRAS], "an environment that does not run is made again"


def test_a_python_without_venv_is_told_what_to_install(house, monkeypatch):
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    with pytest.raises(run.Stop, match=r"sudo apt-get install python3\.\d+-venv"):
        run.ready()
    assert house.calls == []


def test_an_unfit_python_hands_over_or_is_refused(house, monkeypatch):
    handed = []
    monkeypatch.setattr(run.sys, "version_info", (3, 10, 0))
    monkeypatch.setattr(run, "other_python", lambda: None)
    with pytest.raises(run.Stop, match="too old"):
        run.main(["book"])
    assert house.calls == []
    monkeypatch.setattr(run, "other_python", lambda: "python3.12")
    monkeypatch.setattr(run.subprocess, "call", lambda words: handed.append(words) or 0)
    assert run.main(["book"]) == 0
    assert handed[0][0] == "python3.12" and handed[0][-1] == "book"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("OSError: [Errno 28] No space left on device", "The disk is full"),
        (
            "Failed to establish a new connection: [Errno -3] Temporary failure in name resolution",
            "could not be reached",
        ),
        ("ReadTimeoutError: Read timed out.", "could not be reached"),
        ("ERROR: No matching distribution found for nothing", "could not install"),
    ],
)
def test_why_an_install_failed(words, said):
    assert said in run.why(words)


def test_pip_child_may_write_compiled_files(tmp_path, monkeypatch):
    if os.name == "nt":
        pytest.skip("the stand-in for pip is a shell script")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setattr(run, "ROOT", tmp_path)
    fake = tmp_path / "python"
    fake.write_text('#!/bin/sh\necho "$PYTHONDONTWRITEBYTECODE|$@" > seen\n')
    fake.chmod(0o755)
    run.install(fake, "book")
    seen = (tmp_path / "seen").read_text()
    assert seen.startswith("|-m pip install") and "-c constraints.txt -e .[book]" in seen
    fake.write_text("#!/bin/sh\necho 'Collecting a'; echo 'No space left on device' >&2\nexit 1\n")
    with pytest.raises(run.Stop, match="The disk is full"):
        run.install(fake, "book")
    assert "PYTHONDONTWRITEBYTECODE" not in run.environment() and run.environment()["OMP_WAIT_POLICY"] == "PASSIVE"


@pytest.mark.parametrize("how", ["--profile smoke", "PROFILE=smoke"])
def test_a_job_reaches_the_build_tool(house, monkeypatch, how):
    called = []
    monkeypatch.setattr(run, "call", lambda python, *words, **more: called.append(words) or 0)
    for name in ("PROFILE", "JOBS", "CHAPTER"):
        monkeypatch.delenv(name, raising=False)
    if how.startswith("PROFILE"):
        monkeypatch.setenv("PROFILE", "smoke")
    assert run.main(["book", *([] if how.startswith("PROFILE") else how.split())]) == 0
    assert called == [("book.build", "book", "--profile", "smoke")]
    with pytest.raises(run.Stop, match="Which chapter"):
        run.main(["full"])
    run.main(["full", "--chapter", "baselines"])
    assert called[-1][-2:] == ("--chapter", "baselines")
    run.main(["book", "--jobs", "3"])
    assert called[-1][-2:] == ("--jobs", "3")


def test_every_check_runs_and_the_failed_ones_are_named(house, monkeypatch, capfd):
    monkeypatch.setattr(run, "call", lambda python, *words, **more: int("format" in words))
    assert run.main(["test"]) == 1
    said = capfd.readouterr().out
    assert "== stored outputs" in said and said.rstrip().endswith("FAILED: layout")


def test_clean_leaves_the_environment(house):
    for name in ("_build", ".venv", "book/__pycache__"):
        (house.root / name).mkdir(parents=True)
    run.main(["clean"])
    assert (house.root / ".venv").exists() and not (house.root / "_build").exists()
    assert not (house.root / "book/__pycache__").exists()
    run.main(["clean", "--all"])
    assert not (house.root / ".venv").exists()


@pytest.mark.skipif(os.name == "nt", reason="there is no make")
def test_make_only_calls_run(root):
    words = ["make", "--dry-run", "--no-print-directory"]
    for job in run.JOBS:
        done = subprocess.run([*words, job, "PYTHON=py"], cwd=root, capture_output=True, text=True)
        if done.returncode == 127:
            pytest.skip("make is not installed")
        assert done.stdout.split() == ["py", "run.py", job]


@pytest.mark.skipif(os.name == "nt", reason="there is no make")
@pytest.mark.parametrize("before", [True, False], ids=["PROFILE=smoke make book", "make book PROFILE=smoke"])
def test_make_passes_the_profile_on(root, tmp_path, before):
    stand_in = tmp_path / "py"
    stand_in.write_text('#!/bin/sh\necho "$PROFILE|$CHAPTER|$@"\n')
    stand_in.chmod(0o755)
    env = {k: v for k, v in os.environ.items() if k not in ("PROFILE", "CHAPTER", "JOBS")}
    words = ["make", "--no-print-directory", "book", f"PYTHON={stand_in}"]
    if before:
        env["PROFILE"] = "smoke"
    else:
        words.append("PROFILE=smoke")
    done = subprocess.run(words, cwd=root, env=env, capture_output=True, text=True)
    assert done.stdout == "smoke||run.py book\n"


def test_the_oldest_grammar_is_enough_to_read_it(root):
    import ast

    ast.parse((root / "run.py").read_text(encoding="utf-8"), feature_version=(3, 6))
