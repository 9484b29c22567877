"""The relation network beside a few lines of numpy, its switches, and the traps it sets."""

import copy
import itertools

import numpy as np
import pytest
import torch

from shared.methods.tmp.network import CLAMPS, LOSSES, PROTOTYPES, PlainRelationNet, RelationNet, relation_step
from shared.nn.episodes import NORMS, EpisodeSampler, unit_range, use_statistics
from shared.train.episodes import MetaConfig, meta_train

from .small_networks import network, profiles

PUBLISHED = (18000, 4000, 2000, 1000)


# The network. The letters are those of the contract the method was built to.


def test_a_parameter_counts_are_the_published():
    with torch.device("meta"):  # shapes without memory
        net = RelationNet(PUBLISHED)
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in net.named_children()}
    assert count["encoder"] == 82_021_000
    assert count["relation"] + count["last"] == 1_051_901


def numpy_scores(net, support, query, average="mean"):
    """One episode in training mode, in float64: what encoder, prototypes, pairs and relation network come to."""
    state = {k: v.double().numpy() for k, v in net.state_dict().items()}

    def blocks(x, name):
        for i in range(0, 3 * len(getattr(net, name).linears), 3):
            x = x @ state[f"{name}.{i}.weight"].T + state[f"{name}.{i}.bias"]
            x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
            x = np.maximum(x * state[f"{name}.{i + 1}.weight"] + state[f"{name}.{i + 1}.bias"], 0)
        return x

    C, K, _ = support.shape
    s = blocks(support.reshape(C * K, -1), "encoder").reshape(C, K, -1)
    q = blocks(query, "encoder")
    p = {"mean": s.mean(1), "sum": s.sum(1), "pairwise": s.reshape(C * K, -1)}[average]
    pairs = np.array([np.concatenate([one, cell]) for cell in q for one in p])  # the prototype comes first
    logits = blocks(pairs, "relation") @ state["last.weight"].T + state["last.bias"]
    return logits.reshape(len(q), len(p))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("proto", PROTOTYPES)
def test_b_one_episode_is_what_numpy_says(proto, loss):
    net = network(proto=proto, loss=loss)
    for norm in (*net.encoder.norms, *net.relation.norms):
        torch.nn.init.uniform_(norm.weight, 0.2, 1.5)
        torch.nn.init.uniform_(norm.bias, 0.2, 1.5)
    rng = np.random.default_rng(0)
    support, query, target = rng.random((5, 3, 40)), rng.random((20, 40)), np.repeat(np.arange(5), 4)
    logits = numpy_scores(net, support, query, proto)
    sigmoid = 1 / (1 + np.exp(-logits))
    each = logits.shape[1] // 5
    right = np.repeat(np.eye(5)[target], each, axis=1)
    if loss == "ce":
        mean = logits.reshape(20, 5, each).mean(2)
        scores = np.exp(mean) / np.exp(mean).sum(1, keepdims=True)
        wanted = -np.log(scores[np.arange(20), target]).mean()
    else:
        scores = sigmoid.reshape(20, 5, each).mean(2)
        wanted = ((sigmoid - right) ** 2).mean() if loss == "mse_mean" else ((sigmoid - right) ** 2).sum()
    batch = [torch.tensor(a[None]) for a in (support.astype("f"), query.astype("f"), target)]
    before = copy.deepcopy(net.state_dict())
    found, found_scores = net.loss_and_scores(*batch)
    np.testing.assert_allclose(found_scores.detach()[0], scores, atol=1e-5)
    assert float(found.detach()) == pytest.approx(wanted, rel=1e-4)
    net.load_state_dict(before)
    assert torch.equal(net.scores(*batch[:2]), found_scores) and found_scores.dtype == torch.float32
    net.load_state_dict(before)
    assert torch.equal(net.loss(*batch), found)


