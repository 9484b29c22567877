"""One reader for an AnnData, a table or arrays: what comes out, and what is refused."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from sklearn.base import BaseEstimator

from shared.data.cells import (
    Cells,
    column_names,
    count_matrix,
    difference,
    finite_matrix,
    label_array,
    read,
    refuse_logged,
)
from shared.data.errors import DataError

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
    with pytest.raises(DataError, match="may hold counts or logarithms"):
        refuse_logged(logs, "read the counts")
    logs.units = "log"
    with pytest.raises(DataError, match="says that X is logged: read the counts"):
        refuse_logged(logs, "read the counts")
    logs.units = "counts"
    with pytest.raises(DataError, match=r"if these are counts, put them into adata\.layers\['counts'\]"):
        refuse_logged(logs, "read the counts")
    refuse_logged(Cells(COUNTS), "")
    refuse_logged(Cells(COUNTS * 30.5), "")


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
