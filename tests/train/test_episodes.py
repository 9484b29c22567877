"""The loop for learners of episodes: order of its steps, rates, early stop, resuming, and what it refuses."""

import copy
import json
import os
import platform

import numpy as np
import pytest
import torch
from scipy import sparse

from shared.data.constraints import SettingError
from shared.methods.tmp import RelationNet
from shared.nn.blocks import encoder, use_statistics
from shared.nn.episodes import EpisodeSampler, unit_range
from shared.nn.meta import ANIL, MAML
from shared.train import TrainingError
from shared.train.checkpoint import read_safetensors
from shared.train.episodes import MetaConfig, meta_train
from shared.train.memory import kept_memory


def sampler(genes=20, kinds=4, per_kind=20, seed=0, **options):
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(kinds), per_kind)
    X = rng.normal(size=(kinds, genes))[y] + 0.3 * rng.normal(size=(len(y), genes))
    return EpisodeSampler(unit_range(X), y, **{"n_way": 3, "k_shot": 2, "n_query": 4} | options)


def net(**options):
    torch.manual_seed(0)
    return RelationNet((20, 12, 8), (8, 4), **options)


def train(learner, seen=None, draws=None, **options):
    options = {"episodes": 6, "log_every": 3, "lr": 1e-3, "device": "cpu"} | options
    return meta_train(learner, draws or sampler(), MetaConfig(**options), [] if seen is None else [seen])


def weights(learner):
    return torch.cat([p.detach().flatten() for p in learner.parameters()])


class Count(torch.nn.Module):
    """A learner that writes down what happens to it; the gradient of its weight is 1."""

    def __init__(self):
        super().__init__()
        self.weight, self.saw, self.sizes = torch.nn.Parameter(torch.zeros(1)), [], []

    def loss(self, support, query, target):
        self.saw.append(float(self.weight.detach()))
        self.sizes.append(len(support))
        return self.weight.sum()

    def project_weights(self):
        self.saw.append("end")


# Order of the steps.


@pytest.mark.parametrize(("order", "updates"), [("standard", 5), ("original", 4)])
def test_the_original_order_uses_all_gradients_but_the_last(order, updates):
    learner = Count()
    train(learner, episodes=5, lr=0.1, step_order=order)
    # With a gradient of 1 throughout, each update by Adam is lr.
    assert float(learner.weight.detach()) == pytest.approx(-0.1 * updates, rel=1e-4)
    assert learner.saw[::2] == pytest.approx([0, -0.1, -0.2, -0.3, -0.4], rel=1e-4)  # before a forward pass, the same
    assert learner.saw[1::2] == ["end"] * 5 and learner.weight.grad is None


def test_without_a_clamp_the_two_orders_see_the_same_episodes():
    a, b = (train(net(), step_order=order) for order in ("standard", "original"))
    assert [r["loss"] for r in a.rows] == [r["loss"] for r in b.rows]


def test_with_a_clamp_the_original_order_sees_weights_that_moved_since():
    low = {}
    for order in ("standard", "original"):
        learner, low[order] = net(clamp="all"), []
        forward = learner.encoder.forward
        learner.encoder.forward = lambda *a, f=forward, w=learner.encoder, s=low[order]: (
            s.append(min(float(p.detach().min()) for p in w.parameters())) or f(*a)
        )
        train(learner, step_order=order)
        assert min(float(p.detach().min()) for p in learner.encoder.parameters()) >= 0
    assert min(low["standard"][1:]) >= 0 and -2e-3 < min(low["original"][1:]) < 0


# Rates, batches, stopping.


@pytest.mark.parametrize("order", ["standard", "original"])
def test_the_rate_is_halved_by_episodes(order):
    learner = Count()
    history = train(learner, episodes=12, lr=0.1, lr_step=4, step_order=order, log_every=4)
    assert [r["lr"] for r in history.rows] == pytest.approx([0.1, 0.05, 0.025])
    total = 0.1 * (4 - (order == "original")) + 0.05 * 4 + 0.025 * 4
    assert float(learner.weight.detach()) == pytest.approx(-total, rel=1e-3)


def test_episodes_come_in_meta_batches_and_none_is_lost():
    learner = Count()
    history = train(learner, episodes=10, meta_batch=3, log_every=7)
    assert learner.sizes == [3, 3, 1, 3]
    assert [r["episode"] for r in history.rows] == [7, 10] and history.stopped == "episodes"


