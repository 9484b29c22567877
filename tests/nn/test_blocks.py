"""Layers for episodes: one pass gives what separate passes give, and evaluation mode keeps a cell's answer its own."""

import copy

import numpy as np
import pytest
import torch

from shared.data.constraints import SettingError
from shared.data.errors import DataError
from shared.nn import sparse
from shared.nn.blocks import Blocks, EpisodeNorm, by_support, encode, encoder, sparse_first, use_statistics


def plain(blocks):
    """The same network of torch's own layers, with the same weights."""
    layers = []
    for linear, norm in zip(blocks.linears, blocks.norms):
        own = torch.nn.BatchNorm1d(norm.num_features)
        own.load_state_dict(norm.state_dict())
        layers += [copy.deepcopy(linear), own, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def built(dims=(12, 8, 5), norm="running"):
    torch.manual_seed(0)
    net = encoder(dims, norm)
    for part in net.norms:  # not the ones and zeros they start from
        torch.nn.init.uniform_(part.weight, 0.5, 2)
        torch.nn.init.uniform_(part.bias, -1, 1)
    return net


@pytest.mark.parametrize("episodes", [1, 3])
def test_one_pass_is_two_passes(episodes):
    """Outputs, gradients and running statistics, over two steps."""
    ours = built()
    theirs = plain(ours)
    for step in range(2):
        support, query = random(episodes, 2, 3, 12, seed=step), random(episodes, 7, 12, seed=step + 9) * 2 + 1
        found = encode(ours, support, query)
        wanted = [(theirs(support[e].flatten(0, 1)).view(2, 3, 5), theirs(query[e])) for e in range(episodes)]
        wanted = [torch.stack(part) for part in zip(*wanted)]
        for ours_part, theirs_part in zip(found, wanted):
            torch.testing.assert_close(ours_part, theirs_part, atol=1e-5, rtol=1e-5)
        for net, (s, q) in ((ours, found), (theirs, wanted)):
            net.zero_grad()
            ((s**2).sum() + (q * torch.arange(5)).sum()).backward()
    for a, b in zip(ours.linears, theirs[::3]):
        torch.testing.assert_close(a.weight.grad, b.weight.grad, atol=1e-4, rtol=1e-4)
    for a, b in zip(ours.norms, theirs[1::3]):
        torch.testing.assert_close(a.weight.grad, b.weight.grad, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(a.running_mean, b.running_mean, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(a.running_var, b.running_var, atol=1e-5, rtol=1e-5)
        assert a.num_batches_tracked == b.num_batches_tracked == 4 * episodes


def test_support_and_query_are_not_one_batch():
    """What the parting is for: stacked without it, the answer is another."""
    net = built()
    support, query = random(1, 2, 3, 12), random(1, 7, 12) + 3
    found = encode(net, support, query)[1]
    together = net(torch.cat([support.view(6, 12), query[0]]))[6:]
    assert not torch.allclose(found[0], together, atol=0.1)


def test_running_statistics_give_a_cell_its_own_answer():
    net = built()
    for step in range(5):
        encode(net, random(2, 2, 3, 12, seed=step), random(2, 7, 12, seed=step))
    net.eval()
    x, before = random(6, 12, seed=77), copy.deepcopy(net.state_dict())
    torch.testing.assert_close(torch.cat([net(row[None]) for row in x]), net(x))
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


def test_batch_statistics_are_those_at_hand_and_do_not_drift():
    net = use_statistics(built().eval(), "batch")
    x, before = random(6, 12, seed=77), copy.deepcopy(net.state_dict())
    wanted = plain(net).train()(x)
    torch.testing.assert_close(net(x), wanted)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert not torch.allclose(net(x[:3]), net(x)[:3], atol=1e-3)
    torch.testing.assert_close(use_statistics(net, "running")(x[:3]), net(x)[:3])
    assert torch.equal(built(norm="batch").eval()(x), wanted)


def test_several_episodes_at_test_time_are_each_its_own_batch():
    net = use_statistics(built().eval(), "batch")
    support, query = random(3, 2, 3, 12), random(3, 7, 12)
    together = encode(net, support, query)
    for e in range(3):
        alone = encode(net, support[e : e + 1], query[e : e + 1])
        for a, b in zip(together, alone):
            torch.testing.assert_close(a[e : e + 1], b, atol=1e-5, rtol=1e-5)


def test_layer_norm_is_torchs_and_needs_no_company():
    net = built(norm="layer").train()
    x = random(1, 12)
    wanted = x
    for linear, norm in zip(net.linears, net.norms):
        wanted = torch.relu(torch.nn.functional.layer_norm(linear(wanted), norm.weight.shape, norm.weight, norm.bias))
    torch.testing.assert_close(net(x), wanted)


def test_any_module_can_be_the_encoder():
    net = torch.nn.Linear(12, 4)
    support, query = random(2, 3, 2, 12), random(2, 5, 12)
    found = encode(net, support, query)
    torch.testing.assert_close(found[0], net(support))
    torch.testing.assert_close(found[1], net(query))
    assert encode(built().eval(), support, query[:, :0])[1].shape == (2, 0, 5)


def test_the_supports_statistics_serve_the_queries_and_are_not_collected():
    """Torch's own layers in training mode give the support; its mean and variance by hand give the queries."""
    net = use_statistics(built().eval(), "support")
    support, query = random(2, 2, 3, 12), random(2, 7, 12, seed=1) * 2 + 1
    before = {k: v.clone() for k, v in net.state_dict().items()}
    found = encode(net, support, query)
    for e in range(2):
        by, x = support[e].flatten(0, 1), query[e]
        torch.testing.assert_close(found[0][e].flatten(0, 1), plain(net)(by))
        for linear, norm in zip(net.linears, net.norms):
            by, x = linear(by), linear(x)
            mean, var = by.mean(0), by.var(0, unbiased=False)
            by, x = (((r - mean) / (var + norm.eps).sqrt() * norm.weight + norm.bias).relu() for r in (by, x))
        torch.testing.assert_close(found[1][e], x, atol=1e-5, rtol=1e-5)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert by_support(net) and not by_support(net.train()) and not by_support(use_statistics(net.eval(), "batch"))
    with pytest.raises(DataError, match="which rows are support"):
        use_statistics(net, "support")(query[0])
    with pytest.raises(DataError, match="two rows"):
        encode(net, support[:, :1, :1], query)


def test_one_row_has_no_variance():
    net = built()
    with pytest.raises(DataError, match="norm='running'"):
        net(random(1, 12))
    with pytest.raises(DataError, match="two rows"):
        use_statistics(net.eval(), "batch")(random(1, 12))
    assert net.train() and use_statistics(net.eval(), "running")(random(1, 12)).shape == (1, 5)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: encoder((12,)), "dims"),
        (lambda: encoder((12, 0)), "dims"),
        (lambda: encoder((12, 3.5)), "dims"),
        (lambda: encoder((12, 3), "group"), "norm='group' is not known"),
        (lambda: use_statistics(torch.nn.Linear(2, 2), "mine"), "which='mine' is not known"),
    ],
)
def test_what_cannot_be_built_is_refused(make, said):
    with pytest.raises(SettingError, match=said):
        make()


