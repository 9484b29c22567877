"""Streaming: what comes from the file piece by piece is what is in it, each cell once, in a known order."""

import json
import os
import pickle
import re
import subprocess
import sys
import warnings
from collections import Counter
from types import SimpleNamespace

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from shared.data.constraints import SettingError
from shared.data.errors import DataError, DataWarning
from shared.data.stream import Stream, backed, stream
from shared.preprocess import log_normalize

N, G = 230, 17


def matrix(n=N, g=G, seed=0):
    """Counts of which a third are not zero; every cell has one at least."""
    rng = np.random.default_rng(seed)
    X = rng.poisson(3, (n, g)) * (rng.random((n, g)) < 0.35)
    X[:, 0] += 1
    return X.astype(np.float32)


def written(path, X, *, form="csr", genes=None, compression=None, obs=None, **more):
    n, g = X.shape
    made = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix, "dense": np.asarray}[form](X)
    table = pd.DataFrame(obs or {}, index=[f"cell{i}" for i in range(n)])
    if "cell_type" not in table:
        table["cell_type"] = pd.Categorical([f"t{5 * i // n}" for i in range(n)])
    var = pd.DataFrame(index=list(genes) if genes is not None else [f"G{i}" for i in range(g)])
    ad.AnnData(made, obs=table, var=var, **more).write_h5ad(path, compression=compression)
    return path


@pytest.fixture
def X():
    return matrix()


@pytest.fixture
def path(tmp_path, X):
    return written(tmp_path / "cells.h5ad", X)


@pytest.fixture
def dense_of():
    return lambda found: np.asarray(found.todense() if sparse.issparse(found) else found)


# Reading in order.


@pytest.mark.parametrize("form", ["csr", "dense"])
@pytest.mark.parametrize("compression", [None, "gzip", "lzf"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "uint8"])
def test_chunks_are_the_file(tmp_path, X, form, compression, dtype, dense_of):
    s = Stream(written(tmp_path / "a.h5ad", X.astype(dtype), form=form, compression=compression))
    assert s.shape == X.shape and s.genes[3] == "G3" and len(s) == N
    found = list(s.chunks(37))
    assert all(x.dtype == np.float32 and sparse.issparse(x) == (form == "csr") for x, _ in found)
    np.testing.assert_array_equal(np.concatenate([dense_of(x) for x, _ in found]), X)
    np.testing.assert_array_equal(np.concatenate([r for _, r in found]), np.arange(N))
    assert [len(r) for _, r in found] == [37] * 6 + [8]
    assert isinstance(next(s.chunks(dense=True))[0], np.ndarray)


def test_half_precision_and_long_indices(tmp_path, X):
    path = written(tmp_path / "a.h5ad", X)
    with h5py.File(path, "a") as f:
        for name, dtype in (("data", "f2"), ("indices", "i8")):
            values = f[f"X/{name}"][:]
            del f[f"X/{name}"]
            f[f"X/{name}"] = values.astype(dtype)
    np.testing.assert_array_equal(next(Stream(path).chunks(N, dense=True))[0], X)
    dense = written(tmp_path / "b.h5ad", X.astype(np.float16), form="dense")
    np.testing.assert_array_equal(next(Stream(dense).chunks(N))[0], X)


def test_only_the_cells_asked_for(path, X):
    s = Stream(path)
    cells = np.array([200, 3, 4, 5, 90, 11, 229])
    (found, rows), *rest = s.chunks(100, cells=cells, dense=True)
    assert not rest and rows.tolist() == sorted(cells)
    np.testing.assert_array_equal(found, X[np.sort(cells)])
    mask = np.asarray(s.obs["cell_type"] == "t2")
    np.testing.assert_array_equal(np.concatenate([x for x, _ in s.chunks(7, cells=mask, dense=True)]), X[mask])


@pytest.mark.parametrize("cells", [[], [1, 1], [-1], [N], [0.5], np.ones(3, bool), np.ones((2, 2), int), ["a"]])
def test_a_wrong_choice_of_cells(path, cells):
    with pytest.raises(DataError, match=r"should be a mask of shape \(230,\), or different positions, one at least"):
        Stream(path).chunks(cells=cells)


