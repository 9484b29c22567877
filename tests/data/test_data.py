"""More than two thousand generated matrices, most of them nasty: each is accepted with correct results, or refused.

Every example carries what is true of it, worked out place by place in plain Python; our functions must agree. An error
that is not ours, or any library's warning, fails the test.
"""

import gzip
import math
import os
import warnings
from functools import cache

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from scipy import sparse

from shared import data
from shared.data import check
from shared.data.errors import DataError, DataWarning
from shared.data.genes import translate
from shared.data.genes.kinds import GeneKind, gene_kind
from shared.data.genes.lists import gene_hash

# 2,150 examples in all, the same every time; a third of them by day, and all at night.
ARRAYS, ANNDATA, FILES, BYTES, NAMES = 800, 600, 200, 150, 400
FLOAT32_MAX = float(np.finfo(np.float32).max)


def nasty(examples):
    return settings(
        max_examples=examples if os.environ.get("BORROWED_EXAMPLES") == "all" else examples // 3,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    )


# What goes in

NUMBERS = st.one_of(
    st.integers(0, 5),
    st.integers(0, 300),
    st.sampled_from([0, 0, 0, 0.5, 1.25, 7.1, 2**24 + 1, 1e-40, 33.3]),
)
POISON = st.sampled_from([float("nan"), float("inf"), -float("inf"), -1, -0.5, 1e300, -0.0, 2.0**62])
DTYPES = ["bool", "i1", "u1", "i4", "i8", "u8", "f2", "f4", "f4", "f4", "f8", "f8", "g"]
NO_NUMBERS = ["c8", "O", "U3", "S3", "M8[s]"]
SPARSE = ["csr_matrix", "csr_array", "csc_matrix", "coo_matrix", "dok_matrix", "lil_matrix", "bsr_matrix", "dia_matrix"]
DENSE = ["plain", "plain", "fortran", "strided", "readonly", "matrix", "unmasked"]
SYMBOLS = ["TP53", "CD3E", "GNLY", "NKG7", "MS4A1", "SEPT2", "MARCH1", "2-Sep", "HLA-DRA", "AL627309.1", "Y_RNA"]
MOUSE = ["Trp53", "Cd3e", "Gzma", "Nkg7", "Ms4a1", "Ins1", "March1", "0610005C13Rik"]
IDS = [
    "ENSG00000141510",
    "ENSG00000141510.17",
    "ENSG00000182378.15_PAR_Y",
    "ENSG00000182378.3",
    "ENSMUSG00000059552.14",
]
ODD = [
    "",
    " ",
    " TP53",
    "nan",
    "NaN",
    "é",
    "日本語",
    "🧬",
    "a/b",
    "a.b",
    "0",
    "1",
    "1007_s_at",
    "chr1:1-2",
    "ENSG1",
    "x" * 200,
]
TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=4)
WORDS = st.one_of(st.sampled_from(SYMBOLS + MOUSE + IDS + ODD), TEXT, st.integers(0, 99).map(str))
STRANGE = st.sampled_from(
    ["a\nb", "a\x00", "\ud800", "\u2028", None, float("nan"), ("a",), b"TP53", b"\xff", 7, 2.5, pd.NA]
)


@st.composite
def matrices(draw, least=0, spoiled=True):
    """A matrix and the truth about it: an object, and a list of rows of floats (None where it holds no numbers).

    Half of those that may be `spoiled` are; the others can be used as they are.
    """
    spoiled = spoiled and draw(st.booleans())
    least = least if spoiled else 1
    n, p = draw(st.integers(least, 5)), draw(st.integers(least, 5))
    dtype = np.dtype(draw(st.sampled_from(DTYPES + (NO_NUMBERS if spoiled else []))))
    rows = [[draw(NUMBERS) for _ in range(p)] for _ in range(n)]
    for _ in range(draw(st.integers(0, 2)) if spoiled else 0):
        if n and p:
            rows[draw(st.integers(0, n - 1))][draw(st.integers(0, p - 1))] = draw(POISON)
    if dtype.kind not in "biuf":
        words = np.array([[str(v) for v in row] for row in rows], dtype="U3").reshape(n, p)
        X = {"c": lambda: np.zeros((n, p), dtype), "M": lambda: np.zeros((n, p), dtype)}.get(
            dtype.kind, lambda: words.astype(dtype)
        )()
        return X, None
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of casting NaN and huge numbers to integers
        X = np.array(rows, dtype=np.float64).reshape(n, p).astype(dtype)
    truth = [[float(v) for v in row] for row in X.tolist()]
    kinds = [*SPARSE, "parts", "zeros", "damaged", "masked", *DENSE]
    kind = draw(st.sampled_from([k for k in kinds if spoiled or k not in ("damaged", "masked")]))
    if kind in SPARSE or kind in ("parts", "zeros", "damaged"):
        if dtype.char in "eg":  # types SciPy has no sparse matrix for, or cannot convert between formats
            X = X.astype(np.float64)
        return stored(X, truth, kind)
    return laid_out(X, truth, kind, draw)


