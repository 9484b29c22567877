"""Few-shot learners judged by episodes: what they get right, three controls, and when they had better not answer.

:func:`few_shot_accuracy` asks a learner about many episodes; :mod:`shared.evaluate.episode_intervals` says how far the
mean can be trusted, and :func:`unknown_curve` what a threshold does for classes that nobody showed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import optimize, special

from shared.data.constraints import OneOf, Positive, SettingError, Whole, check, require
from shared.data.errors import DataError
from shared.evaluate.metrics import auroc, ece, reliability

# What batch norms go by in each mode.
MODES = {"inductive": "running", "support": "support", "transductive": "batch"}


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

    def only(self, keep) -> FewShot:
        """Some of the episodes: `keep` is a mask or row numbers.

        Raises
        ------
        DataError
            If none is kept.
        """
        some = {name: getattr(self, name)[keep] for name in ("classes", "target", "scores")}
        if not len(some["classes"]):
            raise DataError(f"none of the {len(self.classes)} episodes is kept: ask for more")
        return replace(self, **some)

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
        require(Positive(), temperature=temperature)
        return special.softmax(self._logits(how) / temperature, axis=2)

    def _logits(self, how):
        require(OneOf("softmax", "share"), how=how)
        scores = self.scores.astype(np.float64)
        if how == "softmax":
            return scores
        if (scores < 0).any():
            raise DataError("some scores are negative, so they are no shares: use how='softmax'")
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
    DataError
        If scores have the wrong shape or are not finite, or in another mode than ``"transductive"`` the answer to a
        query depends on the others.
    SettingError
        If a setting cannot be used.
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
    order = slice(None)
    if permute_genes is not None:
        permuted = np.random.default_rng(permute_genes).permutation(sampler.X.shape[1])
        order = torch.from_numpy(permuted).to(sampler.device)
    ask, answers = getattr(learner, "scores", learner), []
    with _evaluating(learner, mode), torch.no_grad():
        for start in range(0, n_episodes, batch):
            some = (x[start : start + batch] for x in (support, query, target))
            rows, asked, _ = sampler.gather(
                *(torch.from_numpy(np.ascontiguousarray(x)).to(sampler.device) for x in some)
            )
            rows, asked = rows[..., order], asked[..., order]
            scores = ask(rows, asked)
            if scores.shape != (*asked.shape[:2], rows.shape[1]):
                raise DataError(
                    f"the learner gave scores of shape {tuple(scores.shape)}, and episodes × queries × classes is "
                    f"{(*asked.shape[:2], rows.shape[1])}"
                )
            if mode != "transductive" and not answers:
                _check_alone(ask, rows[:1], asked[:1], scores[0])
            answers.append(scores.float().cpu().numpy())
    scores = np.concatenate(answers)
    if not np.isfinite(scores).all():
        raise DataError("the learner gave scores that are NaN or infinite: did its training go well?")
    return FewShot(np.asarray(sampler.classes_), classes, target, scores, mode, queries, unknown)


def _check_settings(sampler, n_episodes, mode, queries, unknown, batch):
    check(
        {"n_episodes": n_episodes, "batch": batch, "unknown": unknown, "mode": mode, "queries": queries},
        {
            "n_episodes": Whole(1),
            "batch": Whole(1),
            "unknown": Whole(),
            "mode": OneOf(*MODES),
            "queries": OneOf("all", "one class"),
        },
    )
    if sampler.n_way - unknown < 2:
        raise SettingError(
            f"unknown={unknown} of {sampler.n_way} classes leaves fewer than two: raise the sampler's n_way"
        )


def _check_alone(ask, support, query, scores):
    """In the first episode: the first query alone against the same query among others."""
    change = float((ask(support, query[:, :1])[0, 0] - scores[0]).abs().max())
    if change > 1e-4 + 1e-3 * float(scores.max() - scores.min()):
        raise DataError(
            f"a query alone gets other scores than among others (they move by {change:.2g}), so its answer depends on "
            "cells that are asked about: say mode='transductive', or normalise by running statistics"
        )


def _module(learner):
    """The learner, or the module whose bound method it is."""
    return getattr(learner, "__self__", learner)


@contextlib.contextmanager
def _evaluating(learner, mode):
    """A module in evaluation mode with the statistics the mode names; left as it was found."""
    import torch

    from shared.nn.episodes import EpisodeNorm

    learner = _module(learner)
    if not isinstance(learner, torch.nn.Module):
        yield
        return
    norms = [m for m in learner.modules() if isinstance(m, EpisodeNorm)]
    before = [(m, "training", m.training) for m in learner.modules()] + [(m, "at_test", m.at_test) for m in norms]
    try:
        learner.eval()
        for norm in norms:
            norm.at_test = MODES[mode]
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


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
    DataError
        If no class of the episodes was unknown.
    """
    if not result.unknown or not (result.target < 0).any():
        raise DataError("no query is of an unknown class: ask few_shot_accuracy with unknown=1, queries='all'")
    graded = result.scores.astype(np.float64) if how is None else result.probabilities(how, temperature)
    top, known = graded.max(2).ravel(), (result.target >= 0).ravel()
    right = (result.scores.argmax(2) == result.target).ravel()[known]
    thresholds = np.unique(np.quantile(top, np.linspace(0, 1, 200), method="inverted_cdf"))
    named = top[known] >= thresholds[:, None]
    with np.errstate(invalid="ignore"):
        accuracy = (named & right).sum(1) / named.sum(1)
    refused = (top[~known] < thresholds[:, None]).mean(1)
    columns = {"threshold": thresholds, "named": named.mean(1), "accuracy": accuracy, "refused": refused}
    table = pd.DataFrame(columns)
    table.attrs["auroc"] = auroc(known.astype(int), np.column_stack([-top, top]), classes=[0, 1])
    return table