def test_layers_and_raw(tmp_path, X):
    raw = SimpleNamespace(X=sparse.csr_matrix(X * 3), var=pd.DataFrame(index=[f"R{i}" for i in range(G)]))
    path = written(tmp_path / "a.h5ad", X, layers={"counts": sparse.csr_matrix(X * 2)}, raw=raw.__dict__)
    np.testing.assert_array_equal(next(Stream(path, layer="counts").chunks(N, dense=True))[0], X * 2)
    s = Stream(path, layer="raw")
    assert s.genes[0] == "R0"
    np.testing.assert_array_equal(next(s.chunks(N, dense=True))[0], X * 3)


def test_cells_in_memory_are_bounded(path, monkeypatch):
    """No reading asks for more cells than the buffer holds, whatever the length of the file."""
    asked = []
    read = backed.Backed.read
    monkeypatch.setattr(backed.Backed, "read", lambda self, rows: asked.append(len(rows)) or read(self, rows))
    s = Stream(path)
    list(s.batches(8, buffer=32, block=4))
    assert max(asked) == 32
    asked.clear()
    monkeypatch.setattr(stream, "STEP_BYTES", 800)
    list(s.chunks())
    assert max(asked) < 20 and sum(asked) == N


def test_it_says_what_it_is(tmp_path, X, path):
    assert repr(Stream(path)) == "Stream of 230 cells × 17 genes in cells.h5ad (CSR, not compressed)"
    other = written(tmp_path / "b.h5ad", X, form="dense", compression="gzip")
    assert repr(Stream(other)) == "Stream of 230 cells × 17 genes in b.h5ad (dense, gzip)"


def test_entries_in_two_parts(tmp_path, X):
    """A file may store one entry in two parts, and zeros."""
    path = written(tmp_path / "a.h5ad", X)
    with h5py.File(path, "a") as f:
        del f["X"]
        twice = sparse.csr_matrix(X)
        data = np.stack([twice.data - 1, np.ones_like(twice.data)], 1).ravel()
        made = {"data": data, "indices": np.repeat(twice.indices, 2), "indptr": twice.indptr * 2}
        g = f.create_group("X")
        g.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": X.shape})
        for name, values in made.items():
            g[name] = values
    np.testing.assert_array_equal(next(Stream(path).chunks(N, dense=True))[0], X)
    turned = Stream(path, genes=[f"G{i}" for i in reversed(range(G))])
    np.testing.assert_array_equal(next(turned.chunks(N, dense=True))[0], X[:, ::-1])


# Normalisation on the way.


@pytest.mark.parametrize("form", ["csr", "dense"])
def test_normalised_on_the_way(tmp_path, X, form):
    path = written(tmp_path / "a.h5ad", X, form=form)
    whole = log_normalize(X)
    s = Stream(path, transform=log_normalize)
    np.testing.assert_allclose(np.concatenate([x for x, _ in s.chunks(9, dense=True)]), whole, rtol=1e-6)
    some = Stream(path, transform=log_normalize, genes=["G5", "G1"])
    for b in some.batches(11, buffer=22, block=4):
        np.testing.assert_allclose(b.X, whole[b.rows][:, [5, 1]], rtol=1e-6)  # the total is of all genes


def test_what_may_not_stand_for_a_normalisation(path):
    with pytest.raises(DataError, match="beside other cells"):
        next(Stream(path, transform=lambda X: X.toarray() - X.toarray().mean(0)).chunks())
    with pytest.raises(DataError, match="keep cells and genes"):
        next(Stream(path, transform=lambda X: X[:, :2]).chunks())
    with pytest.raises(DataError, match=r"cells.h5ad, cells 0 to 229: .* looks logged already"):
        next(Stream(path, transform=lambda X: log_normalize(log_normalize(X))).chunks())


# Shuffled batches.


