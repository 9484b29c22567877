"""Relation networks of several seeds, stacked and trained as one, each on its own episodes.

Experiments train the same small network from many seeds; one product then serves all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import batch_norm

from shared.methods.tmp.network import RelationNet
from shared.nn.blocks import Blocks, EpisodeNorm
from shared.nn.episodes import Batch, EpisodeSampler
from shared.train import TrainingError


class RelationNets(torch.nn.Module):
    """Several relation networks as one: each has its weights and its episodes, and one product serves all.

    A small network keeps a processor waiting: most of a step goes by between the products. Five networks in one take a
    third of the time of five in turn, at the widths of the chapter on a CPU. Each is trained as it would be alone, up
    to the rounding of sums::

        nets = RelationNets([RelationNet(dims) for _ in range(5)])
        meta_train(nets, EpisodeSamplers([EpisodeSampler(X, y)] * 5, seeds=range(5)), settings)
        nets.unstack()  # the weights, to the five

    Parameters
    ----------
    nets : sequence of RelationNet
        Of one shape and one setting, with batch norms. They are left alone until :meth:`unstack`.

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
        self._nets = tuple(nets)  # a tuple's networks are no parts of this module
        self.kind, self.clamp, self.proto = nets[0].kind, nets[0].clamp, nets[0].proto
        self.encoder = _StackedBlocks([net.encoder for net in nets])
        self.relation = _StackedBlocks([net.relation for net in nets])
        self.last = _StackedLinear([net.last for net in nets])

    def about(self) -> dict:
        """See :meth:`RelationNet.about`."""
        return self._nets[0].about()

    def unstack(self) -> tuple[RelationNet, ...]:
        """The networks, with the weights and statistics that they have come to here, in evaluation mode."""
        state = self.state_dict()
        for i, net in enumerate(self._nets):
            net.load_state_dict({k: v[i] for k, v in state.items()})
            net.eval()
        return self._nets

    def logits_and_scores(self, support, query):
        """As :meth:`RelationNet.logits_and_scores`, an episode a network."""
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
        logits = self.last(self.relation.after_first(pairs)).view(len(query), parts[1], -1).float()
        return logits, like.score(logits, like.members(C, K, logits.device))

    def loss_and_scores(self, support, query, target):
        """The sum of the losses, so that each network gets its own gradient; and the scores, an episode a network."""
        loss, scores = RelationNet.loss_and_scores(self, support, query, target)
        return len(target) * loss, scores

    forward, loss, project_weights = RelationNet.forward, RelationNet.loss, RelationNet.project_weights


class _Stacked(torch.nn.Module):
    """Parameters and buffers of several modules of one kind, stacked under their names."""

    def __init__(self, modules: Sequence[torch.nn.Module]):
        super().__init__()
        self._like = (modules[0],)  # a tuple's modules are no parts of this one
        for name, _ in modules[0].named_parameters():
            stacked = torch.stack([m.get_parameter(name).detach() for m in modules])
            self.register_parameter(name, torch.nn.Parameter(stacked))
        for name, _ in modules[0].named_buffers():
            self.register_buffer(name, torch.stack([m.get_buffer(name) for m in modules]))


class _StackedLinear(_Stacked):
    """A linear layer of each network: networks × features × rows in and out."""

    def forward(self, x):
        return torch.baddbmm(self.bias[:, :, None], self.weight, x)


class _StackedNorm(_Stacked):
    """A batch norm of each network, in training: a feature of one network is a feature of its own."""

    def forward(self, x, parts=None):
        known = [v.view(-1) for v in (self.running_mean, self.running_var, self.weight, self.bias)]
        parts, how = parts or (x.shape[2],), (True, self._like[0].momentum, self._like[0].eps)
        self.num_batches_tracked += len(parts)
        out = [batch_norm(p.reshape(1, -1, p.shape[2]), *known, *how).view(p.shape) for p in x.split(parts, 2)]
        return out[0] if len(out) == 1 else torch.cat(out, 2)


class _StackedBlocks(Blocks):
    """:class:`shared.nn.blocks.Blocks` of each network; its `parts` are the rows of support and query."""

    def __init__(self, blocks: Sequence[Blocks]):
        kinds = {torch.nn.Linear: _StackedLinear, EpisodeNorm: _StackedNorm}
        layers = zip(*blocks, strict=True)
        torch.nn.Sequential.__init__(self, *(kinds[type(k[0])](k) if type(k[0]) in kinds else k[0] for k in layers))


class EpisodeSamplers:
    """Samplers of several networks as one: each network's episodes are those it would get alone.

    Parameters
    ----------
    samplers : sequence of EpisodeSampler
        One for each network; their episodes have one size.
    seeds : sequence of int
        One for each network; takes the place of the seed in :class:`shared.train.episodes.MetaConfig`.

    Raises
    ------
    shared.train.TrainingError
        If sizes differ, or there are not as many seeds as samplers.
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

    def gather(self, support: torch.Tensor, query: torch.Tensor, target: torch.Tensor) -> Batch:
        """The rows with these numbers, one episode a network."""
        if len(support) != 1:
            raise TrainingError("networks that are trained as one take one episode a step: set meta_batch=1")
        each = [s.gather(*(p[0, i, None] for p in (support, query, target))) for i, s in enumerate(self.samplers)]
        return Batch(*(torch.cat(part) for part in zip(*each, strict=True)))

    def to(self, device: str | torch.device) -> EpisodeSamplers:
        """The same with every table on another device."""
        return EpisodeSamplers([s.to(device) for s in self.samplers], self.seeds)

    def digest(self) -> str:
        """Tells some samplers from others."""
        return " ".join(f"{s.digest()} {seed}" for s, seed in zip(self.samplers, self.seeds, strict=True))
