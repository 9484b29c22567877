"""One reader for an AnnData, a table or arrays: what comes out, and what is refused."""

import importlib
import inspect
import re
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from sklearn.base import BaseEstimator

from shared.data import Corpus, from_arrays, to_arrays
from shared.data.cells import (
    Cells,
    column_names,
    count_matrix,
    difference,
    finite_matrix,
    label_array,
    read,
)
from shared.data.errors import DataError
from shared.data.genes.translate import merge_duplicates
from shared.methods.expression_data import cpm, pseudobulk
from shared.preprocess import align_genes, log_normalize, quality_control

GENES = ["A", "B", "C"]
COUNTS = np.array([[1, 0, 2], [0, 3, 0]], np.float32)


def annotated(**obs):
    adata = ad.AnnData(COUNTS.copy(), pd.DataFrame(obs, index=["x", "y"]), pd.DataFrame(index=GENES))
    adata.layers["counts"] = sparse.csr_matrix(10 * adata.X)
    return adata


def test_annotated_data_tables_and_arrays_come_out_alike():
    inputs = (annotated(kind=pd.Categorical(["a", "b"], ["a", "b", "no cell"])), "kind", None)
    for X, y, genes in (inputs, (pd.DataFrame(COUNTS, columns=GENES), ["a", "b"], None), (COUNTS, ["a", "b"], GENES)):
        model = BaseEstimator()
        cells = read(X, y, genes=genes, estimator=model)
        assert cells.X.dtype == np.float32 and (cells.X == COUNTS).all() and cells.genes == GENES
        assert list(cells.classes) == ["a", "b"] and list(cells.codes) == [0, 1] and cells.n_classes == 2
        assert model.n_features_in_ == 3 and list(model.feature_names_in_) == GENES


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "lil", "dok", "bsr", "dia"])
@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csr_array])
def test_every_sparse_format_becomes_csr(form, kind):
    X = read(kind(COUNTS).asformat(form)).X
    assert X.format == "csr" and X.dtype == np.float32 and (X.toarray() == COUNTS).all()


def test_an_entry_stored_twice_is_summed_and_the_given_matrix_left_alone():
    X = sparse.csr_matrix((np.ones(3, np.float32), [0, 0, 1], [0, 2, 3]), shape=(2, 3))
    assert read(X).X.toarray().tolist() == [[2, 0, 0], [0, 1, 0]] and X.nnz == 3


@pytest.mark.parametrize("form", [sparse.csr_matrix, sparse.csc_matrix, np.asarray])
@pytest.mark.parametrize("layer", [None, "counts"])
def test_a_table_that_stays_in_its_file_is_read(form, layer, tmp_path):
    adata = annotated(kind=["a", "b"])
    adata.X = form(adata.X)
    adata.write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    cells = read(backed, "kind", layer=layer)
    assert (sparse.csr_matrix(cells.X).toarray() == COUNTS * (10 if layer else 1)).all()
    assert cells.layer == (layer or "X") and list(cells.y) == ["a", "b"]
    backed.file.close()


def test_a_layer_that_is_not_there_leaves_x():
    cells = read(annotated(), layer="none such")
    assert (cells.X == COUNTS).all() and cells.layer == "X"


def test_numbers_come_by_column_or_as_several_outputs():
    adata = annotated(dose=[0.5, np.nan])
    assert np.array_equal(read(adata, "dose", numbers=True, allow_nan="y").y, [0.5, np.nan], equal_nan=True)
    with pytest.raises(ValueError, match="NaN"):
        read(adata, "dose", numbers=True)
    assert read(adata, [[1, 2], [3, 4]], numbers=True).n_outputs == 2
    with pytest.raises(DataError, match="X has 2 cells and y 3"):
        read(adata, [1, 2, 3], numbers=True, allow_nan="y")


def test_labels_keep_their_kind():
    for kind, values in (("i", [3, 7]), ("b", [True, False]), ("f", [0.5, 1.0]), ("U", ["3", "7"])):
        for column in (values, pd.Categorical(values)):
            assert read(annotated(kind=column), "kind").y.dtype.kind == kind


def test_a_table_with_a_column_called_obs_is_a_table():
    table = pd.DataFrame(COUNTS, columns=["obs", "var_names", "X"])
    assert read(table).genes == ["obs", "var_names", "X"]


def test_given_names_go_before_those_of_the_data():
    assert read(annotated(), genes=["D", "E", "F"]).genes == ["D", "E", "F"]


