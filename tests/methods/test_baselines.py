"""The baselines: what the chapter writes out agrees with scikit-learn, and every model takes every input."""

import ast
import inspect
import textwrap

import numpy as np
import pytest
import sklearn
import torch
from scipy import sparse
from sklearn.base import clone, is_classifier
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from torch.nn.functional import cross_entropy

from shared.methods import baselines
from shared.methods.baselines import (
    Components,
    NearestCentroid,
    Neighbors,
    ladder_models,
    models,
    softmax_regression,
)
from shared.methods.network_classifier import dense_network, weighted_step

SEVEN = ["ridge", "lasso", "elastic net", "logistic", "random forest", "gradient boosting", "network"]
LADDER = ["majority class", "nearest centroid", "PCA + k-NN", "logistic", "network"]
EVERY = {**ladder_models(), **models()}


# The ten lines the chapter teaches.


@pytest.mark.parametrize("C", [0.01, 1.0])
@pytest.mark.parametrize("kinds", [4, 3])
def test_softmax_regression_is_sklearns_at_the_same_penalty(blood, C, kinds):
    X, y = blood(kinds=kinds)
    names, W, b = softmax_regression(X, y, C=C)
    theirs = LogisticRegression(C=C, tol=1e-8, max_iter=5000).fit(X.astype(np.float64), y)
    assert names.tolist() == theirs.classes_.tolist()
    assert W.shape == (X.shape[1], kinds) and W.dtype == np.float32
    np.testing.assert_allclose(W, theirs.coef_.T, atol=1e-3)
    np.testing.assert_allclose(b - b.mean(), theirs.intercept_ - theirs.intercept_.mean(), atol=3e-3)
    new, _ = blood(seed=5)
    assert (names[(new @ W + b).argmax(1)] == theirs.predict(new)).all()


def test_softmax_regression_stands_where_its_own_loss_is_flat(blood):
    X, y = blood()
    names, W, b = softmax_regression(X, y, C=0.5)
    W, b = (torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in (W, b))
    target = torch.as_tensor(np.unique(y, return_inverse=True)[1])
    loss = cross_entropy(torch.as_tensor(X).double() @ W + b, target, reduction="sum") + (W**2).sum()
    loss.backward()
    assert W.grad.abs().max() < 5e-3 and b.grad.abs().max() < 5e-3
    assert len(names) == 4


@pytest.mark.parametrize("function", [softmax_regression, dense_network, weighted_step])
def test_taught_functions_fit_a_cell(function):
    tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert ast.get_docstring(tree) and tree.returns and all(a.annotation for a in tree.args.args)
    lines = tree.end_lineno - tree.body[0].end_lineno
    assert lines <= 19, f"{function.__name__} has {lines} lines and its signature"


# The dictionaries the chapters use.


def test_names_and_order():
    assert list(models()) == SEVEN and list(ladder_models()) == LADDER
    assert all(is_classifier(m) for m in EVERY.values())
    assert repr(models(3)["network"]) == repr(ladder_models(3)["network"])


@pytest.mark.parametrize("name", EVERY)
def test_each_model_names_new_cells(blood, name):
    X, y = blood(per_type=25)
    new, truth = blood(seed=1)
    score = balanced_accuracy_score(truth, clone(EVERY[name]).fit(X, y).predict(new))
    assert score == 0.25 if name == "majority class" else score > 0.75


@pytest.mark.parametrize("name", EVERY)
def test_sparse_and_dense_cells_give_the_same_answers(blood, name):
    X, y = blood()
    new, _ = blood(seed=1)
    dense, thin = clone(EVERY[name]).fit(X, y), clone(EVERY[name]).fit(sparse.csr_matrix(X), y)
    assert (dense.predict(new) == thin.predict(sparse.csr_matrix(new))).mean() > 0.98


@pytest.mark.parametrize("name", EVERY)
def test_one_seed_gives_one_answer(blood, name):
    X, y = blood()
    new, _ = blood(seed=1)
    one, two = (dict(ladder_models(7) | models(7))[name].fit(X, y) for _ in range(2))
    ask = next(a for a in ("predict_proba", "decision_function", "predict") if hasattr(one, a))
    assert np.array_equal(getattr(one, ask)(new), getattr(two, ask)(new))


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("per_type", [1, 2])
def test_a_handful_of_cells_is_enough(blood, name, per_type):
    X, y = blood(per_type=per_type, kinds=3)
    new, _ = blood(seed=1)
    assert set(clone(EVERY[name]).fit(X, y).predict(new)) <= set(y)


