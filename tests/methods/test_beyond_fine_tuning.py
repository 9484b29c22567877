"""Alignment, several tasks and two blocks: each against an oracle."""

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.metrics import balanced_accuracy_score

pytest.importorskip("keras", reason="install the extra: pip install 'borrowed-strength[keras]'")

from shared.methods import beyond_fine_tuning as method
from shared.methods.beyond_fine_tuning import (
    Aligned,
    GradientReversal,
    MultiTask,
    TwoOmics,
    mmd2,
)
from shared.nn.keras_net import keras

# Maximum mean discrepancy.


def by_loops(x, y, width, unbiased):
    def k(a, b):
        return np.exp(-np.sum((a - b) ** 2) / (2 * width**2))

    def within(z):
        pairs = [(i, j) for i in range(len(z)) for j in range(len(z)) if i != j or not unbiased]
        return np.mean([k(z[i], z[j]) for i, j in pairs])

    return within(x) + within(y) - 2 * np.mean([k(a, b) for a in x for b in y])


@pytest.fixture
def clouds():
    rng = np.random.default_rng(0)
    return rng.normal(size=(15, 3)), rng.normal(size=(11, 3)) + 1


@pytest.mark.parametrize("unbiased", [True, False])
def test_mmd_is_what_loops_make_of_it(clouds, unbiased):
    x, y = clouds
    expected = np.mean([by_loops(x, y, w, unbiased) for w in (0.5, 2.0)])
    assert mmd2(x, y, widths=[0.5, 2.0], unbiased=unbiased) == pytest.approx(expected, abs=1e-12)


def test_mmd_does_not_depend_on_scale_without_widths(clouds):
    x, y = clouds
    assert mmd2(100 * x, 100 * y) == pytest.approx(mmd2(x, y))
    assert mmd2(x, y) > 0.1


