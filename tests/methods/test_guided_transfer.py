"""Guided transfer: streaming scouts, the guide, its three modes, the other strategies, and any module."""

import copy
import dataclasses
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from shared.data.constraints import SettingError
from shared.data.errors import DataError
from shared.methods.guided_transfer import (
    EWC,
    L2SP,
    BitFit,
    Frozen,
    Full,
    Guide,
    Guided,
    GuidedSteps,
    GuidedTransfer,
    LoRA,
    Scouts,
    candidates,
    classify_step,
    cluster,
    cluster_pairs,
    diagonal_fisher,
    finetune,
    sampled_loss,
    send_scouts,
)
from shared.methods.guided_transfer.guide import TEMPERATURES, digest_of
from shared.methods.scbert import CellTypeNet, GeneTransformer, Tokenizer
from shared.methods.torch_method import seeded
from shared.nn.blocks import encoder as tmp_encoder
from shared.train import Config, TrainingError, fit

CPU = Config(device="cpu", epochs=8, lr=0.01, batch_size=32)


def mlp(*widths, seed=0):
    """Linear layers with tanh between them."""
    layers = seeded(lambda: [part for sizes in pairwise(widths) for part in (nn.Linear(*sizes), nn.Tanh())], seed)
    return nn.Sequential(*layers[:-1])


