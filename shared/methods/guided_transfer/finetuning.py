"""Fine-tuning of a network by a strategy, whichever it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils import parametrize

from shared.data.constraints import require
from shared.methods.guided_transfer.strategies import Full
from shared.methods.torch_method import ONE_PROCESS
from shared.train import Config, History, fit


def classify_step(net: torch.nn.Module, *batch: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of a batch: what the network takes of each cell, then int64 classes."""
    *inputs, target = batch
    return cross_entropy(net(*inputs), target)


def finetune(
    net: torch.nn.Module,
    encoder: torch.nn.Module,
    strategy: Full,
    columns: Sequence,
    config: Config | None = None,
    *,
    step: Callable = classify_step,
    keep_statistics: bool = True,
    **more,
) -> History:
    """Train a network, in place, by a strategy.

    Parameters
    ----------
    net, encoder : torch.nn.Module
        A network, and the pre-trained part of it.
    strategy : shared.methods.guided_transfer.strategies.Full
        Or what extends it: Frozen, BitFit, L2SP, EWC, LoRA, Guided.
    columns, config, step, more
        As :func:`shared.train.fit` takes them.
    keep_statistics : bool
        Running statistics of the encoder's norms stay those of its pre-training, and are what it normalises by, in
        every strategy alike: no strategy speaks of them, and few cells have none worth the name.

    Returns
    -------
    shared.train.History
    """
    require(ONE_PROCESS, devices=1 if config is None else config.devices)
    plan = strategy(net, encoder)

    def planned(net, *batch):
        if net.training:
            rest(encoder, plan.evaluates, keep_statistics)
        answer = step(net, *batch)
        if plan.penalty is None or not net.training:  # validation is by the loss alone
            return answer
        loss, numbers = answer if isinstance(answer, tuple) else (answer, {})
        return loss + plan.penalty(), numbers

    history = fit(net, planned, columns, config, on_optimizer=_Prepared(strategy, plan), **more)
    for module in encoder.modules():
        if parametrize.is_parametrized(module, "weight"):  # what LoRA added becomes part of the weight
            parametrize.remove_parametrizations(module, "weight")
    return history


class _Prepared:
    """What the loop does with its optimiser before a strategy is trained, and how it tells its checkpoints."""

    def __init__(self, strategy, plan):
        self.about, self.plan = strategy.about, plan

    def __call__(self, optimizer, net):
        if self.plan.on_optimizer is not None:
            self.plan.on_optimizer(optimizer, net)


def rest(encoder: torch.nn.Module, whole: bool, statistics: bool) -> None:
    """Evaluation mode for an encoder, for those of its norms that have running statistics, or for nothing."""
    for module in encoder.modules():
        if whole or (statistics and getattr(module, "running_mean", None) is not None):
            module.training = False
