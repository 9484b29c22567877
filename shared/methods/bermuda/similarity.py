"""Which cluster of one batch is like which of another: MetaNeighbor's vote of neighbours, and the pairs to match.

After Crow, Paul, Ballouz, Huang and Gillis, *Characterizing the replicability of cell types defined by single cell
RNA-sequencing data using MetaNeighbor* (Nature Communications 2018), in its unsupervised form. Each cell of a batch is
voted on by the cells of a cluster, and the area under the ROC curve says whether the votes find one of its clusters.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import sparse
from scipy.stats import rankdata

from shared.data.cells import array_of, finite_matrix
from shared.data.constraints import Flag, Probability, require
from shared.data.errors import DataError

ENTRIES = 2**24  # of a block of correlations that is held at once
STEPS = 2**22  # between correlations 0 and 1 that are told apart, about what float32 tells


def metaneighbor(X, clusters, batch, ranked: bool = False) -> np.ndarray:
    """How well the votes of one cluster find another among the cells of its batch: float64, clusters × clusters.

    A cell is joined with each other cell by 1 plus Spearman's correlation of their expression. A cluster's vote on a
    cell is the share of the cell's joins that go to the cluster. Since joins are sums of products, the votes need a
    sum of profiles for each cluster and no matrix of cells by cells.

    Parameters
    ----------
    X : ndarray or sparse matrix, cells × genes
        Expression; any scale that grows with it, for only ranks within a cell count.
    clusters : int array, cells
        From 0 up without gaps; a cluster is of one batch.
    batch : array, cells
        Batches.
    ranked : bool
        Replace each correlation by its rank among those of all pairs of cells, as Crow and others do and as the
        published runs did. Time is then quadratic in the cells, and memory still is not: correlations are counted in
        steps of 2**-22 and never held together. A cell that does not vary counts as uncorrelated.

    Returns
    -------
    ndarray
        Symmetric: the mean of the area under the ROC curve in both directions, or the one that there is, where a batch
        has a single cluster and so nothing to tell it from. Zero within a batch, and where there is neither.

    Raises
    ------
    DataError
        If shapes do not fit, numbers of clusters have gaps, or a cluster lies in two batches.
    """
    require(Flag(), ranked=ranked)
    X, clusters = finite_matrix(X, dtype=np.float32), array_of(clusters, "clusters")
    homes, of_cell = batches_of(clusters, batch, X.shape[0])
    Z = _standardised_ranks(X)
    member = np.zeros((len(Z), len(homes)), np.float32)
    member[np.arange(len(Z)), clusters] = 1
    votes = _ranked_votes(Z, member) if ranked else (1 + Z @ ((member.T @ Z).T / member.sum(0))) * member.sum(0)
    votes = votes / votes.sum(1, keepdims=True, dtype=np.float64)
    found = np.full((len(homes), len(homes)), np.nan)
    for b in range(of_cell.max() + 1):
        rows, own = of_cell == b, np.flatnonzero(homes == b)
        if len(own) > 1:
            found[own] = _areas(votes[rows], member[rows][:, own].astype(bool))
    both = np.stack([found, found.T])
    there = ~np.isnan(both)
    found = np.where(there, both, 0).sum(0) / np.maximum(there.sum(0), 1)
    found[homes[:, None] == homes] = 0
    return found


def batches_of(clusters, batch, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The batch of each cluster and of each cell, as numbers from 0 in the order of their sorted names."""
    batch = array_of(batch, "batch")
    if clusters.shape != (n,) or batch.shape != (n,):
        raise DataError(f"{n} cells, clusters {clusters.shape}, batch {batch.shape}: give one of each a cell")
    _, of_cell = np.unique(batch, return_inverse=True)
    if clusters.dtype.kind not in "iu" or clusters.min() < 0 or (np.bincount(clusters) == 0).any():
        raise DataError("clusters must be whole numbers from 0 up without gaps: number them with LabelEncoder")
    seen = np.unique(np.stack([clusters, of_cell], 1), axis=0)
    if len(seen) > clusters.max() + 1:
        raise DataError("a cluster holds cells of two batches: number the clusters of each batch on their own")
    return seen[:, 1].copy(), of_cell