def test_a_meta_batch_is_the_mean_of_its_episodes():
    draws = sampler()
    support, query, target = draws.batch(4)
    together = net()
    loss = together.loss(support, query, target)
    loss.backward()
    alone, losses = net(), []
    for e in range(4):
        losses.append(alone.loss(support[e : e + 1], query[e : e + 1], target[e : e + 1]) / 4)
        losses[-1].backward()
    assert float(loss.detach()) == pytest.approx(float(sum(losses).detach()), rel=1e-5)
    for a, b in zip(together.parameters(), alone.parameters()):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-6, rtol=1e-3)
    for a, b in zip(together.buffers(), alone.buffers()):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_training_stops_at_an_accuracy():
    history = train(net(), episodes=400, log_every=20, lr=5e-3, stop_at=0.9)
    assert history.stopped == "accuracy" and history.rows[-1]["accuracy"] > 0.9
    assert all(r["accuracy"] <= 0.9 for r in history.rows[:-1]) and history.rows[-1]["episode"] < 400
    with pytest.raises(TrainingError, match="loss_and_scores"):
        train(Count(), stop_at=0.9)


def test_a_callback_adds_numbers_and_may_stop():
    def look(learner, row):
        assert not learner.training
        row["mine"] = row["episode"] * 2
        return row["episode"] >= 6

    history = train(net(), look, episodes=30)
    assert history.stopped == "callback" and history.frame()["mine"].tolist() == [6, 12]
    assert history.frame().index.name == "episode" and history.seconds > 0


def test_loss_and_accuracy_of_a_row_are_means_over_its_episodes():
    losses, learner = [], net()
    ask = learner.loss_and_scores
    learner.loss_and_scores = lambda *b: losses.append((ask(*b), b[2])) or losses[-1][0]
    history = train(learner)
    assert history.rows[1]["loss"] == pytest.approx(np.mean([float(loss[0].detach()) for loss, _ in losses[3:]]))
    right = [float((scores.argmax(2) == target).float().mean()) for (_, scores), target in losses[3:]]
    assert history.rows[1]["accuracy"] == pytest.approx(np.mean(right))
    assert np.isnan(train(Count()).rows[0]["accuracy"])


# Determinism and resuming.


@pytest.mark.parametrize("order", ["standard", "original"])
def test_one_seed_gives_the_same_bytes_and_leaves_no_trace(order):
    draws = sampler()
    before = copy.deepcopy(draws).batch().support
    torch.manual_seed(5)
    state = torch.get_rng_state()
    runs = []
    for _ in range(2):
        learner = net(clamp="all")
        torch.set_rng_state(state)
        train(learner, draws=draws, step_order=order)
        runs.append(weights(learner))
        assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(*runs) and torch.equal(draws.batch().support, before)
    other = net(clamp="all")
    train(other, draws=draws, step_order=order, seed=1)
    assert not torch.equal(weights(other), runs[0])


@pytest.mark.parametrize("order", ["standard", "original"])
def test_a_run_that_was_killed_ends_as_if_it_had_not_been(order, tmp_path):
    whole, parts, path = net(clamp="all"), net(clamp="all"), tmp_path / "run.safetensors"
    wanted = train(whole, episodes=12, step_order=order, lr_step=5)

    def kill(learner, row):
        if row["episode"] == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(parts, kill, episodes=12, step_order=order, lr_step=5, checkpoint=path)
    fresh = net(clamp="all")
    history = train(fresh, episodes=12, step_order=order, lr_step=5, checkpoint=path)
    assert torch.equal(weights(fresh), weights(whole))
    assert all(torch.equal(a, b) for a, b in zip(fresh.buffers(), whole.buffers()))
    assert history.rows == wanted.rows
    # A finished run does nothing more, and a longer one goes on.
    again = net(clamp="all")
    assert train(again, episodes=12, step_order=order, lr_step=5, checkpoint=path).rows == wanted.rows
    assert torch.equal(weights(again), weights(whole))
    assert len(train(net(clamp="all"), episodes=15, step_order=order, lr_step=5, checkpoint=path).rows) == 5


