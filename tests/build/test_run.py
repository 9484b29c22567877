"""The front door: what run.py does on machines that lack something, without installing anything."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
import types
import urllib.error
import urllib.request

import pytest

import run


@pytest.fixture
def house(tmp_path, monkeypatch):
    """An empty checkout for run.py, with calls noted and not made."""
    (tmp_path / "pyproject.toml").write_text("[project]")
    (tmp_path / "constraints.txt").write_text("a==1")
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.delenv("PYTHON", raising=False)
    calls = []

    def make_venv(venv):
        calls.append("venv")
        python = run.python_in(venv)
        python.parent.mkdir(parents=True)
        python.touch()
        (venv / "pyvenv.cfg").write_text("version = {}.{}.0\n".format(*sys.version_info[:2]))

    monkeypatch.setattr(run, "make_venv", make_venv)
    monkeypatch.setattr(run, "works", lambda python: python.exists() and not (tmp_path / ".venv" / "torn").exists())
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
    run.ready("peers", ".ready-peers")
    run.ready("peers", ".ready-peers")
    assert house.calls[3:] == ["peers"]


@pytest.mark.parametrize("key", ["version", "version_info"], ids=["venv", "uv"])
def test_the_environment_of_another_python_is_left_alone(house, monkeypatch, key):
    (house.root / ".venv").mkdir()
    (house.root / ".venv" / "pyvenv.cfg").write_text(f"home = x\n{key} = 3.9.1\n")
    python = run.ready()
    assert python.relative_to(house.root).parts[0] == ".venv-{}.{}".format(*sys.version_info[:2])
    assert [p.name for p in (house.root / ".venv").iterdir()] == ["pyvenv.cfg"] and house.calls == ["venv", run.EXTRAS]
    assert run.ready() == python and house.calls == ["venv", run.EXTRAS]
    assert run.venv_of((3, 9, 7)).name == ".venv"
    run.main(["clean", "--all"])
    assert not list(house.root.glob(".venv*"))


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
    (house.root / ".venv" / "torn").touch()
    (house.root / ".venv" / ".ready").unlink()
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
    monkeypatch.setattr(run, "pythons", dict)
    with pytest.raises(run.Stop, match="too old"):
        run.main(["book"])
    assert house.calls == []
    monkeypatch.setattr(run, "pythons", lambda: {(3, 12): "python3.12", (3, 11): "python3.11"})
    monkeypatch.setattr(run, "patient", lambda words, last, env: handed.append(words) or 0)
    assert run.main(["book"]) == 0
    assert handed[0][0] == "python3.12" and handed[0][-1] == "book"


@pytest.fixture
def stands_in(tmp_path, monkeypatch):
    """Makes a Python that says a version, in the home folder or, with the folder ``bin``, on the path."""
    if os.name == "nt":
        pytest.skip("the stand-ins are shell scripts")
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}/bin{os.pathsep}/usr/bin")
    monkeypatch.setattr(run, "HOMES", tuple(home for home in run.HOMES if home.startswith("~")))

    def make(place, says):
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{'exit 127' if says is None else f'echo {says} {path}'}\n")
        path.chmod(0o755)
        return str(path)

    return make


def test_other_pythons_are_found_where_they_lie(stands_in):
    """A shim of pyenv that has nothing behind it is passed over; its version is found where pyenv keeps it."""
    for minor in range(run.OLDEST[1], run.NEWEST[1] + 1):
        stands_in(f"bin/python3.{minor}", None)
    assert run.pythons() == {}
    old = stands_in(".pyenv/versions/3.13.0/bin/python3", "3 13")
    new = stands_in(".pyenv/versions/3.13.5/bin/python3", "3 13")
    uv = stands_in(".local/share/uv/python/cpython-3.12.4-linux/bin/python3", "3 12")
    stands_in(".pyenv/versions/3.9.1/bin/python3", "3 9")
    assert list(run.pythons().items()) == [((3, 13), new), ((3, 12), uv)]
    assert run.named_python("python3.13") == run.named_python("3.13") == new != old
    assert run.named_python(old) == old
    with pytest.raises(run.Stop, match=r"PYTHON=python3\.11 does not run here. On this machine: 3\.13 \(.*3\.12 \("):
        run.named_python("python3.11")


def test_the_named_python_takes_over(house, monkeypatch, stands_in, capfd):
    handed = []
    monkeypatch.setattr(run, "patient", lambda words, last, env: handed.append((words, env)) or 0)
    monkeypatch.setattr(run, "call", lambda python, *words, **more: 0)
    other = next(v for v in ((3, 11), (3, 12)) if v != sys.version_info[:2])
    path = stands_in(".pyenv/versions/x/bin/python3", "{} {}".format(*other))
    monkeypatch.setenv("PYTHON", "python{}.{}".format(*other))
    assert run.main(["book", "--profile", "smoke"]) == 0
    assert handed[0][0][0] == path and handed[0][0][2:] == ["book", "--profile", "smoke"]
    assert "PYTHON" not in handed[0][1] and house.calls == []
    same = stands_in("same", "{} {}".format(*sys.version_info[:2]))
    monkeypatch.setenv("PYTHON", same)
    assert run.main(["book"]) == 0 and len(handed) == 1 and house.calls == ["venv", run.EXTRAS]


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
    with pytest.raises(run.Stop, match="Which method"):
        run.main(["new"])
    run.main(["new", "--method", "mine"])
    assert called[-1] == ("book.new", "mine")
    run.main(["full", "--chapter", "baselines"])
    assert called[-1][-2:] == ("--chapter", "baselines")
    run.main(["gpu", "--profile", "smoke", "--device", "cuda"])
    assert called[-1][1] == "gpu" and called[-1][-4:] == ("--profile", "smoke", "--device", "cuda")
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
        for named, used in ((sys.executable, sys.executable), ("python3.99", "python3")):
            done = subprocess.run([*words, job, f"PYTHON={named}"], cwd=root, capture_output=True, text=True)
            if done.returncode == 127:
                pytest.skip("make is not installed")
            assert done.stdout.split() == [used, "run.py", job]


@pytest.mark.skipif(os.name == "nt", reason="there is no make")
@pytest.mark.parametrize("before", [True, False], ids=["PROFILE=smoke make book", "make book PROFILE=smoke"])
def test_make_passes_the_profile_on(root, tmp_path, before):
    stand_in = tmp_path / "py"
    stand_in.write_text(f'#!/bin/sh\n[ "$1" = -c ] && echo {stand_in} || echo "$PROFILE|$CHAPTER|$@"\n')
    stand_in.chmod(0o755)
    env = {k: v for k, v in os.environ.items() if k not in ("PROFILE", "CHAPTER", "JOBS")}
    words = ["make", "--no-print-directory", "book", f"PYTHON={stand_in}"]
    if before:
        env["PROFILE"] = "smoke"
    else:
        words.append("PROFILE=smoke")
    done = subprocess.run(words, cwd=root, env=env, capture_output=True, text=True)
    assert done.stdout == "smoke||run.py book\n"


LAB = """import pathlib, sys, run
run.ROOT, run.build = pathlib.Path(sys.argv[1]), lambda *a: 0
sys.exit(run.lab(sys.executable, None))"""


def opened(address, seconds=20):
    """The page at an address; the server says where it is a moment before it listens."""
    until = time.monotonic() + seconds
    while True:
        try:
            return urllib.request.urlopen(address, timeout=30)
        except urllib.error.URLError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


@pytest.mark.skipif(os.name == "nt", reason="signals are sent in another way there")
def test_lab_answers_on_this_machine_alone_and_ends_with_one_key(root, tmp_path):
    """As it is: without a browser, as whoever runs the tests; its address opens, and a key press leaves no trace."""
    pytest.importorskip("jupyterlab", reason="install the extra: pip install 'borrowed-strength[lab]'")
    (tmp_path / "work").mkdir()
    env = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")}
    env |= {"PYTHONPATH": os.pathsep.join([str(root), env.get("PYTHONPATH", "")]), "HOME": str(tmp_path)}
    words = [sys.executable, "-c", LAB, str(tmp_path)]
    with subprocess.Popen(
        words, env=env, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as child:
        timer = threading.Timer(90, os.killpg, (child.pid, signal.SIGKILL))
        timer.start()
        try:
            said = ""
            while not (found := re.search(r"http://127\.0\.0\.1:\d+/lab\?token=\w+", said)):
                line = child.stdout.readline()
                assert line, said
                said += line
            with opened(found[0]) as page:
                assert page.status == 200 and b"JupyterLab" in page.read()
            os.killpg(child.pid, signal.SIGINT)
            said += child.communicate()[0]
        finally:
            timer.cancel()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
    assert child.returncode == 0 and "What you saved is in work/" in said
    assert "Traceback" not in said and "[E " not in said


def test_lab_tells_jupyter_what_this_machine_lacks(monkeypatch):
    monkeypatch.setattr(run.sys, "platform", "linux")
    monkeypatch.setattr(run.os, "geteuid", lambda: 0, raising=False)
    assert run.lab_options({}) == ["--allow-root", "--no-browser"]
    monkeypatch.setattr(run.os, "geteuid", lambda: 1000, raising=False)
    assert run.lab_options({"DISPLAY": ":0"}) == [] and run.lab_options({}) == ["--no-browser"]
    monkeypatch.setattr(run.sys, "platform", "darwin")
    assert run.lab_options({}) == []


@pytest.mark.skipif(os.name == "nt", reason="signals are sent in another way there")
def test_a_key_press_lets_the_job_end_in_peace(root, tmp_path):
    """The job gets the key press too and may clean up; run.py stops after it, and starts no further step."""
    (tmp_path / "slow_job.py").write_text(
        "import pathlib, time\n"
        "try:\n    print('up', flush=True); time.sleep(60)\n"
        "except KeyboardInterrupt:\n    time.sleep(1); pathlib.Path('cleaned').touch()\n"
    )
    code = f"import pathlib, sys, run; run.ROOT = pathlib.Path({str(tmp_path)!r}); job = run.call\n"
    code += "run.steps([('one', lambda: job(sys.executable, 'slow_job')), ('two', lambda: print('another step'))])"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    env = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen([sys.executable, "-c", code], env=env, cwd=tmp_path, **pipes) as child:
        while "up" not in child.stdout.readline():
            assert child.poll() is None
        os.killpg(child.pid, signal.SIGINT)
        out, err = child.communicate()
    assert (tmp_path / "cleaned").exists() and "KeyboardInterrupt" in err and "another step" not in out


def test_the_oldest_grammar_is_enough_to_read_it(root):
    import ast

    ast.parse((root / "run.py").read_text(encoding="utf-8"), feature_version=(3, 6))
