"""Layers for episodes: one product with the weights for support and query, and norms that keep them apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import torch

from shared.data.constraints import OneOf, Widths, check, require
from shared.data.errors import DataError
from shared.nn.sparse import Rows, SparseLinear

NORMS, STATISTICS = ("batch", "running", "layer"), ("running", "batch", "support")
DIMS = Widths(2)._replace(said="are no dims: give the number of genes and one width or more, whole numbers from 1 up")


Parts = Sequence[tuple[int, int]]  # (episodes, rows of each), in the order in which they lie under one another


class EpisodeNorm(torch.nn.BatchNorm1d):
    """Batch norm in which every part of every episode is a batch of its own.

    The published code encodes support and query in two passes, so that each is normalised by its own mean and
    variance. Here they come as one matrix, for one product with the weights instead of two, and are parted only where
    it matters: the answers, the gradients and the running statistics are those of separate passes, episode after
    episode.

    Attributes
    ----------
    at_test : {"running", "batch", "support"}
        What evaluation mode normalises by: the statistics collected in training, those of the rows at hand, or those of
        each episode's support; see :func:`use_statistics`.
    """

    at_test = "running"

    def forward(self, x: torch.Tensor, parts: Parts | None = None) -> torch.Tensor:
        """Rows × features, as many rows as `parts` say; without `parts` they are one batch."""
        if not self.training and self.at_test == "running":
            return super().forward(x)
        if not self.training and self.at_test == "support" and parts is None:
            raise DataError(
                "statistics of the support need to be told which rows are support: ask the learner for scores of "
                "support and query, or use running statistics"
            )
        parts = ((1, len(x)),) if parts is None else parts
        by_support = self.at_test == "support" and not self.training
        if min(rows for _, rows in (parts[:1] if by_support else parts)) < 2:
            raise DataError(
                "one row has no variance to be normalised by: give two rows or more, or use running statistics "
                "(norm='running') or norm='layer'"
            )
        pieces = x.split([episodes * rows for episodes, rows in parts])
        if by_support:
            return self._by_first(pieces, parts)
        if self.training:
            self.num_batches_tracked.add_(sum(episodes for episodes, _ in parts))
        if all(episodes == 1 for episodes, _ in parts):
            stats = (self.running_mean, self.running_var) if self.training else (None, None)
            out = [self._alone(piece, *stats, self.weight, self.bias, self.momentum) for piece in pieces]
        else:
            out = self._several(pieces, [episodes for episodes, _ in parts])
        return out[0] if len(out) == 1 else torch.cat(out)

    def _by_first(self, pieces, parts):
        """All rows of an episode by the mean and variance of its first part, which is its support."""
        support = pieces[0].view(*parts[0], -1)
        mean, var = support.mean(1, keepdim=True), support.var(1, unbiased=False, keepdim=True)
        scale = self.weight * (var + self.eps).rsqrt()
        rows = [(x.view(*part, -1) - mean) * scale + self.bias for x, part in zip(pieces, parts, strict=True)]
        return torch.cat([x.flatten(0, 1) for x in rows])

    def _alone(self, x, mean, var, weight, bias, momentum):
        return torch.nn.functional.batch_norm(x, mean, var, weight, bias, True, momentum, self.eps)

    def _several(self, pieces, episodes):
        """Episodes side by side: a feature of one episode is a feature of its own."""
        out, means, variances = zip(*map(self._side_by_side, pieces, episodes), strict=True)
        if self.training:
            with torch.no_grad():
                for running, found in ((self.running_mean, means), (self.running_var, variances)):
                    # Support, query, support, query: the order of separate passes, in one weighted sum.
                    found = torch.stack(found, 1).flatten(0, 1) if len({*episodes}) == 1 else torch.cat(found)
                    keep = 1 - self.momentum
                    power = torch.arange(len(found) - 1, -1, -1, device=found.device, dtype=found.dtype)
                    running.mul_(keep ** len(found)).add_((self.momentum * keep**power) @ found)
        return out

    def _side_by_side(self, x, n):
        wide = x.view(n, -1, self.num_features).transpose(0, 1).reshape(-1, n * self.num_features)
        mean, var = (torch.zeros(n * self.num_features, device=x.device) for _ in range(2))
        # A momentum of 1 leaves this batch's own mean and variance in the two tensors.
        wide = self._alone(wide, mean, var, self.weight.repeat(n), self.bias.repeat(n), 1.0)
        out = wide.view(-1, n, self.num_features).transpose(0, 1).reshape(x.shape)
        return out, mean.view(n, -1), var.view(n, -1)


class RowNorm(torch.nn.LayerNorm):
    """Layer norm: each row by its own mean and variance over the features, so that there is nothing to keep apart."""

    def forward(self, x: torch.Tensor, parts: Parts | None = None) -> torch.Tensor:
        return super().forward(x)


class Blocks(torch.nn.Sequential):
    """Linear, norm and ReLU in turn; the linear layers see all rows at once, the norms part by part.

    Weights bear the names they have in a ``torch.nn.Sequential`` of Linear, BatchNorm1d and ReLU.
    """

    def __init__(self, dims: Sequence[int], norm: str = "running"):
        check({"norm": norm, "dims": dims}, {"norm": OneOf(*NORMS), "dims": DIMS})
        kind = RowNorm if norm == "layer" else EpisodeNorm
        super().__init__(*(x for a, b in pairwise(dims) for x in (torch.nn.Linear(a, b), kind(b), torch.nn.ReLU())))
        use_statistics(self, "batch" if norm == "batch" else "running")

    @property
    def linears(self) -> list[torch.nn.Module]:
        """The linear layers, in order."""
        return list(self)[::3]

    @property
    def norms(self) -> list[torch.nn.Module]:
        """The norms, in order."""
        return list(self)[1::3]

    def forward(self, x: torch.Tensor, parts: Parts | None = None) -> torch.Tensor:
        """Rows × ``dims[0]`` to rows × ``dims[-1]``, none negative."""
        return self.after_first(self[0](Rows.of(x) if isinstance(self[0], SparseLinear) else x), parts)

    def after_first(self, x: torch.Tensor, parts: Parts | None = None) -> torch.Tensor:
        """The rest, for a caller who has worked out the first linear layer in a cheaper way."""
        for linear, norm in zip([None, *self.linears[1:]], self.norms, strict=True):
            x = norm(x if linear is None else linear(x), parts).relu_()
        return x


def encoder(dims: Sequence[int], norm: str = "running") -> Blocks:
    """An encoder of blocks of Linear, norm and ReLU, as the published one: (18000, 4000, 2000, 1000).

    Parameters
    ----------
    dims : sequence of int
        Number of genes, then the width of each block.
    norm : {"running", "batch", "layer"}
        All three start from torch's default weights. ``"batch"``: batch norm by the statistics of the rows at hand, in
        training and afterwards, as the published code does, which never leaves training mode; answers then depend on
        the other cells. ``"running"``: batch norm in training, the statistics collected there afterwards, so that a
        cell's answer is its own; the default for that. ``"layer"``: layer norm.
    """
    return Blocks(dims, norm)


@contextmanager
def sparse_first(blocks: Blocks, wanted: bool = True) -> Iterator[None]:
    """While this lasts, the first layer of `blocks`, on the CPU, leaves out the entries of its input that are zero.

    Output and gradients are equal up to rounding. The layer's weights lie gene by gene, a parameter of their own of
    shape ``dims[0]`` × ``dims[1]``, so an optimiser is made within; at the end they go back into the ordinary layer.
    With ``wanted=False`` nothing is done.
    """
    if not wanted:
        yield
        return
    linear = blocks[0]
    blocks[0] = layer = SparseLinear.of(linear)
    linear.weight.data = linear.weight.data.new_empty(0)  # or they would be held twice
    try:
        yield
    finally:
        linear.weight.data = layer.weight.data.T.contiguous()
        blocks[0] = linear


def use_statistics(module: torch.nn.Module, which: str) -> torch.nn.Module:
    """Have every :class:`EpisodeNorm` in `module` normalise by other statistics in evaluation.

    Parameters
    ----------
    module : torch.nn.Module
        Changed in place.
    which : {"running", "batch", "support"}
        ``"running"``, those collected in training, is inductive: a query alone gets the answer it gets among others.
        ``"batch"`` is transductive: the queries are normalised by their own mean and variance, so the share of each
        class among them matters. ``"support"`` normalises support and queries by the support's: no query sees another,
        and yet the statistics are those of the target. The shares that matter then are the support's.
    """
    require(OneOf(*STATISTICS), which=which)
    for part in module.modules():
        if isinstance(part, EpisodeNorm):
            part.at_test = which
    return module


def by_support(module: torch.nn.Module) -> bool:
    """Whether norms of `module` would now normalise by the support's statistics."""
    return any(isinstance(m, EpisodeNorm) and m.at_test == "support" and not m.training for m in module.modules())


def encode(encoder: torch.nn.Module, support: torch.Tensor, query: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of support and query of several episodes, by one pass through the encoder.

    The weights are read once instead of twice; with :class:`EpisodeNorm` the numbers are those of separate passes.
    Another module is run twice, on all support rows and on all query rows; it has no statistics of the support.

    Parameters
    ----------
    encoder : torch.nn.Module
        rows × genes to rows × features.
    support : tensor, episodes × classes × shots × genes
        To learn from.
    query : tensor, episodes × queries × genes
        To name; there may be none.

    Returns
    -------
    support : tensor, episodes × classes × shots × features
    query : tensor, episodes × queries × features
    """
    (B, C, K, G), Q = support.shape, query.shape[1]
    if isinstance(encoder, Blocks):
        rows = torch.cat([support.reshape(-1, G), query.reshape(-1, G)])
        features = encoder(rows, ((B, C * K), (B, Q)) if Q else ((B, C * K),))
        first, second = features.split([B * C * K, B * Q])
    else:
        first, second = encoder(support.reshape(-1, G)), encoder(query.reshape(-1, G))
    return first.view(B, C, K, first.shape[1]), second.view(B, Q, second.shape[1])
