"""Simulated files of any length, written chunk by chunk."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata.io import sparse_dataset, write_elem
from scipy import sparse
from scipy.special import softmax

from shared.data.constraints import Positive, Whole, require
from shared.data.errors import DataError
from shared.data.simulate.model import draw_programmes, gene_names, type_names


def write_large(
    path, n_cells: int = 1_000_000, n_genes: int = 2000, *, labels: int | Sequence[str] = 6, n_batches: int = 4,
    depth: float = 120.0, chunk: int = 20_000, compression: str | None = None, seed: int = 0, progress: bool = False,
) -> None:  # fmt: skip
    """Write an ``.h5ad`` of any length chunk by chunk: counts as CSR, ``obs`` with ``cell_type`` and ``batch``.

    Memory does not grow with `n_cells`. Counts are multinomial draws from the profile of the cell's type and batch.

    Parameters
    ----------
    path : path
        Must not exist.
    n_cells, n_genes, labels, n_batches, depth, seed
        As in :func:`cells`.
    chunk : int
        Cells made and written at a time.
    compression : {None, "lzf", "gzip"}
        Of the matrix.
    progress : bool
        Show a bar.
    """
    from pathlib import Path

    import h5py
    from tqdm.auto import tqdm

    sizes = {"n_cells": n_cells, "n_genes": n_genes, "n_batches": n_batches, "chunk": chunk}
    require(Whole(1), **sizes)
    require(Positive(), depth=depth)
    path = Path(path)
    if path.exists():
        raise DataError(f"{path} exists: choose another name, or remove it first")
    names, rng = type_names(labels), np.random.default_rng(seed)
    truth = draw_programmes(rng, n_genes, len(names), 1.5)
    eta = truth["base"] + truth["types"] + 0.3 * rng.normal(size=(n_batches, 1, n_genes))
    ladder = np.cumsum(softmax(eta, axis=-1), axis=-1)  # batches × types × genes
    part = path.with_name(path.name + ".part")
    try:
        with h5py.File(part, "w") as file:
            file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
            stored = max(1024, min(int(depth * chunk), 1 << 18))
            how = {"compression": compression, "chunks": (stored,), "indptr_dtype": np.int64}
            kinds, batches = [], []
            for start in tqdm(range(0, n_cells, chunk), disable=not progress, unit="chunk"):
                n = min(chunk, n_cells - start)
                kind, batch = rng.integers(len(names), size=n), rng.integers(n_batches, size=n)
                total = np.maximum(rng.poisson(depth * np.exp(0.5 * rng.normal(size=n))), 1)
                X = _multinomial(rng, ladder, kind, batch, total)
                if start:
                    sparse_dataset(file["X"]).append(X)
                else:
                    write_elem(file, "X", X, dataset_kwargs=how)
                kinds.append(kind.astype(np.int8)), batches.append(batch.astype(np.int8))
            called = [f"batch{b + 1}" for b in range(n_batches)]
            obs = pd.DataFrame(
                {
                    "cell_type": pd.Categorical.from_codes(np.concatenate(kinds), names),
                    "batch": pd.Categorical.from_codes(np.concatenate(batches), called),
                },
                index=np.char.add("cell", np.arange(n_cells).astype(str)).astype(object),
            )
            write_elem(file, "obs", obs)
            write_elem(file, "var", pd.DataFrame(index=gene_names(n_genes)))
            write_elem(file, "uns", {"simulated": True, "units": "counts"})
            for empty in ("layers", "obsm", "varm", "obsp", "varp"):
                write_elem(file, empty, {})
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _multinomial(rng, ladder, kind, batch, total):
    """Counts of cells as CSR: `total` draws a cell from the cumulated shares of its batch and type."""
    n_genes = ladder.shape[-1]
    row, gene = [], []
    for b in range(ladder.shape[0]):
        for t in range(ladder.shape[1]):
            rows = np.flatnonzero((kind == t) & (batch == b))
            drawn = rng.random(int(total[rows].sum()), dtype=np.float32)
            gene.append(np.minimum(np.searchsorted(ladder[b, t], drawn), n_genes - 1).astype(np.int32))
            row.append(np.repeat(rows, total[rows]).astype(np.int32))
    row, gene = np.concatenate(row), np.concatenate(gene)
    X = sparse.coo_matrix((np.ones(len(row), np.float32), (row, gene)), shape=(len(kind), n_genes)).tocsr()
    X.sum_duplicates()
    return X
