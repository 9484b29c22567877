"""Networks under examination: features alike, a type that nobody showed, and whether scores are probabilities.

Studies are ``(X, y)`` as in :mod:`shared.experiments.arms`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch

from shared.evaluate.episodes import few_shot_accuracy, unknown_curve
from shared.experiments.arms import Arm, Recipe, exam_on, examine, tuned
from shared.experiments.processes import side_by_side
from shared.experiments.studies import put_aside
from shared.methods.tmp import RelationNet
from shared.nn.blocks import use_statistics
from shared.nn.episodes import EpisodeSampler

PRICES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)


@torch.no_grad()
def likeness(nets: Iterable[RelationNet], X) -> list[np.ndarray]:
    """Correlations of an encoder's features over the rows of `X` (cells × genes), pair by pair, one array a network.

    Batch norms go by the rows' own statistics. Features that are the same for all rows are left out.
    """
    rows, found = torch.from_numpy(X), []
    for net in nets:
        Z = use_statistics(copy.deepcopy(net).eval(), "batch").encoder(rows).numpy()
        pairs = np.corrcoef(Z[:, Z.std(0) > 1e-6].T)
        found.append(pairs[np.triu_indices(len(pairs), 1)])
    return found


def _careful(arm: Arm, begun, here, recipe: Recipe, seed: int, n_new: int):
    """A network tuned without some types, and their names."""
    X, y = here
    new = put_aside(y, n_new, seed)
    return tuned(arm, begun, (X[~new], y[~new]), recipe, seed), np.unique(y[new])


def strangers(
    arm: Arm,
    here,
    there,
    recipe: Recipe,
    seeds: Sequence[int],
    others: Mapping[str, Callable | Sequence] = {},
    begun: Mapping = {},
    n_new: int = 3,
    n_way: int = 6,
    prices: Sequence[float] = PRICES,
) -> pd.DataFrame:
    """Cells of a type without support: how many are refused, at the price of how many good ones.

    For each seed some types are put aside, the arm is tuned on the others, and in every episode one of the types put
    aside stands among the queries and has no support. A network tuned on all types has met the stranger before it is
    asked to refuse it, and looks better than it is.

    Parameters
    ----------
    arm : Arm
        How the network is made and tuned.
    here, there : (X, y)
        Studies to tune and to examine on.
    recipe : Recipe
        Three times its ``exams`` are drawn; those whose stranger was put aside count, about `n_new` of all types.
    seeds : sequence of int
        Of weights, types put aside and episodes.
    others : dict of name to callable, or to one callable a seed
        Heads and learners to meet the same episodes.
    begun : dict
        Of :func:`shared.experiments.tmp.rehearse`, where the arm starts from a rehearsal.
    n_new : int
        Types put aside.
    n_way : int
        Types of an episode, the stranger's included.
    prices : sequence of float
        Shares of good cells refused.

    Returns
    -------
    DataFrame
        ``model`` (``"tuned without it"`` for the arm), ``seed``, ``price``, ``caught``.

    Raises
    ------
    shared.data.errors.DataError
        If no episode of a seed has one of its strangers.
    """
    sampler, rows = EpisodeSampler(*there, n_way, recipe.k_shot, recipe.asked), []
    made = side_by_side(_careful, [(arm, begun, here, recipe, s, n_new) for s in seeds], recipe.workers)
    for i, (seed, (net, new)) in enumerate(zip(seeds, made, strict=True)):
        judges = {"tuned without it": net} | {k: v if callable(v) else v[i] for k, v in others.items()}
        for name, judge in judges.items():
            found = few_shot_accuracy(judge, sampler, 3 * recipe.exams, unknown=1, seed=1000 + seed)
            found = found.only(np.isin(found.names[found.classes[:, -1]], new))
            curve = unknown_curve(found, how=None)
            caught = np.interp(prices, 1 - curve["named"], curve["refused"])
            rows += zip([name] * len(prices), [seed] * len(prices), prices, caught, strict=True)
    return pd.DataFrame(rows, columns=["model", "seed", "price", "caught"])


def calibration(judges: Mapping[str, tuple], here, there, recipe: Recipe, seeds: Sequence[int], n_bins: int = 10):
    """Expected calibration error of each query alone, as the scores are and with a temperature learned elsewhere.

    Parameters
    ----------
    judges : dict of name to (callable or one callable a seed, how)
        `how` turns scores into probabilities, see :meth:`shared.evaluate.episodes.FewShot.probabilities`.
    here, there : (X, y)
        Studies to learn the temperature on and to examine on.
    recipe : Recipe
        Sizes.
    seeds : sequence of int
        Of the episodes.
    n_bins : int
        Of confidence.

    Returns
    -------
    errors : DataFrame
        ``judge``, ``seed``, ``plain``, ``warmed``, ``temperature``.
    answers : dict of (name, seed) to FewShot
    """
    rows, answers, (learn, ask) = [], {}, (exam_on(study, recipe) for study in (here, there))
    for name, (judge, how) in judges.items():
        for i, seed in enumerate(seeds):
            one = judge if callable(judge) else judge[i]
            heat = examine(one, learn, recipe, seed, "inductive").temperature(how)
            answers[name, seed] = found = examine(one, ask, recipe, seed, "inductive")
            rows.append((name, seed, found.ece(how, n_bins=n_bins), found.ece(how, heat, n_bins=n_bins), heat))
    return pd.DataFrame(rows, columns=["judge", "seed", "plain", "warmed", "temperature"]), answers
