"""Scores of mixing: against closed forms, loops and libraries, on layouts whose answer is plain."""

import math

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.metrics import silhouette_samples

from shared.data.errors import DataError
from shared.evaluate import (
    batch_entropy,
    batch_silhouette,
    divergence,
    graph_connectivity,
    integration_scores,
    lisi,
    specific_entropy,
)


def layout(shift, n=150, seed=0):
    """Two types far apart, two batches `shift` apart: cells, batches and types."""
    rng = np.random.default_rng(seed)
    kind, batch = np.arange(4 * n) % 2, np.arange(4 * n) // 2 % 2
    X = rng.normal(size=(4 * n, 2)) + 12.0 * np.c_[kind, np.zeros(4 * n)] + shift * np.c_[np.zeros(4 * n), batch]
    return X, np.array(["one", "two"])[batch], np.array(["B", "T"])[kind]


@pytest.mark.parametrize(("d", "apart"), [(1, 1.69), (2, 1.51)])
def test_the_divergence_of_two_gaussians(d, apart):
    """Nothing for one distribution. Between N(0, 1) and N(2, 1) it is 2, and the estimate is known to be low."""
    rng, batch = np.random.default_rng(0), np.repeat([0, 1], 3000)
    a, b, c = rng.normal(size=(3, 3000, d))
    assert divergence(np.vstack([a, b]), batch) < 0.02
    c[:, 0] += 2
    assert divergence(np.vstack([a, c]), batch) == pytest.approx(apart, abs=0.1)


def test_the_divergence_by_its_formula():
    rng = np.random.default_rng(1)
    a, b, k = rng.normal(size=(40, 3)), rng.normal(size=(60, 3)) + 0.5, 5

    def one(a, b):
        own = np.sort(cdist(a, a), 1)[:, k]  # itself is the first
        other = np.sort(cdist(a, b), 1)[:, k - 1]
        return max(0, 3 * np.log(other / own).mean() + math.log(len(b) / (len(a) - 1)))

    found = divergence(np.vstack([a, b]), np.repeat([0, 1], [40, 60]), k=k)
    assert found == pytest.approx((one(a, b) + one(b, a)) / 2, rel=1e-9)


def test_only_types_of_both_batches_are_compared():
    X, batch, types = layout(0.0)
    keep = ~((batch == "two") & (types == "T"))
    assert divergence(X[keep], batch[keep]) > divergence(X[keep], batch[keep], types[keep]) + 0.2
    assert math.isnan(divergence(X[keep], batch[keep], np.where(batch[keep] == "one", "B", "T")))
    assert math.isnan(divergence(X[:40], batch[:40])), "fewer cells than neighbours"


def test_entropy_of_a_batch_alone_is_zero_and_of_halves_is_log_2():
    X, batch, types = layout(0.0, n=300)
    keep = ~((batch == "two") & (types == "T"))
    X, batch, types = X[keep], batch[keep], types[keep]
    entropy = batch_entropy(X, batch)
    assert (entropy[types == "T"] == 0).all() and specific_entropy(X, batch, types) == 0
    assert entropy[types == "B"].mean() == pytest.approx(math.log(2), abs=0.02)
    assert math.isnan(specific_entropy(*layout(0.0))), "no type is of one batch"
    near = X - 12.0 * np.c_[types == "T", types == "T"] * [1, 0]
    assert specific_entropy(near, batch, types) > 0.5, "drawn onto the other type"


def test_as_many_neighbours_as_there_are_cells():
    share = np.array([0.25, 0.75])
    found = batch_entropy(np.random.default_rng(0).random((8, 2)), np.repeat([0, 1], [2, 6]))
    assert np.allclose(found, -(share * np.log(share)).sum())


