"""Few cells and a large collection: the arms of the relation network's paper, on any studies.

The chapter on relation networks is made of these questions. Each arm is one network: where its weights started, whether
it is clamped, and how many cells of each class it was tuned on::

    genes, lines, cells = on_same_genes((source, "subtype"), {"run 1": (a, "cell_type"), "run 2": (b, "cell_type")})
    met = transfer(lines, cells["run 1"], cells["run 2"], Recipe(), seeds=range(5))
    intervals(met)

Studies are ``(X, y)``: float32 cells × genes, scaled by cell, and one label a cell. An arm of one seed gets the same
cells, episodes and examinations as every other arm of that seed.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy import sparse

from shared.evaluate.episodes import FewShot, FewShotError, few_shot_accuracy, few_shot_interval
from shared.experiments.processes import side_by_side
from shared.methods.tmp import RelationNet
from shared.nn.blocks import use_statistics
from shared.nn.episodes import EpisodeError, EpisodeSampler, few_shot_split, unit_range
from shared.nn.heads import HEADS
from shared.preprocess import log_normalize
from shared.train.episodes import MetaConfig, meta_train


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Sizes, lengths and rates that all arms of an experiment share.

    Parameters
    ----------
    widths, relation : sequence of int
        Of the encoder and the relation network.
    rehearsal : int or dict of clamp to int
        Episodes on the source.
    rehearsal_lr, rehearsal_lr_step : float, int or None
        Adam's rate there, and after how many episodes it is halved.
    tuning, lr, lr_step : int, float, int or None
        The same on the few cells; an arm may have a rate of its own.
    n_way, k_shot, n_query : int
        Classes of an episode, support rows and query rows of each in training. A study of fewer classes is given
        episodes of as many as it has. The code asks 10 queries of each class on bulk and 5 on single cells.
    asked : int
        Queries of each class in an examination.
    exams : int
        Episodes of an examination.
    mode : str
        What batch norms go by there, see :func:`shared.evaluate.few_shot_accuracy`.
    device : str
        See :func:`shared.train.resolve_device`.
    workers : int
        Processes that train networks side by side, on the CPU; the numbers do not depend on it.
    """

    widths: Sequence[int] = (128, 64, 32)
    relation: Sequence[int] = (64, 32)
    rehearsal: int | Mapping[str, int] = 600
    rehearsal_lr: float = 5e-3
    rehearsal_lr_step: int | None = None
    tuning: int = 120
    lr: float = 5e-3
    lr_step: int | None = None
    n_way: int = 5
    k_shot: int = 5
    n_query: int = 5
    asked: int = 10
    exams: int = 50
    mode: str = "transductive"
    device: str = "auto"
    workers: int = 1

    def but(self, **changes) -> Recipe:
        """The same with some changes."""
        return dataclasses.replace(self, **changes)


class Arm(NamedTuple):
    """How a network is made.

    Attributes
    ----------
    start : {"", "source", "scrambled"} or callable
        Random weights; rehearsed on the source; rehearsed on the source with its genes in a random order. Or any
        learner of episodes, as a function of the seed.
    clamp : {"all", "none", "weight"}
        See :class:`shared.methods.tmp.RelationNet`.
    cells : int or None
        Of each class to tune on; 0: none, the network stays as it is; None: all there are.
    lr : float, optional
        Rate of tuning, in place of the recipe's; :func:`with_rates` chooses it.
    """

    start: str | Callable = ""
    clamp: str = "all"
    cells: int | None = 15
    lr: float | None = None


ARMS = {  # the paper's figure 3a, its control, and the two arms that it lacks
    "rehearsed only": Arm("source", "all", 0),
    "from scratch, 15": Arm("", "all", 15),
    "rehearsed, 15": Arm("source", "all", 15),
    "from scratch, all cells": Arm("", "all", None),
    "rehearsed, all cells": Arm("source", "all", None),
    "scrambled genes, 15": Arm("scrambled", "all", 15),
    "free, from scratch, 15": Arm("", "none", 15),
    "free, rehearsed, 15": Arm("source", "none", 15),
}