def cluster_pairs(similarity, batch, threshold: float = 0.85, mutual: bool = False) -> np.ndarray:
    """Pairs of clusters to match, from two batches each: int64, 2 × pairs, the smaller number first.

    A pair stands where either cluster is the other's best in its batch, and their similarity reaches `threshold`. So
    one cluster may be matched with several, and two types may be joined in a chain.

    Parameters
    ----------
    similarity : ndarray, clusters × clusters
        Symmetric, as from :func:`metaneighbor`.
    batch : array, clusters
        The batch of each cluster.
    threshold : float
        Least similarity, from 0 to 1; the published runs take 0.90 for pancreas and 0.85 for blood.
    mutual : bool
        Each must be the other's best, so that a cluster has one partner at most in each other batch.

    Raises
    ------
    DataError
        If shapes do not fit.
    """
    require(Probability(), threshold=threshold)
    require(Flag(), mutual=mutual)
    similarity, batch = finite_matrix(similarity, "similarity"), array_of(batch, "batch")
    if similarity.shape != (len(batch), len(batch)):
        raise DataError(f"similarity is {similarity.shape} and batch {batch.shape}: give the batch of each cluster")
    kept = np.zeros(similarity.shape, bool)
    for one in np.unique(batch):
        columns = np.flatnonzero(batch == one)
        best = columns[similarity[:, columns].argmax(1)]  # of each cluster, among those of this batch
        kept[np.arange(len(batch)), best] = batch != one
    kept = kept & kept.T if mutual else kept | kept.T
    return np.stack(np.nonzero(np.triu(kept & (similarity >= threshold), 1)))


def _standardised_ranks(X) -> np.ndarray:
    """Ranks within each cell, centred and of length 1, so that products are Spearman's correlations: float32."""
    Z = np.empty(X.shape, np.float32)
    for start in range(0, len(Z), 1024):
        rows = X[start : start + 1024]
        ranks = rankdata(rows.toarray() if sparse.issparse(rows) else rows, axis=1)
        ranks -= ranks.mean(1, keepdims=True)
        length = np.linalg.norm(ranks, axis=1, keepdims=True)
        Z[start : start + 1024] = ranks / np.where(length > 0, length, 1)
    return Z


def _places(Z) -> Iterator[tuple[slice, np.ndarray]]:
    """Correlations of some cells with all, as whole numbers of steps from -1, block by block."""
    size = max(1, ENTRIES // len(Z))
    for start in range(0, len(Z), size):
        rows = slice(start, start + size)
        block = Z[rows] @ Z.T
        block += 1
        block *= STEPS
        yield rows, np.clip(np.rint(block, out=block), 0, 2 * STEPS, out=block).astype(np.int32)


def _ranked_votes(Z, member) -> np.ndarray:
    """Sums of ranks of correlations over the cells of each cluster: float64, cells × clusters."""
    counts = np.zeros(2 * STEPS + 1, np.int64)
    for _, places in _places(Z):
        counts += np.bincount(places.ravel(), minlength=len(counts))
    rank = np.cumsum(counts) - (counts - 1) / 2  # ties share their mean rank
    votes, rank, member = np.empty(member.shape), rank / rank[-1], member.astype(np.float64)
    for rows, places in _places(Z):
        votes[rows] = rank[places] @ member
    return votes


def _areas(votes, is_own) -> np.ndarray:
    """Area under the ROC curve of each column of `votes` for each column of `is_own`: own clusters × clusters."""
    n = is_own.sum(0)[:, None]
    ranks = is_own.T.astype(float) @ rankdata(votes, axis=0)
    return (ranks / n - (n + 1) / 2) / (len(votes) - n)
