"""Sweeps: every item has its result once, whatever dies meanwhile, and a second call goes on where one stopped."""

import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import joblib
import numpy as np
import pytest

from shared.data import parallel
from shared.data.constraints import SettingError
from shared.data.errors import DataError
from shared.data.parallel import Failure, SweepWarning, each

KILLED = getattr(signal, "SIGKILL", signal.SIGTERM)
HERE = {"workers": 0, "progress": False}


def note(folder, what, text=""):
    """Leave a mark that other processes see."""
    (Path(folder) / f"{what}-{os.getpid()}-{time.monotonic_ns()}").write_text(text)


def marks(folder):
    return Counter(p.name.split("-")[0] for p in Path(folder).iterdir())


def square(folder, n):
    note(folder, n)
    return {"n": n, "square": n * n, "threads": os.environ.get("OMP_NUM_THREADS"), "pid": os.getpid()}


def dangerous(folder, n):
    """Item 3 waits to be killed, the first time; item 5 kills its process every time."""
    first = not marks(folder)[str(n)]
    note(folder, n)
    if n == 3 and first:
        time.sleep(60)
    if n == 5:
        os.kill(os.getpid(), KILLED)
    return n * n


def moody(folder, name):
    """Fails the first time where the name says once, always where it says never."""
    tries = marks(folder)[name] + 1
    note(folder, name)
    if name == "never" or (name == "once" and tries == 1):
        raise FileNotFoundError(f"no file\nfor {name}")
    return len(name)


class Unsendable(Exception):
    def __init__(self, a, b):  # cannot be made again from its message alone
        super().__init__(a + b)


def raises_unsendable(name):
    raise Unsendable("lost ", name)


def ends_its_process(parent, name):
    assert os.getpid() != parent, "it ran here"
    if name == "fatal":
        os.kill(os.getpid(), KILLED)
    return name


def quits(name):
    sys.exit(3)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "marks").mkdir()
    return tmp_path / "marks"


@pytest.fixture(scope="module")
def client():
    """A cluster of two processes of the test's own, for what need not start one."""
    distributed = pytest.importorskip("distributed")
    how = {"threads_per_worker": 1, "dashboard_address": None, "host": "127.0.0.1", "silence_logs": "CRITICAL"}
    with distributed.LocalCluster(2, **how) as cluster, distributed.Client(cluster) as found:
        yield found


def test_workers_are_killed_in_the_middle_and_all_results_arrive_once(folder, tmp_path, monkeypatch):
    killed, written = [], []

    def kill():
        while not killed:
            for mark in folder.glob("3-*"):
                killed.append(int(mark.name.split("-")[1]))
                os.kill(killed[0], KILLED)
                return
            time.sleep(0.02)

    write = parallel.write_note
    monkeypatch.setattr(parallel, "write_note", lambda path, n: (written.append(n["item"]), write(path, n)))
    thread = threading.Thread(target=kill)
    thread.start()
    try:
        with pytest.warns(SweepWarning, match=r"1 item of 8 failed \(5\).*process was lost"):
            run = functools.partial(dangerous, folder)
            found = each(run, range(8), workers=2, out=tmp_path / "out", progress=False)
    finally:
        killed.append(None)
        thread.join()
    assert list(found) == [str(n) for n in range(8)]
    lost = found.pop("5")
    assert isinstance(lost, Failure) and not lost
    assert found == {str(n): n * n for n in range(8) if n != 5}
    assert sorted(written) == [str(n) for n in range(8)], "each item was settled once"
    assert killed[0] not in (None, os.getpid()) and marks(folder)["3"] == marks(folder)["5"] == 2
    pids = {int(p.name.split("-")[1]) for p in folder.iterdir()}
    assert len(pids) >= 3 and os.getpid() not in pids


@pytest.mark.parametrize("where", ["cluster", "processes"])
def test_two_processes_share_the_work_with_one_thread_each(where, request, folder):
    client = None if where == "processes" else request.getfixturevalue("client")
    how = {"client": client} if client else {"workers": 2}
    found = each(functools.partial(square, folder), range(12), **how, progress=False)
    assert [r["square"] for r in found.values()] == [n * n for n in range(12)]
    assert {r["threads"] for r in found.values()} == {"1"}
    pids = {r["pid"] for r in found.values()}
    assert len(pids) == 2 and os.getpid() not in pids
    assert set(marks(folder).values()) == {1}


