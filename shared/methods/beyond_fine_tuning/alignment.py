"""Alignment: the codes of source and target are held close, so that a classifier of the one serves the other.

Matching distributions is only right where the shares of the classes are equal; see the chapter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache

import numpy as np
from scipy.spatial.distance import cdist
from sklearn.utils.validation import check_array, check_is_fitted

from shared.data.cells import digest
from shared.data.constraints import NotNegative, OneOf, SettingError, Widths
from shared.data.errors import DataError
from shared.data.validate.structure import matrix_of
from shared.methods.base import Example, example_cells
from shared.methods.keras_method import KerasMethod, softmax
from shared.methods.protocols import Classifier, DomainAware, Transformer
from shared.nn.keras_net import LayerwiseAdam, compiled, dense, keras, ops

WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)  # kernel widths, in units of the median distance


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
    x, y = (check_array(matrix_of(a, name), dtype=float, ensure_min_samples=2) for name, a in (("x", x), ("y", y)))
    if x.shape[1] != y.shape[1]:
        raise DataError(f"x has {x.shape[1]} columns and y {y.shape[1]}: compare codes of one encoder")
    both = np.vstack([x, y])
    squared = cdist(both, both, "sqeuclidean")
    if widths is None:
        apart = np.median(squared[np.triu_indices(len(both), 1)])
        widths = np.sqrt(apart if apart > 0 else 1.0) * np.array(WIDTHS)
    if not len(widths) or min(widths) <= 0:
        raise SettingError(f"widths={list(widths)} are standard deviations: give one or more, all above 0")
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


class Discrepancy(keras.layers.Layer):
    """Penalise `strength` times the biased MMD² of two batches of codes; widths follow their median distance."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.strength = self.add_weight((), initializer="ones", trainable=False, name="strength")

    def call(self, inputs):
        """The first codes, unchanged."""
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


class DomainClassifier(keras.layers.Layer):
    """Tell the two domains apart, behind a reversed gradient: the encoder learns to make it hard.

    The loss is the cross-entropy of the domains (Ganin and others 2016, equation 9), with one hidden layer.
    """

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.reverse = GradientReversal(name="reverse")
        self.hidden = keras.layers.Dense(units, activation="relu", name="hidden")
        self.logit = keras.layers.Dense(1, name="logit")

    @property
    def strength(self):
        """Weight of the reversed gradient, a variable."""
        return self.reverse.strength

    def call(self, inputs):
        """The first codes, unchanged."""
        x, y = inputs
        logit = self.logit(self.hidden(self.reverse(ops.concatenate([x, y]))))
        origin = ops.concatenate([ops.ones_like(x[:, :1]), ops.zeros_like(y[:, :1])])
        self.add_loss(ops.mean(ops.softplus(logit) - origin * logit))
        return x


@lru_cache(maxsize=8)
def aligned_network(n_genes, widths, method, classes):
    """From pairs of rows, side by side, to the logits of the first, with a penalty on how far the codes are apart."""
    pair = keras.Input((2 * n_genes,))
    layers = [keras.layers.Dense(u, activation="relu", name=f"encode_{i}") for i, u in enumerate(widths)]
    first, second = pair[:, :n_genes], pair[:, n_genes:]
    for layer in layers:
        first, second = layer(first), layer(second)
    extra = {"mmd": Discrepancy, "adversarial": lambda **k: DomainClassifier(widths[-1], **k)}.get(method)
    if extra:
        first = extra(name="align")([first, second])
    logits = keras.layers.Dense(classes, name="head")(first)
    # Momentum makes two players circle each other and the codes fly apart, so against an adversary there is none.
    adam = LayerwiseAdam(beta_1=0.0) if method == "adversarial" else LayerwiseAdam()
    return compiled(pair, logits, keras.losses.SparseCategoricalCrossentropy(from_logits=True), optimizer=adam)


