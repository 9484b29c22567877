"""A classifier of two blocks of columns, the second of which may be missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache

import numpy as np
from sklearn.utils.validation import check_is_fitted

from shared.data.constraints import OneOf, SettingError, Share, Whole, Widths
from shared.data.errors import DataError
from shared.methods.base import Example, example_cells
from shared.methods.keras_method import KerasMethod, softmax
from shared.methods.protocols import Classifier
from shared.nn.keras_net import compiled, dense, keras, relu_layers

FUSIONS = ("early", "intermediate", "late")


@lru_cache(maxsize=8)
def fused_network(n_first, n_second, widths, fusion, classes):
    """Two blocks of columns; the last input column of each row says whether the second block was measured."""
    x = keras.Input((n_first + n_second + 1,))
    first, second, measured = x[:, :n_first], x[:, n_first:-1], x[:, -1:]
    head = keras.layers.Dense
    if fusion == "early":
        out = head(classes, name="head")(relu_layers(x, widths, "both"))
    else:
        a = relu_layers(first, widths, "first")
        b = keras.layers.Multiply()([relu_layers(second, widths, "second"), measured])
        if fusion == "intermediate":
            code = keras.layers.Concatenate()([a, b, measured])
            out = head(classes, name="head")(relu_layers(code, widths[-1:], "joint"))
        else:
            out = keras.layers.Add()([head(classes, name="head_first")(a), head(classes, name="head_second")(b)])
    return compiled(x, out, keras.losses.SparseCategoricalCrossentropy(from_logits=True))


@dataclass(eq=False, repr=False)
class TwoOmics(Classifier, KerasMethod):
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
        Share of training rows whose second block is set to zero, anew for each of four copies, so that the network
        learns to do without.
    epochs, batch_size, lr, progress, checkpoint, random_state
        Adam. A killed `fit` goes on from a file beside `checkpoint`.

    Attributes
    ----------
    classes_ : ndarray
        The classes, sorted.
    weights_ : list of ndarray
        Of the network.
    losses_ : list of float
        One an epoch.
    """

    constraints = KerasMethod.constraints | {
        "n_first": Whole(1),
        "fusion": OneOf(*FUSIONS),
        "hidden": Widths(),
        "missing": Share(),
    }
    expects = "any"
    allow_nan = True
    exempt = {"check_estimators_pickle": "puts NaN into some columns of a row, and a block is missing as a whole"}

    n_first: int
    _: KW_ONLY
    fusion: str = "intermediate"
    hidden: Sequence[int] = (32,)
    missing: float = 0.0
    epochs: int = 20
    lr: float = 3e-3

    @classmethod
    def example(cls):
        """A small problem to try it on."""
        return Example(cls(12, epochs=10, lr=1e-2, random_state=0), example_cells(), checked={"n_first": 1})

    def build(self, cells):
        """The network for these cells."""
        n = self.n_first
        return fused_network(n, cells.n_genes - n, tuple(self.hidden), self.fusion, cells.n_classes)

    def fit(self, X, y="cell_type", *, genes=None):
        """Learn from rows of both blocks side by side; see the class for missing ones."""
        cells, rng = self._read_labelled(X, y, genes=genes), self._rng()
        if self.n_first >= cells.n_genes:
            raise SettingError(f"n_first={self.n_first} leaves one block empty: X has {cells.n_genes} feature(s)")
        rows, codes, epochs = self._blocks(cells.X), cells.codes.astype(np.int32), self.epochs
        if self.missing:
            rows, codes, epochs = np.vstack([rows] * 4), np.tile(codes, 4), max(1, epochs // 4)  # as many steps
            rows[rng.uniform(size=len(rows)) < self.missing, self.n_first :] = 0
        return self.learn(cells, rng, rows, codes, epochs=epochs)

    def _blocks(self, X):
        """Rows with zeros for what was not measured, and a last column that says so."""
        X = dense(X)
        gone = np.isnan(X[:, self.n_first :])
        if np.isnan(X[:, : self.n_first]).any() or (gone.any(1) != gone.all(1)).any():
            raise DataError("a row's second block is missing as a whole or not at all, and the first never")
        return np.hstack([np.nan_to_num(X), ~gone.any(1, keepdims=True)]).astype(np.float32)

    def predict_proba(self, X, *, genes=None):
        """Probabilities, float32 (n_samples, n_classes), columns as in ``classes_``."""
        check_is_fitted(self, "weights_")
        X = self._blocks(self._read(X, genes=genes).X)
        return softmax(self.forward(self.build(self.outline()), self.weights_, X))
