"""Several tasks and two blocks: each against an oracle."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

pytest.importorskip("keras", reason="install the extra: pip install 'borrowed-strength[keras]'")

from shared.methods import beyond_fine_tuning as method
from shared.methods.beyond_fine_tuning import MultiTask, TwoOmics
from shared.nn.keras_net import keras

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
