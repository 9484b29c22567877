"""Metrics, each a thin layer over scikit-learn with its averaging named and its special cases settled.

Labels may be words or numbers, of one kind. Where scores are needed, hard labels are refused.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn import metrics as sk


class MetricError(ValueError):
    """The metric is not defined for what it was given; the message says why and what to give instead."""


def _labels(y_true, y_pred):
    y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
    if y_true.shape != y_pred.shape or y_true.ndim != 1:
        raise MetricError(
            f"labels have shapes {y_true.shape} and {y_pred.shape}: give one true and one called label a cell"
        )
    if not len(y_true):
        raise MetricError("there is no cell to score")
    if (y_true.dtype.kind in "US") != (y_pred.dtype.kind in "US"):
        raise MetricError(f"true labels are {y_true.dtype} and called labels {y_pred.dtype}: use one kind for both")
    return y_true, y_pred


def accuracy(y_true, y_pred) -> float:
    """Share of cells called right; common classes count more."""
    y_true, y_pred = _labels(y_true, y_pred)
    return float((y_true == y_pred).mean())


def balanced_accuracy(y_true, y_pred) -> float:
    """Mean recall over the classes present in `y_true`, each counted alike; guessing scores one over their number.

    A call of a class that is absent from `y_true` is a miss for the cell's own class and adds no class of its own.
    """
    y_true, y_pred = _labels(y_true, y_pred)
    _, label = np.unique(y_true, return_inverse=True)
    return float((np.bincount(label, y_true == y_pred) / np.bincount(label)).mean())


def macro_f1(y_true, y_pred) -> float:
    """Mean F1 over the classes present in `y_true`; a class that is never called scores 0."""
    y_true, y_pred = _labels(y_true, y_pred)
    return float(sk.f1_score(y_true, y_pred, labels=np.unique(y_true), average="macro", zero_division=0))


def cohen_kappa(y_true, y_pred) -> float:
    """Agreement beyond what the class shares alone would give, unweighted; 0 when both sides hold one class only."""
    y_true, y_pred = _labels(y_true, y_pred)
    if len(np.union1d(y_true, y_pred)) < 2:
        return 0.0
    return float(sk.cohen_kappa_score(y_true, y_pred))


def _scores(y_true, proba, classes):
    y_true, proba, classes = np.asarray(y_true), np.asarray(proba, dtype=np.float64), np.asarray(classes)
    if proba.ndim != 2:
        raise MetricError(
            "scores are needed, one column a class, not hard labels: use predict_proba or decision_function"
        )
    if proba.shape != (len(y_true), len(classes)):
        raise MetricError(f"scores have shape {proba.shape}; {len(y_true)} cells and {len(classes)} classes were given")
    if not len(y_true):
        raise MetricError("there is no cell to score")
    if not np.isfinite(proba).all():
        raise MetricError(f"{int((~np.isfinite(proba)).sum())} scores are NaN or infinite")
    rows = np.sort(proba, axis=1)
    if len(classes) > 1 and (rows[:, :-1] == 0).all() and (rows[:, -1] == 1).all() and len(y_true) > 1:
        raise MetricError("every row is a single 1: these are hard labels, and a curve needs graded scores")
    return y_true, proba, classes


def _one_vs_rest(metric, name, y_true, proba, classes, average):
    y_true, proba, classes = _scores(y_true, proba, classes)
    present = [c for c in classes if 0 < (y_true == c).sum() < len(y_true)]
    if not present:
        raise MetricError(f"{name} needs cells of two classes or more that the model knows")
    each = np.array([metric(y_true == c, proba[:, list(classes).index(c)]) for c in present])
    if average is None:
        return dict(zip(map(str, present), each.tolist(), strict=True))
    if average == "macro":
        return float(each.mean())
    if average == "weighted":
        return float(np.average(each, weights=[(y_true == c).sum() for c in present]))
    raise MetricError(f"average={average!r} is not known: 'macro', 'weighted' or None")


def auroc(y_true, proba, classes, average="macro"):
    """Area under the ROC curve, each class against the rest, averaged over the classes that occur among the cells.

    Parameters
    ----------
    y_true : sequence of shape (n_cells,)
        True labels; those the model never saw count among the rest.
    proba : ndarray of shape (n_cells, n_classes)
        Scores, larger for likelier; they need not sum to one.
    classes : sequence of shape (n_classes,)
        The label of each column.
    average : {"macro", "weighted", None}, default "macro"
        None returns a dict of class to value.

    Raises
    ------
    MetricError
        On hard labels, shapes that do not fit, NaN, or fewer than two classes among the cells.
    """
    return _one_vs_rest(sk.roc_auc_score, "AUROC", y_true, proba, classes, average)


def average_precision(y_true, proba, classes, average="macro"):
    """Average precision (area under precision-recall by steps), each class against the rest; as :func:`auroc`.

    Guessing scores the share of the class, so compare it within one test set only.
    """
    return _one_vs_rest(sk.average_precision_score, "average precision", y_true, proba, classes, average)


def ari(y_true, clusters) -> float:
    """Adjusted Rand index of two groupings: 1 for the same, about 0 for unrelated ones."""
    return float(sk.adjusted_rand_score(y_true, clusters))


def nmi(y_true, clusters) -> float:
    """Normalised mutual information of two groupings, arithmetic mean of the entropies."""
    return float(sk.normalized_mutual_info_score(y_true, clusters, average_method="arithmetic"))


def silhouette(X, labels, metric="euclidean", sample_size=None, random_state=None) -> float:
    """Mean silhouette of `labels` on `X` (cells × features), from -1 to 1; `sample_size` cells if given."""
    labels = np.asarray(labels)
    if not 1 < len(np.unique(labels)) < len(labels):
        raise MetricError("silhouette needs two groups or more, and at least one of two cells")
    return float(sk.silhouette_score(X, labels, metric=metric, sample_size=sample_size, random_state=random_state))


def reliability(y_true, proba, classes, n_bins=15) -> pd.DataFrame:
    """Confidence against accuracy in bins of equal width on the confidence of the top class.

    Parameters
    ----------
    y_true : sequence of shape (n_cells,)
        True labels.
    proba : ndarray of shape (n_cells, n_classes)
        Rows sum to one.
    classes : sequence of shape (n_classes,)
        The label of each column.
    n_bins : int, default 15
        Bins between 0 and 1.

    Returns
    -------
    DataFrame
        One row a bin: ``low``, ``high`` (its edges, the upper one included), ``count``, ``confidence``, ``accuracy``
        (NaN in an empty bin).
    """
    y_true, proba, classes = _scores(y_true, proba, classes)
    if (proba < -1e-6).any() or not np.allclose(proba.sum(1), 1, atol=1e-3):
        raise MetricError("rows of proba do not sum to one: calibration is about probabilities, not scores")
    if n_bins < 1:
        raise MetricError(f"n_bins={n_bins}: use one bin or more")
    confidence, right = proba.max(1), classes[proba.argmax(1)] == y_true
    where = np.clip(np.ceil(confidence * n_bins).astype(int) - 1, 0, n_bins - 1)
    count = np.bincount(where, minlength=n_bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(where, confidence, n_bins) / count
        share = np.bincount(where, right, n_bins) / count
    edges = np.linspace(0, 1, n_bins + 1)
    columns = {"low": edges[:-1], "high": edges[1:], "count": count, "confidence": mean, "accuracy": share}
    return pd.DataFrame(columns)


def ece(y_true, proba, classes, n_bins=15) -> float:
    """Expected calibration error: the mean gap between confidence and accuracy over bins, weighted by their cells.

    Equal-width bins on the top class's confidence (Guo and others 2017, equation 3). With few cells it is biased
    upwards: a perfectly calibrated model does not score 0.
    """
    table = reliability(y_true, proba, classes, n_bins)
    gap = (table["confidence"] - table["accuracy"]).abs().fillna(0)
    return float((gap * table["count"]).sum() / table["count"].sum())


HARD = {"accuracy": accuracy, "balanced_accuracy": balanced_accuracy, "macro_f1": macro_f1, "cohen_kappa": cohen_kappa}
SOFT = {"auroc": auroc, "average_precision": average_precision, "ece": ece}


def score(y_true, *, y_pred=None, proba=None, classes=None, metrics=tuple(HARD)) -> dict[str, float]:
    """Several metrics at once.

    Parameters
    ----------
    y_true : sequence of shape (n_cells,)
        True labels.
    y_pred : sequence of shape (n_cells,), optional
        Without it the top class of `proba` is taken.
    proba : ndarray of shape (n_cells, n_classes), optional
        Scores; needed by ``auroc``, ``average_precision`` and ``ece``.
    classes : sequence of shape (n_classes,), optional
        The label of each column.
    metrics : sequence of str
        Of ``accuracy, balanced_accuracy, macro_f1, cohen_kappa, auroc, average_precision, ece``.
    """
    unknown = [m for m in metrics if m not in HARD | SOFT]
    if unknown:
        raise MetricError(f"metric {unknown[0]!r} is not known; there are {', '.join(HARD | SOFT)}")
    if proba is None and (y_pred is None or set(metrics) & set(SOFT)):
        soft = sorted(set(metrics) & set(SOFT)) or ["any metric"]
        raise MetricError(
            f"{soft[0]} needs {'proba and classes' if y_pred is not None else 'y_pred, or proba and classes'}"
        )
    if y_pred is None:
        y_pred = np.asarray(classes)[np.asarray(proba).argmax(1)]
    return {m: HARD[m](y_true, y_pred) if m in HARD else SOFT[m](y_true, proba, classes) for m in metrics}
