"""What the Keras networks of this book share: scaling, Adam with a learning rate per layer, training by batches.

Importing this module loads Keras: on TensorFlow, where that is absent on torch, or on what ``KERAS_BACKEND`` names.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
from dataclasses import dataclass

from shared import load_triton

# ruff: noqa: E402  what follows must be said before Keras loads
# Keras reads the choice of back end once, when it is imported.
os.environ.setdefault("KERAS_BACKEND", "tensorflow" if importlib.util.find_spec("tensorflow") else "torch")
load_triton()

import keras
import numpy as np
from keras import ops
from scipy import sparse

from shared.data.validate.structure import matrix_of

BLOCK = 2**24  # bytes of rows handed to the framework at once


if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    # TensorFlow does not read OMP_NUM_THREADS; on a shared machine it should.
    if os.environ.get("OMP_NUM_THREADS", "").isdecimal():
        with contextlib.suppress(RuntimeError):  # already running with other settings: they stay
            tf.config.threading.set_intra_op_parallelism_threads(int(os.environ["OMP_NUM_THREADS"]))
            tf.config.threading.set_inter_op_parallelism_threads(1)


class Sample(keras.layers.Layer):
    """Draw a code from its mean and log variance, and penalise its divergence from a standard normal.

    The penalty, `weight` times the Kullback-Leibler divergence, is the second term of the variational autoencoder's
    loss (Kingma and Welling 2014, equation 10). Outside training it passes the mean on.
    """

    def __init__(self, weight, **kwargs):
        super().__init__(**kwargs)
        self.weight = weight
        self.seed_generator = keras.random.SeedGenerator(0)

    def call(self, inputs, training=False):
        mean, log_var = inputs
        divergence = ops.sum(ops.exp(log_var) + mean**2 - 1 - log_var, axis=1) / 2
        self.add_loss(self.weight * ops.mean(divergence))
        if not training:
            return mean
        return mean + ops.exp(log_var / 2) * keras.random.normal(ops.shape(mean), seed=self.seed_generator)


class LayerwiseAdam(keras.optimizers.Adam):
    """Adam with a factor on the learning rate of every variable: 0 freezes it, 1 leaves it alone.

    Factors can change while training goes on, so that freezing, gradual unfreezing and discriminative learning rates
    are one compiled function (Howard and Ruder 2018, sections 3.2 and 3.3).
    """

    def build(self, variables):
        """Add one factor for each variable."""
        if self.built:
            return
        super().build(variables)
        self.factors = self.add_variable((len(variables),), initializer="ones", name="factors")
        self.layers = [v.path.split("/")[-2] for v in variables]

    def update_step(self, gradient, variable, learning_rate):
        """One step of one variable."""
        factor = self.factors[self._get_variable_index(variable)]
        super().update_step(gradient, variable, learning_rate * ops.cast(factor, variable.dtype))

    def set_factors(self, factors):
        """Set factors by the name of the layer; a layer that is not named keeps 1."""
        self.factors.assign(np.array([factors.get(layer, 1.0) for layer in self.layers], np.float32))


class Head(keras.layers.Dense):
    """A Dense layer whose penalty on the squared weights is a number it holds, the last of its weights.

    As an argument of the layer the penalty would be part of the compiled function, and each value that a search tries
    would be compiled anew.
    """

    def build(self, shape):
        """Kernel, bias, and the penalty."""
        super().build(shape)
        self.l2 = self.add_weight((), initializer="zeros", trainable=False, name="l2")

    def call(self, inputs):
        """Outputs, with the penalty added to the loss."""
        self.add_loss(self.l2 * ops.sum(self.kernel**2))
        return super().call(inputs)


@dataclass(eq=False)
class Scale:
    """Centre and spread of each gene, which scaling subtracts and divides by.

    Attributes
    ----------
    kind : {"standard", "centre", "unit", None}
        Genes to mean 0 and deviation 1, to mean 0, to 0..1 (values beyond are clipped), or as they are.
    centre, spread : float32 ndarray of shape (n_genes,)
    """

    kind: str | None
    centre: np.ndarray
    spread: np.ndarray

    @classmethod
    def fit(cls, X, kind):
        """The scale of the rows of `X`, dense or sparse, (n_samples, n_genes).

        A gene that does not vary keeps its spread of 1 and so becomes 0. Spreads below a hundredth of the median
        spread are raised to it: a gene that is almost constant in the source would otherwise become a spike in the
        target.
        """
        X = X.toarray() if sparse.issparse(X) else X
        centre, spread = np.zeros(X.shape[1], np.float32), np.ones(X.shape[1], np.float32)
        if kind is not None:
            centre = (X.min(0) if kind == "unit" else X.mean(0)).astype(np.float32)
        if kind in ("standard", "unit"):
            found = (X.std(0) if kind == "standard" else np.ptp(X, axis=0)).astype(np.float32)
            least = np.median(found[found > 0]) / 100 if (found > 0).any() else 1
            spread = np.where(found > 0, np.maximum(found, least), 1).astype(np.float32)
        return cls(kind, centre, spread)

    def __call__(self, X):
        """Scaled rows, float32; ``"unit"`` clips to 0..1."""
        X = (dense(X) - self.centre) / self.spread
        return np.clip(X, 0, 1) if self.kind == "unit" else X


def relu_layers(x, widths, name):
    """Dense layers with ReLU on the Keras tensor `x`, called ``name_0``, ``name_1``, ...; the last one's output."""
    for i, units in enumerate(widths):
        x = keras.layers.Dense(units, activation="relu", name=f"{name}_{i}")(x)
    return x