def groups(n=160, genes=12, kinds=4, seed=0):
    """Rows around one centre a kind."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % kinds
    centres = np.random.default_rng(9).normal(size=(kinds, genes)) * 1.5
    return (centres[y] + rng.normal(size=(n, genes))).astype(np.float32), y


def some_scouts(net, n=4, seed=0):
    scouts, rng = Scouts(net), torch.Generator().manual_seed(seed)
    for _ in range(n):
        scouts.add({k: w + torch.randn(w.shape, generator=rng) * 0.1 for k, w in scouts.start.items()})
    return scouts


# Scouts.


@pytest.mark.parametrize("change", ["squared", "absolute"])
def test_a_running_mean_is_that_of_all_scouts_at_once(change):
    net, rng = mlp(6, 5, 2), torch.Generator().manual_seed(1)
    net[0].bias.requires_grad_(False)
    scouts, states = Scouts(net, change), []
    for _ in range(23):
        states.append({k: w + torch.randn(w.shape, generator=rng) for k, w in net.state_dict().items()})
        scouts.add(states[-1])
    assert scouts.mean.keys() == {"0.weight", "2.weight", "2.bias"} and scouts.n == 23
    for name, mean in scouts.mean.items():
        away = torch.stack([state[name] for state in states]) - net.state_dict()[name]
        stacked = (away.abs() if change == "absolute" else away.square()).mean(0)
        torch.testing.assert_close(mean, stacked, rtol=1e-6, atol=1e-6)


def test_a_scout_with_a_head_of_its_own_is_measured_from_there():
    net, other = mlp(4, 3, 2), mlp(4, 3, 2, seed=1)
    begin = {k: w for k, w in other.state_dict().items() if k.startswith("2")}
    scouts = Scouts(net).add(net.state_dict() | begin, start=begin)
    assert all(not mean.any() for mean in scouts.mean.values())
    assert Scouts(net).add(net.state_dict() | begin).mean["2.weight"].any()


def test_scouts_that_do_not_fit_are_refused_and_not_counted():
    scouts = Scouts(mlp(4, 3, 2))
    with pytest.raises(DataError, match=r"0.weight of this scout is of shape \(3, 5\).*copy of the network"):
        scouts.add(mlp(5, 3, 2))
    with pytest.raises(DataError, match="is missing"):
        scouts.add({})
    bad = mlp(4, 3, 2)
    bad[2].bias.data[0] = torch.nan
    with pytest.raises(DataError, match=r"2\.bias of this scout is not finite"):
        scouts.add(bad)
    assert scouts.n == 0 and not scouts.mean["0.weight"].any()
    with pytest.raises(DataError, match="requires_grad"):
        Scouts(mlp(4, 3).requires_grad_(False))
    with pytest.raises(DataError, match="add one to scouts"):
        Guide.of(scouts)


def test_pairs_are_drawn_once_each_and_leave_small_clusters_out():
    clusters = np.repeat([0, 1, 2, 3, 9], [5, 5, 5, 5, 1])
    pairs = cluster_pairs(clusters, 50, seed=3)
    assert len(pairs) == len({*pairs}) == 6 and all(a < b < 4 for a, b in pairs)
    assert cluster_pairs(clusters, 2, seed=3) == pairs[:2] != cluster_pairs(clusters, 2, seed=4)
    with pytest.raises(DataError, match="1 of 2 clusters have 5 cells"):
        cluster_pairs([0] * 5 + [1], 1, least=5)


def test_scouts_learn_their_pairs_and_leave_the_network_as_it_was():
    X, y = groups()
    labels = cluster(X, 4, 6)
    assert max(np.bincount(labels[y == k]).max() for k in range(4)) >= 38, "k-means finds the four groups"
    net = mlp(12, 8, 2)
    before = copy.deepcopy(net.state_dict())
    one, two = (send_scouts(net, classify_step, (X,), labels, 3, config=CPU, seed=5) for _ in range(2))
    assert all(torch.equal(w, before[k]) for k, w in net.state_dict().items())
    assert one.n == len(one.histories) == 3 and all(h.rows[-1]["val_loss"] < 0.3 for h in one.histories)
    assert all(torch.equal(a, two.mean[k]) for k, a in one.mean.items()), "one seed gives one guide"
    short = send_scouts(net, classify_step, (X,), labels, 1, config=CPU, max_cells=4, validation=0.0)
    assert "val_loss" not in short.histories[0].rows[0]
    with pytest.raises(DataError, match="give as many"):
        send_scouts(net, classify_step, (X[:-1],), labels, 1)
    with pytest.raises(DataError, match="validation above 0"):
        send_scouts(net, classify_step, (X,), labels, 1, config=Config(patience=2), validation=0.0)


# The guide.


@pytest.mark.parametrize("normalise", ["minmax", "max", "rank"])
@pytest.mark.parametrize("temperature", [*TEMPERATURES, 0.3])
def test_a_guide_lies_between_0_and_1_and_reaches_1_in_each_tensor(normalise, temperature):
    guide = Guide.of(some_scouts(mlp(20, 15, 1)), normalise, temperature)
    for g in guide.values():
        assert g.min() >= 0 and g.max() == 1
    change, g = some_scouts(mlp(20, 15, 1)).mean["0.weight"].flatten(), guide["0.weight"].flatten()
    assert (g[change.argsort()].diff() >= 0).all(), "what moved more may move more"
    if normalise == "minmax" and temperature == "room":
        assert (g == 0).sum() == 1
    if temperature == "freezing":
        assert g.sum() == 3 and {*g.tolist()} == {0, 1}
    if temperature == 0.3:
        assert g.min() >= 0.3


def test_ranks_share_ties_and_a_flat_tensor_is_a_choice():
    scouts = Scouts({"w": torch.zeros(4), "b": torch.zeros(1)}).add(
        {"w": torch.tensor([3.0, 1, 1, 2]), "b": torch.ones(1)}
    )
    assert Guide.of(scouts, "rank")["w"].tolist() == pytest.approx([1, 0.375, 0.375, 0.75])
    assert Guide.of(scouts)["b"].tolist() == [1] and Guide.of(scouts, temperature="icy")["b"].tolist() == [1]
    assert Guide.of(scouts, flat=0.0)["b"].tolist() == [0], "as in the paper's code, which then never trains it"


def test_the_controls_of_a_guide_keep_what_they_say():
    guide = Guide.of(some_scouts(mlp(9, 7, 3)))
    shuffled = guide.shuffled(seed=2)
    for name, g in guide.items():
        assert torch.equal(g.flatten().sort()[0], shuffled[name].flatten().sort()[0])
        assert g.numel() < 9 or not torch.equal(g, shuffled[name])
        assert torch.allclose(guide.uniform()[name], g.mean())
    assert guide.uniform("network").mean() == pytest.approx(guide.mean())
    assert len({float(g.flatten()[0]) for g in guide.uniform("network").values()}) == 1
    assert {*guide.without("2")} == {"0.weight", "0.bias"}
    for names, which in ((("3",), "none"), (("0", "2"), "all")):
        with pytest.raises(DataError, match=f"leaves out {which} of 0.weight"):
            guide.without(*names)


def test_a_guide_is_saved_and_read(tmp_path):
    guide = Guide.of(some_scouts(mlp(5, 4, 2)))
    again = Guide.load(guide.save(tmp_path / "guide.safetensors"))
    assert all(torch.equal(g, again[k]) for k, g in guide.items()) and digest_of(guide) == digest_of(again)
    (tmp_path / "other").write_bytes(b"nothing")
    with pytest.raises(TrainingError, match="damaged"):
        Guide.load(tmp_path / "other")


def test_settings_of_a_guide_that_cannot_be_used_are_refused():
    scouts = some_scouts(mlp(4, 2))
    for wrong in ({"normalise": "sum"}, {"temperature": "cold"}, {"temperature": 1.5}, {"flat": 2}):
        with pytest.raises(SettingError, match=next(iter(wrong))):
            Guide.of(scouts, **wrong)
    with pytest.raises(DataError, match=r"not in \[0, 1\]"):
        Guide({"w": torch.tensor([2.0])})
    net = mlp(4, 2)
    optimizer = torch.optim.SGD(net.parameters(), lr=1)
    with pytest.raises(SettingError, match=r"mode='grad'.*did you mean 'gradient'"):
        GuidedSteps(Guide.of(scouts), optimizer, net, "grad")
    with pytest.raises(DataError, match=r"without\('0.weight'\)"):
        GuidedSteps(Guide({"0.weight": torch.ones(3)}), optimizer, net)
    with pytest.raises(DataError, match="trains none"):
        GuidedSteps(Guide({"head": torch.ones(3)}), optimizer, net)


# The three modes.

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.5),
}
X, Y = (torch.as_tensor(part) for part in groups())


def moved(kind, mode=None, steps=3, guide=None, keep_norm=False, dtype=torch.float32):
    """How far a network's weights move in a few steps, as one vector; with the gradient of the first step."""
    net = mlp(12, 10, 4).to(dtype)
    start, optimizer = nn.utils.parameters_to_vector(net.parameters()).detach(), OPTIMIZERS[kind](net.parameters())
    if mode:
        GuidedSteps(guide or Guide.of(some_scouts(net)), optimizer, net, mode, keep_norm)
    for _ in range(steps):
        optimizer.zero_grad()
        classify_step(net, X.to(dtype), Y).backward()
        gradient = nn.utils.parameters_to_vector(p.grad for p in net.parameters())
        optimizer.step()
    return nn.utils.parameters_to_vector(net.parameters()).detach() - start, gradient


