"""A network that learns to compare profiles on bulk tissue, and compares single cells after a little tuning.

After Park, Hauschild and Heider, *Transfer learning compensates limited data, batch effects and technological
heterogeneity in single-cell sequencing* (NAR Genomics and Bioinformatics, 2021). An encoder turns a profile into
features; the features of a class's few support cells are averaged; a second network, the relation network, looks at an
average and a query side by side and says how alike they are. Both learn from episodes (:mod:`shared.nn.episodes`): on
bulk samples first, then on a few cells of each type.

Paper and code (the authors', 2021 to 2024) differ in places. Each has an option here; the docstrings say what the two
do and why the default is what it is.
"""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy, linear, one_hot

from shared.nn.episodes import NORMS, Blocks, encode, encoder
from shared.train import TrainingError
from shared.train.episodes import MetaConfig, MetaHistory, meta_train  # noqa: F401

CLAMPS, PROTOTYPES, LOSSES = ("none", "all", "weight"), ("mean", "sum", "pairwise"), ("mse_mean", "mse_sum", "ce")

# The network as the authors' code runs it; `RelationNet(dims, **RELEASED)` and `TMP(**RELEASED, ...)` take it whole.
RELEASED = {"norm": "batch", "clamp": "all", "proto": "mean", "loss": "mse_mean"}


# The network.


class RelationNet(torch.nn.Module):
    """The encoder, and the network that compares.

    Parameters
    ----------
    dims : sequence of int
        Number of genes, then the width of each block of the encoder; (18000, 4000, 2000, 1000) in paper and code.
    relation : sequence of int
        Widths of the relation network's blocks, which read two profiles' features and end in one number.
    norm : {"running", "batch", "layer"}
        See :func:`shared.nn.episodes.encoder`. The code never leaves training mode, ``"batch"``: its answers depend on
        the other queries. The paper says batch normalisation only. The default gives a cell an answer of its own.
    clamp : {"none", "all", "weight"}
        What is raised to 0 where negative, after each step. The code clamps all parameters of the encoder, biases and
        those of the norm too; the paper says weights. By default nothing is: with the clamp, training from random
        weights is slow enough to make pre-training look better than it is.
    proto : {"mean", "sum", "pairwise"}
        How a class is compared. ``"mean"`` of its support's features (the code); ``"sum"`` of them (the relation
        network it follows); ``"pairwise"``, each support cell by itself, the scores averaged (the paper's equation 1).
    loss : {"mse_mean", "mse_sum", "ce"}
        Squared distance of the scores to 1 for the right class and 0 for the others, averaged (the code) or summed (the
        paper; 250 times the gradient, which Adam does not notice), or cross-entropy over the classes before the
        sigmoid.
    """

    def __init__(self, dims, relation=(500, 100), norm="running", clamp="none", proto="mean", loss="mse_mean"):
        super().__init__()
        known = {"norm": (norm, NORMS), "clamp": (clamp, CLAMPS), "proto": (proto, PROTOTYPES), "loss": (loss, LOSSES)}
        for name, (value, choices) in known.items():
            if value not in choices:
                raise TrainingError(f"{name}={value!r} is not known: choose {', '.join(choices)}")
        self.clamp, self.proto, self.kind = clamp, proto, loss
        self.encoder = encoder(dims, norm)
        self.relation = Blocks((2 * dims[-1], *relation), norm)
        self.last = torch.nn.Linear(relation[-1], 1)
        layers = self.encoder.linears if clamp == "weight" else [self.encoder]
        self._clamped = [] if clamp == "none" else [p for m in layers for p in m.parameters()]
        if clamp == "weight":
            self._clamped = [m.weight for m in layers]

    def prototypes(self, support: torch.Tensor) -> torch.Tensor:
        """What a query is compared with: episodes × classes × shots × features to episodes × prototypes × features."""
        if self.proto == "pairwise":
            return support.flatten(1, 2)
        return support.mean(2) if self.proto == "mean" else support.sum(2)

    def compare(self, prototypes: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
        """How alike: episodes × prototypes × features and episodes × queries × features to queries × prototypes.

        The numbers are before the sigmoid. The network reads [prototype, query]. Its first layer is linear, so each
        half is multiplied once and the pairs are sums: a fiftieth of the work, and the same answer.
        """
        B, P, F = prototypes.shape
        first = self.relation.linears[0]
        left = linear(prototypes, first.weight[:, :F])
        right = linear(query, first.weight[:, F:], first.bias)
        pairs = right[:, :, None] + left[:, None]  # episodes × queries × prototypes × width
        hidden = self.relation.after_first(pairs.flatten(0, 2), ((B, query.shape[1] * P),))
        return self.last(hidden).view(B, -1, P)

    def logits(self, support: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
        """Episodes × queries × classes × comparisons: one comparison, or with ``"pairwise"`` one a support cell."""
        support, query = encode(self.encoder, support, query)
        return self.compare(self.prototypes(support), query).unflatten(2, (support.shape[1], -1)).float()

    def score(self, logits: torch.Tensor) -> torch.Tensor:
        """From logits to one number in [0, 1] a class; those of ``loss="ce"`` add up to 1 over the classes."""
        return logits.mean(3).softmax(2) if self.kind == "ce" else logits.sigmoid().mean(3)

    def scores(self, support: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
        """Score of each class for each query: float32 episodes × queries × classes, in [0, 1]; the highest wins."""
        return self.score(self.logits(support, query))

    def loss_and_scores(self, support, query, target):
        """The loss, and the scores it was worked out from."""
        logits = self.logits(support, query)
        if self.kind == "ce":
            loss = cross_entropy(logits.mean(3).flatten(0, 1), target.flatten())
        else:
            wanted = one_hot(target, logits.shape[2]).float()[..., None]
            wrong = (logits.sigmoid() - wanted).square()
            loss = wrong.mean() if self.kind == "mse_mean" else wrong.sum() / len(logits)
        return loss, self.score(logits)

    def loss(self, support: torch.Tensor, query: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The mean over the episodes of what `loss` names."""
        return self.loss_and_scores(support, query, target)[0]

    @torch.no_grad()
    def after_step(self) -> None:
        """Clamp; meta-training calls this at the end of each step."""
        if self._clamped:
            torch._foreach_clamp_min_(self._clamped, 0.0)
