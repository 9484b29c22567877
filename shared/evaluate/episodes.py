"""Few-shot learners judged by episodes: what they get right, how far the number can be trusted, and three controls.

:func:`few_shot_accuracy` asks a learner about many episodes; :func:`few_shot_interval` says how far the mean can be
trusted, and against what. Episodes are cheap, and a thousand of them give a short interval, but they are drawn from a
handful of classes: the interval over episodes says what other cells of these classes would give, not what other classes
would. In simulated worlds of 6 to 20 classes, some of them alike, the 95 % interval over episodes held the accuracy of
new classes in 6 to 13 worlds of 100; the one that leaves each class out held it in 92 to 96 (a test runs such worlds).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import optimize, special, stats

from shared.evaluate.intervals import Interval, _check_level, bootstrap, over_seeds
from shared.evaluate.metrics import auroc, ece, reliability

# What batch norms go by in each mode.
MODES, QUERIES = {"inductive": "running", "support": "support", "transductive": "batch"}, ("all", "one class")
OVER = ("episodes", "seeds", "classes", "seeds and classes")


class FewShotError(ValueError):
    """Episodes cannot be judged as asked; the message names the problem and the cure."""


@dataclass(frozen=True, eq=False)
class FewShot:
    """A learner's answers to some episodes.

    Attributes
    ----------
    names : ndarray
        Labels of the classes that episodes were drawn from.
    classes : int64 ndarray, episodes × classes of an episode
        Which of `names` took part; the last `unknown` of them had no support.
    target : int64 ndarray, episodes × queries
        Place of the query's class among the episode's, class after class; -1 for a class without support.
    scores : float32 ndarray, episodes × queries × classes with support
    mode : {"inductive", "support", "transductive"}
        Whether a query was answered alone, alone but for a look at the support, or with a look at the other queries.
    queries : {"all", "one class"}
        Whether queries came from all classes of an episode, or from one.
    unknown : int
        Classes of an episode that had no support. Accuracy and ARI are of the queries of the others.
    """

    names: np.ndarray
    classes: np.ndarray
    target: np.ndarray
    scores: np.ndarray
    mode: str = "inductive"
    queries: str = "all"
    unknown: int = 0

    def _known(self):
        """Targets and calls of the queries whose class had support, which come first."""
        n = int((self.target[0] >= 0).sum())
        return self.target[:, :n], self.scores[:, :n].argmax(2)

    @property
    def accuracy(self) -> np.ndarray:
        """Share of right calls in each episode; ties go to the lowest number."""
        target, called = self._known()
        return (target == called).mean(1)

    @property
    def ari(self) -> np.ndarray:
        """Adjusted Rand index of each episode's calls and targets; NaN where all queries are of one class."""
        if self.queries == "one class":
            return np.full(len(self.target), np.nan)
        return _ari(*self._known(), self.scores.shape[2])

    def table(self) -> pd.DataFrame:
        """One row an episode: ``accuracy``, ``ari``, and ``classes``, the labels that took part, as a tuple."""
        names = [tuple(row) for row in self.names[self.classes].tolist()]
        table = pd.DataFrame({"accuracy": self.accuracy, "ari": self.ari, "classes": names})
        return table.rename_axis("episode")

    def recall(self) -> pd.DataFrame:
        """Share of right calls, episodes × classes; NaN where a class gave no query, or had no support."""
        target, called = self._known()
        table = np.full((len(target), len(self.names)), np.nan)
        for place in range(self.scores.shape[2]):
            asked = target == place
            with np.errstate(invalid="ignore"):
                share = (asked & (called == place)).sum(1) / asked.sum(1)
            table[np.arange(len(target)), self.classes[:, place]] = share
        return pd.DataFrame(table, columns=self.names).rename_axis("episode")

    def confusion(self) -> pd.DataFrame:
        """How often a query of each class (rows) was called each class (columns), over all episodes."""
        target, called = self._known()
        true, call = (np.take_along_axis(self.classes, x, 1).ravel() for x in (target, called))
        N = len(self.names)
        counts = np.bincount(true * N + call, minlength=N * N).reshape(N, N)
        return pd.DataFrame(counts, pd.Index(self.names, name="true"), pd.Index(self.names, name="called"))

    def probabilities(self, how: str = "softmax", temperature: float = 1.0) -> np.ndarray:
        """Scores turned into numbers that add up to 1 over the classes.

        Parameters
        ----------
        how : {"softmax", "share"}
            ``"share"`` divides scores that are not negative, such as those of a relation network, by their sum.
        temperature : float
            Scores, or with ``"share"`` their logarithms, are divided by it first; see :meth:`temperature`.

        Returns
        -------
        float64 ndarray, episodes × queries × classes with support
        """
        if not temperature > 0:
            raise FewShotError(f"temperature={temperature!r} is not above 0")
        return special.softmax(self._logits(how) / temperature, axis=2)

    def _logits(self, how):
        scores = self.scores.astype(np.float64)
        if how == "softmax":
            return scores
        if how != "share":
            raise FewShotError(f"how={how!r} is not known: 'softmax' or 'share'")
        if (scores < 0).any():
            raise FewShotError("some scores are negative, so they are no shares: use how='softmax'")
        return np.log(scores.clip(1e-12))

    def temperature(self, how: str = "softmax") -> float:
        """The temperature that makes the right classes likeliest: fit it on one set of episodes, use it on another."""
        target, _ = self._known()
        logits = self._logits(how)[:, : target.shape[1]]

        def loss(log_temperature):
            fitted = special.log_softmax(logits / np.exp(log_temperature), axis=2)
            return -np.take_along_axis(fitted, target[:, :, None], 2).mean()

        return float(np.exp(optimize.minimize_scalar(loss, bounds=(-10, 10), method="bounded").x))

    def _flat(self, how, temperature):
        target, called = self._known()
        proba = self.probabilities(how, temperature)[:, : called.shape[1]]
        return target.ravel(), proba.reshape(target.size, -1), np.arange(self.scores.shape[2])

    def reliability(self, how="softmax", temperature=1.0, n_bins=15) -> pd.DataFrame:
        """Confidence against accuracy of all queries; see :func:`shared.evaluate.reliability`."""
        return reliability(*self._flat(how, temperature), n_bins)

    def ece(self, how="softmax", temperature=1.0, n_bins=15) -> float:
        """Mean gap between confidence and accuracy of all queries; see :func:`shared.evaluate.ece`."""
        return ece(*self._flat(how, temperature), n_bins)