@pytest.mark.parametrize("where", ["here", "cluster"])
def test_a_failure_is_recorded_and_retried_by_the_next_call(where, request, folder, tmp_path):
    how = HERE if where == "here" else {"client": request.getfixturevalue("client"), "progress": False}
    run, out = functools.partial(moody, folder), tmp_path / "out"
    with pytest.warns(SweepWarning, match=r"2 items of 3 failed \(once, never\).*no file for once.*Call again"):
        found = each(run, ["good", "once", "never"], out=out, **how)
    assert found["good"] == 4 and marks(folder) == {"good": 1, "once": 1, "never": 1}
    failure = found["never"]
    assert failure.error == "FileNotFoundError: no file for never" and "moody" in failure.trace
    noted = {n["item"]: n for p in out.iterdir() if "failure" in (n := json.loads(p.read_text()))}
    assert set(noted) == {"once", "never"} and noted["never"]["failure"]["error"] == failure.error
    with pytest.warns(SweepWarning, match=r"1 item of 3 failed \(never\)"):
        assert each(run, ["good", "once", "never"], out=out, **how)["once"] == 4
    assert marks(folder) == {"good": 1, "once": 2, "never": 2}, "only what failed runs again"


def test_errors_that_cannot_travel_and_exits_are_failures_too(client):
    for how in (HERE, {"client": client, "progress": False}):
        with pytest.warns(SweepWarning):
            assert each(raises_unsendable, ["a"], **how)["a"].error == "Unsendable: lost a"
        with pytest.warns(SweepWarning):
            assert each(quits, ["a"], **how)["a"].error == "SystemExit: 3"


def test_an_interrupted_sweep_goes_on(folder, tmp_path):
    def stops(name):
        if name == "c" and not list(folder.glob("c-*")):
            note(folder, name)
            raise KeyboardInterrupt
        note(folder, name)
        return name * 2

    with pytest.raises(KeyboardInterrupt):
        each(stops, ["a", "b", "c", "d"], out=tmp_path / "out", **HERE)
    assert len(list((tmp_path / "out").iterdir())) == 2
    found = each(stops, ["d", "c", "b", "a"], out=tmp_path / "out", **HERE)
    assert found == {"d": "dd", "c": "cc", "b": "bb", "a": "aa"} and list(found) == ["d", "c", "b", "a"]
    assert marks(folder) == {"a": 1, "b": 1, "c": 2, "d": 1}


def test_a_damaged_or_foreign_file_is_not_taken_for_a_result(folder, tmp_path):
    run, out = functools.partial(square, folder), tmp_path / "out"
    first = each(run, [1, 2], out=out, **HERE)
    for path in out.iterdir():
        path.write_text('{"item": "1", "res')
    assert each(run, [1, 2], out=out, **HERE) == first
    assert marks(folder) == {"1": 2, "2": 2}
    assert not [p for p in out.iterdir() if p.suffix != ".json"]


def test_another_version_is_another_result(folder, tmp_path):
    run, out = functools.partial(square, folder), tmp_path / "out"
    for version in ("1", "2", "1", "2"):
        each(run, [7], out=out, version=version, **HERE)
    assert marks(folder) == {"7": 2}


def test_results_of_another_function_are_refused(folder, tmp_path):
    each(functools.partial(square, folder), [1], out=tmp_path / "out", **HERE)
    with pytest.raises(DataError, match=r"holds results of square, not of moody: name another folder"):
        each(functools.partial(moody, folder), [1], out=tmp_path / "out", **HERE)


def test_names_that_a_file_system_would_confuse_stay_apart(tmp_path):
    names = ["a/b", "a b", "A b", "a-b", "../a", "ä", "", "x" * 300, "nul"]
    assert each(str.upper, names, out=tmp_path / "out", **HERE) == {n: n.upper() for n in names}
    assert len(list((tmp_path / "out").iterdir())) == len(names) and len(list(tmp_path.iterdir())) == 1
    assert each(str.upper, names, out=tmp_path / "out", **HERE) == {n: n.upper() for n in names}


