"""What reads a transformer: the head that names cell types, embeddings of cells, and the step that fine-tunes."""

from __future__ import annotations

from itertools import pairwise

from torch import nn
from torch.nn.functional import cross_entropy, pad

from shared.methods.scbert.network import Block


class CellTypeNet(nn.Module):
    """A transformer with the published head, which names the type of a cell.

    Each gene's embedding becomes one number, and three layers read the numbers of all genes, each at its place; of
    genes that were not in the sequence it is 0.

    Parameters
    ----------
    transformer : GeneTransformer
    n_types : int
    """

    def __init__(self, transformer, n_types):
        super().__init__()
        self.transformer, self.n = transformer, transformer.n_genes + 1
        self.number = nn.Linear(transformer.values.embedding_dim, 1)
        self.classify = nn.Sequential(
            nn.Linear(self.n, 512), nn.ReLU(), nn.Linear(512, 128), nn.ReLU(), nn.Linear(128, n_types)
        )

    def head(self, x, genes):
        """Logits of the types from embeddings of tokens."""
        numbers = self.number(x).squeeze(-1).relu()
        places = pad(genes, (0, 1), value=self.n - 1)
        return self.classify(numbers.new_zeros(len(x), self.n).scatter(1, places, numbers))

    def forward(self, tokens, genes):
        """Logits: cells × types."""
        return self.head(self.transformer.encode(tokens, genes), genes)


class PooledNet(nn.Module):
    """One embedding of a cell, cells × dim; or logits of its type from that, which no list of genes is tied to.

    Parameters
    ----------
    transformer : GeneTransformer
    pool : {"mean", "last"}
        Mean of the embeddings of all tokens, or that of the last one, which is of no gene.
    n_types : int, optional
        Without it the embedding comes out.
    """

    def __init__(self, transformer, pool, n_types=None):
        super().__init__()
        self.transformer, self.pool, self.classify = transformer, pool, nn.Identity()
        if n_types is not None:
            widths = transformer.values.embedding_dim, 128, 128, n_types
            layers = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), nn.ReLU())]
            self.classify = nn.Sequential(*layers[:-1])

    def head(self, x, genes):
        """Embedding or logits from embeddings of tokens."""
        return self.classify(x.mean(1) if self.pool == "mean" else x[:, -1])

    def forward(self, tokens, genes):
        """Embedding or logits of cells."""
        return after(self, self.transformer.embed(tokens, genes), genes)


def after(net: CellTypeNet | PooledNet, x, genes, n: int = 0):
    """The answer of a network from what came out of its first `n` blocks.

    A head that reads the last token alone needs no other of the last block.
    """
    blocks, last = net.transformer.blocks, getattr(net, "pool", None) == "last"
    x = of_last(blocks[-1], blocks[n:-1](x)) if last and n < len(blocks) else blocks[n:](x)
    return net.head(net.transformer.norm(x), genes)


def of_last(block: Block, x):
    """What a block makes of the last token alone, which reads all the same: cells × 1 × dim."""
    q, k, v = block.attention.qkv(block.norm(x))
    x = x[:, -1:] + block.attention.read(q[:, :, -1:], k, v)
    return x + block.feed(block.norm_2(x))


class AfterPrefix(nn.Module):
    """What comes after the first `n` blocks of a network, which share its weights: the same answer, from their output.

    Parameters
    ----------
    net : CellTypeNet or PooledNet
    n : int
    """

    def __init__(self, net, n):
        super().__init__()
        self.net, self.n = net, n

    def forward(self, x, genes):
        """The network's answer from what came out of its first blocks, cells × (genes + 1) × dim."""
        return after(self.net, x, genes, self.n)


def classify_step(net: CellTypeNet, tokens, genes, types):
    """Mean cross-entropy of the types; of an :class:`AfterPrefix` the tokens are what it takes instead."""
    return cross_entropy(net(tokens, genes), types)