@dataclass(eq=False, repr=False)
class Aligned(DomainAware, Classifier, Transformer, KerasMethod):
    """A classifier of the source whose code is held close to that of unlabelled target samples.

    Parameters
    ----------
    hidden : sequence of int
        Units of the layers; the last one is the code.
    method : {"mmd", "adversarial", None}
        Penalise the MMD² of the two codes, reverse the gradient of a network that tells them apart, or neither.
    strength : float
        Weight of the penalty; about 1 for the MMD, less for an adversary. The adversary's grows over training: this
        times 2 / (1 + exp(-10 p)) - 1, where p is the share of epochs done (Ganin and others 2016, section 5.2.2).
    epochs, batch_size, lr, progress, checkpoint, random_state
        Adam on the source's labels. A killed `fit` goes on from a file beside `checkpoint`.

    Attributes
    ----------
    classes_, losses_
    layers_ : list of (kernel, bias)
        Encoder, then head.
    """

    constraints = KerasMethod.constraints | {
        "hidden": Widths(),
        "method": OneOf("mmd", "adversarial", None),
        "strength": NotNegative(),
    }

    hidden: Sequence[int] = (32,)
    _: KW_ONLY
    method: str | None = "mmd"
    strength: float = 1.0
    batch_size: int = 64

    @classmethod
    def example(cls):
        """A small problem to try it on."""
        cells, model = example_cells(), cls((16,), epochs=10, lr=1e-2, random_state=0)
        return Example(model, cells, fit={"sample_domain": cells.obs["domain"].to_numpy()}, checked={"epochs": 60})

    def build(self, source, target):
        """The network for labelled source and unlabelled target cells; without target cells nothing is aligned."""
        method = self.method if len(target) else None
        return aligned_network(source.n_genes, tuple(self.hidden), method, source.n_classes)

    def fit(self, X, y="cell_type", sample_domain=None, *, genes=None):
        """Learn from labelled source rows and unlabelled target rows.

        Parameters
        ----------
        X : array, CSR, DataFrame or AnnData of shape (n_samples, n_genes)
            Rows of both domains.
        y : array of shape (n_samples,), or str
            Labels; those of target rows are not looked at. Of an AnnData also the name of a column of ``obs``.
        sample_domain : array of int, or str, optional
            Positive for source rows, negative for target rows. All are source without it, and nothing is aligned.
        genes : sequence of str, optional
            Names of the columns, where `X` has none.

        Raises
        ------
        ValueError
            If a setting or a domain cannot be used, or the source has one class only.
        """
        source, target = self._read_domains(X, y, sample_domain, genes=genes)
        S, T, codes = dense(source.X), dense(target.X), source.codes.astype(np.int32)
        rng, net = self._rng(), self.build(source, target)

        def schedule():
            net.optimizer.set_factors({"hidden": 3.0, "logit": 3.0})  # the domain classifier must keep up
            for epoch in range(self.epochs):
                other = S
                if self.method and len(T):
                    p = (epoch + 1) / self.epochs
                    ramp = 2 / (1 + np.exp(-10 * p)) - 1 if self.method == "adversarial" else 1.0
                    net.get_layer("align").strength.assign(self.strength * ramp)
                    other = T[np.concatenate([rng.permutation(len(T)) for _ in range(-(-len(S) // len(T)))])[: len(S)]]
                yield np.hstack([S, other]), codes, None, 1

        first = self.new_weights(net, rng)
        kept = self._checkpoint_of_fit(source, target, seed=digest(first))
        self.losses_, weights = self.train(net, first, schedule(), rng, checkpoint=kept)
        # The network is shared with other fits, which may have changed it by now: its weights are those returned.
        at = {id(variable): weight for variable, weight in zip(net.weights, weights, strict=True)}
        names = [*(f"encode_{i}" for i in range(len(self.hidden))), "head"]
        self.layers_ = [[at[id(variable)] for variable in net.get_layer(name).weights] for name in names]
        return self

    @property
    def _n_features_out(self):
        return self.layers_[-1][0].shape[0]

    def transform(self, X, *, genes=None):
        """Codes, float32 (n_samples, hidden[-1])."""
        check_is_fitted(self, "layers_")
        X = dense(self._read(X, genes=genes).X)
        for W, b in self.layers_[:-1]:
            X = np.maximum(X @ W + b, 0)
        return X

    def predict_proba(self, X, *, genes=None):
        """Probabilities, float32 (n_samples, n_classes), columns as in ``classes_``."""
        codes = np.asarray(self.transform(X, genes=genes))
        W, b = self.layers_[-1]
        return softmax(codes @ W + b)
