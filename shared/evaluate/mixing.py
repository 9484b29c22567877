"""How well batches mix in an embedding, and what of the types is lost: scores of batch correction.

Mixing and keeping types apart pull in two directions: an embedding of one point mixes all batches. So none of these is
read alone, and :func:`integration_scores` gives them together. All of them depend on the embedding that is shown to
them: those of a picture by UMAP are those of UMAP too, and are not compared with scores of a code.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_samples
from sklearn.neighbors import NearestNeighbors

from shared.data.cells import dense_matrix
from shared.data.constraints import Positive, Whole, require
from shared.data.errors import DataError
from shared.evaluate.metrics import ari, as_labels, nmi, silhouette

PERPLEXITY = 30.0  # neighbours that count, in effect


def divergence(X, batch, labels=None, k: int = 30) -> float:
    """Kullback-Leibler divergence of the batches in an embedding, in nats; the lower, the better they mix.

    Of two batches, cells of the types that both hold are compared, unless these are too few. The estimate is made of
    distances to the k-th neighbour in either batch, in both directions, each no less than 0, and averaged over them and
    over pairs of batches. With a large `k` it is biased low where batches are far apart, so that values are for
    comparison with others of the same `k`.

    Parameters
    ----------
    X : ndarray, cells × features
        An embedding.
    batch : array, cells
        Batches.
    labels : array, cells, optional
        Types; without them all cells are compared.
    k : int
        Which neighbour; a batch with no more cells than that in its shared types is left out.

    Returns
    -------
    float
        NaN where no two batches can be compared.

    Raises
    ------
    DataError
        If shapes do not fit, or all cells are of one batch.

    References
    ----------
    Wang, Kulkarni and Verdú, *Divergence estimation for multidimensional densities via k-nearest-neighbor distances*
    (2009), equation 14.
    """
    require(Whole(1), k=k)
    X, batch = _cells(X, batch, "batch")
    labels = None if labels is None else _cells(X, labels, "labels")[1]
    found = []
    for pair in combinations(_batches(batch), 2):
        rows = [batch == one for one in pair]
        if labels is not None:
            shared = np.intersect1d(*(labels[r] for r in rows))
            rows = [r & np.isin(labels, shared) for r in rows]
        a, b = (X[r] for r in rows)
        if min(len(a), len(b)) > k:
            found.append((_kl(a, b, k) + _kl(b, a, k)) / 2)
    return float(np.mean(found)) if found else float("nan")


def _kl(a, b, k) -> float:
    """Divergence of the distribution that `a` was drawn from, from that of `b`; no less than 0."""
    own = NearestNeighbors(n_neighbors=k).fit(a).kneighbors()[0][:, -1]
    other = NearestNeighbors(n_neighbors=k).fit(b).kneighbors(a)[0][:, -1]
    least = np.finfo(np.float64).tiny
    ratio = np.log(np.maximum(other, least)) - np.log(np.maximum(own, least))
    return max(0.0, float(a.shape[1] * ratio.mean() + np.log(len(b) / (len(a) - 1))))


def batch_entropy(X, batch, k: int = 100) -> np.ndarray:
    """Entropy of the batches among a cell and its nearest neighbours, in nats: float64, cells.

    Parameters
    ----------
    X : ndarray, cells × features
        An embedding.
    batch : array, cells
        Batches.
    k : int
        Cells that are counted, the cell itself among them; all, where there are fewer.
    """
    require(Whole(1), k=k)
    X, batch = _cells(X, batch, "batch")
    share = _shares(X, batch, k)
    return -(share * np.log(np.where(share > 0, share, 1))).sum(1)


def specific_entropy(X, batch, labels, k: int = 100) -> float:
    """Mean :func:`batch_entropy` of the cells whose type occurs in one batch alone; the lower, the better it is kept.

    Parameters
    ----------
    X, batch, k
        As in :func:`batch_entropy`.
    labels : array, cells
        Types.

    Returns
    -------
    float
        NaN where each type is in two batches or more.
    """
    X, labels = _cells(X, labels, "labels")
    entropy, batch = batch_entropy(X, batch, k), as_labels(batch, "batch")
    alone = [label for label in np.unique(labels) if len(np.unique(batch[labels == label])) == 1]
    rows = np.isin(labels, alone)
    return float(entropy[rows].mean()) if rows.any() and len(np.unique(batch)) > 1 else float("nan")


def lisi(X, groups, perplexity: float = PERPLEXITY) -> np.ndarray:
    """Local inverse Simpson's index: how many groups, such as batches, a cell has around it in effect: float64, cells.

    Three times `perplexity` neighbours are weighed by a Gaussian whose width gives them that perplexity.

    Parameters
    ----------
    X : ndarray, cells × features
        An embedding.
    groups : array, cells
        Batches, which should mix, or types, which should not.
    perplexity : float
        Neighbours that count, in effect.

    References
    ----------
    Korsunsky and others, *Fast, sensitive and accurate integration of single-cell data with Harmony* (2019).
    """
    require(Positive(), perplexity=perplexity)
    X, groups = _cells(X, groups, "groups")
    return _effective(*_around(X, perplexity), groups)


def _around(X, perplexity) -> tuple[np.ndarray, np.ndarray]:
    """Neighbours of each cell, the cell itself not among them, and their weights: cells × neighbours each."""
    n = min(int(3 * perplexity), len(X) - 1)
    if n < 1:
        raise DataError("one cell has no neighbour: give two cells or more")
    far, near = NearestNeighbors(n_neighbors=n).fit(X).kneighbors()
    return near, _weights(far, np.log(min(perplexity, n)))


def _effective(near, weight, groups) -> np.ndarray:
    """How many groups there are in effect among weighed neighbours: float64, cells."""
    codes = np.unique(groups, return_inverse=True)[1]
    share = np.stack([(weight * (codes[near] == c)).sum(1) for c in range(codes.max() + 1)], 1)
    return 1 / (share**2).sum(1)


def _weights(far, entropy) -> np.ndarray:
    """Weights of neighbours at these distances whose sum is 1 and whose entropy is `entropy`, by bisection."""
    low, high = np.zeros((len(far), 1)), np.full((len(far), 1), np.inf)
    rate, far = np.ones((len(far), 1)), far - far[:, :1]  # a common factor drops out
    for _ in range(60):
        weight = np.exp(-far * rate)
        weight /= weight.sum(1, keepdims=True)
        broad = -(weight * np.log(np.maximum(weight, 1e-300))).sum(1, keepdims=True) > entropy
        low, high = np.where(broad, rate, low), np.where(broad, high, rate)
        rate = np.where(np.isinf(high), rate * 2, (low + high) / 2)
    return weight


def graph_connectivity(X, labels, k: int = 15) -> float:
    """Share of the cells of a type that hang together in the graph of nearest neighbours, mean over types.

    Parameters
    ----------
    X : ndarray, cells × features
        An embedding.
    labels : array, cells
        Types.
    k : int
        Neighbours of each cell, the cell itself among them.

    References
    ----------
    Luecken and others, *Benchmarking atlas-level data integration in single-cell genomics* (2022).
    """
    require(Whole(1), k=k)
    X, labels = _cells(X, labels, "labels")
    near = _nearest(X, k)
    joins = sparse.csr_matrix((np.ones(near.size), near.ravel(), np.arange(0, near.size + 1, near.shape[1])))
    joins.resize(len(X), len(X))
    shares = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        parts = connected_components(joins[rows][:, rows], directed=True, connection="weak")[1]
        shares.append(np.bincount(parts).max() / len(rows))
    return float(np.mean(shares))


def batch_silhouette(X, batch, labels) -> float:
    """1 minus the absolute silhouette of the batches within a type, mean over types: 1 where they mix wholly.

    Parameters
    ----------
    X : ndarray, cells × features
        An embedding.
    batch : array, cells
        Batches.
    labels : array, cells
        Types; one whose cells are all of one batch, or all of different ones, is left out.

    Returns
    -------
    float
        NaN where no type is left.

    References
    ----------
    Luecken and others, *Benchmarking atlas-level data integration in single-cell genomics* (2022).
    """
    X, batch = _cells(X, batch, "batch")
    labels, found = _cells(X, labels, "labels")[1], []
    for label in np.unique(labels):
        rows = labels == label
        if 1 < len(np.unique(batch[rows])) < rows.sum():
            found.append(1 - np.abs(silhouette_samples(X[rows], batch[rows])).mean())
    return float(np.mean(found)) if found else float("nan")


def integration_scores(X, batch, labels, random_state=0) -> dict[str, float]:
    """Scores of an embedding of several batches with known types.

    Parameters
    ----------
    X : ndarray, cells × features
        An embedding.
    batch : array, cells
        Batches, two or more.
    labels : array, cells
        Types, two or more.
    random_state : int
        Of the clusters that are compared with types.

    Returns
    -------
    dict of str to float
        Mixing: ``divergence`` (low is good), ``ilisi``, ``batch_silhouette`` and ``graph_connectivity`` (0 to 1).
        Types: ``nmi`` and ``ari`` of as many clusters by k-means as there are types, ``silhouette`` and ``clisi`` (0 to
        1), and ``specific_entropy`` (low is good; NaN where no type is of one batch). ``mixing`` and ``types`` are the
        means of those that run from 0 to 1, and ``total`` is 0.4 of the first and 0.6 of the second, the weights of
        Luecken and others (2022), whose benchmark has more scores in each.

    Raises
    ------
    DataError
        If shapes do not fit, or there is one batch or one type.
    """
    X, labels = _cells(X, labels, "labels")
    batch = _cells(X, batch, "batch")[1]
    n_batches, n_types = len(_batches(batch)), len(np.unique(labels))
    if n_types < 2:
        raise DataError(f"all cells are of one type ({labels[0]}), and types are to be told apart: give two or more")
    clusters, around = KMeans(n_types, n_init=5, random_state=random_state).fit_predict(X), _around(X, PERPLEXITY)
    mixing = {
        "ilisi": float((np.median(_effective(*around, batch)) - 1) / (n_batches - 1)),
        "batch_silhouette": batch_silhouette(X, batch, labels),
        "graph_connectivity": graph_connectivity(X, labels),
    }
    types = {
        "nmi": nmi(labels, clusters),
        "ari": ari(labels, clusters),
        "silhouette": (silhouette(X, labels) + 1) / 2,
        "clisi": float((n_types - np.median(_effective(*around, labels))) / (n_types - 1)),
    }
    means = {"mixing": float(np.nanmean([*mixing.values()])), "types": float(np.mean([*types.values()]))}
    apart = {"divergence": divergence(X, batch, labels), "specific_entropy": specific_entropy(X, batch, labels)}
    return mixing | types | apart | means | {"total": 0.4 * means["mixing"] + 0.6 * means["types"]}


def _cells(X, groups, what):
    """A dense embedding, and one group a cell."""
    X, groups = dense_matrix(X, "the embedding"), as_labels(groups, what)
    if groups.shape != (len(X),):
        raise DataError(f"the embedding has {len(X)} cells and {what} {len(groups)}: give one a cell")
    return X, groups


def _batches(batch):
    names = np.unique(batch)
    if len(names) < 2:
        raise DataError(f"all cells are of one batch ({names[0]}): mixing needs two or more")
    return names


def _shares(X, groups, k) -> np.ndarray:
    """Share of each group among the `k` cells that are nearest to each, itself included: cells × groups."""
    codes = np.unique(groups, return_inverse=True)[1]
    near = codes[_nearest(X, k)]
    return np.stack([(near == c).mean(1) for c in range(codes.max() + 1)], 1)


def _nearest(X, k) -> np.ndarray:
    """The `k` cells that are nearest to each, itself included, all where there are fewer: int64, cells × k."""
    return NearestNeighbors(n_neighbors=min(k, len(X))).fit(X).kneighbors(X, return_distance=False)
