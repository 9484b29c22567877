"""Few cells and a large collection: the arms of the relation network's paper, on any studies.

The chapter on relation networks is made of these questions. Each arm is one network: where its weights started, whether
it is clamped, and how many cells of each class it was tuned on::

    genes, lines, cells = on_same_genes((source, "subtype"), {"run 1": (a, "cell_type"), "run 2": (b, "cell_type")})
    met = transfer(lines, cells["run 1"], cells["run 2"], Recipe(), seeds=range(5))
    intervals(met)

Studies are ``(X, y)``: float32 cells × genes, scaled by cell, and one label a cell (:mod:`shared.experiments.studies`).
How one arm is made stands in :mod:`shared.experiments.arms`; here are the loops over arms, seeds and studies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain

import numpy as np
import pandas as pd
import torch

from shared.data.constraints import SettingError
from shared.data.errors import DataError
from shared.evaluate.episode_intervals import few_shot_interval
from shared.experiments.arms import (  # noqa: F401  an arm by hand, under one roof with the loops
    Arm,
    Recipe,
    exam_on,
    examine,
    network,
    on_device,
    practise,
    practise_together,
    started,
    teams,
    tuned,
    tuned_together,
)
from shared.experiments.processes import side_by_side
from shared.experiments.reported import PAPER_ARMS, PAPER_CURVES, PAPER_NUMBERS, PAPER_TYPES  # noqa: F401
from shared.experiments.studies import on_same_genes, published, put_aside  # noqa: F401
from shared.nn.blocks import use_statistics
from shared.nn.episodes import EpisodeSampler, few_shot_split
from shared.nn.heads import HEADS

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
# Where arms start and how they are clamped, in words.
KINDS = {"": "from scratch", "source": "rehearsed", "scrambled": "scrambled", "all": "clamped", "none": "free"}


def _rehearsed(source, start, clamp, rule: Recipe, seeds, exam):
    """Rehearsals of one kind, and how they fared at each third of the way."""
    (X, y), rows = source, {seed: [] for seed in seeds}

    def look(net, seed, row):
        rows[seed].append((start, clamp, seed, row["episode"], examine(net, exam, rule, seed).accuracy.mean()))

    order = [np.random.default_rng(seed).permutation(X.shape[1]) if start == "scrambled" else None for seed in seeds]
    studies = [(X if mine is None else X[:, mine], y) for mine in order]
    nets = [network(X.shape[1], clamp, rule, seed) for seed in seeds]
    watch = look if exam is not None and start != "scrambled" else None
    nets = practise_together(nets, studies, rule, seeds, watch, max(1, rule.tuning // 3))
    return {(start, clamp, seed): net for seed, net in zip(seeds, nets, strict=True)}, [*chain(*rows.values())]


def _tuned(name, arm, begun, study, recipe: Recipe, seeds, exam, points, short: Recipe):
    """One arm of some seeds, and how it fared at the points."""
    rows = {seed: [] for seed in seeds}

    def look(net, seed, row):
        if row["episode"] in points:
            rows[seed].append((name, seed, row["episode"], examine(net, exam, short, seed).accuracy.mean()))

    watch, every = (look, points[0]) if len(points) and exam is not None else (None, None)
    nets = tuned_together(arm, begun, study, recipe, seeds, look=watch, every=every)
    return {(name, seed): net for seed, net in zip(seeds, nets, strict=True)}, [*chain(*rows.values())]


def _gathered(function, jobs, recipe: Recipe, columns):
    """Networks by name, and how they fared on the way, of all jobs of :func:`_rehearsed` or :func:`_tuned`."""
    done = side_by_side(function, jobs, recipe.workers)
    nets = {name: net for some, _ in done for name, net in some.items()}
    return nets, pd.DataFrame([row for _, seen in done for row in seen], columns=columns)


def _graded(arm, begun, study, recipe: Recipe, seeds, n_classes, exam, asked) -> list[float]:
    """Accuracy of one arm of some seeds, in the examinations of the seeds `asked`."""
    nets = tuned_together(arm, begun, study, recipe, seeds, n_classes)
    return [examine(net, exam, recipe, s).accuracy.mean() for net, s in zip(nets, asked, strict=True)]


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
        jobs += [(source, start, clamp, rule, team, exam) for team in teams(seeds, recipe)]
    return _gathered(_rehearsed, jobs, recipe, ["start", "clamp", "seed", "episodes", "accuracy"])


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
        raise SettingError(f"points={tuple(points)} are not multiples of the first")
    jobs = [
        (name, arm, _own(begun, arm), study, recipe, team, exam, points, short)
        for name, arm in arms.items()
        for team in teams(seeds, recipe, arm)
    ]
    return _gathered(_tuned, jobs, recipe, ["arm", "seed", "episodes", "accuracy"])


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
    asked = [(k, n, name, team) for k, n in sizes for name in ways for team in teams(seeds, recipe, ways[name])]
    jobs = [
        (ways[name]._replace(cells=n), _own(begun, ways[name]), study, recipe, team, k, exam, team)
        for k, n, name, team in asked
    ]
    done = zip(asked, side_by_side(_graded, jobs, recipe.workers), strict=True)
    rows = [(k, n, name, *one) for (k, n, name, team), got in done for one in zip(team, got, strict=True)]
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
        for there in (name for name in studies if name != here):
            found = answers(nets, exams[there], recipe)
            met |= {(name, here, there): results for name, results in found.items()}
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
    jobs = [
        (arm, _own(begun, arm), known, recipe, team, n_classes, exam, [0] * len(team))
        for arm in asked
        for team in teams(seeds, recipe)
    ]
    for (arm, *_), got in zip(jobs, side_by_side(_graded, jobs, recipe.workers), strict=True):
        found.setdefault((arm.start, arm.clamp), {}).setdefault(arm.lr, []).extend(got)
    table = pd.DataFrame({kind: {rate: np.mean(got) for rate, got in by.items()} for kind, by in found.items()})
    table = table.rename_axis("rate").rename_axis(["start", "clamp"], axis=1)
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
    keep = torch.cat([rows[0, : size - (ways - 1) * others], rows[1:, :others].flatten()])
    net, right, n = use_statistics(net.eval(), statistics), [], max(1, recipe.exams // 2)
    with on_device(net, recipe) as place:
        sampler = sampler.to(place)
        for some in np.array_split(np.arange(n), -(-n // 16)):
            support, query, target = sampler.draw(len(some), rng)
            shown, asked, target = sampler.gather(support, query[:, keep], target[:, keep])
            right.append((net.scores(shown, asked).argmax(2) == target).float().mean(1).cpu())
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
    rows, rival = {}, None if against is None else met[against]
    for name, found in met.items():
        if name == against:
            continue
        try:
            got = few_shot_interval(found, over, against=rival)
        except DataError:
            got = few_shot_interval(found, "seeds", against=rival)
        rows[name] = {"accuracy": got.value, "accuracy_low": got.low, "accuracy_high": got.high}
    return pd.DataFrame.from_dict(rows, orient="index")
