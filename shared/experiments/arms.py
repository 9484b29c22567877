"""One arm of an experiment with few cells: where its network starts, what it is tuned on, how it is examined.

All arms of an experiment share a :class:`Recipe`; an :class:`Arm` says what is its own. An arm of one seed gets the
same cells, episodes and examinations as every other arm of that seed.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from shared.data.errors import DataError
from shared.evaluate.episodes import FewShot, few_shot_accuracy
from shared.methods.tmp import RelationNet
from shared.methods.tmp.stacked import EpisodeSamplers, RelationNets
from shared.methods.torch_method import seeded
from shared.nn.episodes import EpisodeSampler, few_shot_split
from shared.train import resolve_device
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
    together : int
        Seeds of an arm that are trained as one network (:class:`shared.methods.tmp.stacked.RelationNets`). Small
        networks are ready in a third of the time, and differ from those trained in turn by the rounding of sums.
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
    together: int = 1

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
        See :class:`shared.methods.tmp.network.RelationNet`.
    cells : int or None
        Of each class to tune on; 0: none, the network stays as it is; None: all there are.
    lr : float, optional
        Rate of tuning, in place of the recipe's; :func:`with_rates` chooses it.
    """

    start: str | Callable = ""
    clamp: str = "all"
    cells: int | None = 15
    lr: float | None = None


def network(n_genes: int, clamp: str, recipe: Recipe, seed: int) -> RelationNet:
    """A fresh network; the seed sets its weights."""
    return seeded(lambda: RelationNet((n_genes, *recipe.widths), recipe.relation, clamp=clamp), seed)


def practise(learner, X, y, recipe: Recipe, seed: int, watch=(), every: int | None = None):
    """Tune a learner on episodes of these cells, in place; `watch` is called every so many episodes."""
    if recipe.tuning:
        meta_train(learner, exam_on((X, y), recipe, recipe.n_query), _rule(recipe, seed, every), watch)
    return learner.cpu()


def practise_together(learners: Sequence, studies: Sequence, recipe: Recipe, seeds, look=None, every=None) -> list:
    """Tune several learners, each on its own cells and with its own seed, in place.

    Relation networks are trained as one, others in turn. ``look(learner, seed, row)`` is called every so many episodes.
    """
    if len(learners) == 1 or not recipe.tuning or not all(isinstance(net, RelationNet) for net in learners):
        watch = [() if look is None else (lambda net, row, s=seed: look(net, s, row),) for seed in seeds]
        each = zip(learners, studies, seeds, watch, strict=True)
        return [practise(net, *study, recipe, seed, mine, every) for net, study, seed, mine in each]
    nets = RelationNets(learners)
    samplers = EpisodeSamplers([exam_on(study, recipe, recipe.n_query) for study in studies], seeds)

    def watch(_, row):
        for net, seed in zip(nets.unstack(), seeds, strict=True):
            look(net, seed, row)

    meta_train(nets, samplers, _rule(recipe, 0, every), () if look is None else (watch,))
    return list(nets.unstack())


def _rule(recipe, seed, every):
    return MetaConfig(
        episodes=recipe.tuning,
        lr=recipe.lr,
        lr_step=recipe.lr_step,
        seed=seed,
        log_every=every or max(1, recipe.tuning),
        device=recipe.device,
    )


def teams(seeds, recipe: Recipe, arm: Arm | None = None) -> list[list[int]]:
    """The seeds in teams of those that are trained as one."""
    seeds, size = list(seeds), 1 if arm is not None and callable(arm.start) else recipe.together
    return [seeds[i : i + size] for i in range(0, len(seeds), size)]


def exam_on(study, recipe: Recipe, asked: int | None = None) -> EpisodeSampler:
    """Where episodes of a study ``(X, y)`` are drawn from; `asked` queries of each class, not the recipe's."""
    X, y = study
    asked = asked or recipe.asked
    large = (np.unique(y, return_counts=True)[1] >= recipe.k_shot + asked).sum()
    return EpisodeSampler(X, y, min(recipe.n_way, max(2, int(large))), recipe.k_shot, asked)


@contextlib.contextmanager
def on_device(learner, recipe: Recipe):
    """A learner on the recipe's device; afterwards, where it was."""
    was = next(learner.parameters(), None) if isinstance(learner, torch.nn.Module) else None
    if was is None:
        yield torch.device("cpu")
        return
    home, place = was.device, resolve_device(recipe.device)
    try:
        learner.to(place)
        yield place
    finally:
        learner.to(home)


def examine(learner, sampler: EpisodeSampler, recipe: Recipe, seed: int = 0, mode: str | None = None) -> FewShot:
    """Answers to the examinations of one seed, the same for every learner."""
    with on_device(learner, recipe):
        return few_shot_accuracy(learner, sampler, recipe.exams, mode=mode or recipe.mode, seed=1000 + seed)


def started(arm: Arm, begun: Mapping, n_genes: int, recipe: Recipe, seed: int):
    """The network of an arm before it is tuned; `begun` is of :func:`rehearse`, whose seeds are used in turn."""
    if callable(arm.start):
        return seeded(lambda: arm.start(seed), seed)  # or its weights would depend on what ran before
    if not arm.start:
        return network(n_genes, arm.clamp, recipe, seed)
    seeds = sorted(s for start, clamp, s in begun if (start, clamp) == (arm.start, arm.clamp))
    if not seeds:
        raise DataError(f"nothing was rehearsed on {arm.start!r} with clamp={arm.clamp!r}: ask rehearse for it")
    return copy.deepcopy(begun[arm.start, arm.clamp, seeds[seed % len(seeds)]])


def tuned(arm: Arm, begun, study, recipe: Recipe, seed: int, n_classes=None):
    """One arm: the network it starts from, tuned on its cells of a study ``(X, y)``."""
    return tuned_together(arm, begun, study, recipe, [seed], n_classes)[0]


def tuned_together(arm: Arm, begun, study, recipe: Recipe, seeds, n_classes=None, look=None, every=None) -> list:
    """The same for several seeds, as :func:`practise_together` tunes them."""
    X, y = study
    nets = [started(arm, begun, X.shape[1], recipe, seed) for seed in seeds]
    if arm.cells == 0:
        return nets
    mine = [study] * len(nets)
    if arm.cells is not None:
        few = (few_shot_split(y, arm.cells, n_classes, seed=seed)[0] for seed in seeds)
        mine = [(X[rows], y[rows]) for rows in few]
    return practise_together(nets, mine, recipe.but(lr=arm.lr or recipe.lr), seeds, look, every)
