"""Few-shot classifiers on features that stay as they are: many small tasks at once, most of them in closed form.

A head takes ``support`` (episodes × classes × shots × features) and ``query`` (episodes × queries × features) and gives
``scores`` (episodes × queries × classes), the higher the more alike; ``scores.argmax(2)`` names the queries, ties going
to the lowest number. No query is looked at beside another one. Features may be the inputs themselves, components
(:mod:`shared.nn.features`) or an encoder's output (:class:`shared.nn.meta.Frozen`)::

    support, query, target = sampler.batch(8)
    (ridge(support, query, penalty=10).argmax(2) == target).float().mean()

Softmax over the classes turns the scores of all heads into numbers that add up to 1; only those of :func:`matching` and
:func:`logistic` were made to be probabilities.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from sklearn import config_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import normalize, one_hot

from shared.data.constraints import OneOf, Positive, Whole, check, require
from shared.data.errors import DataError

METRICS = ("euclidean", "cosine")
# A learner hands over a tensor, which it trains.
ABOVE_ZERO = Positive()._replace(accepts=lambda v: isinstance(v, torch.Tensor) or Positive().accepts(v))


def _check(support, query):
    """The sizes of an episode: episodes, classes, shots, features, queries."""
    if support.ndim != 4 or query.ndim != 3:
        raise DataError(
            f"support has shape {tuple(support.shape)} and query {tuple(query.shape)}: give episodes × classes × shots "
            "× features and episodes × queries × features (of one episode, add a first dimension: x[None])"
        )
    (B, C, K, F), (episodes, Q, features) = support.shape, query.shape
    if episodes != B or features != F:
        raise DataError(
            f"support holds {B} episodes of {F} features and query {episodes} of {features}: give both of one sampler, "
            "through one encoder"
        )
    if C < 2 or K < 1 or F < 1:
        raise DataError(f"{C} classes, {K} shots, {F} features: a head needs two classes and one of the others")
    return B, C, K, F, Q


# By distance.


def prototypes(support, query, metric="euclidean", scale=1.0):
    """How near a query is to the mean of each class's support.

    Parameters
    ----------
    support : tensor, episodes × classes × shots × features
        Floating point. To learn from.
    query : tensor, episodes × queries × features
        To name.
    metric : {"euclidean", "cosine"}
        ``"euclidean"``: minus the squared distance, as in prototypical networks. ``"cosine"``: the cosine of the angle
        with the mean, -1 to 1.
    scale : float or tensor
        Multiplies the scores. It changes probabilities, not answers.

    Returns
    -------
    float tensor, episodes × queries × classes

    Raises
    ------
    shared.data.errors.DataError
        If shapes do not fit together.
    shared.data.constraints.SettingError
        If a setting cannot be used.

    References
    ----------
    Snell, Swersky and Zemel, *Prototypical networks for few-shot learning* (2017).
    """
    _check(support, query)
    check({"metric": metric, "scale": scale}, {"metric": OneOf(*METRICS), "scale": ABOVE_ZERO})
    means = support.mean(2)
    if metric == "cosine":
        return scale * normalize(query, dim=2) @ normalize(means, dim=2).mT
    # Squares of what all rows share would only cancel again, and take digits with them.
    centre = means.mean(1, keepdim=True)
    means, query = means - centre, query - centre
    distance = query.square().sum(2, keepdim=True) + means.square().sum(2)[:, None] - 2 * query @ means.mT
    return -scale * distance.clamp_min(0)


def nearest_centroid(support, query):
    """The nearest mean, by Euclidean distance: what any encoder has to beat, when it is given the inputs themselves."""
    return prototypes(support, query)


def simple_shot(support, query, mean=None, scale=1.0):
    """Nearest mean after centring and scaling each row to length 1.

    Parameters
    ----------
    support, query, scale
        As in :func:`prototypes`.
    mean : float tensor, features, optional
        Subtracted from every row: the mean of the source's features, never of the queries. Without it, nothing is.

    References
    ----------
    Wang, Chao, Weinberger and van der Maaten, *SimpleShot* (2019), who call it CL2N, and L2N without `mean`.
    """
    F = _check(support, query)[3]
    if mean is not None:
        mean = torch.as_tensor(mean, dtype=support.dtype, device=support.device)
        if mean.shape != (F,):
            raise DataError(f"mean has shape {tuple(mean.shape)} for {F} features: give the source's mean row")
        support, query = support - mean, query - mean
    return prototypes(normalize(support, dim=3), normalize(query, dim=2), scale=scale)


def matching(support, query, scale=10.0):
    """Attention: every support row votes for its class, weighted by a softmax over its cosine with the query.

    Parameters
    ----------
    support, query
        As in :func:`prototypes`.
    scale : float or tensor
        Multiplies the cosines. It is 1 in the paper, whose encoders learn to live with it; on features that were not
        made for it, weights between exp(-1) and exp(1) let the crowd outvote the neighbours.

    Returns
    -------
    float tensor, episodes × queries × classes
        Logarithms of the shares of the votes.

    Notes
    -----
    Centre the features by the source's mean row first: where no value is negative, all cosines are near 1. On blood
    cells scaled to [0, 1], five classes and five shots, centring took the accuracy from 0.64 to 0.83.

    References
    ----------
    Vinyals and others, *Matching networks for one shot learning* (2016), without the full context embeddings.
    """
    B, C, K, F, _ = _check(support, query)
    require(ABOVE_ZERO, scale=scale)
    cosine = normalize(query, dim=2) @ normalize(support, dim=3).reshape(B, C * K, F).mT
    return (scale * cosine).log_softmax(2).unflatten(2, (C, K)).logsumexp(3)


# By a linear classifier.


def _compact(support, query):
    """The same rows in as few dimensions as they need, centred on the support, in float64.

    A penalised linear classifier never leaves the span of its training rows, of which there are few: in coordinates of
    that span the answer is the same, whatever the number of features. Only products with all features are worked out
    in the precision that came in.
    """
    centre = support.mean((1, 2))[:, None]
    rows, query = support.flatten(1, 2) - centre, query - centre
    if not (torch.isfinite(rows).all() and torch.isfinite(query).all()):
        raise DataError("support or query hold NaN or infinities: look at what gave the features")
    n, F = rows.shape[1:]
    if n >= F:
        return rows.double(), query.double()
    values, vectors = torch.linalg.eigh((rows @ rows.mT).double())
    keep = values > values[:, -1:].clamp_min(1e-300) * n * torch.finfo(support.dtype).eps
    root = torch.where(keep, values, 1).sqrt()
    rows_compact = torch.where(keep, root, 0)[:, None] * vectors
    query_compact = (query @ rows.mT).double() @ (vectors * torch.where(keep, 1 / root, 0)[:, None])
    return rows_compact, query_compact


def ridge(support, query, penalty=1.0):
    """Least squares from the features to 1 for the right class and -1 for the others, with an L2 penalty.

    Parameters
    ----------
    support, query
        As in :func:`prototypes`.
    penalty : float
        Times the squared weights; the intercept is free. ``alpha`` of scikit-learn's ``RidgeClassifier``, whose
        ``decision_function`` these scores are for three classes or more.

    Returns
    -------
    float tensor, episodes × queries × classes

    Raises
    ------
    shared.data.errors.DataError
        If shapes do not fit together, or features are not finite.
    shared.data.constraints.SettingError
        If a setting cannot be used.

    Notes
    -----
    In closed form: one factorisation an episode, of as many rows and columns as there are support rows.

    References
    ----------
    Bertinetto, Henriques, Torr and Vedaldi, *Meta-learning with differentiable closed-form solvers* (2019).
    """
    _, C, K, _, _ = _check(support, query)
    require(ABOVE_ZERO, penalty=penalty)
    rows, asked = _compact(support, query)
    wanted = 2 * one_hot(torch.arange(C, device=rows.device).repeat_interleave(K), C).to(rows) - 1
    mean = wanted.mean(0)
    square = rows.mT @ rows + penalty * torch.eye(rows.shape[2], dtype=rows.dtype, device=rows.device)
    weights = torch.linalg.solve(square, rows.mT @ wanted)
    return (asked @ weights + mean).to(support.dtype)


@torch.no_grad()
def logistic(support, query, C=1.0, steps=100, tol=1e-7):
    """Multinomial logistic regression with an L2 penalty: scikit-learn's, one episode after another.

    Parameters
    ----------
    support, query
        As in :func:`prototypes`.
    C : float
        Inverse strength of the penalty; the intercepts are free. As in ``LogisticRegression`` for three classes or
        more; with two, that one has one vector of weights in place of two, and its `C` is twice this one.
    steps : int
        Newton steps at most; 5 to 12 are usual.
    tol : float
        Stop when no entry of the gradient is larger.

    Returns
    -------
    float tensor, episodes × queries × classes
        Logits: their softmax is the probability.

    Raises
    ------
    shared.data.errors.DataError
        If shapes do not fit together, features are not finite, or `steps` are not enough.
    shared.data.constraints.SettingError
        If a setting cannot be used.
    """
    _, n_way, K, _, _ = _check(support, query)
    check({"C": C, "steps": steps, "tol": tol}, {"C": ABOVE_ZERO, "steps": Whole(1), "tol": Positive()})
    rows, asked = _compact(support, query)
    target = np.arange(n_way).repeat(K)
    # Features of any size are made alike, and the penalty with them: steps end by the size of a gradient.
    size = rows.abs().amax((1, 2), keepdim=True)
    size = torch.where(size > 0, size, 1)
    rows, asked = rows / size, asked / size
    Cs = (float(C) * (2 if n_way == 2 else 1) * size.ravel() ** 2).tolist()
    # The library's tolerance is of the gradient's mean over rows, ours of its sum.
    model = LogisticRegression(solver="newton-cg", tol=tol / len(target), max_iter=steps)
    with warnings.catch_warnings(), config_context(assume_finite=True, skip_parameter_validation=True):
        warnings.filterwarnings("ignore", "(?i)(the )?line search")  # steps end where rounding does
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            fits = [
                model.set_params(C=one).fit(x, target) and np.c_[model.coef_, model.intercept_]
                for one, x in zip(Cs, rows.cpu().numpy(), strict=True)
            ]
        except ConvergenceWarning:
            raise DataError(
                f"logistic regression did not converge in {steps} steps: lower C, scale the features, or raise steps"
            ) from None
    weights = torch.from_numpy(np.reshape(fits, (len(rows), 1 if n_way == 2 else n_way, rows.shape[2] + 1))).to(asked)
    if n_way == 2:
        weights = torch.cat([-weights, weights], 1) / 2
    return (asked @ weights[..., :-1].mT + weights[..., -1][:, None]).to(support.dtype)


HEADS: dict[str, Callable] = {
    "nearest centroid": nearest_centroid,
    "cosine": partial(prototypes, metric="cosine"),
    "SimpleShot": simple_shot,
    "matching": matching,
    "ridge": ridge,
    "logistic": logistic,
}
"""Every head once, by the name tables use; cosine is :func:`prototypes` by angle."""
