"""What can be added to a borrowed encoder: alignment, several tasks, two kinds of data, tuning, and reading it.

Small Keras 3 networks, so the same module runs on TensorFlow (the default), torch and JAX. Inputs are samples × genes,
logged. As in :mod:`shared.methods.autoencoder_transfer`, what an estimator remembers are plain arrays.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from keras import ops
from scipy.spatial.distance import cdist
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from shared.nn.keras_net import LayerwiseAdam, initial, keras, restart, run, train

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


def _classes(y):
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
        X = validate_data(self, X, dtype=np.float32)
        y = np.asarray(y)
        if len(y) != len(X):
            raise ValueError(f"X has {len(X)} rows and y {len(y)}")
        if self.method not in METHODS:
            raise ValueError(f"method={self.method!r} is not known: choose 'mmd', 'adversarial' or None")
        domain = np.ones(len(X)) if sample_domain is None else np.asarray(sample_domain)
        if domain.shape != (len(X),) or (domain == 0).any():
            raise ValueError("sample_domain holds one number a row: positive for the source, negative for the target")
        S, T = X[domain > 0], X[domain < 0]
        if not len(S):
            raise ValueError("no row is of the source: sample_domain must be positive for the labelled rows")
        self.classes_, target = _classes(y[domain > 0])
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
        X = validate_data(self, X, dtype=np.float32, reset=False)
        for W, b in self.layers_[:-1]:
            X = np.maximum(X @ W + b, 0)
        return X

    def predict(self, X):
        """The most probable class of each row."""
        W, b = self.layers_[-1]
        best = (self.transform(X) @ W + b).argmax(1)
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
        X = validate_data(self, X, dtype=np.float32)
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
        X = validate_data(self, X, dtype=np.float32, reset=False)
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
        X = validate_data(self, X, dtype=np.float32, ensure_all_finite="allow-nan")
        if not 0 < self.n_first < X.shape[1]:
            raise ValueError(f"n_first={self.n_first} of {X.shape[1]} columns leaves one block empty")
        self.classes_, target = _classes(y)
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
        X = validate_data(self, X, dtype=np.float32, ensure_all_finite="allow-nan", reset=False)
        with _BUSY:
            best = _run(self._net(), self.weights_, self._blocks(X)).argmax(1)
        return self.classes_[best]


# Reading a network.


def network(model) -> keras.Model:
    """The tuned network of an ``AutoencoderClassifier``: from scaled genes to logits."""
    check_is_fitted(model, "head_weights_")
    x = genes = keras.Input((model.n_features_in_,))
    widths = [W.shape[1] for W in model.encoder_weights_[::2]]
    net = keras.Model(genes, keras.layers.Dense(model.head_weights_[0].shape[1], name="head")(_dense(x, widths, "e")))
    net.set_weights([*model.encoder_weights_, *model.head_weights_])
    return net


def _gradient(net, X, output):
    """Gradient of one output with respect to the inputs, row by row."""
    back = keras.backend.backend()
    if back == "tensorflow":
        import tensorflow as tf

        X = tf.convert_to_tensor(X)
        with tf.GradientTape() as tape:
            tape.watch(X)
            total = ops.sum(net(X, training=False)[:, output])
        return tape.gradient(total, X).numpy()
    if back == "torch":
        X = ops.convert_to_tensor(X).detach().requires_grad_(True)
        net(X, training=False)[:, output].sum().backward()
        return X.grad.detach().cpu().numpy()
    import jax

    return np.asarray(jax.grad(lambda x: ops.sum(net(x, training=False)[:, output]))(ops.convert_to_tensor(X)))


def integrated_gradients(net, X, baseline=None, steps: int = 64, output: int = 0):
    """What each input adds to one output on the straight way from a baseline (Sundararajan and others 2017).

    Parameters
    ----------
    net : keras.Model
        From inputs to outputs.
    X : array of shape (n_samples, n_inputs)
        Rows to explain.
    baseline : array of shape (n_inputs,), optional
        Where the way starts; zeros without it, which for centred genes is the mean sample.
    steps : int
        Points on the way (midpoint rule).
    output : int
        Which output.

    Returns
    -------
    ndarray of shape (n_samples, n_inputs)
        Rows sum to the output's difference between row and baseline, up to the error of the steps.
    """
    X = check_array(X, dtype=np.float32)
    baseline = np.zeros(X.shape[1], np.float32) if baseline is None else np.asarray(baseline, np.float32)
    if baseline.shape != (X.shape[1],):
        raise ValueError(f"the baseline has shape {baseline.shape}: give one number for each of {X.shape[1]} inputs")
    if steps < 1:
        raise ValueError(f"steps={steps}: one or more points are needed")
    total, way = np.zeros_like(X), X - baseline
    at_once = max(1, 4096 // len(X))  # many points side by side: the gradient of one costs as much
    for begin in range(0, steps, at_once):
        share = (np.arange(begin, min(begin + at_once, steps), dtype=np.float32) + 0.5) / steps
        points = baseline + share[:, None, None] * way
        gradient = _gradient(net, points.reshape(-1, X.shape[1]).astype(np.float32), output)
        total += gradient.reshape(points.shape).sum(0)
    return way * total / steps


def enrichment(scores, genes: Sequence[str], gene_sets: Mapping[str, Sequence[str]], n_perm: int = 999, seed: int = 0):
    """Is the mean score of a gene set higher than that of random sets of its size?

    The null draws genes, so it asks whether these genes stand out among genes. Genes of one set move together, and
    with them their scores: p-values are then too small, which a model of shuffled labels shows.

    Parameters
    ----------
    scores : array of shape (n_genes,)
        One a gene.
    genes : sequence of str
        Their names.
    gene_sets : mapping of name to genes
        Genes that are not in `genes` are left out; a set with none left is dropped.
    n_perm : int
        Random sets.
    seed : int
        Of the draws.

    Returns
    -------
    DataFrame
        Indexed by set, by p-value: ``n`` genes found, ``mean`` score, ``z``, ``p`` (never 0) and ``q`` (Benjamini and
        Hochberg 1995).

    Raises
    ------
    ValueError
        If scores and genes do not fit, or no set has a gene in `genes`.
    """
    import pandas as pd
    from scipy.stats import false_discovery_control

    scores, place = np.asarray(scores, float), {g: i for i, g in enumerate(genes)}
    if scores.shape != (len(genes),) or len(place) != len(genes):
        raise ValueError(f"{scores.shape} scores for {len(genes)} genes of {len(place)} names: give one score a gene")
    found = {name: [place[g] for g in dict.fromkeys(members) if g in place] for name, members in gene_sets.items()}
    found = {name: rows for name, rows in found.items() if rows}
    if not found:
        raise ValueError("no set has a gene among the scores: are both named by symbol?")
    rng = np.random.default_rng(seed)
    order = np.argsort(rng.random((n_perm, len(scores))), axis=1)[:, : max(map(len, found.values()))]
    rows = {}
    for name, members in found.items():
        null, seen = scores[order[:, : len(members)]].mean(1), scores[members].mean()
        p = (1 + np.sum(null >= seen - 1e-12)) / (1 + n_perm)
        rows[name] = {"n": len(members), "mean": seen, "z": (seen - null.mean()) / max(null.std(), 1e-12), "p": p}
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("set")
    table["q"] = false_discovery_control(table["p"])
    return table.sort_values("p", kind="stable")


# A study that processes share.


def open_study(folder: str | Path, seed: int = 0):
    """The Optuna study in `folder`: a journal, which any number of processes on this machine can add to."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = str(Path(folder) / "journal.log")
    # The default lock is a symbolic link, which Windows gives to administrators only.
    lock = JournalFileOpenLock(path) if os.name == "nt" else None
    return optuna.create_study(
        storage=JournalStorage(JournalFileBackend(path, lock_obj=lock)),
        study_name="tuning",
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=5, constant_liar=True),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4),
        load_if_exists=True,
    )


