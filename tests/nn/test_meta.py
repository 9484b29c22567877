"""Learners against hand-written ones: the gradient through the inner steps above all."""

import copy

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from shared.data.constraints import SettingError
from shared.data.errors import DataError
from shared.nn.episodes import EpisodeSampler, encoder, use_statistics
from shared.nn.heads import matching, prototypes, ridge
from shared.nn.meta import ANIL, MAML, Frozen, Matching, Prototypical, ScaledLinear, ScaleShift, descend
from shared.train import TrainingError
from shared.train.episodes import MetaConfig, meta_train

G, F, WAYS = 20, 6, 3
LEARNERS = {
    "prototypical": lambda e: Prototypical(e),
    "cosine": lambda e: Prototypical(e, metric="cosine"),
    "matching": lambda e: Matching(e),
    "maml": lambda e: MAML(e, n_way=WAYS, inner_lr=0.1),
    "first-order maml": lambda e: MAML(e, n_way=None, first_order=True, inner_lr=0.1),
    "anil": lambda e: ANIL(e, n_way=WAYS),
    "scale and shift": lambda e: ScaleShift(e, n_way=WAYS),
}


def table(rows=20, kinds=6, seed=0, apart=1.0):
    """Gaussian classes over the genes."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(kinds), rows)
    return (apart * rng.normal(size=(kinds, G))[y] + rng.normal(size=(len(y), G))).astype(np.float32), y


def sampler(seed=0, **sizes):
    return EpisodeSampler(*table(), **{"n_way": WAYS, "k_shot": 3, "n_query": 4, "seed": seed} | sizes)


def small(norm="layer", seed=0):
    torch.manual_seed(seed)
    return encoder((G, 8, F), norm)


def smooth(seed=0, dtype=torch.float64):
    """A tiny encoder without kinks, in double precision."""
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(G, 4), torch.nn.Tanh(), torch.nn.Linear(4, F)).to(dtype)


def doubled(n=2, seed=0):
    support, query, target = sampler(seed).batch(n)
    return support.double(), query.double(), target


# Second-order gradients.


def unrolled(net, weight, bias, support, query, target, lr, steps, first_order, body):
    """MAML written out for one two-layer net: torch's own autograd, one episode after another, no torch.func."""
    total = 0
    for episode in range(len(support)):
        inner = [net[0].weight, net[0].bias, net[2].weight, net[2].bias, weight, bias]
        C, K = support.shape[1:3]
        rows, labels = support[episode].reshape(C * K, -1), torch.arange(C).repeat_interleave(K)

        def run(w, x):
            return (torch.tanh(x @ w[0].T + w[1]) @ w[2].T + w[3]) @ w[4].T + w[5]

        for _ in range(steps):
            moving = inner if body else inner[4:]
            slopes = torch.autograd.grad(cross_entropy(run(inner, rows), labels), moving, create_graph=not first_order)
            inner = inner[: 6 - len(moving)] + [w - lr * s for w, s in zip(moving, slopes, strict=True)]
        total = total + cross_entropy(run(inner, query[episode]), target[episode])
    return total / len(support)


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("kind", [MAML, ANIL])
def test_the_gradient_through_the_inner_steps_is_the_one_written_out(kind, first_order):
    net = smooth()
    learner = kind(net, n_way=WAYS, inner_lr=0.3, inner_steps=3, first_order=first_order).double()
    batch = doubled()
    parameters = list(learner.parameters())
    loss = learner.loss(*batch)
    found = torch.autograd.grad(loss, parameters)
    expected = unrolled(net, learner.weight, learner.bias, *batch, 0.3, 3, first_order, kind is MAML)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-12)
    slopes = torch.autograd.grad(expected, parameters)
    for one, other in zip(found, slopes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-11)


def test_first_and_second_order_are_the_same_loss_and_different_gradients():
    batch, net = doubled(), smooth()
    both = []
    for first_order in (False, True):
        torch.manual_seed(1)
        learner = MAML(net, n_way=WAYS, inner_lr=0.3, inner_steps=3, first_order=first_order).double()
        loss = learner.loss(*batch)
        both.append((loss.item(), torch.autograd.grad(loss, net[0].weight)[0]))
    assert both[0][0] == pytest.approx(both[1][0], abs=1e-12)
    assert not torch.allclose(both[0][1], both[1][1], rtol=1e-2)


def test_descend_on_a_parabola():
    start = {"x": torch.tensor(3.0, dtype=torch.float64, requires_grad=True)}
    exact, first = (descend(lambda p: p["x"] ** 2, start, 4, 0.1, first_order) for first_order in (False, True))
    assert exact["x"].item() == pytest.approx(3 * 0.8**4) == first["x"].item()
    assert torch.autograd.grad(exact["x"], start["x"])[0].item() == pytest.approx(0.8**4)
    assert torch.autograd.grad(first["x"], start["x"])[0].item() == 1
    assert start["x"].item() == 3


