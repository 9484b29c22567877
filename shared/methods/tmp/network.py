"""The relation network, its loss and its training step.

An encoder turns a profile into an embedding; a second network, the relation network, reads a class's prototype and a
query side by side and says how alike they are. :class:`PlainRelationNet`, :func:`relation_step` and
:func:`project_weights` are the method as the paper tells it, one episode at a time. :class:`RelationNet` is the same
network for several episodes at once, quicker, and with a choice for each point on which paper and code differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
from torch.nn.functional import cross_entropy, linear, mse_loss

from shared.data.constraints import OneOf, check
from shared.nn.blocks import NORMS, Blocks, by_support, encode

CLAMPS, PROTOTYPES, LOSSES = ("none", "all", "weight"), ("mean", "sum", "pairwise"), ("mse_mean", "mse_sum", "ce")
CHOICES = {"norm": OneOf(*NORMS), "clamp": OneOf(*CLAMPS), "proto": OneOf(*PROTOTYPES), "loss": OneOf(*LOSSES)}

# The network as the authors' code runs it; `RelationNet(dims, **RELEASED)` and `TMP(**RELEASED, ...)` take it whole.
RELEASED = {"norm": "batch", "clamp": "all", "proto": "mean", "loss": "mse_mean"}


def blocks(widths: Sequence[int]) -> torch.nn.Sequential:
    """Linear, batch norm and ReLU from each width to the next: rows × first width to rows × last, none negative."""
    layers = []
    for here, there in pairwise(widths):
        layers += [torch.nn.Linear(here, there), torch.nn.BatchNorm1d(there), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers)


class PlainRelationNet(torch.nn.Module):
    """Encoder and relation network of one episode (Park et al. 2021, figure 1), in torch's own layers.

    Parameters
    ----------
    dims : sequence of int
        Number of genes, then the width of each block of the encoder; (18000, 4000, 2000, 1000) in paper and code.
    relation : sequence of int
        Widths of the relation network's blocks, which read two embeddings and end in one number.
    blocks : callable
        From widths to the blocks between them.
    """

    def __init__(self, dims, relation=(500, 100), blocks=blocks):
        super().__init__()
        self.encoder = blocks(dims)
        self.relation = blocks((2 * dims[-1], *relation))
        self.last = torch.nn.Linear(relation[-1], 1)

    def forward(self, support: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
        """How alike each query and each class are: classes × shots × genes and queries × genes to queries × classes."""
        n_classes, n_shots, n_genes = support.shape
        shown = self.encoder(support.reshape(-1, n_genes))  # rows × embedding
        prototypes = shown.view(n_classes, n_shots, -1).mean(1)
        left = prototypes.expand(len(query), -1, -1)  # queries × classes × embedding
        right = self.encoder(query)[:, None].expand(-1, n_classes, -1)
        pairs = torch.cat([left, right], 2).flatten(0, 1)
        return self.last(self.relation(pairs)).sigmoid().view(-1, n_classes)


def relation_step(net, support: torch.Tensor, query: torch.Tensor, target: torch.Tensor):
    """One training step's loss: every query is compared with every class (equation 1, with prototypes and a mean).

    Parameters
    ----------
    net : PlainRelationNet or RelationNet
        In training mode.
    support, query : float32 tensors
        As the network takes them.
    target : int64 tensor, queries; or episodes × queries
        Place of the query's class among the episode's classes.

    Returns
    -------
    loss : scalar tensor
        Mean squared distance of the scores to 1 for the right class and 0 for the others.
    scores : float32 tensor, queries × classes; or episodes × queries × classes
        Of the same forward pass, for the training accuracy.
    """
    scores = net(support, query)
    right = torch.eye(scores.shape[-1], device=scores.device)[target]
    return mse_loss(scores, right), scores


@torch.no_grad()
def project_weights(parameters) -> None:
    """Projection onto non-negative weights, in place: what is negative becomes zero (section 2, the paper's clamp)."""
    for parameter in parameters:
        parameter.clamp_(min=0)


class RelationNet(PlainRelationNet):
    """The same network for several episodes at once, with a choice where paper and code differ.

    Parameters
    ----------
    dims, relation : sequences of int
        See :class:`PlainRelationNet`, whose weights it takes.
    norm : {"running", "batch", "layer"}
        See :func:`shared.nn.blocks.encoder`. The code never leaves training mode, ``"batch"``: its answers depend on
        the other queries. The paper says batch normalisation only. The default gives a cell an answer of its own.
    clamp : {"none", "all", "weight"}
        What is raised to 0 where negative, after each step. The code clamps all parameters of the encoder, biases and
        those of the norm too; the paper says weights. By default nothing is: with the clamp, training from random
        weights is slow enough to make pre-training look better than it is.
    proto : {"mean", "sum", "pairwise"}
        How a class is compared. ``"mean"`` of its support's embeddings (the code); ``"sum"`` of them (the relation
        network it follows); ``"pairwise"``, each support cell by itself, the scores averaged (the paper's equation 1).
    loss : {"mse_mean", "mse_sum", "ce"}
        Squared distance of the scores to 1 for the right class and 0 for the others, averaged (the code) or summed (the
        paper; 250 times the gradient, which Adam does not notice), or cross-entropy over the classes before the
        sigmoid.

    Raises
    ------
    shared.data.constraints.SettingError
        If `norm`, `clamp`, `proto` or `loss` is not one of these.
    """

    def __init__(self, dims, relation=(500, 100), norm="running", clamp="none", proto="mean", loss="mse_mean"):
        check({"norm": norm, "clamp": clamp, "proto": proto, "loss": loss}, CHOICES)
        super().__init__(dims, relation, partial(Blocks, norm=norm))
        self.norm, self.clamp, self.proto, self.kind = norm, clamp, proto, loss

    def about(self) -> dict:
        """The settings, which no weight tells; a checkpoint keeps them."""
        return {"norm": self.norm, "clamp": self.clamp, "proto": self.proto, "loss": self.kind}

    def forward(self, support: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
        """Score of each class for each query: float32 episodes × queries × classes, in [0, 1]; the highest wins.

        `support` is episodes × classes × shots × genes, `query` episodes × queries × genes.
        """
        return self.logits_and_scores(support, query)[1]

    scores = forward  # under the name by which evaluations ask for it

    def logits_and_scores(self, support: torch.Tensor, query: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Before the sigmoid, episodes × queries × prototypes, and the scores of :meth:`forward`."""
        members = self.members(*support.shape[1:3], support.device)
        support, query = encode(self.encoder, support, query)
        logits = self.compare(self.prototypes(support), query, support.flatten(1, 2)).float()
        return logits, self.score(logits, members)

    def prototypes(self, support: torch.Tensor) -> torch.Tensor:
        """What a query is compared with: episodes × classes × shots × features to episodes × prototypes × features."""
        if self.proto == "pairwise":
            return support.flatten(1, 2)
        return support.mean(2) if self.proto == "mean" else support.sum(2)

    def members(self, n_classes: int, n_shots: int, device=None) -> torch.Tensor | None:
        """Prototypes × classes of an episode as :meth:`score` takes them; None where each class has one prototype."""
        if self.proto != "pairwise":
            return None
        return torch.eye(n_classes, device=device).repeat_interleave(n_shots, 0) / n_shots

    def compare(self, prototypes: torch.Tensor, query: torch.Tensor, support=None) -> torch.Tensor:
        """How alike: episodes × prototypes × features and episodes × queries × features to queries × prototypes.

        The numbers are before the sigmoid. The network reads [prototype, query]. Its first layer is linear, so each
        half is multiplied once and the pairs are sums: a fiftieth of the work, and the same answer. `support`, episodes
        × rows × features, is for norms that go by its statistics: those of each of its rows with each prototype.
        """
        (B, P, F), own = prototypes.shape, 0
        if support is not None and by_support(self.relation):
            own, query = support.shape[1], torch.cat([support, query], 1)
        first = self.relation.linears[0]
        left = linear(prototypes, first.weight[:, :F])
        right = linear(query, first.weight[:, F:], first.bias)
        pairs = right[:, :, None] + left[:, None]  # episodes × queries × prototypes × width
        if not own:
            hidden = self.relation.after_first(pairs.flatten(0, 2), ((B, query.shape[1] * P),))
            return self.last(hidden).view(B, -1, P)
        rows = torch.cat([pairs[:, :own].flatten(0, 2), pairs[:, own:].flatten(0, 2)])
        hidden = self.relation.after_first(rows, ((B, own * P), (B, (query.shape[1] - own) * P)))
        return self.last(hidden[B * own * P :]).view(B, -1, P)

    def score(self, logits: torch.Tensor, members: torch.Tensor | None = None) -> torch.Tensor:
        """From one number a prototype to one in [0, 1] a class.

        `members`, prototypes × classes, says which prototypes a class has, each column adding up to 1; None where each
        class has one. Scores of ``loss="ce"`` add up to 1 over the classes; others are sigmoids, each for itself.
        """
        if self.kind == "ce":
            return (logits if members is None else logits @ members).softmax(-1)
        return logits.sigmoid() if members is None else logits.sigmoid() @ members

    def loss_and_scores(self, support, query, target):
        """What `loss` names, its mean over the episodes, and the scores of the same forward pass."""
        if self.kind == "mse_mean" and self.proto != "pairwise":
            return relation_step(self, support, query, target)
        logits, scores = self.logits_and_scores(support, query)
        return relation_loss(logits, scores, target, self.kind), scores

    def loss(self, support: torch.Tensor, query: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The loss of :meth:`loss_and_scores`."""
        return self.loss_and_scores(support, query, target)[0]

    def project_weights(self) -> None:
        """:func:`project_weights` of what `clamp` names; called at the end of each training step."""
        project_weights(clamped(self.encoder, self.clamp))


def relation_loss(logits: torch.Tensor, scores: torch.Tensor, target: torch.Tensor, kind: str) -> torch.Tensor:
    """Mean over the episodes of one of the losses: float32 scalar.

    Parameters
    ----------
    logits : float32 tensor, episodes × queries × prototypes
        Before the sigmoid, class after class.
    scores : float32 tensor, episodes × queries × classes
        In [0, 1].
    target : int64 tensor, episodes × queries
        Place of the query's class among the episode's classes.
    kind : {"mse_mean", "mse_sum", "ce"}
        See :class:`RelationNet`.
    """
    each = logits.shape[2] // scores.shape[2]  # prototypes a class
    if kind == "ce":
        return cross_entropy(logits.unflatten(2, (-1, each)).mean(3).flatten(0, 1), target.flatten())
    classes = torch.arange(scores.shape[2], device=target.device).repeat_interleave(each)
    close = scores if each == 1 else logits.sigmoid()
    wrong = (close - (target[:, :, None] == classes).float()).square()
    return wrong.mean() if kind == "mse_mean" else wrong.sum() / len(wrong)


def clamped(encoder: torch.nn.Module, clamp: str) -> list[torch.nn.Parameter]:
    """The parameters of an encoder that a clamp raises to 0 where negative."""
    if clamp == "weight":
        return [layer.weight for layer in encoder.linears]
    return list(encoder.parameters()) if clamp == "all" else []