def cosine(a, b):
    return float(nn.functional.cosine_similarity(a, b, dim=0))


def test_with_adam_the_published_rule_is_nearly_no_guide():
    """Adam divides a factor m out of its step lr·m·g / (m·|g| + eps), but for where |g| < eps / m."""
    net = mlp(12, 10, 4)
    m = nn.utils.parameters_to_vector(Guide.of(some_scouts(net)).values()).double()
    (plain, g), (guided, _) = (moved("adam", mode, steps=1, dtype=torch.float64) for mode in (None, "gradient"))
    assert torch.allclose(plain, -0.01 * g / (g.abs() + 1e-8))
    assert torch.allclose(guided, -0.01 * m * g / (m * g.abs() + 1e-8), rtol=1e-9)
    large = g.abs() * m > 100 * 1e-8
    assert large.double().mean() > 0.9
    assert (guided[large] / plain[large] - 1).abs().max() < 0.01
    assert (guided[m == 0] == 0).all() and (m == 0).any(), "an exact 0 is the exception, one a tensor"


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_a_guide_on_the_update_changes_what_both_do(kind):
    plain, guided = moved(kind, steps=20)[0], moved(kind, "update", steps=20)[0]
    published = moved(kind, "gradient", steps=20)[0]
    assert guided.norm() < 0.6 * plain.norm() and cosine(guided, plain) < 0.9
    if kind == "adam":
        assert cosine(published, plain) > 0.95 and 0.9 < published.norm() / plain.norm() < 1.1
    else:
        assert torch.allclose(published, guided, atol=1e-6), "with SGD gradient and update are one"