def laid_out(X, truth, kind, draw):
    """`X` as an array of some kind."""
    if kind == "fortran":
        X = np.asfortranarray(X)
    elif kind == "strided":
        X = np.repeat(np.repeat(X, 2, 0), 3, 1)[::2, ::3]
    elif kind == "readonly":
        X.flags.writeable = False
    elif kind == "matrix":
        X = np.asmatrix(X)
    elif kind == "unmasked":
        X = np.ma.masked_array(X, mask=np.zeros(X.shape, bool))
    elif kind == "masked" and X.size:
        X = np.ma.masked_array(X, mask=np.arange(X.size).reshape(X.shape) == draw(st.integers(0, X.size - 1)))
        truth = [[math.nan if m else v for v, m in zip(*rows)] for rows in zip(truth, np.ma.getmaskarray(X).tolist())]
    return X, truth


def stored(X, truth, kind):
    """`X` as a sparse matrix of some kind."""
    n, p = X.shape
    if kind in SPARSE:
        return getattr(sparse, kind)(X), truth
    if kind == "zeros":  # every place stored, the zeros too
        indices, indptr = np.tile(np.arange(p, dtype=np.int32), n), np.arange(0, n * p + 1, max(p, 1), dtype=np.int32)
        indptr = indptr if p else np.zeros(n + 1, np.int32)
        return sparse.csr_matrix((X.ravel(), indices, indptr), shape=X.shape), truth
    places = [(i, j) for i in range(n) for j in range(p)]
    if kind == "damaged" and n and p:
        out = sparse.csr_matrix(np.ones((n, p), X.dtype))
        out.indices[-1] = p + 7
        return out, "damaged"
    # In parts: every place stored twice, in no order. The truth is their sum.
    i, j = np.array(places * 2, dtype=np.int32).reshape(-1, 2)[::-1].T
    values = np.concatenate([X.ravel(), X.ravel()])[::-1].copy()
    truth = [[v + v for v in row] for row in truth]
    if n % 2:
        return sparse.coo_matrix((values, (i, j)), shape=X.shape), truth
    order = np.argsort(i, kind="stable")
    indptr = np.searchsorted(i[order], np.arange(n + 1)).astype(np.int32)
    return sparse.csr_matrix((values[order], j[order], indptr), shape=X.shape), truth


def wrong(truth, units=None):
    """What is wrong with the values, by looking at each; empty if nothing."""
    if truth is None or truth == "damaged":
        return {"dtype" if truth is None else "damaged"}
    values = [v for row in truth for v in row]
    said = set()
    if any(math.isnan(v) for v in values):
        said.add("nan")
    if any(math.isinf(v) for v in values):
        said.add("infinite")
    finite = [v for v in values if math.isfinite(v)]
    if any(abs(v) > FLOAT32_MAX for v in finite):
        said.add("beyond float32")
    whole = all(v == round(v) for v in finite)
    if any(v < 0 for v in finite) and (units in ("counts", "tpm") or (whole and len(finite) == len(values))):
        said.add("negative")
    if units == "counts" and not whole:
        said.add("not counts")
    return said


def snapshot(X):
    """All of `X` in a form to compare. Not its repr, which shows no values, or overflows in half precision."""
    if sparse.issparse(X) and X.format == "csr":  # which may be damaged
        return X.data.tobytes(), X.indices.tobytes(), X.indptr.tobytes()
    if isinstance(X, pd.DataFrame):
        X = X.astype(object).to_numpy()
    return repr(X.toarray().tolist() if sparse.issparse(X) else X.tolist() if isinstance(X, np.ndarray) else X)


