"""What can be added to a borrowed encoder: alignment, several tasks, and two kinds of data.

Small Keras 3 networks, so the same module runs on TensorFlow (the default), torch and JAX. Inputs are samples × genes,
logged. As in :mod:`shared.methods.autoencoder_transfer`, what an estimator remembers are plain arrays.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_is_fitted

from shared.methods.inputs import rows_of
from shared.nn.keras_net import LayerwiseAdam, initial, keras, ops, restart, run, train

METHODS = ("mmd", "adversarial", None)
FUSIONS = ("early", "intermediate", "late")
WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)  # kernel widths, in units of the median distance
_BUSY = threading.RLock()  # networks of one shape are built once and lent out, one user at a time


def mmd2(x, y, widths: Sequence[float] | None = None, unbiased: bool = True) -> float:
    """Squared maximum mean discrepancy of two samples, with a mean of Gaussian kernels (Gretton and others 2012).

    Parameters
    ----------
    x, y : arrays of shape (n, p) and (m, p)
        Codes, or anything with distances.
    widths : sequence of float, optional
        Standard deviations of the kernels, in the units of the data. Without it, five around the median distance
        between all pairs (the median heuristic), so that the result does not depend on the scale of the codes.
    unbiased : bool
        Leave out each point's kernel with itself: the expected value is then 0 when both samples come from one
        distribution, and a single value can be negative.

    Raises
    ------
    ValueError
        If the columns differ, a sample has fewer than two rows, or a width is not positive.
    """
    x, y = (check_array(a, dtype=float, ensure_min_samples=2) for a in (x, y))
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"x has {x.shape[1]} columns and y {y.shape[1]}: compare codes of one encoder")
    both = np.vstack([x, y])
    squared = cdist(both, both, "sqeuclidean")
    if widths is None:
        apart = np.median(squared[np.triu_indices(len(both), 1)])
        widths = np.sqrt(apart if apart > 0 else 1.0) * np.array(WIDTHS)
    if not len(widths) or min(widths) <= 0:
        raise ValueError(f"widths={list(widths)} are standard deviations: give one or more, all above 0")
    kernel = np.mean([np.exp(-squared / (2 * w**2)) for w in widths], axis=0)
    n, m = len(x), len(y)
    xx, yy, xy = kernel[:n, :n], kernel[n:, n:], kernel[:n, n:]
    if not unbiased:
        return float(xx.mean() + yy.mean() - 2 * xy.mean())
    return float((xx.sum() - n) / (n * (n - 1)) + (yy.sum() - m) / (m * (m - 1)) - 2 * xy.mean())


class GradientReversal(keras.layers.Layer):
    """Pass numbers on unchanged and their gradient multiplied by minus `strength` (Ganin and others 2016)."""

    def __init__(self, strength=1.0, **kwargs):
        super().__init__(**kwargs)
        self.strength = self.add_weight(
            (), initializer=keras.initializers.Constant(strength), trainable=False, name="strength"
        )

    def call(self, x):
        return ops.stop_gradient((1 + self.strength) * x) - self.strength * x


class _Discrepancy(keras.layers.Layer):
    """Charge `strength` times the biased MMD² of two batches of codes; widths follow their median distance."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.strength = self.add_weight((), initializer="ones", trainable=False, name="strength")

    def call(self, inputs):
        x, y = inputs
        both = ops.concatenate([x, y])
        norms = ops.sum(both**2, axis=1)
        squared = ops.maximum(norms[:, None] + norms[None] - 2 * ops.matmul(both, ops.transpose(both)), 0.0)
        median = ops.stop_gradient(ops.median(squared)) + 1e-6
        kernel = sum(ops.exp(-squared / (2 * median * w**2)) for w in WIDTHS) / len(WIDTHS)
        sign = ops.concatenate([ops.ones_like(x[:, :1]), -ops.ones_like(y[:, :1])])
        n = ops.cast(ops.shape(x)[0], kernel.dtype)  # batches of both sides have one size
        self.add_loss(self.strength * ops.sum(kernel * sign * ops.transpose(sign)) / n**2)
        return x


