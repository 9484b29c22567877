"""Maps: the graph against its paper and the library, the plane by its neighbours, distortion by hand."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from shared.data.errors import DataError
from shared.methods.maps import distortion, neighbor_graph, umap

RNG = np.random.default_rng(0)


def clouds(n=60, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(5, 8)) * 6
    labels = np.repeat(list("abcde"), n)
    return np.concatenate([c + rng.normal(size=(n, 8)) for c in centres]), labels


def plain_graph(points, k):
    """UMAP's graph as its paper defines it, cell by cell."""
    from scipy.optimize import brentq
    from scipy.spatial.distance import cdist

    away = cdist(points, points)
    one_way = np.zeros_like(away)
    for i, row in enumerate(away):
        near = np.argsort(row)[1:k]
        beyond = row[near] - row[near].min()
        width = brentq(lambda w, beyond=beyond: np.exp(-beyond / w).sum() - np.log2(k), 1e-9, 1e9)
        one_way[i, near] = np.exp(-beyond / width)
    return one_way + one_way.T - one_way * one_way.T


@pytest.mark.parametrize("k", [3, 15])
def test_the_graph_is_the_papers(k):
    points, _ = clouds(20)
    assert_allclose(neighbor_graph(points, k).toarray(), plain_graph(points, k), atol=1e-6)


@pytest.fixture(scope="module")
def fitted():
    """Clouds, and umap-learn fitted to them."""
    import sys
    import warnings

    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        patch.setitem(sys.modules, "tensorflow", None)  # umap-learn imports it for a part that is not used here
        library = pytest.importorskip("umap.umap_")
        # Its graph as plain Python: at three hundred cells numba's compiler takes a hundred times as long as the work.
        for name, function in list(vars(library).items()):
            if hasattr(function, "py_func"):
                patch.setattr(library, name, function.py_func)
        points, _ = clouds()
        return points, library.UMAP(random_state=0).fit(points)


@pytest.mark.nightly
def test_the_graph_is_the_librarys(fitted):
    points, theirs = fitted
    difference = abs(theirs.graph_ - neighbor_graph(points, 15))
    assert (difference.data > 1e-3).mean() < 0.002  # a tie for the last place may fall either way


@pytest.mark.nightly
def test_the_map_keeps_neighbours_as_well_as_the_librarys(fitted):
    from sklearn.manifold import trustworthiness

    points, theirs = fitted
    assert trustworthiness(points, umap(points)) > trustworthiness(points, theirs.embedding_) - 0.02


def test_each_cell_has_the_same_weight_of_neighbours():
    """By definition: the directed weights of a cell add up to the logarithm of the number of neighbours."""
    points, _ = clouds(20)
    graph = neighbor_graph(points, 8)
    assert abs(graph - graph.T).max() < 1e-12 and graph.diagonal().sum() == 0
    assert graph.data.min() > 0 and graph.data.max() <= 1 + 1e-12
    # p + q - pq is at least the mean of p and q, so the symmetric sums are no smaller than the directed ones
    assert (np.asarray(graph.sum(1)).ravel() >= np.log2(8) - 1e-6).all()
    assert_allclose(graph.max(1).toarray(), 1, atol=1e-9)


def test_the_map_parts_clouds_and_repeats_itself():
    from sklearn.neighbors import KNeighborsClassifier

    points, labels = clouds(30)
    shown = umap(points, epochs=100, random_state=3)
    assert shown.shape == (150, 2) and np.isfinite(shown).all()
    assert KNeighborsClassifier(5).fit(shown, labels).score(shown, labels) > 0.98
    assert_allclose(shown, umap(points, epochs=100, random_state=3))
    assert not np.allclose(shown, umap(points, epochs=100, random_state=4))
    assert np.isfinite(umap(points, epochs=50, start="random")).all()


def test_copies_of_a_cell_do_no_harm():
    points = np.repeat(RNG.normal(size=(6, 3)), 10, axis=0)
    assert np.isfinite(umap(points, n_neighbors=5, epochs=20)).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [({"n_neighbors": 1}, "n_neighbors"), ({"n_neighbors": 99}, "n_neighbors"), ({"start": "spectral"}, "start")],
)
def test_an_impossible_map_is_refused(options, words):
    with pytest.raises(DataError, match=words):
        umap(RNG.normal(size=(20, 3)), **options)


def test_distortion_of_a_faithful_a_turned_and_a_false_map():
    points, labels = clouds(10)
    assert_allclose(distortion(points, points, labels), 1)
    line = np.array([[0.0], [1], [3]])  # distances 1, 3, 2
    assert_allclose(distortion(line, -5 * line, list("abc")), 1)
    assert_allclose(distortion(line, np.array([[0.0], [3], [1]]), list("abc")), -1)
    with pytest.raises(DataError, match="three groups"):
        distortion(line, line, ["a", "b", "b"])
    with pytest.raises(DataError, match="same cells"):
        distortion(line, line[:2], list("abc"))