def _objective(trial, X, y, settings):
    """Balanced accuracy over folds; after each fold the pruner may stop a trial that lags behind."""
    import optuna
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import StratifiedKFold

    from shared.methods.autoencoder_transfer import AutoencoderClassifier

    trial.set_user_attr("process", os.getpid())
    chosen = {
        "lr": trial.suggest_float("lr", 1e-5, 1e-1, log=True),
        "l2": trial.suggest_float("l2", 1e-5, 1e-1, log=True),
        "epochs": trial.suggest_int("epochs", 5, 20),
    }
    scores = []
    folds = StratifiedKFold(settings["folds"], shuffle=True, random_state=0)
    for i, (rows, rest) in enumerate(folds.split(X, y)):
        model = AutoencoderClassifier(**settings["model"], **chosen).fit(X[rows], y[rows])
        scores.append(balanced_accuracy_score(y[rest], model.predict(X[rest])))
        trial.report(float(np.mean(scores)), i)
        if i < settings["folds"] - 1 and trial.should_prune():
            raise optuna.TrialPruned
    return float(np.mean(scores))


def work(folder: str | Path, place: int = 0) -> None:
    """Add trials to the study in `folder` until it holds as many as were asked for: what each process runs."""
    from optuna.study import MaxTrialsCallback
    from optuna.trial import TrialState

    folder = Path(folder)
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    with np.load(folder / "data.npz") as data:
        X, y = data["X"], data["y"]
    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    # One process gives the same trials each time; another, or one that resumes, must not repeat the first draws.
    done = len(open_study(folder).get_trials(deepcopy=False))
    study = open_study(folder, settings["seed"] + 1000 * (done + place))
    if len(study.get_trials(deepcopy=False, states=ended)) < settings["n_trials"]:
        study.optimize(
            lambda t: _objective(t, X, y, settings), callbacks=[MaxTrialsCallback(settings["n_trials"], ended)]
        )