class _Fooled(keras.layers.Layer):
    """Charge for telling the two domains apart, behind a reversed gradient: the encoder learns to make it hard."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.reverse = GradientReversal(name="reverse")
        self.hidden = keras.layers.Dense(units, activation="relu", name="hidden")
        self.judge = keras.layers.Dense(1, name="judge")

    @property
    def strength(self):
        return self.reverse.strength

    def build(self, shapes):
        width = shapes[0][-1]
        self.reverse.build((None, width))
        self.hidden.build((None, width))
        self.judge.build((None, self.hidden.units))
        self.built = True

    def call(self, inputs):
        x, y = inputs
        logit = self.judge(self.hidden(self.reverse(ops.concatenate([x, y]))))
        origin = ops.concatenate([ops.ones_like(x[:, :1]), ops.zeros_like(y[:, :1])])
        self.add_loss(ops.mean(ops.softplus(logit) - origin * logit))
        return x


def _dense(x, widths, name):
    for i, units in enumerate(widths):
        x = keras.layers.Dense(units, activation="relu", name=f"{name}_{i}")(x)
    return x


@lru_cache(maxsize=8)
def _aligned(n_genes, widths, method, classes):
    """Pairs of rows, side by side: the logits of the first, and a charge for how far the codes are apart."""
    pair = keras.Input((2 * n_genes,))
    layers = [keras.layers.Dense(u, activation="relu", name=f"encode_{i}") for i, u in enumerate(widths)]
    here, there = pair[:, :n_genes], pair[:, n_genes:]
    for layer in layers:
        here, there = layer(here), layer(there)
    extra = {"mmd": _Discrepancy, "adversarial": lambda **k: _Fooled(widths[-1], **k)}.get(method)
    if extra:
        here = extra(name="align")([here, there])
    net = keras.Model(pair, keras.layers.Dense(classes, name="head")(here))
    # Momentum makes two players circle each other and the codes fly apart, so against an adversary there is none.
    adam = LayerwiseAdam(beta_1=0.0) if method == "adversarial" else LayerwiseAdam()
    net.compile(adam, keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    return net


def _masked(y, predicted):
    """Squared error over the labels that were measured; the rest are NaN, and weigh nothing."""
    known = ops.isfinite(y)
    error = ops.where(known, predicted - ops.where(known, y, 0.0), 0.0)
    return ops.sum(error**2, axis=-1) / ops.cast(ops.shape(y)[-1], "float32")


@lru_cache(maxsize=8)
def _tasks(n_genes, widths, tasks):
    x = keras.Input((n_genes,))
    net = keras.Model(x, keras.layers.Dense(tasks, name="head")(_dense(x, widths, "encode")))
    net.compile(LayerwiseAdam(), _masked, jit_compile=False)
    return net


@lru_cache(maxsize=8)
def _fused(n_first, n_second, widths, fusion, classes):
    """Two blocks of columns; the last input column of each row says whether the second block was measured."""
    x = keras.Input((n_first + n_second + 1,))
    first, second, there = x[:, :n_first], x[:, n_first:-1], x[:, -1:]
    head = keras.layers.Dense
    if fusion == "early":
        out = head(classes, name="head")(_dense(x, widths, "both"))
    else:
        a = _dense(first, widths, "first")
        b = keras.layers.Multiply()([_dense(second, widths, "second"), there])
        if fusion == "intermediate":
            code = keras.layers.Concatenate()([a, b, there])
            out = head(classes, name="head")(_dense(code, widths[-1:], "joint"))
        else:
            out = keras.layers.Add()([head(classes, name="head_first")(a), head(classes, name="head_second")(b)])
    net = keras.Model(x, out)
    net.compile(LayerwiseAdam(), keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    return net


def _run(net, weights, X):
    """A network's output with `weights`."""
    net.set_weights(weights)
    return run(net, X)


class _Small(BaseEstimator):
    """A few layers, Adam, and numpy's order of rows: what the estimators share."""

    def _start(self, net, rng):
        """New weights; the last layer's are zeros, so that a network that has seen nothing says nothing."""
        first = initial([w.shape for w in net.get_weights()], rng)
        head = {id(w) for layer in net.layers if layer.name.startswith("head") for w in layer.weights}
        first = [w * 0 if id(v) in head else w for w, v in zip(first, net.weights, strict=True)]
        restart(net, first, self.lr, int(rng.randint(2**31)))

    def _widths(self):
        if not self.hidden or any(not isinstance(h, (int, np.integer)) or h < 1 for h in self.hidden):
            raise ValueError(f"hidden={self.hidden!r}: give one whole number from 1 up for each layer")
        return tuple(self.hidden)

    def _learn(self, net, X, y, rng):
        self._start(net, rng)
        self.losses_ = train(net, X, y, None, self.epochs, self.batch_size, rng)
        self.weights_ = net.get_weights()
        return self


def _classes(y, n):
    if len(y) != n:
        raise ValueError(f"X has {n} rows and y {len(y)}")
    if pd.isna(y).any():
        raise ValueError(f"{int(pd.isna(y).sum())} of the rows to learn from have no label: drop them first")
    check_classification_targets(y)
    classes, target = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"y holds one class only ({classes[0]}): a classifier needs two")
    return classes, target.astype(np.int32)