@pytest.mark.parametrize("name", [m for m in SEVEN if m != "ridge"])
def test_probabilities(blood, name):
    X, y = blood()
    model = clone(EVERY[name]).fit(X, y)
    proba = model.predict_proba(X)
    assert proba.shape == (60, 4) and np.allclose(proba.sum(1), 1, atol=1e-5) and (model.classes_ == np.unique(y)).all()


@pytest.mark.parametrize("name", EVERY)
def test_centred_cells_are_taken_too(blood, name):
    X, y = blood()
    X = X - X.mean(0)
    assert cross_val_score(clone(EVERY[name]), X, y, cv=2).mean() > (0.2 if name == "majority class" else 0.6)


@pytest.mark.parametrize(
    ("version", "l1_ratio", "wanted"),
    [
        ("1.6.1", 1, {"penalty": "l1"}),
        ("1.7.2", 0.5, {"penalty": "elasticnet", "l1_ratio": 0.5}),
        ("1.8.0", 1, {"l1_ratio": 1}),
        ("1.10.0", 0.5, {"l1_ratio": 0.5}),
    ],
)
def test_penalties_are_said_as_each_version_wants(monkeypatch, version, l1_ratio, wanted):
    monkeypatch.setattr(sklearn, "__version__", version)
    monkeypatch.setattr(baselines, "LogisticRegression", lambda **options: options)
    assert baselines._penalised(l1_ratio, C=2) == {"C": 2} | wanted


def test_lasso_and_elastic_net_drop_genes(blood):
    X, y = blood(per_type=25)
    for name in ("lasso", "elastic net"):
        last = clone(EVERY[name]).fit(X, y)[-1]
        weights = np.vstack([e.coef_ for e in last.estimators_]) if name == "lasso" else last.coef_
        assert 0.02 < (weights != 0).any(0).mean() < 0.7


# The small steps.


@pytest.mark.filterwarnings("ignore:self.within_class_std_dev_")
def test_nearest_centroid_is_sklearns(blood):
    X, y = blood(per_type=25)
    new, _ = blood(seed=1)
    theirs = sklearn.neighbors.NearestCentroid().fit(X, y)
    for kind in (np.asarray, sparse.csr_matrix, sparse.csr_array):
        ours = NearestCentroid().fit(kind(X), y)
        np.testing.assert_allclose(ours.centroids_, theirs.centroids_, atol=1e-5)
        assert (ours.predict(kind(new)) == theirs.predict(new)).all()


def test_components_are_sklearns(blood):
    X, _ = blood()
    ours = Components(5, random_state=0).fit(X)
    theirs = PCA(5, svd_solver="full").fit(X)
    np.testing.assert_allclose(np.abs(ours.transform(X)), np.abs(theirs.transform(X)), atol=1e-3)
    np.testing.assert_allclose(
        np.abs(ours.transform(X)), np.abs(Components(5).fit(sparse.csr_matrix(X)).transform(X)), atol=1e-3
    )


def test_components_and_neighbours_are_cut_to_the_cells(blood):
    X, y = blood(per_type=1)
    assert Components(50).fit(X).transform(X).shape == (4, 3)
    assert Components(50).fit(sparse.csr_matrix(X)).transform(X).shape == (4, 3)
    assert Neighbors(15).fit(X, y).predict_proba(X).shape == (4, 4)


def test_neighbours_are_sklearns(blood):
    X, y = blood()
    theirs = KNeighborsClassifier(5, metric="cosine", weights="distance").fit(X, y)
    new, _ = blood(seed=1)
    assert (Neighbors(5).fit(X, y).predict(new) == theirs.predict(new)).all()


def test_only_mostly_empty_matrices_become_sparse(blood):
    X, _ = blood()
    assert sparse.issparse(baselines.sparse_if_mostly_zero(X))
    assert not sparse.issparse(baselines.sparse_if_mostly_zero(X - X.mean(0)))
    assert sparse.issparse(baselines.sparse_if_mostly_zero(sparse.csc_matrix(X)))
