"""What a network read: integrated gradients on any back end of Keras, and whether a gene set stands out among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.utils.validation import check_is_fitted

from shared.data.cells import array_of, dense_matrix
from shared.data.constraints import Whole, require
from shared.data.errors import DataError
from shared.data.genes.lists import names_of
from shared.nn.keras_net import keras, ops


def tuned_network(model) -> keras.Model:
    """The tuned network of an ``AutoencoderClassifier``: from scaled genes to logits."""
    check_is_fitted(model, "head_weights_")
    x = genes = keras.Input((model.n_features_in_,))
    for W in model.encoder_weights_[::2]:
        x = keras.layers.Dense(W.shape[1], activation="relu")(x)
    net = keras.Model(genes, keras.layers.Dense(model.head_weights_[0].shape[1])(x))
    net.set_weights([*model.encoder_weights_, *model.head_weights_])
    return net


def gradient(net, X, output):
    """Gradient of one output of a network with respect to its inputs, on any back end of Keras.

    Parameters
    ----------
    net : keras.Model
        From inputs to outputs, with no layer that mixes rows.
    X : ndarray of shape (n_samples, n_inputs), float32
        Where the gradient is taken.
    output : int
        Which output.

    Returns
    -------
    ndarray of shape (n_samples, n_inputs)
    """
    back, X = keras.backend.backend(), dense_matrix(X).astype(np.float32)
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
    require(Whole(1), steps=steps)
    X = dense_matrix(X).astype(np.float32)
    baseline = np.zeros(X.shape[1], np.float32) if baseline is None else np.asarray(baseline, np.float32)
    if baseline.shape != (X.shape[1],):
        raise DataError(f"the baseline has shape {baseline.shape}: give one number for each of {X.shape[1]} inputs")
    total, way = np.zeros_like(X), X - baseline
    at_once = max(1, 4096 // len(X))  # many points side by side: the gradient of one costs as much
    for begin in range(0, steps, at_once):
        share = (np.arange(begin, min(begin + at_once, steps), dtype=np.float32) + 0.5) / steps
        points = baseline + share[:, None, None] * way
        slope = gradient(net, points.reshape(-1, X.shape[1]).astype(np.float32), output)
        total += slope.reshape(points.shape).sum(0)
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
    DataError
        If scores and genes do not fit, a score is no finite number, or no set has a gene in `genes`.
    """
    import pandas as pd
    from scipy.stats import false_discovery_control

    scores, genes = array_of(scores, "scores", float), names_of(genes)
    place = {g: i for i, g in enumerate(genes)}
    if scores.shape != (len(genes),) or len(place) != len(genes):
        raise DataError(f"{scores.shape} scores for {len(genes)} genes of {len(place)} names: give one score a gene")
    if not np.isfinite(scores).all():
        raise DataError(f"{np.sum(~np.isfinite(scores))} scores are NaN or infinite: leave those genes out first")
    found = {name: [place[g] for g in dict.fromkeys(members) if g in place] for name, members in gene_sets.items()}
    found = {name: rows for name, rows in found.items() if rows}
    if not found:
        raise DataError("no set has a gene among the scores: are both named by symbol?")
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
