"""Intervals and paired tests: how far a number can be trusted, and whether two differ."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy import stats


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
        """Whether `x` lies outside."""
        return not self.low <= x <= self.high


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


def _check_level(level):
    if not 0 < level < 1:
        raise ValueError(f"level={level} is not between 0 and 1")


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

    References
    ----------
    Efron (1979), The Annals of Statistics 7, 1; Efron and Tibshirani (1993), chapter 13.
    """
    _check_level(level)
    arrays = [np.asarray(a) for a in arrays]
    n = len(arrays[0]) if arrays else 0
    if n < 2 or any(len(a) != n for a in arrays):
        raise ValueError(f"bootstrap needs arrays of one length, two rows or more; got {[len(a) for a in arrays]}")
    if groups is not None and strata is not None:
        raise ValueError("give groups or strata, not both: whole groups cannot keep the size of a stratum")
    rng = np.random.default_rng(random_state)
    if groups is not None:
        names, member = np.unique(np.asarray(groups), return_inverse=True)
        if len(names) < 2:
            raise ValueError("all rows are of one group: there is nothing to resample")
        rows = [np.flatnonzero(member == g) for g in range(len(names))]
        size, method = len(names), "bootstrap over groups"

        def draw():
            return np.concatenate([rows[g] for g in rng.integers(0, size, size)])
    elif strata is not None:
        pools = [np.flatnonzero(np.asarray(strata) == s) for s in np.unique(strata)]
        size, method = n, "stratified bootstrap"

        def draw():
            return np.concatenate([pool[rng.integers(0, len(pool), len(pool))] for pool in pools])
    else:
        size, method = n, "bootstrap"

        def draw():
            return rng.integers(0, n, n)

    value = float(statistic(*arrays))
    resampled = np.empty(n_boot)
    for b in range(n_boot):
        take = draw()
        resampled[b] = statistic(*(a[take] for a in arrays))
    lost = np.isnan(resampled).mean()
    if lost > 0.1:
        raise ValueError(
            f"the statistic is NaN in {lost:.0%} of the resamples: use strata so that no class goes missing"
        )
    low, high = np.nanquantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), level, method, size)


def confusion_bootstrap(y_true, y_pred, n_boot, rng):
    """Resampled confusion tables, class sizes kept: ``n_boot × true classes × called classes``, and the classes.

    Drawing each class's calls from a multinomial gives the same distribution as resampling its cells, without touching
    the cells, so a hundred thousand of them cost no more than a hundred.
    """
    classes, label = np.unique(y_true, return_inverse=True)
    called, call = np.unique(np.concatenate([classes, np.asarray(y_pred)]), return_inverse=True)
    table = np.zeros((len(classes), len(called)))
    np.add.at(table, (label, call[len(classes) :]), 1)
    sizes = table.sum(1).astype(int)
    drawn = np.stack([rng.multinomial(n, row / n, size=n_boot) for n, row in zip(sizes, table, strict=True)], axis=1)
    return drawn.astype(float), table, np.searchsorted(called, classes)


def from_confusion(tables, own):
    """Accuracy, balanced accuracy, macro-F1 and Cohen's kappa of stacked confusion tables.

    ``own[i]`` is the column of true class i. The definitions are those of ``shared.evaluate.metrics``.
    """
    total, hits = tables.sum((-2, -1)), tables[..., np.arange(len(own)), own]
    size, calls = tables.sum(-1), tables.sum(-2)
    agreed, chance = hits.sum(-1) / total, (size * calls[..., own]).sum(-1) / total**2
    with np.errstate(invalid="ignore", divide="ignore"):
        kappa = np.where(chance < 1, (agreed - chance) / (1 - chance), 0.0)
    return {
        "accuracy": agreed,
        "balanced_accuracy": (hits / size).mean(-1),
        "macro_f1": (2 * hits / (size + calls[..., own])).mean(-1),
        "cohen_kappa": kappa,
    }


def _count(k, n):
    if not (0 <= k <= n and n > 0 and int(k) == k and int(n) == n):
        raise ValueError(f"{k} of {n} is no share: give whole numbers with 0 <= k <= n and n > 0")


def clopper_pearson(k, n, level=0.95) -> Interval:
    """Exact binomial interval for `k` right of `n`; never covers less than `level` (Clopper and Pearson 1934)."""
    _check_level(level)
    _count(k, n)
    tail = (1 - level) / 2
    low = stats.beta.ppf(tail, k, n - k + 1) if k > 0 else 0.0
    high = stats.beta.ppf(1 - tail, k + 1, n - k) if k < n else 1.0
    return Interval(k / n, float(low), float(high), level, "Clopper-Pearson", int(n))


def wilson(k, n, level=0.95) -> Interval:
    """Score interval for `k` right of `n`: covers `level` on average, shorter than the exact one (Wilson 1927)."""
    _check_level(level)
    _count(k, n)
    z, p = stats.norm.ppf((1 + level) / 2), k / n
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return Interval(p, float(low if k else 0.0), float(high if k < n else 1.0), level, "Wilson", int(n))


def over_seeds(values, level=0.95) -> Interval:
    """Mean of repeated runs with Student's t interval: what another seed may give, not what other cells may give.

    Runs that are all equal give an interval of no width; fewer than two runs raise ``ValueError``.
    """
    _check_level(level)
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(f"an interval over seeds needs two finite values or more, got {values.tolist()}")
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
    """
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"paired values have shapes {a.shape} and {b.shape}: give one value of each for every pair")
    d = a - b
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


def mcnemar_exact(right_a, right_b) -> Paired:
    """Do two classifiers differ on the same cells? Exact binomial test on the cells where one is right, one wrong.

    Parameters
    ----------
    right_a, right_b : sequences of bool of shape (n_cells,)
        Whether each classifier was right.

    Returns
    -------
    Paired
        ``difference`` is that of the two accuracies, with a Wald interval for paired proportions.

    References
    ----------
    Dietterich (1998), Neural Computation 10, 1895.
    """
    a, b = np.asarray(right_a, dtype=bool), np.asarray(right_b, dtype=bool)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError(
            f"right_a and right_b have shapes {a.shape} and {b.shape}: give one truth value a cell for both"
        )
    n, only_a, only_b = len(a), int((a & ~b).sum()), int((b & ~a).sum())
    differ, mean = only_a + only_b, (only_a - only_b) / n
    p = stats.binomtest(only_a, differ).pvalue if differ else 1.0
    half = stats.norm.ppf(0.975) * np.sqrt(max(differ / n - mean**2, 0) / n)
    return Paired(Interval(mean, mean - half, mean + half, 0.95, "Wald, paired", n), float(p), "McNemar, exact", n)