def unwritable(names):
    """True where a name cannot be written in a line of its own; by trying, not by our own rule."""
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            return True
        if name and (name.splitlines() != [name] or any(ord(c) < 32 or 127 <= ord(c) < 160 for c in name)):
            return True
    return False


def dense(X):
    return X.toarray() if sparse.issparse(X) else np.asarray(X)


def same(X, truth):
    """True where `X` is float32, in the form promised, and every place holds the true value rounded to float32."""
    good = X.dtype == np.float32
    if sparse.issparse(X):
        good &= X.format == "csr" and X.has_canonical_format and not (X.data == 0).any()
    with np.errstate(all="ignore"):
        return good and np.array_equal(dense(X), np.array(truth, dtype=np.float64).astype(np.float32))


# from_arrays


@st.composite
def frames(draw, n, spoiled):
    """What may be given as obs, and whether it fits `n` cells."""
    bad = ["short", "twice", "levels", "columns", "words"]
    kind = draw(st.sampled_from(bad if spoiled else ["none", "good", "dict"]))
    labels = [draw(st.sampled_from(["a", "b", None])) for _ in range(n)]
    index = [f"c{i}" for i in range(n)]
    if kind == "none":
        return None, True
    if kind == "good":
        cast = draw(st.sampled_from([list, pd.Categorical, lambda x: pd.array(x, dtype="string")]))
        return pd.DataFrame({"t": cast(labels), "n": pd.array([1] * n, dtype="Int64")}, index=index), True
    if kind == "dict":
        return {"t": labels}, True
    if kind == "short":
        return pd.DataFrame({"t": ["a"] * (n + 1)}), False
    if kind == "twice":
        return pd.DataFrame({"t": labels}, index=["c"] * n), n < 2
    if kind == "levels":
        return pd.DataFrame(
            {"t": labels}, index=pd.MultiIndex.from_tuples([(i, i) for i in range(n)], names=["x", "y"])
        ), n == 0
    if kind == "columns":
        return pd.DataFrame([["a", "b"]] * n, index=index, columns=["t", "t"]), False
    return draw(
        st.sampled_from([("cells", False), (3, False), ({"t": "a"}, False), ({"t": ["a"], "u": ["a", "b"]}, False)])
    )


@st.composite
def wrapped(draw, spoiled):
    """As :func:`matrices`, sometimes as what is no array at all."""
    X, truth = draw(matrices(spoiled=spoiled))
    if sparse.issparse(X) or truth is None or np.ma.isMaskedArray(X):
        return X, truth
    bad = ["nullable", "words", "ragged", "flat", "cube"] if spoiled else []
    how = draw(st.sampled_from(["", "", "", "list", "frame", *bad]))
    if how == "list" and X.size:
        return X.tolist(), truth
    if how == "frame":
        return pd.DataFrame(np.asarray(X)), truth
    if how == "nullable" and X.dtype.char in "?bBiqfd" and X.size:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            frame = pd.DataFrame(np.asarray(X)).convert_dtypes(convert_string=False)
        frame.iloc[0, 0] = pd.NA
        return frame, [[math.nan, *truth[0][1:]], *truth[1:]]
    if how == "words":
        return pd.DataFrame(np.asarray(X)).astype(object if X.shape[1] else float).map(str), None
    if how == "ragged":
        return [[1, 2], [3]], None
    if how in ("flat", "cube"):
        return np.zeros((3,) if how == "flat" else (1, 2, 3)), None
    return X, truth