def test_one_step_of_each_mode_is_what_it_says():
    net = mlp(12, 10, 4)
    m = nn.utils.parameters_to_vector(Guide.of(some_scouts(net)).values())
    start = nn.utils.parameters_to_vector(net.parameters()).detach()
    for kind in OPTIMIZERS:
        plain, (update, _), (lr, _) = (
            moved(kind, steps=1)[0],
            *(moved(kind, mode, steps=1) for mode in ("update", "lr")),
        )
        decay = -0.01 * 0.5 * start if kind == "adamw" else 0
        assert torch.allclose(update, m * plain, atol=1e-7), kind
        assert torch.allclose(lr, m * (plain - decay) + decay, atol=1e-7), "decay is left whole"
    for kind, modes in (("momentum", ("update", "gradient", "lr")), ("adam", ("update", "lr"))):
        first, *others = (moved(kind, mode, steps=5)[0] for mode in modes)
        assert all(torch.allclose(first, other, atol=1e-6) for other in others), kind


def test_a_guide_of_ones_changes_no_bit():
    ones = Guide({k: torch.ones_like(w) for k, w in mlp(12, 10, 4).named_parameters()})
    for kind in OPTIMIZERS:
        for mode in ("update", "gradient", "lr"):
            assert torch.equal(moved(kind, guide=ones, mode=mode)[0], moved(kind)[0]), (kind, mode)


@pytest.mark.parametrize("mode", ["update", "gradient", "lr"])
def test_arms_can_be_compared_at_one_size_of_update(mode):
    plain, small, same = (moved("sgd", m, steps=1, keep_norm=k)[0] for m, k in ((None, 0), (mode, False), (mode, True)))
    assert small.norm() < 0.5 * plain.norm()
    assert float(same.norm()) == pytest.approx(float(plain.norm()), rel=1e-4)
    assert cosine(small, same) > 1 - 1e-5


def test_a_guide_is_saved_and_resumed_with_its_optimiser():
    def run(steps, net, optimizer):
        for _ in range(steps):
            optimizer.zero_grad()
            classify_step(net, X, Y).backward()
            optimizer.step()
        return nn.utils.parameters_to_vector(net.parameters()).detach()

    def new(guide, mode):
        net = mlp(12, 10, 4)
        optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
        return net, optimizer, GuidedSteps(guide, optimizer, net, mode)

    guide, net = Guide.of(some_scouts(mlp(12, 10, 4))), mlp(12, 10, 4)
    one, optimizer, _ = new(guide, "lr")
    whole = run(6, one, optimizer)
    half, optimizer, _ = new(guide, "lr")
    run(3, half, optimizer)
    kept = copy.deepcopy((half.state_dict(), optimizer.state_dict()))
    again, optimizer, steps = new(guide.uniform(), "update")
    again.load_state_dict(kept[0]), optimizer.load_state_dict(kept[1])
    assert torch.equal(run(3, again, optimizer), whole), "guide and mode came with the state"
    with pytest.raises(DataError, match="holds no guide"):
        optimizer.load_state_dict(torch.optim.AdamW(net.parameters()).state_dict())
    steps.remove()
    assert "guide" not in optimizer.state_dict()


def test_a_guided_training_resumes_and_refuses_the_checkpoint_of_another_guide(tmp_path):
    guide = Guide.of(some_scouts(mlp(12, 10, 4)))

    def run(epochs, name, guide=guide, mode="update"):
        net = mlp(12, 10, 4)
        config = dataclasses.replace(CPU, epochs=epochs, checkpoint=tmp_path / name)
        finetune(net, net[0], Guided(guide, mode), (X, Y), config)
        return nn.utils.parameters_to_vector(net.parameters()).detach()

    run(2, "a")
    assert torch.equal(run(4, "a"), run(4, "b"))
    for other in ({"guide": guide.shuffled()}, {"mode": "gradient"}):
        with pytest.raises(TrainingError, match="another run"):
            run(5, "a", **other)
    net, config = mlp(12, 10, 4), dataclasses.replace(CPU, checkpoint=tmp_path / "c")
    finetune(net, net[0], L2SP(0.1), (X, Y), config)
    with pytest.raises(TrainingError, match=r"strength \(0.1 there, 0.2 here\)"):
        finetune(net, net[0], L2SP(0.2), (X, Y), config)
    with pytest.raises(SettingError, match="devices=1"):
        finetune(net, net[0], Full(), (X, Y), dataclasses.replace(CPU, devices=2))


