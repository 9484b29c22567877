"""The settings of the estimator, and what is built of them: tokens and networks."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from functools import partial

import torch

from shared.data import constraints as allowed
from shared.data.constraints import Maybe, OneOf, Whole
from shared.methods.scbert.finetuning import UNFREEZE
from shared.methods.scbert.heads import CellTypeNet, PooledNet
from shared.methods.scbert.network import Attention, FavorAttention, GeneTransformer
from shared.methods.scbert.tokens import Tokenizer
from shared.methods.torch_method import TorchMethod

# Those of the authors' code, but for the gene vectors: its own are gene_vectors="gene2vec".
PUBLISHED = {
    "dim": 200, "depth": 6, "heads": 10, "width": 64, "length": None, "attention": "favor", "stabilizer": "global",
    "lr": 1e-4, "fit_lr": 1e-4, "schedule": "restarts", "unfreeze": "second_to_last", "stop_by": "accuracy",
    "batch_size": 3, "accumulate": 60, "clip_norm": 100.0, "weigh": "genes", "epochs": 100,
    "fit_epochs": 100,
}  # fmt: skip


@dataclass(eq=False, repr=False)
class _Settings(TorchMethod):
    """What :class:`~shared.methods.scbert.estimator.ScBERT` can be set to, and explains."""

    constraints = {
        "weigh": OneOf("cells", "genes"),
        **dict.fromkeys(("bins", "dim", "depth", "heads", "width", "fit_epochs"), Whole(1)),
        **dict.fromkeys(("length", "n_features", "redraw", "steps", "patience"), Maybe(Whole(1))),
        **dict.fromkeys(("target_sum", "lr", "fit_lr"), allowed.Positive()),
        "logged": allowed.Flag(), "mask": allowed.Probability(),
        "checkpoint_seconds": Maybe(allowed.Positive()), "cache_gib": allowed.NotNegative(),
        "validation": allowed.Share(), "stop_by": OneOf("loss", "accuracy"), "unfreeze": OneOf(*UNFREEZE),
        "attention": OneOf("exact", "favor"), "stabilizer": OneOf("head", "global"),
        "binning": OneOf("truncate", "quantile"), "gene_vectors": OneOf("coexpression", "gene2vec", "random", "none"),
        "head": OneOf("genes", "mean", "last"),
    }  # fmt: skip

    _: KW_ONLY
    bins: int = 5
    target_sum: float = 1e4
    binning: str = "truncate"
    logged: bool = False
    length: int | None = 256
    attention: str = "exact"
    stabilizer: str = "head"
    n_features: int | None = None
    redraw: int | None = 1000
    dim: int = 64
    depth: int = 4
    heads: int = 4
    width: int = 16
    gene_vectors: str = "coexpression"
    mask: float = 0.15
    epochs: int = 20
    steps: int | None = None
    batch_size: int = 32
    accumulate: int = 1
    clip_norm: float | None = None
    weigh: str = "cells"
    lr: float = 1e-3
    schedule: str = "constant"
    precision: str = "32"
    checkpoint_seconds: float | None = None
    head: str = "genes"
    unfreeze: str = "last"
    fit_epochs: int = 50
    fit_lr: float = 1e-3
    patience: int | None = 10
    stop_by: str = "loss"
    validation: float = 0.2
    cache_gib: float = 2.0
    unknown: float | None = None

    @property
    def coupled(self) -> bool:
        """Whether what the network makes of a cell depends on its batch."""
        return self.attention == "favor" and self.stabilizer == "global"

    def build(self, cells):
        """The network for these cells: with classes that of fine-tuning, without that of pre-training."""
        favor = partial(FavorAttention, n_features=self.n_features, stabilizer=self.stabilizer)
        attention = Attention if self.attention == "exact" else favor
        vectors = torch.randn(cells.n_genes, self.dim) * (self.gene_vectors != "none")
        net = GeneTransformer(vectors, self.bins, self.depth, self.heads, self.width, attention)
        if not cells.n_classes:
            return net
        return CellTypeNet(net, cells.n_classes) if self.head == "genes" else PooledNet(net, self.head, cells.n_classes)

    def _tokenizer(self, n_genes):
        return Tokenizer(n_genes, self.bins, self.target_sum, self.binning, self.logged, self.length)

    def rows(self, X, device):
        """Tokens and genes."""
        return tuple(part.to(device) for part in self._tokenizer(X.shape[1])(X))