def test_what_comes_fresh_equals_what_is_read_again(tmp_path):
    def made(name):
        return {"score": np.float32(0.5), "all": np.arange(3), "pair": (1, "a"), "none": None, "nan": float("nan")}

    fresh = each(made, ["a"], out=tmp_path / "out", **HERE)
    again = each(made, ["a"], out=tmp_path / "out", **HERE)
    assert repr(fresh) == repr(again)
    assert fresh["a"]["score"] == 0.5 and fresh["a"]["all"] == [0, 1, 2] and fresh["a"]["pair"] == [1, "a"]


@pytest.mark.parametrize("value", [{1, 2}, {(1, 2): 3}, object()])
def test_a_result_that_json_does_not_hold(tmp_path, value):
    with pytest.raises(DataError, match=r"result of 'a' does not fit in JSON .*: return words"):
        each(lambda name: value, ["a"], out=tmp_path / "out", **HERE)
    assert each(lambda name: value, ["a"], **HERE) == {"a": value}


def test_a_mapping_gives_each_name_its_argument(folder):
    assert each(sum, {"a": [1, 2], "b": []}, **HERE) == {"a": 3, "b": 0}
    assert each(Path.exists, [folder], **HERE) == {str(folder): True}
    assert each(sum, [], **HERE) == {}


