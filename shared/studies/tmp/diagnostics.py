"""Trained networks looked into: statistics of a batch, embeddings that are alike, unknown classes, calibration."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch

from shared.evaluate.episodes import MODES, unknown_curve
from shared.methods.tmp import RelationNet
from shared.nn.blocks import use_statistics
from shared.nn.episodes import EpisodeSampler
from shared.studies.tmp.arms import StudyConfig, episode_sampler, evaluate, finetune, new_networks
from shared.studies.tmp.data_sets import hold_out_classes


def batch_statistics(nets: Mapping[str, Sequence[RelationNet]], test, config: StudyConfig, seeds) -> pd.DataFrame:
    """Accuracy by what batch norms go by, for queries of all classes in equal shares and for queries of one class.

    Returns a DataFrame: ``network``, ``statistics`` ("batch", "running", "support"), ``queries`` ("all", "one class"),
    ``seed``, ``accuracy``.
    """
    rows = []
    for name, some in nets.items():
        for mode, statistics in MODES.items():
            for queries in ("all", "one class"):
                found = evaluate(some, test, config, seeds, mode, queries=queries)
                rows += [
                    (name, statistics, queries, s, one.accuracy.mean()) for s, one in zip(seeds, found, strict=True)
                ]
    return pd.DataFrame(rows, columns=["network", "statistics", "queries", "seed", "accuracy"])


def one_type_loss(table: pd.DataFrame) -> np.ndarray:
    """Of one network's :func:`batch_statistics`, by seed: what a batch of one class loses by its own statistics.

    It is the accuracy with the statistics stored in training minus that with the batch's own.
    """
    one = table[table["queries"] == "one class"].pivot_table("accuracy", "seed", "statistics")
    return (one["running"] - one["batch"]).to_numpy()


@torch.no_grad()
def feature_correlations(nets: Iterable[RelationNet], X) -> list[float]:
    """Mean correlation of two features of an encoder over the rows of `X` (cells × genes), one number a network.

    Batch norms go by the rows' own statistics. Features that are the same for all rows are left out.
    """
    rows, found = torch.from_numpy(X), []
    for net in nets:
        Z = use_statistics(copy.deepcopy(net).cpu().eval(), "batch").encoder(rows).numpy()
        pairs = np.corrcoef(Z[:, Z.std(0) > 1e-6].T)
        found.append(float(pairs[np.triu_indices(len(pairs), 1)].mean()))
    return found


def open_set(
    few, test, config: StudyConfig, seeds, others: Mapping, lr=0.002, clamp="none", n_new=3, n_way=6, share=0.1
):
    """Open-set recognition: recall of a class without support where `share` of the other queries is rejected too.

    For each seed `n_new` classes are held out, a network from scratch is fine-tuned on the others, and in every episode
    one of the held-out classes stands among the queries and has no support. `others`, names to callables, get the same
    episodes.

    Returns
    -------
    DataFrame
        Recall of the unknown class, seed × model; ``"fine-tuned without it"`` is the network.

    Raises
    ------
    shared.data.errors.DataError
        If no episode of a seed has one of its held-out classes.
    """
    (X, y), sampler, rows = few, EpisodeSampler(*test, n_way, config.k_shot, config.eval_queries), {}
    for seed in seeds:
        new = hold_out_classes(y, n_new, seed)
        net = finetune(new_networks(X.shape[1], clamp, config, [seed]), (X[~new], y[~new]), config, [seed], lr)[0]
        rows[seed] = {}
        for name, model in {"fine-tuned without it": net, **others}.items():
            (found,) = evaluate(
                [model], sampler, config, [seed], "inductive", n_episodes=3 * config.eval_episodes, unknown=1
            )
            found = found.only(np.isin(found.names[found.classes[:, -1]], np.unique(y[new])))
            curve = unknown_curve(found, how=None)
            rows[seed][name] = np.interp(share, 1 - curve["named"], curve["refused"])
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("seed")


def calibration(learners, how: str, few, test, config: StudyConfig, seeds, n_bins: int = 10) -> pd.DataFrame:
    """Expected calibration error of each query alone, uncalibrated and with a temperature from the other study.

    `learners` are as :func:`shared.studies.tmp.evaluate` takes them; `how` turns scores into probabilities, see
    :meth:`shared.evaluate.episodes.FewShot.probabilities`. Returns ``uncalibrated``, ``calibrated`` by seed.
    """
    scaled, found = (evaluate(learners, episode_sampler(s, config), config, seeds, "inductive") for s in (few, test))
    rows = [
        {"uncalibrated": b.ece(how, n_bins=n_bins), "calibrated": b.ece(how, a.temperature(how), n_bins=n_bins)}
        for a, b in zip(scaled, found, strict=True)
    ]
    return pd.DataFrame(rows, index=pd.Index(seeds, name="seed"))
