"""What the tests of gene names share: a few ids, a small matrix with names, and a quiet reader of real files."""

import warnings

import anndata as ad
import numpy as np

TP53, PLCXD1 = "ENSG00000141510", "ENSG00000182378"


def matrix(names, X=None, **uns):
    X = np.arange(1, 1 + 3 * len(names), dtype=np.float32).reshape(3, len(names)) if X is None else X
    adata = ad.AnnData(X, uns=uns)
    adata.var_names = list(names)  # here, not above, where AnnData warns of names that come twice
    return adata


def read(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ad.read_h5ad(path)
