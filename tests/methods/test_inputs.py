"""One door for an AnnData, a table or arrays: what comes out, and what is refused."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin

from shared.data.errors import DataError
from shared.methods.expression_data import batch_share
from shared.methods.inputs import cells_of, columns_of, rows_of

GENES = ["A", "B", "C"]
COUNTS = np.array([[1, 0, 2], [0, 3, 0]])


class Classifier(ClassifierMixin, BaseEstimator):
    """One that needs labels."""


def annotated(**obs):
    adata = ad.AnnData(COUNTS.astype(np.float32), pd.DataFrame(obs, index=["x", "y"]), pd.DataFrame(index=GENES))
    adata.layers["counts"] = sparse.csr_matrix(10 * adata.X)
    return adata


def test_annotated_data_tables_and_arrays_come_out_alike():
    inputs = (annotated(kind=pd.Categorical(["a", "b"])), "kind", None)
    for X, y, genes in (inputs, (pd.DataFrame(COUNTS, columns=GENES), ["a", "b"], None), (COUNTS, ["a", "b"], GENES)):
        model = BaseEstimator()
        got, labels, names = cells_of(model, X, y, genes, reset=True)
        assert got.dtype == np.float32 and (got == COUNTS).all() and names == GENES
        assert isinstance(labels, np.ndarray) and list(labels) == ["a", "b"] and model.n_features_in_ == 3
    assert labels.dtype == cells_of(model, *inputs, reset=True)[1].dtype


def test_a_method_says_what_it_reads_of_annotated_data():
    got, labels, _ = cells_of(BaseEstimator(), annotated(), reset=True, matrix=lambda a: a.layers["counts"])
    assert sparse.issparse(got) and (got.toarray() == 10 * COUNTS).all() and labels is None


def test_given_names_go_before_those_of_the_data():
    assert cells_of(BaseEstimator(), annotated(), genes=["D", "E", "F"], reset=True)[2] == ["D", "E", "F"]


def test_numbers_that_pandas_gave_are_no_names():
    assert columns_of(pd.DataFrame(COUNTS)) is None and columns_of(COUNTS) is None
    assert columns_of(pd.DataFrame(COUNTS, columns=[672, 675, 7157])) == ["672", "675", "7157"]


@pytest.mark.parametrize(
    ("X", "y", "genes", "said"),
    [
        (COUNTS, "kind", None, "X is no AnnData"),
        (annotated(), "kind", None, "no column 'kind'"),
        (annotated(kind=["a", None]), "kind", None, "no label for 1 rows"),
        (COUNTS, ["a", "b"], GENES[:2], "2 genes are named and X has 3 columns"),
        (COUNTS, ["a", "b"], ["A", "B", "A"], "1 gene more than once"),
        (COUNTS, ["a"], GENES, "inconsistent numbers of samples"),
        (COUNTS, None, GENES, "requires y"),
        (np.full((2, 3), np.nan), ["a", "b"], GENES, "NaN"),
    ],
)
def test_what_does_not_fit_is_refused(X, y, genes, said):
    with pytest.raises(ValueError, match=said):
        cells_of(Classifier(), X, y, genes, reset=True, what="rows")


def test_another_number_of_columns_is_refused():
    model = BaseEstimator()
    cells_of(model, COUNTS, reset=True)
    with pytest.raises(ValueError, match="expecting 3 features"):
        cells_of(model, COUNTS[:, :2], reset=False)


def test_annotated_rows_hold_their_genes_to_the_first_ones():
    adata, table = annotated(kind=["a", "b"]), pd.DataFrame(COUNTS, columns=GENES)
    for X in (adata, table):
        model = Classifier()
        assert np.array_equal(rows_of(model, X, reset=True), COUNTS)
        assert list(model.feature_names_in_) == GENES and model.n_features_in_ == 3
        for other in (adata[:, ::-1].copy(), table[GENES[::-1]]):
            with pytest.raises(ValueError, match="feature names"):
                rows_of(model, other, reset=False)
    adata.X = sparse.csr_matrix(adata.X)
    X, y = rows_of(Classifier(), adata, "kind", reset=True)
    assert sparse.issparse(X) and X.dtype == np.float32 and list(y) == ["a", "b"]
    X, y = rows_of(Classifier(), adata, [[1, 2], [3, 4]], reset=True, multi_output=True)
    assert y.shape == (2, 2)
    adata.X.data[0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        rows_of(Classifier(), adata, reset=True)
    adata.var_names = ["A", "A", "B"]
    with pytest.raises(ValueError, match="more than once"):
        rows_of(Classifier(), adata, reset=True)
    with pytest.raises(ValueError, match="no AnnData"):
        rows_of(Classifier(), COUNTS, "kind", reset=True)


def test_a_matrix_is_asked_for_where_annotated_data_are_not_read():
    with pytest.raises(DataError, match=r"pass adata\.X"):
        batch_share(annotated(), ["a", "b"], ["c", "d"])