def test_a_guide_obeys_schedules_and_any_optimiser():
    net, guide = mlp(12, 10, 4), Guide({"0.weight": torch.zeros(10, 12)})
    for kind in (torch.optim.RMSprop, torch.optim.Adagrad, torch.optim.NAdam):
        optimizer = kind(net.parameters())
        steps, schedule = GuidedSteps(guide, optimizer, net), torch.optim.lr_scheduler.StepLR(optimizer, 1)
        before = copy.deepcopy(net.state_dict())
        classify_step(net, X, Y).backward(), optimizer.step(), schedule.step(), steps.remove()
        assert torch.equal(net[0].weight, before["0.weight"]) and not torch.equal(net[2].weight, before["2.weight"])


def test_a_guide_of_the_gradient_refuses_a_closure_that_makes_it():
    net, guide = mlp(12, 10, 4), Guide({"0.weight": torch.zeros(10, 12)})
    optimizer, before = torch.optim.LBFGS(net.parameters(), lr=0.1), copy.deepcopy(net.state_dict())

    def closure():
        optimizer.zero_grad()
        loss = classify_step(net, X, Y)
        loss.backward()
        return loss

    steps = GuidedSteps(guide, optimizer, net)
    optimizer.step(closure), steps.remove()
    assert torch.equal(net[0].weight, before["0.weight"]) and not torch.equal(net[2].weight, before["2.weight"])
    GuidedSteps(guide, optimizer, net, "gradient")
    with pytest.raises(DataError, match="mode='update'"):
        optimizer.step(closure)


# Other strategies.


def trained_by(strategy, seed=0, **how):
    """A network trained by a strategy, and what it was before."""
    net = nn.Sequential(mlp(12, 10, 6), nn.Tanh(), mlp(6, 4)[0])
    before = copy.deepcopy(net.state_dict())
    seeded(lambda: finetune(net, net[0], strategy, (X, Y), dataclasses.replace(CPU, lr=0.03, **how)), seed)
    return net.state_dict(), before


def away(after, before, part="0."):
    return sum(float((after[k] - w).square().sum()) for k, w in before.items() if k.startswith(part))


def test_each_strategy_trains_what_it_says():
    every = {"0.0.weight", "0.0.bias", "0.2.weight", "0.2.bias", "2.weight", "2.bias"}
    biases, head = {"0.0.bias", "0.2.bias"}, {"2.weight", "2.bias"}
    layers = {"0.0.weight", "0.2.weight"}
    for strategy, moves in ((Full(), every), (Frozen(), head), (BitFit(), biases | head), (LoRA(), layers | head)):
        after, before = trained_by(strategy)
        assert after.keys() == before.keys(), "what LoRA adds is part of the weights at the end"
        assert {k for k, w in before.items() if not torch.equal(w, after[k])} == moves, strategy


def test_l2_sp_pulls_to_the_pretrained_weights():
    distances = [away(*trained_by(L2SP(strength))) for strength in (0.0, 0.1, 1.0, 10.0)]
    assert distances == sorted(distances, reverse=True) and distances[-1] < 1e-2 * distances[0]
    full, none = trained_by(Full())[0], trained_by(L2SP(0.0))[0]
    assert all(torch.equal(w, none[k]) for k, w in full.items())


def test_ewc_holds_the_weights_that_the_fisher_information_names():
    rank = {"0.weight": 1e3, "0.bias": 1e3, "2.weight": 0.0, "2.bias": 0.0}
    fisher = {k: torch.full_like(w, rank[k]) for k, w in mlp(12, 10, 6).state_dict().items()}
    (after, before), (full, _) = trained_by(EWC(fisher, 10.0)), trained_by(Full())
    assert away(after, before, "0.0") < 1e-2 * away(full, before, "0.0")
    assert away(after, before, "0.2") > 0.3 * away(full, before, "0.2")
    same = EWC({k: torch.ones_like(f) for k, f in fisher.items()}, 0.3)
    ewc, l2 = trained_by(same)[0], trained_by(L2SP(0.3))[0]
    assert all(torch.allclose(w, l2[k], atol=1e-6) for k, w in ewc.items()), "with one Fisher information it is L2-SP"
    with pytest.raises(DataError, match="diagonal_fisher of this encoder"):
        trained_by(EWC({}))
    with pytest.raises(DataError, match=r"another shape for 0.bias: pass diagonal_fisher"):
        trained_by(EWC(fisher | {"0.bias": torch.ones(1)}))


