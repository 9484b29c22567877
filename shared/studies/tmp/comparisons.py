"""What pre-training adds: networks from scratch, after the source, and after the source with its genes scrambled."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from shared.data.errors import DataError
from shared.evaluate.episode_intervals import few_shot_interval
from shared.evaluate.episodes import FewShot
from shared.evaluate.intervals import Interval, over_seeds
from shared.evaluate.splits import few_shot
from shared.methods.tmp import RelationNet
from shared.nn.heads import HEADS
from shared.studies.tmp.arms import StudyConfig, episode_sampler, evaluate, finetune, pretrain

RATES = (0.02, 0.002)
CLAMPS = ("all", "weight", "none")
INITS = ("random", "source", "scrambled")
DIFFERENCES = {
    "real_scratch": ("source", "random"),
    "real_scrambled": ("source", "scrambled"),
    "scrambled_scratch": ("scrambled", "random"),
}


class Arm(NamedTuple):
    """One arm: how its encoder is constrained, how its weights begin, its learning rate (None: it is not fine-tuned).

    `clamp` is ``"all"`` (no encoder parameter is negative, as in the code), ``"weight"`` (no weight is, as in the
    paper) or ``"none"``; `init` is of :func:`shared.studies.tmp.pretrain`.
    """

    clamp: str = "all"
    init: str = "source"
    lr: float | None = RATES[0]


class Networks(NamedTuple):
    """The networks of every arm, one a seed, and their results on the study that they are evaluated on."""

    nets: dict[Arm, list[RelationNet]]
    results: dict[Arm, list[FewShot]]


def transfer(source, few, test, config: StudyConfig, seeds, clamps: Sequence[str] = CLAMPS, **how) -> Networks:
    """Every arm: pre-trained on a source, fine-tuned on 15 cells of each class of a second study, evaluated on a third.

    Parameters
    ----------
    source, few, test : (X, y)
        Of the same genes in the same order (:func:`shared.studies.tmp.on_same_genes`).
    config : StudyConfig
        Sizes and lengths.
    seeds : sequence of int
        Two or more: each has its own first weights, pre-training, cells and evaluation episodes.
    clamps : sequence of str
        The constraints; each is combined with every way to begin and every learning rate.
    **how
        See :func:`finetuned`.
    """
    nets = {Arm(clamp, init, None): pretrain(source, init, clamp, config, seeds) for clamp in clamps for init in INITS}
    return finetuned(nets, few, test, config, seeds, **how)


def finetuned(
    nets: Mapping[Arm, list[RelationNet]], few, test, config: StudyConfig, seeds, rates: Sequence[float] = RATES, **how
) -> Networks:
    """Networks that were not fine-tuned, and their copies fine-tuned with each learning rate, all evaluated.

    `how` goes to :func:`shared.studies.tmp.finetune`.
    """
    tuned = {
        arm._replace(lr=lr): finetune(some, few, config, seeds, lr, **how) for arm, some in nets.items() for lr in rates
    }
    every = {**nets, **tuned}
    return Networks(every, {arm: evaluate(some, test, config, seeds) for arm, some in every.items()})


def untuned(networks: Networks, inits: Sequence[str] = INITS, clamp: str = "all") -> dict[Arm, list[RelationNet]]:
    """The networks of some arms before they were fine-tuned, for another :func:`finetuned`."""
    return {Arm(clamp, init, None): networks.nets[Arm(clamp, init, None)] for init in inits}


def interval(found: list[FewShot], against: list[FewShot] | None = None) -> Interval:
    """Mean accuracy, or difference, with its 95 % interval over seeds and classes.

    A study of as many classes as an episode has leaves none out; the interval is over seeds then.
    """
    try:
        return few_shot_interval(found, "seeds and classes", against=against)
    except DataError:
        return few_shot_interval(found, "seeds", against=against)


def differences(results: Mapping[Arm, list[FewShot]]) -> dict:
    """``(clamp, lr)`` to those of the :data:`DIFFERENCES` whose two arms are there, each an interval."""
    return {
        (clamp, lr): {
            name: interval(results[Arm(clamp, a, lr)], results[Arm(clamp, b, lr)])
            for name, (a, b) in DIFFERENCES.items()
            if {Arm(clamp, a, lr), Arm(clamp, b, lr)} <= results.keys()
        }
        for clamp, lr in dict.fromkeys((arm.clamp, arm.lr) for arm in results if arm.lr is not None)
    }


def pooled(intervals: Iterable[Interval]) -> Interval:
    """The mean of some intervals, its ends the means of their ends: exact were all errors alike, else too wide."""
    intervals = list(intervals)
    value, low, high = (float(np.mean([getattr(i, end) for i in intervals])) for end in ("value", "low", "high"))
    return Interval(value, low, high, 0.95, "mean of intervals", len(intervals))


def summary(found: Mapping[str, Networks]) -> dict:
    """What the study claims, of the :class:`Networks` of every pair, over all pairs and learning rates.

    ``least_gain``, ``least_gain_scrambled``: the lowest end of any interval of real or scrambled minus from scratch,
    encoders non-negative. ``order_gain``: real minus scrambled, :func:`pooled`. ``unconstrained_gain``: real minus from
    scratch without the constraint, pooled; where there are such arms.
    """
    every = [item for one in found.values() for item in differences(one.results).items()]
    some, none = ([row for (clamp, _), row in every if clamp == kind] for kind in ("all", "none"))
    said = {
        "least_gain": min(row["real_scratch"].low for row in some),
        "least_gain_scrambled": min(row["scrambled_scratch"].low for row in some),
        "order_gain": pooled(row["real_scrambled"] for row in some),
    }
    return said | ({"unconstrained_gain": pooled(row["real_scratch"] for row in none)} if none else {})


def heads(few, test, config: StudyConfig, seeds) -> dict[str, list[FewShot]]:
    """Heads on the genes, on the evaluation episodes of the networks.

    ``"nearest centroid"`` and ``"logistic"`` see the support alone, 5 cells of each class. ``"logistic, 15 more"`` sees
    what a fine-tuned network has seen: the 15 cells of each class too, each study centred on its own mean.
    """
    found = {name: evaluate(HEADS[name], test, config, seeds, "inductive") for name in ("nearest centroid", "logistic")}
    return found | {"logistic, 15 more": [_with_labels(few, test, config, seed) for seed in seeds]}


def _with_labels(few, test, config, seed, cells=15):
    (X, y), sampler = few, episode_sampler(test, config)
    rows, table = few_shot(y, cells, seed, min_size=1)[0], sampler.X.numpy()
    support, query, classes = sampler.indices(config.eval_episodes, np.random.default_rng(1000 + seed))
    place, scores = np.arange(sampler.n_way), []
    for shown, asked, names in zip(support, query.reshape(len(query), -1), sampler.classes_[classes], strict=True):
        more = rows[np.isin(y[rows], names)]  # a class that this study lacks has its support alone
        here, there = table[shown.ravel()], X[more]
        middle = here.mean(0)
        both = np.concatenate([here - middle, there - there.mean(0)] if len(more) else [here - middle])
        target = np.concatenate([place.repeat(sampler.k_shot), [names.tolist().index(name) for name in y[more]]])
        model = LogisticRegression(max_iter=1000).fit(both, target)
        scores.append(model.predict_proba(table[asked] - middle))
    target = np.tile(place.repeat(query.shape[2]), (len(query), 1))
    return FewShot(np.asarray(sampler.classes_), classes, target, np.stack(scores).astype(np.float32))


def spread(results: Mapping[str, Mapping[Arm, list[FewShot]]], rates=RATES, clamp: str = "all") -> Interval:
    """How many times as large the standard deviation over seeds is from scratch as after pre-training.

    The geometric mean over data sets and learning rates, with the jackknife's interval over seeds.
    """
    accuracy = np.array(
        [
            [[one.accuracy.mean() for one in found[Arm(clamp, init, lr)]] for init in ("random", "source")]
            for found in results.values()
            for lr in rates
        ]
    )

    def ratio(values):
        scratch, pretrained = np.log(values.std(2, ddof=1).clip(1e-4)).T
        return (scratch - pretrained).mean()

    n, whole = accuracy.shape[2], ratio(accuracy)
    pseudo = [n * whole - (n - 1) * ratio(np.delete(accuracy, i, 2)) for i in range(n)]
    half = (lambda got: (got.high - got.low) / 2)(over_seeds(pseudo))
    return Interval(*np.exp([whole, whole - half, whole + half]).tolist(), 0.95, "jackknife over seeds", n)


def sizes(nets: Mapping[Arm, list[RelationNet]], few, test, config: StudyConfig, seeds, asked) -> pd.DataFrame:
    """Classes against cells: a DataFrame of ``init``, ``lr``, ``classes``, ``cells``, ``seed``, ``accuracy``.

    `nets` are of :func:`untuned`, `asked` pairs of (classes, cells of each) to fine-tune on. Of as many classes the
    same are drawn; test episodes are of all classes.
    """
    rows = []
    for k, n in asked:
        least = max(cells for classes, cells in asked if classes == k)
        found = finetuned(nets, few, test, config, seeds, cells=n, n_classes=k, min_size=least).results
        rows += [
            (arm.init, arm.lr, k, n, s, one.accuracy.mean())
            for arm, some in found.items()
            if arm.lr is not None
            for s, one in zip(seeds, some, strict=True)
        ]
    return pd.DataFrame(rows, columns=["init", "lr", "classes", "cells", "seed", "accuracy"])


def of_each(table: pd.DataFrame) -> dict[str, Interval]:
    """Of a table of :func:`sizes` of two numbers of classes and two of cells, what more of each add.

    ``classes``, ``cells``: what more classes, or more cells of as many classes, add; ``classes_cells``: their
    difference. Over seeds; learning rates are averaged.
    """
    at = table.pivot_table(index="seed", columns=["classes", "cells"], values="accuracy")
    (k, n), (more, _), (_, many) = at.columns[0], at.columns[-1], at.columns[1]
    found = {
        "classes": at[more, n] - at[k, n],
        "cells": at[k, many] - at[k, n],
        "classes_cells": at[more, n] - at[k, many],
    }
    return {name: over_seeds(values.to_numpy()) for name, values in found.items()}
