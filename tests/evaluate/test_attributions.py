"""Attributions against captum and their own sum; enrichment against its null."""

import os
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("keras", reason="install the extra: pip install 'borrowed-strength[keras]'")

from shared.evaluate.attributions import enrichment, integrated_gradients, tuned_network
from shared.methods.autoencoder_transfer import AutoencoderClassifier
from shared.nn.keras_net import keras


@pytest.fixture(scope="module")
def tuned():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 80)
    X = rng.normal(size=(240, 12)).astype(np.float32)
    X[:, 0] += 4 * (y == 1)  # one column decides for each of two classes
    X[:, 6] += 4 * (y == 2)
    y = np.array(["a", "b", "c"])[y]
    return AutoencoderClassifier((16,), 8, epochs=15, lr=1e-2, scaling="centre", random_state=0).fit(X, y), X


def test_attributions_add_up(tuned):
    model, X = tuned
    X, net = X[::12], tuned_network(model)
    scaled = model.tuned_scale_(X)
    logits = keras.ops.convert_to_numpy(net(scaled))
    assert np.allclose(logits, model.decision_function(X), atol=1e-4)
    at_mean = keras.ops.convert_to_numpy(net(np.zeros_like(X[:1])))
    for output in range(3):
        given = integrated_gradients(net, scaled, steps=300, output=output)
        assert np.allclose(given.sum(1), (logits - at_mean)[:, output], atol=0.02)


def test_attributions_equal_captum(tuned):
    torch = pytest.importorskip("torch")
    attr = pytest.importorskip("captum.attr", reason="install the extra: pip install 'borrowed-strength[explain]'")
    model, X = tuned
    layers = []
    weights = [*model.encoder_weights_, *model.head_weights_]
    for W, b in zip(weights[::2], weights[1::2], strict=True):
        dense = torch.nn.Linear(*W.shape)
        dense.weight.data, dense.bias.data = torch.tensor(W.T), torch.tensor(b)
        layers += [dense, torch.nn.ReLU()]
    peer = attr.IntegratedGradients(torch.nn.Sequential(*layers[:-1]))
    scaled = torch.tensor(model.tuned_scale_(X))
    theirs = peer.attribute(scaled, target=2, n_steps=128, method="riemann_middle").numpy()
    ours = integrated_gradients(tuned_network(model), scaled.numpy(), steps=128, output=2)
    assert np.allclose(ours, theirs, atol=1e-4)


def test_attributions_find_the_columns_that_decide(tuned):
    model, X = tuned
    given = integrated_gradients(tuned_network(model), model.tuned_scale_(X), output=1)
    assert np.abs(given).mean(0).argmax() == 0
    with pytest.raises(ValueError, match="one number for each of 12"):
        integrated_gradients(tuned_network(model), X, baseline=np.zeros(3))


# Enrichment.

GENES = [f"g{i}" for i in range(200)]


def test_enrichment_finds_the_set_that_was_raised():
    scores = np.random.default_rng(0).normal(size=200)
    scores[:10] += 3
    sets = {"raised": GENES[:10], "not": GENES[50:60], "unknown": ["x"], "partly": [*GENES[5:8], "x"]}
    table = enrichment(scores, GENES, sets)
    assert table.index[0] == "raised" and "unknown" not in table.index
    assert table.loc["raised", "p"] == 1 / 1000 and table.loc["partly", "n"] == 3
    assert table.loc["not", "p"] > 0.05
    assert (table["q"] >= table["p"]).all()
    assert enrichment(scores, GENES, sets).equals(table)


def test_enrichment_is_uniform_under_its_null():
    rng = np.random.default_rng(1)
    sets = {f"s{i}": rng.choice(GENES, 12, replace=False) for i in range(400)}
    p = enrichment(rng.normal(size=200), GENES, sets)["p"]
    assert 0.02 < (p < 0.05).mean() < 0.09
    assert 0.42 < p.mean() < 0.58


def test_enrichment_refuses():
    with pytest.raises(ValueError, match="by symbol"):
        enrichment(np.ones(200), GENES, {"a": ["ENSG1"]})
    with pytest.raises(ValueError, match="one score a gene"):
        enrichment(np.ones(3), GENES, {"a": GENES})
    with pytest.raises(ValueError, match="1 scores are NaN or infinite"):
        enrichment(np.where(np.arange(200) == 3, np.nan, 1.0), GENES, {"a": GENES[:5]})


def test_scores_that_are_all_alike_make_no_set_stand_out():
    assert (enrichment(np.full(200, 0.1), GENES, {"a": GENES[:7], "b": GENES[:3]})["p"] == 1).all()


GRADIENT = """
import numpy as np
from shared.evaluate.attributions import gradient, integrated_gradients
from shared.nn.keras_net import keras
net = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
net.set_weights([np.arange(6.0).reshape(3, 2), np.zeros(2)])
assert gradient(net, np.ones((4, 3), np.float32), 1).tolist() == [[1, 3, 5]] * 4
keras.utils.set_random_seed(0)
net, X = keras.Sequential([net, keras.layers.Dense(9, "relu"), keras.layers.Dense(2)]), np.eye(3, dtype=np.float32)
given = integrated_gradients(net, X, steps=500, output=1).sum(1)
assert np.allclose(given, keras.ops.convert_to_numpy(net(X) - net(0 * X))[:, 1], atol=2e-3), given
"""


@pytest.mark.nightly
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_gradients_are_the_same_on_every_back_end(backend, root):
    pytest.importorskip(backend)
    env = os.environ | {"KERAS_BACKEND": backend, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", GRADIENT], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
