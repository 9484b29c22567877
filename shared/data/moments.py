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
    mean, spread, expressed = np.zeros((3, len(genes)))
    totals, detected, n = [], [], 0
    for X in chunks:
        m, s, e, total, found = _moments(X)
        new = len(total)
        step = m - mean
        mean += step * (new / (n + new))
        spread += s + step**2 * (n * new / (n + new))
        expressed += e
        totals.append(total)
        detected.append(found)
        n += new
    return Statistics(genes, n, mean, spread / n, expressed / n, np.concatenate(totals), np.concatenate(detected))


def _moments(X):
    """Of one chunk: mean, sum of squared deviations and non-zeros by gene; total and non-zeros by cell (float64)."""
    n, n_genes = X.shape
    if not sparse.issparse(X):
        X = X.astype(np.float64, copy=False)
        mean, there = X.mean(0), X != 0
        return mean, ((X - mean) ** 2).sum(0), there.sum(0), X.sum(1), there.sum(1)
    X.sum_duplicates()
    X.eliminate_zeros()
    values, columns = X.data.astype(np.float64, copy=False), X.indices
    stored = np.bincount(columns, minlength=n_genes)
    mean = np.bincount(columns, values, n_genes) / n
    spread = np.bincount(columns, (values - mean[columns]) ** 2, n_genes) + (n - stored) * mean**2
    detected = np.diff(X.indptr)
    totals = np.bincount(np.repeat(np.arange(n), detected), values, n)
    return mean, spread, stored, totals, detected
