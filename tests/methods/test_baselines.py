"""The baselines: what the chapter writes out agrees with scikit-learn, and every model takes every input."""

import ast
import inspect
import json
import shutil
import textwrap

import numpy as np
import pandas as pd
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
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch.nn.functional import cross_entropy

from shared.methods import baselines
from shared.methods.baselines import (
    Components,
    NearestCentroid,
    Neighbors,
    NetworkClassifier,
    models,
    rungs,
    softmax_regression,
)
from shared.train import TrainingError

SEVEN = ["ridge", "lasso", "elastic net", "logistic", "random forest", "gradient boosting", "network"]
LADDER = ["majority class", "nearest centroid", "PCA + k-NN", "logistic", "network"]
EVERY = {**rungs(), **models()}


def blood(per_type=15, genes=300, kinds=4, seed=0, names=("B cells", "CD4 T", "Monocytes", "NK")):
    """Log-like expression, nine entries in ten zero, in which each type has genes of its own."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(kinds), per_type)
    rate = np.full((kinds, genes), 0.1)
    for kind in range(kinds):
        rate[kind, kind * 10 : kind * 10 + 10] = 1.5
    counts = rng.poisson(rate[y])
    order = rng.permutation(len(y))
    return np.log1p(counts).astype(np.float32)[order], np.array(names)[y][order]


@pytest.fixture(scope="module")
def fitted():
    """A network fitted once, and its cells."""
    X, y = blood()
    return NetworkClassifier(random_state=0, epochs=15).fit(X, y), X, y


# The ten lines the chapter teaches.


@pytest.mark.parametrize("C", [0.01, 1.0])
@pytest.mark.parametrize("kinds", [4, 3])
def test_softmax_regression_is_sklearns_at_the_same_penalty(C, kinds):
    X, y = blood(kinds=kinds)
    names, W, b = softmax_regression(X, y, C=C)
    theirs = LogisticRegression(C=C, tol=1e-8, max_iter=5000).fit(X.astype(np.float64), y)
    assert names.tolist() == theirs.classes_.tolist()
    assert W.shape == (X.shape[1], kinds) and W.dtype == np.float32
    np.testing.assert_allclose(W, theirs.coef_.T, atol=1e-3)
    np.testing.assert_allclose(b - b.mean(), theirs.intercept_ - theirs.intercept_.mean(), atol=3e-3)
    new, _ = blood(seed=5)
    assert (names[(new @ W + b).argmax(1)] == theirs.predict(new)).all()


def test_softmax_regression_stands_where_its_own_loss_is_flat():
    X, y = blood()
    names, W, b = softmax_regression(X, y, C=0.5)
    W, b = (torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in (W, b))
    target = torch.as_tensor(np.unique(y, return_inverse=True)[1])
    loss = cross_entropy(torch.as_tensor(X).double() @ W + b, target, reduction="sum") + (W**2).sum()
    loss.backward()
    assert W.grad.abs().max() < 5e-3 and b.grad.abs().max() < 5e-3
    assert len(names) == 4


@pytest.mark.parametrize("name", ["softmax_regression", "network", "weighted_loss"])
def test_taught_functions_fit_a_cell(name):
    tree = ast.parse(textwrap.dedent(inspect.getsource(getattr(baselines, name)))).body[0]
    assert ast.get_docstring(tree) and tree.returns and all(a.annotation for a in tree.args.args)
    lines = tree.end_lineno - tree.body[0].end_lineno
    assert lines <= 19, f"{name} has {lines} lines and its signature"


# The network as an estimator.


@parametrize_with_checks([NetworkClassifier(epochs=25, lr=1e-2, patience=None, random_state=0)])
def test_network_keeps_sklearns_contract(estimator, check):
    check(estimator)


@parametrize_with_checks([NearestCentroid(), Components(3, random_state=0), Neighbors(5)])
def test_the_small_steps_keep_sklearns_contract(estimator, check):
    check(estimator)


def test_network_learns_and_gives_probabilities(fitted):
    model = fitted[0]
    new, truth = blood(seed=1)
    proba = model.predict_proba(new)
    assert proba.shape == (60, 4) and np.allclose(proba.sum(1), 1, atol=1e-5)
    assert (model.classes_[proba.argmax(1)] == model.predict(new)).all()
    assert model.score(new, truth) > 0.8
    assert model.n_features_in_ == 300 and not hasattr(model, "feature_names_in_")


def test_sparse_and_dense_cells_give_the_same_network(fitted):
    model, X, y = fitted
    for kind in (sparse.csr_matrix, sparse.csr_array):
        other = clone(model).fit(kind(X), y)
        assert np.array_equal(other.predict_proba(kind(X)), model.predict_proba(X))


def test_one_seed_one_network_and_no_trace_in_the_global_generators(fitted):
    model, X, y = fitted
    torch.manual_seed(5)
    wanted = torch.rand(1)
    torch.manual_seed(5)
    again, other = clone(model).fit(X, y), clone(model).set_params(random_state=1).fit(X, y)
    assert torch.equal(torch.rand(1), wanted)
    assert np.array_equal(again.predict_proba(X), model.predict_proba(X))
    assert not np.array_equal(other.predict_proba(X), model.predict_proba(X))


def test_early_stopping_holds_out_a_share_of_each_type():
    target = np.repeat([0, 1, 2], [40, 25, 3])
    kept, held = baselines._hold_out(target, 0.1, np.random.RandomState(0))
    assert np.bincount(target[held]).tolist() == [4, 2]
    assert sorted([*kept, *held]) == list(range(68))


def test_two_cells_a_type_leave_none_to_hold_out():
    X, y = blood(per_type=2)
    model = NetworkClassifier(random_state=0, epochs=7).fit(X, y)
    assert len(model.history_.rows) == 7 and "val_loss" not in model.history_.rows[0]


def test_early_stopping_stops():
    X, y = blood()
    model = NetworkClassifier(random_state=0, epochs=500, lr=0.05, patience=3).fit(X, y)
    assert model.history_.stopped == "patience" and len(model.history_.rows) < 500


def test_names_of_genes_are_kept_and_checked(fitted):
    model, X, y = fitted
    frame = pd.DataFrame(X, columns=[f"g{i}" for i in range(300)])
    named = clone(model).set_params(epochs=1).fit(frame, y)
    assert list(named.feature_names_in_) == list(frame.columns)
    with pytest.raises(ValueError, match="feature names should match"):
        named.predict(frame[frame.columns[::-1]])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"validation": -0.1}, "validation=-0.1"),
        ({"lr": -1}, "lr=-1"),
        ({"epochs": 0}, "epochs=0"),
        ({"device": "gpu"}, "device 'gpu' is not known"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(options, said):
    with pytest.raises(TrainingError, match=said):
        NetworkClassifier(**options).fit(*blood(per_type=2))


@pytest.mark.parametrize("model", [NetworkClassifier(), NearestCentroid()])
def test_one_type_is_no_task(model):
    X, _ = blood(per_type=2)
    with pytest.raises(ValueError, match="one class only"):
        model.fit(X, np.zeros(len(X)))


# Saved and loaded.


@pytest.mark.parametrize("labels", [str, int, float, bool, object])
def test_a_saved_network_comes_back(tmp_path, labels):
    X, y = blood(kinds=2)
    y = {str: y, object: y.astype(object), bool: y == y[0]}.get(labels, np.unique(y, return_inverse=True)[1] * 2)
    y = y.astype(labels) if labels in (int, float) else y
    model = NetworkClassifier(hidden=(8, 4), batch_norm=True, random_state=0, epochs=3).fit(X, y)
    genes = [f"GENE{i}" for i in range(300)]
    back = NetworkClassifier.load(model.save(tmp_path / "net", genes), genes)
    assert np.array_equal(back.predict_proba(X), model.predict_proba(X))
    assert back.classes_.dtype.kind == model.classes_.dtype.kind and (back.predict(X) == model.predict(X)).all()
    assert back.get_params() == model.get_params() | {"hidden": [8, 4]}
    assert sorted(p.name for p in (tmp_path / "net").iterdir()) == ["config.json", "genes.txt", "model.safetensors"]


def test_names_of_a_frame_are_saved(tmp_path, fitted):
    model, X, y = fitted
    frame = pd.DataFrame(X, columns=[f"g{i}" for i in range(300)])
    clone(model).set_params(epochs=1).fit(frame, y).save(tmp_path)
    assert (tmp_path / "genes.txt").read_text().split() == list(frame.columns)


@pytest.fixture
def saved(tmp_path, fitted):
    genes = [f"GENE{i}" for i in range(300)]
    return fitted[0].save(tmp_path / "net", genes), genes


def test_other_genes_are_refused(saved):
    folder, genes = saved
    with pytest.raises(TrainingError, match=r"they are in another order.*align_genes"):
        NetworkClassifier.load(folder, genes[::-1])
    with pytest.raises(TrainingError, match="1 are missing and 1 are new"):
        NetworkClassifier.load(folder, [*genes[:-1], "NEW"])


def test_genes_must_be_named_once_each(tmp_path, fitted):
    for bad, said in [
        (None, "none were named"),
        (["a", "b"], "2 were named"),
        (["a"] * 300, "different names"),
        ([f"a\n{i}" for i in range(300)], "line breaks"),
    ]:
        with pytest.raises(TrainingError, match=said):
            fitted[0].save(tmp_path / "net", bad)
    assert not (tmp_path / "net").exists()


def change_genes(folder):
    lines = (folder / "genes.txt").read_text().splitlines()
    (folder / "genes.txt").write_text("\n".join(lines[::-1]) + "\n")


def change_weights(folder):
    raw = bytearray((folder / "model.safetensors").read_bytes())
    raw[-1] ^= 1
    (folder / "model.safetensors").write_bytes(raw)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (change_genes, "genes_sha256 is not what config.json says"),
        (change_weights, "weights_sha256 is not what config.json says"),
        (lambda f: (f / "genes.txt").unlink(), "genes.txt is missing"),
        (lambda f: (f / "config.json").write_text("{"), "is damaged"),
        (lambda f: (f / "config.json").write_text("[]"), "is damaged"),
        (lambda f: (f / "genes.txt").write_bytes(b"\xff"), "is damaged"),
        (shutil.rmtree, "is no saved model"),
    ],
)
def test_a_damaged_folder_is_refused(saved, spoil, said):
    folder, genes = saved
    spoil(folder)
    with pytest.raises(TrainingError, match=said):
        NetworkClassifier.load(folder, genes)


def test_a_random_state_object_is_not_saved(tmp_path):
    X, y = blood(per_type=2)
    model = NetworkClassifier(random_state=np.random.RandomState(0), epochs=1).fit(X, y)
    model.save(tmp_path, map(str, range(300)))
    assert json.loads((tmp_path / "config.json").read_text())["config"]["settings"]["random_state"] is None


# The dictionaries the chapters use.


def test_names_and_order():
    assert list(models()) == SEVEN and list(rungs()) == LADDER
    assert all(is_classifier(m) for m in EVERY.values())
    assert repr(models(3)["network"]) == repr(rungs(3)["network"])


@pytest.mark.parametrize("name", EVERY)
def test_each_model_names_new_cells(name):
    X, y = blood(per_type=25)
    new, truth = blood(seed=1)
    score = balanced_accuracy_score(truth, clone(EVERY[name]).fit(X, y).predict(new))
    assert score == 0.25 if name == "majority class" else score > 0.75


@pytest.mark.parametrize("name", EVERY)
def test_sparse_and_dense_cells_give_the_same_answers(name):
    X, y = blood()
    new, _ = blood(seed=1)
    dense, thin = clone(EVERY[name]).fit(X, y), clone(EVERY[name]).fit(sparse.csr_matrix(X), y)
    assert (dense.predict(new) == thin.predict(sparse.csr_matrix(new))).mean() > 0.98


@pytest.mark.parametrize("name", EVERY)
def test_one_seed_gives_one_answer(name):
    X, y = blood()
    new, _ = blood(seed=1)
    one, two = (dict(rungs(7) | models(7))[name].fit(X, y) for _ in range(2))
    ask = next(a for a in ("predict_proba", "decision_function", "predict") if hasattr(one, a))
    assert np.array_equal(getattr(one, ask)(new), getattr(two, ask)(new))


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("per_type", [1, 2])
def test_a_handful_of_cells_is_enough(name, per_type):
    X, y = blood(per_type=per_type, kinds=3)
    new, _ = blood(seed=1)
    assert set(clone(EVERY[name]).fit(X, y).predict(new)) <= set(y)


@pytest.mark.parametrize("name", [m for m in SEVEN if m != "ridge"])
def test_probabilities(name):
    X, y = blood()
    model = clone(EVERY[name]).fit(X, y)
    proba = model.predict_proba(X)
    assert proba.shape == (60, 4) and np.allclose(proba.sum(1), 1, atol=1e-5) and (model.classes_ == np.unique(y)).all()


@pytest.mark.parametrize("name", EVERY)
def test_centred_cells_are_taken_too(name):
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


def test_lasso_and_elastic_net_drop_genes():
    X, y = blood(per_type=25)
    for name in ("lasso", "elastic net"):
        last = clone(EVERY[name]).fit(X, y)[-1]
        weights = np.vstack([e.coef_ for e in last.estimators_]) if name == "lasso" else last.coef_
        assert 0.02 < (weights != 0).any(0).mean() < 0.7


# The small steps.


@pytest.mark.filterwarnings("ignore:self.within_class_std_dev_")
def test_nearest_centroid_is_sklearns():
    X, y = blood(per_type=25)
    new, _ = blood(seed=1)
    theirs = sklearn.neighbors.NearestCentroid().fit(X, y)
    for kind in (np.asarray, sparse.csr_matrix, sparse.csr_array):
        ours = NearestCentroid().fit(kind(X), y)
        np.testing.assert_allclose(ours.centroids_, theirs.centroids_, atol=1e-5)
        assert (ours.predict(kind(new)) == theirs.predict(new)).all()


def test_components_are_sklearns():
    X, _ = blood()
    ours = Components(5, random_state=0).fit(X)
    theirs = PCA(5, svd_solver="full").fit(X)
    np.testing.assert_allclose(np.abs(ours.transform(X)), np.abs(theirs.transform(X)), atol=1e-3)
    np.testing.assert_allclose(
        np.abs(ours.transform(X)), np.abs(Components(5).fit(sparse.csr_matrix(X)).transform(X)), atol=1e-3
    )


def test_components_and_neighbours_are_cut_to_the_cells():
    X, y = blood(per_type=1)
    assert Components(50).fit(X).transform(X).shape == (4, 3)
    assert Components(50).fit(sparse.csr_matrix(X)).transform(X).shape == (4, 3)
    assert Neighbors(15).fit(X, y).predict_proba(X).shape == (4, 4)


def test_neighbours_are_sklearns():
    X, y = blood()
    theirs = KNeighborsClassifier(5, metric="cosine", weights="distance").fit(X, y)
    new, _ = blood(seed=1)
    assert (Neighbors(5).fit(X, y).predict(new) == theirs.predict(new)).all()


def test_only_mostly_empty_matrices_become_sparse():
    X, _ = blood()
    assert sparse.issparse(baselines.sparse_if_mostly_zero(X))
    assert not sparse.issparse(baselines.sparse_if_mostly_zero(X - X.mean(0)))
    assert sparse.issparse(baselines.sparse_if_mostly_zero(sparse.csc_matrix(X)))


def test_the_seed_sets_the_first_weights_whatever_torch_was_seeded_with():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 6)).astype(np.float32), np.repeat(["a", "b"], 20)

    def start(seed):
        torch.manual_seed(rng.integers(1 << 30))
        barely = NetworkClassifier(epochs=1, lr=1e-9, weight_decay=0, patience=None, random_state=seed)
        return barely.fit(X, y).network_[0].weight.detach().numpy()

    assert np.allclose(start(3), start(3), atol=1e-6)
    assert not np.allclose(start(3), start(4), atol=1e-2)
