"""Routes in their order: the first that can be used now, damage said aloud, and nothing simulated in silence."""

import hashlib
import os
import shutil
import subprocess
import sys
import types
import warnings
import zipfile

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from shared.data import cache, download, routes
from shared.data.catalogue import Entry, File, Route
from shared.data.errors import DataError, SimulatedWarning, Unavailable

DEAD = "http://127.0.0.1:9/"


def matrix(value=1.0):
    X = sparse.csr_matrix(np.arange(12, dtype=np.float32).reshape(3, 4) * value)
    obs = pd.DataFrame({"cell_type": ["a", "b", "a"]}, index=["c0", "c1", "c2"])
    adata = ad.AnnData(X, obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(4)]))
    adata.uns["units"] = "counts"
    return adata


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder that is mirror and home of bundled files, and readers that count how often they read."""
    folder = tmp_path / "files"
    folder.mkdir()
    monkeypatch.setenv("BORROWED_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("BORROWED_MIRROR", str(folder))
    monkeypatch.setenv("BORROWED_OFFLINE", "1")
    monkeypatch.setattr(download, "home", lambda: folder)
    read = []

    def numbers(paths, **options):
        read.append([p.name for p in paths])
        return matrix(float(paths[0].read_text()) * options.get("times", 1))

    def broken(paths):
        raise KeyError("column 3")

    known = {
        "numbers": numbers,
        "h5ad": lambda paths: ad.read_h5ad(paths[0]),
        "broken": broken,
        "refuses": lambda paths: (_ for _ in ()).throw(DataError("row 7 is damaged: fetch it again")),
        "unwritable": lambda paths: ad.AnnData(np.ones((1, 1), np.float32), uns={"x": object()}),
    }
    monkeypatch.setattr("shared.data.sources.READERS", known)
    simulate = types.SimpleNamespace(pretend=lambda **options: matrix(9.0))
    monkeypatch.setitem(sys.modules, "shared.data.simulate", simulate)
    monkeypatch.setattr("shared.data.simulate", simulate, raising=False)
    return types.SimpleNamespace(folder=folder, read=read, known=known, cache=tmp_path / "cache")


def put(place, name, data=b"2"):
    (place.folder / name).write_bytes(data)
    return File(name, hashlib.sha256(data).hexdigest(), len(data), urls=(DEAD + name,), package="x==1")


def absent(name="absent.txt"):
    return File(name, "0" * 64, 1, urls=(DEAD + name,), package="x==1")


def entry(*found, name="set"):
    words = dict.fromkeys(("title", "organism", "assay", "genes", "labels", "accession", "citation", "licence"), "x")
    return Entry(name=name, units="counts", shape=None, routes=found, **words)


SIMULATED = Route("simulated", "pretend", options={"seed": 1})


def total(adata):
    return float(adata.X.sum())


def test_the_first_route_wins(place):
    e = entry(Route("bundled", "numbers", (put(place, "a.txt"),)), SIMULATED)
    adata = routes.obtain(e)
    assert total(adata) == 132 and adata.uns["route"] == "bundled" and "simulated" not in adata.uns
    assert adata.uns["sha256"] == e.routes[0].files[0].sha256 and adata.uns["units"] == "counts"


def test_an_unavailable_route_passes_to_the_next(place):
    e = entry(Route("package", "numbers", (absent(),)), Route("official", "numbers", (put(place, "b.txt", b"3"),)))
    adata = routes.obtain(e)
    assert total(adata) == 198 and adata.uns["route"] == "official"


def test_simulated_data_are_announced(place):
    e = entry(Route("package", "numbers", (absent(),)), SIMULATED)
    with pytest.warns(SimulatedWarning, match=r"set: no real data.*package: absent\.txt is not here.*BORROWED_OFFLINE"):
        adata = routes.obtain(e)
    assert adata.uns["simulated"] is True and adata.uns["route"] == "simulated" and total(adata) == 594


def test_simulated_data_that_were_asked_for_need_no_warning(place):
    e = entry(Route("package", "numbers", (absent(),)), SIMULATED)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert routes.obtain(e, "simulated").uns["simulated"] is True
        again, other = routes.obtain(entry(SIMULATED)), routes.obtain(e, "simulated")
    assert again.uns["sha256"] == other.uns["sha256"] and len(again.uns["sha256"]) == 64


def test_damage_does_not_pass_to_the_next(place):
    file = put(place, "a.txt")
    (place.folder / "a.txt").write_bytes(b"5")
    with pytest.raises(DataError, match="not the file the catalogue describes"):
        routes.obtain(entry(Route("bundled", "numbers", (file,)), SIMULATED))
    for reader, match in (("broken", r"a\.txt cannot be read as broken.*column 3"), ("refuses", "^row 7 is damaged")):
        with pytest.raises(DataError, match=match) as e:
            routes.obtain(entry(Route("official", reader, (put(place, "a.txt"),)), SIMULATED))
        assert not isinstance(e.value, Unavailable)
    assert [p.name for p in (place.cache / "converted").glob("*") if p.suffix != ".lock"] == []


def test_what_cannot_be_had(place):
    with pytest.raises(Unavailable, match=r"^set cannot be had: package: absent\.txt"):
        routes.obtain(entry(Route("package", "numbers", (absent(),))))
    both = entry(Route("package", "numbers", (absent(),)), Route("official", "numbers", (absent("b.txt"),)))
    with pytest.raises(Unavailable, match=r"cannot be had: package: absent.*; official: b\.txt"):
        routes.obtain(both)
    with pytest.raises(Unavailable, match=r"b\.txt"):
        routes.obtain(both, "official")
    with pytest.raises(DataError, match="has no route 'bundled'; it has package, official"):
        routes.obtain(both, "bundled")
    with pytest.raises(DataError, match="there is no reader 'magic'; known are"):
        routes.obtain(entry(Route("bundled", "magic", (put(place, "a.txt"),))))
    with pytest.raises(DataError, match="simulate has no 'magic'"):
        routes.obtain(entry(Route("simulated", "magic")))


# Conversions


def official(place, data=b"2", **more):
    return entry(Route("official", "numbers", (put(place, "b.txt", data),), **more))


def test_a_file_is_converted_once(place):
    e = official(place)
    first, second = routes.obtain(e), routes.obtain(e)
    assert place.read == [["b.txt"]] and total(first) == total(second) == 132
    assert sparse.issparse(second.X) and second.X.dtype == np.float32 and second.uns["route"] == "official"
    assert second.obs["cell_type"].tolist() == ["a", "b", "a"] and list(second.var_names) == ["g0", "g1", "g2", "g3"]
    assert second.uns["sha256"] == e.routes[0].files[0].sha256
    shutil.rmtree(place.folder)
    place.folder.mkdir()
    assert total(routes.obtain(e)) == 132  # neither network nor source is needed any more
    names = [p.name for p in (place.cache / "converted").iterdir() if p.suffix != ".lock"]
    assert len(names) == 2 and not [n for n in names if n.startswith(".")]


def test_a_conversion_belongs_to_its_file_reader_and_options(place, monkeypatch):
    assert [total(routes.obtain(official(place, d))) for d in (b"2", b"3", b"2")] == [132, 198, 132]
    assert total(routes.obtain(official(place, b"2", options={"times": 10}))) == 1320
    assert len(place.read) == 3
    monkeypatch.setattr(routes, "VERSION", 99)
    routes.obtain(official(place))
    assert len(place.read) == 4


@pytest.mark.parametrize("how", ["byte", "cut", "empty", "no note", "false note", "sealed junk"])
def test_a_damaged_conversion_is_made_again(place, how):
    e = official(place)
    routes.obtain(e)
    path = routes.conversion(e, e.routes[0])
    data = bytearray(path.read_bytes())
    if how == "byte":
        data[len(data) // 2] ^= 0xFF
    path.write_bytes({"byte": bytes(data), "cut": bytes(data[:-100]), "empty": b""}.get(how, bytes(data)))
    if how == "no note":
        os.unlink(f"{path}.json")
    elif how == "false note":
        cache.write_note(path, {"sha256": "0" * 64})
    elif how == "sealed junk":  # right by its note, and still nothing that can be read
        path.write_bytes(b"junk")
        cache.write_note(path, {"sha256": cache.sha256(path)})
    assert total(routes.obtain(e)) == 132 and len(place.read) == 2
    assert routes.whole(path)
    assert total(routes.obtain(e)) == 132 and len(place.read) == 2


def test_what_a_killed_conversion_left_is_swept_away(place):
    e = official(place)
    routes.obtain(e)
    path = routes.conversion(e, e.routes[0])
    path.unlink()
    left = path.with_name(f".{path.name}-abcd")
    left.mkdir()
    (left / path.name).write_bytes(b"half")
    assert total(routes.obtain(e)) == 132 and not left.exists()


def test_a_conversion_that_fails_leaves_nothing(place):
    e = entry(Route("official", "unwritable", (put(place, "b.txt"),)))
    with pytest.raises(DataError, match="cannot be written"):
        routes.obtain(e)
    assert [p.name for p in (place.cache / "converted").iterdir() if p.suffix != ".lock"] == []


def test_an_h5ad_is_read_as_it_is(place):
    matrix().write_h5ad(place.folder / "x.h5ad")
    e = entry(Route("official", "h5ad", (put(place, "x.h5ad", (place.folder / "x.h5ad").read_bytes()),)))
    assert total(routes.obtain(e)) == 66 and not (place.cache / "converted").exists()


def test_members_stand_in_for_their_archive(place):
    with zipfile.ZipFile(place.folder / "x.whl", "w") as z:
        z.writestr("in/one.txt", "4")
        z.writestr("in/two.txt", "5")
    data = (place.folder / "x.whl").read_bytes()
    whl = put(place, "x.whl", data)
    taken = File(whl.name, whl.sha256, whl.size, package="x==1", members=("in/two.txt", "in/one.txt"))
    e = entry(Route("package", "numbers", (taken, put(place, "c.txt"))))
    assert total(routes.obtain(e)) == 330 and place.read == [["two.txt", "one.txt", "c.txt"]]
    assert not list(place.cache.rglob("*.txt"))
    gone = File(whl.name, whl.sha256, whl.size, package="x==1", members=("in/three.txt",))
    with pytest.raises(DataError, match=r"it has no file in/three\.txt"):
        routes.obtain(entry(Route("package", "numbers", (gone,))))


def test_an_unverified_file_is_used_only_after_it_was_fetched_knowingly(place):
    put(place, "u.txt")
    route = Route("official", "numbers", (File("u.txt", urls=(DEAD + "u.txt",)),))
    e = entry(route)
    assert routes.conversion(e, route) is None and not route.verified
    with pytest.raises(Unavailable, match=r"u\.txt is unverified.*'python -m shared\.data get set --unverified'"):
        routes.obtain(e)
    with pytest.warns(SimulatedWarning, match=r"official: u\.txt is unverified.*get set --unverified"):
        assert routes.obtain(entry(route, SIMULATED)).uns["simulated"]
    assert place.read == [] and not list(place.cache.rglob("*.json"))
    assert routes.files(e, route, unverified=True) == [place.folder / "u.txt"]
    adata = routes.obtain(e)
    assert total(adata) == 132 and adata.uns["sha256"] == hashlib.sha256(b"2").hexdigest() and adata.uns["unverified"]
    (place.folder / "u.txt").write_bytes(b"3")
    assert total(routes.obtain(e)) == 132 and len(place.read) == 1
    with pytest.raises(Unavailable, match="in the mirror is not the right one: its sha256 differs"):
        routes.files(e, route)


def test_a_table_without_uns_passes(place):
    place.known["pairs"] = lambda paths: pd.DataFrame({"human": ["A"], "mouse": ["a"]})
    assert len(routes.obtain(entry(Route("bundled", "pairs", (put(place, "p.tsv"),))))) == 1


SCRIPT = """
import sys, time
from pathlib import Path
import anndata, numpy
from shared.data import routes, sources
from shared.data.catalogue import Entry, File, Route
def slow(paths):
    with open(sys.argv[1], "a") as f:
        f.write("read\\n")
    time.sleep(1)
    return anndata.AnnData(numpy.full((2, 2), float(paths[0].read_text()), numpy.float32))
sources.READERS = {"slow": slow, "h5ad": lambda paths: anndata.read_h5ad(paths[0])}
words = dict.fromkeys(("title", "organism", "assay", "genes", "labels", "accession", "citation", "licence"), "x")
file = File("b.txt", sys.argv[2], 1, urls=("http://127.0.0.1:9/b.txt",))
entry = Entry(name="set", units="counts", shape=None, routes=(Route("official", "slow", (file,)),), **words)
print(routes.obtain(entry).X.sum())
"""


def test_two_processes_convert_once(place, root, tmp_path):
    file = put(place, "b.txt")
    words = [sys.executable, "-c", SCRIPT, str(tmp_path / "log"), file.sha256]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    both = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=root, env=env) for _ in range(2)]
    assert [p.communicate(timeout=60)[0].strip() for p in both] == ["8.0", "8.0"]
    assert (tmp_path / "log").read_text() == "read\n"
