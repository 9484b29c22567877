"""The relation network, its loss and its training step.

An encoder turns a profile into an embedding; a second network, the relation network, reads a class's prototype and a
query side by side and says how alike they are.
"""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy, linear

from shared.data.constraints import OneOf, check
from shared.nn.blocks import NORMS, Blocks, by_support, encode, encoder

CLAMPS, PROTOTYPES, LOSSES = ("none", "all", "weight"), ("mean", "sum", "pairwise"), ("mse_mean", "mse_sum", "ce")
CHOICES = {"norm": OneOf(*NORMS), "clamp": OneOf(*CLAMPS), "proto": OneOf(*PROTOTYPES), "loss": OneOf(*LOSSES)}

# The network as the authors' code runs it; `RelationNet(dims, **RELEASED)` and `TMP(**RELEASED, ...)` take it whole.
RELEASED = {"norm": "batch", "clamp": "all", "proto": "mean", "loss": "mse_mean"}


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


def relation_step(net, support: torch.Tensor, query: torch.Tensor, target: torch.Tensor):
    """One training step's loss: every query of an episode is compared with every class of its support.

    Parameters
    ----------
    net : RelationNet
        In training mode.
    support : float32 tensor, episodes × classes × shots × genes
        Profiles to learn the classes from.
    query : float32 tensor, episodes × queries × genes
        Profiles to name.
    target : int64 tensor, episodes × queries
        Place of the query's class among the episode's classes.

    Returns
    -------
    loss : scalar tensor
    scores : float32 tensor, episodes × queries × classes
        Of the same forward pass, for the training accuracy.
    """
    logits, scores = net(support, query)
    return relation_loss(logits, scores, target, net.kind), scores


class RelationNet(torch.nn.Module):
    """The encoder, and the network that compares (Park et al. 2021, figure 1 and equation 1).

    Parameters
    ----------
    dims : sequence of int
        Number of genes, then the width of each block of the encoder; (18000, 4000, 2000, 1000) in paper and code.
    relation : sequence of int
        Widths of the relation network's blocks, which read two embeddings and end in one number.
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
        super().__init__()
        check({"norm": norm, "clamp": clamp, "proto": proto, "loss": loss}, CHOICES)
        self.norm, self.clamp, self.proto, self.kind = norm, clamp, proto, loss
        self.encoder = encoder(dims, norm)
        self.relation = Blocks((2 * dims[-1], *relation), norm)
        self.last = torch.nn.Linear(relation[-1], 1)

    def about(self) -> dict:
        """The settings, which no weight tells; a checkpoint keeps them."""
        return {"norm": self.norm, "clamp": self.clamp, "proto": self.proto, "loss": self.kind}

    def forward(self, support: torch.Tensor, query: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits, float32 episodes × queries × prototypes, and scores, episodes × queries × classes in [0, 1].

        `support` is episodes × classes × shots × genes, `query` episodes × queries × genes.
        """
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

    def scores(self, support: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
        """Score of each class for each query: float32 episodes × queries × classes, in [0, 1]; the highest wins."""
        return self(support, query)[1]

    loss_and_scores = relation_step  # under the name by which :func:`shared.train.episodes.meta_train` calls it

    def loss(self, support: torch.Tensor, query: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The mean over the episodes of what `loss` names."""
        return self.loss_and_scores(support, query, target)[0]

    @torch.no_grad()
    def project_weights(self) -> None:
        """Projection onto non-negative weights where ``clamp`` asks for it; called at the end of each training step."""
        if parameters := clamped(self.encoder, self.clamp):
            torch._foreach_clamp_min_(parameters, 0.0)


def clamped(encoder: torch.nn.Module, clamp: str) -> list[torch.nn.Parameter]:
    """The parameters of an encoder that a clamp raises to 0 where negative."""
    if clamp == "weight":
        return [layer.weight for layer in encoder.linears]
    return list(encoder.parameters()) if clamp == "all" else []