def compiled(inputs, outputs, loss, jit=False):
    """The network from `inputs` to `outputs`, ready for :func:`train`."""
    net = keras.Model(inputs, outputs)
    net.compile(LayerwiseAdam(), loss, jit_compile=jit)
    return net


def restart(net, weights, lr, seed):
    """Give a network weights, an optimizer without a past, and noise from `seed`: as if it had just been built."""
    optimizer = net.optimizer
    optimizer.build(net.trainable_variables)
    if not hasattr(net, "compiled_start"):
        net.compiled_start = _start(net)
    net.compiled_start(*weights)
    optimizer.learning_rate = lr
    optimizer.set_factors({})
    for layer in net._flatten_layers():
        generator = getattr(layer, "seed_generator", None)
        if generator is not None:
            generator.state.assign(np.array([seed, 0], generator.state.dtype))


def _start(net):
    """What sets a network's weights and forgets all its optimizer knew; compiled on TensorFlow, like :func:`_steps`."""

    def start(*weights):
        for variable, weight in zip(net.weights, weights, strict=True):
            variable.assign(weight)
        for variable in net.optimizer.variables:
            variable.assign(ops.zeros(variable.shape, variable.dtype))

    if keras.backend.backend() != "tensorflow":
        return start
    return tf.function(start, [tf.TensorSpec(w.shape, w.dtype) for w in net.weights], autograph=False)


