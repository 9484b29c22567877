"""The transformer over genes: embeddings, blocks, heads, and the two training steps."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from shared.methods.scbert.attention import chunked_favor, exact_attention, favor_attention, orthogonal_features
from shared.methods.scbert.tokens import IGNORE
from shared.train.batches import seed_of


class Attention(nn.Module):
    """Every token reads all tokens of its cell, in several heads.

    Parameters
    ----------
    dim, heads, width : int
        Of a token, number of heads, and of a head: 200, 10 and 64 in scBERT, so that 200 go to 640 and back.
    attention : {"exact", "favor"}
    n_features : int or None
        Random features of ``"favor"``; None: width · ln(width), 266 for 64.
    stabilizer : {"head", "global"}
        See :func:`shared.methods.scbert.attention.favor_attention`.
    """

    def __init__(self, dim=200, heads=10, width=64, attention="exact", n_features=None, stabilizer="head"):
        super().__init__()
        self.heads, self.attention, self.stabilizer = heads, attention, stabilizer
        self.to_qkv = nn.Linear(dim, 3 * heads * width, bias=False)
        self.out = nn.Linear(heads * width, dim)
        if attention == "favor":
            n_features = n_features or max(1, int(width * math.log(width)))
            self.register_buffer("features", orthogonal_features(n_features, width))

    def qkv(self, x):
        """Queries, keys and values: 3 × cells × heads × tokens × width."""
        return self.to_qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)

    def forward(self, x, last=False):
        q, k, v = self.qkv(x)
        q = q[:, :, -1:] if last else q
        if self.attention == "exact":
            read = exact_attention(q, k, v)
        else:
            favor = chunked_favor if x.device.type == "cpu" else favor_attention
            read = favor(q, k, v, self.features, self.stabilizer)
        return self.out(read.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention, then two layers on each token alone; each reads the normalised sum of all before it and adds to it."""

    def __init__(self, dim=200, heads=10, width=64, **attention):
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(dim), Attention(dim, heads, width, **attention)
        self.norm_2 = nn.LayerNorm(dim)
        self.feed = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x, last=False):
        """All tokens, or the `last` alone, which reads all the same."""
        x = (x[:, -1:] if last else x) + self.attention(self.norm(x), last)
        return x + self.feed(self.norm_2(x))


class GeneTransformer(nn.Module):
    """Tokens of genes in, cells × genes; scores of all tokens for each of them out.

    A token is the sum of a learned embedding of its value and a vector of its gene, which is not trained. After the
    genes of a cell comes one token more, of value 0 and without a gene, as in the code.

    Parameters
    ----------
    vectors : float32 tensor, genes × dim
    bins, depth, heads, width : int
    **attention
        Of :class:`Attention`.
    """

    def __init__(self, vectors, bins=5, depth=6, heads=10, width=64, **attention):
        super().__init__()
        n_genes, dim = vectors.shape
        self.n_genes, self._period = n_genes, 0
        self.values = nn.Embedding(bins + 2, dim)
        self.genes = nn.Embedding.from_pretrained(torch.cat([vectors, torch.zeros(1, dim)]))
        self.blocks = nn.ModuleList(Block(dim, heads, width, **attention) for _ in range(depth))
        self.norm, self.out = nn.LayerNorm(dim), nn.Linear(dim, bins + 2)
        self.register_buffer("seed", torch.randint(2**31, ()))

    def embed(self, tokens, genes):
        """Sums of value and gene embeddings: cells × (genes + 1) × dim."""
        last = tokens.new_zeros(len(tokens), 1)
        tokens, genes = torch.cat([tokens, last], 1), torch.cat([genes, last + self.n_genes], 1)
        return self.values(tokens) + self.genes(genes)

    def encode(self, tokens, genes, last=False):
        """Embeddings of the tokens in their cell: cells × (genes + 1) × dim; or × 1 of the `last` alone."""
        return self.after(self.before(tokens, genes, 0), 0, last)

    def before(self, tokens, genes, n):
        """What comes out of the first `n` blocks."""
        x = self.embed(tokens, genes)
        for block in self.blocks[:n]:
            x = block(x)
        return x

    def after(self, x, n, last=False):
        """What all further blocks and the last norm make of that, of all tokens or of the `last` alone."""
        for i, block in enumerate(self.blocks[n:], n + 1):
            x = block(x, last and i == len(self.blocks))
        return self.norm(x[:, -1:] if last else x)

    def forward(self, tokens, genes):
        """Logits of the tokens: cells × genes × (bins + 2)."""
        return self.out(self.encode(tokens, genes)[:, :-1])

    @torch.no_grad()
    def redraw(self, period: int):
        """Random features of a later period, which depend on its number alone; nothing is done within a period."""
        if period == self._period:
            return
        self._period = period
        for i, block in enumerate(self.blocks):
            if hasattr(block.attention, "features"):
                drawn = torch.Generator().manual_seed(seed_of(int(self.seed), period, i))
                block.attention.features.copy_(orthogonal_features(*block.attention.features.shape, drawn))


