"""Diagonal Fisher information: how much the answer of a pre-trained network depends on each weight; for EWC."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from shared.data.constraints import Whole, require
from shared.methods.torch_method import seeded


def diagonal_fisher(net: torch.nn.Module, loss: Callable, columns, part=None, rows: int = 200, seed: int = 0):
    """Mean over cells of the squared gradient of one cell's loss, for each weight: the diagonal Fisher information.

    Parameters
    ----------
    net : torch.nn.Module
        Pre-trained, with the head of its pre-training; left as it was.
    loss : callable
        ``loss(net, *rows)`` of one cell, such as the step of the pre-training: a negative log-likelihood. With known
        labels among the columns the empirical Fisher information comes out; with :func:`sampled_loss`, which draws them
        from the network's own answer, the Fisher information itself.
    columns : sequence of tensors or ndarrays, cells × ...
        What `loss` takes of each cell.
    part : torch.nn.Module, optional
        The encoder in `net`, where its weights alone are wanted.
    rows : int
        Cells at most, drawn at random, one backward pass each.
    seed : int
        Of the rows, and of what is drawn.

    Returns
    -------
    dict of str to float32 tensor
        By the names of `part`, or of `net`.
    """
    require(Whole(1), rows=rows)
    place, modes = next(net.parameters()).device, [(module, module.training) for module in net.modules()]
    columns = [torch.as_tensor(c).to(place) for c in columns]
    chosen = np.random.default_rng(seed).permutation(len(columns[0]))[:rows]
    named = {name: p for name, p in (part or net).named_parameters() if p.requires_grad}
    fisher = {name: torch.zeros_like(p) for name, p in named.items()}
    net.eval()  # a cell by itself: statistics of a batch have none

    def add_up():
        for i in chosen:
            one = loss(net, *(c[i : i + 1] for c in columns))
            one = one[0] if isinstance(one, tuple) else one
            found = torch.autograd.grad(one, [*named.values()], allow_unused=True)
            for name, grad in zip(named, found, strict=True):
                fisher[name] += 0 if grad is None else grad.square() / len(chosen)

    seeded(add_up, seed)
    for module, mode in modes:
        module.training = mode
    return fisher


def sampled_loss(net: torch.nn.Module, *inputs: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of a classifier with classes that are drawn from its own answer."""
    logits = net(*inputs)
    drawn = torch.multinomial(logits.detach().softmax(1), 1)[:, 0]
    return cross_entropy(logits, drawn)