def test_numbers_that_pandas_gave_are_no_names():
    assert column_names(pd.DataFrame(COUNTS)) is None and column_names(COUNTS) is None
    assert column_names(pd.DataFrame(COUNTS).iloc[:, ::-1]) == ["2", "1", "0"], "not the order that pandas gave"
    assert column_names(pd.DataFrame(COUNTS, columns=[672, 675, 7157])) == ["672", "675", "7157"]


@pytest.mark.parametrize(
    ("X", "y", "genes", "said"),
    [
        (COUNTS, "kind", None, "'kind' names a column of obs, and X is no AnnData"),
        (annotated(), "kind", None, "no column 'kind'"),
        (annotated(kind=["a", None]), "kind", None, "no label for 1 cells"),
        (COUNTS, ["a", "b"], GENES[:2], "2 genes are named and X has 3 columns"),
        (COUNTS, ["a", "b"], ["A", "B", "A"], "1 gene more than once"),
        (COUNTS, ["a"], GENES, "inconsistent numbers of samples"),
        (COUNTS, None, GENES, "requires y"),
        (np.full((2, 3), np.nan), ["a", "b"], GENES, "NaN"),
        (np.ones(3), ["a"], None, "2D"),
    ],
)
def test_what_does_not_fit_is_refused(X, y, genes, said):
    with pytest.raises(ValueError, match=said):
        read(X, y, genes=genes)


@pytest.mark.parametrize(
    "y",
    [
        ["a", None, "b"],
        np.array(["a", np.nan, "b"], object),
        pd.Series(["a", pd.NA, "b"]),
        [0, np.nan, 1],
        pd.Series(["a", None, "b"], dtype="category"),
    ],
    ids=["None", "NaN", "NA", "numbers", "categories"],
)
def test_labels_with_gaps_are_counted(y):
    with pytest.raises(DataError, match="y has no label for 1 of 3 cells: drop them first"):
        read(np.eye(3), y)
    filled = pd.Series(y).astype(object).fillna("c")
    assert list(read(np.eye(3), filled).y) == list(filled)


def test_an_estimator_is_held_to_its_columns():
    model = BaseEstimator()
    read(pd.DataFrame(COUNTS, columns=GENES), estimator=model)
    with pytest.raises(ValueError, match="feature names should match"):
        read(annotated()[:, ::-1], estimator=model, reset=False)
    bare = BaseEstimator()
    read(COUNTS, estimator=bare)
    with pytest.raises(ValueError, match="expecting 3 features"):
        read(COUNTS[:, :2], estimator=bare, reset=False)


def test_genes_like_those_of_other_cells_are_asked_for():
    first = read(annotated())
    assert read(COUNTS, like=first).n_genes == 3, "without names the number is all that can be compared"
    for other in (annotated()[:, ::-1].copy(), annotated()[:, :2].copy()):
        for like in (first, first.outline(), GENES, pd.Index(GENES)):
            with pytest.raises(DataError, match="these are not the 3 genes of before"):
                read(other, like=like)
    with pytest.raises(DataError, match="2 columns"):
        read(COUNTS[:, :2], like=first)
    assert difference(GENES, ["A", "D"]) == "2 are missing and 1 are new"
    assert difference(GENES, GENES[::-1]) == "they are in another order"


# Domains.


def test_domains_part_source_from_target():
    cells = read(annotated(batch=[2, -1]), ["a", "b"], sample_domain="batch")
    assert cells.source.y.tolist() == ["a"] and cells.target.y.tolist() == ["b"] and len(cells.target) == 1
    alone = read(COUNTS, ["a", "b"])
    assert len(alone.source) == 2 and len(alone.target) == 0


@pytest.mark.parametrize("domain", [[1, 0], [1], [1, np.nan], ["a", "b"], [1.5, -1], [[1], [1]], [1, np.inf]])
def test_domains_that_are_none_are_refused(domain):
    with pytest.raises(DataError, match="positive for source and negative for target"):
        read(COUNTS, sample_domain=domain)


# Some of the cells, and their sizes.