def _ari(target, called, n):
    """Adjusted Rand index of each row, from all tables of target against call at once; a library takes ms for each."""
    rows = np.arange(len(target))[:, None]
    tables = np.bincount((rows * n * n + target * n + called).ravel(), minlength=len(target) * n * n)
    tables = tables.reshape(-1, n, n).astype(float)

    def pairs(counts):
        return (counts * (counts - 1) / 2).reshape(len(target), -1).sum(1)

    both, true, call = pairs(tables), pairs(tables.sum(2)), pairs(tables.sum(1))
    chance, most = true * call / max(target.shape[1] * (target.shape[1] - 1) / 2, 1), (true + call) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(most == chance, 1.0, (both - chance) / (most - chance))


# Asking a learner.


def few_shot_accuracy(
    learner: Callable,
    sampler,
    n_episodes: int = 600,
    *,
    mode: str = "inductive",
    queries: str = "all",
    unknown: int = 0,
    permute_genes: int | None = None,
    seed: int = 0,
    batch: int = 16,
) -> FewShot:
    """Ask a learner about episodes that depend on the seed alone, so that learners can be compared on the same ones.

    Parameters
    ----------
    learner : torch.nn.Module with ``scores``, or callable
        From support (episodes × classes × shots × genes) and query (episodes × queries × genes) to scores (episodes ×
        queries × classes), the higher the more alike. A module is asked in evaluation mode, on its own device, and left
        as it was.
    sampler : shared.nn.episodes.EpisodeSampler
        Its own random numbers are left alone.
    n_episodes : int
        How many.
    mode : {"inductive", "support", "transductive"}
        ``"inductive"``: batch norms use their running statistics, and it is made sure that a query alone gets the
        answer it gets among others. ``"support"``: they use the statistics of the episode's support, and the same is
        made sure of. ``"transductive"``: batch norms use the rows at hand, as the published relation
        network does; with classes in equal shares among the queries, that is a hint that no user can give.
    queries : {"all", "one class"}
        ``"one class"`` is the label-shift control: only queries of one class of each episode, drawn at random. What is
        right stays right; a learner that leans on equal shares falls.
    unknown : int
        So many of an episode's classes lose their support; see :func:`unknown_curve`.
    permute_genes : int, optional
        Seed of one order in which the genes of all rows are handed over: the control for a learner trained on another
        order. Heads on the inputs do not notice; what a trained encoder keeps was not about genes.
    seed : int
        Of the episodes.
    batch : int
        Episodes at once; the answer does not depend on it.

    Returns
    -------
    FewShot

    Raises
    ------
    FewShotError
        If a setting cannot be used, scores have the wrong shape or are not finite, or in another mode than
        ``"transductive"`` the answer to a query depends on the others.
    """
    import torch

    _check_settings(sampler, n_episodes, mode, queries, unknown, batch)
    if isinstance(_module(learner), torch.nn.Module):
        sampler = sampler.to(next((p.device for p in _module(learner).parameters()), sampler.device))
    rng = np.random.default_rng(seed)
    support, query, classes = sampler.indices(n_episodes, rng)
    place = np.broadcast_to(np.arange(sampler.n_way)[:, None], query.shape)
    if queries == "one class":
        chosen = rng.integers(sampler.n_way - unknown, size=(n_episodes, 1, 1))
        query, place = (np.take_along_axis(x, chosen, 1) for x in (query, place))
    support, query = support[:, : sampler.n_way - unknown], query.reshape(n_episodes, -1)
    target = np.where(place < sampler.n_way - unknown, place, -1).reshape(n_episodes, -1)
    order = None
    if permute_genes is not None:
        order = np.random.default_rng(permute_genes).permutation(sampler.X.shape[1])
        order = torch.from_numpy(order).to(sampler.device)
    ask, answers = getattr(learner, "scores", learner), []
    with _settled(learner, mode), torch.no_grad():
        for start in range(0, n_episodes, batch):
            some = (x[start : start + batch] for x in (support, query, target))
            rows, asked, _ = sampler.gather(
                *(torch.from_numpy(np.ascontiguousarray(x)).to(sampler.device) for x in some)
            )
            if order is not None:
                rows, asked = rows[..., order], asked[..., order]
            scores = ask(rows, asked)
            if scores.shape != (*asked.shape[:2], rows.shape[1]):
                raise FewShotError(
                    f"the learner gave scores of shape {tuple(scores.shape)}, and episodes × queries × classes is "
                    f"{(*asked.shape[:2], rows.shape[1])}"
                )
            if mode != "transductive" and not answers:
                _check_alone(ask, rows[:1], asked[:1], scores[0])
            answers.append(scores.float().cpu().numpy())
    scores = np.concatenate(answers)
    if not np.isfinite(scores).all():
        raise FewShotError("the learner gave scores that are NaN or infinite: did its training go well?")
    return FewShot(np.asarray(sampler.classes_), classes, target, scores, mode, queries, unknown)