@pytest.mark.parametrize("mode", [True, False], ids=["training", "evaluation"])
def test_the_plain_network_is_the_same(mode):
    """One episode: scores, loss, gradients and stored statistics of the network in torch's own layers."""
    net = network()
    plain = PlainRelationNet((40, 24, 12), (10, 6))
    plain.load_state_dict(net.state_dict())
    support, query, target = torch.rand(5, 3, 40), torch.rand(20, 40), torch.arange(5).repeat_interleave(4)
    found = [
        relation_step(net.train(mode), support[None], query[None], target[None]),
        relation_step(plain.train(mode), support, query, target),
    ]
    torch.testing.assert_close(found[0][1][0], found[1][1], atol=1e-5, rtol=1e-4)
    for loss, _ in found:
        loss.backward()
    for a, b in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-5, rtol=1e-3)
    for a, b in zip(net.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_the_prototype_comes_first():
    net, support, query = network(), torch.rand(1, 3, 1, 40), torch.rand(1, 3, 40)
    there = net.eval().scores(support, query)
    back = net.scores(query[:, :, None], support[:, :, 0]).transpose(1, 2)
    assert not torch.allclose(there, back, atol=1e-4)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("clamp", CLAMPS)
def test_c_a_clamp_leaves_nothing_negative(clamp, norm):
    X, y = profiles()
    net = network(clamp=clamp, norm=norm)
    meta_train(net, EpisodeSampler(unit_range(X), y), MetaConfig(episodes=2, lr=0.05, device="cpu"))
    low = {name: float(p.detach().min()) for name, p in net.named_parameters()}
    encoder = {k: v for k, v in low.items() if k.startswith("encoder")}
    linears = [k for k in encoder if int(k.split(".")[1]) % 3 == 0]
    clamped = [k for k in encoder if clamp == "all" or (clamp == "weight" and k in linears and "weight" in k)]
    assert all(encoder[k] >= 0 for k in clamped)
    assert all(encoder[k] < 0 for k in linears if k not in clamped)
    assert min(v for k, v in low.items() if k.startswith("relation")) < 0
    if clamp == "all":
        assert any(float((p == 0).float().mean()) > 0.3 for p in net.encoder.parameters())  # half of the weights go


@pytest.mark.parametrize(("order", "used"), [("standard", 4), ("original", 3)])
def test_d_the_original_order_takes_one_step_fewer(order, used):
    X, y = profiles()
    draws, net, by_hand = EpisodeSampler(unit_range(X), y), network(), network()
    meta_train(net, draws, MetaConfig(episodes=4, step_order=order, device="cpu"))
    # Fused like the other, to the same bytes: a bias before a batch norm has only rounding for gradient; Adam grows it.
    adam = torch.optim.Adam(by_hand.parameters(), lr=5e-4, fused=True)
    batches = draws.draw(4, np.random.default_rng(np.random.SeedSequence((0, 0))))
    by_hand.train()
    for i in range(used):
        adam.zero_grad()
        by_hand.loss(*draws.gather(*(part[i : i + 1] for part in batches))).backward()
        adam.step()
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), by_hand.parameters()))


@pytest.fixture(scope="module")
def trained():
    """A network that knows six kinds, and how to draw more of their profiles."""
    X, y = profiles(per_kind=40)
    net = network()
    meta_train(net, EpisodeSampler(unit_range(X), y), MetaConfig(episodes=250, lr=5e-3, device="cpu"))
    return net, EpisodeSampler(unit_range(profiles(per_kind=40, seed=9)[0]), y, 5, 5, 10, seed=7)


@torch.inference_mode()
def accuracy(net, draws, kind=None, statistics="running", n=40):
    """Over episodes; `kind` keeps queries of that class of each episode only."""
    support, query, target = draws.batch(n)
    if kind is not None:
        here = slice(kind * draws.n_query, (kind + 1) * draws.n_query)
        query, target = query[:, here], target[:, here]
    scores = use_statistics(net, statistics).eval().scores(support, query)
    use_statistics(net, "running")
    return float((scores.argmax(2) == target).float().mean())


def test_e_queries_of_one_class_betray_batch_statistics(trained):
    """The trap: normalised by themselves, the queries of one class lose what they share, which is their class."""
    assert accuracy(*trained) > 0.95 and accuracy(*trained, statistics="batch") > 0.95
    assert accuracy(*trained, kind=2) > 0.95 and accuracy(*trained, kind=2, statistics="support") > 0.95
    assert accuracy(*trained, kind=2, statistics="batch") < 0.5


