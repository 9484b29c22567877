"""The network as an estimator: what it learns, when it stops, and that it comes back from a folder."""

import numpy as np
import pytest
import torch
from sklearn.base import clone

from shared.methods.network_classifier import NetworkClassifier, stratified_split
from shared.train import TrainingError


@pytest.fixture(scope="module")
def fitted(blood):
    """A network fitted once, and its cells."""
    X, y = blood()
    return NetworkClassifier(random_state=0, epochs=15).fit(X, y), X, y


def test_network_learns_and_gives_probabilities(blood, fitted):
    model = fitted[0]
    new, truth = blood(seed=1)
    proba = model.predict_proba(new)
    assert proba.shape == (60, 4) and np.allclose(proba.sum(1), 1, atol=1e-5)
    assert (model.classes_[proba.argmax(1)] == model.predict(new)).all()
    assert model.score(new, truth) > 0.8
    assert model.n_features_in_ == 300 and not hasattr(model, "feature_names_in_")


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
    kept, held = stratified_split(target, 0.1, np.random.RandomState(0))
    assert np.bincount(target[held]).tolist() == [4, 2]
    assert sorted([*kept, *held]) == list(range(68))


def test_two_cells_a_type_leave_none_to_hold_out(blood):
    X, y = blood(per_type=2)
    model = NetworkClassifier(random_state=0, epochs=7).fit(X, y)
    assert len(model.history_.rows) == 7 and "val_loss" not in model.history_.rows[0]


def test_early_stopping_stops(blood):
    X, y = blood()
    model = NetworkClassifier(random_state=0, epochs=500, lr=0.05, patience=3).fit(X, y)
    assert model.history_.stopped == "patience" and len(model.history_.rows) < 500


def test_a_device_that_is_not_known_is_refused(blood):
    with pytest.raises(TrainingError, match="device 'gpu' is not known"):
        NetworkClassifier(device="gpu").fit(*blood(per_type=2))


def test_the_seed_sets_the_first_weights_whatever_torch_was_seeded_with():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 6)).astype(np.float32), np.repeat(["a", "b"], 20)

    def start(seed):
        torch.manual_seed(rng.integers(1 << 30))
        barely = NetworkClassifier(epochs=1, lr=1e-9, weight_decay=0, patience=None, random_state=seed)
        return barely.fit(X, y).network_[0].weight.detach().numpy()

    assert np.allclose(start(3), start(3), atol=1e-6)
    assert not np.allclose(start(3), start(4), atol=1e-2)


# Saved and loaded.


@pytest.mark.parametrize("labels", [str, int, float, bool, object])
def test_a_saved_network_comes_back(blood, tmp_path, labels):
    X, y = blood(kinds=2)
    y = {str: y, object: y.astype(object), bool: y == y[0]}.get(labels, np.unique(y, return_inverse=True)[1] * 2)
    y = y.astype(labels) if labels in (int, float) else y
    model = NetworkClassifier(hidden=(8, 4), batch_norm=True, random_state=0, epochs=3).fit(X, y)
    genes = [f"GENE{i}" for i in range(300)]
    back = NetworkClassifier.load(model.save(tmp_path / "net", genes), genes)
    assert np.array_equal(back.predict_proba(X), model.predict_proba(X))
    assert back.classes_.dtype.kind == model.classes_.dtype.kind and (back.predict(X) == model.predict(X)).all()
    assert back.get_params() == model.get_params()
    assert sorted(p.name for p in (tmp_path / "net").iterdir()) == ["config.json", "genes.txt", "model.safetensors"]
