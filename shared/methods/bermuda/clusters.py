"""Clusters of one batch: a graph of nearest neighbours, cut where its edges are few.

The paper takes Seurat's: neighbours on 20 principal components, edges weighed by the neighbours that two cells share,
and modularity. Here the edges are those of the nearest neighbours alone (Levine and others, *Data-driven phenotypic
dissection of AML*, Cell 2015).
"""

from __future__ import annotations

import importlib.util

import numpy as np
from scipy import sparse
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from shared.data.cells import finite_matrix
from shared.data.constraints import OneOf, Positive, Whole, require

CLUSTERINGS = ("louvain", "leiden")


def neighbour_graph(X, n_components: int = 20, k: int = 20, seed: int = 0) -> sparse.csr_matrix:
    """Cells joined with their `k` nearest neighbours, each edge weighed by the share of neighbours both have.

    Parameters
    ----------
    X : ndarray or sparse matrix, cells × genes
        Logged expression of one batch; genes are standardised first, and cut off at 10 deviations.
    n_components, k : int
        Principal components and neighbours; fewer where there are fewer cells or genes.
    seed : int
        Of the randomised decomposition.

    Returns
    -------
    CSR matrix, cells × cells
        Symmetric: Jaccard's index of the two sets of neighbours, each cell among its own.
    """
    X = _dense(X)
    n, k = len(X), min(k, len(X) - 1)
    spread = X.std(0)
    X = np.clip((X - X.mean(0)) / np.where(spread > 0, spread, 1), -10, 10)
    components = min(n_components, *X.shape)
    if components < min(X.shape):
        X = PCA(components, svd_solver="randomized", random_state=seed).fit_transform(X)
    near = NearestNeighbors(n_neighbors=k).fit(X).kneighbors(return_distance=False)
    nearest = sparse.csr_matrix((np.ones(n * k, np.float32), near.ravel(), np.arange(0, n * k + 1, k)), (n, n))
    own = nearest + sparse.identity(n, dtype=np.float32, format="csr")
    both = (own @ own.T).multiply(nearest.maximum(nearest.T)).tocsr()
    both.data /= 2 * (k + 1) - both.data
    return both


def find_clusters(X, resolution: float = 0.6, method: str = "louvain", seed: int = 0, **graph) -> np.ndarray:
    """Clusters of the cells of one batch: int64 (n_cells,), from 0, the largest first.

    Parameters
    ----------
    X : ndarray or sparse matrix, cells × genes
        Logged expression.
    resolution : float
        The higher, the more clusters.
    method : {"louvain", "leiden"}
        Louvain comes from networkx, whose licence is BSD and which torch needs anyway. Leiden comes through scanpy
        from igraph, whose licence is GPL: install the extra ``leiden``.
    seed : int
        Of the decomposition, and of the order in which cells are looked at.
    **graph
        ``n_components`` and ``k`` of :func:`neighbour_graph`.

    Raises
    ------
    ImportError
        If Leiden is asked for, and scanpy or igraph is missing.
    """
    require(OneOf(*CLUSTERINGS), method=method)
    require(Positive(), resolution=resolution)
    require(Whole(1), **graph)
    X = _dense(X)
    if method == "leiden" and not all(map(importlib.util.find_spec, ("scanpy", "igraph"))):
        raise ImportError(
            "Leiden needs scanpy and igraph: pip install 'borrowed-strength[leiden]', or take Louvain's clusters"
        )
    if len(X) < 3:  # a graph needs neighbours
        return np.zeros(len(X), np.int64)
    labels = (_leiden if method == "leiden" else _louvain)(neighbour_graph(X, seed=seed, **graph), resolution, seed)
    sizes = np.bincount(labels)
    return np.argsort(np.argsort(-sizes, kind="stable"))[labels]


def _dense(X):
    X = finite_matrix(X, dtype=np.float32)
    return X.toarray() if sparse.issparse(X) else X


def _louvain(graph, resolution, seed):
    import networkx as nx

    found = nx.community.louvain_communities(nx.from_scipy_sparse_array(graph), resolution=resolution, seed=seed)
    labels = np.empty(graph.shape[0], np.int64)
    # In the order of their first cells: sets have none of their own.
    for label, cells in enumerate(sorted(found, key=min)):
        labels[list(cells)] = label
    return labels


def _leiden(graph, resolution, seed):
    import anndata as ad
    import scanpy as sc

    cells = ad.AnnData(np.zeros((graph.shape[0], 1), np.float32))
    how = {"flavor": "igraph", "n_iterations": 2, "directed": False}
    sc.tl.leiden(cells, resolution, adjacency=graph, random_state=seed, **how)
    return cells.obs["leiden"].astype(int).to_numpy()