def test_maml_in_chunks_is_the_same():
    batch, net = doubled(5), smooth()
    torch.manual_seed(0)
    learner = MAML(net, n_way=WAYS).double()
    whole = learner.scores(*batch[:2])
    learner.chunk = 2
    torch.testing.assert_close(learner.scores(*batch[:2]), whole, rtol=1e-12, atol=1e-12)


def test_more_steps_fit_the_support_better():
    support, _, _ = sampler().batch(4)
    query, target = support.flatten(1, 2), torch.arange(WAYS).repeat_interleave(3).repeat(4, 1)
    losses = [ANIL(small(), n_way=None, inner_steps=n).loss(support, query, target).item() for n in (1, 5, 50)]
    assert losses == sorted(losses, reverse=True) and losses[0] < np.log(WAYS)


# Scale and shift.


@pytest.mark.parametrize("norm", ["layer", "running"])
def test_scale_one_and_shift_zero_is_the_frozen_network(norm):
    frozen = small(norm)
    frozen(torch.randn(200, G))  # running statistics that are not the first ones
    frozen.eval()
    before = copy.deepcopy(frozen.state_dict())
    torch.manual_seed(3)
    learner, (support, query, target) = ScaleShift(frozen, n_way=WAYS), sampler().batch(2)
    torch.manual_seed(3)
    plain = ANIL(frozen, n_way=WAYS).eval()
    torch.testing.assert_close(learner.encoder(query[0]), frozen(query[0]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        learner.train().scores(support, query), plain.scores(support, query), rtol=1e-4, atol=1e-5
    )
    learner.loss(support, query, target).backward()
    moved = {name for name, p in learner.named_parameters() if p.grad is not None}
    assert moved == {name for name in learner.state_dict() if name.endswith(("scale", "shift"))} | {"weight", "bias"}
    assert all(torch.equal(value, before[name]) for name, value in frozen.state_dict().items())


def test_scale_and_shift_are_those_of_the_weights():
    plain = torch.nn.Linear(5, 4)
    scaled = ScaledLinear(copy.deepcopy(plain))
    with torch.no_grad():
        scaled.scale.copy_(torch.tensor([1.0, -2, 0, 3]))
        scaled.shift.copy_(torch.tensor([0.0, 1, 2, -1]))
        plain.weight.mul_(scaled.scale[:, None])
        plain.bias.add_(scaled.shift)
    x = torch.randn(7, 5)
    torch.testing.assert_close(scaled(x), plain(x))
    lone = ScaledLinear(torch.nn.Linear(5, 4, bias=False))
    torch.testing.assert_close(lone(x), x @ lone.frozen.weight.T)


def test_scale_and_shift_train_two_numbers_an_output_and_leave_the_rest():
    frozen = small("running").eval()
    before = copy.deepcopy(frozen.state_dict())
    learner = ScaleShift(frozen, n_way=WAYS)
    trained = sum(p.numel() for p in learner.parameters() if p.requires_grad)
    assert trained == 2 * (8 + F) + WAYS * (F + 1)
    meta_train(learner, sampler(), MetaConfig(episodes=20, lr=0.01, device="cpu"))
    for name, value in learner.encoder.state_dict().items():
        if not name.endswith(("scale", "shift")):
            assert torch.equal(value, before[name.replace("frozen.", "")]), f"{name} moved"
    assert not torch.equal(learner.encoder.linears[0].scale, torch.ones(8))
    assert all(p.requires_grad for p in frozen.parameters()), "the caller's encoder is left as it is"


def test_scale_and_shift_of_a_single_layer_and_of_none():
    assert isinstance(ScaleShift(torch.nn.Linear(G, F)).encoder, ScaledLinear)
    with pytest.raises(DataError, match="no linear layer to scale"):
        ScaleShift(torch.nn.Identity(), n_features=G)


def test_scale_and_shift_refuse_statistics_that_would_undo_them():
    released = small("batch")
    with pytest.raises(DataError, match="use_statistics\\(encoder, 'running'\\)"):
        ScaleShift(released)
    learner = ScaleShift(use_statistics(released, "running"), n_way=WAYS)
    support, query, _ = sampler().batch(1)
    learner.scores(support, query)
    with pytest.raises(DataError, match="divides every scale away"):
        use_statistics(learner, "batch").scores(support, query)


# All learners.


@pytest.mark.parametrize("name", LEARNERS)
def test_learners_keep_the_protocol_and_learn(name):
    def mean_loss():
        with torch.no_grad():
            return float(learner.eval().loss(*sampler(seed=7).batch(40)))

    torch.manual_seed(0)
    learner = LEARNERS[name](small())
    support, query, target = sampler().batch(2)
    scores = learner.scores(support, query)
    assert scores.shape == (2, WAYS * 4, WAYS) and scores.dtype == torch.float32
    exact = cross_entropy(scores.flatten(0, 1), target.flatten())
    torch.testing.assert_close(learner.loss(support, query, target), exact)
    first = mean_loss()
    history = meta_train(learner, sampler(), MetaConfig(episodes=200, meta_batch=4, lr=1e-2, device="cpu"))
    assert mean_loss() < 0.9 * first
    assert history.rows[-1]["accuracy"] > 0.6


@pytest.mark.parametrize("name", LEARNERS)
def test_a_query_alone_gets_the_answer_it_gets_among_others(name):
    learner, (support, query, _) = LEARNERS[name](small()).eval(), sampler().batch(2)
    with torch.no_grad():
        together, alone = learner.scores(support, query), learner.scores(support[1:], query[1:, 5:6])
    torch.testing.assert_close(alone[0, 0], together[1, 5], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LEARNERS)
def test_training_twice_gives_the_same_bytes(name):
    weights = []
    for _ in range(2):
        torch.manual_seed(0)
        learner = LEARNERS[name](small())
        meta_train(learner, sampler(), MetaConfig(episodes=6, meta_batch=2, device="cpu"))
        weights.append(b"".join(v.numpy().tobytes() for v in learner.state_dict().values()))
    assert weights[0] == weights[1]


@pytest.mark.parametrize("kind", [Prototypical, Matching, ANIL])
def test_learners_take_batch_norm_kept_apart_by_episode(kind):
    learner, (support, query, _) = kind(small("batch")).train(), sampler(n_way=5).batch(2)
    both = learner.scores(support, query)
    one = learner.scores(support[1:], query[1:])
    torch.testing.assert_close(both[1:], one, rtol=1e-4, atol=1e-5)


def test_comparing_learners_are_heads_on_features():
    net, (support, query, _) = small().eval(), sampler().batch(2)
    features = net(support), net(query)
    torch.testing.assert_close(Prototypical(net, scale=0.5).scores(support, query), prototypes(*features, scale=0.5))
    torch.testing.assert_close(Matching(net, scale=3).scores(support, query), matching(*features, scale=3.0))
    frozen = Frozen(net, "ridge", penalty=2.0)
    torch.testing.assert_close(frozen.scores(support, query), ridge(*features, penalty=2.0))
    torch.testing.assert_close(
        Frozen(net, prototypes, metric="cosine").scores(support, query), prototypes(*features, metric="cosine")
    )


def test_the_scale_is_trained_where_asked():
    assert Prototypical(small()).log_scale.requires_grad
    assert Prototypical(small(), metric="cosine").log_scale.exp().item() == pytest.approx(10)
    assert not Matching(small(), learn_scale=False).log_scale.requires_grad


def test_frozen_learners_have_nothing_to_train():
    learner = Frozen(torch.nn.Identity(), "cosine")
    with pytest.raises(TrainingError, match="no parameter to train"):
        meta_train(learner, sampler(), MetaConfig(device="cpu"))


def test_any_number_of_classes_from_a_start_of_zero():
    support, query, _ = sampler(n_way=5).batch(1)
    for kind in (MAML, ANIL, ScaleShift):
        assert kind(small(), n_way=None).scores(support, query).shape == (1, 20, 5)
        with pytest.raises(DataError, match=r"episodes have 5 classes and the learner a start for 3.*n_way=None"):
            kind(small(), n_way=3).scores(support, query)


@pytest.mark.parametrize("norm", ["batch", "running"])
def test_maml_refuses_batch_norm(norm):
    with pytest.raises(DataError, match="use norm='layer'"):
        MAML(small(norm))


def test_settings_that_cannot_be_used_are_refused():
    with pytest.raises(DataError, match="pass n_features"):
        ANIL(torch.nn.Identity())
    with pytest.raises(DataError, match="gives 6 features and the classifier reads 4: pass n_features=6"):
        ANIL(small(), n_way=WAYS, n_features=4).scores(*sampler().batch(1)[:2])
    for bad in ({"n_way": 1}, {"n_way": 2.5}, {"inner_steps": 0}, {"inner_steps": True}, {"inner_lr": -1}):
        with pytest.raises(SettingError, match=f"{next(iter(bad))}="):
            ANIL(small(), **bad)
    for kind in (Prototypical, Matching):
        with pytest.raises(SettingError, match="scale=0 is not"):
            kind(small(), scale=0)
    with pytest.raises(SettingError, match="metric='x'"):
        Prototypical(small(), metric="x")
    with pytest.raises(SettingError, match="head='svm' is not known: choose nearest centroid"):
        Frozen(small(), "svm")
