"""One trunk, one head for each task, and labels that may be missing (Caruana 1997)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from sklearn.utils.validation import check_is_fitted

from shared.data.constraints import Widths
from shared.methods.base import Example, example_cells
from shared.methods.keras_method import KerasMethod
from shared.methods.protocols import Regressor
from shared.nn.keras_net import compiled, dense, keras, ops, relu_layers


def masked_error(y, predicted):
    """Squared error over the labels that were measured, (n_samples,); the rest are NaN, and weigh nothing."""
    known = ops.isfinite(y)
    error = ops.where(known, predicted - ops.where(known, y, 0.0), 0.0)
    return ops.sum(error**2, axis=-1) / ops.cast(ops.shape(y)[-1], "float32")


@lru_cache(maxsize=8)
def multitask_network(n_genes, widths, tasks):
    """Shared layers with ReLU, and one output for each task."""
    x = keras.Input((n_genes,))
    return compiled(x, keras.layers.Dense(tasks, name="head")(relu_layers(x, widths, "encode")), masked_error)


@dataclass(eq=False, repr=False)
class MultiTask(Regressor, KerasMethod):
    """One trunk, one head for each task, and labels that may be missing.

    Parameters
    ----------
    hidden : sequence of int
        Units of the shared layers.
    epochs, batch_size, lr, progress, checkpoint, random_state
        Adam on the squared error of the labels there are, each task standardised by its own. A killed `fit` goes on
        from a file beside `checkpoint`.

    Attributes
    ----------
    weights_ : list of ndarray
        Kernel and bias of each layer.
    losses_ : list of float
        One an epoch.
    """

    constraints = KerasMethod.constraints | {"hidden": Widths()}
    allow_nan = "y"

    hidden: Sequence[int] = (64,)

    @classmethod
    def example(cls):
        """A small problem to try it on."""
        model = cls((16,), epochs=10, lr=1e-2, random_state=0)
        return Example(model, example_cells(), "measured", checked={"epochs": 60})

    def build(self, cells):
        """The network for these cells."""
        return multitask_network(cells.n_genes, tuple(self.hidden), cells.n_outputs)

    def fit(self, X, y, *, genes=None):
        """Learn; `y` is (n_samples, n_tasks), NaN where a task was not measured. A task without labels is refused."""
        cells, target = self._read_numbers(X, y, genes=genes)
        return self.learn(cells, self._rng(), dense(cells.X), target)

    def predict(self, X, *, genes=None):
        """Every task for every row, of the shape of `y`."""
        check_is_fitted(self, "weights_")
        X = self._read(X, genes=genes).X
        return self._numbers(self.forward(self.build(self.outline()), self.weights_, X))