def check_epoch(s, X, options, cells=None):
    """All cells once over all workers, whole batches but the last, and each row the right one."""
    seen, sizes = [], []
    for rank in range(options["world"]):
        b = s.batches(**options, rank=rank, cells=cells)
        given = list(b)
        assert len(given) == len(b) and b.position == len(b)
        assert sum(len(x.rows) for x in given) == b.n_cells
        assert [len(x.rows) for x in given[:-1]] == [options["size"]] * (len(given) - 1)
        for x in given:
            assert x.X.dtype == np.float32 and x.X.flags.c_contiguous
            np.testing.assert_array_equal(x.X, X[x.rows])
        for told, x in zip(b.order(), given, strict=True):
            np.testing.assert_array_equal(told, x.rows)
        seen += [i for x in given for i in x.rows.tolist()]
        sizes.append(b.n_cells)
    assert max(sizes) - min(sizes) <= 1
    assert sorted(seen) == (list(range(len(X))) if cells is None else sorted(cells))


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    X = matrix(152)
    return Stream(written(tmp_path_factory.mktemp("odd") / "a.h5ad", X)), X


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_every_cell_once(odd, data):
    s, X = odd
    small = st.integers(1, 40)
    options = {k: data.draw(small, k) for k in ("size", "block", "buffer")}
    options |= {"seed": data.draw(st.integers(0, 9)), "epoch": data.draw(st.integers(0, 3))}
    options["world"] = data.draw(st.integers(1, 4))
    cells = data.draw(st.none() | st.sets(st.integers(0, len(X) - 1), min_size=1).map(list))
    check_epoch(s, X, options, cells)


def rows_of(batches):
    return [b.rows.tolist() for b in batches]


def test_the_order_is_that_of_seed_and_epoch(path):
    def given(**options):
        return rows_of(Stream(path).batches(16, buffer=64, block=8, **options))

    first = given(seed=1, epoch=2)
    assert first == given(seed=1, epoch=2)
    others = [given(seed=1, epoch=3), given(seed=2, epoch=2), given(seed=2, epoch=1), given(seed=0, epoch=0)]
    assert len({json.dumps(o) for o in [first, *others]}) == 5
    b = Stream(path).batches(16, buffer=64, block=8, seed=1, epoch=2)
    assert rows_of(b) == rows_of(b) == first


def test_blocks_are_spread_and_buffers_are_shuffled(path):
    b, later = (Stream(path).batches(32, buffer=64, block=8, seed=3, epoch=e) for e in (0, 1))
    first = np.concatenate(rows_of(b)[:2])
    assert len(first) == 64 and len(set(first // 8)) <= 9  # whole blocks, from anywhere
    assert first.max() - first.min() > 120
    assert set(first // 8) != set(np.concatenate(rows_of(later)[:2]) // 8)  # each epoch reads other blocks together
    assert (np.abs(np.diff(first)) == 1).mean() < 0.2


def test_interrupted_and_gone_on(path, monkeypatch):
    s = Stream(path)
    options = {"size": 8, "buffer": 32, "block": 4, "labels": "cell_type", "seed": 5, "epoch": 1}
    whole = list(s.batches(**options))
    b = s.batches(**options)
    for i, _ in enumerate(b):
        if i == 12:
            break
    state = json.loads(json.dumps(b.state()))
    asked = []
    read = backed.Backed.read
    monkeypatch.setattr(backed.Backed, "read", lambda self, rows: asked.append(len(rows)) or read(self, rows))
    rest = list(Stream(path).batches(**options | {"epoch": 0}).resume(state))
    assert len(rest) == len(whole) - 13
    assert sum(asked) == N - 3 * 32  # the three buffers that were used up are not read again
    for a, c in zip(whole[13:], rest, strict=True):
        for one, other in zip(a, c, strict=True):
            np.testing.assert_array_equal(one, other)
    for other in ({"seed": 6}, {"block": 5}, {"size": 16}, {"cells": range(100)}, {"rank": 1, "world": 2}):
        with pytest.raises(DataError, match="other batches"):
            s.batches(**options | other).resume(state)
    with pytest.raises(DataError, match="no state"):
        b.resume({"epoch": 1})
    for wrong in ({"position": -1}, {"position": "1"}, {"epoch": None}):
        with pytest.raises(DataError, match="this is no state of these batches"):
            b.resume(b.state() | wrong)
    list(b)
    assert rows_of(b.resume(b.state())) == []


def test_a_last_batch_that_is_left_out(path):
    b = [Stream(path).batches(32, drop_last=True, world=3, rank=r, buffer=64) for r in range(3)]
    assert [len(x) for x in b] == [2, 2, 2]
    seen = [i for x in b for rows in rows_of(x) for i in rows]
    assert len(seen) == len(set(seen)) == 192
    assert [len(r) for r in rows_of(b[0])] == [32, 32]


def test_sparse_batches(path, X):
    for b in Stream(path).batches(50, dense=False):
        assert sparse.issparse(b.X) and b.X.dtype == np.float32
        np.testing.assert_array_equal(b.X.toarray(), X[b.rows])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"size": 0}, "size=0"),
        ({"size": 2.5}, "size=2.5"),
        ({"block": 0}, "block=0"),
        ({"seed": -1}, "seed=-1"),
        ({"rank": 2, "world": 2}, "rank=2 is none of 2"),
        ({"labels": "kind"}, "no column 'kind' in obs: it has cell_type"),
    ],
)
def test_wrong_options(path, options, says):
    with pytest.raises((DataError, SettingError), match=says):
        Stream(path).batches(**options)