def test_a_run_stopped_by_its_accuracy_stays_stopped(tmp_path):
    options = {"episodes": 400, "log_every": 20, "lr": 5e-3, "stop_at": 0.9, "checkpoint": tmp_path / "run"}
    first = train(net(), **options)
    assert train(net(), **options).rows == first.rows


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lr": 2e-3}, "differs in lr"),
        ({"seed": 4}, "differs in seed"),
        ({"step_order": "original"}, "differs in step_order"),
        ({"draws": sampler(seed=3)}, "differs in data"),
        ({"learner": RelationNet((20, 9, 8), (8, 4))}, "differs in network"),
        ({"episodes": 3}, "ends after 6 episodes"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(options, said, tmp_path):
    path = tmp_path / "run.safetensors"
    train(net(), checkpoint=path)
    with pytest.raises(TrainingError, match=said):
        train(**{"learner": net(), "checkpoint": path} | options)


class Plain(torch.nn.Module):
    """A learner of one's own, which says nothing of itself."""

    def __init__(self, factor=1.0, p=0.1):
        super().__init__()
        self.layer, self.drop, self.factor = torch.nn.Linear(20, 1), torch.nn.Dropout(p), factor

    def loss(self, support, query, target):
        return self.factor * self.layer(self.drop(query)).square().mean()


def adapting(kind, **options):
    torch.manual_seed(0)
    return kind(encoder((20, 8), "layer"), n_way=3, **options)


def frozen(learner):
    learner.encoder.requires_grad_(False)
    return learner


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (net, lambda: net(clamp="all"), r"clamp \('none' there, 'all' here\)"),
        (net, lambda: net(loss="ce"), "in loss"),
        (net, lambda: net(proto="sum"), "in proto"),
        (net, lambda: net(norm="batch"), "in norm"),
        (net, lambda: frozen(net()), "the parameters that are trained"),
        (lambda: adapting(ANIL), lambda: adapting(ANIL, inner_steps=3), r"inner_steps \(10 there, 3 here\)"),
        (lambda: adapting(MAML), lambda: adapting(MAML, inner_lr=0.5), "in inner_lr"),
        (lambda: adapting(MAML), lambda: adapting(MAML, first_order=True), "in first_order"),
        (lambda: adapting(ANIL), lambda: adapting(MAML), r"class \('ANIL' there, 'MAML' here\)"),
        (Plain, lambda: Plain(2.0), "in factor"),
        (Plain, lambda: Plain(p=0.2), "in drop.p"),
    ],
)
def test_a_checkpoint_of_a_learner_that_does_something_else_is_refused(first, second, said, tmp_path):
    """Their weights have the same shapes, and a run would go on with them."""
    path = tmp_path / "run.safetensors"
    train(first(), checkpoint=path)
    with pytest.raises(TrainingError, match=said):
        train(second(), episodes=9, checkpoint=path)
    assert len(train(first(), episodes=9, checkpoint=path).rows) == 3


def test_how_the_work_is_cut_may_change_and_what_a_callback_sets_is_not_the_runs(tmp_path):
    path = tmp_path / "run.safetensors"
    train(adapting(MAML, chunk=2), checkpoint=path, meta_batch=3)
    train(adapting(MAML), checkpoint=path, meta_batch=3, episodes=9)
    path = tmp_path / "other.safetensors"
    train(net(), lambda learner, row: use_statistics(learner, "batch") and None, checkpoint=path)
    train(net(), checkpoint=path, episodes=9)


def test_a_checkpoint_from_before_settings_were_kept_is_refused(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "run.safetensors"
    train(net(), checkpoint=path)
    tensors, about = read_safetensors(path)
    del about["identity"]["modules"]
    save_file(tensors, path, {"about": json.dumps(about)})
    with pytest.raises(TrainingError, match="differs in modules:"):
        train(net(), checkpoint=path)


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
def test_any_row_that_was_replaced_makes_other_data(form, tmp_path):
    path = tmp_path / "run.safetensors"
    X, y = np.random.default_rng(0).random((1000, 20), dtype=np.float32), np.arange(1000) % 4
    draws = EpisodeSampler(form(X), y, 3, 2, 4)
    train(net(), draws=draws, checkpoint=path)
    assert len(train(net(), draws=EpisodeSampler(form(X), y, 3, 2, 4), checkpoint=path, episodes=9).rows) == 3
    X[502, 3] += 1
    with pytest.raises(TrainingError, match="differs in data"):
        train(net(), draws=EpisodeSampler(form(X), y, 3, 2, 4), checkpoint=path)


def test_a_run_goes_on_only_from_a_whole_row(tmp_path):
    train(net(), episodes=5, checkpoint=tmp_path / "run")
    with pytest.raises(TrainingError, match="multiple of log_every=3"):
        train(net(), episodes=9, checkpoint=tmp_path / "run")
    (tmp_path / "other").write_bytes(b"not weights")
    with pytest.raises(TrainingError, match="damaged"):
        train(net(), checkpoint=tmp_path / "other")
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "third", {"about": json.dumps({"format": "else"})})
    with pytest.raises(TrainingError, match=r"not a checkpoint of this version of shared.train: delete"):
        train(net(), checkpoint=tmp_path / "third")


