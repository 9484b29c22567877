"""Genes scaled within each batch: what shifts or stretches a gene in a whole batch is gone before any training."""

from __future__ import annotations

import numpy as np
from scipy import sparse


def batch_ranges(X, of_cell) -> dict[str, np.ndarray]:
    """``low`` and ``high``: least and greatest value of each gene in each batch, batches × genes.

    Parameters
    ----------
    X : ndarray or CSR matrix, cells × genes
        Expression, on any scale.
    of_cell : int array, cells
        The batch of each, from 0 up without gaps.
    """
    groups = [X[of_cell == b] for b in range(of_cell.max() + 1)]
    dense = lambda v: v.toarray().ravel() if sparse.issparse(v) else v  # noqa: E731
    ends = {"low": "min", "high": "max"}
    return {end: np.stack([dense(getattr(rows, how)(0)) for rows in groups]) for end, how in ends.items()}


def scaled(X, of_cell, low, high) -> np.ndarray:
    """Each gene from 0 to 1 between the least and the greatest value of the cell's batch: float32 ndarray.

    The published code standardises genes first, which this undoes. A gene that does not vary in a batch is 0 there.

    Parameters
    ----------
    X : ndarray or CSR matrix, cells × genes
        Expression, on any scale.
    of_cell : int array, cells
        The batch of each, a row of the next two.
    low : ndarray, batches × genes
        Least values.
    high : ndarray, batches × genes
        Greatest values.
    """
    X = X.toarray() if sparse.issparse(X) else X.copy()
    spread = high - low
    for b in range(len(low)):
        rows = of_cell == b
        X[rows] = (X[rows] - low[b]) / np.where(spread[b] > 0, spread[b], np.inf)
    return X