# Accuracies that the paper reports: figure 3a, tuned on Baron, examined on four other studies of the pancreas; figure
# 2a, 33 cancers of TCGA by episodes of tuning; figure 2b, by classes of TCGA with 15 samples each.
PAPER_ARMS = {
    "rehearsed only": [0.509, 0.530, 0.387, 0.327],
    "from scratch, 15": [0.466, 0.525, 0.418, 0.427],
    "rehearsed, 15": [0.804, 0.708, 0.526, 0.495],
    "from scratch, all cells": [0.922, 0.817, 0.792, 0.837],
    "rehearsed, all cells": [0.931, 0.804, 0.794, 0.866],
}
_EPISODES = [100, 500, 1000, 1500, 2000, 3000, 5000, 7000, 10_000]
PAPER_CURVES = {
    "published, rehearsed": (_EPISODES, [0.872, 0.907, 0.928, 0.929, 0.936, 0.943, 0.938, 0.945, 0.946]),
    "published, from scratch": (_EPISODES, [0.266, 0.340, 0.460, 0.694, 0.829, 0.874, 0.901, 0.920, 0.932]),
}
PAPER_TYPES = {
    "published, rehearsed": ([5, 8, 10], [0.745, 0.783, 0.829]),
    "published, from scratch": ([5, 8, 10], [0.385, 0.528, 0.592]),
}


# Studies.


def on_same_genes(source, studies: Mapping, n_genes: int = 600):
    """Source and studies on the genes they share, the most varied of the source first, each profile scaled to [0, 1].

    Parameters
    ----------
    source : (AnnData, str)
        Log expression or z-scores, and the column of ``obs`` with the labels.
    studies : dict of name to (AnnData, str)
        Those to tune and to examine on. Values may have another unit: each profile is scaled by its own range.
    n_genes : int
        At most so many.

    Returns
    -------
    genes : list of str
    source : (X, y)
    studies : dict of name to (X, y)

    Raises
    ------
    shared.nn.episodes.EpisodeError
        If fewer than two genes are shared.
    """
    everywhere = [set(adata.var_names) for adata, _ in studies.values()]
    common = [g for g in source[0].var_names if all(g in names for names in everywhere)]
    if len(common) < 2:
        raise EpisodeError(f"{len(common)} genes are in all studies: are they named by symbols everywhere?")
    X = source[0][:, common].X
    spread = np.asarray(X.todense() if sparse.issparse(X) else X).std(0)
    genes = [common[i] for i in np.argsort(-spread, kind="stable")[:n_genes]]

    def read(adata, column):
        X = unit_range(adata[:, genes].X)
        return (X.toarray() if sparse.issparse(X) else X), adata.obs[column].to_numpy(str)

    return genes, read(*source), {name: read(*study) for name, study in studies.items()}


def put_aside(y, n: int, seed: int = 0) -> np.ndarray:
    """Rows of `n` classes drawn at random, as a mask: what a rehearsal never meets."""
    return np.isin(y, np.random.default_rng(seed).permutation(np.unique(y))[:n])


# One arm.