def train(net, X, y, weight, epochs, batch_size, rng, progress=False, said="training", kept=None):
    """Passes over the rows in an order drawn by numpy, so that every back end sees the same batches.

    Batches differ by one row at most: no last batch of a few rows. Many batches are handed over at once, because the
    way from Python into the framework takes longer than a small network's arithmetic.

    `kept` is what an earlier, killed run kept of its progress, with ``ahead()`` (batches it has done that this one has
    not), ``recall(net, n)`` and ``keep(net, losses, write)``, where `write` is true after an epoch: of batches done
    only the order of the rows is drawn again.

    Returns
    -------
    list of float
        Mean loss of each epoch.

    Raises
    ------
    FloatingPointError
        If a loss is not finite.
    """
    from tqdm.auto import tqdm

    n, start = X.shape[0], 0
    parts = max(1, -(-n // batch_size))
    sizes = [len(rows) for rows in np.array_split(range(n), parts)]
    batches = (rows for _ in range(epochs) for rows in np.array_split(rng.permutation(n), parts))
    at_once = max(1, BLOCK // (4 * X.shape[1] * sizes[0]))
    losses, steps = np.zeros(epochs * parts), _steps(net)
    with tqdm(total=len(losses), desc=said, disable=not progress, leave=False, unit="batch") as bar:
        while start < len(losses):
            known = kept.ahead() if kept else 0
            most = parts - start % parts if kept else at_once  # a checkpoint is written where an epoch ends
            some = list(itertools.islice(batches, min(at_once, most, known or most)))
            done = losses[: start + len(some)]
            if known:
                done[start:] = kept.recall(net, len(some))
            else:
                rows = np.concatenate(some)
                block = [dense(X[rows]), *(part[rows] for part in (y, weight) if part is not None)]
                done[start:] = steps(np.cumsum([0, *map(len, some)], dtype=np.int32), *block)
            if not np.isfinite(done).all():
                first = np.flatnonzero(~np.isfinite(done))[0]
                raise FloatingPointError(
                    f"the loss is {done[first]} after {first // parts + 1} epochs: lower lr, or scale the genes"
                )
            if kept and not known:
                kept.keep(net, done[start:], write=len(done) % parts == 0)
            start = len(done)
            bar.update(len(some))
    return (losses.reshape(epochs, parts) @ sizes / n).tolist()


def _steps(net):
    """What trains a compiled network on the batches of a block, one after another, and returns the loss before each.

    A block is inputs, or inputs and targets, or these and weights; `ends` says where its batches begin and end. On
    TensorFlow the loop over batches is part of what is compiled, whatever their size.
    """

    def keras_steps(ends, *block):
        losses = []
        for a, b in itertools.pairwise(ends):
            some = [part[a:b] for part in block]
            net.reset_metrics()  # versions of Keras differ in how they average over batches, so each is read alone
            losses.append(float(net.train_on_batch(*(some if len(some) > 1 else 2 * some))))
        return losses

    if keras.backend.backend() != "tensorflow":
        return keras_steps

    def one(x, y=None, weight=None):
        with tf.GradientTape() as tape:
            loss = net.compute_loss(x, x if y is None else y, net(x, training=True), weight)
        net.optimizer.apply(tape.gradient(loss, net.trainable_variables), net.trainable_variables)
        return loss

    def steps(ends, *block):
        shapes = tuple((part.dtype, part.shape[1:]) for part in block)
        if getattr(net, "compiled_steps", (None,))[0] != shapes:
            any_rows = [tf.TensorSpec((None, *shape), dtype) for dtype, shape in shapes]
            step = tf.function(one, any_rows, jit_compile=True, autograph=False) if net.jit_compile else one

            def loop(ends, *block):
                def body(i, losses):
                    return i + 1, losses.write(i, step(*(part[ends[i] : ends[i + 1]] for part in block)))

                count = tf.shape(ends)[0] - 1
                start = (0, tf.TensorArray(tf.float32, count))
                return tf.while_loop(lambda i, _: i < count, body, start, parallel_iterations=1)[1].stack()

            of_ends = tf.TensorSpec((None,), tf.int32)
            net.compiled_steps = shapes, tf.function(loop, [of_ends, *any_rows], autograph=False)
        return net.compiled_steps[1](ends, *block).numpy()

    return steps


def dense(X):
    X = matrix_of(X)
    return np.ascontiguousarray(X.toarray() if sparse.issparse(X) else X, dtype=np.float32)


def initial(shapes, rng):
    """Glorot's uniform kernels and zero biases, drawn by numpy: the same start on every back end."""
    return [
        (rng.uniform(-1, 1, s) * np.sqrt(6 / sum(s))).astype(np.float32) if len(s) == 2 else np.zeros(s, np.float32)
        for s in shapes
    ]


def run(net, X):
    """A network's answer on rows, a thousand at a time."""
    parts = [net(X[i : i + 1024], training=False) for i in range(0, len(X), 1024)]
    return np.concatenate([ops.convert_to_numpy(p) for p in parts])