def test_mmd_is_zero_on_average_for_one_distribution():
    rng = np.random.default_rng(0)
    values = [mmd2(rng.normal(size=(20, 2)), rng.normal(size=(20, 2))) for _ in range(200)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(200)
    biased = [mmd2(rng.normal(size=(20, 2)), rng.normal(size=(20, 2)), unbiased=False) for _ in range(50)]
    assert min(biased) > 0


def test_mmd_equals_skada(clouds):
    """The same estimator; skada's own kernel takes distances without squaring them, so it is given ours."""
    pytest.importorskip("skorch", reason="skada measures a discrepancy with skorch only: install the extra peers")
    torch = pytest.importorskip("torch")
    losses = pytest.importorskip("skada.deep.losses")
    x, y = map(torch.tensor, clouds)

    def kernel(a, b):
        return sum(torch.exp(-(torch.cdist(a, b) ** 2) / (2 * w**2)) for w in (0.5, 2.0)) / 2

    theirs = float(losses._maximum_mean_discrepancy(x, y, kernel))
    assert mmd2(*clouds, widths=[0.5, 2.0], unbiased=False) == pytest.approx(theirs, rel=1e-9)


def test_the_penalty_in_training_is_the_same_number(clouds):
    x, y = (a[:10].astype(np.float32) for a in clouds)
    layer = method.Discrepancy()
    layer([x, y])
    both = np.vstack([x, y])
    squared = ((both[:, None] - both[None]) ** 2).sum(-1)
    widths = np.sqrt(np.median(squared) + 1e-6) * np.array(method.WIDTHS)
    expected = mmd2(x, y, widths=widths, unbiased=False)
    assert float(keras.ops.convert_to_numpy(layer.losses[0])) == pytest.approx(expected, abs=1e-5)


def test_mmd_refuses(clouds):
    x, y = clouds
    with pytest.raises(ValueError, match="one encoder"):
        mmd2(x, y[:, :2])
    with pytest.raises(ValueError, match="above 0"):
        mmd2(x, y, widths=[0.0])


# Reversal, on every back end.

REVERSED = """
import numpy as np
from shared.evaluate.attributions import gradient, integrated_gradients
from shared.methods.beyond_fine_tuning import GradientReversal, keras
x = keras.Input((3,))
layer = GradientReversal(0.7)
net = keras.Model(x, keras.layers.Dense(2, name="out", use_bias=False)(layer(x)))
W = np.arange(6, dtype=np.float32).reshape(3, 2)
net.set_weights([np.float32(0.7), W] if net.weights[0].shape == () else [W, np.float32(0.7)])
X = np.array([[1, 2, 3], [-1, 0, 5]], np.float32)
assert np.allclose(keras.ops.convert_to_numpy(net(X)), X @ W), "the way forward must not change"
assert np.allclose(gradient(net, X, 1), -0.7 * W[:, 1]), gradient(net, X, 1)
layer.strength.assign(0.0)
assert np.allclose(gradient(net, X, 1), 0)
keras.utils.set_random_seed(0)
plain = keras.Sequential([keras.Input((3,)), keras.layers.Dense(9, "relu"), keras.layers.Dense(2)])
given = integrated_gradients(plain, X, steps=500, output=1).sum(1)
out = keras.ops.convert_to_numpy(plain(X) - plain(0 * X))[:, 1]
assert np.allclose(given, out, atol=2e-3), (given, out)
"""


@pytest.mark.parametrize(
    "back_end",
    ["tensorflow", pytest.param("torch", marks=pytest.mark.nightly), pytest.param("jax", marks=pytest.mark.nightly)],
)
def test_gradients_on_every_back_end(back_end):
    pytest.importorskip(back_end)
    env = {**os.environ, "KERAS_BACKEND": back_end}
    done = subprocess.run([sys.executable, "-c", REVERSED], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-600:]


def test_strength_can_change():
    layer = GradientReversal(0.5)
    assert float(keras.ops.convert_to_numpy(layer.strength)) == 0.5
    assert not layer.trainable_weights


# Alignment.


@pytest.fixture(scope="module")
def toy():
    """Two classes along two columns; the target moved so far that the source's boundary cuts through it."""
    rng = np.random.default_rng(0)
    y = np.tile([0, 1], 150)
    S = rng.normal(size=(300, 6)) * 0.5
    S[:, 0] += 3 * y
    T = rng.normal(size=(300, 6)) * 0.5
    T[:, 0] += 3 * y
    T[:, :2] += [2.0, 2.0]
    domain = np.repeat([1, -1], 300)
    return np.vstack([S, T]).astype(np.float32), np.tile(np.array(["a", "b"])[y], 2), domain


def on_target(toy, **settings):
    X, y, domain = toy
    model = Aligned((16,), random_state=0, **settings)
    hidden = np.where(domain > 0, y, "unknown")
    called = model.fit(X, hidden, domain).predict(X[domain < 0])
    return balanced_accuracy_score(y[domain < 0], called), model


def test_alignment_recovers_what_the_shift_cost(toy):
    plain, bare = on_target(toy, method=None)
    mmd, near = on_target(toy, method="mmd", strength=5.0, epochs=40, lr=3e-3)
    fooled, _ = on_target(toy, method="adversarial", epochs=60, lr=3e-3)
    assert plain < 0.7, "the toy shift does not hurt: the test tests nothing"
    assert mmd > 0.9
    assert fooled > 0.9
    X, _, domain = toy
    codes = [mmd2(m.transform(X[domain > 0]), m.transform(X[domain < 0])) for m in (bare, near)]
    assert codes[1] < codes[0] / 5


def test_skada_recovers_it_too(toy):
    skada = pytest.importorskip("skada", reason="install the extra: pip install 'borrowed-strength[peers]'")
    from sklearn.linear_model import LogisticRegression

    X, y, domain = toy
    masked = np.where(domain > 0, (y == "b").astype(int), -1)
    model = skada.OTMapping(base_estimator=LogisticRegression())
    called = model.fit(X.astype(float), masked, sample_domain=domain).predict(
        X[domain < 0].astype(float), sample_domain=domain[domain < 0], allow_source=True
    )
    assert balanced_accuracy_score(y[domain < 0] == "b", called == 1) > 0.95


def test_target_labels_are_not_looked_at(toy):
    X, y, domain = toy
    a = Aligned((8,), epochs=2, random_state=0).fit(X, y, domain)
    b = Aligned((8,), epochs=2, random_state=0).fit(X, np.where(domain > 0, y, "z"), domain)
    assert np.array_equal(a.layers_[0][0], b.layers_[0][0])


def test_aligned_refuses(toy):
    X, y, domain = toy
    with pytest.raises(ValueError, match="choose mmd"):
        Aligned(method="coral").fit(X, y, domain)
    with pytest.raises(ValueError, match="positive for source"):
        Aligned().fit(X, y, domain * 0)
    with pytest.raises(ValueError, match="one class"):
        Aligned().fit(X, np.where(domain > 0, "a", "b"), domain)
    with pytest.raises(ValueError, match="whole number"):
        Aligned((0,)).fit(X, y, domain)
    with pytest.raises(ValueError, match="positive for source"):
        Aligned().fit(X, y, np.where(np.arange(len(y)) == 3, np.nan, domain))
    with pytest.raises(NotFittedError):
        Aligned().predict(X)
    for label in (None, np.nan, pd.NA):
        holed = y.astype(object)
        holed[3] = label
        with pytest.raises(ValueError, match="no label for 1 of 300 cells"):
            Aligned().fit(X, holed, domain)
    holed = np.where(domain > 0, y.astype(object), None)  # the target's are not looked at
    Aligned((4,), epochs=1).fit(X, holed, domain)


# Several tasks.


@pytest.fixture(scope="module")
def tasks():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 10)).astype(np.float32)
    signal = X[:, 0] + X[:, 1]
    Y = np.column_stack([5 + 2 * signal, -signal, signal]) + 0.3 * rng.normal(size=(200, 3))
    return X, Y