def network(n_genes: int, clamp: str, recipe: Recipe, seed: int) -> RelationNet:
    """A fresh network; the seed sets its weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return RelationNet((n_genes, *recipe.widths), recipe.relation, clamp=clamp)


def practise(learner, X, y, recipe: Recipe, seed: int, watch=(), every: int | None = None):
    """Tune a learner on episodes of these cells, in place; `watch` is called every so many episodes."""
    rule = MetaConfig(
        episodes=recipe.tuning,
        lr=recipe.lr,
        lr_step=recipe.lr_step,
        seed=seed,
        log_every=every or max(1, recipe.tuning),
        device=recipe.device,
    )
    if recipe.tuning:
        meta_train(learner, exam_on((X, y), recipe, recipe.n_query), rule, watch)
    return learner


def exam_on(study, recipe: Recipe, asked: int | None = None) -> EpisodeSampler:
    """Where episodes of a study ``(X, y)`` are drawn from; `asked` queries of each class, not the recipe's."""
    X, y = study
    asked = asked or recipe.asked
    large = (np.unique(y, return_counts=True)[1] >= recipe.k_shot + asked).sum()
    return EpisodeSampler(X, y, min(recipe.n_way, max(2, int(large))), recipe.k_shot, asked)


def examine(learner, sampler: EpisodeSampler, recipe: Recipe, seed: int = 0, mode: str | None = None) -> FewShot:
    """Answers to the examinations of one seed, the same for every learner."""
    return few_shot_accuracy(learner, sampler, recipe.exams, mode=mode or recipe.mode, seed=1000 + seed)


def started(arm: Arm, begun: Mapping, n_genes: int, recipe: Recipe, seed: int):
    """The network of an arm before it is tuned; `begun` is of :func:`rehearse`, whose seeds are used in turn."""
    if callable(arm.start):
        with torch.random.fork_rng(devices=[]):  # or its weights would hang on what ran before, in which process
            torch.manual_seed(seed)
            return arm.start(seed)
    if not arm.start:
        return network(n_genes, arm.clamp, recipe, seed)
    seeds = sorted(s for start, clamp, s in begun if (start, clamp) == (arm.start, arm.clamp))
    if not seeds:
        raise FewShotError(f"nothing was rehearsed on {arm.start!r} with clamp={arm.clamp!r}: ask rehearse for it")
    return copy.deepcopy(begun[arm.start, arm.clamp, seeds[seed % len(seeds)]])


def tuned(arm: Arm, begun, study, recipe: Recipe, seed: int, n_classes=None, watch=(), every=None):
    """One arm: the network it starts from, tuned on its cells of a study ``(X, y)``."""
    X, y = study
    learner, recipe = started(arm, begun, X.shape[1], recipe, seed), recipe.but(lr=arm.lr or recipe.lr)
    if arm.cells == 0:
        return learner
    rows = np.arange(len(y)) if arm.cells is None else few_shot_split(y, arm.cells, n_classes, seed=seed)[0]
    return practise(learner, X[rows], y[rows], recipe, seed, watch, every)


# Loops over arms, seeds and studies.


