"""Methods whose network is a Keras model: building, training, predicting and resuming, written once. No torch here.

A method says what its network is (:meth:`KerasMethod.build`). What a fitted estimator remembers are plain arrays, so it
can be cloned, sent to another process and saved on any back end of Keras (TensorFlow by default; torch or JAX with
``KERAS_BACKEND``).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save
from scipy import special

from shared.data.cells import Cells, Outline, digest
from shared.data.constraints import Positive, Whole
from shared.methods.base import TransferEstimator
from shared.nn.keras_net import dense, initial, keras, restart, run, train
from shared.train.saved import CURE, replace_file
from shared.train.settings import TrainingError

BUSY = threading.RLock()  # a network of one shape is built once and shared, by one user at a time


@dataclass(eq=False, repr=False)
class KerasMethod(TransferEstimator):
    """A method whose network is a Keras model; what it learned are lists of ndarray, as ``weights_``.

    Parameters
    ----------
    epochs, batch_size, lr
        Of Adam; a method that wants other defaults sets them anew.
    progress : bool
        Show bars.
    checkpoint : path, optional
        A killed `fit` goes on from a file beside it, a killed `pretrain` from the file itself.
    random_state : int, RandomState or None
        Initial weights, order of rows, dropout.
    """

    constraints = {"epochs": Whole(1), "batch_size": Whole(1), "lr": Positive()}
    exempt = dict.fromkeys(
        ("check_methods_sample_order_invariance", "check_methods_subset_invariance"),
        "float32 products differ in the last digit with a row's place in a batch",
    )

    _: KW_ONLY
    epochs: int = 30
    batch_size: int = 32
    lr: float = 1e-3
    progress: bool = False
    checkpoint: str | Path | None = None
    random_state: int | None = None

    def build(self, *cells: Cells | Outline) -> keras.Model:
        """The compiled network for these cells; sizes come from ``cells.n_genes``, ``n_classes``, ...

        Compiling takes seconds, so a method keeps compiled networks by their sizes (``functools.lru_cache``).
        """
        raise NotImplementedError

    def new_weights(self, net: keras.Model, rng: np.random.RandomState) -> list[np.ndarray]:
        """First weights from `rng`; those of layers called ``head...`` are zero: an untrained network prefers nothing.

        Others are Glorot's uniform numbers, and zero for biases (Glorot and Bengio 2010, equation 16).
        """
        head = {id(w) for layer in net.layers if layer.name.startswith("head") for w in layer.weights}
        first = initial([w.shape for w in net.weights], rng)
        return [w * 0 if id(v) in head else w for w, v in zip(first, net.weights, strict=True)]

    def train(
        self, net, weights, stages: Iterable[tuple], rng, *, lr=None, batch_size=None, said="training",
        checkpoint=None, run_of=None,
    ) -> tuple[list[float], list[np.ndarray]]:  # fmt: skip
        """Train `net` from `weights` by :func:`shared.nn.keras_net.train`, with this estimator's settings.

        Parameters
        ----------
        net : keras.Model
            Compiled with :class:`shared.nn.keras_net.LayerwiseAdam`, which starts without a past.
        weights : list of ndarray
            One for each of ``net.weights``.
        stages : iterable of (X, y, weight, epochs)
            What is trained on, one stage after another. A generator can change the network or the factors of the
            learning rates between two of them.
        rng : RandomState
            Order of the rows, dropout.
        lr, batch_size : optional
            In place of the estimator's.
        said : str
            Title of the progress bar.
        checkpoint : path, optional
            Written after each epoch; a killed run goes on from it. It is removed at the end unless `run_of` is given.
        run_of : tuple, optional
            What makes the run what it is beside `weights`: arrays, and what has a ``repr``. A file of another run is
            refused; the file of a finished run stays, and gives its weights at once.

        Returns
        -------
        losses : list of float
            Mean loss of each epoch.
        weights : list of ndarray

        Raises
        ------
        FloatingPointError
            If the loss is no longer finite.
        shared.train.settings.TrainingError
            If `checkpoint` cannot be used.
        """
        lr, size = lr or self.lr, batch_size or self.batch_size
        kept, losses = None, []
        if checkpoint is not None:
            kept = Kept(checkpoint, keras.backend.backend(), lr, size, *weights, *(run_of or ()))
        with BUSY:
            restart(net, weights, lr, int(rng.randint(2**31)))
            for X, y, weight, epochs in stages:
                losses += train(net, X, y, weight, epochs, size, rng, self.progress, said, kept)
            weights = net.get_weights()
        if kept and not run_of:
            kept.path.unlink(missing_ok=True)
        return losses, weights

    def learn(self, cells: Cells, rng, X, y, *, epochs=None):
        """Train the network for `cells` from new weights on the rows `X`: sets ``weights_`` and ``losses_``."""
        net, stage = self.build(cells), (X, y, None, epochs or self.epochs)
        first = self.new_weights(net, rng)
        kept = self._checkpoint_of_fit(cells, seed=digest(first))
        self.losses_, self.weights_ = self.train(net, first, [stage], rng, checkpoint=kept)
        return self

    def forward(self, net: keras.Model, weights: list[np.ndarray], X) -> np.ndarray:
        """What `net` with `weights` gives for the rows of `X`, a thousand at a time: float32 ndarray."""
        with BUSY:
            net.set_weights(weights)
            return run(net, dense(X))

    def outline(self) -> Outline:
        """Sizes of the cells it was fitted on, to build its network again."""
        classes, outputs = getattr(self, "classes_", None), len(getattr(self, "y_mean_", "1"))
        return Outline(self.n_features_in_, classes=classes, n_outputs=outputs)


class Kept:
    """How far a run came, in a file: the loss of every batch, and the variables of network, optimizer and dropout.

    A run that finds its file goes over its batches again without computing them, so that all that is drawn comes out
    as in a run that was not killed, and takes the variables as they were after the last one.

    Parameters
    ----------
    path : path
    *run_of
        What makes the run what it is: arrays, and what has a ``repr``.
    """

    def __init__(self, path, *run_of):
        self.path, self.done, self.losses = Path(path), 0, np.empty(0)
        self.run = np.frombuffer(digest(run_of).encode(), np.uint8)
        if self.path.is_file():
            try:
                self.state = load(self.path.read_bytes())
            except SafetensorError as error:
                raise TrainingError(f"{path} is damaged or no checkpoint ({error}): {CURE}") from error
            if not np.array_equal(self.state.pop("run", None), self.run):
                raise TrainingError(
                    f"{path} is a checkpoint of another run (other data, settings or random_state): {CURE}"
                )
            self.losses = self.state.pop("losses")

    def ahead(self) -> int:
        """How many batches the file has that this run has not yet gone over."""
        return len(self.losses) - self.done

    def recall(self, net, n: int) -> np.ndarray:
        """Losses of the next `n` batches; with the last of them `net` becomes what it was."""
        self.done += n
        if not self.ahead():
            for name, variable in _variables(net).items():
                variable.assign(self.state[name])
        return self.losses[self.done - n : self.done]

    def keep(self, net, losses: np.ndarray, write: bool) -> None:
        """Keep the losses of the batches just done, and `write` the file, in one step."""
        self.losses = np.append(self.losses, losses)
        self.done = len(self.losses)
        if write:
            arrays = {name: keras.ops.convert_to_numpy(v) for name, v in _variables(net).items()}
            replace_file(self.path, save(arrays | {"run": self.run, "losses": self.losses}))


def _variables(net):
    """All that a step changes: weights, the states of noise, and the optimizer's variables."""
    return {str(i): v for i, v in enumerate([*net.variables, *net.optimizer.variables])}


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (n_cells, n_classes) of logits; one column of logits is that of the second of two classes."""
    if logits.shape[1] == 1:
        logits = np.hstack([np.zeros_like(logits), logits])
    return special.softmax(logits, axis=1)
