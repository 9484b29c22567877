"""Choosing a model without target labels. Each risk is estimated from something else, and none is free.

============================  ===============================  ====================================================
risk                          it looks at                      and is wrong where
============================  ===============================  ====================================================
of the source                 held-out source cells            the target differs, which is why one adapts
importance-weighted           held-out source cells, weighed   a target cell has no source cell like it, or
                              by how much they are like the    ``P(y | x)`` changes
                              target
deep embedded validation      the same, with less variance     the same
entropy of predictions        target cells                     a model is sure and wrong
============================  ===============================  ====================================================

Source cells that a model was fitted on have no risk worth knowing: give cells that it has not seen.
"""

from __future__ import annotations

import inspect

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from shared.data.cells import array_of, column, dense_matrix, read, table_of_cells
from shared.data.errors import DataError


def density_ratio(source, target, C: float = 1.0) -> np.ndarray:
    """How much more often cells like each source cell are seen in the target: float64 ndarray, source cells.

    A logistic regression tells the domains apart; its odds are the ratio of the densities, up to the numbers of cells
    (Bickel and others 2007).

    Parameters
    ----------
    source, target : ndarray, cells × features
        Expression, components or embeddings.
    C : float
        Inverse strength of the regression's penalty: the smaller, the nearer all weights are to 1.
    """
    source, target = dense_matrix(source, "source"), dense_matrix(target, "target")
    is_target = np.r_[np.zeros(len(source)), np.ones(len(target))]
    told = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=1000))
    odds = np.exp(told.fit(np.vstack([source, target]), is_target).decision_function(source))
    return odds * len(source) / len(target)


def importance_weighted(loss, weight) -> float:
    """Mean loss of source cells, each weighed (Sugiyama and others 2007): the risk in the target under covariate shift.

    Parameters
    ----------
    loss, weight : array of float, source cells
        Loss of each cell, such as 0 where it is named rightly; and its :func:`density_ratio`. Weights are divided by
        their mean.
    """
    loss, weight = _pairs(loss, weight)
    return float((weight * loss).sum() / weight.sum())


def deep_embedded_validation(loss, weight) -> float:
    """The weighted mean loss with the mean of the weights, known to be 1, as control variate (You and others 2019).

    Parameters
    ----------
    loss, weight : array of float, source cells
        As for :func:`importance_weighted`; the weights are taken as they are.
    """
    loss, weight = _pairs(loss, weight)
    weighted, spread = weight * loss, weight.var(ddof=1)
    eta = -np.cov(weighted, weight)[0, 1] / spread if spread > 0 else 0.0
    return float(weighted.mean() + eta * weight.mean() - eta)


def prediction_entropy(proba) -> float:
    """Mean entropy of predicted probabilities in nats: 0 for a model that is always sure (Morerio and others 2018).

    Parameters
    ----------
    proba : ndarray, target cells × classes
        Rows sum to 1.
    """
    proba = dense_matrix(proba, "proba")
    return float(-(proba * np.log(np.maximum(proba, np.finfo(float).tiny))).sum(1).mean())


def target_risks(model, X, y, sample_domain, *, features=None) -> dict[str, float]:
    """All four risks of a fitted classifier, each the lower the better.

    Parameters
    ----------
    model : fitted classifier
        With ``predict_proba`` and ``classes_``. One that takes ``sample_domain`` there is told it.
    X : AnnData, DataFrame, ndarray or sparse matrix, cells × genes
        Source cells that the model was not fitted on, and target cells.
    y : array of str or int, cells; or str
        Types; those of target cells are not looked at. Of an AnnData also the name of a column of ``obs``.
    sample_domain : int array, cells; or str
        Positive for source, negative for target.
    features : ndarray, cells × features, optional
        What :func:`density_ratio` reads, such as embeddings or components; `X` without it.

    Returns
    -------
    dict of str to float
        ``source``, ``importance_weighted``, ``deep_embedded_validation`` (shares of wrong names) and ``entropy``.

    Raises
    ------
    shared.data.errors.DataError
        If cells of a domain are missing, or inputs do not fit together.
    """
    obs = table_of_cells(X)
    cells, y = read(X, sample_domain=sample_domain), array_of(column(obs, y), "y")
    is_source = cells.sample_domain > 0
    if is_source.all() or not is_source.any():
        raise DataError("risks compare domains: sample_domain must be positive for some cells, negative for others")
    if y.shape != (len(cells),):
        raise DataError(f"X has {len(cells)} cells and y {y.shape}: give one label a cell (any for target cells)")
    takes = "sample_domain" in inspect.signature(model.predict_proba).parameters
    proba = model.predict_proba(X, **({"sample_domain": sample_domain} if takes else {}))
    wrong = np.asarray(model.classes_)[proba[is_source].argmax(1)] != y[is_source]
    seen = dense_matrix(cells.X if features is None else features, "features")
    weight = density_ratio(seen[is_source], seen[~is_source])
    return {
        "source": float(wrong.mean()),
        "importance_weighted": importance_weighted(wrong, weight),
        "deep_embedded_validation": deep_embedded_validation(wrong, weight),
        "entropy": prediction_entropy(proba[~is_source]),
    }


def _pairs(loss, weight):
    loss, weight = (array_of(v, what, float) for v, what in ((loss, "loss"), (weight, "weight")))
    if loss.shape != weight.shape or loss.ndim != 1 or len(loss) < 2:
        raise DataError(f"loss is {loss.shape} and weight {weight.shape}: give one of each a cell, two cells or more")
    if not (np.isfinite(loss).all() and np.isfinite(weight).all() and weight.min() >= 0 and weight.any()):
        raise DataError("a loss or a weight is NaN or infinite, a weight negative, or all are 0: leave those cells out")
    return loss, weight
