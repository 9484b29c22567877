"""The network as an estimator: what it learns, when it stops, and that it comes back from a folder."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from shared.methods.network_classifier import NetworkClassifier, _hold_out
from shared.train import TrainingError


@pytest.fixture(scope="module")
def fitted(blood):
    """A network fitted once, and its cells."""
    X, y = blood()
    return NetworkClassifier(random_state=0, epochs=15).fit(X, y), X, y


@parametrize_with_checks([NetworkClassifier(epochs=25, lr=1e-2, patience=None, random_state=0)])
def test_network_keeps_sklearns_contract(estimator, check):
    check(estimator)


def test_network_learns_and_gives_probabilities(blood, fitted):
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
    kept, held = _hold_out(target, 0.1, np.random.RandomState(0))
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
def test_settings_that_cannot_be_used_are_refused(blood, options, said):
    with pytest.raises(TrainingError, match=said):
        NetworkClassifier(**options).fit(*blood(per_type=2))


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


def test_a_random_state_object_is_not_saved(blood, tmp_path):
    X, y = blood(per_type=2)
    model = NetworkClassifier(random_state=np.random.RandomState(0), epochs=1).fit(X, y)
    model.save(tmp_path, map(str, range(300)))
    assert json.loads((tmp_path / "config.json").read_text())["config"]["settings"]["random_state"] is None
