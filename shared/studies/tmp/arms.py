"""Networks of a study with few cells: pre-trained, fine-tuned and evaluated, all seeds of an arm stacked into one.

Networks of one seed get the same cells, training episodes and evaluation episodes in every arm. A study is ``(X, y)``:
float32 cells × genes, each profile scaled to [0, 1], and one label a cell.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence

import numpy as np
import torch

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
    """Sizes and lengths that all arms of a study share; ``dataclasses.replace`` changes some.

    Parameters
    ----------
    widths, relation : sequence of int
        Of the encoder and the relation network.
    pretrain_episodes, pretrain_lr : int, float
        Episodes on the source, and Adam's learning rate there, which is halved after each third of them.
    finetune_episodes : int
        Episodes on the few cells; the learning rate there is an argument of :func:`finetune`.
    n_way, k_shot, n_query : int
        Classes of an episode, support rows and query rows of each in training. A study of fewer classes is given
        episodes of as many as it has.
    eval_queries, eval_episodes : int
        Queries of each class in an evaluation episode, and evaluation episodes of a seed.
    device : str
        See :func:`shared.train.resolve_device`.
    """

    widths: Sequence[int] = (128, 64, 32)
    relation: Sequence[int] = (64, 32)
    pretrain_episodes: int = 3000
    pretrain_lr: float = 5e-3
    finetune_episodes: int = 120
    n_way: int = 5
    k_shot: int = 5
    n_query: int = 5
    eval_queries: int = 10
    eval_episodes: int = 50
    device: str = "auto"


def new_networks(n_genes: int, clamp: str, config: StudyConfig, seeds) -> list[RelationNet]:
    """A network with random weights for each seed, which sets them."""
    return [
        seeded(lambda: RelationNet((n_genes, *config.widths), config.relation, clamp=clamp), seed) for seed in seeds
    ]


def pretrain(source, init: str, clamp: str, config: StudyConfig, seeds) -> list[RelationNet]:
    """Networks before they are fine-tuned, one a seed.

    `init` is ``"random"``; ``"source"``, pre-trained on it; or ``"scrambled"``, pre-trained on it with its genes in a
    random order, which is the seed's own.
    """
    X, y = source
    nets = new_networks(X.shape[1], clamp, config, seeds)
    if init == "random":
        return nets
    studies = [source] * len(nets)
    if init == "scrambled":
        studies = [(X[:, np.random.default_rng(seed).permutation(X.shape[1])], y) for seed in seeds]
    third = max(1, -(-config.pretrain_episodes // 3))
    return train(nets, studies, config, seeds, config.pretrain_episodes, config.pretrain_lr, third)


def finetune(
    nets, study, config: StudyConfig, seeds, lr: float, cells=15, n_classes=None, min_size=1, frozen=False
) -> list[RelationNet]:
    """Copies of the networks, fine-tuned on `cells` cells of each class (None: all) of `n_classes` classes (None: all).

    Classes are those of `min_size` cells or more. With `frozen` the weights of the encoder stay as they are.
    """
    X, y = study
    rows = [np.arange(len(y))] * len(seeds)
    if cells is not None:
        rows = [np.sort(few_shot(y, cells, seed, min_size=min_size, n_classes=n_classes)[0]) for seed in seeds]
    studies = [(X[some], y[some]) for some in rows]
    return train(copy.deepcopy(nets), studies, config, seeds, config.finetune_episodes, lr, frozen=frozen)


def train(nets, studies, config: StudyConfig, seeds, episodes: int, lr: float, lr_step=None, frozen=False) -> list:
    """Train the networks in place as one stack, each on episodes of its own study and seed."""
    if not episodes:
        return list(nets)
    stack = RelationNets(nets)
    stack.encoder.requires_grad_(not frozen)
    samplers = EpisodeSamplers([episode_sampler(study, config, config.n_query) for study in studies], seeds)
    how = MetaConfig(episodes=episodes, lr=lr, lr_step=lr_step, log_every=episodes, device=config.device)
    meta_train(stack, samplers, how)
    return [net.cpu() for net in stack.unstack()]


def episode_sampler(study, config: StudyConfig, n_query: int | None = None) -> EpisodeSampler:
    """Where episodes of a study are drawn from; those of the evaluation where `n_query` is left out."""
    X, y = study
    n_query = n_query or config.eval_queries
    large = (np.unique(y, return_counts=True)[1] >= config.k_shot + n_query).sum()
    return EpisodeSampler(X, y, min(config.n_way, max(2, int(large))), config.k_shot, n_query)


def evaluate(learners, study, config: StudyConfig, seeds, mode: str = "transductive", **how) -> list[FewShot]:
    """Predictions for the evaluation episodes of each seed, the same episodes for every arm.

    `learners` is one a seed, or one callable for all; `how` goes to :func:`shared.evaluate.few_shot_accuracy`.
    """
    sampler = study if isinstance(study, EpisodeSampler) else episode_sampler(study, config)
    learners = [learners] * len(seeds) if callable(learners) else learners
    how = {"n_episodes": config.eval_episodes, "mode": mode} | how
    found = []
    for learner, seed in zip(learners, seeds, strict=True):
        if isinstance(learner, torch.nn.Module):
            learner.to(resolve_device(config.device))
        found.append(few_shot_accuracy(learner, sampler, seed=1000 + seed, **how))
    return found
