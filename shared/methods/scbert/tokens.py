"""From counts to tokens: bins of expression, genes of a sequence, masks.

A cell is a sequence of genes in a fixed order. The token of a gene is a whole number: 0 for no expression, up to `bins`
for the highest bin, ``bins + 1`` where it is masked. Tables are cells × genes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import sparse

from shared.data.errors import warn

IGNORE = -100  # what torch's cross-entropy leaves out
CROWDED = 0.8  # share of the expressed tokens in the highest bin from which on it is warned of


def tokenize(counts: torch.Tensor, bins: int = 5, target_sum: float = 1e4) -> torch.Tensor:
    """Whole numbers from 0 to `bins`: log2(1 + counts per `target_sum` counts of the cell), cut off, not rounded."""
    depth = counts.sum(1, keepdim=True).clamp(min=1e-9)
    return torch.log2(1 + counts / depth * target_sum).clamp(max=bins).long()


def quantile_tokens(values: torch.Tensor, bins: int = 5) -> torch.Tensor:
    """0 where there is no expression; otherwise the quantile among the cell's own expressed genes, from 1 to `bins`.

    Equal values get equal tokens: the share of the expressed genes with a lower value decides.
    """
    ordered, expressed = values.sort(1).values, (values > 0).sum(1, keepdim=True)
    lower = torch.searchsorted(ordered, values) - (values.shape[1] - expressed)
    return torch.where(values > 0, 1 + bins * lower // expressed.clamp(min=1), 0)


def sample_genes(tokens: torch.Tensor, length: int, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A sequence of `length` genes of every cell: expressed ones at random, and others only where these are too few.

    `noise` is uniform, from 0 to 1: cells × genes for a fresh sample of every cell, or one row for all. Returns tokens
    and the places of the genes, cells × `length`, in the order of the genes.
    """
    genes = ((tokens > 0) + noise).topk(length, 1).indices.sort(1).values
    return tokens.gather(1, genes), genes


def mask_tokens(tokens: torch.Tensor, bins: int, noise: torch.Tensor, share: float = 0.15, replace: float = 0.9):
    """Hide a share of the expressed genes of every cell, rounded up; returns what is read, and what is to be predicted.

    `noise` is uniform, 2 × cells × genes: one draw to choose by, one to hide by. A chosen gene is masked with
    probability `replace`, and read as it is otherwise; all other genes are to be ignored.
    """
    expressed = tokens > 0
    order = noise[0].masked_fill(~expressed, -1).argsort(1, descending=True).argsort(1)
    chosen = order < (share * expressed.sum(1, keepdim=True)).ceil()
    masked = chosen & (noise[1] < replace)
    return tokens.masked_fill(masked, bins + 1), tokens.masked_fill(~chosen, IGNORE)


@dataclass
class Tokenizer:
    """Cells as a network takes them: tokens and places of genes, both int64, cells × length.

    Parameters
    ----------
    n_genes, bins : int
    target_sum : float
        Counts each cell is scaled to before the logarithm: 1e4 in the code, a million (CPM) in a paper that uses it.
        The depth of a cell is the sum of the genes that are given: a few hundred genes of counts are scaled too high.
    binning : {"truncate", "quantile"}
    logged : bool
        Values are ln(1 + scaled counts) already.
    length : int or None
        Genes of a sequence; None: all of them.
    """

    n_genes: int
    bins: int = 5
    target_sum: float = 1e4
    binning: str = "truncate"
    logged: bool = False
    length: int | None = None

    def __post_init__(self):
        self.length = None if self.length is None or self.length >= self.n_genes else self.length
        # One order of preference for all cells: what is predicted of a cell depends on no other cell, nor on chance.
        self.noise = torch.rand(1, self.n_genes, generator=torch.Generator().manual_seed(0))

    def tokens(self, X) -> torch.Tensor:
        """Tokens of some cells, CSR or ndarray: cells × all genes."""
        values = torch.from_numpy(np.ascontiguousarray(X.toarray() if sparse.issparse(X) else X, np.float32))
        if self.binning == "quantile":
            return quantile_tokens(values, self.bins)
        if self.logged:
            return (values / np.log(2)).clamp(0, self.bins).long()
        return tokenize(values, self.bins, self.target_sum)

    def warn_of_crowding(self, X) -> None:
        """Warn where most of what these cells express has the highest token, which then says no more than a 1 would."""
        tokens = self.tokens(X)
        expressed, highest = int((tokens > 0).sum()), int((tokens == self.bins).sum())
        if self.bins == 1 or highest <= CROWDED * expressed:
            return
        uncut = replace(self, bins=64).tokens(X)
        enough = int(np.quantile(uncut[tokens > 0].numpy(), 0.99))
        depth = (
            f"a cell is scaled by the sum of the {self.n_genes} genes that are given. Where these were chosen from "
            "more, take them from the logarithms of all (shared.preprocess.log_normalize, then logged=True); or "
        )
        warn(
            f"{highest / expressed:.0%} of what is expressed is in the highest of {self.bins} bins, which tells no two "
            f"values apart: {'' if self.logged else depth}set binning='quantile', or bins={enough}"
        )

    def __call__(self, X, noise: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens and genes of some cells; `noise` as :func:`sample_genes` takes it, the same for all cells without."""
        tokens = self.tokens(X)
        if self.length is None:
            return tokens, torch.arange(self.n_genes).expand(tokens.shape)
        return sample_genes(tokens, self.length, self.noise if noise is None else noise)
