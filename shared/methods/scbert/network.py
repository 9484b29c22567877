"""The transformer over genes: attention, blocks, embeddings, and the step that pre-trains them."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn.functional import cross_entropy, pad

from shared.methods.scbert.attention import chunked_favor, exact_attention, favor_attention, orthogonal_features
from shared.methods.scbert.tokens import IGNORE
from shared.train.batches import seed_of


class Attention(nn.Module):
    """Every token reads all tokens of its cell, in several heads, by exact attention.

    Parameters
    ----------
    dim, heads, width : int
        Of a token, number of heads, and of a head: 200, 10 and 64 in scBERT, so that 200 go to 640 and back.
    """

    def __init__(self, dim, heads, width):
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(dim, 3 * heads * width, bias=False)
        self.out = nn.Linear(heads * width, dim)

    def qkv(self, x):
        """Queries, keys and values of tokens, cells × tokens × dim: each cells × heads × tokens × width."""
        return self.to_qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)

    def read(self, q, k, v):
        """What the queries read: cells × queries × dim."""
        return self.out(exact_attention(q, k, v).transpose(1, 2).flatten(2))

    def forward(self, x):
        """What all tokens read: cells × tokens × dim."""
        return self.read(*self.qkv(x))


class FavorAttention(Attention):
    """Attention by random features, which are buffers and not trained.

    Parameters
    ----------
    dim, heads, width : int
        See :class:`Attention`.
    n_features : int or None
        None: width · ln(width), 266 for 64.
    stabilizer : {"head", "global"}
        See :func:`shared.methods.scbert.attention.favor_attention`.
    """

    def __init__(self, dim, heads, width, n_features=None, stabilizer="head"):
        super().__init__(dim, heads, width)
        self.stabilizer, self._period = stabilizer, 0
        self.register_buffer("features", orthogonal_features(n_features or max(1, int(width * math.log(width))), width))
        self.register_buffer("seed", torch.randint(2**31, ()))

    def attend(self, q, k, v):
        """Attention with these features: cells × heads × queries × width."""
        favor = chunked_favor if q.device.type == "cpu" else favor_attention
        return favor(q, k, v, self.features, self.stabilizer)

    def read(self, q, k, v):
        """What the queries read: cells × queries × dim."""
        return self.out(self.attend(q, k, v).transpose(1, 2).flatten(2))

    @torch.no_grad()
    def redraw(self, period: int):
        """Features of a later period, which depend on its number alone; nothing is done within a period."""
        if period != self._period:
            self._period = period
            drawn = torch.Generator().manual_seed(seed_of(int(self.seed), period))
            self.features.copy_(orthogonal_features(*self.features.shape, drawn))


class Block(nn.Module):
    """Attention, then two layers on each token alone; each reads the normalised sum of all before it and adds to it.

    Parameters
    ----------
    dim : int
        Of a token.
    attention : Attention
    """

    def __init__(self, dim, attention):
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(dim), attention
        self.norm_2 = nn.LayerNorm(dim)
        self.feed = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x):
        """Tokens in and out: cells × tokens × dim."""
        x = x + self.attention(self.norm(x))
        return x + self.feed(self.norm_2(x))


class GeneTransformer(nn.Module):
    """Tokens of genes in, cells × genes; scores of all tokens for each of them out.

    A token is the sum of a learned embedding of its value and a vector of its gene, which is not trained. After the
    genes of a cell comes one token more, of value 0 and without a gene, as in the code.

    Parameters
    ----------
    vectors : float32 tensor, genes × dim
    bins, depth, heads, width : int
    attention : callable
        ``attention(dim, heads, width)`` gives the attention of a block: :class:`Attention`, :class:`FavorAttention`, or
        a ``functools.partial`` of it with its other settings.
    """

    def __init__(self, vectors, bins=5, depth=6, heads=10, width=64, attention=Attention):
        super().__init__()
        self.n_genes, dim = vectors.shape
        self.values = nn.Embedding(bins + 2, dim)
        named = torch.cat([vectors, torch.zeros(1, dim)])
        self.genes = nn.Embedding.from_pretrained(named)
        self.blocks = nn.Sequential(*[Block(dim, attention(dim, heads, width)) for _ in range(depth)])
        self.norm, self.out = nn.LayerNorm(dim), nn.Linear(dim, bins + 2)

    def embed(self, tokens, genes):
        """Sums of value and gene embeddings: cells × (genes + 1) × dim."""
        tokens, genes = pad(tokens, (0, 1)), pad(genes, (0, 1), value=self.n_genes)
        return self.values(tokens) + self.genes(genes)

    def encode(self, tokens, genes):
        """Embeddings of the tokens in their cell: cells × (genes + 1) × dim."""
        return self.norm(self.blocks(self.embed(tokens, genes)))

    def forward(self, tokens, genes):
        """Logits of the tokens: cells × genes × (bins + 2)."""
        return self.out(self.encode(tokens, genes)[:, :-1])


def masked_step(net: GeneTransformer, tokens, genes, target):
    """Mean over cells of the mean cross-entropy of a cell's masked genes; and the share that is predicted right.

    The paper and its code take one mean over the masked genes of all cells of a batch, as :func:`pretrain_step` can. A
    mean of each cell first weighs a shallow cell as much as a deep one, makes accumulated batches one large one, and
    lets several processes share a batch. A prediction is one of the bins above 0, as in the code.
    """
    logits, chosen = net(tokens, genes), target != IGNORE
    loss = cross_entropy(logits.transpose(1, 2), target, ignore_index=IGNORE, reduction="none")
    right = (logits[..., 1:-1].argmax(-1) + 1 == target).float()
    of_cells = torch.stack([loss.sum(1), right.sum(1)]) / chosen.sum(1).clamp(min=1)
    return of_cells[0].mean(), {"accuracy": of_cells[1].mean()}


def pretrain_step(net: GeneTransformer, tokens, genes, target, period=0, weigh="cells"):
    """:func:`masked_step` with the random features of a period; or both means over ``"genes"``: all masked ones."""
    for block in net.blocks:
        if isinstance(block.attention, FavorAttention):
            block.attention.redraw(period)
    if weigh == "cells":
        return masked_step(net, tokens, genes, target)
    logits, n = net(tokens, genes), (target != IGNORE).sum().clamp(min=1)
    loss = cross_entropy(logits.transpose(1, 2), target, ignore_index=IGNORE, reduction="sum")
    return loss / n, {"accuracy": (logits[..., 1:-1].argmax(-1) + 1 == target).sum() / n}