# What cannot be.


@pytest.mark.parametrize(
    "options",
    [
        {"episodes": -1},
        {"episodes": 2.5},
        {"meta_batch": 0},
        {"log_every": True},
        {"lr": 0},
        {"lr": float("nan")},
        {"lr_step": 0},
        {"lr_gamma": -1},
        {"stop_at": "high"},
        {"step_order": "mine"},
        {"precision": "8"},
        {"seed": -1},
    ],
)
def test_settings_that_cannot_be_used_are_refused(options):
    with pytest.raises(SettingError, match=f"{next(iter(options))}="):
        MetaConfig(**options)


def test_a_loss_that_is_no_number_ends_training():
    class Broken(Count):
        def loss(self, *batch):
            return super().loss(*batch) * (float("nan") if len(self.saw) > 6 else 1)

    with pytest.raises(TrainingError, match="the loss is nan after 3 episodes"):
        train(Broken())


def test_a_learner_without_parameters_is_refused():
    learner = net()
    for p in learner.parameters():
        p.requires_grad_(False)
    with pytest.raises(TrainingError, match="no parameter to train"):
        train(learner)


def test_no_episodes_change_nothing():
    learner = net()
    before = weights(learner)
    assert train(learner, episodes=0).rows == [] and torch.equal(weights(learner), before) and not learner.training


def test_a_frozen_encoder_stays(tmp_path):
    learner = net()
    for p in learner.encoder.parameters():
        p.requires_grad_(False)
    before = learner.encoder.linears[0].weight.clone()
    train(learner, checkpoint=tmp_path / "run")
    assert torch.equal(learner.encoder.linears[0].weight, before)


def test_lower_precision_learns_too():
    row = train(net(), episodes=60, log_every=60, lr=5e-3, precision="bf16").rows[-1]
    assert np.isfinite(row["loss"]) and row["accuracy"] > 0.6


def test_a_bar_is_shown(capsys):
    train(net(), progress=True)
    assert "meta-training" in capsys.readouterr().err


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("options", [{}, {"precision": "bf16"}, {"compile": True}, {"meta_batch": 4}])
def test_an_accelerator_follows_the_cpu_and_is_asked_once_a_row(options):
    here, there = net(clamp="all"), net(clamp="all")
    wanted = train(here, episodes=30, log_every=30, **{k: v for k, v in options.items() if k == "meta_batch"})
    torch.cuda.set_sync_debug_mode("warn")
    import warnings

    with warnings.catch_warnings(record=True) as waits:
        warnings.simplefilter("always")
        found = train(there, episodes=30, log_every=30, device="cuda", **options)
    torch.cuda.set_sync_debug_mode("default")
    assert next(there.parameters()).is_cuda
    assert found.rows[-1]["loss"] == pytest.approx(
        wanted.rows[-1]["loss"], rel=0.1 if options.get("precision") else 1e-3
    )
    assert sum("synchroniz" in str(w.message) for w in waits) < 15  # fewer than there are steps


# Memory.


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator that is set is glibc's")
def test_memory_that_was_freed_is_used_again(monkeypatch):
    import resource

    for name in [k for k in os.environ if k.startswith("MALLOC_")]:
        monkeypatch.delenv(name)

    def faults(n=12):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(n):
            b"x" * 2**26  # 64 MiB, 16,384 pages
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    plain = faults()
    with kept_memory() as kept:
        assert kept
        faults(1)
        again = faults()
    assert again < plain / 3 and faults() > plain / 2


def test_memory_is_left_alone_where_it_cannot_or_need_not_be_kept(monkeypatch):
    with kept_memory(False) as kept:
        assert not kept
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    with kept_memory() as kept:
        assert not kept


def test_kept_memory_changes_no_number():
    wide = sampler(genes=3000)
    runs = []
    for limit in (0, 2**60):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("shared.train.loop.LARGE", limit)
            torch.manual_seed(0)
            learner = RelationNet((3000, 64, 8), (8, 4), clamp="all")
            train(learner, draws=wide)
            runs.append(weights(learner))
    assert torch.equal(*runs)


def test_what_a_row_draws_depends_on_the_episodes_before_it_and_not_on_how_many_a_row_has():
    drawn = {}
    for n in (1, 2):
        learner, drawn[n] = net(), []
        ask = learner.loss_and_scores
        learner.loss_and_scores = lambda *batch, n=n, ask=ask: (drawn[n].append(torch.rand(1).item()), ask(*batch))[1]
        train(learner, log_every=n, episodes=4)
    assert drawn[1][::2] == drawn[2][::2]