def pooled(x, how):
    """One embedding of a cell from those of its tokens: their mean, or the last, which is of no gene."""
    return x.mean(1) if how == "mean" else x[:, -1]


class Pooled(nn.Module):
    """Embeddings of cells: cells × dim."""

    def __init__(self, transformer, how):
        super().__init__()
        self.transformer, self.how = transformer, how

    def forward(self, tokens, genes):
        return pooled(self.transformer.encode(tokens, genes, self.how == "last"), self.how)


class CellTypeNet(nn.Module):
    """A transformer with a head that names the type of a cell.

    Parameters
    ----------
    transformer : GeneTransformer
    n_types : int
    head : {"genes", "mean", "last"}
        ``"genes"`` is the published one: each gene's embedding becomes one number, and three layers read the numbers of
        all genes, each at its place; of genes that were not in the sequence it is 0. ``"mean"`` reads the mean of the
        embeddings, ``"last"`` that of the last token, which is of no gene: these do not depend on the list of genes.

    Attributes
    ----------
    frozen : int
        Blocks at the beginning that are not trained.
    """

    def __init__(self, transformer, n_types, head="genes"):
        super().__init__()
        self.transformer, self.kind, self.frozen = transformer, head, 0
        dim, n_genes = transformer.values.embedding_dim, transformer.n_genes
        self.number = nn.Linear(dim, 1) if head == "genes" else None
        widths = (n_genes + 1, 512, 128) if head == "genes" else (dim, 128, 128)
        layers = [nn.Linear(widths[0], widths[1]), nn.ReLU(), nn.Linear(widths[1], widths[2]), nn.ReLU()]
        self.classify = nn.Sequential(*layers, nn.Linear(widths[2], n_types))

    def head(self, x, genes):
        """Logits of the types from embeddings of tokens."""
        if self.kind != "genes":
            return self.classify(pooled(x, self.kind))
        numbers = self.number(x).squeeze(-1).relu()
        places = torch.cat([genes, torch.full_like(genes[:, :1], self.transformer.n_genes)], 1)
        return self.classify(numbers.new_zeros(len(x), self.transformer.n_genes + 1).scatter(1, places, numbers))

    def forward(self, tokens, genes):
        """Logits: cells × types."""
        return self.head(self.transformer.encode(tokens, genes, self.kind == "last"), genes)

    def from_prefix(self, x, genes):
        """Logits from what the frozen blocks made of the tokens."""
        return self.head(self.transformer.after(x, self.frozen, self.kind == "last"), genes)


def masked_step(net: GeneTransformer, tokens, genes, target):
    """Mean over cells of the mean cross-entropy of a cell's masked genes; and the share that is predicted right.

    The paper and its code take one mean over the masked genes of all cells. A mean of each cell first weighs cells
    alike, and lets several processes share a batch. A prediction is one of the bins above 0, as in the code.
    """
    logits, chosen = net(tokens, genes), target != IGNORE
    loss = cross_entropy(logits.transpose(1, 2), target, ignore_index=IGNORE, reduction="none")
    right = (logits[..., 1:-1].argmax(-1) + 1 == target).float()
    of_cells = torch.stack([loss.sum(1), right.sum(1)]) / chosen.sum(1).clamp(min=1)
    return of_cells[0].mean(), {"accuracy": of_cells[1].mean()}


def classify_step(net: CellTypeNet, tokens, genes, types):
    """Mean cross-entropy of the types."""
    return cross_entropy(net(tokens, genes), types)


def pretrain_step(net: GeneTransformer, tokens, genes, target, period=0):
    """:func:`masked_step` with the random features of a period."""
    net.redraw(period)
    return masked_step(net, tokens, genes, target)


def prefix_step(net: CellTypeNet, x, genes, types):
    """:func:`classify_step` from what the frozen blocks made of the tokens."""
    return cross_entropy(net.from_prefix(x, genes), types)