@nasty(ARRAYS)
@given(st.data())
def test_arrays_are_taken_or_refused(more):
    spoil = more.draw(st.sampled_from(["nothing", "nothing", "nothing", "matrix", "matrix", "names", "obs", "all"]))
    X, truth = more.draw(wrapped(spoil in ("matrix", "all")))
    n, p = X.shape if getattr(X, "ndim", 0) == 2 else np.shape(truth) if truth and truth != "damaged" else (2, 2)
    bad_names = spoil in ("names", "all")
    names = more.draw(st.lists(WORDS, min_size=p, max_size=p, unique=not bad_names))
    how = more.draw(st.sampled_from(["", "strange", "longer", "text"] if bad_names else ["", "index", "tuple"]))
    fits = not unwritable(names)
    if how == "strange" and p:
        names[0] = more.draw(STRANGE)
        first = names[0]
        fits = first == b"TP53" if isinstance(first, bytes) else isinstance(first, (int, float)) and first == first
        fits = fits and not unwritable(names[1:])
    elif how == "longer":
        names, fits = [*names, "more"], False
    elif how == "text":
        names, fits = "".join(filter(str.isalnum, "".join(names))), False
    elif how == "index" and fits:
        names = pd.Index(names, dtype=object)
    elif how == "tuple":
        names = tuple(names)
    final = [g.decode() if isinstance(g, bytes) and g != b"\xff" else str(g) for g in names]
    fits = fits and len(set(final)) == len(final)
    obs, obs_fits = more.draw(frames(n, spoil in ("obs", "all")))
    before = snapshot(X)
    try:
        got = data.from_arrays(X, names, obs=obs)
    except DataError as e:
        reasons = not fits or not obs_fits or not n or not p or wrong(truth)
        assert reasons, f"refused without a reason: {e}"
        assert str(e) and ":" in str(e)
        event("refused")
        return
    assert fits and obs_fits and not wrong(truth), "accepted what should be refused"
    event(f"accepted: {type(X).__name__}")
    assert snapshot(X) == before
    values = [v for row in truth for v in row]
    counts = all(v == round(v) for v in values) and max(values) > 1
    assert same(got.X, truth) and list(got.var_names) == final and got.shape == (n, p)
    assert got.uns["units"] == ("counts" if counts else "unknown") and ("counts" in got.layers) == counts
    assert got.uns["gene_hash"] == gene_hash(final)
    if counts:
        assert same(got.layers["counts"], truth)
        dense_copy, got.X = dense(got.X).copy(), got.X * 0
        assert np.array_equal(dense(got.layers["counts"]), dense_copy)
    if isinstance(X, np.ndarray) or sparse.issparse(X):
        told = " ".join(got.uns["notes"])
        assert (X.dtype != np.float32) == ("became float32" in told)
        assert not isinstance(X, np.ndarray) or not np.shares_memory(got.X, X)
        assert (sparse.issparse(X) and X.format != "csr") == ("became CSR" in told)
    if obs is not None:
        _, y, columns = data.to_arrays(got, "t") if pd.notna(got.obs["t"]).all() else (None, None, None)
        assert y is None or (list(y) == list(map(str, got.obs["t"])) and columns == final)


# check and to_arrays, on AnnData as people have it


