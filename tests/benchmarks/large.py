"""A simulated file of any length, written chunk by chunk, for benchmarks."""

import anndata as ad
import numpy as np
import pandas as pd
from anndata.io import sparse_dataset, write_elem
from scipy import sparse
from scipy.special import softmax

from shared.data.simulate.model import NAMES, draw_programmes, gene_names

TYPES, BATCHES = NAMES[:6], ["batch1", "batch2", "batch3", "batch4"]


def write_large(path, n_cells=1_000_000, n_genes=2000, *, depth=120.0, chunk=20_000, seed=0) -> None:
    """Write an ``.h5ad`` of any length chunk by chunk: counts as CSR, ``obs`` with ``cell_type`` and ``batch``.

    Counts are multinomial draws, of median `depth`, from the profile of the cell's type (six)
    and batch (four); `chunk` cells are made and written at a time, so that memory does not grow with `n_cells`, but for
    two bytes a cell and their names.
    """
    import h5py

    rng = np.random.default_rng(seed)
    truth = draw_programmes(rng, n_genes, len(TYPES), 1.5)
    eta = truth["base"] + truth["types"] + 0.3 * rng.normal(size=(len(BATCHES), 1, n_genes))
    cumulated = np.cumsum(softmax(eta, axis=-1), axis=-1)  # batches × types × genes
    kind, batch = (rng.integers(len(names), size=n_cells, dtype=np.int8) for names in (TYPES, BATCHES))
    obs = {"cell_type": pd.Categorical.from_codes(kind, TYPES), "batch": pd.Categorical.from_codes(batch, BATCHES)}
    obs = pd.DataFrame(obs, index=[f"cell{i}" for i in range(n_cells)])
    uns = {"simulated": True, "units": "counts"}
    ad.AnnData(obs=obs, var=pd.DataFrame(index=gene_names(n_genes)), uns=uns).write_h5ad(path)
    with h5py.File(path, "a") as file:
        how = {"chunks": (max(1024, min(int(depth * chunk), 1 << 18)),), "indptr_dtype": np.int64}
        for start in range(0, n_cells, chunk):
            rows = slice(start, start + chunk)
            X = _multinomial(rng, cumulated, kind[rows], batch[rows], depth)
            if start:
                sparse_dataset(file["X"]).append(X)
            else:
                write_elem(file, "X", X, dataset_kwargs=how)


def _multinomial(rng, cumulated, kind, batch, depth):
    """Counts of cells as CSR: log-normal numbers of draws from the cumulated shares of a cell's batch and type."""
    n_genes = cumulated.shape[-1]
    total = np.maximum(rng.poisson(depth * np.exp(0.5 * rng.normal(size=len(kind)))), 1)
    row, gene = [], []
    for b, t in np.ndindex(cumulated.shape[:2]):
        rows = np.flatnonzero((kind == t) & (batch == b))
        drawn = rng.random(int(total[rows].sum()), dtype=np.float32)
        gene.append(np.minimum(np.searchsorted(cumulated[b, t], drawn), n_genes - 1).astype(np.int32))
        row.append(np.repeat(rows, total[rows]).astype(np.int32))
    row, gene = np.concatenate(row), np.concatenate(gene)
    return sparse.coo_matrix((np.ones(len(row), np.float32), (row, gene)), shape=(len(kind), n_genes)).tocsr()