@given(st.lists(st.integers(0, 9), min_size=1, max_size=20))
def test_rows_keep_what_belongs_to_them(rows):
    X, y, domain = np.arange(20.0).reshape(10, 2), np.arange(10) % 3, np.where(np.arange(10) < 5, 1, -1)
    for form in (np.asarray, sparse.csr_matrix):
        some = read(form(X), y, sample_domain=domain)[np.array(rows)]
        values = some.X.toarray() if sparse.issparse(some.X) else some.X
        assert (values[:, 0] == 2 * np.array(rows)).all() and (some.y == np.array(rows) % 3).all()
        assert list(some.classes) == sorted(set(some.y)) and (some.classes[some.codes] == some.y).all()
        assert len(some.source) + len(some.target) == len(some)


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
@pytest.mark.parametrize("rows", [slice(1, 3), [1, 2], np.array([False, True, True, False])], ids=str)
def test_rows_that_follow_one_another_are_not_copied(form, rows):
    X = np.arange(12, dtype=np.float32).reshape(4, 3)
    cells = read(form(X))
    some = cells[rows].X
    values = [part.data if sparse.issparse(part) else part for part in (some, cells.X)]
    assert np.shares_memory(*values)
    np.testing.assert_array_equal(some.toarray() if sparse.issparse(some) else some, X[1:3])


def test_an_outline_has_the_sizes_and_no_values():
    cells = read(annotated(kind=["a", "b"]), "kind")
    outline = cells.outline()
    assert (outline.n_genes, outline.genes, outline.n_classes, outline.n_outputs) == (3, GENES, 2, 1)
    assert read(COUNTS).outline().n_classes == 0


# Counts and logarithms.


@pytest.mark.parametrize(
    ("values", "is_log"),
    [
        ([[0, 5, 2]], False),
        ([[0, 5.5, 31]], False),
        ([[0, 0.7, 2.3]], True),
        ([[-1, 0, 3]], True),
        ([[0, 1, 0]], None),
        ([[0, 0.5, 0.2]], None),
        ([[0, 0, 0]], None),
    ],
)
def test_the_scale_is_told_from_the_values(values, is_log):
    for form in (np.array, sparse.csr_matrix):
        assert Cells(form(np.array(values, np.float32))).is_log is is_log


def test_a_large_table_is_judged_by_some_cells():
    X = np.zeros((5000, 3), np.float32)
    X[::2] = 7.5
    assert Cells(X).is_log is True


def test_logarithms_read_as_counts_are_refused():
    logs = Cells(np.log1p(np.array([[1, 2, 0], [4, 0, 0], [0, 2, 9]], np.float32)))
    with pytest.raises(DataError, match=r"looks logged already .fractions"):
        logs.refuse_logs("read the counts")
    logs.units = "log"
    with pytest.raises(DataError, match=r"looks logged already .uns\['units'\] says 'log'.: read the counts"):
        logs.refuse_logs("read the counts")
    logs.units = "counts"
    with pytest.raises(DataError, match=r"if these are counts, put them into adata\.layers\['counts'\]"):
        logs.refuse_logs("read the counts")
    Cells(COUNTS).refuse_logs("")
    Cells(COUNTS * 30.5).refuse_logs("")


# Functions of one matrix.


def test_functions_of_one_matrix_read_annotated_data_too():
    assert (finite_matrix(annotated()) == COUNTS).all() and (
        count_matrix(annotated())[0].toarray() == 10 * COUNTS
    ).all()
    for bad, said in ((np.ones(3), "shape"), (np.ones((0, 3)), "at least one"), (np.full((2, 2), np.inf), "infinite")):
        with pytest.raises(DataError, match=said):
            finite_matrix(bad)
    with pytest.raises(DataError, match="1 cells have no count"):
        count_matrix([[1, 2], [0, 0]])
    with pytest.raises(DataError, match="negative"):
        count_matrix([[1, -2]])
    with pytest.raises(DataError, match="give one batch a cell"):
        label_array(["a"], 2, "batch")
    with pytest.raises(DataError, match="1 cells have no batch"):
        label_array(["a", None], 2, "batch")


# One input, one answer: whatever holds the cells, every function reads it alike or refuses it alike.


def test_names_lead_from_every_annotated_form_to_one_matrix(tmp_path):
    adata = annotated()
    adata.write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    for form in (adata, adata[:, :], backed, adata.to_df(), adata.X, adata.X.tolist()):
        assert (finite_matrix(form) == COUNTS).all() and (log_normalize(adata.X) == dense(log_normalize(form))).all()
    backed.file.close()


def dense(X):
    X = X.X if isinstance(X, ad.AnnData) else X
    return X.toarray() if sparse.issparse(X) else np.asarray(X)


