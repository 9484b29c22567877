"""Whole files and AnnData objects of every format, type, layout and damage, against plain pandas and SciPy.

A case that is sound comes out as the oracle says; one that is damaged is refused by an error of ours. Every night each
cell of format × type × damage is tried at least five times; here, a sample of them.
"""

import collections
import gzip
import itertools
import random
import shutil
import warnings

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from scipy import sparse

from shared.data import Corpus, check, from_arrays, load, to_arrays
from shared.data.cells import read
from shared.data.errors import DataError
from shared.preprocess import align_genes, log_normalize

FORMATS = (
    "array",
    "csr",
    "csc",
    "coo",
    "lil",
    "dok",
    "bsr",
    "dia",
    "table",
    "h5ad array",
    "h5ad csr",
    "h5ad csc",
    "csv",
    "tsv.gz",
    "10x folder",
    "10x h5",
)
TYPES = ("uint8", "int16", "int64", "float16", "float32", "float64", ">f4", "bool", "wide")
DAMAGE = (
    "none",
    "NaN",
    "infinite",
    "negative",
    "gene twice",
    "cell twice",
    "logged",
    "stored twice",
    "empty cell",
    "names",
    "pd.NA",
    "cut short",
)
FILES = ("h5ad array", "h5ad csr", "h5ad csc", "csv", "tsv.gz", "10x folder", "10x h5")
ODD = ("float16", ">f4")  # types that SciPy has no matrices of
NOTHING = ("NaN", "infinite", "negative", "pd.NA")
CELLS = list(itertools.product(FORMATS, TYPES, DAMAGE))
TRIED = collections.Counter()
OURS = (DataError,)


@st.composite
def counts(draw, kind):
    """A small table of counts that the type holds, each cell and each gene seen."""
    n, genes = draw(st.integers(2, 6)), draw(st.integers(2, 7))
    top = {"bool": 1, "uint8": 255, "int16": 999, "float16": 999}.get(kind, 9999)
    values = draw(st.lists(st.one_of(st.just(0), st.integers(0, top)), min_size=n * genes, max_size=n * genes))
    X = np.array(values, float).reshape(n, genes)
    X[:, 0] = np.maximum(X[:, 0], 1)
    X[0] = np.maximum(X[0], 1)
    return X


def stored(X, form, kind, layout):
    """The matrix `X` in a format and type, or None where there is no such thing."""
    dtype = np.dtype({"wide": "float32"}.get(kind, kind))
    name = {"10x folder": "coo", "10x h5": "csr"}.get(form, form.removeprefix("h5ad "))
    if name in ("array", "table", "csv", "tsv.gz"):
        values = X.astype(dtype)
        return np.asfortranarray(values) if layout else values
    if kind in ODD:
        if form not in FILES:
            return None  # SciPy takes neither, and a file may hold both
        dtype = np.dtype("float32")
    made = (sparse.csr_array if layout else sparse.csr_matrix)(X.astype(dtype)).asformat(name)
    if kind == "wide" and name in ("csr", "csc"):
        made.indices, made.indptr = made.indices.astype(np.int64), made.indptr.astype(np.int64)
    return made


def damaged(X, damage):
    """The values with their damage; None where the type of the values cannot hold it."""
    X = X.copy()
    if damage in ("NaN", "infinite", "pd.NA"):
        X[0, 1] = np.inf if damage == "infinite" else np.nan
    elif damage == "negative":
        X[0, 1] = -1
    elif damage == "logged":
        X = np.log1p(X / X.sum(1, keepdims=True) * 1e4)
    elif damage == "empty cell":
        X[1] = 0
    return X


def twice(X):
    """Each entry stored in two parts, in formats that can."""
    if getattr(X, "format", "") == "coo":
        return type(X)((np.r_[X.data, X.data], (np.r_[X.row, X.row], np.r_[X.col, X.col])), X.shape)
    if getattr(X, "format", "") in ("csr", "csc"):
        return type(X)((np.repeat(X.data, 2), np.repeat(X.indices, 2), 2 * X.indptr), X.shape)
    return None


@st.composite
def cases(draw, cell):
    form, kind, damage = cell
    X = damaged(draw(counts(kind)), damage)
    made = stored(np.nan_to_num(X, nan=1) if damage == "pd.NA" else X, form, kind, draw(st.booleans()))
    if damage == "pd.NA":
        made = pd.DataFrame(made).astype(object)
        made.iloc[0, 1] = pd.NA
    if damage == "stored twice":
        made, X = twice(made), 2 * X
    genes = [f"G{i}" for i in range(X.shape[1])]
    genes = draw(st.permutations(genes))
    cells = [f"c{i}" for i in range(len(X))]
    if damage == "gene twice":
        genes[1] = genes[0]
    elif damage == "cell twice":
        cells[1] = cells[0]
    elif damage == "names":
        genes[1] = "G\n1"
    return form, kind, damage, X, made, genes, cells, draw(st.floats(0, 1))


