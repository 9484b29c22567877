"""Metrics, each a thin layer over scikit-learn with its averaging named and its special cases settled.

Rules that hold for all of them:

* Labels are words or whole numbers, of one kind on both sides, in any container. Missing labels and NaN are refused.
* An average over classes runs over the classes that occur in ``y_true``. A class that is absent from the test cells has
  no part in it.
* A class that occurs but that the model never saw counts as one it cannot find: recall and F1 of 0, AUROC of 0.5,
  average precision of its share. Leaving it out would reward a model for knowing less.
* Where scores are needed, hard labels are refused.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
from sklearn import metrics as sk

from shared.data.cells import array_of, finite_matrix
from shared.data.constraints import OneOf, SettingError, Whole, check, require
from shared.data.errors import DataError, warn
from shared.data.genes.lists import shown


def as_labels(values, what="labels"):
    """One label a cell as an array of words or of whole numbers, whatever container it came in.

    A column of a table arrives as objects, a categorical or a string array; compared as they are, equal words may count
    as different. Missing labels, mixed kinds and scores passed for labels are refused.
    """
    values = array_of(values, what)
    if values.ndim != 1:
        raise DataError(f"{what} have shape {values.shape}: give one label a cell")
    if values.dtype.kind not in "OTUbiuf":
        raise DataError(f"{what} are of type {values.dtype}: labels are words or whole numbers")
    if pd.isna(values).any():
        raise DataError(f"{int(pd.isna(values).sum())} {what} are missing: drop those cells or give them a class")
    if values.dtype.kind in "OT":
        if len({isinstance(v, str) for v in values}) > 1:
            raise DataError(f"{what} mix words and numbers: use one kind")
        values = as_labels(np.array(values.tolist()), what)
    if values.dtype.kind == "f":
        if np.isinf(values).any() or (values != np.round(values)).any():
            raise DataError(f"{what} hold fractions: these are scores, and labels are needed")
        values = values.astype(np.int64)
    return values


def _check_kinds(y_true, others, what):
    if not len(y_true):
        raise DataError("there is no cell to score")
    if (y_true.dtype.kind == "U") != (others.dtype.kind == "U"):
        raise DataError(f"true labels are {y_true.dtype} and {what} {others.dtype}: use one kind for both")


def paired_labels(y_true, y_pred):
    """True and called labels of the same cells, in one kind."""
    y_true, y_pred = as_labels(y_true, "true labels"), as_labels(y_pred, "called labels")
    if y_true.shape != y_pred.shape:
        raise DataError(
            f"labels have shapes {y_true.shape} and {y_pred.shape}: give one true and one called label a cell"
        )
    _check_kinds(y_true, y_pred, "called labels")
    if not np.isin(y_pred, y_true).any():
        called, true = (shown(np.unique(y)) for y in (y_pred, y_true))
        warn(f"no called label ({called}) is among the true ones ({true}): are they named alike?")
    return y_true, y_pred


def accuracy(y_true, y_pred) -> float:
    """Share of cells called right; common classes count more."""
    y_true, y_pred = paired_labels(y_true, y_pred)
    return float((y_true == y_pred).mean())


def balanced_accuracy(y_true, y_pred) -> float:
    """Mean recall over the classes present in `y_true`, each counted alike; guessing scores one over their number.

    A call of a class that is absent from `y_true` is a miss for the cell's own class and adds no class of its own.
    """
    y_true, y_pred = paired_labels(y_true, y_pred)
    _, label = np.unique(y_true, return_inverse=True)
    return float((np.bincount(label, y_true == y_pred) / np.bincount(label)).mean())


def macro_f1(y_true, y_pred) -> float:
    """Mean F1 over the classes present in `y_true`, each counted alike; a class that is never called scores 0."""
    y_true, y_pred = paired_labels(y_true, y_pred)
    return float(sk.f1_score(y_true, y_pred, labels=np.unique(y_true), average="macro", zero_division=0))


def cohen_kappa(y_true, y_pred) -> float:
    """Agreement beyond what the class shares alone would give, unweighted; 0 when both sides hold one class only.

    The formula is 0 / 0 there: calls that never vary agree with labels that never vary, and show nothing.
    """
    y_true, y_pred = paired_labels(y_true, y_pred)
    if len(np.union1d(y_true, y_pred)) < 2:
        return 0.0
    return float(sk.cohen_kappa_score(y_true, y_pred))


def _matrix(y_true, proba, classes):
    """Checked scores: labels, float64 array of cells × classes, and the label of each column."""
    y_true = as_labels(y_true, "true labels")
    proba = array_of(proba, "proba")
    if proba.ndim != 2 or proba.dtype.kind not in "fiub":
        raise DataError(
            "scores are needed, one column a class, not hard labels: use predict_proba or decision_function "
            "(of two classes the latter gives one column s: pass np.column_stack([-s, s]))"
        )
    if classes is None:
        raise DataError("classes are needed: the label of each column of the scores (a fitted model's classes_)")
    classes = as_labels(classes, "classes")
    if proba.shape != (len(y_true), len(classes)):
        raise DataError(f"scores have shape {proba.shape}; {len(y_true)} cells and {len(classes)} classes were given")
    if len(np.unique(classes)) < len(classes):
        raise DataError("classes holds a label twice: give each column a label of its own")
    _check_kinds(y_true, classes, "classes")
    proba = proba.astype(np.float64)
    if not np.isfinite(proba).all():
        raise DataError(
            f"{int((~np.isfinite(proba)).sum())} scores are NaN or infinite: look at the model that gave them"
        )
    return y_true, proba, classes


def _scores(y_true, proba, classes):
    """As :func:`_matrix`; hard labels written as zeros and ones are refused as well."""
    y_true, proba, classes = _matrix(y_true, proba, classes)
    one_hot = ((proba == 0) | (proba == 1)).all() and (proba.sum(1) == 1).all()
    if len(classes) > 1 and len(y_true) > 1 and one_hot:
        raise DataError("every row is a single 1: these are hard labels, and graded scores are needed")
    return y_true, proba, classes


def _against_rest(name, y_true, proba, classes):
    """Classes that occur, their numbers of cells, and for each which cells are of it and their scores."""
    y_true, proba, classes = _scores(y_true, proba, classes)
    present, cells = np.unique(y_true, return_counts=True)
    if len(present) < 2:
        raise DataError(f"{name} needs cells of two classes or more; all are {present[0]}")
    if not np.isin(present, classes).any():
        raise DataError(f"{name} needs a class that the model knows; it knows {', '.join(map(str, classes[:5]))}")
    column = {c: i for i, c in enumerate(classes.tolist())}
    unseen = np.zeros(len(y_true))
    pairs = [(y_true == c, proba[:, column[c]] if c in column else unseen) for c in present.tolist()]
    return present, cells, pairs


def _one_vs_rest(metric, name, y_true, proba, classes, average):
    require(OneOf("macro", "weighted", None), average=average)
    present, cells, pairs = _against_rest(name, y_true, proba, classes)
    each = [metric(is_class, scores) for is_class, scores in pairs]
    if average is None:
        return {str(c): float(v) for c, v in zip(present, each, strict=True)}
    return float(np.average(each, weights=cells if average == "weighted" else None))


def _areas(is_class, scores):
    """AUROC, average precision and trapezoid area from one sorting: a sweep asks for them many thousand times."""
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # the last cell of each threshold
    right = np.cumsum(is_class[order])[ends]
    wrong = ends + 1 - right
    recall, precision = np.append(0, right / right[-1]), np.append(1, right / (ends + 1))
    auroc = np.trapezoid(recall, np.append(0, wrong / wrong[-1]))
    lines = np.trapezoid(precision, recall) if len(ends) > 1 else is_class.mean()
    return auroc, np.sum(np.diff(recall) * precision[1:]), lines


def _one_vs_one(y_true, proba, classes):
    _, _, classes = _against_rest("AUROC", y_true, proba, classes)
    each = []
    for (is_one, one_scores), (is_other, other_scores) in combinations(classes, 2):
        pair = is_one | is_other
        each.append(sk.roc_auc_score(is_one[pair], one_scores[pair]))
        each.append(sk.roc_auc_score(is_other[pair], other_scores[pair]))
    return float(np.mean(each))


def auroc(y_true, proba, classes, average="macro", multi_class="ovr"):
    """Area under the ROC curve, averaged over the classes that occur among the cells.

    Parameters
    ----------
    y_true : sequence of shape (n_cells,)
        True labels.
    proba : ndarray of shape (n_cells, n_classes)
        Scores, larger for likelier; they need not sum to one.
    classes : sequence of shape (n_classes,)
        The label of each column.
    average : {"macro", "weighted", None}, default "macro"
        Each class alike, by its number of cells, or none: a dict of class to value.
    multi_class : {"ovr", "ovo"}, default "ovr"
        Each class against all other cells, or the mean over pairs of classes, which does not move with the class
        shares (Hand and Till 2001; macro only).

    Returns
    -------
    float or dict of str to float
        A class that the model never saw counts 0.5.

    Raises
    ------
    DataError
        On hard labels, shapes that do not fit, NaN, or fewer than two classes among the cells.
    SettingError
        If `average` or `multi_class` is not known, or the two do not go together.
    """
    require(OneOf("ovr", "ovo"), multi_class=multi_class)
    if multi_class == "ovr":
        return _one_vs_rest(sk.roc_auc_score, "AUROC", y_true, proba, classes, average)
    if average != "macro":
        raise SettingError(f"average={average!r} goes with multi_class='ovr' only")
    return _one_vs_one(y_true, proba, classes)


def average_precision(y_true, proba, classes, average="macro"):
    """Average precision (area under precision-recall by steps), each class against the rest.

    Takes and refuses what :func:`auroc` does. Guessing scores the share of the class, so compare it within one test set
    only. A class that the model never saw counts with its share.
    """
    return _one_vs_rest(sk.average_precision_score, "average precision", y_true, proba, classes, average)


def trapezoid_auprc(is_class, scores) -> float:
    """Area under the precision-recall curve with straight lines between its points.

    Published comparisons of cell typing use it. It is not average precision: the straight lines promise precisions
    that no threshold reaches, and the fewer thresholds there are the more it promises. A single score for all cells
    gets half of 1 plus the share of the class; average precision gives the share.
    """
    precision, recall, _ = sk.precision_recall_curve(is_class, scores)
    return float(sk.auc(recall, precision))


def macro_ovr(y_true, proba, classes, types="present", average="macro"):
    """AUROC, average precision and trapezoid area of each type against all other cells, and their mean over types.

    Parameters
    ----------
    y_true, proba, classes
        As in :func:`auroc`.
    types : {"present", "known"}, default "present"
        Which types the mean runs over: all that occur among the cells, one the model never saw counting as one it
        cannot find (0.5, and its share for both areas); or only those the model knows as well. A type without a cell
        here has no curve and is in neither. scPretrain's paper averages over the types of the whole data set, which is
        not defined once the test part lacks one.
    average : {"macro", None}, default "macro"
        The mean, each type alike, or a table with one row a type.

    Returns
    -------
    dict of str to float, or DataFrame
        ``auroc``, ``average_precision``, ``trapezoid`` and ``n_types``, the number of types in the mean; or, for each
        type, its ``cells`` and the three.

    Raises
    ------
    DataError
        As :func:`auroc`; above all on hard labels, from which the trapezoid makes a number that looks good.
    SettingError
        If `types` or `average` is not known.
    """
    known = {"types": OneOf("present", "known"), "average": OneOf("macro", None)}
    check({"types": types, "average": average}, known)
    present, cells, pairs = _against_rest("AUROC", y_true, proba, classes)
    parts = ["auroc", "average_precision", "trapezoid"]
    table = pd.DataFrame([_areas(*pair) for pair in pairs], columns=parts, index=present)
    table.insert(0, "cells", cells)
    if types == "known":
        table = table[np.isin(present, as_labels(classes))]
    return table if average is None else table[parts].mean().to_dict() | {"n_types": len(table)}


def _groupings(y_true, clusters):
    y_true, clusters = as_labels(y_true, "true labels"), as_labels(clusters, "clusters")
    if y_true.shape != clusters.shape or not len(y_true):
        raise DataError(f"groupings have shapes {y_true.shape} and {clusters.shape}: give both for each cell")
    return y_true, clusters


def ari(y_true, clusters) -> float:
    """Adjusted Rand index of two groupings: 1 for the same, about 0 for unrelated ones. Names need not match."""
    return float(sk.adjusted_rand_score(*_groupings(y_true, clusters)))


def nmi(y_true, clusters) -> float:
    """Normalised mutual information of two groupings, arithmetic mean of the entropies. Names need not match."""
    return float(sk.normalized_mutual_info_score(*_groupings(y_true, clusters), average_method="arithmetic"))


def silhouette(X, labels, metric="euclidean", sample_size=None, random_state=None) -> float:
    """Mean silhouette of `labels` on `X` (cells × features), each cell alike, from -1 to 1.

    With `sample_size` it is taken over that many cells, drawn at random.
    """
    labels, X = as_labels(labels), finite_matrix(X)
    if X.shape[0] != len(labels):
        raise DataError(f"X has shape {X.shape} for {len(labels)} labels: give one row a cell")
    if not 1 < len(np.unique(labels)) < len(labels):
        raise DataError("silhouette needs two groups or more, and at least one of two cells")
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
        (NaN in an empty bin). Of classes that tie for the top, the first counts.

    Raises
    ------
    DataError
        If rows do not sum to one, and as :func:`auroc`.
    SettingError
        If `n_bins` is no whole number from 1 up.
    """
    require(Whole(1), n_bins=n_bins)
    y_true, proba, classes = _scores(y_true, proba, classes)
    if (proba < -1e-6).any() or not np.allclose(proba.sum(1), 1, atol=1e-3):
        raise DataError("rows of proba do not sum to one: calibration needs probabilities, not scores")
    confidence, right = proba.max(1), classes[proba.argmax(1)] == y_true
    edges = np.linspace(0, 1, n_bins + 1)
    # Compared with the edges themselves: 0.7 * 10 is a little more than 7, and 0.7 belongs below the edge 0.7.
    where = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, n_bins - 1)
    count = np.bincount(where, minlength=n_bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(where, confidence, n_bins) / count
        share = np.bincount(where, right, n_bins) / count
    columns = {"low": edges[:-1], "high": edges[1:], "count": count, "confidence": mean, "accuracy": share}
    return pd.DataFrame(columns)


def ece(y_true, proba, classes, n_bins=15) -> float:
    """Expected calibration error: the mean gap between confidence and accuracy over bins, weighted by their cells.

    Equal-width bins on the top class's confidence (Guo and others 2017, equation 3). With few cells it is biased
    upwards: a perfectly calibrated model does not score 0.
    """
    table = reliability(y_true, proba, classes, n_bins)
    gap = (table["confidence"] - table["accuracy"]).abs()
    return float((gap * table["count"]).sum() / table["count"].sum())


HARD = {"balanced_accuracy": balanced_accuracy, "accuracy": accuracy, "macro_f1": macro_f1, "cohen_kappa": cohen_kappa}
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
        Of ``balanced_accuracy, accuracy, macro_f1, cohen_kappa, auroc, average_precision, ece``.

    Raises
    ------
    SettingError
        If a metric is not known.
    DataError
        If its scores were not given.
    """
    for metric in metrics:
        require(OneOf(*HARD, *SOFT), metric=metric)
    soft = [m for m in metrics if m in SOFT]
    if proba is None and (y_pred is None or soft):
        need = "proba and classes" if y_pred is not None else "y_pred, or proba and classes"
        raise DataError(f"{soft[0] if soft else 'any metric'} needs {need}")
    if y_pred is None:
        _, scores, columns = _matrix(y_true, proba, classes)
        y_pred = columns[scores.argmax(1)]
    return {m: HARD[m](y_true, y_pred) if m in HARD else SOFT[m](y_true, proba, classes) for m in metrics}