def test_missing_labels_weigh_nothing(tasks):
    X, Y = tasks
    gaps = Y.copy()
    gaps[50:, 0] = np.nan
    settings = {"hidden": (8,), "epochs": 5, "random_state": 0}
    model = MultiTask(**settings).fit(X[:150], gaps[:150])
    assert np.isfinite(model.predict(X)).all()
    y = np.array([[1.0, np.nan], [np.nan, np.nan], [2.0, 0.0]], np.float32)
    p = np.array([[3.0, 9.0], [7.0, 7.0], [2.0, 4.0]], np.float32)
    assert keras.ops.convert_to_numpy(method.masked_error(y, p)).tolist() == [2.0, 0.0, 8.0]


def test_relatives_help_a_task_with_few_labels(tasks):
    X, Y = tasks
    gaps = Y.copy()
    gaps[8:, 0] = np.nan
    settings = {"hidden": (32,), "epochs": 60, "batch_size": 16, "random_state": 0, "lr": 3e-3}
    together = MultiTask(**settings).fit(X[:100], gaps[:100]).predict(X[100:])
    alone = MultiTask(**settings).fit(X[:8], Y[:8, 0]).predict(X[100:])
    assert together.shape == (100, 3) and alone.shape == (100,)
    r = [np.corrcoef(Y[100:, 0], p)[0, 1] for p in (together[:, 0], alone)]
    assert r[0] > 0.85 and r[0] > r[1] + 0.05
    assert abs(together[:, 0].mean() - 5) < 1.5  # in the units that were given


def test_multitask_refuses(tasks):
    X, Y = tasks
    with pytest.raises(ValueError, match="output 1 has fewer than two measured values"):
        MultiTask().fit(X, np.where([True, False, True], Y, np.nan))


# Two blocks.


@pytest.fixture(scope="module")
def blocks():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 80)
    first, second = rng.normal(size=(2, 240, 6))
    first[:, 0] += 4 * (y == 1)  # each block tells one class from the other two
    second[:, 0] += 4 * (y == 2)
    return np.hstack([first, second]).astype(np.float32), np.array(["a", "b", "c"])[y]


@pytest.mark.parametrize("fusion", method.FUSIONS)
def test_two_blocks_know_more_than_one(blocks, fusion):
    X, y = blocks
    model = TwoOmics(6, fusion=fusion, hidden=(16,), missing=0.3, random_state=0, lr=1e-2)
    model.fit(X[::2], y[::2])
    whole = balanced_accuracy_score(y[1::2], model.predict(X[1::2]))
    bare = X[1::2].copy()
    bare[:, 6:] = np.nan
    called = model.predict(bare)
    assert whole > 0.9
    assert balanced_accuracy_score(y[1::2], called) < whole - 0.1
    assert np.mean(called[y[1::2] == "b"] == "b") > 0.8  # what the first block knows is still known


def test_blocks_are_missing_as_a_whole(blocks):
    X, y = blocks
    torn = X.copy()
    torn[0, -1] = np.nan
    with pytest.raises(ValueError, match="as a whole"):
        TwoOmics(6).fit(torn, y)
    with pytest.raises(ValueError, match="one block empty"):
        TwoOmics(12).fit(X, y)
    with pytest.raises(ValueError, match="choose early"):
        TwoOmics(6, fusion="middle").fit(X, y)
    with pytest.raises(ValueError, match="continuous"):
        TwoOmics(6).fit(X, X[:, 0])
    with pytest.raises(ValueError, match=r"\[240, 239\]"):
        TwoOmics(6).fit(X, y[1:])
    with pytest.raises(ValueError, match="no label"):
        TwoOmics(6).fit(X, np.where(y == "a", None, y))


def test_hiding_a_block_in_training_teaches_to_do_without():
    rng = np.random.default_rng(0)
    y = np.tile([0, 1], 100)
    X = rng.normal(size=(200, 8)).astype(np.float32)
    X[:, 0] += 3 * y
    X[:, 4:] += 3 * y[:, None]  # the second block is so good that the first is not needed
    X[:, 4:] -= 1.5
    bare = X.copy()
    bare[:, 4:] = np.nan
    settings = {"fusion": "early", "hidden": (8,), "epochs": 40, "random_state": 0, "lr": 1e-2}
    scores = [np.mean(TwoOmics(4, missing=m, **settings).fit(X, y).predict(bare) == y) for m in (0.0, 0.5)]
    assert scores[1] > 0.85 and scores[1] > scores[0] + 0.03
