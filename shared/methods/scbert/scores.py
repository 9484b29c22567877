"""What a network looked at: attention that genes receive, and integrated gradients of a class (Sundararajan 2017)."""

from __future__ import annotations

import numpy as np
import torch

from shared.data.errors import DataError
from shared.methods.scbert.attention import feature_map
from shared.methods.scbert.heads import after
from shared.methods.scbert.network import FavorAttention
from shared.train import resolve_device


def received(q, k, W=None, stabilizer="head") -> torch.Tensor:
    """Attention that each token receives from all tokens, in the mean over heads: cells × tokens, with mean 1.

    `q` and `k` are cells × heads × tokens × width, `W` the random features, None for exact attention. Of random
    features the sum over queries is taken first, so that tokens × tokens numbers are never held.
    """
    if W is None:
        parts = (part @ k.mT * k.shape[-1] ** -0.5 for part in q.split(256, 2))
        return sum(part.softmax(-1).sum(2) for part in parts).mean(1)
    queries = feature_map(q, W, over=(-1,))
    keys = feature_map(k, W, over=(-2, -1) if stabilizer == "head" else (0, 1, 2, 3))
    weights = (queries / (queries @ keys.sum(-2).unsqueeze(-1))).sum(-2)
    return (keys @ weights.unsqueeze(-1)).squeeze(-1).mean(1)


def attention_scores(transformer, tokens, genes) -> torch.Tensor:
    """Attention that each gene of the sequence receives, in the mean over blocks: cells × genes."""
    x, total = transformer.embed(tokens, genes), 0
    for block in transformer.blocks:
        q, k, _ = block.attention.qkv(block.norm(x))
        favor = isinstance(block.attention, FavorAttention)
        total = total + received(q, k, *((block.attention.features, block.attention.stabilizer) if favor else ()))
        x = block(x)
    return total[:, :-1] / len(transformer.blocks)


def integrated_gradients(net, tokens, genes, target, steps=32, tolerance=0.05) -> torch.Tensor:
    """What each gene of the sequence adds to the logit of a class, against a cell without expression: cells × genes.

    Values are embedded on the line from token 0 to the cell's own tokens, and gradients summed over `steps` midpoints.
    The shares of a cell's genes sum to the difference of the two logits (completeness), which is made sure of.

    Raises
    ------
    DataError
        If they do not, by more than `tolerance` of the differences: then more `steps` are needed.
    """
    logit = lambda x: after(net, x, genes).gather(1, target[:, None]).squeeze(1)  # noqa: E731
    with torch.no_grad():
        start, end = net.transformer.embed(torch.zeros_like(tokens), genes), net.transformer.embed(tokens, genes)
        wanted, slope = logit(end) - logit(start), torch.zeros_like(end)
    for i in range(steps):
        x = torch.lerp(start, end, (i + 0.5) / steps).requires_grad_()
        slope += torch.autograd.grad(logit(x).sum(), x)[0] / steps
    shares = ((end - start) * slope).sum(-1)
    gap = float((shares.sum(1) - wanted).abs().mean() / wanted.abs().mean().clamp(min=1e-6))
    if gap > tolerance:
        raise DataError(f"after {steps} steps the shares of genes miss the logits by {gap:.0%}: raise steps")
    return shares[:, :-1]


def gene_scores(model, X, by: str, steps: int, size: int = 64) -> np.ndarray:
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