def test_processes_need_no_dask(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert each(str.upper, ["a", "b"], workers=2, progress=False) == {"a": "A", "b": "B"}


@pytest.mark.parametrize("where", ["cluster", "processes"])
def test_a_function_that_cannot_be_sent(where, request):
    lock, how = threading.Lock(), {"workers": 2}
    if where == "cluster":
        how = {"client": request.getfixturevalue("client")}
    with pytest.raises(DataError, match=r"cannot be sent to another process .*open files inside it"):
        each(lambda name: lock, ["a", "b"], **how, progress=False)


def test_a_result_that_cannot_be_sent():
    with pytest.raises(DataError, match="cannot be sent to another process"):
        each(lambda name: threading.Lock(), ["a", "b"], workers=2, progress=False)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_is_raised_where_it_is_asked_for(workers):
    with pytest.raises(ZeroDivisionError):
        each(lambda n: 1 / n, {"a": 1, "b": 0, "c": 2}, workers=workers, errors="raise", progress=False)


def test_a_lost_process_is_an_error_where_it_is_asked_for():
    with pytest.raises(DataError, match="'b': its process was lost"):
        each(lambda n: n or os.kill(os.getpid(), KILLED), {"a": 1, "b": 0}, workers=2, errors="raise", progress=False)


def test_an_error_that_cannot_travel_is_told_and_a_message_is_no_verdict():
    how = {"workers": 2, "errors": "raise", "progress": False}
    with pytest.raises(DataError, match="Unsendable: lost"):
        each(raises_unsendable, ["a", "b"], **how)

    def missing(name):
        raise FileNotFoundError("weights.pickle")

    with pytest.raises(FileNotFoundError, match=r"weights\.pickle"):
        each(missing, ["a", "b"], **how)


def test_an_item_that_ends_its_process_never_runs_in_this_one(tmp_path):
    fatal = functools.partial(ends_its_process, os.getpid())
    for _ in range(2):  # the second call has this item alone to run
        with pytest.warns(SweepWarning, match="process was lost"):
            found = each(fatal, ["a", "fatal", "c"], workers=2, out=tmp_path / "out", progress=False)
    assert found["a"] == "a" and isinstance(found["fatal"], Failure)


def test_every_item_may_have_a_version_of_its_own(folder, tmp_path):
    run = functools.partial(square, folder)
    each(run, [1, 2], out=tmp_path / "out", version={"1": "x", "2": "x"}, **HERE)
    each(run, [1, 2, 3], out=tmp_path / "out", version={"1": "x", "2": "y", "3": "x"}, **HERE)
    assert marks(folder) == {"1": 1, "2": 2, "3": 1}


def test_jobs_are_copies():
    common = [0]

    def grown(row):
        row.append(1)
        return len(row)

    how = {"workers": 2, "progress": False}
    assert each(grown, {str(i): common for i in range(4)}, **how) == {str(i): 2 for i in range(4)}
    assert common == [0]


@pytest.mark.nightly
def test_what_runs_again_after_a_lost_process_has_as_many_threads(folder):
    def threads(n):
        first = not marks(folder)[str(n)]
        note(folder, n)
        if n == 1 and first:
            os.kill(os.getpid(), KILLED)
        return os.environ["OMP_NUM_THREADS"]

    found = each(threads, range(3), workers=2, threads=3, progress=False)
    assert set(found.values()) == {"3"} and marks(folder)["1"] == 2


@pytest.mark.parametrize("threads", [pytest.param(1, marks=pytest.mark.nightly), 2])
def test_processes_have_the_threads_that_are_asked_for(monkeypatch, threads):
    """joblib would share the cores out, and torch goes by MKL's variable before OpenMP's."""
    monkeypatch.setattr(joblib._parallel_backends, "cpu_count", lambda *a, **k: 8)

    def count(_):
        import torch

        return torch.get_num_threads()

    assert set(each(count, ["a", "b"], workers=2, threads=threads, progress=False).values()) == {threads}


def test_a_cluster_that_goes_away():
    distributed = pytest.importorskip("distributed")
    how = {"processes": False, "dashboard_address": "127.0.0.1:0", "silence_logs": "CRITICAL"}
    with distributed.LocalCluster(1, **how) as cluster, distributed.Client(cluster) as found:
        threading.Timer(0.5, found.restart, kwargs={"wait_for_workers": False}).start()
        with pytest.raises(DataError, match="the cluster went away"):
            each(time.sleep, [2, 3], client=found, progress=False)


def test_a_full_disk_is_said_and_what_was_written_stays(tmp_path, monkeypatch):
    def full(path, n):
        if n["item"] == "b":
            raise OSError(28, "No space left on device")
        return write(path, n)

    write = parallel.write_note
    monkeypatch.setattr(parallel, "write_note", full)
    with pytest.raises(DataError, match=r"result of 'b' cannot be written .*No space left.*what was written stays"):
        each(str.upper, ["a", "b"], out=tmp_path, **HERE)
    assert [json.loads(p.read_text())["result"] for p in tmp_path.iterdir()] == ["A"]


@pytest.mark.parametrize(
    ("items", "options", "said"),
    [
        ("abc", {}, "give a list of names"),
        (["a", "a"], {}, "two items are named 'a'"),
        ([1, "1"], {}, "two items are named '1'"),
        ([None], {}, "an item is NoneType: give names"),
        (None, {}, "items is None: give a list of names"),
        (["a", "b"], {"version": {"a": "1"}}, "version names no version of b: give one of each item"),
        (["a"], {"workers": -1}, "workers=-1 is not a whole number"),
        (["a"], {"workers": True}, "workers=True"),
        (["a"], {"threads": 0}, "threads=0"),
        (["a"], {"errors": "ignore"}, "errors='ignore'"),
        (["a"], {"workers": 2, "client": object()}, "leave out workers="),
        (["a"], {"client": object()}, "client should be a distributed.Client"),
    ],
)
def test_impossible_calls(items, options, said):
    with pytest.raises((DataError, SettingError), match=said):
        each(str.upper, items, progress=False, **options)


def test_what_is_no_function():
    with pytest.raises(DataError, match="'upper' is no function"):
        each("upper", ["a"], **HERE)


def test_an_out_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file cannot be made|is no folder"):
        each(str.upper, ["a"], out=tmp_path / "file", **HERE)


@pytest.mark.slow
def test_a_script_needs_no_guard_and_leaves_in_silence(tmp_path):
    lines = ["from shared.data.parallel import each", "def twice(x):", "    return x * 2", ""]
    lines += ['print(each(twice, ["a", "b"], workers=2, progress=False))']
    (tmp_path / "script.py").write_text("\n".join(lines))
    env = os.environ | {"PYTHONPATH": str(Path(parallel.__file__).resolve().parents[2])}
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "script.py"],
        cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr, done.returncode) == ("{'a': 'aa', 'b': 'bb'}\n", "", 0)