def test_features_are_not_negative_and_weights_are_torchs():
    net = encoder((12, 8, 5))
    assert isinstance(net, Blocks) and (net(random(9, 12)) >= 0).all()
    torch.manual_seed(3)
    mine = encoder((12, 8)).linears[0].weight
    torch.manual_seed(3)
    assert torch.equal(mine, torch.nn.Linear(12, 8).weight)
    assert isinstance(net.norms[0], EpisodeNorm) and np.isclose(net.norms[0].eps, 1e-5) and net.norms[0].momentum == 0.1


def few(*shape, seed=0):
    """Numbers of which most are zero."""
    x = random(*shape, seed=seed).double()
    return x * (x > 1)


@pytest.mark.parametrize("cache", [0, 2**23], ids=["in blocks", "at once"])
def test_a_sparse_first_layer_gives_equal_outputs_and_gradients(cache, monkeypatch):
    monkeypatch.setattr(sparse, "CACHE", cache)
    monkeypatch.setattr(sparse, "BLOCK", 40)
    dense = built().double()
    ours, support, query = copy.deepcopy(dense), few(1, 2, 3, 12), few(1, 7, 12, seed=1)
    with sparse_first(ours):
        first, found = ours.linears[0], encode(ours, support, query)
        wanted = encode(dense, support, query)
        for s, q in (found, wanted):
            ((s**2).sum() + (q * torch.arange(5)).sum()).backward()
        torch.testing.assert_close(found, wanted)
        torch.testing.assert_close(first.weight.grad.T, dense.linears[0].weight.grad)
        for a, b in zip(list(ours.parameters())[2:], list(dense.parameters())[2:], strict=True):
            torch.testing.assert_close(a.grad, b.grad)
        assert dense.linears[0].weight.grad.any() and isinstance(first, sparse.SparseLinear)
        for net in (ours, dense):
            torch.optim.SGD(net.parameters(), lr=0.1).step()
    assert type(ours.linears[0]) is torch.nn.Linear
    assert all(v.is_contiguous() for v in ours.state_dict().values())
    torch.testing.assert_close(ours.state_dict(), dense.state_dict())


def test_the_first_layer_comes_back_from_an_error_and_may_stay_as_it_is():
    net = built()
    before, linear = copy.deepcopy(net), net.linears[0]
    with pytest.raises(KeyError), sparse_first(net):
        raise KeyError
    assert net.linears[0] is linear and all(map(torch.equal, net.parameters(), before.parameters()))
    with sparse_first(net, wanted=False):
        assert net.linears[0] is linear
