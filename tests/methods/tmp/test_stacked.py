"""Relation networks of one shape trained as one: each learns what it learns alone."""

import copy

import pytest
import torch

from shared.methods.tmp.network import CLAMPS, LOSSES, PROTOTYPES
from shared.methods.tmp.stacked import EpisodeSamplers, RelationNets
from shared.nn.episodes import EpisodeSampler, unit_range
from shared.train import TrainingError
from shared.train.episodes import MetaConfig, meta_train

from .small_networks import network, profiles


def three(**options):
    """Three networks, and for each a sampler of its own."""
    made = [profiles(kinds=7, per_kind=14, seed=i, centres=i) for i in range(3)]
    draws = [EpisodeSampler(unit_range(X), y, 4, 3, 2) for X, y in made]
    return [network(seed=i, dims=(40, 12, 8), relation=(8, 6), **options) for i in range(3)], draws


@pytest.mark.parametrize("norm", ["running", "batch"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("proto", PROTOTYPES)
def test_each_network_gets_the_gradient_it_gets_alone(proto, loss, norm):
    nets, draws = three(proto=proto, loss=loss, norm=norm)
    together = RelationNets(nets).double().train()
    batches = [d.batch(1) for d in draws]
    whole = [torch.cat([b[i] for b in batches]) for i in range(3)]
    total, scores = together.loss_and_scores(whole[0].double(), whole[1].double(), whole[2])
    total.backward()
    alone, found = 0, dict(together.named_parameters())
    for i, (net, (support, query, target)) in enumerate(zip(nets, batches)):
        value, said = net.double().train().loss_and_scores(support.double(), query.double(), target)
        value.backward()
        alone += value.detach()
        torch.testing.assert_close(scores[i], said[0], atol=1e-6, rtol=1e-5)
        for name, weight in net.named_parameters():
            torch.testing.assert_close(found[name].grad[i], weight.grad, atol=1e-6, rtol=1e-4, msg=name)
    assert float(total.detach()) == pytest.approx(float(alone))
    kept = copy.deepcopy([net.state_dict() for net in nets])
    for net, before in zip(together.unstack(), kept):
        assert not net.training
        for name, value in net.state_dict().items():
            torch.testing.assert_close(value, before[name], msg=name)  # running statistics, support before query


@pytest.mark.parametrize("clamp", CLAMPS)
def test_networks_trained_as_one_are_networks_trained_in_turn(clamp):
    nets, draws = three(clamp=clamp)
    alone, rule = copy.deepcopy(nets), {"lr": 2e-3, "lr_step": 10, "log_every": 8, "device": "cpu"}
    for seed, (net, draw) in enumerate(zip(alone, draws)):
        meta_train(net, draw, MetaConfig(episodes=20, seed=seed, **rule))
    before, together = copy.deepcopy(nets), RelationNets(nets)
    seen = []
    meta_train(
        together,
        EpisodeSamplers(draws, range(3)),
        MetaConfig(episodes=20, **rule),
        [lambda _, row: seen.append(row["episode"])],
    )
    assert seen == [8, 16, 20]
    for net, same in zip(nets, before):
        assert torch.equal(net.last.weight, same.last.weight), "they are left alone until they are asked for"
    for net, other, draw in zip(together.unstack(), alone, draws):
        support, query, _ = draw.batch(2)
        # A bias before a batch norm has only rounding for gradient, which Adam grows: what counts is the scores.
        torch.testing.assert_close(net.scores(support, query), other.scores(support, query), atol=5e-3, rtol=0)
        torch.testing.assert_close(net.encoder.linears[0].weight, other.encoder.linears[0].weight, atol=1e-4, rtol=0)
        assert (min(p.min() for p in net.encoder.parameters()) >= 0) == (clamp == "all")


def test_a_network_does_not_depend_on_those_beside_it():
    nets, draws = three()
    (X, y), rule = profiles(7, 14, seed=50, centres=50), MetaConfig(episodes=12, lr=5e-3, device="cpu")
    other = [network(seed=9, dims=(40, 12, 8), relation=(8, 6)), EpisodeSampler(unit_range(X), y, 4, 3, 2)]
    found = []
    for third in ((nets[2], draws[2], 2), (*other, 7)):
        stacked, samplers, seeds = zip((nets[0], draws[0], 0), (nets[1], draws[1], 1), third)
        together = RelationNets(copy.deepcopy(stacked))
        meta_train(together, EpisodeSamplers(samplers, seeds), rule)
        found.append(together.unstack()[0].state_dict())
    assert all(torch.equal(found[0][k], found[1][k]) for k in found[0])


def test_what_cannot_be_trained_as_one_is_refused():
    nets, draws = three()
    for bad in (network(dims=(40, 8), relation=(8, 6)), network(dims=(40, 12, 8), relation=(8, 6), clamp="all")):
        with pytest.raises(TrainingError, match="one shape, clamp, proto and loss"):
            RelationNets([nets[0], bad])
    with pytest.raises(TrainingError, match="batch norms"):
        RelationNets([network(norm="layer")] * 2)
    X, y = profiles()
    with pytest.raises(TrainingError, match="episodes of one size"):
        EpisodeSamplers([draws[0], EpisodeSampler(X, y)], [0, 1])
    with pytest.raises(TrainingError, match="a seed each"):
        EpisodeSamplers(draws, [0, 1])
    with pytest.raises(TrainingError, match="meta_batch=1"):
        meta_train(RelationNets(nets), EpisodeSamplers(draws, range(3)), MetaConfig(episodes=4, meta_batch=2))


def test_a_run_of_several_resumes(tmp_path):
    nets, draws = three()
    found = []
    for stops in ((16,), (8, 16)):
        together = RelationNets(copy.deepcopy(nets))
        for stop in stops:
            rule = MetaConfig(episodes=stop, log_every=8, device="cpu", checkpoint=tmp_path / f"{len(stops)}")
            meta_train(together, EpisodeSamplers(draws, range(3)), rule)
            together = together if stop == 16 else RelationNets(copy.deepcopy(nets))
        found.append(together.state_dict())
    assert all(torch.equal(found[0][k], found[1][k]) for k in found[0])
    with pytest.raises(TrainingError, match="differs in data"):
        meta_train(RelationNets(nets), EpisodeSamplers(draws, [0, 1, 9]), rule)