def _check_settings(sampler, n_episodes, mode, queries, unknown, batch):
    for name, value, least in (("n_episodes", n_episodes, 1), ("batch", batch, 1), ("unknown", unknown, 0)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise FewShotError(f"{name}={value!r} is not a whole number from {least} up")
    for name, value, known in (("mode", mode, MODES), ("queries", queries, QUERIES)):
        if value not in known:
            raise FewShotError(f"{name}={value!r} is not known: {' or '.join(map(repr, known))}")
    if sampler.n_way - unknown < 2:
        raise FewShotError(
            f"{unknown} of {sampler.n_way} classes unknown leaves fewer than two: raise the sampler's n_way"
        )


def _check_alone(ask, support, query, scores):
    """In the first episode: the first query alone against the same query among others."""
    change = float((ask(support, query[:, :1])[0, 0] - scores[0]).abs().max())
    if change > 1e-4 + 1e-3 * float(scores.max() - scores.min()):
        raise FewShotError(
            f"a query alone gets other scores than among others (they move by {change:.2g}), so its answer depends on "
            "cells that are asked about: say mode='transductive', or normalise by running statistics"
        )


def _module(learner):
    """The learner, or the module whose bound method it is."""
    return getattr(learner, "__self__", learner)


@contextlib.contextmanager
def _settled(learner, mode):
    """A module in evaluation mode with the statistics the mode names; left as it was found."""
    import torch

    from shared.nn.episodes import EpisodeNorm

    learner = _module(learner)
    if not isinstance(learner, torch.nn.Module):
        yield
        return
    modes = [(m, m.training) for m in learner.modules()]
    norms = [(m, m.at_test) for m in learner.modules() if isinstance(m, EpisodeNorm)]
    try:
        learner.eval()
        for norm, _ in norms:
            norm.at_test = MODES[mode]
        yield
    finally:
        for module, training in modes:
            module.training = training
        for norm, at_test in norms:
            norm.at_test = at_test


# How far a mean can be trusted.


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
    FewShotError
        If results are of several kinds (inductive and transductive, other classes) or too few, or no class can be left
        out.

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
    _check_level(level)
    results, values = _values(results, what)
    if over not in OVER:
        raise FewShotError(f"over={over!r} is not known: {', '.join(OVER)}")
    other = None
    if against is not None:
        other, subtract = _values(against, what)
        same = len(other) == len(results) and all(
            np.array_equal(a.classes, b.classes) and np.array_equal(a.target, b.target)
            for a, b in zip(results, other, strict=True)
        )
        if not same:
            raise FewShotError(
                "the two learners were not asked the same episodes: use one sampler and one seed for both"
            )
        values = values - subtract
    value = float(values.mean())
    if over == "episodes":
        found = replace(over_seeds(values.ravel(), level), method="t over episodes")
    elif over == "seeds":
        found = over_seeds(_by_seed(values), level)
    else:
        found = _over_classes(results, other, values, what, over, level)
    low, high = (0.0 if what == "accuracy" else -1.0, 1.0) if against is None else (-np.inf, np.inf)
    return replace(found, value=value, low=max(found.low, low), high=min(found.high, high))


def _values(results, what):
    """The results as a list, and the value of each episode, seeds × episodes."""
    results = [results] if isinstance(results, FewShot) else list(results)
    if not results:
        raise FewShotError("there is no result")
    if what not in ("accuracy", "ari"):
        raise FewShotError(f"what={what!r} is not known: 'accuracy' or 'ari'")
    kinds = {(r.mode, r.queries, r.unknown, r.classes.shape, tuple(r.names.tolist())) for r in results}
    if len(kinds) > 1:
        raise FewShotError(
            "results differ in mode, queries, unknown classes, labels or number of episodes: report each kind by itself"
        )
    values = np.stack([getattr(r, what) for r in results])
    if np.isnan(values).any():
        raise FewShotError("there is no ARI where all queries are of one class: look at the accuracy")
    return results, values


def _by_seed(values):
    if len(values) < 2:
        raise FewShotError(f"an interval over seeds needs two training runs or more, got {len(values)}")
    return values.mean(1)


def _over_classes(results, other, values, what, over, level):
    took_part = np.concatenate([(r.classes[:, :, None] == np.arange(len(r.names))).any(1) for r in results])
    took_part, flat = took_part[:, took_part.any(0)], values.ravel()
    n = took_part.shape[1]
    if took_part.all(0).any():
        if over != "classes" or what != "accuracy":
            raise FewShotError(
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
        except FewShotError:
            if over == "episodes":
                raise
            continue
        rows.append({"over": over} | {k: getattr(found, k) for k in ("value", "low", "high", "n", "method")})
    return pd.DataFrame(rows).set_index("over")


# "I do not know".


def unknown_curve(result: FewShot, how: str | None = "softmax", temperature: float = 1.0) -> pd.DataFrame:
    """What a threshold on the top score does: below it, a query is called unknown.

    Parameters
    ----------
    result : FewShot
        Asked with ``unknown=1`` or more.
    how : {"softmax", "share"} or None
        Threshold on probabilities (:meth:`FewShot.probabilities`), or with None on the scores as they are: a softmax
        only compares classes, and a cell like none of them can be called one with confidence.
    temperature : float
        See :meth:`FewShot.probabilities`.

    Returns
    -------
    DataFrame
        One row a threshold, rising: ``threshold``; ``named``, the share of known queries that are named; ``accuracy``
        among these (NaN where there is none); ``refused``, the share of unknown queries called unknown. At most 200
        rows, at the quantiles of the top score. ``attrs["auroc"]``: how well the top score tells known from unknown.

    Raises
    ------
    FewShotError
        If no class of the episodes was unknown.
    """
    if not result.unknown or not (result.target < 0).any():
        raise FewShotError("no query is of an unknown class: ask few_shot_accuracy with unknown=1, queries='all'")
    graded = result.scores.astype(np.float64) if how is None else result.probabilities(how, temperature)
    top, known = graded.max(2).ravel(), (result.target >= 0).ravel()
    right = (result.scores.argmax(2) == result.target).ravel()[known]
    thresholds = np.unique(np.quantile(top, np.linspace(0, 1, 200), method="inverted_cdf"))
    rows = []
    for threshold in thresholds:
        named = top[known] >= threshold
        rows.append(
            {
                "threshold": threshold,
                "named": named.mean(),
                "accuracy": right[named].mean() if named.any() else np.nan,
                "refused": (top[~known] < threshold).mean(),
            }
        )
    table = pd.DataFrame(rows)
    table.attrs["auroc"] = auroc(known.astype(int), np.column_stack([-top, top]), classes=[0, 1])
    return table
