"""The 700 blood cells that scanpy ships: ``10x_pbmc68k_reduced.h5ad``.

The file is of a layout from before AnnData settled on one, so it is read with h5py and does not depend on how long
anndata goes on reading it.
"""

import anndata as ad
import h5py
import numpy as np
import pandas as pd
from scipy import sparse

from shared.data.io.tables import refused
from shared.data.io.tenx import text_of

COUNTED = ["n_genes", "n_counts", "percent_mito"]


def read(paths):
    """The log-normalised values of the file's ``raw``, with the labels as ``cell_type``.

    ``X``: float32 CSR, log(1 + counts of a cell scaled to one total for all); the file's own ``X``, scaled by gene, is
    left behind. ``obs``: ``cell_type``, ``n_genes``, ``n_counts``, ``percent_mito``; the last three were counted before
    the genes were cut to 765.
    """
    (path,) = paths
    with refused(path, "scanpy's file"), h5py.File(path) as file:
        stored, cells = file["raw.X"], file["obs"][:]
        X = tuple(stored[part][:] for part in ("data", "indices", "indptr"))
        X = sparse.csr_matrix(X, tuple(map(int, stored.attrs["h5sparse_shape"])), np.float32)
        X.check_format(full_check=True)
        obs = pd.DataFrame({name: cells[name] for name in COUNTED}, pd.Index(text_of(cells["index"]), name="cell"))
        types = text_of(file["uns/bulk_labels_categories"])
        obs.insert(0, "cell_type", pd.Categorical.from_codes(cells["bulk_labels"], types))
        var = pd.DataFrame(index=pd.Index(text_of(file["raw.var"]["index"]), name="symbol"))
        return ad.AnnData(X, obs=obs, var=var, uns={"units": "log"})
