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
