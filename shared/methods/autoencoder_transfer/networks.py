"""Autoencoders in Keras, their encoder with a head on it, and which layers move while it is fine-tuned."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from shared.nn.keras_net import Head, Sample, compiled, keras, relu_layers

TUNING = ("frozen", "full", "gradual", "discriminative")


def autoencoder(n_genes: int, hidden: Sequence[int] = (1024,), code: int = 256, output: str = "linear") -> keras.Model:
    """Genes to a short code and back: Dense layers with ReLU, mirrored.

    Parameters
    ----------
    n_genes : int
        Inputs and outputs.
    hidden : sequence of int
        Units between genes and code; the decoder has them in reverse.
    code : int
        Units of the code, the layer named ``"code"``.
    output : {"linear", "sigmoid"}
        Sigmoid for genes scaled to 0..1; it cannot give a negative number, so standardised genes need linear.
    """
    genes = x = keras.Input((n_genes,))
    for i, units in enumerate(hidden):
        x = keras.layers.Dense(units, activation="relu", name=f"encode_{i}")(x)
    x = keras.layers.Dense(code, activation="relu", name="code")(x)
    for i, units in enumerate(reversed(hidden)):
        x = keras.layers.Dense(units, activation="relu", name=f"decode_{i}")(x)
    return keras.Model(genes, keras.layers.Dense(n_genes, activation=output, name="genes")(x))


def variational_autoencoder(n_genes, hidden=(1024,), code=256, output="linear", beta=1.0):
    """As :func:`autoencoder`, with a code drawn from a normal distribution; ``"code"`` is then its mean, without ReLU.

    The divergence is weighted ``beta / n_genes``, because the reconstruction error is a mean over genes.
    """
    genes = keras.Input((n_genes,))
    x = relu_layers(genes, hidden, "encode")
    mean = keras.layers.Dense(code, name="code")(x)
    log_var = keras.layers.Dense(code, name="spread")(x)
    x = relu_layers(Sample(beta / n_genes, name="sample")([mean, log_var]), reversed(hidden), "decode")
    return keras.Model(genes, keras.layers.Dense(n_genes, activation=output, name="genes")(x))


@lru_cache(maxsize=4)
def compiled_autoencoder(n_genes, hidden, code, output, noise, variational, beta, jit):
    """A compiled autoencoder, and the same without noise; ``noise`` sets that share of the inputs to zero in training.

    Both have the weights of encoder and decoder, in this order.
    """
    make = variational_autoencoder if variational else autoencoder
    whole = make(n_genes, hidden, code, output, **({"beta": beta} if variational else {}))
    clean = keras.Input((n_genes,))
    return compiled(clean, whole(keras.layers.Dropout(noise, seed=0, name="noise")(clean)), "mse", jit), whole


@lru_cache(maxsize=8)
def compiled_encoder(n_genes, hidden, code, linear_code, outputs, task, jit):
    """Encoder and head as one compiled network; with no `hidden` and no `code` the head alone, on codes.

    `task` names the loss: ``"binary"`` and ``"classes"`` are cross-entropies, ``"numbers"`` is the squared error.
    """
    genes = keras.Input((n_genes,))
    x = relu_layers(genes, hidden, "encode")
    if code:
        x = keras.layers.Dense(code, activation=None if linear_code else "relu", name="code")(x)
    loss = {
        "binary": keras.losses.BinaryCrossentropy(from_logits=True),
        "classes": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "numbers": keras.losses.MeanSquaredError(),
    }[task]
    return compiled(genes, Head(outputs, name="head")(x), loss, jit)


def stages(tuning: str, n_hidden: int, epochs: int, decay: float) -> list[tuple[dict[str, float], int]]:
    """What moves, and for how many epochs: factors on the learning rate by layer, one dict a stage.

    Parameters
    ----------
    tuning : {"frozen", "full", "gradual", "discriminative"}
        The head alone (on codes), all layers, one more at a time from the top, or all with smaller learning rates
        below (Howard and Ruder 2018, sections 3.2 and 3.3).
    n_hidden : int
        Layers between genes and code.
    epochs : int
        Of all stages together.
    decay : float
        Ratio of the learning rates of two neighbouring layers, for ``"discriminative"``.
    """
    layers = [*(f"encode_{i}" for i in range(n_hidden)), "code"]
    if tuning == "discriminative":
        return [({n: decay ** (i - len(layers)) for i, n in enumerate(layers)}, epochs)]
    if tuning != "gradual":
        return [({}, epochs)]
    closed = [dict.fromkeys(layers[:n], 0.0) for n in range(len(layers), -1, -1)]
    lengths = [len(part) for part in np.array_split(range(epochs), len(closed))]
    return list(zip(closed, lengths, strict=True))
