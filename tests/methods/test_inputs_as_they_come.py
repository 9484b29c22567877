"""Tables in a file, and labels with gaps: what people bring to a method, read or refused with a cure."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import BaseEstimator

from shared.methods.inputs import cells_of

GENES = ["A", "B", "C"]
COUNTS = np.array([[1, 0, 2], [0, 3, 0]], np.float32)


@pytest.mark.parametrize("form", [sparse.csr_matrix, sparse.csc_matrix, np.asarray])
@pytest.mark.parametrize("matrix", [None, lambda a: a.layers["counts"]], ids=["X", "counts"])
def test_a_table_that_stays_in_its_file_is_read(form, matrix, tmp_path):
    adata = ad.AnnData(form(COUNTS), pd.DataFrame({"kind": ["a", "b"]}, ["x", "y"]), pd.DataFrame(index=GENES))
    adata.layers["counts"] = form(COUNTS)
    adata.write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    got, labels, names = cells_of(BaseEstimator(), backed, "kind", reset=True, matrix=matrix)
    assert (sparse.csr_matrix(got).toarray() == COUNTS).all() and list(labels) == ["a", "b"] and names == GENES
    backed.file.close()


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
    with pytest.raises(ValueError, match="y has no label for 1 of 3 cells: drop them first"):
        cells_of(BaseEstimator(), np.eye(3), y, reset=True)
    filled = pd.Series(y).astype(object).fillna("c")
    assert list(cells_of(BaseEstimator(), np.eye(3), filled, reset=True)[1]) == list(filled)


def test_genes_are_named_before_they_are_counted():
    model = BaseEstimator()
    X, _, model.genes_in_ = cells_of(model, COUNTS, genes=GENES, reset=True)
    said = r"tuned on 3 genes, and these 2 are others \(2 are missing, 1 are new to it\).*align_genes"
    with pytest.raises(ValueError, match=said):
        cells_of(model, X[:, :2], genes=["A", "new"], reset=False)
    with pytest.raises(ValueError, match="X has 2 features"):
        cells_of(model, X[:, :2], reset=False)
    assert cells_of(model, X[:, :2], genes=["A", "new"], reset=True)[2] == ["A", "new"]
