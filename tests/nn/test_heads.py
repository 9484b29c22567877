"""Each head agrees with a library or a few lines of numpy, on every episode of a batch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics.pairwise import cosine_similarity, euclidean_distances
from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import normalize

from shared.data import load
from shared.data.constraints import SettingError
from shared.data.errors import DataError
from shared.nn.episodes import EpisodeSampler, unit_range
from shared.nn.heads import HEADS, logistic, matching, nearest_centroid, prototypes, ridge, simple_shot
from shared.preprocess import log_normalize


def episodes(B=3, C=4, K=5, Q=7, F=12, seed=0, apart=1.0, offset=0.0, dtype=np.float32):
    """Gaussian classes: support and query as numpy arrays."""
    rng = np.random.default_rng(seed)
    centres = apart * rng.normal(size=(B, C, 1, F)) + offset
    support = centres + rng.normal(size=(B, C, K, F))
    query = centres[np.arange(B)[:, None], rng.integers(C, size=(B, Q)), 0] + rng.normal(size=(B, Q, F))
    return support.astype(dtype), query.astype(dtype)


def ask(head, support, query, **options):
    scores = head(torch.from_numpy(support), torch.from_numpy(query), **options)
    assert scores.shape == (*query.shape[:2], support.shape[1])
    assert scores.dtype == torch.from_numpy(support).dtype
    return scores.numpy()


def rows_of(support):
    """Support rows and labels of each episode."""
    C, K = support.shape[1:3]
    return [(x.reshape(C * K, -1).astype(float), np.arange(C).repeat(K)) for x in support]


SIZES = st.tuples(*(st.integers(*r) for r in [(1, 3), (2, 5), (1, 6), (1, 6), (1, 30)]))


@settings(max_examples=25, deadline=None)
@given(SIZES, st.integers(0, 99), st.sampled_from([0.0, 50.0]))
def test_prototypes_are_distances_to_means(sizes, seed, offset):
    support, query = episodes(*sizes, seed=seed, offset=offset)
    euclidean, cosine = ask(prototypes, support, query), ask(prototypes, support, query, metric="cosine")
    for i, means in enumerate(support.astype(float).mean(2)):
        exact = -(euclidean_distances(query[i].astype(float), means) ** 2)
        np.testing.assert_allclose(euclidean[i], exact, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(cosine[i], cosine_similarity(query[i], means), atol=1e-5)


def test_nearest_centroid_names_what_scikit_learn_names():
    support, query = episodes(Q=50)
    scores = ask(nearest_centroid, support, query)
    for i, (X, y) in enumerate(rows_of(support)):
        assert (scores[i].argmax(1) == NearestCentroid().fit(X, y).predict(query[i])).all()


def test_distances_keep_their_digits_far_from_zero():
    support, query = episodes(F=200, offset=1000)
    exact = -(euclidean_distances(query[0].astype(float), support[0].astype(float).mean(1)) ** 2)
    np.testing.assert_allclose(ask(prototypes, support, query)[0], exact, rtol=2e-4)


def test_a_query_that_is_a_mean_and_ties():
    support, _ = episodes(B=1, C=3, K=2)
    support[0, 2] = support[0, 1]
    query = support.mean(2)
    scores = ask(prototypes, support, query)
    assert (scores <= 0).all() and scores[0, 0, 0] > -1e-5
    assert scores[0].argmax(1).tolist() == [0, 1, 1], "ties go to the lowest number"


def test_simple_shot_centres_by_the_mean_it_is_given():
    support, query = episodes(offset=3)
    mean = np.full(support.shape[-1], 3, np.float32)
    scores, plain = ask(simple_shot, support, query, mean=torch.from_numpy(mean)), ask(simple_shot, support, query)
    for i, (X, _) in enumerate(rows_of(support)):
        for given_mean, found in ((mean, scores), (0, plain)):
            means = normalize(X - given_mean).reshape(*support.shape[1:]).mean(1)
            exact = -(euclidean_distances(normalize(query[i] - given_mean), means) ** 2)
            np.testing.assert_allclose(found[i], exact, atol=1e-5)


def test_matching_is_a_vote_of_the_support():
    support, query = episodes()
    shares = np.exp(ask(matching, support, query, scale=5.0))
    np.testing.assert_allclose(shares.sum(2), 1, atol=1e-5)
    for i, (X, y) in enumerate(rows_of(support)):
        votes = softmax(5 * cosine_similarity(query[i], X), axis=1)
        exact = np.stack([votes[:, y == c].sum(1) for c in range(4)], 1)
        np.testing.assert_allclose(shares[i], exact, atol=1e-5)


def test_matching_on_real_inputs_needs_them_centred():
    cells = load("pbmc")
    X, run = log_normalize(cells.layers["counts"]), cells.obs["run"].to_numpy()
    source = X[run == "run2"]
    spread = np.asarray(source.power(2).mean(0) - np.square(source.mean(0))).ravel()
    X = unit_range(X[:, np.argsort(-spread)[:1000]].toarray())
    accuracy = []
    for shift in (0, X[run == "run2"].mean(0)):
        sampler = EpisodeSampler((X - shift)[run == "run1"], cells.obs["cell_type"][run == "run1"], n_query=5)
        support, query, target = sampler.batch(200)
        accuracy.append(float((matching(support, query).argmax(2) == target).float().mean()))
    assert accuracy == pytest.approx([0.64, 0.83], abs=0.02)


@settings(max_examples=25, deadline=None)
@given(st.integers(3, 6), st.integers(1, 6), st.sampled_from([2, 12, 40]), st.sampled_from([0.1, 1.0, 100.0]))
def test_ridge_is_scikit_learns(C, K, F, penalty):
    support, query = episodes(C=C, K=K, F=F, offset=2)
    scores = ask(ridge, support, query, penalty=penalty)
    for i, (X, y) in enumerate(rows_of(support)):
        exact = RidgeClassifier(alpha=penalty).fit(X, y).decision_function(query[i].astype(float))
        np.testing.assert_allclose(scores[i], exact, atol=2e-4)


@pytest.mark.parametrize("F", [3, 12, 300])
@pytest.mark.parametrize("C", [0.01, 1.0, 30.0])
def test_logistic_is_scikit_learns(F, C):
    support, query = episodes(F=F, offset=2)
    scores = ask(logistic, support, query, C=C)
    for i, (X, y) in enumerate(rows_of(support)):
        model = LogisticRegression(C=C, tol=1e-9, max_iter=20000).fit(X, y)
        exact = log_softmax(model.decision_function(query[i].astype(float)), axis=1)
        np.testing.assert_allclose(log_softmax(scores[i], axis=1), exact, atol=5e-3)


def test_logistic_of_two_classes_is_scikit_learns_at_twice_C():
    support, query = episodes(C=2)
    scores = ask(logistic, support, query, C=0.5)
    for i, (X, y) in enumerate(rows_of(support)):
        exact = LogisticRegression(C=1.0, tol=1e-9, max_iter=5000).fit(X, y).predict_proba(query[i].astype(float))
        np.testing.assert_allclose(softmax(scores[i], axis=1), exact, atol=1e-3)


def test_logistic_converges_when_some_episodes_do_so_before_others():
    parts = [episodes(B=5, C=5, F=30, apart=apart, seed=i) for i, apart in enumerate((0.1, 1, 3, 10, 30))]
    support, query = (np.concatenate(part) for part in zip(*parts, strict=True))
    scores = ask(logistic, 3 * support, 3 * query)
    alone = ask(logistic, 3 * support[7:8], 3 * query[7:8])
    np.testing.assert_allclose(scores[7], alone[0], atol=1e-4)


def test_logistic_does_not_depend_on_the_unit_of_the_features():
    support, query = episodes(F=30)
    scores = ask(logistic, support, query, C=4.0)
    for unit in (1e-3, 1e3):
        np.testing.assert_allclose(ask(logistic, unit * support, unit * query, C=4.0 / unit**2), scores, atol=1e-3)


def test_logistic_of_no_episode_gives_none():
    support, query = episodes(B=1, C=4)
    assert ask(logistic, support[:0], query[:0]).shape == (0, query.shape[1], 4)


def test_logistic_converges_or_says_so():
    support, query = episodes(apart=30, F=50)
    assert np.isfinite(ask(logistic, support, query, C=1e4)).all()
    with pytest.raises(DataError, match="did not converge in 1 steps: lower C"):
        ask(logistic, support, query, steps=1)


@pytest.mark.parametrize("name", HEADS)
def test_episodes_queries_and_the_order_of_the_support_do_not_matter(name):
    support, query = episodes(dtype=np.float64)
    scores = ask(HEADS[name], support, query)
    alone = ask(HEADS[name], support[1:2], query[1:2, 3:4])
    np.testing.assert_allclose(alone[0, 0], scores[1, 3], rtol=1e-6, atol=1e-6)
    moved = ask(HEADS[name], support[:, ::-1, ::-1].copy(), query)
    np.testing.assert_allclose(moved[..., ::-1], scores, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", HEADS)
def test_every_head_learns_one_shot_and_a_single_query(name):
    support, query = episodes(C=3, K=1, Q=1, apart=8)
    assert np.isfinite(ask(HEADS[name], support, query)).all()
    easy = ask(HEADS[name], support, support[:, :, 0])
    assert (easy.argmax(2) == np.arange(3)).all()


@pytest.mark.parametrize("name", HEADS)
def test_constant_features_give_no_nan(name):
    support, query = np.ones((2, 3, 4, 5), np.float32), np.ones((2, 6, 5), np.float32)
    scores = ask(HEADS[name], support, query)
    assert np.isfinite(scores).all() and np.ptp(scores, axis=2).max() < 1e-5


@pytest.mark.parametrize(
    ("support", "query", "said"),
    [
        ((3, 4, 5), (2, 6, 5), "add a first dimension"),
        ((2, 3, 4, 5), (2, 6, 7), "of 5 features and query 2 of 7"),
        ((2, 3, 4, 5), (1, 6, 5), "2 episodes"),
        ((2, 1, 4, 5), (2, 6, 5), "1 classes"),
        ((2, 3, 0, 5), (2, 6, 5), "0 shots"),
    ],
)
@pytest.mark.parametrize("name", HEADS)
def test_shapes_that_do_not_fit_are_refused(name, support, query, said):
    with pytest.raises(DataError, match=said):
        HEADS[name](torch.zeros(support), torch.zeros(query))


def test_settings_that_cannot_be_used_are_refused():
    support, query = map(torch.from_numpy, episodes())
    with pytest.raises(SettingError, match="metric='manhattan' is not known: choose euclidean, cosine"):
        prototypes(support, query, metric="manhattan")
    for head, name in ((ridge, "penalty"), (logistic, "C"), (matching, "scale"), (prototypes, "scale")):
        for bad in (0, -1, float("nan"), float("inf"), True, "1"):
            with pytest.raises(SettingError, match=f"{name}=.* is not a positive number"):
                head(support, query, **{name: bad})
    for options in ({"steps": 0}, {"tol": 0.0}):
        with pytest.raises(SettingError, match=f"{next(iter(options))}=0"):
            logistic(support, query, **options)
    with pytest.raises(DataError, match=r"mean has shape \(3,\) for 12 features"):
        simple_shot(support, query, mean=torch.zeros(3))


@pytest.mark.parametrize("head", [ridge, logistic])
def test_nan_is_named(head):
    support, query = episodes()
    support[1, 2, 3, 4] = np.nan
    with pytest.raises(DataError, match="hold NaN or infinities"):
        ask(head, support, query)


def test_gradients_pass_through_the_heads_that_learners_use():
    support, query = (torch.from_numpy(x).double().requires_grad_() for x in episodes(B=1, C=3, K=2, Q=2, F=4))
    for head in (prototypes, simple_shot, matching, ridge):
        assert torch.autograd.gradcheck(head, (support, query), eps=1e-6, atol=1e-4)
