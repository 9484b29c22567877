"""Means, variances and totals of cells that come in chunks: one pass, whatever their number."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy import sparse


@dataclass(frozen=True)
class Statistics:
    """What one pass over the cells told.

    Attributes
    ----------
    genes : tuple of str
    n_cells : int
    mean, variance : float64 ndarray of shape (n_genes,)
        In the units of the file, or of what ``transform`` makes of them. The variance divides by the number of cells.
    expressed : float64 ndarray of shape (n_genes,)
        Share of the cells in which the gene is not zero.
    totals : float64 ndarray of shape (n_cells,)
        Sum of each cell over these genes.
    detected : int64 ndarray of shape (n_cells,)
        Genes that are not zero in each cell.
    """

    genes: tuple[str, ...]
    n_cells: int
    mean: np.ndarray
    variance: np.ndarray
    expressed: np.ndarray
    totals: np.ndarray
    detected: np.ndarray


def statistics_of(chunks: Iterable, genes: tuple[str, ...]) -> Statistics:
    """Statistics of cells that come in chunks.

    Chunks are merged by the update of Chan, Golub and LeVeque, in float64: a gene with a large mean and a small
    variance keeps it, which the difference of two sums would not.

    Parameters
    ----------
    chunks : iterable of CSR or ndarray, cells × genes
        One at least.
    genes : tuple of str
        The columns.

    References
    ----------
    Chan, Golub and LeVeque (1983), The American Statistician 37, 242.
    """
    from sklearn.preprocessing import StandardScaler

    scaler, expressed, totals, detected = StandardScaler(with_mean=False), np.zeros(len(genes)), [], []
    for X in chunks:
        X = X.astype(np.float64)
        if sparse.issparse(X):
            X.sum_duplicates()
        scaler.partial_fit(X)
        there = X != 0
        expressed += _flat(there.sum(0))
        detected.append(_flat(there.sum(1)))
        totals.append(_flat(X.sum(1)))
    totals, detected = np.concatenate(totals), np.concatenate(detected)
    return Statistics(genes, len(totals), scaler.mean_, scaler.var_, expressed / len(totals), totals, detected)


def _flat(sums):
    return np.asarray(sums).ravel()