# Labels.


def test_labels(tmp_path, X):
    obs = {"kind": pd.Categorical(["z", "x"] * 115), "age": np.arange(N), "w": [None, 1.0] * 115}
    s = Stream(written(tmp_path / "a.h5ad", X, obs=obs))
    y, classes = s.labels("kind")
    assert classes == ("x", "z") and y.dtype == np.int64 and y[:2].tolist() == [1, 0]
    assert s.labels("age")[0].dtype == np.int64 and s.labels("w")[0].dtype == np.float32
    assert s.obs.shape == (N, 4)
    for batch in (found := s.batches(64, labels="kind")):
        assert [found.classes[i] for i in batch.y] == s.obs["kind"].iloc[batch.rows].tolist()
    with pytest.raises(DataError, match="115 cells of those chosen have no label"):
        s.batches(labels="w")
    assert len(list(s.batches(64, labels="w", cells=range(1, N, 2)))) == 2


def test_a_missing_name_is_no_label(tmp_path, X):
    kinds = pd.Categorical(["x", None] * 115)
    s = Stream(written(tmp_path / "a.h5ad", X, obs={"kind": kinds}))
    assert Counter(s.labels("kind")[0].tolist()) == {0: 115, -1: 115}
    with pytest.raises(DataError, match="115 cells"):
        s.batches(labels="kind")
    cells = np.flatnonzero(s.obs["kind"] == "x")
    assert {int(i) for b in s.batches(labels="kind", cells=cells) for i in b.y} == {0}


# Genes.


@pytest.mark.parametrize("form", ["csr", "dense"])
def test_genes_are_brought_into_one_order(tmp_path, X, form):
    path = written(tmp_path / "a.h5ad", X, form=form)
    turned = [f"G{i}" for i in reversed(range(3, G))]
    np.testing.assert_array_equal(next(Stream(path, genes=turned).chunks(N, dense=True))[0], X[:, :2:-1])
    with pytest.raises(DataError, match=r"a.h5ad lacks 1 gene of the 2 asked for \(other\)"):
        Stream(path, genes=["G5", "other"])
    filled = next(Stream(path, genes=["G5", "other", "G0"], missing="zero").chunks(N, dense=True))[0]
    np.testing.assert_array_equal(filled, np.stack([X[:, 5], np.zeros(N), X[:, 0]], 1))


def test_genes_that_are_not_there(tmp_path, X):
    path = written(tmp_path / "a.h5ad", X[:, :3], genes=["CD4", "ACTB", "GAPDH"])
    with pytest.raises(
        DataError, match=r"names human symbols.*, none of the genes asked for: try shared.data.to_symbols"
    ):
        Stream(path, genes=["Sox2"], missing="zero")
    with pytest.raises(DataError, match="more than once"):
        Stream(path, genes=["CD4", "CD4"])


# Files that cannot be streamed.


def test_a_matrix_stored_by_gene(tmp_path, X):
    path = written(tmp_path / "a.h5ad", X, form="csc")
    with pytest.raises(DataError, match=r"gene by gene \(CSC\).*tocsr"):
        Stream(path)


