"""Trained networks looked into: embeddings that are alike, unknown classes, and whether scores are probabilities."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch

from shared.evaluate.episodes import few_shot_accuracy, unknown_curve
from shared.methods.tmp import RelationNet
from shared.nn.blocks import use_statistics
from shared.nn.episodes import EpisodeSampler
from shared.studies.harness import fit_arms
from shared.studies.tmp.arms import Arm, Finetuning, StudyConfig, evaluate, evaluation_sampler
from shared.studies.tmp.data_sets import hold_out_classes

RATES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)


@torch.no_grad()
def feature_correlations(nets: Iterable[RelationNet], X) -> list[np.ndarray]:
    """Correlations of an encoder's features over the rows of `X` (cells × genes), pair by pair, one array a network.

    Batch norms go by the rows' own statistics. Features that are the same for all rows are left out.
    """
    rows, found = torch.from_numpy(X), []
    for net in nets:
        Z = use_statistics(copy.deepcopy(net).eval(), "batch").encoder(rows).numpy()
        pairs = np.corrcoef(Z[:, Z.std(0) > 1e-6].T)
        found.append(pairs[np.triu_indices(len(pairs), 1)])
    return found


def _without_new_classes(arm: Arm, pretrained, config: StudyConfig, n_new: int, study, seed: int):
    """A network fine-tuned without some classes, and their names."""
    X, y = study
    new = hold_out_classes(y, n_new, seed)
    (trained,) = Finetuning(arm, pretrained, config).fit_seeds((X[~new], y[~new]), [seed])
    return trained.net, np.unique(y[new])


def open_set(
    arm: Arm,
    train,
    test,
    config: StudyConfig,
    seeds: Sequence[int],
    others: Mapping[str, Callable | Sequence] = {},
    pretrained: Mapping = {},
    n_new: int = 3,
    n_way: int = 6,
    rates: Sequence[float] = RATES,
) -> pd.DataFrame:
    """Open-set recognition: queries of a class without support, and how many of them are rejected.

    For each seed some classes are held out, the arm is fine-tuned on the others, and in every episode one of the
    held-out classes stands among the queries and has no support. A network fine-tuned on all classes knows the class
    that it is asked to reject, and looks better than it is.

    Parameters
    ----------
    arm : Arm
        How the network is made and fine-tuned.
    train, test : (X, y)
        Studies to fine-tune and to evaluate on.
    config : StudyConfig
        Three times its ``eval_episodes`` are drawn; those whose unknown class was held out count, about `n_new` of all
        classes.
    seeds : sequence of int
        Of weights, held-out classes and episodes.
    others : dict of name to callable, or to one callable a seed
        Heads and learners that get the same episodes.
    pretrained : dict
        Of :func:`shared.studies.tmp.pretrain`, where the arm starts from one.
    n_new : int
        Classes held out.
    n_way : int
        Classes of an episode, the unknown one included.
    rates : sequence of float
        False rejection rates: shares of queries of known classes that are rejected.

    Returns
    -------
    DataFrame
        ``model`` (``"fine-tuned without it"`` for the arm), ``seed``, ``false rejection``, ``recall`` of the unknown
        class.

    Raises
    ------
    shared.data.errors.DataError
        If no episode of a seed has one of its held-out classes.
    """
    sampler, rows = EpisodeSampler(*test, n_way, config.k_shot, config.eval_queries), []
    make = functools.partial(_without_new_classes, arm, pretrained, config, n_new)
    made = fit_arms({"": make}, {"": train}, seeds, workers=config.workers)
    for i, (seed, (net, new)) in enumerate(zip(seeds, made.values(), strict=True)):
        models = {"fine-tuned without it": net} | {k: v if callable(v) else v[i] for k, v in others.items()}
        for name, model in models.items():
            found = few_shot_accuracy(model, sampler, 3 * config.eval_episodes, unknown=1, seed=1000 + seed)
            found = found.only(np.isin(found.names[found.classes[:, -1]], new))
            curve = unknown_curve(found, how=None)
            recall = np.interp(rates, 1 - curve["named"], curve["refused"])
            rows += zip([name] * len(rates), [seed] * len(rates), rates, recall, strict=True)
    return pd.DataFrame(rows, columns=["model", "seed", "false rejection", "recall"])


def calibration(models: Mapping[str, tuple], train, test, config: StudyConfig, seeds: Sequence[int], n_bins: int = 10):
    """Expected calibration error of each query alone, as the scores are and with a temperature from another study.

    Parameters
    ----------
    models : dict of name to (callable or one callable a seed, how)
        `how` turns scores into probabilities, see :meth:`shared.evaluate.episodes.FewShot.probabilities`.
    train, test : (X, y)
        Studies to scale the temperature on and to evaluate on.
    config : StudyConfig
        Sizes.
    seeds : sequence of int
        Of the episodes.
    n_bins : int
        Of confidence.

    Returns
    -------
    errors : DataFrame
        ``model``, ``seed``, ``uncalibrated``, ``calibrated``, ``temperature``.
    results : dict of (name, seed) to FewShot
    """
    rows, results = [], {}
    learn, ask = (evaluation_sampler(study, config) for study in (train, test))
    for name, (model, how) in models.items():
        for i, seed in enumerate(seeds):
            one = model if callable(model) else model[i]
            temperature = evaluate(one, learn, config, seed, "inductive").temperature(how)
            results[name, seed] = found = evaluate(one, ask, config, seed, "inductive")
            errors = found.ece(how, n_bins=n_bins), found.ece(how, temperature, n_bins=n_bins)
            rows.append((name, seed, *errors, temperature))
    return pd.DataFrame(rows, columns=["model", "seed", "uncalibrated", "calibrated", "temperature"]), results
