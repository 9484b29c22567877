"""How far a mean over episodes can be trusted, and against what.

Episodes are cheap, and a thousand of them give a short interval, but they are drawn from a handful of classes: the
interval over episodes says what other cells of these classes would give, not what other classes would. In simulated
worlds of 6 to 20 classes, some of them alike, the 95 % interval over episodes held the accuracy of new classes in 6 to
13 worlds of 100; the one that leaves each class out held it in 92 to 96 (a test runs such worlds).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import stats

from shared.data.constraints import OneOf, check
from shared.data.errors import DataError
from shared.evaluate.episodes import FewShot
from shared.evaluate.intervals import LEVEL, Interval, bootstrap, over_seeds

OVER = ("episodes", "seeds", "classes", "seeds and classes")


def few_shot_interval(
    results: FewShot | Sequence[FewShot],
    over: str = "classes",
    *,
    what: str = "accuracy",
    against: FewShot | Sequence[FewShot] | None = None,
    level: float = 0.95,
) -> Interval:
    """Mean accuracy or ARI over episodes, with an interval that says what it would be with other ... than these.

    Parameters
    ----------
    results : FewShot or sequence of them
        One for each seed (training run).
    over : {"classes", "episodes", "seeds", "seeds and classes"}
        ``"episodes"``: other cells of the same classes; the shortest, and the one usually printed. ``"seeds"``: another
        training run. ``"classes"``: other classes. ``"seeds and classes"``: both, their variances added.
    what : {"accuracy", "ari"}
        The mean of what.
    against : FewShot or sequence, optional
        Answers of another learner to the same episodes: the interval is of the difference, results minus these.
    level : float
        Coverage aimed at.

    Returns
    -------
    Interval
        Student's t each time; ``n`` counts what ``over`` names (with both: classes). Limits that no accuracy can reach
        are cut.

    Raises
    ------
    DataError
        If results are of several kinds (inductive and transductive, other classes) or too few, or no class can be left
        out.
    SettingError
        If a setting cannot be used.

    Notes
    -----
    Classes are left out whole, one after the other, with every episode they take part in (the jackknife): a class that
    is hard to tell from others costs them too, which resampling each class's own queries does not see. That needs one
    class more than an episode has. With exactly as many, the accuracies of the classes' own queries are resampled by
    :func:`shared.evaluate.bootstrap`; that interval is too short, as its ``method`` says.

    References
    ----------
    Efron and Stein (1981), The Annals of Statistics 9, 586; Arvesen (1969), The Annals of Mathematical Statistics 40,
    2076, for means over subsets.
    """
    known = {"over": OneOf(*OVER), "what": OneOf("accuracy", "ari"), "level": LEVEL}
    check({"over": over, "what": what, "level": level}, known)
    results, values = _values(results, what)
    other = None
    if against is not None:
        other, subtract = _values(against, what)
        same = len(other) == len(results) and all(
            np.array_equal(a.classes, b.classes) and np.array_equal(a.target, b.target)
            for a, b in zip(results, other, strict=True)
        )
        if not same:
            raise DataError("the two learners were not asked the same episodes: use one sampler and one seed for both")
        values = values - subtract
    if over == "episodes":
        found = replace(over_seeds(values.ravel(), level), method="t over episodes")
    elif over == "seeds":
        found = over_seeds(_by_seed(values), level)
    else:
        found = _over_classes(results, other, values, what, over, level)
    low, high = (0.0 if what == "accuracy" else -1.0, 1.0) if against is None else (-np.inf, np.inf)
    return replace(found, value=float(values.mean()), low=max(found.low, low), high=min(found.high, high))


def _values(results, what):
    """The results as a list, and the value of each episode, seeds × episodes."""
    results = [results] if isinstance(results, FewShot) else list(results)
    if not results:
        raise DataError("there is no result")
    kinds = {(r.mode, r.queries, r.unknown, r.classes.shape, tuple(r.names.tolist())) for r in results}
    if len(kinds) > 1:
        raise DataError(
            "results differ in mode, queries, unknown classes, labels or number of episodes: report each kind by itself"
        )
    values = np.stack([getattr(r, what) for r in results])
    if np.isnan(values).any():
        raise DataError("there is no ARI where all queries are of one class: look at the accuracy")
    return results, values


def _by_seed(values):
    if len(values) < 2:
        raise DataError(f"an interval over seeds needs two training runs or more, got {len(values)}")
    return values.mean(1)


def _over_classes(results, other, values, what, over, level):
    took_part = np.concatenate([(r.classes[:, :, None] == np.arange(len(r.names))).any(1) for r in results])
    took_part, flat = took_part[:, took_part.any(0)], values.ravel()
    n = took_part.shape[1]
    if took_part.all(0).any():
        if over != "classes" or what != "accuracy":
            raise DataError(
                "a class takes part in every episode and cannot be left out: ask for episodes of fewer than "
                f"{n} classes"
            )
        return _own_queries(results, other, level)
    without = np.array([flat[~rows].mean() for rows in took_part.T])
    variance, freedom = (n - 1) / n * ((without - without.mean()) ** 2).sum(), n - 1
    method = "jackknife over classes"
    if over == "seeds and classes":
        seeds = _by_seed(values)
        parts = np.array([variance, seeds.var(ddof=1) / len(seeds)])
        variance, method = parts.sum(), "jackknife over classes, t over seeds"
        # Welch and Satterthwaite's degrees of freedom of a sum of variances.
        freedom = variance**2 / (parts**2 / [n - 1, len(seeds) - 1]).sum() if variance else n - 1
    half = float(stats.t.ppf((1 + level) / 2, freedom) * np.sqrt(variance))
    mean = float(flat.mean())
    return Interval(mean, mean - half, mean + half, level, method, n)


def _own_queries(results, other, level):
    """Classes resampled whole, each by its own queries alone."""
    recall = np.stack([r.recall().to_numpy() for r in results])
    if other is not None:
        recall = recall - np.stack([r.recall().to_numpy() for r in other])
    each = np.nanmean(recall, (0, 1))
    each = each[~np.isnan(each)]
    found = bootstrap(np.mean, each, groups=np.arange(len(each)), level=level, random_state=0)
    return replace(found, method="bootstrap over classes by their own queries, too short")


def few_shot_intervals(results: FewShot | Sequence[FewShot], *, level: float = 0.95, **options) -> pd.DataFrame:
    """Every interval that the results allow, one a row: ``over``, ``value``, ``low``, ``high``, ``n``, ``method``.

    `options` are `what` and `against` of :func:`few_shot_interval`.
    """
    several = not isinstance(results, FewShot) and len(results) > 1
    rows = []
    for over in OVER:
        if "seeds" in over and not several:
            continue
        try:
            found = few_shot_interval(results, over, level=level, **options)
        except DataError:
            if over == "episodes":
                raise
            continue
        rows.append({"over": over} | {k: getattr(found, k) for k in ("value", "low", "high", "n", "method")})
    return pd.DataFrame(rows).set_index("over")