MATRICES = {  # what reads any matrix
    "read": lambda X: read(X).X,
    "finite_matrix": finite_matrix,
    "count_matrix": lambda X: count_matrix(X)[0],
    "from_arrays": lambda X: from_arrays(X, GENES).X,
    "pseudobulk": lambda X: pseudobulk(X, ["a", "b"]).to_numpy(),
    "log_normalize": lambda X: np.expm1(dense(log_normalize(X, 1)).astype(float)),
    "cpm": lambda X: cpm(X, 1),
}
TABLES = {  # and what reads an AnnData, which holds arrays, CSR or CSC
    "to_arrays": lambda X: to_arrays(of(X))[0],
    "align_genes": lambda X: align_genes(of(X), GENES)[0].X,
    "corpus": lambda X: Corpus({"a": of(X)}, genes=GENES).counts["a"],
    "merge_duplicates": lambda X: merge_duplicates(of(X, ["A", "B", "A"]))[0].X @ np.eye(2, 3),
    "quality_control": lambda X: finite_matrix(quality_control(of(X), min_genes=0, min_cells=0, max_mito=1)[0]),
}


def of(X, genes=GENES):
    obs = pd.DataFrame({"cell_type": ["a", "b"]}, index=["x", "y"])
    with warnings.catch_warnings(action="ignore"):
        return ad.AnnData(X, obs=obs, var=pd.DataFrame(index=genes))


