"""Pseudo-labels: the clusters of unlabelled cells, at several granularities, for a network to learn to name."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse
from sklearn import config_context
from sklearn.cluster import AgglomerativeClustering, KMeans, MiniBatchKMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning

from shared.data.errors import DataError
from shared.preprocess import log_normalize
from shared.train.batches import seed_of

SPACES = ("raw", "log1p", "normalized", "pca", "embedding")
CLUSTERERS = ("kmeans", "minibatch", "ward")


def cluster_numbers(n: int, cells_per_cluster: Sequence[int] = (100, 50, 200)) -> tuple[int, ...]:
    """How many clusters `n` cells are put into at each granularity.

    The number of cells over the cells a cluster, rounded down; the coarsest of several gets one more. The authors'
    code has that one more; the paper does not mention it.

    Raises
    ------
    DataError
        If some number would be 0: too few cells.
    """
    sizes = tuple(cells_per_cluster)
    if not sizes or any(isinstance(c, bool) or not isinstance(c, (int, np.integer)) or c < 1 for c in sizes):
        raise DataError(f"cells_per_cluster={cells_per_cluster!r}: give one or more whole numbers from 1 up")
    ks = tuple(int(n // c + (len(sizes) > 1 and c == max(sizes))) for c in sizes)
    if min(ks) < 1:
        short = max(c for c, k in zip(sizes, ks, strict=True) if k < 1)
        raise DataError(f"{n} cells make no cluster of {short}: leave the data set out or ask for smaller ones")
    return ks


class PseudoLabels(NamedTuple):
    """Clusters of one data set.

    Attributes
    ----------
    labels : int64 ndarray, cells × granularities
        Counted from 0 in each column, none unused.
    inertia : float64 ndarray, granularities
        Sum of squared distances to the centres, in the space that was clustered; NaN for Ward's method.
    ks : tuple of int
        Clusters found.
    """

    labels: np.ndarray
    inertia: np.ndarray
    ks: tuple[int, ...]


class PseudoLabeller:
    """Cluster the cells of one data set at several granularities.

    Parameters
    ----------
    space : {"raw", "log1p", "normalized", "pca", "embedding"}
        What distances are measured on. ``"raw"`` counts, ``"log1p"`` their logarithm, ``"normalized"`` the logarithm
        after scaling each cell to one depth, ``"pca"`` 50 components of that, ``"embedding"`` whatever array is given.
        The paper clusters "the origin gene expression profile" first (section 2.2, equation 3) and does not say on
        which scale; the code takes raw counts. Both cluster the linear output of the encoder in later rounds.
    cells_per_cluster : sequence of int
        As in :func:`cluster_numbers`.
    clusterer : {"kmeans", "minibatch", "ward"}
        scikit-learn's, from random cells as centres, one start, at most 20 iterations, as the authors' faiss was set.
        ``"minibatch"`` is for sets of 50,000 cells and more. ``"ward"`` needs memory for cells × cells.
    seed : int

    Notes
    -----
    Raw distances follow depth and a few hundred high counts. On run 2 of the bundled blood cells, at 100 cells a
    cluster, the adjusted Rand index with the types was 0.40 raw, 0.47 log1p, 0.55 normalized and 0.61 pca; that with
    tenths of depth 0.26, 0.22, 0.20 and 0.20 (mean of five seeds).
    """

    def __init__(self, space="raw", cells_per_cluster=(100, 50, 200), clusterer="kmeans", seed=0):
        if space not in SPACES or clusterer not in CLUSTERERS:
            known = f"spaces {', '.join(SPACES)}; clusterers {', '.join(CLUSTERERS)}"
            raise DataError(f"space={space!r} with clusterer={clusterer!r} is not known; there are {known}")
        self.space, self.cells_per_cluster, self.clusterer, self.seed = space, cells_per_cluster, clusterer, seed

    def fit_predict(self, X) -> PseudoLabels:
        """Cluster counts, cells × genes (CSR or ndarray), or an embedding, cells × anything.

        Raises
        ------
        DataError
            If there are too few cells, or values that should be counts are none.
        """
        ks = cluster_numbers(X.shape[0], self.cells_per_cluster)
        points = self.points(X)
        found = [self._cluster(points, k, i) for i, k in enumerate(ks)]
        labels = np.stack([np.unique(one, return_inverse=True)[1] for one, _ in found], axis=1)
        return PseudoLabels(labels, np.array([i for _, i in found]), tuple(int(k) + 1 for k in labels.max(0)))

    def points(self, X):
        """The points that are clustered; a cell without any count stays at zero."""
        if self.space in ("raw", "embedding"):
            return X
        if self.space == "log1p":
            return logged(X)
        X = _normalized(X)
        k = min(50, min(X.shape) - 1)
        if self.space == "normalized" or k < 1:
            return X
        return PCA(k, svd_solver="arpack", random_state=self.seed).fit_transform(X)

    def _cluster(self, points, k, number):
        if self.clusterer == "ward":
            points = points.toarray() if sparse.issparse(points) else points
            return AgglomerativeClustering(k).fit_predict(points), math.nan
        seed = seed_of(self.seed, number) >> 1
        options = {"init": "random", "n_init": 1, "max_iter": 20, "random_state": seed}
        if self.clusterer == "minibatch":
            means = MiniBatchKMeans(k, **options)
        else:
            # Elkan's bounds spare three of four distances on sparse cells and change nothing; they fill cells × k.
            bounds = k > 1 and sparse.issparse(points) and points.shape[0] * k < 3e7
            means = KMeans(k, algorithm="elkan" if bounds else "lloyd", **options)
        # Hundreds of small clusterings make a round: checks of each argument would take half of the time.
        with warnings.catch_warnings(), config_context(assume_finite=True, skip_parameter_validation=True):
            # Two equal cells cannot be parted; what is left of the clusters is counted afterwards.
            warnings.simplefilter("ignore", ConvergenceWarning)
            return means.fit_predict(points), float(means.inertia_)


def _normalized(X):
    """:func:`log_normalize` of the cells that have counts; in the genes of a corpus a cell may have none."""
    some = np.asarray((X != 0).sum(1)).ravel() > 0
    if some.all():
        return log_normalize(X)
    if not some.any():
        raise DataError("no cell has a count in the genes of the corpus: leave the data set out")
    made = sparse.csr_matrix(log_normalize(X[some]))
    size = np.zeros(X.shape[0], made.indptr.dtype)
    size[some] = np.diff(made.indptr)
    made = sparse.csr_matrix((made.data, made.indices, np.r_[0, size.cumsum()]), shape=X.shape)
    return made if sparse.issparse(X) else made.toarray()


def logged(X):
    """log(1 + x) as float32 CSR; only stored values are touched, because log(1 + 0) is 0."""
    X = sparse.csr_matrix(X, dtype=np.float32)
    return sparse.csr_matrix((np.log1p(X.data), X.indices, X.indptr), shape=X.shape)
