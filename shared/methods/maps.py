"""Maps of cells: UMAP written out, from the graph of neighbours to the plane, and how much a map distorts."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from shared.data.cells import dense_matrix, label_array
from shared.data.errors import DataError


def neighbor_graph(points, n_neighbors=15) -> sparse.csr_matrix:
    """The fuzzy graph that UMAP lays out: how surely two cells are neighbours, seen from either.

    Each cell's nearest neighbour counts fully; the weight then falls off so that every cell has the same sum of
    weights, the logarithm of `n_neighbors` to base 2. Dense and sparse regions are made alike, which is why sizes and
    densities on the map mean little.

    Parameters
    ----------
    points : ndarray of shape (n_cells, n_features)
        For example 20 principal components.
    n_neighbors : int, default 15
        The cell itself counts as one, as in umap-learn.

    Returns
    -------
    CSR of shape (n_cells, n_cells), symmetric, values from 0 to 1

    References
    ----------
    McInnes, Healy and Melville (2018), arXiv 1802.03426.
    """
    from sklearn.neighbors import NearestNeighbors

    points = dense_matrix(points, "points")
    n = len(points)
    if not 2 <= n_neighbors <= n:
        raise DataError(f"n_neighbors={n_neighbors} for {n} cells: choose from 2 to {n}")
    away, near = NearestNeighbors(n_neighbors=n_neighbors).fit(points).kneighbors(points)
    first = np.where(away > 0, away, np.inf).min(1)
    beyond = np.maximum(away - np.where(np.isfinite(first), first, 0)[:, None], 0)[:, 1:]
    low, high = np.zeros(n), np.full(n, np.inf)
    width = np.ones(n)
    for _ in range(64):  # bisection, all cells at once
        excess = np.exp(-beyond / width[:, None]).sum(1) - np.log2(n_neighbors)
        low, high = np.where(excess > 0, low, width), np.where(excess > 0, width, high)
        width = np.where(np.isinf(high), width * 2, (low + high) / 2)
    floor = 1e-3 * np.where(np.isfinite(first) & (first > 0), away.mean(1), away.mean())
    weight = np.exp(-beyond / np.maximum(width, floor)[:, None])
    rows = np.repeat(np.arange(n), n_neighbors - 1)
    graph = sparse.csr_matrix((weight.ravel(), (rows, near[:, 1:].ravel())), shape=(n, n))
    graph.setdiag(0)
    graph.eliminate_zeros()
    return (graph + graph.T - graph.multiply(graph.T)).tocsr()


def umap(points, n_neighbors=15, min_dist=0.1, epochs=300, start="components", random_state=0):
    """Lay cells out in the plane so that neighbours attract each other and all others repel: UMAP, written out.

    The graph and the curve are umap-learn's, to rounding; the descent moves all cells at once where umap-learn moves
    one pair after the other, and starts from the first two columns of `points` (principal components) or at random,
    where umap-learn starts from a spectral map unless told otherwise. Distances between clusters are no part of what
    is minimised.

    Parameters
    ----------
    points : ndarray of shape (n_cells, n_features)
        For example 20 principal components.
    n_neighbors : int, default 15
        As for :func:`neighbor_graph`.
    min_dist : float, default 0.1
        How close the map may put two neighbours.
    epochs : int, default 300
        Rounds of the descent; the step shrinks to nothing over them.
    start : {"components", "random"}, default "components"
        Where the cells stand before the descent.
    random_state : int, default 0
        Of the start's jitter and of the sampled pairs.

    Returns
    -------
    float64 ndarray of shape (n_cells, 2)
    """
    from scipy.optimize import curve_fit

    if start not in ("components", "random"):
        raise DataError(f"start {start!r} is not known: choose 'components' or 'random'")
    points = dense_matrix(points, "points")
    if start == "components" and (points.shape[1] < 2 or not np.ptp(points[:, :2])):
        raise DataError("points give no plane to start from: give two columns that vary, or start='random'")
    graph = neighbor_graph(points, n_neighbors).tocoo()
    at = np.linspace(0, 3, 300)
    wanted = np.where(at < min_dist, 1.0, np.exp(-(at - min_dist)))
    (a, b), _ = curve_fit(lambda x, a, b: 1 / (1 + a * x ** (2 * b)), at, wanted)
    rng = np.random.default_rng(random_state)
    if start == "components":
        place = points[:, :2]
        place = 10 * place / np.abs(place).max() + rng.normal(0, 0.5, (len(place), 2))
    else:
        place = rng.uniform(-10, 10, (len(points), 2))
    often = graph.data / graph.data.max()  # an edge is used in this share of the epochs
    for epoch in range(epochs):
        used = rng.random(len(often)) < often
        head, tail = graph.row[used], graph.col[used]
        others = rng.integers(len(place), size=5 * len(head))
        step = np.zeros_like(place)
        for i, j, pull in ((head, tail, True), (np.repeat(head, 5), others, False)):
            apart = place[i] - place[j]
            square = (apart**2).sum(1)
            if pull:
                force = -2 * a * b * square ** (b - 1) * (square > 0) / (1 + a * square**b) if len(i) else square
            else:
                force = 2 * b / ((0.001 + square) * (1 + a * square**b)) * (i != j)
            move = np.clip(force[:, None] * apart, -4, 4)
            for axis in (0, 1):
                step[:, axis] += np.bincount(i, move[:, axis], len(place))
        place = place + (1 - epoch / epochs) * np.clip(step, -4, 4)
    return place


def distortion(points, shown, labels) -> float:
    """How well a map keeps the order of the distances between groups: Spearman's correlation, 1 at best.

    Parameters
    ----------
    points : ndarray of shape (n_cells, n_features)
        Where the cells lie.
    shown : ndarray of shape (n_cells, 2)
        Where the map puts them.
    labels : sequence of shape (n_cells,)
        Groups; the distance of two groups is that of their means. At least three.

    Returns
    -------
    float
    """
    from scipy.spatial.distance import pdist
    from scipy.stats import spearmanr

    points, shown = dense_matrix(points, "points"), dense_matrix(shown, "shown")
    labels = label_array(labels, len(points), "label")
    if len(shown) != len(points):
        raise DataError(f"shown has {len(shown)} cells and points {len(points)}: give the same cells in one order")
    names = np.unique(labels)
    if len(names) < 3:
        raise DataError(f"{len(names)} groups have at most one distance, so no order: give three groups or more")
    there, here = (pdist(np.stack([x[labels == t].mean(0) for t in names])) for x in (points, shown))
    return float(spearmanr(there, here).statistic)