def answer(reader, values):
    """What a reader makes of these counts."""
    if reader in ("log_normalize", "cpm"):
        return values / values.sum(1, keepdims=True)
    return (
        values if reader != "merge_duplicates" else np.c_[values[:, 0] + values[:, 2], values[:, 1], 0 * values[:, 0]]
    )


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csr_array])
@pytest.mark.parametrize("reader", MATRICES | TABLES)
def test_small_integers_are_widened_before_they_are_summed(reader, kind):
    twice = kind((np.full(6, 200, "uint8"), [0, 0, 1, 1, 2, 2], [0, 4, 6]), shape=(2, 3))
    # 300 molecules of one gene, stored as ones.
    places = np.r_[np.zeros(305, int), np.ones(20, int)], np.r_[np.zeros(300, int), np.ones(25, int)]
    ones = (sparse.coo_matrix if kind is sparse.csr_matrix else sparse.coo_array)(
        (np.ones(325, "uint8"), places), (2, 3)
    )
    cases = {"csr": (twice, [[400, 400, 0], [0, 0, 400]])} | (
        {} if reader in TABLES else {"coo": (ones, [[300, 5, 0], [0, 20, 0]])}
    )
    for X, values in cases.values():
        wanted = answer(reader, np.array(values, float))
        assert np.allclose(dense((MATRICES | TABLES)[reader](X)), wanted, atol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int64", "uint64", "float16", ">f4", ">i4", "f8", "g"])
@pytest.mark.parametrize("reader", MATRICES | TABLES)
def test_every_type_and_format_gives_one_answer(reader, dtype):
    values = np.array([[200, 0, 100], [0, 250, 3]])
    forms = {"array": values.astype(dtype)}
    if dtype not in ("float16", ">f4", ">i4"):  # which SciPy does not take
        for kind in (sparse.csr_matrix, sparse.csr_array):
            formats = ("csr", "csc") if reader in TABLES else ("csr", "csc", "coo", "lil", "dok", "bsr", "dia")
            forms |= {(form, kind): kind(values.astype(dtype)).asformat(form) for form in formats}
    wide = sparse.csr_matrix(values.astype(np.float32))
    wide.indices, wide.indptr = wide.indices.astype(np.int64), wide.indptr.astype(np.int64)
    for name, X in (forms | {"64-bit indices": wide}).items():
        got = (MATRICES | TABLES)[reader](X)
        assert np.allclose(dense(got), answer(reader, values.astype(float)), rtol=1e-5), name
        assert not sparse.issparse(got) or got.indices.dtype == np.int32 or reader == "merge_duplicates", name


HOLES = {
    "NaN": np.array([[1, np.nan, 2], [3, 4, 5]]),
    "None": np.array([[1, None, 2], [3, 4, 5]], object),
    "pd.NA": np.array([[1, pd.NA, 2], [3, 4, 5]], object),
    "nullable": pd.DataFrame({"A": [1, 3], "B": pd.array([None, 4], "Int64"), "C": [2, 5]}),
    "infinite": np.array([[1, np.inf, 2], [3, 4, 5]]),
    "objects": pd.DataFrame({"A": [1, 3], "B": pd.Series([None, 4.0], dtype=object), "C": [2, 5]}),
}
WORDS = {
    "words": np.array([["1", "x", "2"], ["3", "4", "5"]]),
    "words among numbers": np.array([[1, "x", 2], [3, 4, 5]], object),
    "a column of words": pd.DataFrame({"A": [1, 3], "B": ["x", "y"], "C": [2, 5]}),
    "dates": np.array([["2020-01-01"] * 3] * 2, "datetime64[D]"),
    "ragged": [[1, 2, 3], [4, 5]],
}


@pytest.mark.parametrize("reader", MATRICES)
@pytest.mark.parametrize("case", [*HOLES, *WORDS])
def test_what_is_no_number_is_refused_alike(reader, case):
    said = (ValueError, "NaN|infini") if case in HOLES else (DataError, "numbers|matrix")
    with pytest.raises(said[0], match=said[1]):
        MATRICES[reader]((HOLES | WORDS)[case])


def test_missing_values_among_numbers_are_read_where_they_may_be_missing():
    assert np.array_equal(read(HOLES["pd.NA"], allow_nan=True).X, HOLES["NaN"].astype(np.float32), equal_nan=True)


# No public function reads an AnnData entry by entry, as numpy would: for hours.


def public(module):
    """Functions and classes of the reference that take one argument or more, and what they must be given."""
    found = importlib.import_module(module)
    names = getattr(found, "__all__", [n for n, one in vars(found).items() if getattr(one, "__module__", "") == module])
    for name in names:
        one = getattr(found, name)
        if not name.startswith("_") and callable(one) and not (inspect.isclass(one) and issubclass(one, BaseException)):
            try:
                parameters = inspect.signature(one).parameters.values()
            except (TypeError, ValueError):
                continue
            needed = [p.name for p in parameters if p.kind in (0, 1, 2) and p.default is p.empty]
            if needed:
                yield name, one, needed


def rooms():
    """Modules of the reference, but for files, processes and notebooks, and for networks and their inner parts."""
    pages = (Path(__file__).resolve().parents[2] / "book" / "api").glob("*.md")
    found = {m for page in pages for m in re.findall(r"automodule:: (shared\S+)", page.read_text(encoding="utf-8"))}
    left = {
        "parallel",
        "train",
        "chapter",
        "results",
        "download",
        "scpretrain",
        "scbert",
        "guided_transfer",
        "tmp",
        "aligned",
        "fingerprint",
        "keras_net",
    }
    return sorted(m for m in found if not left & {*m.split(".")})


# What such arguments are called: matrices, and one value a cell or a gene.
MATRIX = {"X", "Y", "X_train", "X_test", "adata", "counts", "points", "shown", "fit_on", "real", "simulated", "proba"}
COLUMN = {
    "y",
    "y_train",
    "y_test",
    "y_true",
    "y_pred",
    "labels",
    "label",
    "groups",
    "batch",
    "lengths",
    "clusters",
    "here",
}
COLUMN |= {"genes", "train_groups", "test_groups", "test", "values", "scores", "x", "a", "b", "right_a", "right_b"}


@pytest.mark.parametrize("module", rooms())
@pytest.mark.filterwarnings("ignore")
def test_annotated_data_are_read_or_refused_at_once(module, monkeypatch):
    read_by_entry, item = [], ad.AnnData.__getitem__

    def watched(self, key):
        if isinstance(key, int):
            read_by_entry.append(key)
            raise RecursionError
        return item(self, key)

    monkeypatch.setattr(ad.AnnData, "__getitem__", watched)
    adata = ad.AnnData(np.eye(12, 8, dtype=np.float32) + 1, var=pd.DataFrame(index=[f"G{i}" for i in range(8)]))
    adata.obs["cell_type"] = ["a", "b", "c"] * 4
    labels = adata.obs["cell_type"].tolist()
    slow = []
    for name, one, needed in public(module):
        for other in (adata, labels, 1):
            for place in [i for i, what in enumerate(needed) if what in MATRIX | COLUMN and name != "masked_error"]:
                args = [adata if i == place else other for i in range(len(needed))]
                try:
                    with np.errstate(all="ignore"):
                        one(*args)
                except (Exception, SystemExit):
                    pass
                if read_by_entry:
                    slow.append((name, needed[place]))
                    read_by_entry.clear()
    assert not slow