def _rehearsed(source, start, clamp, rule: Recipe, seed, exam):
    """One rehearsal, and how it fared at each third of the way."""
    (X, y), rows = source, []
    mine = X[:, np.random.default_rng(seed).permutation(X.shape[1])] if start == "scrambled" else X

    def look(net, row):
        rows.append((start, clamp, seed, row["episode"], examine(net, exam, rule, seed).accuracy.mean()))

    watch = (look,) if exam is not None and start != "scrambled" else ()
    net = network(X.shape[1], clamp, rule, seed)
    return practise(net, mine, y, rule, seed, watch, max(1, rule.tuning // 3)), rows


def _tuned(name, arm, begun, study, recipe: Recipe, seed, exam, points, short: Recipe):
    """One arm of one seed, and how it fared at the points."""
    rows = []

    def look(net, row):
        if row["episode"] in points:
            rows.append((name, seed, row["episode"], examine(net, exam, short, seed).accuracy.mean()))

    watch, every = ((look,), points[0]) if len(points) and exam is not None else ((), None)
    return tuned(arm, begun, study, recipe, seed, watch=watch, every=every), rows


def _graded(arm, begun, study, recipe: Recipe, seed, n_classes, exam, asked) -> float:
    """Accuracy of one arm of one seed in the examinations of the seed `asked`."""
    return examine(tuned(arm, begun, study, recipe, seed, n_classes), exam, recipe, asked).accuracy.mean()


def _own(begun, arm: Arm) -> dict:
    """Of what was rehearsed, only what an arm starts from: processes are sent no more."""
    return {key: net for key, net in begun.items() if key[:2] == (arm.start, arm.clamp)}


def rehearse(source, wanted: Iterable[tuple[str, str]], recipe: Recipe, seeds, exam: EpisodeSampler | None = None):
    """Networks trained on the source, one a seed.

    Parameters
    ----------
    source : (X, y)
        The labelled collection, without what is put aside.
    wanted : iterable of (start, clamp)
        Such as ``("source", "all")``; ``"scrambled"`` gives every seed an order of genes of its own.
    recipe : Recipe
        Its ``rehearsal`` is the length.
    seeds : iterable of int
        Of first weights, episodes and orders of genes.
    exam : EpisodeSampler, optional
        Classes put aside, to be examined on at each third of the way.

    Returns
    -------
    begun : dict of (start, clamp, seed) to network
    curve : DataFrame
        ``start``, ``clamp``, ``seed``, ``episodes``, ``accuracy``; empty without `exam`. Not of scrambled sources: the
        classes put aside have their genes in place.
    """
    jobs = []
    for start, clamp in wanted:
        length = recipe.rehearsal if isinstance(recipe.rehearsal, int) else recipe.rehearsal[clamp]
        rule = recipe.but(tuning=length, lr=recipe.rehearsal_lr, lr_step=recipe.rehearsal_lr_step)
        jobs += [(source, start, clamp, rule, seed, exam) for seed in seeds]
    done = side_by_side(_rehearsed, jobs, recipe.workers)
    begun = {(start, clamp, seed): net for (_, start, clamp, _, seed, _), (net, _) in zip(jobs, done, strict=True)}
    rows = [row for _, seen in done for row in seen]
    return begun, pd.DataFrame(rows, columns=["start", "clamp", "seed", "episodes", "accuracy"])


def tune_arms(arms: Mapping[str, Arm], begun, study, recipe: Recipe, seeds, exam=None, points=(), glance=None):
    """Every arm with every seed, and how they fared on the way.

    Parameters
    ----------
    arms : dict of name to Arm
        See :data:`ARMS`.
    begun : dict
        Of :func:`rehearse`.
    study : (X, y)
        To draw the cells from.
    recipe : Recipe
        Its ``tuning`` is the length.
    seeds : iterable of int
        Of first weights, cells and episodes.
    exam : EpisodeSampler, optional
        Of the study to be examined on.
    points : sequence of int
        After how many episodes to examine; multiples of the first.
    glance : int, optional
        Episodes of an examination on the way, in place of the recipe's.

    Returns
    -------
    nets : dict of (name, seed) to network
    curve : DataFrame
        ``arm``, ``seed``, ``episodes``, ``accuracy``, at the points.
    """
    short = recipe.but(exams=glance or recipe.exams)
    if any(p % points[0] for p in points):
        raise FewShotError(f"points={tuple(points)} are not multiples of the first")
    jobs = [
        (name, arm, _own(begun, arm), study, recipe, seed, exam, points, short)
        for name, arm in arms.items()
        for seed in seeds
    ]
    done = side_by_side(_tuned, jobs, recipe.workers)
    nets = {(name, seed): net for (name, *_, seed, _, _, _), (net, _) in zip(jobs, done, strict=True)}
    rows = [row for _, seen in done for row in seen]
    return nets, pd.DataFrame(rows, columns=["arm", "seed", "episodes", "accuracy"])


def answers(nets: Mapping, sampler: EpisodeSampler, recipe: Recipe, mode: str | None = None) -> dict[str, list]:
    """By arm, a :class:`shared.evaluate.FewShot` for each seed of ``{(arm, seed): network}``."""
    met: dict[str, list] = {}
    for (name, seed), net in nets.items():
        met.setdefault(name, []).append(examine(net, sampler, recipe, seed, mode))
    return met


def heads(named: Iterable[str], sampler: EpisodeSampler, recipe: Recipe, seeds) -> dict[str, list]:
    """The same for heads of :data:`shared.nn.heads.HEADS`, which are not trained."""
    return {name: [examine(HEADS[name], sampler, recipe, s, "inductive") for s in seeds] for name in named}


def grid(ways: Mapping[str, Arm], sizes: Iterable[tuple[int, int]], begun, study, exam, recipe: Recipe, seeds):
    """Types against cells: accuracy on all classes of `exam` after tuning on some of them.

    `sizes` are (types, cells of each). Returns a DataFrame: ``types``, ``cells``, ``arm``, ``seed``, ``accuracy``.
    """
    asked = [(k, n, name, s) for k, n in sizes for name in ways for s in seeds]
    jobs = [
        (ways[name]._replace(cells=n), _own(begun, ways[name]), study, recipe, s, k, exam, s) for k, n, name, s in asked
    ]
    rows = [(*row, got) for row, got in zip(asked, side_by_side(_graded, jobs, recipe.workers), strict=True)]
    return pd.DataFrame(rows, columns=["types", "cells", "arm", "seed", "accuracy"])


def cross(arms: Mapping[str, Arm], begun, studies: Mapping, recipe: Recipe, seeds, tune_on=None):
    """Tuned on each study, or on those of `tune_on`, and examined on all others.

    Returns
    -------
    dict of (arm, tuned on, examined on) to list of FewShot, one a seed
    """
    exams = {name: exam_on(study, recipe) for name, study in studies.items()}
    met: dict[tuple, list] = {}
    for here in studies if tune_on is None else tune_on:
        nets, _ = tune_arms(arms, begun, studies[here], recipe, seeds)
        for there in studies:
            if there != here:
                for name, found in answers(nets, exams[there], recipe).items():
                    met[name, here, there] = found
    return met


def with_rates(
    arms: Mapping[str, Arm], rates: Iterable[float], source, aside, begun, recipe: Recipe, seeds, n_classes=None
):
    """The arms, each with the rate that suits its kind best on the source; no cell of a study takes part.

    Networks are tuned on some classes of the source and examined on those put aside. A kind is where an arm starts and
    whether it is clamped; a scrambled start takes the rate of the source's, which it is the control of.

    Parameters
    ----------
    arms : dict of name to Arm
        See :data:`ARMS`.
    rates : iterable of float
        To try.
    source : (X, y)
        The labelled collection.
    aside : bool ndarray
        Rows of the classes put aside (:func:`put_aside`), which the rehearsals have not met.
    begun : dict
        Of :func:`rehearse`.
    recipe : Recipe
        Its ``lr`` is not used.
    seeds : iterable of int
        Over which the mean is taken.
    n_classes : int, optional
        To tune on.

    Returns
    -------
    arms : dict of name to Arm
    found : DataFrame
        Mean accuracy, rate × (start, clamp).
    """
    (X, y), found = source, {}
    exam = exam_on((X[aside], y[aside]), recipe, recipe.n_query)
    kinds = {name: ("source" if arm.start == "scrambled" else arm.start, arm.clamp) for name, arm in arms.items()}
    known = X[~aside], y[~aside]
    asked = [Arm(*kind, 15, rate) for kind in dict.fromkeys(kinds.values()) for rate in rates]
    jobs = [(arm, _own(begun, arm), known, recipe, s, n_classes, exam, 0) for arm in asked for s in seeds]
    for job, got in zip(jobs, side_by_side(_graded, jobs, recipe.workers), strict=True):
        found.setdefault((job[0].start, job[0].clamp), {}).setdefault(job[0].lr, []).append(got)
    table = pd.DataFrame({kind: {rate: np.mean(got) for rate, got in by.items()} for kind, by in found.items()})
    table = table.rename_axis("rate")
    return {name: arm._replace(lr=float(table[kinds[name]].idxmax())) for name, arm in arms.items()}, table


@torch.no_grad()
def crowd(net, study, share: float, statistics: str, recipe: Recipe, seed: int, size: int = 40) -> float:
    """Accuracy when `share` of an episode's `size` queries is of one type and the other types part the rest.

    `statistics` is what batch norms go by (:func:`shared.nn.blocks.use_statistics`), and what they are left with.
    """
    sampler, rng = exam_on(study, recipe, size), np.random.default_rng(seed)
    ways = sampler.n_way
    others = round(size / (ways - 1) * (1 - share))
    rows = torch.arange(ways * size).view(ways, size)
    keep = torch.cat([rows[0, : size - (ways - 1) * others], rows[1:, :others].flatten()]).to(sampler.device)
    net, right, n = use_statistics(net.eval(), statistics), [], max(1, recipe.exams // 2)
    for some in np.array_split(np.arange(n), -(-n // 16)):
        shown, asked, target = sampler.batch(len(some), rng)
        called = net.scores(shown, asked[:, keep]).argmax(2)
        right.append((called == target[:, keep]).float().mean(1))
    return torch.cat(right).mean().item()


def crowds(nets: Mapping, study, shares, recipe: Recipe, statistics=("batch", "running", "support"), size: int = 40):
    """:func:`crowd` for every network of ``{(arm, seed): network}``, statistics and share.

    Returns a DataFrame: ``share``, ``arm``, ``statistics``, ``seed``, ``accuracy``. The networks are left with their
    running statistics.
    """
    rows = [
        (share, name, way, seed, crowd(net, study, share, way, recipe, seed, size))
        for (name, seed), net in nets.items()
        for way in statistics
        for share in shares
    ]
    for net in nets.values():
        use_statistics(net, "running")
    return pd.DataFrame(rows, columns=["share", "arm", "statistics", "seed", "accuracy"])


# The paper's own data, and files of your own.


def published(load) -> tuple:
    """The paper's studies, by the catalogue's official routes: GTEx, five studies of pancreas, and TCGA's tumours.

    Parameters
    ----------
    load : callable
        ``load(name, route="official")`` gives an AnnData.

    Returns
    -------
    source, label, studies
        GTEx and its column of tissues, and (AnnData, column) by name of study, as :func:`on_same_genes` takes them.
    """
    gtex, joined, wang, tcga = (load(name, route="official") for name in ("gtex-v8", "pancreas", "wang", "tcga"))
    for adata in (gtex, joined, wang):
        adata.X = log_normalize(adata.X)
    gtex = gtex[:, ~gtex.var["symbol"].duplicated(keep=False)].copy()
    gtex.var_names = gtex.var["symbol"].astype(str)
    techs = {"Baron": "inDrop", "Muraro": "celseq2", "Segerstolpe": "smartseq2", "Xin": "smarter"}
    cells = {k: joined[joined.obs["batch"].astype(str).str.startswith(tech)] for k, tech in techs.items()}
    if "sample_type" in tcga.obs:
        tcga = tcga[tcga.obs["sample_type"].astype(str).str.contains("Tumor|Blood")]
    studies = {k: (v, "cell_type") for k, v in (cells | {"Wang": wang}).items()}
    return gtex, "tissue", studies | {"TCGA": (tcga, "cancer")}


def tissues_and_tumours(tissues, tumours, recipe: Recipe, seeds, sizes, points=(), clamp: str = "all") -> pd.DataFrame:
    """The paper's first results, between two collections of bulk: untuned both ways, the curve, types against cells.

    Parameters
    ----------
    tissues, tumours : (X, y)
        Two labelled collections on the same genes.
    recipe : Recipe
        Sizes and lengths.
    seeds : iterable of int
        Each with a rehearsal of its own.
    sizes : sequence of (int, int)
        Classes and samples of each to tune on, with the rehearsed network and from scratch.
    points : sequence of int
        Where the curves of the largest of `sizes` are examined.
    clamp : str
        Of all networks.

    Returns
    -------
    DataFrame
        ``experiment`` ("untuned", "curve", "sizes"), ``arm``, ``classes``, ``samples``, ``episodes``, ``seed``,
        ``accuracy``.
    """
    ways, rows = {"from scratch": Arm("", clamp), "rehearsed": Arm("source", clamp)}, []
    for name, source, target in (("tissues to tumours", tissues, tumours), ("tumours to tissues", tumours, tissues)):
        begun, _ = rehearse(source, [("source", clamp)], recipe, seeds)
        exam = exam_on(target, recipe)
        for (_, _, seed), net in begun.items():
            rows.append(("untuned", name, 0, 0, 0, seed, examine(net, exam, recipe, seed).accuracy.mean()))
        if target is tissues:
            continue
        table = grid(ways, sizes, begun, target, exam, recipe, seeds)
        rows += [("sizes", r.arm, r.types, r.cells, recipe.tuning, r.seed, r.accuracy) for r in table.itertuples()]
        k, n = max(sizes)
        few = few_shot_split(target[1], n, k, seed=0)[0]
        _, curve = tune_arms(
            {name: arm._replace(cells=None) for name, arm in ways.items()},
            begun, (target[0][few], target[1][few]), recipe, seeds, exam, points,
        )  # fmt: skip
        rows += [("curve", r.arm, k, n, r.episodes, r.seed, r.accuracy) for r in curve.itertuples()]
    return pd.DataFrame(rows, columns=["experiment", "arm", "classes", "samples", "episodes", "seed", "accuracy"])


def transfer(source, here, there, recipe: Recipe, seeds, arms: Mapping[str, Arm] = ARMS, aside: int = 0):
    """The paper's arms on any source and any two studies: rehearse on one, tune on the second, examine on the third.

    Parameters
    ----------
    source, here, there : (X, y)
        Of the same genes in the same order (:func:`on_same_genes`).
    recipe : Recipe
        Sizes and lengths.
    seeds : sequence of int
        Two or more: each has its own rehearsal, cells and examinations.
    arms : dict of name to Arm
        See :data:`ARMS`.
    aside : int
        Classes of the source that are left out of the rehearsal.

    Returns
    -------
    dict of name to list of FewShot
        The arms, and ``"nearest centroid"`` and ``"logistic"`` on the genes; :func:`intervals` makes a table of it.
    """
    X, y = source
    keep = ~put_aside(y, aside)
    wanted = {(a.start, a.clamp): None for a in arms.values() if a.start and not callable(a.start)}
    begun, _ = rehearse((X[keep], y[keep]), wanted, recipe, seeds)
    nets, _ = tune_arms(arms, begun, here, recipe, seeds)
    exam = exam_on(there, recipe)
    return answers(nets, exam, recipe) | heads(("nearest centroid", "logistic"), exam, recipe, seeds)


def intervals(met: Mapping[str, list], over: str = "seeds and classes", against: str | None = None) -> pd.DataFrame:
    """Accuracy of every arm, or what it is above the arm `against`, with the interval that `over` names.

    Returns a DataFrame by arm: ``accuracy``, ``accuracy_low``, ``accuracy_high``. With as many classes in a study as in
    an episode none can be left out; then it is the interval over seeds.
    """
    rows = {}
    for name, found in met.items():
        rival = None if against is None else met[against]
        if name == against:
            continue
        try:
            got = few_shot_interval(found, over, against=rival)
        except FewShotError:
            got = few_shot_interval(found, "seeds", against=rival)
        rows[name] = {"accuracy": got.value, "accuracy_low": got.low, "accuracy_high": got.high}
    return pd.DataFrame.from_dict(rows, orient="index")