def test_the_fisher_information_of_logistic_regression_is_known():
    """Of a linear softmax: the mean over cells of p (1 - p) x²."""
    net, inputs = mlp(3, 2), torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
    p = net(inputs).softmax(1).detach()
    exact = ((p * (1 - p))[:, :, None] * inputs[:, None].square()).mean(0)
    found = diagonal_fisher(net, sampled_loss, (inputs,), rows=400)
    torch.testing.assert_close(found["0.weight"], exact, rtol=0.25, atol=0.01)
    labelled = diagonal_fisher(net, classify_step, (inputs, p.argmax(1)), part=net[0], rows=50, seed=1)
    assert labelled.keys() == {"weight", "bias"} and net.training
    loss_and_numbers = lambda net, X, y: (classify_step(net, X, y), {"n": 1})  # noqa: E731  as a step may give
    again = diagonal_fisher(net, loss_and_numbers, (inputs, p.argmax(1)), part=net[0], rows=50, seed=1)
    assert torch.equal(again["weight"], labelled["weight"])


@pytest.mark.parametrize("rank", [1, 2])
def test_lora_changes_a_weight_by_a_matrix_of_its_rank(rank):
    after, before = trained_by(LoRA(rank))
    for name in ("0.0.weight", "0.2.weight"):
        assert torch.linalg.matrix_rank(after[name] - before[name], atol=1e-5) == rank
    start = nn.Sequential(mlp(12, 10, 6), nn.Linear(6, 4))
    wanted = start(X)
    LoRA(rank)(start, start[0])
    assert torch.equal(start(X), wanted), "at first it changes nothing"


@pytest.mark.parametrize("inputs", [20, 500, 5000])
def test_what_lora_draws_suits_the_inputs_of_a_layer(inputs):
    net, bound = nn.Sequential(mlp(inputs, 10), nn.Linear(10, 2)), inputs**-0.5
    seeded(lambda: LoRA()(net, net[0]), 0)
    A = net[0][0].parametrizations.weight[0].A.detach()
    assert float(A.abs().max()) <= bound and float(A.std()) == pytest.approx(bound / 3**0.5, rel=0.2)


def test_a_frozen_encoder_keeps_its_statistics_and_so_do_the_others_unless_told():
    def run(strategy, **how):
        net = nn.Sequential(nn.Sequential(nn.Linear(12, 6), nn.BatchNorm1d(6)), nn.Linear(6, 4))
        finetune(net, net[0], strategy, (X, Y), CPU, **how)
        return net[0][1].running_mean.any()

    assert not run(Frozen()) and not run(Full()) and run(Full(), keep_statistics=False)
    with pytest.raises(DataError, match="LoRA"):
        BitFit()(None, nn.Linear(2, 2, bias=False))
    with pytest.raises(DataError, match="L2SP"):
        LoRA()(None, nn.BatchNorm1d(2))


def test_every_strategy_gets_as_many_settings_to_try():
    guide, fisher = Guide.of(some_scouts(mlp(4, 2))), {"w": torch.ones(2)}
    for strategy in (Full(), Frozen(), BitFit(), L2SP(), EWC(fisher), LoRA(), Guided(guide)):
        pairs = candidates(strategy, 12, lr=(1e-3, 1e-1))
        assert len(pairs) == 12 and {type(one) for one, _ in pairs} == {type(strategy)}
        assert min(lr for _, lr in pairs) == pytest.approx(1e-3) and max(lr for _, lr in pairs) == pytest.approx(1e-1)
        assert len({(getattr(one, strategy.tunes or "tunes"), lr) for one, lr in pairs}) == 12
    with pytest.raises(SettingError, match="budget=10"):
        candidates(L2SP(), 10)
    for wrong in (lambda: L2SP(-1), lambda: LoRA(rank=0), lambda: Guided(guide, "up"), lambda: Guided(guide, floor=2)):
        with pytest.raises(SettingError):
            wrong()