def test_what_is_no_file_of_this_kind(tmp_path, X, path):
    zarr = tmp_path / "a.zarr"
    zarr.mkdir()
    with pytest.raises(DataError, match=r"zarr store.*write_h5ad"):
        Stream(zarr)
    with pytest.raises(DataError, match="is a folder"):
        Stream(tmp_path)
    with pytest.raises(DataError, match="check the path"):
        Stream(tmp_path / "none.h5ad")
    (tmp_path / "text.h5ad").write_text("gene,cell\n")
    with pytest.raises(DataError, match="no sound"):
        Stream(tmp_path / "text.h5ad")
    with h5py.File(tmp_path / "other.h5ad", "w") as f:
        f["X"] = X
    with pytest.raises(DataError, match="no sound"):
        Stream(tmp_path / "other.h5ad")


def test_a_file_that_another_process_writes(path):
    code = f"import h5py\nwith h5py.File({str(path)!r}, 'a'): print('open', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout.readline() == b"open\n"
        with pytest.raises(DataError, match="open for writing elsewhere"):
            Stream(path)
        writer.communicate(b"\n")
    assert Stream(path).shape == (N, G)


def test_no_matrix(tmp_path, X):
    path = written(tmp_path / "a.h5ad", X, layers={"counts": sparse.csr_matrix(X)})
    with h5py.File(path, "a") as f:
        del f["X"]
    with pytest.raises(DataError, match="has no X; it has layers/counts: name one by layer="):
        Stream(path)
    assert Stream(path, layer="counts").shape == X.shape
    with pytest.raises(DataError, match="has no layers/logged"):
        Stream(path, layer="logged")


@pytest.mark.parametrize("form", ["csr", "dense"])
def test_nan_in_the_middle(tmp_path, X, form):
    X[77, 5] = np.nan
    X[78, 6] = np.inf
    s = Stream(written(tmp_path / "a.h5ad", X, form=form))
    assert len(next(s.chunks(50))[1]) == 50
    said = r"2 values between cells 50 and 99, first in cell 77, gene G5"
    with pytest.raises(DataError, match=said):
        list(s.chunks(50))
    with pytest.raises(DataError, match="NaN or infinity"):
        list(s.batches(10, buffer=10))


@pytest.mark.parametrize("form", ["csr", "dense"])
def test_what_float32_cannot_hold_is_told(tmp_path, X, form):
    X = X.astype(np.float64)
    X[77, 5] = 1e39
    with pytest.raises(DataError, match="first in cell 77, gene G5"):
        Stream(written(tmp_path / "a.h5ad", X, form=form)).read(np.arange(50, 100))


def test_an_entry_stored_in_two_parts_is_one(tmp_path, X):
    """As whole numbers of one byte, which would overflow."""
    path, whole = written(tmp_path / "a.h5ad", X), sparse.csr_matrix(X)
    parts = {"data": np.full(2 * whole.nnz, 200, np.uint8), "indices": np.repeat(whole.indices, 2)}
    with h5py.File(path, "a") as f:
        for name, values in (parts | {"indptr": 2 * whole.indptr}).items():
            del f[f"X/{name}"]
            f[f"X/{name}"] = values
    found = Stream(path).read(np.arange(N))
    assert found.nnz == whole.nnz and (found.data == 400).all()


def test_a_transform_that_is_no_function(path):
    with pytest.raises(DataError, match="transform='log' is no function"):
        Stream(path, transform="log")