def annotated(made, genes, cells):
    obs = pd.DataFrame({"cell_type": ["a", "b"] * (len(cells) // 2) + ["a"] * (len(cells) % 2)}, index=cells)
    return ad.AnnData(made, obs=obs, var=pd.DataFrame(index=genes))


def written(form, kind, made, genes, cells, folder, share):
    """A file of that form, and what of it can be cut; `share` decides between equals."""
    if form == "10x folder":
        return folder_of_10x(kind, made, genes, cells, folder, share)
    path = folder / ("a.h5ad" if "h5ad" in form else "a.h5" if form == "10x h5" else f"a.{form}")
    if form.startswith("h5ad"):
        annotated(made, genes, cells).write_h5ad(path)
    elif form != "10x h5":
        pd.DataFrame(made, index=cells, columns=genes).to_csv(path, sep="," if form == "csv" else "\t")
        return path, path
    with h5py.File(path, "a") as file:
        if form == "10x h5":
            names, group = np.array(genes, "S"), file.create_group("matrix")
            group |= {"data": made.data, "indices": made.indices, "indptr": made.indptr, "shape": made.shape[::-1]}
            group |= {"barcodes": np.array(cells, "S"), "features/id": names, "features/name": names}
            group["features/feature_type"] = np.array(["Gene Expression"] * len(genes), "S")
        if kind in ODD and sparse.issparse(made):
            group = file["X" if "h5ad" in form else "matrix"]
            values = group["data"][:].astype(kind)
            del group["data"]
            group["data"] = values
    return path, path


def folder_of_10x(kind, made, genes, cells, folder, share):
    place = folder / "10x"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    whole = made.dtype.kind in "iub"
    entries = [
        f"{j + 1} {i + 1} {int(v) if whole else repr(float(v))}" for i, j, v in zip(made.row, made.col, made.data)
    ]
    lines = [f"%%MatrixMarket matrix coordinate {'integer' if whole else 'real'} general", "%"]
    lines += [f"{made.shape[1]} {made.shape[0]} {len(entries)}", *entries, ""]
    packed = share > 0.5
    matrix = place / ("matrix.mtx.gz" if packed else "matrix.mtx")
    matrix.write_bytes((gzip.compress if packed else bytes)("\n".join(lines).encode()))
    (place / "features.tsv").write_text("".join(f"{g}\t{g}\tGene Expression\n" for g in genes))
    (place / "barcodes.tsv").write_text("".join(f"{c}\n" for c in cells))
    return place, matrix


def cut(path, share):
    """The file without its end: before its last line, and inside a line, where it is text."""
    data = path.read_bytes()
    most = len(data) - 1
    if path.suffix in (".csv", ".mtx"):
        most = data.rindex(b"\n", 0, -1)
    at = max(1, int(share * most))
    while data[at - 1 : at] == b"\n":
        at -= 1
    path.write_bytes(data[:at])


def plain(X):
    return X.toarray() if sparse.issparse(X) else np.asarray(X)


def refused(function):
    """Whether a call is refused by an error of ours; any other error is a failure of the test."""
    try:
        return function(), None
    except OURS as error:
        assert str(error) and len(str(error)) < 2000
        return None, error


def tried(case, folder):
    """One case through every door, each compared with the oracle."""
    form, kind, damage, X, made, genes, cells, share = case
    nothing = damage in NOTHING
    named_badly = damage in ("gene twice", "cell twice", "names", "cut short") or (
        form.startswith("10x") and damage == "logged"  # where counts alone are written
    )
    with warnings.catch_warnings(action="ignore"):
        if form in FILES:
            try:
                path, part = written(form, kind, made, genes, cells, folder, share)
            except (ValueError, TypeError):  # a file that nobody can write
                return
            if damage == "cut short":
                cut(part, share)
            adata, error = refused(lambda: load(path))
            if damage == "names" and form in ("csv", "tsv.gz"):
                return  # a quoted line break: the reader of tables has tests of its own
        else:
            table = made if damage == "pd.NA" else pd.DataFrame(made, columns=genes) if form == "table" else made
            adata, error = refused(lambda: from_arrays(table, genes, obs=pd.DataFrame(index=cells)))
        assert (error is not None) == (nothing or named_badly), (damage, error)
        # The one reader and the scale, of the matrix itself.
        matrix = pd.DataFrame(made) if form == "table" else made
        try:
            values = read(matrix).X
        except ValueError as e:
            assert damage in ("NaN", "infinite", "pd.NA"), e
        else:
            assert damage not in ("NaN", "infinite", "pd.NA") and np.allclose(plain(values), X, rtol=1e-3)
            assert (
                values.dtype in (np.float32, np.float64) and not sparse.issparse(values)
            ) or values.indices.dtype == np.int32
        logs, error_of_log = refused(lambda: log_normalize(matrix))
        logged = damage == "logged" and (X % 1).any()
        assert (error_of_log is not None) == (nothing or logged or damage == "empty cell"), (damage, error_of_log)
        if logs is not None:
            oracle = np.log1p(X / X.sum(1, keepdims=True) * 1e4)
            assert np.allclose(plain(logs), oracle, rtol=2e-3, atol=1e-4) and sparse.issparse(logs) == sparse.issparse(
                made
            )
        if adata is None:
            return
        # What came out of a door goes through the others.
        assert list(adata.var_names) == list(genes) and list(adata.obs_names) == cells
        assert np.allclose(plain(adata.X), X, rtol=1e-3) and adata.X.dtype == np.float32
        top = X.max()
        units = "unknown" if ((X % 1).any() or top <= 1) and not form.startswith("10x") else "counts"
        assert adata.uns["units"] == units or damage == "logged"
        report = check(adata)
        assert ("empty cells" in report.checks) == (
            damage == "empty cell" or (not plain(adata.X).sum(1).all() and top != 0)
        )
        adata.obs["cell_type"] = "a"
        back, labels, names = to_arrays(adata)
        assert np.array_equal(plain(back), plain(adata.X)) and names == list(genes) and len(labels) == len(X)
        order = [*sorted(genes)[::-1], "another"]
        aligned, _ = align_genes(adata, order)
        oracle = pd.DataFrame(plain(adata.X), columns=genes).reindex(columns=order, fill_value=0)
        assert np.array_equal(plain(aligned.X), oracle.to_numpy()) and aligned.uns["units"] == adata.uns["units"]
        if adata.uns["units"] == "counts" and damage != "empty cell":
            normal = log_normalize(adata)
            assert normal.uns["units"] == "log" and np.array_equal(plain(normal.layers["counts"]), plain(adata.X))
            assert np.allclose(plain(Corpus({"a": adata}, genes=genes).counts["a"]), X, rtol=1e-3)


def possible(cell):
    """Whether a cell of the table stands for anything at all."""
    form, kind, damage = cell
    dtype = np.dtype({"wide": "float32"}.get(kind, kind))
    tabular = form in ("table", "csv", "tsv.gz")
    if (damage in ("NaN", "infinite", "logged") and dtype.kind != "f") or (damage == "pd.NA" and not tabular):
        return False
    if (damage == "negative" and kind in ("bool", "uint8")) or (damage == "cut short" and form not in FILES):
        return False
    scipys = form in ("csr", "csc", "coo", "lil", "dok", "bsr", "dia")
    if (kind in ODD and scipys) or (kind == "bool" and form == "10x h5"):
        return False
    return damage != "stored twice" or (form in ("csr", "csc", "coo", "10x folder", "10x h5") and kind != "bool")


POSSIBLE = [cell for cell in CELLS if possible(cell)]


def campaign(cells, each, folder):
    for cell in cells:

        @seed(CELLS.index(cell))
        @settings(max_examples=each, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(cases(cell))
        def run(case):
            TRIED[case[:3]] += 1
            tried(case, folder)

        try:
            run()
        except Exception as error:
            raise AssertionError(f"{cell}: {error!r}") from error


def test_a_sample_of_files_and_tables_comes_out_right_or_is_refused(tmp_path):
    campaign(random.Random(0).sample(POSSIBLE, 250), 2, tmp_path)


@pytest.mark.nightly
def test_every_file_and_table_comes_out_right_or_is_refused(tmp_path):
    TRIED.clear()
    campaign(POSSIBLE, 8, tmp_path)
    fewest = min(TRIED[cell] for cell in POSSIBLE)
    print(f"{sum(TRIED.values()):,} cases of {len(POSSIBLE):,} kinds, {fewest} of each at least")
    assert fewest >= 5 and sum(TRIED.values()) >= 5000