def test_lisi_counts_groups_in_effect():
    X, batch, types = layout(0.0)
    assert np.median(lisi(X, batch)) > 1.85 and np.allclose(lisi(X, types), 1)
    assert np.median(lisi(*layout(30.0)[:2])) == pytest.approx(1)
    assert lisi(X, np.zeros(len(X), int)) == pytest.approx(np.ones(len(X)))


def test_weights_have_the_perplexity():
    from shared.evaluate.mixing import _weights

    far = np.sort(np.random.default_rng(0).random((5, 90)), 1) * [[1], [10], [0.1], [3], [1]]
    weight = _weights(far, math.log(30))
    assert np.allclose(weight.sum(1), 1)
    assert np.allclose(np.exp(-(weight * np.log(weight)).sum(1)), 30, rtol=1e-6)


def test_a_type_in_two_parts_is_not_connected():
    X, batch, types = layout(0.0)
    assert graph_connectivity(X, types) == 1
    apart = X + 40.0 * np.c_[np.zeros(len(X)), (batch == "two") & (types == "T")]
    assert graph_connectivity(apart, types) == pytest.approx(0.75)


def test_the_silhouette_of_batches_within_types():
    X, batch, types = layout(3.0)
    each = [np.abs(silhouette_samples(X[types == t], batch[types == t])).mean() for t in ("B", "T")]
    assert batch_silhouette(X, batch, types) == pytest.approx(1 - np.mean(each))
    assert batch_silhouette(*layout(0.0)) > 0.95 > 0.5 > batch_silhouette(*layout(9.0))
    assert math.isnan(batch_silhouette(X, batch, batch))


def test_all_scores_see_what_mixing_is():
    mixed, apart = (integration_scores(*layout(shift)) for shift in (0.0, 25.0))
    for name in ("ilisi", "batch_silhouette", "graph_connectivity", "mixing", "total"):
        assert mixed[name] > apart[name] + 0.05, name
    assert mixed["divergence"] < 0.2 < 1 < apart["divergence"]
    one_point = integration_scores(np.random.default_rng(0).normal(size=(600, 2)), *layout(0.0)[1:])
    assert one_point["mixing"] > 0.9 and one_point["types"] < 0.4, "mixing is cheap where types are lost"
    assert all(isinstance(value, float) for value in mixed.values())
    total = 0.4 * mixed["mixing"] + 0.6 * mixed["types"]
    assert mixed["total"] == pytest.approx(total)


def test_they_are_those_of_scib_metrics():
    scib = pytest.importorskip("scib_metrics", reason="install the extra scib")
    from scib_metrics.nearest_neighbors import pynndescent

    X, batch, types = layout(1.5)
    found = integration_scores(X, batch, types)
    near = pynndescent(X, n_neighbors=90, random_state=0)
    assert scib.ilisi_knn(near, batch) == pytest.approx(found["ilisi"], abs=0.02)
    assert scib.clisi_knn(near, types) == pytest.approx(found["clisi"], abs=0.02)
    assert scib.silhouette_label(X, types) == pytest.approx(found["silhouette"], abs=1e-4)
    assert scib.silhouette_batch(X, types, batch) == pytest.approx(found["batch_silhouette"], abs=1e-4)
    near = pynndescent(X, n_neighbors=15, random_state=0)
    assert scib.graph_connectivity(near, types) == pytest.approx(found["graph_connectivity"], abs=0.02)


def test_what_cannot_be_scored_is_refused():
    X, batch, types = layout(0.0)
    with pytest.raises(DataError, match="one batch"):
        divergence(X, np.zeros(len(X), int))
    with pytest.raises(DataError, match="one type"):
        integration_scores(X, batch, np.zeros(len(X), int))
    with pytest.raises(DataError, match="600 cells and batch 3"):
        batch_entropy(X, batch[:3])
    with pytest.raises(DataError, match="no neighbour"):
        lisi(X[:1], batch[:1])
    with pytest.raises(DataError, match="NaN or infinite"):
        graph_connectivity(np.full((4, 2), np.nan), types[:4])