class Aligned(ClassifierMixin, _Small):
    """A classifier of the source whose code is held close to that of unlabelled target samples.

    Parameters
    ----------
    hidden : sequence of int
        Units of the layers; the last one is the code.
    method : {"mmd", "adversarial", None}
        Charge for the MMD² of the two codes, reverse the gradient of a network that tells them apart, or neither.
    strength : float
        Weight of the charge; about 1 for the MMD, less for an adversary. The adversary's grows over
        training: this times 2 / (1 + exp(-10 p)) - 1, where p is the share of epochs done.
    epochs, batch_size, lr, random_state
        Adam on the source's labels.

    Attributes
    ----------
    classes_, losses_
    layers_ : list of (kernel, bias)
        Encoder, then head.
    """

    def __init__(
        self, hidden=(32,), *, method="mmd", strength=1.0, epochs=30, batch_size=64, lr=1e-3, random_state=None
    ):
        self.hidden = hidden
        self.method = method
        self.strength = strength
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.random_state = random_state

    def fit(self, X, y, sample_domain=None):
        """Learn from labelled source rows and unlabelled target rows.

        Parameters
        ----------
        X : array of shape (n_samples, n_genes)
            Rows of both domains.
        y : array of shape (n_samples,)
            Labels; those of target rows are not looked at.
        sample_domain : array of int, optional
            Positive for source rows, negative for target rows. All are source without it, and nothing is aligned.

        Raises
        ------
        ValueError
            If a setting or a domain cannot be used, or the source has one class only.
        """
        X = rows_of(self, X, reset=True, accept_sparse=False)
        y = np.asarray(y)
        if len(y) != len(X):
            raise ValueError(f"X has {len(X)} rows and y {len(y)}")
        if self.method not in METHODS:
            raise ValueError(f"method={self.method!r} is not known: choose 'mmd', 'adversarial' or None")
        domain = np.ones(len(X)) if sample_domain is None else np.asarray(sample_domain, float)
        if domain.shape != (len(X),) or not (np.abs(domain) > 0).all():
            raise ValueError("sample_domain holds one number a row: positive for the source, negative for the target")
        S, T = X[domain > 0], X[domain < 0]
        if not len(S):
            raise ValueError("no row is of the source: sample_domain must be positive for the labelled rows")
        self.classes_, target = _classes(y[domain > 0], len(S))
        method = self.method if len(T) else None
        rng = check_random_state(self.random_state)
        with _BUSY:
            net = _aligned(X.shape[1], self._widths(), method, len(self.classes_))
            self._start(net, rng)
            net.optimizer.set_factors({"hidden": 3.0, "judge": 3.0})  # the judge must keep up
            self.losses_ = []
            for epoch in range(self.epochs):
                if method:
                    p = (epoch + 1) / self.epochs
                    ramp = 2 / (1 + np.exp(-10 * p)) - 1 if method == "adversarial" else 1.0
                    net.get_layer("align").strength.assign(self.strength * ramp)
                    again = np.concatenate([rng.permutation(len(T)) for _ in range(-(-len(S) // len(T)))])[: len(S)]
                    rows = np.hstack([S, T[again]])
                else:
                    rows = np.hstack([S, S])
                self.losses_ += train(net, rows, target, None, 1, self.batch_size, rng)
            names = [*(f"encode_{i}" for i in range(len(self.hidden))), "head"]
            self.layers_ = [net.get_layer(n).get_weights() for n in names]
        return self

    def transform(self, X):
        """Codes, float32 (n_samples, hidden[-1])."""
        check_is_fitted(self, "layers_")
        X = rows_of(self, X, reset=False, accept_sparse=False)
        for W, b in self.layers_[:-1]:
            X = np.maximum(X @ W + b, 0)
        return X

    def predict(self, X):
        """The most probable class of each row."""
        codes = self.transform(X)
        W, b = self.layers_[-1]
        best = (codes @ W + b).argmax(1)
        return self.classes_[best]


class MultiTask(RegressorMixin, _Small):
    """One trunk, one head for each task, and labels that may be missing.

    Parameters
    ----------
    hidden : sequence of int
        Units of the shared layers.
    epochs, batch_size, lr, random_state
        Adam on the squared error of the labels there are, each task standardised by its own.
    """

    def __init__(self, hidden=(64,), *, epochs=30, batch_size=32, lr=1e-3, random_state=None):
        self.hidden = hidden
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.random_state = random_state

    def fit(self, X, y):
        """Learn; `y` is (n_samples, n_tasks), NaN where a task was not measured. A task without labels is refused."""
        X = rows_of(self, X, reset=True, accept_sparse=False)
        y = check_array(y, dtype=float, ensure_2d=False, ensure_all_finite="allow-nan")
        self.one_task_ = y.ndim == 1
        y = y.reshape(len(y), -1)
        if len(y) != len(X):
            raise ValueError(f"X has {len(X)} rows and y {len(y)}")
        empty = np.flatnonzero(np.isfinite(y).sum(0) < 2)
        if len(empty):
            raise ValueError(f"task {empty[0]} has fewer than two labels: leave it out")
        self.centre_, spread = np.nanmean(y, 0), np.nanstd(y, 0)
        self.spread_ = np.where(spread > 0, spread, 1)
        rng = check_random_state(self.random_state)
        with _BUSY:
            net = _tasks(X.shape[1], self._widths(), y.shape[1])
            return self._learn(net, X, ((y - self.centre_) / self.spread_).astype(np.float32), rng)

    def predict(self, X):
        """Every task for every row, of the shape of `y`."""
        check_is_fitted(self, "weights_")
        X = rows_of(self, X, reset=False, accept_sparse=False)
        with _BUSY:
            net = _tasks(X.shape[1], self._widths(), len(self.centre_))
            y = _run(net, self.weights_, X) * self.spread_ + self.centre_
        return y[:, 0] if self.one_task_ else y


class TwoOmics(ClassifierMixin, _Small):
    """A classifier of two blocks of columns, the second of which may be missing for some rows.

    Parameters
    ----------
    n_first : int
        Columns of the first block; the rest are the second. A row whose second block is NaN was not measured there.
    fusion : {"early", "intermediate", "late"}
        Join the columns, the codes, or the logits.
    hidden : sequence of int
        Units of each block's encoder.
    missing : float
        Share of training rows whose second block is hidden, anew for each of four copies, so that the network
        learns to do without.
    epochs, batch_size, lr, random_state
        Adam.
    """

    def __init__(
        self, n_first, *, fusion="intermediate", hidden=(32,), missing=0.0, epochs=20, batch_size=32, lr=3e-3,
        random_state=None,
    ):  # fmt: skip
        self.n_first = n_first
        self.fusion = fusion
        self.hidden = hidden
        self.missing = missing
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.random_state = random_state

    def fit(self, X, y):
        """Learn from rows of both blocks side by side; see the class for missing ones."""
        if self.fusion not in FUSIONS:
            raise ValueError(f"fusion={self.fusion!r} is not known: choose {', '.join(FUSIONS)}")
        if not 0 <= self.missing < 1:
            raise ValueError(f"missing={self.missing!r} is a share: from 0 up to, but not, 1")
        X = rows_of(self, X, reset=True, accept_sparse=False, ensure_all_finite="allow-nan")
        if not 0 < self.n_first < X.shape[1]:
            raise ValueError(f"n_first={self.n_first} of {X.shape[1]} columns leaves one block empty")
        self.classes_, target = _classes(np.asarray(y), len(X))
        rng = check_random_state(self.random_state)
        X = self._blocks(X)
        if self.missing:
            copies = np.vstack([X] * 4)
            hide = rng.uniform(size=len(copies)) < self.missing
            copies[hide, self.n_first :] = 0
            X, target = copies, np.tile(target, 4)
        with _BUSY:
            epochs = max(1, self.epochs // 4) if self.missing else self.epochs  # as many steps
            net = self._net()
            self._start(net, rng)
            self.losses_ = train(net, X, target, None, epochs, self.batch_size, rng)
            self.weights_ = net.get_weights()
        return self

    def _net(self):
        n = self.n_first
        return _fused(n, self.n_features_in_ - n, self._widths(), self.fusion, len(self.classes_))

    def _blocks(self, X):
        """Rows with zeros for what was not measured, and a last column that says so."""
        gone = np.isnan(X[:, self.n_first :])
        if np.isnan(X[:, : self.n_first]).any() or (gone.any(1) != gone.all(1)).any():
            raise ValueError("a row's second block is missing as a whole or not at all, and the first never")
        return np.hstack([np.nan_to_num(X), ~gone.any(1, keepdims=True)]).astype(np.float32)

    def predict(self, X):
        """The most probable class of each row."""
        check_is_fitted(self, "weights_")
        X = rows_of(self, X, reset=False, accept_sparse=False, ensure_all_finite="allow-nan")
        with _BUSY:
            best = _run(self._net(), self.weights_, self._blocks(X)).argmax(1)
        return self.classes_[best]