@pytest.mark.parametrize("statistics", ["running", "support"])
def test_e_one_query_at_a_time_gets_the_same_answer(trained, statistics):
    net, draws = trained
    support, query, _ = draws.batch(1)
    use_statistics(net.eval(), statistics)
    with torch.inference_mode():
        together = net.scores(support, query)
        alone = torch.cat([net.scores(support, query[:, i : i + 1]) for i in range(query.shape[1])], 1)
    use_statistics(net, "running")
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("proto", PROTOTYPES)
def test_e_the_supports_statistics_are_those_of_its_cells_and_of_its_pairs(proto):
    """Against float64 by hand: support cells in the encoder, support cells with prototypes in the relation network."""
    net = network(proto=proto)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    rand = torch.Generator().manual_seed(3)
    support, query = torch.rand(5, 4, 40, generator=rand), 3 * torch.rand(20, 40, generator=rand)
    state = {k: v.double().numpy() for k, v in net.state_dict().items()}

    def blocks(by, x, name):
        for i in range(0, 3 * len(getattr(net, name).linears), 3):
            weight, bias = state[f"{name}.{i}.weight"], state[f"{name}.{i}.bias"]
            by, x = by @ weight.T + bias, x @ weight.T + bias
            mean, deviation = by.mean(0), np.sqrt(by.var(0) + 1e-5)
            gamma, beta = state[f"{name}.{i + 1}.weight"], state[f"{name}.{i + 1}.bias"]
            by, x = (np.maximum((rows - mean) / deviation * gamma + beta, 0) for rows in (by, x))
        return by, x

    s, q = blocks(support.reshape(20, -1).double().numpy(), query.double().numpy(), "encoder")
    shots = s.reshape(5, 4, -1)
    p = {"mean": shots.mean(1), "sum": shots.sum(1), "pairwise": s}[proto]
    own, pairs = (np.array([np.concatenate([one, cell]) for cell in cells for one in p]) for cells in (s, q))
    logits = blocks(own, pairs, "relation")[1] @ state["last.weight"].T + state["last.bias"]
    wanted = 1 / (1 + np.exp(-logits.reshape(20, len(p))))
    wanted = wanted.reshape(20, 5, -1).mean(2)
    with torch.inference_mode():
        found = use_statistics(net.eval(), "support").scores(support[None], query[None])[0]
        beside = use_statistics(net, "batch").scores(support[None], query[None])[0]
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert np.abs(found - beside).max() > 1e-3


def test_episodes_side_by_side_are_episodes_alone(trained):
    net, draws = trained
    support, query, _ = draws.batch(3)
    for statistics in ("running", "batch", "support"):
        use_statistics(net.eval(), statistics)
        together = net.scores(support, query)
        alone = torch.cat([net.scores(support[e : e + 1], query[e : e + 1]) for e in range(3)])
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    use_statistics(net, "running")


def test_the_order_of_classes_and_of_support_is_of_no_consequence(trained):
    net, draws = trained
    support, query, _ = draws.batch(2)
    scores = net.eval().scores(support, query)
    turned = net.scores(support[:, [3, 1, 4, 0, 2]][:, :, [4, 2, 0, 1, 3]], query)
    torch.testing.assert_close(turned, scores[:, :, [3, 1, 4, 0, 2]], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "options",
    [dict(zip(("norm", "clamp", "proto", "loss"), c)) for c in itertools.product(NORMS, CLAMPS, PROTOTYPES, LOSSES)],
    ids=lambda o: "-".join(o.values()),
)
def test_every_choice_can_be_trained_and_scores_lie_in_range(options):
    X, y = profiles(kinds=3, per_kind=8)
    draws, net = EpisodeSampler(unit_range(X), y, 3, 2, 3), network(dims=(40, 8), relation=(6,), **options)
    meta_train(net, draws, MetaConfig(episodes=2, meta_batch=2, device="cpu"))
    support, query, _ = draws.batch(2)
    scores = net.scores(support, query).detach()
    assert scores.shape == (2, 9, 3) and (scores >= 0).all() and (scores <= 1).all()
    if options["loss"] == "ce":
        torch.testing.assert_close(scores.sum(2), torch.ones(2, 9))


@pytest.mark.parametrize("name", ["norm", "clamp", "proto", "loss"])
def test_unknown_choices_are_refused(name):
    with pytest.raises(ValueError, match=f"{name}='other' is not known: choose"):
        network(**{name: "other"})
