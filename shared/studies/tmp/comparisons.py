"""Arms, seeds and studies: the questions of the relation network's paper, each a loop of the harness."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
import torch

from shared.data.constraints import SettingError
from shared.data.errors import DataError
from shared.evaluate.episode_intervals import few_shot_interval
from shared.evaluate.splits import few_shot
from shared.nn.blocks import use_statistics
from shared.nn.episodes import EpisodeSampler
from shared.nn.heads import HEADS
from shared.studies.harness import fit_arms, run, search
from shared.studies.tmp.arms import Arm, Finetuning, Pretraining, StudyConfig, evaluate, evaluation_sampler, on_device
from shared.studies.tmp.data_sets import hold_out_classes

ARMS = {  # the paper's figure 3a, its control, and the two arms that it lacks
    "pre-trained only": Arm("source", "all", 0),
    "from scratch, 15": Arm("random", "all", 15),
    "pre-trained, 15": Arm("source", "all", 15),
    "from scratch, all cells": Arm("random", "all", None),
    "pre-trained, all cells": Arm("source", "all", None),
    "scrambled genes, 15": Arm("scrambled", "all", 15),
    "unconstrained, from scratch, 15": Arm("random", "none", 15),
    "unconstrained, pre-trained, 15": Arm("source", "none", 15),
}
# How arms start and how their weights are constrained, in words.
WORDS = {
    "random": "from scratch", "source": "pre-trained", "scrambled": "scrambled", "all": "non-negative",
    "none": "unconstrained",
}  # fmt: skip


def _own(pretrained, arm: Arm) -> dict:
    """Of what was pre-trained, only what an arm starts from: processes are sent no more."""
    return {key: net for key, net in pretrained.items() if key[:2] == (arm.init, arm.clamp)}


def _how(config: StudyConfig) -> dict:
    return {"workers": config.workers, "at_once": config.at_once, "errors": "raise"}


def _mean_accuracy(config, one_seed, trained, sampler, seed):
    """Mean accuracy on the evaluation episodes of the seed, or of one seed for all."""
    return evaluate(trained.net, sampler, config, seed if one_seed is None else one_seed).accuracy.mean()


def pretrain(
    source, wanted: Iterable[tuple[str, str]], config: StudyConfig, seeds, watched: EpisodeSampler | None = None
):
    """Networks trained on the source, one a seed.

    Parameters
    ----------
    source : (X, y)
        The labelled collection, without the classes that are held out.
    wanted : iterable of (init, clamp)
        Such as ``("source", "all")``; ``"scrambled"`` gives every seed an order of genes of its own.
    config : StudyConfig
        Its ``pretrain_episodes`` is the length.
    seeds : iterable of int
        Of first weights, episodes and orders of genes.
    watched : EpisodeSampler, optional
        Held-out classes, to be evaluated on at each third of the way.

    Returns
    -------
    pretrained : dict of (init, clamp, seed) to network
    curve : DataFrame
        ``init``, ``clamp``, ``seed``, ``episodes``, ``accuracy``; empty without `watched`. Not of scrambled
        sources: the held-out classes have their genes in place.
    """
    arms = {kind: Pretraining(*kind, config, watched) for kind in map(tuple, wanted)}
    done = {(*kind, seed): one for (_, kind, seed), one in fit_arms(arms, {"": source}, seeds, **_how(config)).items()}
    rows = [(*key, row["episodes"], row["accuracy"]) for key, one in done.items() for row in one.curve]
    curve = pd.DataFrame(rows, columns=["init", "clamp", "seed", "episodes", "accuracy"])
    return {key: one.net for key, one in done.items()}, curve


def finetune_arms(
    arms: Mapping[str, Arm], pretrained, study, config: StudyConfig, seeds, watched=None, points=(), watch_episodes=None
):
    """Every arm with every seed, and its accuracy on the way.

    Parameters
    ----------
    arms : dict of name to Arm
        See :data:`ARMS`.
    pretrained : dict
        Of :func:`pretrain`.
    study : (X, y)
        To draw the cells from.
    config : StudyConfig
        Its ``finetune_episodes`` is the length.
    seeds : iterable of int
        Of first weights, cells and episodes.
    watched : EpisodeSampler, optional
        Of the study to be evaluated on.
    points : sequence of int
        After how many episodes to evaluate; multiples of the first.
    watch_episodes : int, optional
        Evaluation episodes on the way, in place of the study's.

    Returns
    -------
    nets : dict of (name, seed) to network
    curve : DataFrame
        ``arm``, ``seed``, ``episodes``, ``accuracy``, at the points.
    """
    if any(p % points[0] for p in points):
        raise SettingError(f"points={tuple(points)} are not multiples of the first")
    config = dataclasses.replace(config, eval_episodes=watch_episodes or config.eval_episodes)
    how = {"config": config, "watched": watched, "points": points}
    made = {name: Finetuning(arm, _own(pretrained, arm), **how) for name, arm in arms.items()}
    done = {key[1:]: one for key, one in fit_arms(made, {"": study}, seeds, **_how(config)).items()}
    rows = [(*key, row["episodes"], row["accuracy"]) for key, one in done.items() for row in one.curve]
    curve = pd.DataFrame(rows, columns=["arm", "seed", "episodes", "accuracy"])
    return {key: one.net for key, one in done.items()}, curve


def results(nets: Mapping, sampler: EpisodeSampler, config: StudyConfig, mode: str | None = None) -> dict[str, list]:
    """By arm, a :class:`shared.evaluate.FewShot` for each seed of ``{(arm, seed): network}``."""
    found: dict[str, list] = {}
    for (name, seed), net in nets.items():
        found.setdefault(name, []).append(evaluate(net, sampler, config, seed, mode))
    return found


def heads(named: Iterable[str], sampler: EpisodeSampler, config: StudyConfig, seeds) -> dict[str, list]:
    """The same for heads of :data:`shared.nn.heads.HEADS`, which are not trained."""
    return {name: [evaluate(HEADS[name], sampler, config, s, "inductive") for s in seeds] for name in named}


def types_by_cells(
    arms: Mapping[str, Arm], sizes, pretrained, study, watched, config: StudyConfig, seeds
) -> pd.DataFrame:
    """Types against cells: accuracy on all classes of the sampler `watched` after fine-tuning on some of them.

    `sizes` are (types, cells of each). Returns a DataFrame: ``types``, ``cells``, ``arm``, ``seed``, ``accuracy``.
    """
    made = {
        (k, n, name): Finetuning(arm._replace(cells=n), _own(pretrained, arm), config, k)
        for k, n in sizes
        for name, arm in arms.items()
    }
    table = run(made, {"": (study, watched)}, seeds, functools.partial(_mean_accuracy, config, None), **_how(config))
    rows = [(*arm, seed, value) for arm, seed, value in zip(table["arm"], table["seed"], table["value"], strict=True)]
    return pd.DataFrame(rows, columns=["types", "cells", "arm", "seed", "accuracy"])


def cross_studies(arms: Mapping[str, Arm], pretrained, studies: Mapping, config: StudyConfig, seeds, train_on=None):
    """Fine-tuned on each study, or on those of `train_on`, and evaluated on all others.

    Returns
    -------
    dict of (arm, train study, test study) to list of FewShot, one a seed
    """
    samplers = {name: evaluation_sampler(study, config) for name, study in studies.items()}
    found: dict[tuple, list] = {}
    for train in studies if train_on is None else train_on:
        nets, _ = finetune_arms(arms, pretrained, studies[train], config, seeds)
        for test in (name for name in studies if name != train):
            found |= {(name, train, test): got for name, got in results(nets, samplers[test], config).items()}
    return found


def select_lr(
    arms: Mapping[str, Arm], rates: Iterable[float], source, held_out, pretrained, config: StudyConfig, seeds,
    n_classes=None,
):  # fmt: skip
    """The arms, each with the learning rate that suits its kind best on the source; no cell of a study takes part.

    Networks are fine-tuned on some classes of the source and evaluated on those held out. A kind is how an arm starts
    and whether its weights are clamped; a scrambled start takes the learning rate of the source's, whose control it is.

    Parameters
    ----------
    arms : dict of name to Arm
        See :data:`ARMS`.
    rates : iterable of float
        To try.
    source : (X, y)
        The labelled collection.
    held_out : bool ndarray
        Rows of the classes held out (:func:`hold_out_classes`), which no pre-training has seen.
    pretrained : dict
        Of :func:`pretrain`.
    config : StudyConfig
        Its ``lr`` is not used.
    seeds : sequence of int
        Over which the mean is taken.
    n_classes : int, optional
        To fine-tune on.

    Returns
    -------
    arms : dict of name to Arm
    table : DataFrame
        Mean accuracy, learning rate × (init, clamp).
    """
    X, y = source
    sampler = evaluation_sampler((X[held_out], y[held_out]), config, config.n_query)
    kinds = {name: ("source" if arm.init == "scrambled" else arm.init, arm.clamp) for name, arm in arms.items()}
    made = {
        kind: Finetuning(Arm(*kind, 15), _own(pretrained, Arm(*kind)), config, n_classes)
        for kind in dict.fromkeys(kinds.values())
    }
    data = {"": ((X[~held_out], y[~held_out]), sampler)}
    # All seeds are evaluated on the episodes of seed 0, so that learning rates differ in nothing else.
    metric = functools.partial(_mean_accuracy, config, 0)
    chosen, table = search(made, {"lr": rates}, data, seeds, metric, change=_with_lr, **_how(config))
    return {name: arm._replace(lr=chosen[kinds[name]].arm.lr) for name, arm in arms.items()}, table


def _with_lr(made, lr):
    return dataclasses.replace(made, arm=made.arm._replace(lr=lr))


@torch.no_grad()
def _label_shift(net, study, share: float, statistics: str, config: StudyConfig, seed: int, size: int = 40) -> float:
    """Accuracy when `share` of an episode's `size` queries is of one class and the other classes share the rest.

    `statistics` is what batch norms go by (:func:`shared.nn.blocks.use_statistics`), and what they are left with.
    """
    sampler, rng = evaluation_sampler(study, config, size), np.random.default_rng(seed)
    ways = sampler.n_way
    others = round(size / (ways - 1) * (1 - share))
    rows = torch.arange(ways * size).view(ways, size)
    keep = torch.cat([rows[0, : size - (ways - 1) * others], rows[1:, :others].flatten()])
    net, right, n = use_statistics(net.eval(), statistics), [], max(1, config.eval_episodes // 2)
    with on_device(net, config) as place:
        sampler = sampler.to(place)
        for some in np.array_split(np.arange(n), -(-n // 16)):
            support, query, target = sampler.draw(len(some), rng)
            shown, asked, target = sampler.gather(support, query[:, keep], target[:, keep])
            right.append((net.scores(shown, asked).argmax(2) == target).float().mean(1).cpu())
    return torch.cat(right).mean().item()


def label_shift(
    nets: Mapping, study, shares, config: StudyConfig, statistics=("batch", "running", "support"), size: int = 40
):
    """Accuracy of every network of ``{(arm, seed): network}`` as a share of the queries is of one class.

    The other classes of an episode share the rest of its `size` queries. `statistics` are what batch norms go by in
    turn (:func:`shared.nn.blocks.use_statistics`). Returns a DataFrame: ``share``, ``arm``, ``statistics``, ``seed``,
    ``accuracy``. The networks are left with their running statistics.
    """
    rows = [
        (share, name, way, seed, _label_shift(net, study, share, way, config, seed, size))
        for (name, seed), net in nets.items()
        for way in statistics
        for share in shares
    ]
    for net in nets.values():
        use_statistics(net, "running")
    return pd.DataFrame(rows, columns=["share", "arm", "statistics", "seed", "accuracy"])


def tissues_and_tumours(
    tissues, tumours, config: StudyConfig, seeds, sizes, points=(), clamp: str = "all"
) -> pd.DataFrame:
    """The paper's first results, between two collections of bulk: pre-trained only, the curve, types against cells.

    Parameters
    ----------
    tissues, tumours : (X, y)
        Two labelled collections on the same genes.
    config : StudyConfig
        Sizes and lengths.
    seeds : iterable of int
        Each with a pre-training of its own.
    sizes : sequence of (int, int)
        Classes and samples of each to fine-tune on, with the pre-trained network and from scratch.
    points : sequence of int
        Where the curves of the largest of `sizes` are evaluated.
    clamp : str
        Of all networks.

    Returns
    -------
    DataFrame
        ``experiment`` ("pre-trained only", "curve", "sizes"), ``arm``, ``classes``, ``samples``, ``episodes``,
        ``seed``, ``accuracy``.
    """
    ways, rows = {"from scratch": Arm("random", clamp), "pre-trained": Arm("source", clamp)}, []
    for name, source, target in (("tissues to tumours", tissues, tumours), ("tumours to tissues", tumours, tissues)):
        pretrained, _ = pretrain(source, [("source", clamp)], config, seeds)
        sampler = evaluation_sampler(target, config)
        for (_, _, seed), net in pretrained.items():
            rows.append(("pre-trained only", name, 0, 0, 0, seed, evaluate(net, sampler, config, seed).accuracy.mean()))
        if target is tissues:
            continue
        table = types_by_cells(ways, sizes, pretrained, target, sampler, config, seeds)
        rows += [
            ("sizes", r.arm, r.types, r.cells, config.finetune_episodes, r.seed, r.accuracy) for r in table.itertuples()
        ]
        k, n = max(sizes)
        few = np.sort(few_shot(target[1], n, 0, n_classes=k)[0])
        _, curve = finetune_arms(
            {name: arm._replace(cells=None) for name, arm in ways.items()},
            pretrained, (target[0][few], target[1][few]), config, seeds, sampler, points,
        )  # fmt: skip
        rows += [("curve", r.arm, k, n, r.episodes, r.seed, r.accuracy) for r in curve.itertuples()]
    return pd.DataFrame(rows, columns=["experiment", "arm", "classes", "samples", "episodes", "seed", "accuracy"])


def transfer(source, train, test, config: StudyConfig, seeds, arms: Mapping[str, Arm] = ARMS, n_held_out: int = 0):
    """The paper's arms on any source and any two studies: pre-train on one, fine-tune on the next, test on the last.

    Parameters
    ----------
    source, train, test : (X, y)
        Of the same genes in the same order (:func:`on_same_genes`).
    config : StudyConfig
        Sizes and lengths.
    seeds : sequence of int
        Two or more: each has its own pre-training, cells and evaluation episodes.
    arms : dict of name to Arm
        See :data:`ARMS`.
    n_held_out : int
        Classes of the source that are left out of the pre-training.

    Returns
    -------
    dict of name to list of FewShot
        The arms, and ``"nearest centroid"`` and ``"logistic"`` on the genes; :func:`intervals` makes a table of it.
    """
    X, y = source
    keep = ~hold_out_classes(y, n_held_out)
    wanted = {(a.init, a.clamp): None for a in arms.values() if a.init in ("source", "scrambled")}
    pretrained = pretrain((X[keep], y[keep]), wanted, config, seeds)[0] if wanted else {}
    nets, _ = finetune_arms(arms, pretrained, train, config, seeds)
    sampler = evaluation_sampler(test, config)
    return results(nets, sampler, config) | heads(("nearest centroid", "logistic"), sampler, config, seeds)


def intervals(results: Mapping[str, list], over: str = "seeds and classes", against: str | None = None) -> pd.DataFrame:
    """Accuracy of every arm, or what it is above the arm `against`, with the interval that `over` names.

    Returns a DataFrame by arm: ``accuracy``, ``accuracy_low``, ``accuracy_high``. With as many classes in a study as in
    an episode none can be left out; then it is the interval over seeds.
    """
    rows, other = {}, None if against is None else results[against]
    for name, found in results.items():
        if name == against:
            continue
        try:
            got = few_shot_interval(found, over, against=other)
        except DataError:
            got = few_shot_interval(found, "seeds", against=other)
        rows[name] = {"accuracy": got.value, "accuracy_low": got.low, "accuracy_high": got.high}
    return pd.DataFrame.from_dict(rows, orient="index")
