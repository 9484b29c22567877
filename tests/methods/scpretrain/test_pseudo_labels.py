"""Pseudo-labels: the published numbers of clusters, scikit-learn's clusters, and every space they are found in."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from shared.data.errors import DataError
from shared.methods.scpretrain.pseudo_labels import CLUSTERERS, SPACES, PseudoLabeller, cluster_numbers


def cells(n=120, seed=0, kinds=4, genes=120):
    """Counts with a few genes of each type's own, and a fifth of the genes never expressed; types."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, kinds, n)
    rate = np.full((kinds, genes), 0.15)
    for kind in range(kinds):
        rate[kind, kind * 10 : kind * 10 + 8] = 4
    rate[:, 96:] = 0
    return sparse.csr_matrix(rng.poisson(rate[y]).astype(np.float32)), np.array(list("abcd"))[y]


@pytest.mark.parametrize(
    ("n", "wanted"), [(870, (8, 17, 5)), (1000, (10, 20, 6)), (15209, (152, 304, 77)), (100, (1, 2, 1))]
)
def test_numbers_of_clusters_are_the_published_ones(n, wanted):
    assert cluster_numbers(n) == wanted
    assert cluster_numbers(n, (100,)) == wanted[:1]


def test_too_few_cells_are_refused():
    with pytest.raises(DataError, match="99 cells make no cluster of 100"):
        cluster_numbers(99)
    for bad in ((), (0,), (1.5,), (True,)):
        with pytest.raises(DataError, match="whole numbers from 1 up"):
            cluster_numbers(50, bad)


def test_clusters_are_scikit_learns():
    X, _ = cells(200)
    got = PseudoLabeller("raw", (50,), seed=3).fit_predict(X)
    seed = int(np.random.SeedSequence((3, 0)).generate_state(1)[0] >> 1)
    theirs = KMeans(4, init="random", n_init=1, max_iter=20, random_state=seed).fit(X.toarray())
    assert adjusted_rand_score(got.labels[:, 0], theirs.labels_) == 1
    assert got.labels.shape == (200, 1) and got.labels.dtype == np.int64
    inertia = sum(((X[c].toarray() - X[c].toarray().mean(0)) ** 2).sum() for c in (got.labels == np.arange(4)).T)
    assert got.inertia[0] == pytest.approx(inertia, rel=1e-2)


@pytest.mark.parametrize("clusterer", CLUSTERERS)
@pytest.mark.parametrize("space", SPACES)
def test_every_space_and_clusterer_finds_the_types(space, clusterer):
    X, y = cells(200)
    labeller = PseudoLabeller(space, (40, 20, 100), clusterer, seed=1)
    got, again = labeller.fit_predict(X), labeller.fit_predict(X)
    assert got.labels.shape == (200, 3) and tuple(got.labels.max(0) + 1) == got.ks
    assert got.ks == (5, 10, 3) or clusterer == "minibatch"
    assert np.array_equal(got.labels, again.labels)
    assert np.isnan(got.inertia).all() if clusterer == "ward" else (got.inertia > 0).all()
    assert max(adjusted_rand_score(got.labels[:, j], y) for j in range(3)) > (0.2 if space == "raw" else 0.35)


def test_raw_log_and_normalised_points_are_what_they_say():
    X = sparse.csr_matrix(np.array([[0, 3.0], [1, 1]], np.float32))
    assert np.array_equal(PseudoLabeller("raw").points(X).toarray(), X.toarray())
    assert np.allclose(PseudoLabeller("log1p").points(X).toarray(), np.log1p(X.toarray()))
    assert np.allclose(PseudoLabeller("normalized").points(X).toarray(), np.log1p([[0, 1e4], [5e3, 5e3]]))
    assert PseudoLabeller("pca").points(cells(60)[0]).shape == (60, 50)


def test_equal_cells_make_fewer_clusters_without_a_warning():
    X = sparse.csr_matrix(np.repeat(np.eye(3, dtype=np.float32), 20, axis=0))
    got = PseudoLabeller("raw", (6, 3, 30), seed=0).fit_predict(X)
    assert got.ks[0] <= 3 and got.ks[1] <= 3 and tuple(got.labels.max(0) + 1) == got.ks


def test_unknown_spaces_are_refused():
    for options in ({"space": "umap"}, {"clusterer": "leiden"}):
        with pytest.raises(DataError, match="is not known; there are spaces raw"):
            PseudoLabeller(**options)
