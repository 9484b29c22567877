"""The relation network: an encoder, and a second network that says how alike a prototype and a query are.

:class:`RelationNet` is the network of :class:`shared.methods.tmp.TMP`; :class:`RelationNets` trains several of them as
one, each on its own episodes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import batch_norm, cross_entropy, linear

from shared.nn.blocks import NORMS, Blocks, EpisodeNorm, by_support, encode, encoder
from shared.nn.episodes import Batch, EpisodeSampler
from shared.train import TrainingError

CLAMPS, PROTOTYPES, LOSSES = ("none", "all", "weight"), ("mean", "sum", "pairwise"), ("mse_mean", "mse_sum", "ce")


class RelationNet(torch.nn.Module):
    """The encoder, and the network that compares.

    Parameters
    ----------
    dims : sequence of int
        Number of genes, then the width of each block of the encoder; (18000, 4000, 2000, 1000) in paper and code.
    relation : sequence of int
        Widths of the relation network's blocks, which read two profiles' features and end in one number.
    norm : {"running", "batch", "layer"}
        See :func:`shared.nn.blocks.encoder`. The code never leaves training mode, ``"batch"``: its answers depend on
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
        self.norm, self.clamp, self.proto, self.kind = norm, clamp, proto, loss
        self.encoder = encoder(dims, norm)
        self.relation = Blocks((2 * dims[-1], *relation), norm)
        self.last = torch.nn.Linear(relation[-1], 1)
        self._clamped = _clamped(self.encoder, clamp)

    def about(self) -> dict:
        """The settings, which no weight tells; a checkpoint keeps them."""
        return {"norm": self.norm, "clamp": self.clamp, "proto": self.proto, "loss": self.kind}

    def prototypes(self, support: torch.Tensor) -> torch.Tensor:
        """What a query is compared with: episodes × classes × shots × features to episodes × prototypes × features."""
        if self.proto == "pairwise":
            return support.flatten(1, 2)
        return support.mean(2) if self.proto == "mean" else support.sum(2)

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
        return self._logits_and_scores(support, query)[1]

    def _logits_and_scores(self, support, query):
        C, K = support.shape[1:3]
        support, query = encode(self.encoder, support, query)
        logits = self.compare(self.prototypes(support), query, support.flatten(1, 2)).float()
        return logits, self._scored(logits, C, K)

    def _scored(self, logits, C, K):
        if self.proto != "pairwise":
            return self.score(logits)
        return self.score(logits, torch.eye(C, device=logits.device).repeat_interleave(K, 0) / K)

    def loss_and_scores(self, support, query, target):
        """The loss, and the scores it was worked out from."""
        return self._judged(*self._logits_and_scores(support, query), target)

    def _judged(self, logits, scores, target):
        each = logits.shape[2] // scores.shape[2]  # prototypes a class
        if self.kind == "ce":
            return cross_entropy(logits.unflatten(2, (-1, each)).mean(3).flatten(0, 1), target.flatten()), scores
        places = torch.arange(scores.shape[2], device=target.device).repeat_interleave(each)
        close = scores if each == 1 else logits.sigmoid()
        wrong = (close - (target[:, :, None] == places).float()).square()
        return wrong.mean() if self.kind == "mse_mean" else wrong.sum() / len(wrong), scores

    def loss(self, support: torch.Tensor, query: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The mean over the episodes of what `loss` names."""
        return self.loss_and_scores(support, query, target)[0]

    @torch.no_grad()
    def project_weights(self) -> None:
        """Projection onto non-negative weights where ``clamp`` asks for it; called at the end of each training step."""
        if self._clamped:
            torch._foreach_clamp_min_(self._clamped, 0.0)


def _clamped(encoder, clamp):
    """The parameters of an encoder that a clamp raises to 0."""
    if clamp == "weight":
        return [layer.weight for layer in encoder.linears]
    return list(encoder.parameters()) if clamp == "all" else []


# Several networks as one.


class RelationNets(torch.nn.Module):
    """Several relation networks as one: each has its weights and its episodes, and one product serves all.

    A small network keeps a processor waiting: most of a step goes by between the products. Five networks in one take a
    third of the time of five in turn, at the widths of the chapter on a CPU. Each moves as it would move alone, up to
    the rounding of sums::

        nets = RelationNets([RelationNet(dims) for _ in range(5)])
        meta_train(nets, EpisodeSamplers([EpisodeSampler(X, y)] * 5, seeds=range(5)), settings)
        nets.hand_back()  # the weights, to the five

    Parameters
    ----------
    nets : sequence of RelationNet
        Of one shape and one setting, with batch norms. They are left alone until :meth:`hand_back`.

    Raises
    ------
    shared.train.TrainingError
        If their shapes or settings differ, or their norm is ``"layer"``.
    """

    def __init__(self, nets: Sequence[RelationNet]):
        super().__init__()
        kinds = {(n.clamp, n.proto, n.kind, *((k, *v.shape) for k, v in n.state_dict().items())) for n in nets}
        if len(kinds) != 1:
            raise TrainingError("networks that are trained as one have one shape, clamp, proto and loss")
        if not all(isinstance(m, EpisodeNorm) for m in (*nets[0].encoder.norms, *nets[0].relation.norms)):
            raise TrainingError("networks that are trained as one have batch norms: norm='running' or 'batch'")
        self._nets, N = tuple(nets), len(nets)  # a tuple's networks are no parts of this module
        self.encoder, self.relation = _StackedBlocks(nets[0].encoder, N), _StackedBlocks(nets[0].relation, N)
        self.last = _StackedLinear(nets[0].last, N)
        states = [net.state_dict() for net in nets]
        self.load_state_dict({k: torch.stack([state[k] for state in states]) for k in states[0]})
        self._clamped = _clamped(self.encoder, nets[0].clamp)

    def about(self) -> dict:
        """See :meth:`RelationNet.about`."""
        return self._nets[0].about()

    def hand_back(self) -> tuple[RelationNet, ...]:
        """The networks, with the weights and statistics that they have come to here, in evaluation mode."""
        state = self.state_dict()
        for i, net in enumerate(self._nets):
            net.load_state_dict({k: v[i] for k, v in state.items()})
            net.eval()
        return self._nets

    def loss_and_scores(self, support, query, target):
        """The sum of the losses, so that each network gets its own gradient; and the scores, an episode a network."""
        (C, K), like = support.shape[1:3], self._nets[0]
        parts = (C * K, query.shape[1])
        # Features × rows: the layout in which each network's product needs no copy.
        found = self.encoder(torch.cat([support.flatten(1, 2), query], 1).mT, parts)
        shown, asked = found.split(parts, 2)
        prototypes = like.prototypes(shown.mT.unflatten(1, (C, K))).mT
        first, F = self.relation.linears[0], found.shape[1]
        left = first.weight[:, :, :F] @ prototypes
        right = torch.baddbmm(first.bias[:, :, None], first.weight[:, :, F:], asked)
        pairs = (right[..., None] + left[:, :, None]).flatten(2)
        logits = self.last(self.relation.after_first(pairs)).view(len(target), parts[1], -1).float()
        loss, scores = like._judged(logits, like._scored(logits, C, K), target)
        return len(target) * loss, scores

    def loss(self, support: torch.Tensor, query: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """See :meth:`loss_and_scores`."""
        return self.loss_and_scores(support, query, target)[0]

    project_weights = RelationNet.project_weights


class _StackedLinear(torch.nn.Module):
    """A linear layer of each network: networks × features × rows in and out."""

    def __init__(self, like: torch.nn.Linear, n: int):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(n, *like.weight.shape))
        self.bias = torch.nn.Parameter(torch.empty(n, *like.bias.shape))

    def forward(self, x):
        return torch.baddbmm(self.bias[:, :, None], self.weight, x)


class _StackedNorm(torch.nn.Module):
    """A batch norm of each network, in training: a feature of one network is a feature of its own."""

    def __init__(self, like: EpisodeNorm, n: int):
        super().__init__()
        self.momentum, self.eps = like.momentum, like.eps
        for name, value in like.named_parameters():
            self.register_parameter(name, torch.nn.Parameter(torch.empty(n, *value.shape)))
        for name, value in like.named_buffers():
            self.register_buffer(name, torch.empty(n, *value.shape, dtype=value.dtype))

    def forward(self, x, parts):
        known = [v.view(-1) for v in (self.running_mean, self.running_var, self.weight, self.bias)]
        self.num_batches_tracked += len(parts)
        pieces = x.split(parts, 2) if len(parts) > 1 else [x]
        out = [
            batch_norm(p.reshape(1, -1, p.shape[2]), *known, True, self.momentum, self.eps).view(p.shape)
            for p in pieces
        ]
        return out[0] if len(out) == 1 else torch.cat(out, 2)


class _StackedBlocks(torch.nn.Module):
    """:class:`shared.nn.blocks.Blocks` of each network; `parts` are the rows of support and query."""

    def __init__(self, like: Blocks, n: int):
        super().__init__()
        self.linears = torch.nn.ModuleList(_StackedLinear(layer, n) for layer in like.linears)
        self.norms = torch.nn.ModuleList(_StackedNorm(layer, n) for layer in like.norms)

    def forward(self, x, parts):
        return self.after_first(self.linears[0](x), parts)

    def after_first(self, x, parts=None):
        parts = parts or (x.shape[2],)
        x = self.norms[0](x, parts).relu_()
        for layer, norm in zip(self.linears[1:], self.norms[1:]):
            x = norm(layer(x), parts).relu_()
        return x


class EpisodeSamplers:
    """Samplers of several networks as one: each network's episodes are those it would get alone.

    Parameters
    ----------
    samplers : sequence of EpisodeSampler
        One for each network; their episodes have one size.
    seeds : sequence of int
        One for each network; takes the place of the seed in :class:`shared.train.episodes.MetaConfig`.
    """

    def __init__(self, samplers: Sequence[EpisodeSampler], seeds: Sequence[int]):
        sizes = {(s.n_way, s.k_shot, s.n_query, s.X.shape[1]) for s in samplers}
        if len(sizes) != 1 or len(samplers) != len(seeds):
            raise TrainingError("networks that are trained as one have episodes of one size, and a seed each")
        self.samplers, self.seeds = list(samplers), list(seeds)
        self.n_way, self.k_shot, self.n_query, _ = sizes.pop()
        self.X = self.samplers[0].X

    def stretch(self, n: int, seed: int, done: int) -> tuple[torch.Tensor, ...]:
        """Row numbers of `n` episodes of every network, as :meth:`gather` takes them."""
        drawn = [s.stretch(n, own, done) for s, own in zip(self.samplers, self.seeds, strict=True)]
        return tuple(torch.stack(part, 1) for part in zip(*drawn, strict=True))

    def gather(self, support: torch.Tensor, query: torch.Tensor, target: torch.Tensor):
        """The rows with these numbers, one episode a network."""
        if len(support) != 1:
            raise TrainingError("networks that are trained as one take one episode a step: set meta_batch=1")
        each = [s.gather(*(p[0, i, None] for p in (support, query, target))) for i, s in enumerate(self.samplers)]
        return Batch(*(torch.cat(part) for part in zip(*each, strict=True)))

    def to(self, device) -> EpisodeSamplers:
        """The same with every table on another device."""
        return EpisodeSamplers([s.to(device) for s in self.samplers], self.seeds)

    def digest(self) -> str:
        """Tells some samplers from others."""
        return " ".join(f"{s.digest()} {seed}" for s, seed in zip(self.samplers, self.seeds, strict=True))
