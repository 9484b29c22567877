"""What a network looked at: attention that genes receive, and integrated gradients of a class (Sundararajan 2017)."""

from __future__ import annotations

import numpy as np
import torch

from shared.data.errors import DataError
from shared.methods.scbert.attention import exact_attention
from shared.methods.scbert.heads import after
from shared.train import resolve_device

STEPS = (32, 64, 128, 256, 512, 1024, 2048, 4096)  # of integrated gradients, tried in turn where none are given


@torch.enable_grad()
def received(attend, q, k) -> torch.Tensor:
    """Attention that each token receives from all tokens, in the mean over heads: cells × tokens, with mean 1.

    What all queries read is a weighted sum of the values, so its gradient by a token's value is the sum of the weights
    that this token gets: the attention needs to be called only, and tokens × tokens numbers are never held.

    `attend` is ``attend(q, k, v)``, exact or by random features; `q` and `k` are cells × heads × tokens × width.
    """
    v = torch.zeros_like(k, requires_grad=True)
    (weights,) = torch.autograd.grad(attend(q, k, v)[..., 0].sum(), v)
    return weights[..., 0].mean(1)


def attention_scores(transformer, tokens, genes) -> torch.Tensor:
    """Attention that each gene of the sequence receives, in the mean over blocks: cells × genes."""
    x, total = transformer.embed(tokens, genes), 0
    for block in transformer.blocks:
        q, k, _ = block.attention.qkv(block.norm(x))
        total = total + received(getattr(block.attention, "attend", exact_attention), q, k)
        x = block(x)
    return total[:, :-1] / len(transformer.blocks)


def integrated_gradients(net, tokens, genes, target, steps=None, tolerance=0.01) -> torch.Tensor:
    """What each gene of the sequence adds to the logit of a class, against a cell without expression: cells × genes.

    Values are embedded on the line from token 0 to the cell's own tokens, and gradients summed over midpoints of it.
    The shares of a cell's genes sum to the difference of the two logits (completeness), which is made sure of: a cell
    whose shares do not, by more than `tolerance` of the sum of their sizes, gets twice as many midpoints.

    `net` is a CellTypeNet or a PooledNet, `tokens` and `genes` are int64, cells × genes, and `target` is the class of
    each cell. `steps` midpoints are taken instead, where they are given.

    Raises
    ------
    DataError
        If the shares of a cell miss the logits even so, or with the last of :data:`STEPS`.
    """
    shares, left = tokens.new_zeros(tokens.shape, dtype=torch.float32), torch.arange(len(tokens), device=tokens.device)
    for n in STEPS if steps is None else (steps,):
        some, gaps = _shares(net, tokens[left], genes[left], target[left], n)
        shares[left], left = some, left[gaps > tolerance]
        if not len(left):
            return shares
    missed = f"after {n} steps the shares of genes miss the logits of {len(left)} of {len(tokens)} cells"
    raise DataError(f"{missed}, by up to {gaps.max():.0%} of their sizes: raise steps")


def _shares(net, tokens, genes, target, steps):
    """Shares of the genes by so many midpoints, and by how much they miss the logits, in the sum of their sizes."""
    logit = lambda x: after(net, x, genes).gather(1, target[:, None]).squeeze(1)  # noqa: E731
    with torch.no_grad():
        start, end = net.transformer.embed(torch.zeros_like(tokens), genes), net.transformer.embed(tokens, genes)
        wanted, slope = logit(end) - logit(start), torch.zeros_like(end)
    for i in range(steps):
        x = torch.lerp(start, end, (i + 0.5) / steps).requires_grad_()
        slope += torch.autograd.grad(logit(x).sum(), x)[0] / steps
    shares = ((end - start) * slope).sum(-1)[:, :-1]
    return shares, (shares.sum(1) - wanted).abs() / shares.abs().sum(1).clamp(min=1e-6)


def gene_scores(model, X, by: str, steps: int | None = None, size: int = 64) -> np.ndarray:
    """Scores of the genes of every cell by a fitted model: float32, cells × genes; 0 for genes outside the sequence."""
    net, place = model.network_, resolve_device(model.device)
    found = np.zeros(X.shape, np.float32)
    net.to(place).eval()
    for start in range(0, X.shape[0], size):
        tokens, genes = model.rows(X[start : start + size], place)
        with torch.no_grad():
            scores, types = attention_scores(net.transformer, tokens, genes), net(tokens, genes).argmax(1)
        if by == "gradients":
            scores = integrated_gradients(net, tokens, genes, types, steps)
        np.put_along_axis(found[start : start + size], genes.cpu().numpy(), scores.cpu().numpy(), 1)
    net.cpu()
    return found
