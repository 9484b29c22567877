"""One arm of a study with few cells: how its network starts, what it is fine-tuned on, how it is evaluated.

All arms of a study share a :class:`StudyConfig`; an :class:`Arm` says what is its own. An arm of one seed gets the same
cells, training episodes and evaluation episodes as every other arm of that seed.
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
from shared.evaluate.splits import few_shot
from shared.methods.tmp import RelationNet
from shared.methods.tmp.stacked import EpisodeSamplers, RelationNets
from shared.methods.torch_method import seeded
from shared.nn.episodes import EpisodeSampler
from shared.train import resolve_device
from shared.train.episodes import MetaConfig, meta_train


@dataclasses.dataclass(frozen=True)
class StudyConfig:
    """Sizes, lengths and learning rates that all arms of a study share; ``dataclasses.replace`` changes some.

    Parameters
    ----------
    widths, relation : sequence of int
        Of the encoder and the relation network.
    pretrain_episodes : int or dict of clamp to int
        Episodes on the source.
    pretrain_lr, pretrain_lr_step : float, int or None
        Adam's learning rate there, and after how many episodes it is halved.
    finetune_episodes, lr, lr_step : int, float, int or None
        The same on the few cells; an arm may have a learning rate of its own.
    n_way, k_shot, n_query : int
        Classes of an episode, support rows and query rows of each in training. A study of fewer classes is given
        episodes of as many as it has. The code draws 10 queries of each class on bulk and 5 on single cells.
    eval_queries : int
        Queries of each class in an evaluation episode.
    eval_episodes : int
        Evaluation episodes of a seed.
    mode : str
        What batch norms go by there, see :func:`shared.evaluate.few_shot_accuracy`.
    device : str
        See :func:`shared.train.resolve_device`.
    workers : int
        Processes that train networks in parallel, on the CPU; the numbers do not depend on it.
    at_once : int
        Seeds of an arm that are trained as stacked networks (:class:`shared.methods.tmp.stacked.RelationNets`). Small
        networks are ready in a third of the time, and differ from those trained in turn by the rounding of sums.
    """

    widths: Sequence[int] = (128, 64, 32)
    relation: Sequence[int] = (64, 32)
    pretrain_episodes: int | Mapping[str, int] = 600
    pretrain_lr: float = 5e-3
    pretrain_lr_step: int | None = None
    finetune_episodes: int = 120
    lr: float = 5e-3
    lr_step: int | None = None
    n_way: int = 5
    k_shot: int = 5
    n_query: int = 5
    eval_queries: int = 10
    eval_episodes: int = 50
    mode: str = "transductive"
    device: str = "auto"
    workers: int = 1
    at_once: int = 1


class Arm(NamedTuple):
    """How a network is made.

    Attributes
    ----------
    init : {"random", "source", "scrambled"} or callable
        Random weights; pre-trained on the source; pre-trained on the source with its genes in a random order. Or any
        learner of episodes, as a function of the seed.
    clamp : {"all", "none", "weight"}
        See :class:`shared.methods.tmp.network.RelationNet`.
    cells : int or None
        Of each class to fine-tune on; 0: none, the network stays as it is; None: all there are.
    lr : float, optional
        Learning rate of fine-tuning, in place of the study's; :func:`shared.studies.tmp.select_lr` chooses it.
    """

    init: str | Callable = "random"
    clamp: str = "all"
    cells: int | None = 15
    lr: float | None = None


class Trained(NamedTuple):
    """A network, and its accuracy on the way: dicts of ``episodes`` and ``accuracy``."""

    net: torch.nn.Module
    curve: list[dict]


@dataclasses.dataclass(frozen=True)
class Pretraining:
    """An arm of the harness: networks trained on the source, watched on held-out classes at each third of the way."""

    init: str
    clamp: str
    config: StudyConfig
    watched: EpisodeSampler | None = None

    def fit_seeds(self, source, seeds) -> list[Trained]:
        """A network for each seed, trained on ``source = (X, y)``."""
        (X, y), config, length = source, self.config, self.config.pretrain_episodes
        length = length if isinstance(length, int) else length[self.clamp]
        config = dataclasses.replace(
            config, finetune_episodes=length, lr=config.pretrain_lr, lr_step=config.pretrain_lr_step
        )
        scrambled = self.init == "scrambled"
        orders = [np.random.default_rng(seed).permutation(X.shape[1]) if scrambled else None for seed in seeds]
        studies = [(X if order is None else X[:, order], y) for order in orders]
        nets = [new_network(X.shape[1], self.clamp, config, seed) for seed in seeds]
        # The held-out classes have their genes in place: scrambled networks are not watched on them.
        look = _Curve(None if scrambled else self.watched, config)
        nets = finetune(nets, studies, config, seeds, look, max(1, length // 3))
        return look.trained(nets, seeds)


@dataclasses.dataclass(frozen=True)
class Finetuning:
    """An arm of the harness: networks fine-tuned on some cells of a study, watched after `points` episodes."""

    arm: Arm
    pretrained: Mapping
    config: StudyConfig
    n_classes: int | None = None
    watched: EpisodeSampler | None = None
    points: Sequence[int] = ()

    def fit_seeds(self, study, seeds) -> list[Trained]:
        """A network for each seed, fine-tuned on cells of ``study = (X, y)``."""
        if callable(self.arm.init) and len(seeds) > 1:  # learners of any kind are trained in turn
            return [trained for seed in seeds for trained in self.fit_seeds(study, [seed])]
        (X, y), arm = study, self.arm
        nets = [initial_network(arm, self.pretrained, X.shape[1], self.config, seed) for seed in seeds]
        look = _Curve(self.watched, self.config, self.points)
        if arm.cells != 0:
            mine = [study] * len(nets)
            if arm.cells is not None:
                few = (few_shot(y, arm.cells, seed, min_size=1, n_classes=self.n_classes)[0] for seed in seeds)
                mine = [(X[rows], y[rows]) for rows in map(np.sort, few)]
            config = dataclasses.replace(self.config, lr=arm.lr or self.config.lr)
            nets = finetune(nets, mine, config, seeds, look, self.points[0] if len(self.points) else None)
        return look.trained(nets, seeds)


class _Curve:
    """Accuracy of networks in training, on evaluation episodes of a sampler: rows by seed."""

    def __init__(self, sampler, config, points=None):
        self.sampler, self.config, self.points = sampler, config, points
        self.rows: dict[int, list] = {}

    def __call__(self, net, seed, row):
        if self.points is None or row["episode"] in self.points:
            accuracy = evaluate(net, self.sampler, self.config, seed).accuracy.mean()
            self.rows[seed].append({"episodes": row["episode"], "accuracy": accuracy})

    def trained(self, nets, seeds) -> list[Trained]:
        """The networks, each with the rows of its seed."""
        return [Trained(net, self.rows.get(seed, [])) for net, seed in zip(nets, seeds, strict=True)]

    def watch(self, seeds):
        """Ready for these seeds: itself, or None where nothing is to be watched."""
        self.rows |= {seed: [] for seed in seeds}
        return None if self.sampler is None or (self.points is not None and not len(self.points)) else self


def new_network(n_genes: int, clamp: str, config: StudyConfig, seed: int) -> RelationNet:
    """A network with random weights, which the seed sets."""
    return seeded(lambda: RelationNet((n_genes, *config.widths), config.relation, clamp=clamp), seed)


def finetune(learners: Sequence, studies: Sequence, config: StudyConfig, seeds, look=None, every=None) -> list:
    """Train learners on episodes, each on a study ``(X, y)`` and with a seed of its own, in place.

    Several relation networks are trained as stacked networks, others in turn. ``look(learner, seed, row)`` is called
    every so many episodes.
    """
    look = look.watch(seeds) if isinstance(look, _Curve) else look
    if not config.finetune_episodes:
        return list(learners)
    samplers = [evaluation_sampler(study, config, config.n_query) for study in studies]
    settings = {"episodes": config.finetune_episodes, "lr": config.lr, "lr_step": config.lr_step}
    settings |= {"log_every": every or config.finetune_episodes, "device": config.device}
    if len(learners) > 1 and all(isinstance(net, RelationNet) for net in learners):
        nets = RelationNets(learners)

        def watch(_, row):
            for net, seed in zip(nets.unstack(), seeds, strict=True):
                look(net, seed, row)

        sampler = EpisodeSamplers(samplers, seeds)
        meta_train(nets, sampler, MetaConfig(**settings, seed=0), () if look is None else (watch,))
        return list(nets.unstack())
    for learner, sampler, seed in zip(learners, samplers, seeds, strict=True):
        watch = () if look is None else (lambda net, row, seed=seed: look(net, seed, row),)
        meta_train(learner, sampler, MetaConfig(**settings, seed=seed), watch)
    return [learner.cpu() for learner in learners]


def evaluation_sampler(study, config: StudyConfig, n_query: int | None = None) -> EpisodeSampler:
    """Where episodes of a study ``(X, y)`` are drawn from; `n_query` of each class, not the evaluation's."""
    X, y = study
    n_query = n_query or config.eval_queries
    large = (np.unique(y, return_counts=True)[1] >= config.k_shot + n_query).sum()
    return EpisodeSampler(X, y, min(config.n_way, max(2, int(large))), config.k_shot, n_query)


