"""``python -m shared.data``: what it prints, what it leaves, and how it ends."""

import hashlib
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import yaml
from awkward_server import Answer, serving

from shared.data import __main__ as cli
from shared.data import cache, catalogue, download, routes
from shared.data.errors import DataError

BODY = b"gene,cell\n" * 300


def sha(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def server():
    with serving() as s:
        yield s


@pytest.fixture
def shell(tmp_path, monkeypatch, capsys, server, no_waits):
    """Run a command on a small catalogue; the status, and what was printed and complained of."""
    home = tmp_path / "data"
    home.mkdir()
    monkeypatch.setenv("BORROWED_CACHE", str(tmp_path / "cache"))
    for name in ("BORROWED_MIRROR", "BORROWED_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(download, "STALL", 1.0)
    monkeypatch.setattr(catalogue, "home", lambda: home)
    monkeypatch.setattr(download, "home", lambda: home)
    (home / "small.csv").write_bytes(BODY)
    server.put("/a.csv", Answer(BODY))
    server.put("/b.csv", Answer(BODY[::-1]))
    good = {"name": "a.csv", "sha256": sha(BODY), "size": len(BODY), "urls": [server.url("/a.csv")]}
    entries = {
        "small": fields(["bundled", [{"name": "small.csv", "sha256": sha(BODY), "size": len(BODY)}]]),
        "far": fields(["official", [good]], ["simulated", None]),
        "loose": fields(["official", [{"name": "b.csv", "urls": [server.url("/b.csv"), "https://two.example/b.csv"]}]]),
        "gone": fields(["official", [{"name": "gone.csv", "urls": [server.url("/gone.csv")]}]]),
        "made-up": fields(["simulated", None]),
    }
    (home / "catalog.yml").write_text(yaml.safe_dump(entries, sort_keys=False))

    def run(*words):
        status = cli.main(list(map(str, words)))
        said = capsys.readouterr()
        return status, said.out, said.err

    yield run


def fields(*found):
    words = dict.fromkeys(("organism", "assay", "genes", "labels", "accession", "citation", "licence"), "some words")
    ways = [{"kind": k, "reader": "table"} | ({"files": f} if f else {}) for k, f in found]
    return words | {"title": "A title of some length", "units": "counts", "shape": [10, 20], "routes": ways}


def test_list(shell, monkeypatch):
    status, out, err = shell("list")
    lines = out.splitlines()
    assert (status, err) == (0, "") and len(lines) == 7
    assert re.search(r"small +10 × 20 +counts +bundled +3\.0 kB +yes +sha256 +A title of some length", out)
    assert re.search(r"far .* official +3\.0 kB +no +sha256", out) and re.search(
        r"loose .*official +\? +no +unverified", out
    )
    for columns in ("40", "80", "120", "300"):
        monkeypatch.setenv("COLUMNS", columns)
        for command in ("list", "check"):
            assert all(len(line) <= max(80, min(int(columns), 120)) for line in shell(command)[1].splitlines())


def test_columns_are_aligned(shell):
    head, rule, *lines = shell("list")[1].splitlines()
    starts = [m.start() for m in re.finditer(r"-+", rule)]
    assert head[starts[2] :].startswith("units") and head[starts[3] :].startswith("route")
    assert all(line[s - 1] == " " for line in (head, *lines) for s in starts[1:])


def test_the_real_catalogue(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("BORROWED_CACHE", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("BORROWED_MIRROR", "BORROWED_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    for words in (["list"], ["check"], ["show", "pbmc"]):
        assert cli.main(words) == 0
        out, err = capsys.readouterr()
        assert "pbmc" in out and err == ""
        assert all(len(line) <= 80 or "sha256" in line or "http" in line for line in out.splitlines()), words


def test_show(shell):
    status, out, _ = shell("show", "far")
    assert status == 0 and sha(BODY) in out and 'shared.data.load("far")' in out and "127.0.0.1" in out
    assert "official, read by table" in out and "simulated, read by table" in out


def test_an_unknown_name(shell):
    for command in ("show", "get", "check"):
        status, out, err = shell(command, "smal")
        assert status == 1 and out == "" and "did you mean 'small'" in err and "Traceback" not in err


def test_get(shell, tmp_path):
    status, out, err = shell("get", "far", "small", "made-up")
    assert status == 0 and err == "" and "far: official" in out and "made-up: simulated, nothing to fetch" in out
    (path,) = (tmp_path / "cache").rglob("a.csv")
    assert str(path) in out and path.read_bytes() == BODY


def test_get_goes_on_after_a_failure(shell):
    status, out, err = shell("get", "gone", "far", "--unverified")
    assert (
        status == 1 and "far: official" in out and "gone: gone.csv cannot be fetched: 127.0.0.1: it answers 404" in err
    )


def test_get_of_an_unverified_file(shell, tmp_path):
    """Asked for by a word of its own; what was seen then is held to later, and needs no word any more."""
    status, out, err = shell("get", "loose")
    assert (status, out) == (1, "") and "b.csv is unverified" in err and "get loose --unverified'" in err
    assert not list(tmp_path.rglob("b.csv*")) and "official, read by table, unverified" in shell("show", "loose")[1]
    assert shell("get", "loose", "--unverified")[0] == 0 == shell("get", "loose")[0]
    (path,) = (tmp_path / "cache").rglob("b.csv")
    assert cache.read_note(path)["sha256"] == sha(BODY[::-1])


def test_list_needs_no_cache(shell, monkeypatch):
    monkeypatch.setenv("BORROWED_CACHE", "~nobody-of-that-name/x")
    status, out, err = shell("list")
    assert (status, err) == (0, "") and re.search(r"far .* no +sha256", out)


def test_get_by_a_route(shell):
    status, _, err = shell("get", "far", "--route", "package")
    assert status == 1 and "far has no route 'package'; it has official, simulated" in err


def test_get_does_not_pretend(shell, monkeypatch):
    """An entry whose real files cannot be had is a failure, although simulated data would stand in on loading."""
    monkeypatch.setenv("BORROWED_OFFLINE", "1")
    assert shell("get", "far")[0] == 1


def test_check(shell, tmp_path, monkeypatch):
    status, out, _ = shell("check")
    assert status == 0
    assert re.search(r"small +bundled +table +bundled, sha256 ok", out)
    assert "unverified; not here: it would be fetched from 127.0.0.1 or two.example" in " ".join(out.split())
    assert re.search(r"made-up +simulated +table +made when it is loaded", out)
    assert "6 routes: 3 usable, 3 to fetch, 0 damaged" in out
    shell("get", "far", "loose", "--unverified")
    out = shell("check")[1]
    assert re.search(r"far +official +table +cached, sha256 ok", out)
    assert re.search(r"loose +official +table +cached, ok \(by the sha256 of its first download\)", out)
    (path,) = (tmp_path / "cache").rglob("a.csv")
    path.rename(tmp_path / "a.csv")
    monkeypatch.setenv("BORROWED_MIRROR", str(tmp_path))
    assert re.search(r"far +official +table +in the mirror, sha256 ok", shell("check", "far")[1])


@pytest.mark.parametrize("which", ["small", "far"])
def test_check_fails_for_damage_only(shell, tmp_path, which):
    shell("get", "far")
    path = tmp_path / "data" / "small.csv" if which == "small" else next((tmp_path / "cache").rglob("a.csv"))
    path.write_bytes(b"damaged")
    status, out, _ = shell("check")
    assert status == 1 and "DAMAGED" in out and "1 damaged" in out
    assert re.search(rf"{which} .* DAMAGED", out)
    assert shell("check", "loose")[0] == 0


def test_check_names_a_damaged_conversion(shell, monkeypatch, tmp_path):
    shell("get", "far")
    e = catalogue.entry("far")
    path = routes.conversion(e, e.routes[0])
    path.parent.mkdir()
    path.write_bytes(b"x")
    status, out, _ = shell("check", "far")
    assert status == 0 and "will be made again" in " ".join(out.split())
    cache.write_note(path, {"sha256": cache.sha256(path)})
    assert "cached, converted, sha256 ok" in shell("check", "far")[1]
    next((tmp_path / "cache").rglob("a.csv")).unlink()
    assert "the converted copy is ok" in shell("check", "far")[1]


def test_mirror(shell, tmp_path, monkeypatch):
    folder = tmp_path / "class room"
    status, out, err = shell("mirror", folder, "--unverified")
    assert status == 1 and "gone: gone.csv cannot be fetched" in err
    assert "4 of 5 data sets" in out and "far: official 1 file" in out and "small: bundled needs none" in out
    assert sorted(p.name for p in folder.iterdir()) == ["a.csv", "b.csv"]
    assert (folder / "a.csv").read_bytes() == BODY
    monkeypatch.setenv("BORROWED_CACHE", str(tmp_path / "fresh"))
    monkeypatch.setenv("BORROWED_MIRROR", str(folder))
    monkeypatch.setenv("BORROWED_OFFLINE", "1")
    assert re.search(r"loose +official +table +in the mirror, unverified", shell("check", "loose")[1])
    status, out, _ = shell("get", "far", "loose", "--unverified")
    assert status == 0 and str(folder / "a.csv") in out and str(folder / "b.csv") in out
    (folder / "a.csv").write_bytes(b"damaged")
    assert shell("get", "far")[0] == 1


def test_mirror_again_repairs(shell, tmp_path):
    folder = tmp_path / "m"
    assert shell("mirror", folder, "far")[0] == 0
    (folder / "a.csv").write_bytes(b"damaged")
    assert shell("mirror", folder, "far")[0] == 0 and (folder / "a.csv").read_bytes() == BODY


def test_a_mirror_that_cannot_be_made(shell, tmp_path):
    (tmp_path / "file").write_text("")
    status, _, err = shell("mirror", tmp_path / "file" / "m", "far")
    assert status == 1 and "cannot be copied" in err and "Traceback" not in err


def test_a_mirror_that_is_a_file(shell, tmp_path):
    (tmp_path / "file").write_text("")
    status, _, err = shell("mirror", tmp_path / "file")
    assert status == 1 and "is a file: name the folder to copy to" in err


def test_a_wrong_call(shell):
    for words in ([], ["nope"], ["get"], ["get", "far", "--route", "nope"]):
        with pytest.raises(SystemExit) as e:
            shell(*words)
        assert e.value.code == 2


SIZES = {None: "?", 0: "0 B", 999: "999 B", 1000: "1.0 kB", 343309: "343 kB", 2028927: "2.0 MB", 999_700: "1.0 MB"}


@pytest.mark.parametrize("n, said", [*SIZES.items(), (1.5e9, "1.5 GB"), (3e15, "3000 TB")])
def test_sizes(n, said):
    assert cli.size(n) == said


def test_ctrl_c_in_the_middle(server, tmp_path, root):
    """A real process, stopped by the keyboard while the second of two files comes in."""
    server.put("/one.csv", Answer(BODY))
    server.put("/two.csv", Answer(BODY, stall=2000), Answer(BODY))
    files = [{"name": n, "sha256": sha(BODY), "urls": [server.url(f"/{n}")]} for n in ("one.csv", "two.csv")]
    (tmp_path / "catalog.yml").write_text(yaml.safe_dump({"pair": fields(["official", files])}))
    code = (
        "import sys; from pathlib import Path; from shared.data import __main__ as cli, catalogue\n"
        "catalogue.home = lambda: Path(sys.argv[1])\nsys.exit(cli.main(['get', 'pair']))"
    )
    words = [sys.executable, "-c", code, str(tmp_path)]
    env = {k: v for k, v in os.environ.items() if not k.startswith("BORROWED_")}
    env |= {"BORROWED_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root, env=env)
    end = time.monotonic() + 60
    while not [p for p in (tmp_path / "cache").rglob("two.csv.part") if p.stat().st_size == 2000]:
        assert time.monotonic() < end and child.poll() is None
        time.sleep(0.02)
    start = time.monotonic()
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=30)
    assert child.returncode == 130 and time.monotonic() - start < 10, err
    assert "the same command goes on from there" in err and "Traceback" not in err and out == ""
    assert subprocess.run(words, env=env, cwd=root, capture_output=True, text=True, timeout=60).returncode == 0
    assert server.headers("/two.csv", "range")[-1] == "bytes=2000-"
    assert not list((tmp_path / "cache").rglob("*.part*"))


def test_a_closed_pipe(root, tmp_path):
    words = f"{sys.executable} -m shared.data list | head -n 1"
    env = {**os.environ, "BORROWED_CACHE": str(tmp_path)}
    done = subprocess.run(["sh", "-c", words], capture_output=True, text=True, cwd=root, env=env, timeout=60)
    assert done.stdout.startswith("name") and done.stderr == ""


def test_errors_have_one_root():
    from shared.data.errors import SimulatedWarning, Unavailable

    assert issubclass(Unavailable, DataError) and issubclass(SimulatedWarning, UserWarning)