def test_the_floor_of_a_guide_is_the_least_that_a_weight_gets():
    none = Guide({k: torch.zeros_like(w) for k, w in nn.Sequential(mlp(12, 10, 6)).named_parameters()})
    (held, before), (half, _), (whole, _) = (trained_by(Guided(none, floor=floor)) for floor in (0.0, 0.5, 1.0))
    full = trained_by(Full())[0]
    assert away(held, before) == 0 < away(half, before) < away(whole, before)
    assert all(torch.equal(w, full[k]) for k, w in whole.items())


@pytest.mark.parametrize("strategy", [Full(), BitFit(), L2SP(), LoRA()])
def test_what_was_frozen_before_stays_so(strategy):
    net = nn.Sequential(mlp(12, 10, 6), mlp(6, 4)[0])
    net[0][0].requires_grad_(False)
    before = copy.deepcopy(net.state_dict())
    finetune(net, net[0], strategy, (X, Y), CPU)
    assert away(net.state_dict(), before, "0.0") == 0 < away(net.state_dict(), before, "0.2")


def test_validation_is_by_the_loss_without_the_penalty():
    net = nn.Sequential(mlp(12, 10, 6), mlp(6, 4)[0])
    history = finetune(net, net[0], L2SP(1.0), (X, Y), CPU, val=(X, Y))
    with torch.inference_mode():
        assert history.rows[-1]["val_loss"] == pytest.approx(float(classify_step(net, X, Y)), rel=1e-5)
        assert history.rows[-1]["loss"] > history.rows[-1]["val_loss"]


# Any module.


def scbert():
    net = seeded(lambda: GeneTransformer(torch.randn(12, 8), bins=3, depth=2, heads=2, width=4), 0)
    tokens = Tokenizer(12, bins=3, target_sum=30)(np.random.default_rng(0).poisson(np.exp(groups(96)[0])))
    return net, CellTypeNet, tokens


def tmp():
    return seeded(lambda: tmp_encoder((12, 10, 6)), 0).eval(), None, (groups(96)[0],)


MODULES = {"mlp": lambda: (mlp(12, 10, 6), None, (groups(96)[0],)), "scbert": scbert, "tmp": tmp}


@pytest.mark.parametrize("name", MODULES)
def test_any_module_is_scouted_and_guided(name):
    module, head, columns = MODULES[name]()
    before, y = copy.deepcopy(module.state_dict()), np.array(["B", "NK", "T", "X"])[groups(96)[1]]
    config = dataclasses.replace(CPU, epochs=12, optimizer="adam")
    model = GuidedTransfer(module, head, config=config).scout(columns, groups(96)[1], 3)
    few = [c[:40] for c in columns]
    model.fit(few, y[:40])
    assert all(torch.equal(w, before[k]) for k, w in module.state_dict().items()), "the module is copied"
    p = model.predict_proba(columns)
    assert p.shape == (96, 4) and p.dtype == np.float32 and np.allclose(p.sum(1), 1, atol=1e-5)
    assert (model.predict(columns) == y).mean() > (0.3 if name == "scbert" else 0.6)
    encoder = model.network_.get_submodule("transformer" if head else "0")
    full = GuidedTransfer(module, head, Full(), config=config).fit(few, y[:40])
    other = full.network_.get_submodule("transformer" if head else "0")
    start = module.state_dict()
    guided, unguided = (away(dict(m.state_dict()), start, "") for m in (encoder, other))
    assert 0 < guided < 0.7 * unguided, "the guide holds the encoder back"
    same = GuidedTransfer(module, head, config=config)
    same.guide_ = model.guide_
    assert np.array_equal(same.fit(few, y[:40]).predict_proba(columns), p), "one seed, one guide: the same weights"


# The toy problems of the method's authors.


def binary_categories(classes=10, rows=200, bits=25, flips=0.1, seed=0):
    """Random binary codes, one a class, each bit of a row flipped at times: float32 rows × bits, and int64 classes."""
    rng = np.random.default_rng(seed)
    codes, y = rng.random((classes, bits)) < 0.5, np.repeat(np.arange(classes), rows)
    return (codes[y] ^ (rng.random((len(y), bits)) < flips)).astype(np.float32), y