@contextlib.contextmanager
def on_device(learner, config: StudyConfig):
    """A learner on the study's device; afterwards, where it was."""
    was = next(learner.parameters(), None) if isinstance(learner, torch.nn.Module) else None
    if was is None:
        yield torch.device("cpu")
        return
    home, place = was.device, resolve_device(config.device)
    try:
        learner.to(place)
        yield place
    finally:
        learner.to(home)


def evaluate(learner, sampler: EpisodeSampler, config: StudyConfig, seed: int = 0, mode: str | None = None) -> FewShot:
    """Predictions for the evaluation episodes of one seed, the same episodes for every learner."""
    with on_device(learner, config):
        return few_shot_accuracy(learner, sampler, config.eval_episodes, mode=mode or config.mode, seed=1000 + seed)


def initial_network(arm: Arm, pretrained: Mapping, n_genes: int, config: StudyConfig, seed: int):
    """The network of an arm before it is fine-tuned.

    `pretrained` is of :func:`shared.studies.tmp.pretrain`; where it has fewer seeds, they are used in turn.
    """
    if callable(arm.init):
        return seeded(lambda: arm.init(seed), seed)  # or its weights would depend on what ran before
    if arm.init == "random":
        return new_network(n_genes, arm.clamp, config, seed)
    seeds = sorted(s for init, clamp, s in pretrained if (init, clamp) == (arm.init, arm.clamp))
    if not seeds:
        raise DataError(f"nothing was pre-trained with init={arm.init!r}, clamp={arm.clamp!r}: ask pretrain for it")
    return copy.deepcopy(pretrained[arm.init, arm.clamp, seeds[seed % len(seeds)]])