def test_a_file_cut_short(tmp_path, path):
    whole = path.read_bytes()
    for length in (0, 7, 500, len(whole) // 2, len(whole) - 1):
        short = tmp_path / f"short{length}.h5ad"
        short.write_bytes(whole[:length])
        with pytest.raises(DataError):
            s = Stream(short)
            list(s.batches(10))


def test_damaged_bytes_of_a_compressed_file(tmp_path, X):
    path = written(tmp_path / "a.h5ad", X, compression="gzip")
    with h5py.File(path) as f:
        at = f["X/data"].id.get_chunk_info(0).byte_offset
    bytes_ = bytearray(path.read_bytes())
    bytes_[at + 2 : at + 30] = b"\xff" * 28
    path.write_bytes(bytes_)
    with pytest.raises(DataError, match="no sound"):
        list(Stream(path).batches(10))


def spoil(path, name, change):
    with h5py.File(path, "a") as f:
        values = change(f[f"X/{name}"][:])
        del f[f"X/{name}"]
        f[f"X/{name}"] = values


def put(i, value):
    def change(values):
        values[i] = value
        return values

    return change


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("indices", put(40, G)),
        ("indices", put(40, -1)),
        ("indices", lambda v: v[:-1]),
        ("data", lambda v: v[:-1]),
        ("data", lambda v: v.astype("S4")),
        ("indptr", put(0, 1)),
        ("indptr", put(5, 10**6)),
        ("indptr", lambda v: v[:-1]),
        ("indptr", lambda v: v[:0]),
    ],
)
def test_an_outline_that_does_not_fit(path, name, change):
    spoil(path, name, change)
    with pytest.raises(DataError, match="no sound"):
        list(Stream(path).batches(10))


def test_a_file_changed_while_it_is_read(tmp_path, path, X):
    s = Stream(path)
    chunks = s.chunks(50)
    next(chunks)
    written(tmp_path / "other.h5ad", X + 1)
    os.replace(tmp_path / "other.h5ad", path)
    with pytest.raises(DataError, match="was changed while it was being read"):
        next(chunks)
    s = Stream(path)
    path.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        list(s.batches(10))


def test_chunks_too_large_for_a_shuffle(tmp_path):
    path, packed = (written(tmp_path / f"{how}.h5ad", matrix(3000, 60), compression=how) for how in (None, "gzip"))
    with pytest.warns(DataWarning, match=r"each block of 4 cells unpacks \d+: name a larger block and buffer"):
        Stream(packed).batches(16, block=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Stream(path).batches(16, block=4)
        Stream(packed).batches(16, block=400, buffer=1600)


# How random it is.


def bits(y, size):
    """Mean entropy of the labels of consecutive batches, those that are full."""
    counts = [np.bincount(y[at : at + size]) for at in range(0, len(y) - size + 1, size)]
    shares = [c[c > 0] / size for c in counts]
    return -sum((p * np.log2(p)).sum() for p in shares) / len(counts)


def test_the_mixing_that_the_page_reports(tmp_path, root):
    page = (root / "book" / "api" / "stream.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| ([\d,]+) \| ([\d,]+) \| ([\d.]+) \|$", page, re.M)
    assert len(told) == 7
    n = 200_000
    path = written(tmp_path / "a.h5ad", sparse.csr_matrix((n, 1), dtype=np.float32))
    y = np.arange(n) * 20 // n
    for block, buffer, percent in told:
        sizes = {"block": int(block.replace(",", "")), "buffer": int(buffer.replace(",", ""))}
        given = np.concatenate([*Stream(path).batches(256, **sizes).order()])[: n // 256 * 256]
        shuffled = np.random.default_rng([0, 0]).permutation(given)
        assert f"{100 * bits(y[given], 256) / bits(y[shuffled], 256):.1f}" == percent


# Elsewhere.


def test_a_stream_travels_to_another_process(path, X):
    s = Stream(path)
    next(s.chunks(3))
    sent = pickle.loads(pickle.dumps(s))
    np.testing.assert_array_equal(next(sent.chunks(N, dense=True))[0], X)


@pytest.mark.parametrize("rows", [[5, 3], [3, 3], [-1], [N], [], [1.5], [[1, 2]], [True, False], np.uint8([5, 3])])
def test_positions_that_cannot_be_read(path, rows):
    with pytest.raises(DataError, match=r"positions|mask"):
        Stream(path).read(rows)


def test_positions_as_a_list(path, X, dense_of):
    np.testing.assert_array_equal(dense_of(Stream(path).read([3, 5, 200])), X[[3, 5, 200]])


@pytest.mark.parametrize("path", [None, 3, [], ["a.h5ad", "b.h5ad"], b"cells.h5ad"])
def test_what_names_no_file(path):
    with pytest.raises(DataError, match=r"no file is named by.*concat_on_disk"):
        Stream(path)


def test_no_genes(path):
    with pytest.raises(DataError, match="genes names none"):
        Stream(path, genes=[])