def join(folder: str | Path) -> None:
    """What each further process runs: say that it is there, then work."""
    import shared.methods.autoencoder_transfer  # noqa: F401  loaded before the others begin

    Path(folder, f"ready-{os.getpid()}").touch()
    work(folder, os.getpid())


def tune(folder: str | Path, X, y, n_trials: int, *, model=None, folds: int = 4, processes: int = 1, seed: int = 0):
    """Tune the step, the penalty and the length of training of an ``AutoencoderClassifier`` that starts from scratch.

    Called again on one folder it goes on where it stopped, with trials that ran to their end or were pruned counted
    in `n_trials`; several processes add to one study.

    Parameters
    ----------
    folder : path
        Where the journal lies; made if missing.
    X, y : arrays
        Labelled training samples. Never the test samples: the best of many trials is best partly by luck.
    n_trials : int
        Trials in all.
    model : dict, optional
        Settings that stay fixed.
    folds, processes, seed : int
        Of the inner cross-validation; at work on the study, this one included; of the samplers.

    Returns
    -------
    optuna.Study
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "data.npz", X=np.asarray(X, np.float32), y=np.asarray(y, str))
    settings = {"n_trials": int(n_trials), "model": model or {}, "folds": folds, "seed": seed}
    (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    study = open_study(folder, seed)  # made before the others look for it
    for sign in folder.glob("ready-*"):
        sign.unlink()
    code = f"from shared.methods.beyond_fine_tuning import join; join({str(folder)!r})"
    others = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) for _ in range(processes - 1)]
    try:
        # Libraries take seconds to load, and trials less: without this, one process would do all the work.
        while others and len(list(folder.glob("ready-*"))) < len(others) and all(o.poll() is None for o in others):
            time.sleep(0.05)
        work(folder)
    finally:
        for other in others:
            said = other.communicate()[1].decode(errors="replace")
            if other.returncode:
                raise RuntimeError(f"a process that shared the study ended with {other.returncode}:\n{said[-800:]}")
    return study