@st.composite
def annotated(draw, tmp=None):
    """AnnData as it may come out of any tool, and the truth about its values."""
    X, truth = draw(matrices(least=1))
    if isinstance(X, np.ma.MaskedArray) or getattr(X, "format", "csr") not in ("csr", "csc") or X.dtype.kind == "M":
        X = np.asarray(X) if isinstance(X, np.ndarray) else X.tocsr()
        if isinstance(X, np.ndarray) and X.dtype.kind == "M":
            truth = None
        else:
            with np.errstate(all="ignore"):
                truth = [[float(v) for v in row] for row in dense(X).tolist()]
    n, p = X.shape
    unique, whole = draw(st.sampled_from([True, True, False])), draw(st.booleans())
    names = draw(st.lists(WORDS, min_size=p, max_size=p, unique=unique))
    cells = draw(st.lists(WORDS, min_size=n, max_size=n, unique=unique))
    if not unique and draw(st.booleans()):
        names[0] = draw(st.sampled_from(["a\nb", "\x00", "\u2028", "a\ud800"]))
    labels = [draw(st.sampled_from(["a", "b", "b ", "unknown", *([] if whole else [None])])) for _ in range(n)]
    cast = draw(st.sampled_from([list, pd.Categorical, lambda x: pd.array(x, dtype="string")]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata = ad.AnnData(X, obs=pd.DataFrame({"t": cast(labels), "x": np.linspace(0, 1, n)}))
        adata.var_names, adata.obs_names = pd.Index(names, dtype=object), pd.Index(cells, dtype=object)
        adata.uns["units"] = draw(st.sampled_from(["counts", "log", "tpm", "z", "none", "unknown", 3, None, ["log"]]))
        if truth != "damaged" and draw(st.integers(0, 4)) == 0:
            keep = [i for i in range(n) if i % 2 == 0]
            adata, truth = adata[keep], truth and [truth[i] for i in keep]
    return adata, truth


@nasty(ANNDATA)
@given(annotated(), st.data())
def test_checks_agree_with_looking_at_each_value(given_, more):
    adata, truth = given_
    asked = {
        "need": more.draw(st.sampled_from([None, "counts", "log", "tpm", "z"])),
        "labels": more.draw(st.sampled_from([None, "t", "t", "x", "nothing"])),
        "organism": more.draw(st.sampled_from([None, "human", "mouse"])),
        "genes": more.draw(st.sampled_from([None, SYMBOLS, MOUSE, ["x"], adata])),
    }
    if asked["labels"]:
        asked["per_class"] = more.draw(st.sampled_from([None, 1, 3]))
    names, cells = list(adata.var_names), list(adata.obs_names)
    before = None if truth == "damaged" else (repr(dense(adata.X).tolist()), names, cells, list(adata.obs["t"]))
    bad_names = unwritable(names)
    try:
        report = check(adata, **asked)
    except DataError:
        # The reference list is the data's own, and they name genes twice.
        assert asked["genes"] is adata and len(set(names)) < len(names)
        return
    if before:
        now = repr(dense(adata.X).tolist()), list(adata.var_names), list(adata.obs_names), list(adata.obs["t"])
        assert repr(now) == repr(before) and list(adata.uns) == ["units"]
    units = adata.uns["units"] if adata.uns["units"] in ("counts", "log", "tpm", "z", "none") else None
    found = {f.check for f in report.findings}
    event(f"looks {report.looks}")
    assert found & {"nan", "infinite", "beyond float32", "negative", "dtype", "damaged"} == {
        w for w in wrong(truth, units) if w not in ("infinite" if "nan" in wrong(truth, units) else "", "not counts")
    }
    assert ("genes twice" in found) == (len(set(names)) < len(names))
    assert ("cells twice" in found) == (len(set(cells)) < len(cells))
    assert ("names" in found) == (bad_names or unwritable(cells))
    if truth and truth != "damaged" and not wrong(truth):
        looked_at(report, found, truth)
    if asked["labels"] == "t":
        labels = [x for x in adata.obs["t"] if not pd.isna(x)]
        sizes = {x: labels.count(x) for x in labels}
        assert ("missing labels" in found) == (len(labels) < adata.n_obs)
        assert ("one class" in found) == (len(sizes) < 2)
        assert ("few per class" in found) == (min(sizes.values(), default=9) < (asked["per_class"] or 0))
        assert ("alike" in found) == ({"b", "b "} <= set(sizes)) and ("unlabelled" in found) == ("unknown" in sizes)
    assert ("labels" in found) == (asked["labels"] == "nothing")
    assert str(report) and len(report.findings) == len(found)
    if asked["organism"]:  # not always: pandas is slow to write
        assert len(report.to_frame()) == len(found) and report._repr_html_().startswith("<p>")
    arrays_of(
        adata, truth, bad_names or unwritable(cells) or len(set(names)) < len(names) or len(set(cells)) < len(cells)
    )


def looked_at(report, found, truth):
    values = [v for row in truth for v in row]
    assert (report.looks == "equal") == (len(set(values)) == 1)
    if report.looks not in ("equal", "signed") and "transposed" not in found:
        assert ("empty cells" in found) == any(not any(row) for row in truth)
    if report.looks != "equal" and "transposed" not in found:
        assert ("empty genes" in found) == any(not any(column) for column in zip(*truth))
    if len(set(values)) > 1:
        whole, least = all(v == round(v) for v in values), min(values)
        assert (report.looks == "counts") == (whole and least >= 0 and max(values) > 1)
        assert (report.looks == "signed") == (least < 0)


def arrays_of(adata, truth, bad_names):
    missing = adata.obs["t"].isna().any()
    try:
        X, y, columns = data.to_arrays(adata, "t")
    except DataError as e:
        assert bad_names or missing or wrong(truth) - {"negative"}, f"refused without a reason: {e}"
        return
    assert not bad_names and not missing and not wrong(truth) - {"negative"}
    event("arrays")
    assert same(X, truth)
    assert list(y) == list(map(str, adata.obs["t"])) and columns == list(adata.var_names)


# load


@nasty(FILES)
@given(st.data())
def test_files_are_taken_or_refused(tmp_path_factory, more):
    X, truth = more.draw(matrices(least=1))
    if truth is None or truth == "damaged" or isinstance(X, (np.ma.MaskedArray, np.matrix)) or X.dtype.char in "g":
        X, truth = np.arange(6, dtype=np.float16).reshape(2, 3), [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    if getattr(X, "format", "csr") not in ("csr", "csc"):
        X = (X.astype(np.float64) if X.dtype.kind in "biu" else X).tocsr()
    n, p = X.shape
    path = tmp_path_factory.mktemp("files") / ("m.h5ad" if more.draw(st.booleans()) else "m.csv")
    names = more.draw(st.lists(st.sampled_from([w for w in SYMBOLS + MOUSE if w]), min_size=p, max_size=p, unique=True))
    units = more.draw(st.sampled_from([None, None, "counts", "log"])) if path.suffix == ".h5ad" else None
    spoiled = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata = ad.AnnData(X, obs=pd.DataFrame(index=[f"c{i}" for i in range(n)]), var=pd.DataFrame(index=names))
        if units:
            adata.uns["units"] = units
        if path.suffix == ".h5ad":
            adata.write_h5ad(path)
            if sparse.issparse(X) and X.nnz and more.draw(st.integers(0, 3)) == 0:
                spoiled = more.draw(st.sampled_from(["indices", "indptr", "data", "shape"]))
                with h5py.File(path, "a") as f:
                    if spoiled == "shape":
                        f["X"].attrs["shape"] = [n, p - 1]
                    elif spoiled == "data":
                        short = f["X/data"][:-1]
                        del f["X/data"]
                        f["X/data"] = short
                    else:
                        f["X"][spoiled][-1] = 10**6
        else:
            table = pd.DataFrame(dense(X).astype(np.float64), adata.obs_names, names)
            table.to_csv(path)
            truth = [[float(v) for v in row] for row in table.to_numpy()]
    if path.suffix == ".h5ad" and not spoiled:
        backed = ad.read_h5ad(path, backed="r")
        assert check(backed).checks == check(backed.to_memory()).checks
        backed.file.close()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)
            got = data.load(path)
    except DataError as e:
        assert spoiled or wrong(truth, units), f"refused without a reason: {e}"
        assert path.name in str(e)
        return
    assert not spoiled and not wrong(truth, units)
    event("accepted")
    values = [v for row in truth for v in row]
    counts = all(v == round(v) for v in values) and max(values) > 1
    assert same(got.X, truth) and list(got.var_names) == names
    assert got.uns["units"] == (units or ("counts" if counts else "unknown"))
    if got.uns["units"] == "counts":
        assert same(got.layers["counts"], truth)


TABLE = st.lists(st.text(alphabet='01a,\t\n\r" .-nNe;é\x00#', max_size=12), max_size=6).map("\n".join)


FIELD = st.sampled_from(["1", "0", "2.5", "7", "1e3", " 1", '"1"', "", "-3", "a", "nan", "1,5", "0x1", "é", "1 000"])
ALMOST = st.lists(st.lists(FIELD, min_size=2, max_size=2), min_size=1, max_size=3).map(
    lambda rows: "\n".join(["cell,TP53,CD3E", *(f"c{i},{','.join(row)}" for i, row in enumerate(rows))])
)


@nasty(BYTES)
@given(
    st.one_of(st.binary(max_size=60), TABLE.map(str.encode), ALMOST.map(str.encode)),
    st.sampled_from([".csv", ".tsv", ".csv.gz", ".h5ad"]),
)
def test_any_bytes_are_a_matrix_or_refused(tmp_path_factory, content, suffix):
    path = tmp_path_factory.mktemp("bytes") / f"m{suffix}"
    path.write_bytes(gzip.compress(content) if suffix.endswith("gz") and len(content) % 2 else content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)
            got = data.load(path)
    except DataError as e:
        assert path.name in str(e)
        return
    event("accepted")
    assert got.X.dtype == np.float32 and np.isfinite(dense(got.X)).all() and min(got.shape) > 0
    assert got.var_names.is_unique and got.obs_names.is_unique and not unwritable(got.var_names)


# Genes


@st.composite
def named(draw):
    """AnnData with names of all kinds, some twice, and its values; the values can be summed more often than not."""
    p = draw(st.integers(1, 8))
    pool = draw(st.sampled_from([SYMBOLS, MOUSE, IDS, SYMBOLS + MOUSE + IDS + ODD, ODD]))
    names = [draw(st.sampled_from(pool)) for _ in range(p)]
    dtype = draw(st.sampled_from(["u1", "i4", "i8", "f4", "f8"]))
    values = np.array([[draw(st.integers(0, 255)) % 128 + 0 for _ in range(p)] for _ in range(2)], dtype=dtype)
    if draw(st.integers(0, 4)) == 0 and dtype[0] == "f":
        values = np.log1p(values)
    form = draw(
        st.sampled_from([np.asarray, sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array, np.asfortranarray])
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata = ad.AnnData(form(values))
        adata.var_names = pd.Index(names, dtype=object)
        adata.var["symbol"] = [draw(st.sampled_from(["A", "B", "", None, "C"])) for _ in range(p)]
        adata.layers["more"] = form(values)
        if draw(st.booleans()):
            adata.uns["units"] = "counts" if (values == values.round()).all() else "log"
        if draw(st.integers(0, 3)) == 0:
            adata = adata[::-1]
    return adata, dense(adata.X).astype(np.float64)


@cache
def tables():
    """Symbol of each id; ids of each symbol, by species; partner of each symbol, by the species it is of."""
    by_id, by_symbol, pairs = {}, {"human": {}, "mouse": {}}, data.gene_table("orthologs").itertuples(index=False)
    for species, found in by_symbol.items():
        for ensembl, symbol in data.gene_table(species).itertuples(index=False):
            by_id[ensembl] = symbol
            found.setdefault(symbol, []).append(ensembl)
    partners = {"human": {}, "mouse": {}}
    for human, mouse in pairs:
        partners["human"][human], partners["mouse"][mouse] = mouse, human
    return by_id, by_symbol, partners


def expected(step, names, symbols, species):
    """The new name of each gene, or None: one at a time, straight from the tables."""
    by_id, by_symbol, partners = tables()
    ids = by_symbol.get(species, by_symbol["human"])
    modern = {"SEPT2": "SEPTIN2", "MARCH1": "MARCHF1", "March1": "Marchf1"}
    new = []
    for name, symbol in zip(names, symbols):
        y = "_PAR_Y" if name.endswith("_PAR_Y") else ""
        base = name.split(".")[0] if name.startswith("ENS") else name
        if step == "column":
            new.append(symbol or None)
        elif step == "merge_duplicates":
            new.append(name)
        elif step == "to_symbols":
            new.append(name if KIND.kind == "symbols" else (by_id[base] + y if base in by_id else None))
        elif step == "to_ensembl":
            if KIND.kind == "ensembl":
                new.append(base + y if base.startswith(("ENSG0", "ENSMUSG0")) else None)
            else:
                found = ids.get(name) or ids.get(modern.get(name), [])
                new.append(found[0] if len(found) == 1 else None)
        else:
            source = "mouse" if step == "to_human" else "human"
            if KIND.kind == "ensembl":
                theirs = base.startswith("ENSMUSG" if source == "mouse" else "ENSG")
                name = by_id.get(base, "-") + y if theirs else "-"
            partner = partners[source]
            new.append(partner.get(name) or partner.get(modern.get(name)))
    return new


KIND = GeneKind("unknown", None, 0)


@nasty(NAMES)
@given(
    named(),
    st.sampled_from(["to_symbols", "to_ensembl", "to_human", "to_mouse", "merge_duplicates", "column"]),
    st.sampled_from(["sum", "sum", "first", "refuse"]),
)
def test_translations_agree_with_the_tables(given_, step, duplicates):
    global KIND
    adata, values = given_
    names, before = list(adata.var_names), repr(dense(adata.X).tolist())
    KIND = gene_kind(names)
    new = expected(step, names, adata.var["symbol"], KIND.organism)
    order = list(dict.fromkeys(n for n in new if n is not None))
    merged = sum(n is not None for n in new) - len(order)
    units = adata.uns.get("units")
    can_sum = units == "counts" if units else bool((values == values.round()).all())
    call = translate.to_symbols if step == "column" else getattr(translate, step)
    try:
        got, report = call(adata, duplicates=duplicates, **({"column": "symbol"} if step == "column" else {}))
    except DataError as e:
        species = (step == "to_human" and KIND.organism == "human") or (step == "to_mouse" and KIND.organism == "mouse")
        untold = step == "to_ensembl" and KIND.kind != "ensembl" and KIND.organism not in ("human", "mouse")
        clash = merged and (duplicates == "refuse" or (duplicates == "sum" and not can_sum))
        event(f"refused: {step}")
        assert not order or species or untold or clash, f"refused without a reason: {e}"
        return
    event(f"accepted: {step}, {'merged' if merged else 'apart'}")
    assert order == list(got.var_names) and repr(dense(adata.X).tolist()) == before
    for j, name in enumerate(order):
        members = [i for i, n in enumerate(new) if n == name]
        members = members[:1] if duplicates == "first" else members
        assert np.allclose(dense(got.X)[:, j], values[:, members].sum(1), rtol=1e-6)
        assert got.var["before"].iloc[j] == ";".join(names[i] for i in members)
        if "more" in got.layers:
            assert np.array_equal(dense(got.layers["more"])[:, j], dense(got.X)[:, j])
    assert ("more" in got.layers) or any("layer 'more' dropped" in n for n in report.notes)
    assert (report.before, report.after, report.merged) == (len(names), len(order), merged)
    assert report.mapped == len(order) + merged and sum(report.lost.values()) == len(names) - report.mapped
    told = [name for reason in report.first.values() for name in reason]
    assert sorted(told) == sorted(name for name, n in zip(names, new) if n is None)
    assert got.uns["gene_hash"] == gene_hash(order) and got.uns["notes"][-1] == str(report)


def test_there_are_two_thousand_of_them():
    assert ARRAYS + ANNDATA + FILES + BYTES + NAMES >= 2000


@pytest.mark.parametrize(
    "name", ["", ".", "..", "~nobody_here_/x.csv", "a\0.csv", "x" * 5000 + ".csv", None, 3, b"x.csv", "é"]
)
def test_what_is_no_path_is_refused(name):
    with pytest.raises(DataError):
        data.load(name)


def test_what_is_in_memory_is_no_path():
    for held in (pd.DataFrame([[1]]), ad.AnnData(np.ones((1, 1))), [1], 3.5):
        with pytest.raises(DataError, match=f"name is a {type(held).__name__}, .*from_arrays takes a matrix in memory"):
            data.load(held)


def test_a_table_whose_names_say_another_order_is_refused():
    """Not by position: each value would stand under another gene, or beside another cell."""
    table = pd.DataFrame([[3, 0], [1, 5]], ["a", "b"], ["TP53", "CD3E"])
    with pytest.raises(DataError, match="X names its columns in another order than genes"):
        data.from_arrays(table, ["CD3E", "TP53"])
    with pytest.raises(DataError, match="X names its rows in another order than obs"):
        data.from_arrays(table, ["TP53", "CD3E"], obs=pd.DataFrame(index=["b", "a"]))
    assert list(data.from_arrays(table, ["G1", "G2"]).var_names) == ["G1", "G2"]
    assert list(data.from_arrays(table, list(table)).obs_names) == ["0", "1"]


def test_columns_of_obs_are_words_that_a_file_can_hold(tmp_path):
    data.from_arrays(np.eye(2), ["TP53", "CD3E"], obs=pd.DataFrame([[1, 2], [3, 4]])).write_h5ad(tmp_path / "a.h5ad")
    assert list(data.load(tmp_path / "a.h5ad").obs) == ["0", "1"]


@pytest.mark.parametrize("said", ["CPM", ["counts", "log"], 3])
def test_units_that_are_not_known_are_told(tmp_path, said):
    adata = ad.AnnData(np.array([[3, 0], [1, 5]], np.float32), var=pd.DataFrame(index=["TP53", "CD3E"]))
    adata.uns["units"] = said
    adata.write_h5ad(tmp_path / "a.h5ad")
    found = data.load(tmp_path / "a.h5ad")
    assert found.uns["units"] == "counts" and "none that is known here; it says 'counts' now" in found.uns["notes"][-1]
