"""Training by blocks of batches: the same as batch by batch, whatever the back end, and nothing left from before."""

import os
import subprocess
import sys

import numpy as np
import pytest
from scipy import sparse

pytest.importorskip("keras", reason="install the extra: pip install 'borrowed-strength[keras]'")

from shared.nn import keras_net
from shared.nn.keras_net import LayerwiseAdam, keras

rng = np.random.default_rng(0)
X = rng.normal(size=(71, 12)).astype(np.float32)
Y = rng.normal(size=(71, 1)).astype(np.float32)
WEIGHT = np.linspace(0.5, 2, 71).astype(np.float32)


def made(outputs=1, noise=0.0, jit=False):
    genes = x = keras.Input((12,))
    x = keras.layers.Dropout(noise, seed=0)(x) if noise else x
    x = keras.layers.Dense(5, activation="relu", name="code")(x)
    net = keras.Model(genes, keras.layers.Dense(outputs, name="head")(x))
    net.compile(LayerwiseAdam(), "mse", jit_compile=jit)
    return net


def begin(net, seed=0):
    first = keras_net.initial([w.shape for w in net.get_weights()], np.random.default_rng(seed))
    keras_net.restart(net, first, 1e-2, seed)
    return net


def trained(net, *rest, X=X, epochs=3, batch=20):
    losses = keras_net.train(net, X, *rest, epochs, batch, np.random.RandomState(3))
    return [np.array(losses), *net.get_weights()]


def alike(first, second, atol=1e-5):
    return all(np.allclose(a, b, atol=atol) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("rest", "jit"),
    [((None, None), False), ((Y, None), False), ((Y, WEIGHT), False), ((Y, WEIGHT), True)],
    ids=["itself", "targets", "weights", "jit"],
)
def test_a_block_does_what_keras_does_batch_by_batch(rest, jit):
    if jit and keras.backend.backend() != "tensorflow":
        pytest.skip("the loop is compiled for TensorFlow only")
    y, weight = rest
    net = begin(made(12 if y is None else 1, jit=jit))
    ours = trained(net, *rest)
    net, order, losses = begin(made(12 if y is None else 1)), np.random.RandomState(3), []
    for _ in range(3):
        total = 0.0
        for rows in np.array_split(order.permutation(71), 4):
            net.reset_metrics()
            some = () if weight is None else (weight[rows],)
            total += float(net.train_on_batch(X[rows], (X if y is None else y)[rows], *some)) * len(rows)
        losses.append(total / 71)
    assert alike(ours, [np.array(losses), *net.get_weights()])


@pytest.mark.parametrize("noise", [0.0, 0.4])
def test_the_size_of_a_block_changes_nothing(monkeypatch, noise):
    net = made(noise=noise)
    whole = trained(begin(net), Y, WEIGHT)
    for size in (1, 4 * 12 * 18 * 3):
        monkeypatch.setattr(keras_net, "BLOCK", size)
        assert alike(whole, trained(begin(net), Y, WEIGHT), 0)


def test_a_restart_forgets_everything():
    net = made(noise=0.4)
    first = trained(begin(net), Y, None)
    net.optimizer.set_factors({"code": 0.0})
    assert alike(first, trained(begin(net), Y, None), 0)
    assert not alike(first, trained(begin(net, 1), Y, None))


def test_one_function_takes_batches_of_any_size():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("the loop is compiled for TensorFlow only")
    net = begin(made())
    for batch in (7, 20, 71, 200):
        trained(net, Y, WEIGHT, batch=batch)
    keras_net.train(net, X[:9], Y[:9], WEIGHT[:9], 1, 4, np.random.RandomState(0))
    assert net.compiled_steps[1].experimental_get_tracing_count() == 1
    begin(begin(net))
    assert net.compiled_start.experimental_get_tracing_count() == 1


def test_rows_may_be_sparse():
    thin = np.maximum(X, 0)
    net = made()
    assert alike(trained(begin(net), Y, None, X=thin), trained(begin(net), Y, None, X=sparse.csr_matrix(thin)), 0)


def test_a_loss_that_is_not_finite_names_its_epoch():
    net = begin(made())
    y = Y.copy()
    with pytest.raises(FloatingPointError, match="after 1 epochs: lower lr"):
        trained(net, y * np.nan, None)
    keras_net.restart(net, [np.full(w.shape, 1e18, np.float32) for w in net.get_weights()], 1e-2, 0)
    with pytest.raises(FloatingPointError, match=r"the loss is (inf|nan) after"):
        trained(net, Y, None)


def test_a_bar_counts_batches(capsys):
    keras_net.train(begin(made()), X, Y, None, 2, 20, np.random.RandomState(0), progress=True, said="tumours")
    said = capsys.readouterr().err
    assert "tumours" in said and "/8 " in said


@pytest.mark.parametrize(("absent", "chosen"), [("None", "torch"), ("os", "tensorflow")])
def test_keras_is_told_to_run_on_what_is_installed(root, absent, chosen):
    """Before it is imported, which a stand-in keeps from happening: what is asked is the choice alone."""
    code = f"import os, sys; sys.modules.update(keras=None, tensorflow={absent})\n"
    code += "try:\n    import shared.nn.keras_net\nexcept ImportError:\n    print(os.environ['KERAS_BACKEND'])"
    env = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"} | {"PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout.strip() == chosen, done.stderr[-600:]
