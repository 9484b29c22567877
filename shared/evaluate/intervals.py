"""Intervals and paired tests: how far a number can be trusted, and whether two differ."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from itertools import islice, product

import numpy as np
import pandas as pd
from scipy import stats

from shared.data.cells import array_of
from shared.data.constraints import Between, Whole, check, require
from shared.data.errors import DataError
from shared.evaluate.metrics import HARD, paired_labels
from shared.evaluate.splits import as_column

LEVEL = Between(0, 1)


@dataclass(frozen=True)
class Interval:
    """A value with its interval.

    Attributes
    ----------
    value, low, high : float
    level : float
        Coverage the interval aims at.
    method : str
        How it was made.
    n : int
        What it rests on: cells, groups or seeds.
    """

    value: float
    low: float
    high: float
    level: float = 0.95
    method: str = ""
    n: int = 0

    def __format__(self, spec):
        spec = spec or ".2f"
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"

    def __str__(self):
        return format(self)

    def excludes(self, x: float) -> bool:
        """Whether `x` lies outside. An interval with an unknown end excludes nothing on that side."""
        return bool(x < self.low or x > self.high)


@dataclass(frozen=True)
class Paired:
    """Two things measured on the same cells, donors or seeds: their mean difference, and how surprising it is.

    Attributes
    ----------
    difference : Interval
    p : float
        Two-sided.
    method : str
    n : int
        Pairs.
    """

    difference: Interval
    p: float
    method: str
    n: int

    def __str__(self):
        return f"{self.difference:+.3f}, p = {self.p:.2g} ({self.method}, {self.n} pairs)"


def bootstrap(statistic, *arrays, n_boot=1000, groups=None, strata=None, level=0.95, random_state=None) -> Interval:
    """Percentile bootstrap: resample rows with replacement, recompute, take the middle `level` of the results.

    Parameters
    ----------
    statistic : callable
        Takes the resampled arrays, returns a number. Resamples where it is NaN are left out; if more than one in ten
        is, the statistic is not fit for this and an error says so.
    *arrays : sequences of shape (n, ...)
        Resampled together by row.
    n_boot : int, default 1000
        Resamples.
    groups : sequence of shape (n,), optional
        Resample whole groups (donors), not rows: the interval then speaks for new donors.
    strata : sequence of shape (n,), optional
        Keep the number of rows in each stratum, for example of each class; not together with `groups`.
    level : float, default 0.95
        Coverage aimed at.
    random_state : int, optional
        Makes the resamples repeatable.

    Returns
    -------
    Interval
        ``n`` is the number of rows, or of groups.

    Raises
    ------
    DataError
        If lengths differ, a row has no group or stratum, there are fewer than two rows or groups, or the statistic is
        NaN too often.
    SettingError
        If `n_boot` or `level` cannot be used.

    Notes
    -----
    Two shortcuts change the time and not the distribution. ``accuracy``, ``balanced_accuracy``, ``macro_f1`` and
    ``cohen_kappa`` of this package are computed from resampled confusion tables, never from resampled cells. A
    statistic with an ``axis`` argument, such as ``np.mean``, gets many resamples of one-dimensional arrays at once.

    With few groups (fewer than about twenty) the interval is too short: it covers less than `level`.

    References
    ----------
    Efron (1979), The Annals of Statistics 7, 1; Efron and Tibshirani (1993), chapter 13.
    """
    check({"n_boot": n_boot, "level": level}, {"n_boot": Whole(2), "level": LEVEL})
    arrays = [array_of(a, "each array") for a in arrays]
    if any(a.ndim == 0 for a in arrays):
        raise DataError(
            "bootstrap needs arrays with one row a cell; turn sparse matrices and single numbers into those"
        )
    lengths = [len(a) for a in arrays]
    if not arrays or lengths[0] < 2 or len(set(lengths)) > 1:
        raise DataError(f"bootstrap needs arrays of one length, two rows or more; got {lengths}")
    if groups is not None and strata is not None:
        raise DataError("give groups or strata, not both: whole groups cannot keep the size of a stratum")
    whole, member, found = groups is not None, None, ()
    if whole or strata is not None:
        values = as_column(groups if whole else strata, lengths[0], "groups" if whole else "strata")
        member, found = pd.factorize(values, sort=True)
    if whole and len(found) < 2:
        raise DataError("all rows are of one group: there is nothing to resample")
    method = "bootstrap over groups" if whole else "bootstrap" if strata is None else "stratified bootstrap"
    rng = np.random.default_rng(random_state)

    value = float(statistic(*arrays))
    if statistic in HARD.values() and len(arrays) == 2:
        resampled = _from_tables(statistic, arrays, member, len(found), whole, n_boot, rng)
    else:
        resampled = _from_rows(statistic, arrays, _drawer(lengths[0], member, len(found), whole, rng), n_boot)
    lost = np.isnan(resampled).mean()
    if lost > 0.1:
        raise DataError(
            f"the statistic is NaN in {lost:.0%} of the resamples: use strata so that no class goes missing"
        )
    low, high = np.nanquantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), level, method, len(found) if whole else lengths[0])


def _drawer(n, member, n_members, whole, rng):
    """A function that draws the rows of one resample."""
    if member is None:
        return lambda: rng.integers(0, n, n)
    rows = [np.flatnonzero(member == i) for i in range(n_members)]
    if whole:
        return lambda: np.concatenate([rows[i] for i in rng.integers(0, n_members, n_members)])
    return lambda: np.concatenate([pool[rng.integers(0, len(pool), len(pool))] for pool in rows])


def _from_rows(statistic, arrays, draw, n_boot):
    """The statistic of each resample: of many at once where it can, else one by one. Both draw the same rows."""
    takes, resampled = (draw() for _ in range(n_boot)), []
    takes_many = all(a.ndim == 1 for a in arrays) and _has_axis(statistic)
    while block := list(islice(takes, max(1, BLOCK // len(arrays[0])))):
        # Whole groups of unequal size make no rectangle.
        rectangle = takes_many and len({len(take) for take in block}) == 1
        values = np.asarray(statistic(*(a[np.stack(block)] for a in arrays), axis=1)) if rectangle else None
        if values is None or values.shape != (len(block),):
            values = [statistic(*(a[take] for a in arrays)) for take in block]
        resampled += list(values)
    return np.array(resampled, dtype=float)


def _has_axis(statistic):
    try:
        return "axis" in inspect.signature(statistic).parameters
    except (TypeError, ValueError):
        return False


# Numbers held at once while resampling: 32 MB of them.
BLOCK = 4_000_000


def _from_tables(statistic, labels, member, n_members, whole, n_boot, rng):
    """A metric of two label arrays over resampled confusion tables, as :func:`confusion_bootstrap` explains."""
    y_true, y_pred = paired_labels(*labels)
    name = next(name for name, metric in HARD.items() if metric is statistic)
    part = np.zeros(len(y_true), dtype=int) if member is None else member
    tables, own = _tables(y_true, y_pred, part, max(1, n_members))
    flat = tables.reshape(len(tables), -1)
    resampled, step = [], max(1, BLOCK // flat[0].size)
    for start in range(0, n_boot, step):
        n = min(step, n_boot - start)
        if whole:
            drawn = rng.multinomial(len(flat), np.full(len(flat), 1 / len(flat)), size=n) @ flat
        else:
            drawn = sum(rng.multinomial(int(row.sum()), row / row.sum(), size=n) for row in flat)
        resampled.append(from_confusion(drawn.reshape(n, *tables.shape[1:]).astype(float), own)[name])
    return np.concatenate(resampled)


def _tables(y_true, y_pred, part, n_parts):
    """Confusion table of each part, ``parts × true classes × called classes``, and the column of each true class."""
    classes, label = np.unique(y_true, return_inverse=True)
    called, call = np.unique(np.concatenate([classes, y_pred]), return_inverse=True)
    shape = (n_parts, len(classes), len(called))
    where = np.ravel_multi_index((part, label, call[len(classes) :]), shape)
    return np.bincount(where, minlength=np.prod(shape)).reshape(shape), np.searchsorted(called, classes)


def confusion_bootstrap(y_true, y_pred, n_boot, rng):
    """Resampled confusion tables, class sizes kept: ``n_boot × true classes × called classes``; the table; own columns.

    Drawing each class's calls from a multinomial gives the same distribution as resampling its cells, without touching
    the cells, so a hundred thousand of them cost no more than a hundred.
    """
    y_true, y_pred = paired_labels(y_true, y_pred)
    tables, own = _tables(y_true, y_pred, np.zeros(len(y_true), dtype=int), 1)
    table = tables[0].astype(float)
    drawn = np.stack([rng.multinomial(int(row.sum()), row / row.sum(), size=n_boot) for row in table], axis=1)
    return drawn.astype(float), table, own


def from_confusion(tables, own):
    """Accuracy, balanced accuracy, macro-F1 and Cohen's kappa of stacked confusion tables.

    ``own[i]`` is the column of true class i. The definitions are those of ``shared.evaluate.metrics``: a class of which
    a table holds no cell has no part in that table's averages.
    """
    total, hits = tables.sum((-2, -1)), tables[..., np.arange(len(own)), own]
    size, calls = tables.sum(-1), tables.sum(-2)
    agreed, chance = hits.sum(-1) / total, (size * calls[..., own]).sum(-1) / total**2
    present, n = size > 0, (size > 0).sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        kappa = np.where(chance < 1, (agreed - chance) / (1 - chance), 0.0)
        recall = np.where(present, hits / size, 0)
        f1 = np.where(present, 2 * hits / (size + calls[..., own]), 0)
    return {
        "accuracy": agreed,
        "balanced_accuracy": recall.sum(-1) / n,
        "macro_f1": f1.sum(-1) / n,
        "cohen_kappa": kappa,
    }


def _binomial(k, n, level, how, method):
    require(LEVEL, level=level)
    if not (0 <= k <= n and n > 0 and int(k) == k and int(n) == n):
        raise DataError(f"{k} of {n} is no share: give whole numbers with 0 <= k <= n and n > 0")
    low, high = stats.binomtest(int(k), int(n)).proportion_ci(level, how)
    return Interval(k / n, float(low), float(high), level, method, int(n))


def clopper_pearson(k, n, level=0.95) -> Interval:
    """Exact binomial interval for `k` right of `n`; never covers less than `level` (Clopper and Pearson 1934)."""
    return _binomial(k, n, level, "exact", "Clopper-Pearson")


def wilson(k, n, level=0.95) -> Interval:
    """Score interval for `k` right of `n`: covers `level` on average, shorter than the exact one (Wilson 1927)."""
    return _binomial(k, n, level, "wilson", "Wilson")


def over_seeds(values, level=0.95) -> Interval:
    """Mean of repeated runs with Student's t interval: what another seed may give, not what other cells may give.

    Runs that are all equal give an interval of no width; fewer than two runs raise ``DataError``.
    """
    require(LEVEL, level=level)
    values = array_of(values, "values", float)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise DataError(f"an interval over seeds needs two finite values or more, got {values.tolist()}")
    half = stats.t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    mean = float(values.mean())
    return Interval(mean, mean - float(half), mean + float(half), level, "t over seeds", len(values))


def paired_test(a, b, level=0.95, n_perm=10_000, random_state=0) -> Paired:
    """Is `a` larger than `b` on the same seeds, donors or data sets? Sign-flip permutation test of the mean difference.

    Exact (all sign patterns) up to twelve pairs, otherwise `n_perm` random ones. With n pairs no p can be below
    2 / 2**n: five seeds cannot show more than p = 0.0625.

    Parameters
    ----------
    a, b : sequences of shape (n_pairs,)
        One value of each for every pair.
    level : float, default 0.95
        Of the t interval of the difference.
    n_perm : int, default 10000
        Random sign patterns, where not all are tried.
    random_state : int, default 0
        Of the random patterns.

    Returns
    -------
    Paired

    Raises
    ------
    DataError
        If the shapes differ, there are fewer than two pairs, or one is not finite.

    References
    ----------
    Fisher (1935), The Design of Experiments, section 21.
    """
    a, b = array_of(a, "a", float), array_of(b, "b", float)
    if a.shape != b.shape or a.ndim != 1:
        raise DataError(f"paired values have shapes {a.shape} and {b.shape}: give one value of each for every pair")
    d = a - b
    if len(d) < 2 or not np.isfinite(d).all():
        raise DataError(
            f"a paired test needs two pairs or more, all finite; got {len(d)}, {int((~np.isfinite(d)).sum())} of them "
            f"not: drop a pair as a whole"
        )
    difference = over_seeds(d, level)
    n, observed = len(d), abs(d.mean())
    close = 1e-12 * max(1.0, np.abs(d).max())
    if n <= 12:
        flips, method = np.array(list(product([1, -1], repeat=n))), "exact sign flips"
        p = (np.abs(flips @ d) / n >= observed - close).mean()
    else:
        flips, method = np.random.default_rng(random_state).choice([1, -1], (n_perm, n)), "random sign flips"
        p = (1 + (np.abs(flips @ d) / n >= observed - close).sum()) / (n_perm + 1)
    return Paired(difference, float(p), method, n)


def mcnemar_exact(right_a, right_b, level=0.95) -> Paired:
    """Do two classifiers differ on the same cells? Exact binomial test on the cells where one is right, one wrong.

    Parameters
    ----------
    right_a, right_b : sequences of bool of shape (n_cells,)
        Whether each classifier was right.
    level : float, default 0.95
        Of the interval of the difference.

    Returns
    -------
    Paired
        ``difference`` is that of the two accuracies, with Agresti and Min's interval (half a cell added to each entry
        of the two-by-two table), which has a width even where the two never differ.

    Raises
    ------
    DataError
        If the shapes differ, there is no cell, or the values are not truth values.

    References
    ----------
    Dietterich (1998), Neural Computation 10, 1895; Agresti and Min (2005), Statistics in Medicine 24, 729.
    """
    require(LEVEL, level=level)
    a, b = array_of(right_a, "right_a"), array_of(right_b, "right_b")
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise DataError(
            f"right_a and right_b have shapes {a.shape} and {b.shape}: give one truth value a cell for both"
        )
    if not all(np.isin(right, [0, 1]).all() for right in (a, b)):
        raise DataError("right_a and right_b hold other values than True and False: give y_pred == y_true of each")
    a, b = a.astype(bool), b.astype(bool)
    n, only_a, only_b = len(a), int((a & ~b).sum()), int((b & ~a).sum())
    differ, gap = only_a + only_b, only_a - only_b
    p = stats.binomtest(only_a, differ).pvalue if differ else 1.0
    half = stats.norm.ppf((1 + level) / 2) * np.sqrt(differ + 1 - gap**2 / (n + 2)) / (n + 2)
    low, high = max(-1.0, gap / (n + 2) - float(half)), min(1.0, gap / (n + 2) + float(half))
    return Paired(Interval(gap / n, low, high, level, "Agresti-Min", n), float(p), "McNemar, exact", n)