def gates():
    """The four pairs of bits, and what AND, OR and XOR make of each."""
    X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    a, b = X.astype(bool).T
    return X, {"and": a & b, "or": a | b, "xor": a ^ b}


def squared_step(net, X, y):
    """Mean squared distance of sigmoids to the class's place, as in the authors' proof of concept."""
    outputs = net(X).sigmoid()
    return mse_loss(outputs, torch.eye(outputs.shape[1])[y])


def weights(net):
    return nn.utils.parameters_to_vector(net.parameters()).detach()


def test_on_binary_categories_the_published_rule_guides_sgd_and_not_adam():
    """Scouts learn four classes of ten; then five updates by one row of each. Over many, what is guided catches up."""
    (X, y), rng = binary_categories(), np.random.default_rng(1)
    net = mlp(25, 40, 40, 10)
    scouts = Scouts(net)
    for _ in range(5):
        rows, scout = np.isin(y, rng.choice(10, 4, replace=False)), copy.deepcopy(net)
        fit(scout, squared_step, (X[rows], y[rows]), dataclasses.replace(CPU, epochs=3, optimizer="adam", lr=0.03))
        scouts.add(scout)
    guide, one = Guide.of(scouts), np.arange(10) * 200

    def learned(optimizer, mode=None):
        strategy, again = Full() if mode is None else Guided(guide, mode), copy.deepcopy(net)
        config = dataclasses.replace(CPU, epochs=5, optimizer=optimizer, lr=0.003 if optimizer == "adam" else 1.0)
        finetune(again, again, strategy, (X[one], y[one]), config, step=squared_step)
        return weights(again) - weights(net)

    moves = {(o, m): learned(o, m) for o in ("adam", "sgd") for m in (None, "gradient", "update")}
    share = {key: float(move.norm() / moves[key[0], None].norm()) for key, move in moves.items()}
    assert share["adam", "gradient"] > 0.9 and cosine(moves["adam", "gradient"], moves["adam", None]) > 0.95
    assert share["adam", "update"] < 0.5 and share["sgd", "gradient"] < 0.6
    assert share["sgd", "update"] == pytest.approx(share["sgd", "gradient"], rel=1e-3)


def test_and_and_or_are_scouts_of_xor():
    X, answers = gates()
    net = mlp(2, 8, 2)
    start, scouts = weights(net), Scouts(net)
    config = dataclasses.replace(CPU, epochs=300, optimizer="adam", lr=0.03)
    for name in ("and", "or"):
        scout = copy.deepcopy(net)
        fit(scout, classify_step, (X, answers[name].astype(int)), config)
        scouts.add(scout)
        assert np.array_equal(scout(torch.as_tensor(X)).argmax(1).numpy(), answers[name])
    finetune(net, net, Guided(Guide.of(scouts, "rank")), (X, answers["xor"].astype(int)), config)
    assert np.array_equal(net(torch.as_tensor(X)).argmax(1).numpy(), answers["xor"])
    assert not torch.equal(weights(net), start)


# Refusals.


def test_what_cannot_be_guided_says_so():
    X, y = groups(40)
    model = GuidedTransfer(mlp(12, 6), config=CPU)
    with pytest.raises(DataError, match="call scout first"):
        model.fit((X,), y)
    with pytest.raises(DataError, match="call fit first"):
        model.predict((X,))
    with pytest.raises(DataError, match="a classifier needs two"):
        GuidedTransfer(mlp(12, 6), strategy=Full()).fit((X,), y * 0)
    with pytest.raises(DataError, match="does not hold the module"):
        GuidedTransfer(mlp(12, 6), lambda module, n: mlp(12, n), Full()).fit((X,), y)
    with pytest.raises(DataError, match="classes that y does not"):
        GuidedTransfer(mlp(12, 6), strategy=Full()).fit((X,), y, val=((X,), y + 1))
    with pytest.raises(SettingError, match="mode='none'"):
        GuidedTransfer(mlp(12, 6), mode="none")
    model.scout((X,), y, 2).guide_head = True
    with pytest.raises(DataError, match=r"1.weight has shape \(2, 6\)"):
        model.fit((X,), y)
    model.fit((X,), y % 2, val=((X,), y % 2))
    assert "val_loss" in model.history_.rows[0]
