"""The training loop: same bytes after any interruption, and one clear sentence for everything that goes wrong."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file
from scipy import sparse
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from shared import train
from shared.data.constraints import SettingError
from shared.train import Batches, Config, TrainingError, fit, resolve_device, seed_everything
from shared.train.batches import Table

CPU = Config(device="cpu", epochs=6, batch_size=16)


def cells(rows=50, genes=12, kinds=3, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(kinds, size=rows)
    X = rng.normal(size=(rows, genes)).astype(np.float32)
    X[:, :kinds] += 2 * np.eye(kinds, dtype=np.float32)[y]
    return X, y


def network(genes=12, kinds=3, norm=False, seed=0):
    torch.manual_seed(seed)
    middle = [nn.BatchNorm1d(16)] if norm else []
    return nn.Sequential(nn.Linear(genes, 16), *middle, nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, kinds))


def loss(model, X, y):
    return cross_entropy(model(X), y)


def digest(model) -> str:
    return hashlib.sha256(save({k: v.contiguous() for k, v in model.state_dict().items()})).hexdigest()


def tensor_bytes(path) -> str:
    tensors, _ = train.read_safetensors(path)
    return hashlib.sha256(save(tensors)).hexdigest()


class Killed(Exception):
    pass


def stop_at(epoch):
    def callback(model, row):
        if row["epoch"] == epoch:
            raise Killed

    return callback


# What training does.


def test_it_learns_and_says_so():
    X, y = cells()
    model = network()
    history = fit(model, loss, (X, y), config=replace(CPU, epochs=60, lr=1e-2))
    frame = history.frame()
    assert list(frame.columns) == ["loss", "lr"] and list(frame.index) == list(range(1, 61))
    assert frame["loss"].iloc[-1] < 0.5 * frame["loss"].iloc[0]
    assert history.stopped == "epochs" and history.seconds > 0 and not model.training


def test_the_loss_of_an_epoch_is_the_mean_over_rows():
    X, y = cells(rows=37)
    model = network().eval()
    wanted = loss(model, torch.tensor(X), torch.tensor(y)).item()
    model[2] = nn.Identity()  # no dropout
    history = fit(model, loss, (X, y), val=(X, y), config=replace(CPU, epochs=1, lr=1e-12))
    assert history.rows[0]["loss"] == pytest.approx(wanted, abs=1e-5)
    assert history.rows[0]["val_loss"] == pytest.approx(wanted, abs=1e-5)


def test_validation_drops_no_unit():
    X, y = cells()
    model = network().eval()
    wanted = loss(model, torch.tensor(X), torch.tensor(y)).item()
    history = fit(model, loss, (X, y), val=(X, y), config=replace(CPU, epochs=1, lr=1e-12))
    assert history.rows[0]["val_loss"] == pytest.approx(wanted, abs=1e-5) != history.rows[0]["loss"]


@pytest.mark.parametrize("optimizer", train.settings.OPTIMIZERS)
def test_it_agrees_with_a_bare_loop(optimizer):
    X, y = (torch.tensor(a) for a in cells(rows=40))
    ours, theirs = network(), network()
    ours[2] = theirs[2] = nn.Identity()
    config = replace(CPU, epochs=3, batch_size=64, optimizer=optimizer, weight_decay=0.01, lr=1e-2)
    fit(ours, loss, (X, y), config=config)
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}.get(optimizer)
    options = {"lr": 1e-2, "weight_decay": 0.01}
    step = (
        kind(theirs.parameters(), **options) if kind else torch.optim.SGD(theirs.parameters(), momentum=0.9, **options)
    )
    for _ in range(3):
        step.zero_grad()
        loss(theirs, X, y).backward()
        step.step()
    for a, b in zip(ours.parameters(), theirs.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_one_seed_gives_the_same_bytes_and_another_does_not():
    def trained(seed):
        model = network(norm=True)
        fit(model, loss, cells(), config=replace(CPU, seed=seed))
        return digest(model)

    assert trained(0) == trained(0) != trained(1)


def test_the_callers_generators_are_left_alone():
    seed_everything(3)
    wanted = random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002
    seed_everything(3)
    model = nn.Linear(12, 3)
    seed_everything(3)
    fit(model, loss, cells(), config=replace(CPU, epochs=1))
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == wanted  # noqa: NPY002


def test_frozen_parameters_stay():
    model = network()
    model[0].requires_grad_(False)
    before = model[0].weight.clone(), model[4 - 1].weight.clone()
    fit(model, loss, cells(), config=CPU)
    assert torch.equal(model[0].weight, before[0]) and not torch.equal(model[3].weight, before[1])


@pytest.mark.parametrize("rows", [17, 33, 2, 16])
def test_a_last_batch_of_one_row_joins_the_one_before(rows):
    seen = []

    def watched(model, X, y):
        seen.append(len(X))
        return loss(model, X, y)

    fit(network(norm=True), watched, cells(rows), config=replace(CPU, epochs=1))
    assert sum(seen) == rows and min(seen) > 1


def test_every_row_is_seen_once_an_epoch():
    seen = []

    def watched(model, X, row):
        seen.append(row)
        return model(X).square().mean()

    X, _ = cells(rows=35)
    fit(network(), watched, (X, np.arange(35)), config=replace(CPU, epochs=2))
    order = torch.cat(seen).tolist()
    assert sorted(order[:35]) == sorted(order[35:]) == list(range(35)) and order[:35] != order[35:]


def test_batch_size_one_without_batch_norm():
    history = fit(network(), loss, cells(5), config=replace(CPU, epochs=1, batch_size=1))
    assert len(history.rows) == 1


def test_early_stop_restores_the_best_weights():
    X, y = cells(rows=24)
    judged = cells(rows=40, seed=9)
    model, kept = network(), {}

    def remember(model, row):
        kept[row["epoch"]] = (row["val_loss"], digest(model))

    config = replace(CPU, epochs=400, lr=3e-2, patience=5)
    history = fit(model, loss, (X, y), val=judged, config=config, callbacks=[remember])
    assert history.stopped == "patience" and len(history.rows) == history.best_epoch + 5 < 400
    assert history.best_epoch == min(kept, key=lambda e: kept[e][0])
    assert digest(model) == kept[history.best_epoch][1] != kept[len(history.rows)][1]


def test_min_delta_counts_small_gains_as_none():
    config = replace(CPU, epochs=50, patience=3, min_delta=100.0)
    history = fit(network(), loss, cells(), val=cells(), config=config)
    assert (history.best_epoch, len(history.rows)) == (1, 4)


def test_a_callback_adds_numbers_and_ends_training():
    def halve(model, row):
        row["half"] = row["loss"] / 2
        return row["epoch"] == 2

    history = fit(network(), loss, cells(), config=CPU, callbacks=[halve])
    assert history.stopped == "callback" and len(history.rows) == 2 and "half" in history.frame()


def test_cosine_falls_from_lr_towards_zero():
    history = fit(network(), loss, cells(), config=replace(CPU, schedule="cosine", lr=0.1, epochs=10))
    rates = history.frame()["lr"]
    assert rates.is_monotonic_decreasing and rates.iloc[0] < 0.1
    assert rates.iloc[-1] == pytest.approx(0.05 * (1 + np.cos(np.pi * 39 / 40)))  # the last of 40 steps


def test_clipping_bounds_the_step():
    def step(clip):
        model = nn.Linear(12, 3)
        nn.init.zeros_(model.weight)
        huge = lambda m, X, y: 1e6 * loss(m, X, y)  # noqa: E731
        config = replace(CPU, optimizer="sgd", epochs=1, batch_size=64, clip_norm=clip, lr=1.0)
        before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
        fit(model, huge, cells(), config=config)
        return float((torch.cat([p.detach().flatten() for p in model.parameters()]) - before).norm())

    assert step(0.5) == pytest.approx(0.5, rel=1e-3) and step(None) > 100


def test_hooks_of_torch_can_be_registered_on_the_optimiser(tmp_path):
    class Halve:
        """Halves every gradient that the optimiser reads, after clipping."""

        def __init__(self, about):
            self.about = lambda: {"halves": about}

        def __call__(self, optimizer, net):
            optimizer.register_step_pre_hook(lambda *_: [None, net.weight.grad.div_(2)][0])

    def trained(lr, **hook):
        model = nn.Linear(12, 3)
        nn.init.zeros_(model.weight), nn.init.zeros_(model.bias)
        fit(model, loss, cells(rows=64), replace(CPU, optimizer="sgd", epochs=2, lr=lr, clip_norm=0.1), **hook)
        return model.weight.detach()

    torch.testing.assert_close(trained(0.1, on_optimizer=Halve(1)), trained(0.1) / 2, rtol=0.1, atol=1e-3)
    config = replace(CPU, epochs=1, checkpoint=tmp_path / "run")
    fit(nn.Linear(12, 3), loss, cells(rows=64), config, on_optimizer=Halve(1))
    with pytest.raises(TrainingError, match="halves"):
        fit(nn.Linear(12, 3), loss, cells(rows=64), config, on_optimizer=Halve(2))


def test_batches_that_accumulate_make_the_step_of_one_large_batch():
    X, y = (part[:64] for part in cells(rows=64))

    def trained(batch_size, accumulate):
        model, seen = nn.Linear(12, 3), []
        nn.init.zeros_(model.weight), nn.init.zeros_(model.bias)
        config = replace(CPU, optimizer="sgd", epochs=2, batch_size=batch_size, accumulate=accumulate, clip_norm=0.5)
        fit(model, loss, (X, y), config=config, on_gradients=lambda net: seen.append(net.weight.grad.clone()))
        return model.weight.detach(), seen

    (one, whole), (other, parts) = trained(64, 1), trained(16, 4)
    assert len(whole) == len(parts) == 2
    torch.testing.assert_close(one, other)
    torch.testing.assert_close(whole, parts)
    assert len(trained(16, 3)[1]) == 4, "three batches, then the one that is left, in each epoch"
    with pytest.raises(TrainingError, match="set accumulate=1"):
        fit(network(), loss, (X, y), config=replace(CPU, accumulate=2, step_order="original"))


def test_bf16_learns_and_keeps_float32_weights():
    model = network()
    seen = []

    def watched(model, X, y):
        out = model(X)
        seen.append(out.dtype)
        return cross_entropy(out.float(), y)

    history = fit(model, watched, cells(), config=replace(CPU, precision="bf16", epochs=40, lr=1e-2))
    assert set(seen) == {torch.bfloat16} and {p.dtype for p in model.parameters()} == {torch.float32}
    assert history.rows[-1]["loss"] < 0.7 * history.rows[0]["loss"]


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


@pytest.mark.parametrize(
    "change",
    [
        lambda X, y: (X.astype(np.float64), y.astype(np.int8)),
        lambda X, y: (X.astype(">f4"), y.astype(">i4")),
        lambda X, y: (read_only(X), y.astype(np.uint16)),
        lambda X, y: (np.asfortranarray(X), y[::-1][::-1]),
        lambda X, y: (torch.tensor(X, dtype=torch.float64), torch.tensor(y, dtype=torch.int32)),
        lambda X, y: (X.tolist(), y.tolist()),
        lambda X, y: (sparse.csr_matrix(X), y),
        lambda X, y: (sparse.csr_array(X), y),
        lambda X, y: (sparse.csc_matrix(X.astype(np.float64)), y),
    ],
    ids=["wide", "big endian", "read-only", "reversed", "torch", "lists", "csr", "csr array", "csc"],
)
def test_every_kind_of_input_gives_the_same_weights(change):
    plain, other = network(), network()
    fit(plain, loss, cells(), config=CPU)
    fit(other, loss, change(*cells()), val=change(*cells()), config=CPU)
    assert digest(plain) == digest(other)


def test_booleans_and_half_floats():
    X, y = cells()

    def both(model, X, mask):
        assert X.dtype == torch.float32 and mask.dtype == torch.bool
        return model(X)[mask].square().mean()

    fit(network(), both, (X.astype(np.float16), y > 0), config=replace(CPU, epochs=1, batch_size=64))


def test_a_sparse_matrix_is_never_made_dense_whole(monkeypatch):
    X, y = cells(rows=100)
    most = []
    dense = sparse.csr_matrix.toarray
    monkeypatch.setattr(sparse.csr_matrix, "toarray", lambda self: most.append(self.shape[0]) or dense(self))
    fit(network(), loss, (sparse.csr_matrix(X), y), config=CPU)
    assert most and max(most) <= 16


def test_progress_is_silent_until_asked(capsys):
    fit(network(), loss, cells(), config=CPU)
    said = capsys.readouterr()
    assert said.out == said.err == ""
    fit(network(), loss, cells(), config=replace(CPU, progress=True))
    assert "6/6" in capsys.readouterr().err


# Batches that are not those of a table, and what a step and a monitor may say.


def half_batches(epoch):
    """Two batches an epoch, of 20 and 30 rows."""
    X, y = map(torch.tensor, cells())
    order = np.random.default_rng(epoch).permutation(50)
    return ((X[rows], y[rows]) for rows in (order[:20], order[20:]))


def test_a_function_of_the_epoch_gives_the_batches():
    seen, ours, theirs = [], network(), network()
    ours[2] = theirs[2] = nn.Identity()

    def step(net, X, y):
        seen.append(len(X))
        return loss(net, X, y), {"accuracy": (net(X).argmax(1) == y).float().mean(), "rows": len(X)}

    config = Config(device="cpu", epochs=3, optimizer="sgd", lr=0.1)
    history = fit(ours, step, half_batches, config)
    assert seen == [20, 30] * 3 and list(history.frame()) == ["loss", "accuracy", "rows", "lr"]
    assert history.rows[0]["rows"] == 25, "batches weigh alike where nothing is said of their rows"
    sgd = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9)
    for epoch in (1, 2, 3):
        for batch in half_batches(epoch):
            sgd.zero_grad()
            loss(theirs, *batch).backward()
            sgd.step()
    assert digest(ours) == digest(theirs)
    weighed = fit(network(), step, Batches(half_batches, sizes=lambda epoch: [20, 30]), config)
    assert weighed.rows[0]["rows"] == 26 and 0 <= weighed.rows[0]["accuracy"] <= 1


def test_early_stop_goes_by_any_number_of_a_monitor():
    asked = []

    def monitor(net, row):
        assert not net.training and not torch.is_grad_enabled()
        asked.append(row["epoch"])
        row["score"] = [0.1, 0.5, 0.5, 0.4][len(asked) - 1]
        return -row["score"]

    kept, model = {}, network()
    history = fit(
        model,
        loss,
        half_batches,
        replace(CPU, epochs=9, patience=2),
        monitor=monitor,
        callbacks=[lambda net, row: kept.update({row["epoch"]: digest(net)})],
    )
    assert (history.stopped, history.best_epoch, asked) == ("patience", 2, [1, 2, 3, 4])
    assert digest(model) == kept[2] != kept[4] and list(history.frame()) == ["loss", "score", "lr"]


@pytest.mark.parametrize("order", train.settings.STEP_ORDERS)
def test_hooks_come_between_gradients_and_step_and_after_it(order):
    model, said = nn.Linear(12, 3), []

    def step(net, X, y):
        said.append("step")
        return loss(net, X, y)

    def double(net):
        said.append("gradients")
        assert net.weight.grad is not None
        net.weight.grad.zero_()

    def project(net):
        said.append("project")
        net.bias.data.clamp_(min=0)

    before = model.weight.clone()
    config = Config(device="cpu", epochs=1, step_order=order)
    fit(model, step, half_batches, config, on_gradients=double, project_weights=project)
    first = ["step", "gradients", "project"]
    assert said == (first * 2 if order == "standard" else ["step", "project", "gradients", "step", "project"])
    assert torch.equal(model.weight, before) and (model.bias >= 0).all()


def test_the_learning_rate_falls_in_steps_of_epochs():
    history = fit(network(), loss, cells(), config=replace(CPU, lr=0.1, lr_step=2, lr_gamma=0.1, epochs=5))
    assert [row["lr"] for row in history.rows] == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001])


def test_a_callback_ends_training_with_a_word_of_its_own(tmp_path):
    config = replace(CPU, checkpoint=tmp_path / "c")
    for _ in range(2):  # the second call finds it ended
        history = fit(network(), loss, cells(), config=config, callbacks=[lambda net, row: "enough"])
        assert history.stopped == "enough" and len(history.rows) == 1


def test_batches_that_cannot_be_used_are_refused():
    with pytest.raises(TrainingError, match="epoch 1 has no batch"):
        fit(network(), loss, lambda epoch: [], CPU)
    with pytest.raises(TrainingError, match="needs the batches of an epoch"):
        fit(network(), loss, half_batches, replace(CPU, schedule="cosine"))
    fit(network(), loss, Batches(half_batches, steps=2), replace(CPU, schedule="cosine"))
    nan = lambda net, X, y: loss(net, X, y) * float("nan")  # noqa: E731
    with pytest.raises(TrainingError, match=r"nan at epoch 1, batch 1, lr 0.001: look at the data"):
        fit(network(), nan, half_batches, CPU)


class Digested:
    def __init__(self, name):
        self.name = name

    def __call__(self, epoch):
        return half_batches(epoch)

    def digest(self):
        return self.name


def test_batches_say_whose_checkpoint_it_is(tmp_path):
    config, whole, parts = replace(CPU, checkpoint=tmp_path / "c"), network(), network()
    fit(whole, loss, half_batches, CPU)
    with pytest.raises(Killed):
        fit(parts, loss, Digested("one"), config, callbacks=[stop_at(4)])
    with pytest.raises(TrainingError, match=r"data \('one' there, 'two' here\)"):
        fit(network(), loss, Digested("two"), config)
    resumed = network(seed=5)
    fit(resumed, loss, Digested("one"), config)
    assert digest(resumed) == digest(whole)


def test_settings_and_errors_need_no_torch(root):
    code = "import sys, shared.train, shared.train.settings\nfrom shared.train import Config, TrainingError\nConfig()"
    words = [sys.executable, "-c", f"{code}\nassert 'torch' not in sys.modules\nfrom shared.train import nothing"]
    ended = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(root)})
    assert "cannot import name 'nothing'" in ended.stderr, ended.stderr
    assert all(hasattr(train, name) and name in dir(train) for name in train.__all__) and callable(train.fit)


# Checkpoints.


@pytest.mark.parametrize("options", [{}, {"optimizer": "sgd"}, {"schedule": "cosine"}, {"precision": "bf16"}])
def test_a_resumed_run_ends_with_the_same_bytes(tmp_path, options):
    config = replace(CPU, patience=4, lr=1e-2, **options)
    whole, broken = network(norm=True), network(norm=True)
    one, two = replace(config, checkpoint=tmp_path / "one"), replace(config, checkpoint=tmp_path / "sub" / "two")
    first = fit(whole, loss, cells(), val=cells(seed=1), config=one)
    with pytest.raises(Killed):
        fit(broken, loss, cells(), val=cells(seed=1), config=two, callbacks=[stop_at(4)])
    assert digest(broken) != digest(whole)
    # A new process would build its network anew, and from whatever seed it likes.
    broken = network(norm=True, seed=77)
    second = fit(broken, loss, cells(), val=cells(seed=1), config=two)
    assert digest(whole) == digest(broken)
    assert tensor_bytes(one.checkpoint) == tensor_bytes(two.checkpoint)
    assert first.rows == second.rows and first.best_epoch == second.best_epoch


def test_a_resumed_run_knows_the_best_epoch_it_had(tmp_path):
    config = replace(CPU, epochs=400, lr=3e-2, patience=5)
    rows = {"batches": cells(rows=24), "val": cells(rows=40, seed=9)}
    whole, broken = network(), network()
    first = fit(whole, loss, **rows, config=config)
    config = replace(config, checkpoint=tmp_path / "c")
    with pytest.raises(Killed):
        fit(broken, loss, **rows, config=config, callbacks=[stop_at(first.best_epoch + 3)])
    second = fit(broken, loss, **rows, config=config)
    assert (first.best_epoch, first.rows) == (second.best_epoch, second.rows) and digest(whole) == digest(broken)


def test_a_checkpoint_does_not_change_the_run(tmp_path):
    with_file, without = network(), network()
    fit(with_file, loss, cells(), config=replace(CPU, checkpoint=tmp_path / "c", checkpoint_every=2))
    fit(without, loss, cells(), config=CPU)
    assert digest(with_file) == digest(without)


def test_a_finished_run_returns_at_once_and_may_be_lengthened(tmp_path):
    config = replace(CPU, checkpoint=tmp_path / "c")
    model = network()
    fit(model, loss, cells(), config=config)
    calls = []
    again = fit(network(seed=5), loss, cells(), config=config, callbacks=[lambda m, r: calls.append(r)])
    assert calls == [] and len(again.rows) == 6
    longer, whole = network(), network()
    fit(longer, loss, cells(), config=replace(config, epochs=9), callbacks=[lambda m, r: calls.append(r)])
    fit(whole, loss, cells(), config=replace(CPU, epochs=9))
    assert len(calls) == 3 and digest(longer) == digest(whole)
    with pytest.raises(TrainingError, match="holds 9 epochs and epochs=6"):
        fit(network(), loss, cells(), config=config)


def test_max_seconds_stops_and_the_next_call_goes_on(tmp_path):
    config = replace(CPU, checkpoint=tmp_path / "c", max_seconds=1e-9, checkpoint_every=5)
    counts, whole = [], network()
    for _ in range(6):
        model = network()
        history = fit(model, loss, cells(), config=config)
        counts.append(len(history.rows))
    fit(whole, loss, cells(), config=CPU)
    assert counts == [1, 2, 3, 4, 5, 6] and history.stopped == "epochs" and digest(model) == digest(whole)


SCRIPT = """
import os, signal, sys
from tests.train.test_fit import CPU, cells, digest, fit, loss, network, replace
path, die = sys.argv[1], int(sys.argv[2])
calls, config = 0, replace(CPU, checkpoint=path, checkpoint_every=2)
def deadly(model, X, y):
    global calls
    calls += 1
    if calls == die:
        os.kill(os.getpid(), signal.SIGKILL)
    return loss(model, X, y)
if die:
    fit(network(norm=True), deadly, cells(), config=config)
resumed, whole = network(norm=True, seed=9), network(norm=True)
history = fit(resumed, loss, cells(), config=config)
assert history.rows == fit(whole, loss, cells(), config=CPU).rows and len(history.rows) == 6
assert digest(resumed) == digest(whole)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system cannot kill a process outright")
def test_a_run_killed_in_the_middle_of_a_batch_resumes_to_the_same_bytes(tmp_path, root):
    """Two fresh processes: what other tests load into this one can move the last bit of a sum."""
    path = tmp_path / "c.safetensors"
    env = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": str(torch.get_num_threads())}

    def run(die):
        words = [sys.executable, "-c", SCRIPT, str(path), str(die)]
        return subprocess.run(words, capture_output=True, text=True, env=env, cwd=root)

    # Four batches an epoch: this is the fourth epoch, after a checkpoint at the second.
    killed = run(15)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(train.read_safetensors(path)[1]["history"]["rows"]) == 2
    resumed = run(0)
    assert resumed.returncode == 0, resumed.stderr


def break_file(path, how):
    if how == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif how == "text":
        path.write_text("not a checkpoint")
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "foreign":
        save_file({"w": torch.ones(2)}, path)
    elif how == "header":
        save_file({"w": torch.ones(2)}, path, {"about": "{"})
    else:
        path.unlink()
        path.mkdir()


@pytest.mark.parametrize("how", ["cut", "text", "empty", "foreign", "header", "folder"])
def test_a_damaged_or_foreign_file_is_refused(tmp_path, how):
    config = replace(CPU, checkpoint=tmp_path / "c")
    fit(network(), loss, cells(), config=config)
    break_file(tmp_path / "c", how)
    model = network()
    before = digest(model)
    with pytest.raises(TrainingError, match=r"c (is damaged|is not a checkpoint).*start anew"):
        fit(model, loss, cells(), config=config)
    assert digest(model) == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lr": 0.5}, r"lr \(0.001 there, 0.5 here\)"),
        ({"seed": 4}, "seed"),
        ({"step_order": "original"}, "step_order"),
        ({"lr_step": 2}, r"lr_step \(None there, 2 here\)"),
        ({"data": cells(seed=8)}, "differs in data"),
        ({"val": cells()}, "differs in val"),
        ({"model": network(norm=True)}, "differs in network"),
        ({"model": nn.Sequential(*network()[:2], nn.Dropout(0.2), network()[3])}, r"2.p \(0.3 there, 0.2 here\)"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, change, said):
    config = replace(CPU, checkpoint=tmp_path / "c", epochs=2)
    fit(network(), loss, cells(), config=config)
    options = {k: v for k, v in change.items() if k in Config.__dataclass_fields__}
    with pytest.raises(TrainingError, match=said):
        fit(
            change.get("model", network()),
            loss,
            change.get("data", cells()),
            val=change.get("val"),
            config=replace(config, **options),
        )


@pytest.mark.parametrize(
    "said", [{"format": "shared.train 1"}, {"format": "shared.train.episodes 1"}, {"identity": {}}]
)
def test_a_checkpoint_of_an_older_format_is_refused_with_a_cure(tmp_path, said):
    save_file({"model/0.weight": torch.zeros(1)}, tmp_path / "c", {"about": json.dumps(said)})
    with pytest.raises(TrainingError, match=r"not a checkpoint of this version.*delete the file to start anew, or"):
        fit(network(), loss, cells(), config=replace(CPU, checkpoint=tmp_path / "c"))


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    config = replace(CPU, checkpoint=tmp_path / "c")
    whole = network()
    fit(whole, loss, cells(), config=CPU)
    sync, calls = os.fsync, []

    def full(handle):
        calls.append(handle)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        sync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TrainingError, match=r"No space left on device.*saved before is whole.*Free space"):
        fit(network(), loss, cells(), config=config)
    assert [p.name for p in tmp_path.iterdir()] == ["c"]
    assert len(train.read_safetensors(tmp_path / "c")[1]["history"]["rows"]) == 2
    monkeypatch.undo()
    model = network()
    fit(model, loss, cells(), config=config)
    assert digest(model) == digest(whole)


def test_a_first_checkpoint_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TrainingError, match="nothing was saved"):
        fit(network(), loss, cells(), config=replace(CPU, checkpoint=tmp_path / "file" / "c"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(TrainingError, match="there is no file"):
        train.read_safetensors(tmp_path / "none")


# What is refused.


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_before_the_weights_spoil(tmp_path, bad):
    def failing(model, X, y):
        failing.calls += 1
        return loss(model, X, y) * (bad if failing.calls == 6 else 1)

    failing.calls = 0
    model = network()
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) at epoch 2, batch 2 of 4, lr 0.001: lower lr"):
        fit(model, failing, cells(), config=replace(CPU, checkpoint=tmp_path / "c"))
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert len(train.read_safetensors(tmp_path / "c")[1]["history"]["rows"]) == 1


def test_non_finite_data_are_named():
    X, y = cells()
    X[3, 2] = np.nan
    with pytest.raises(TrainingError, match="the data hold 1 values that are not finite: remove them"):
        fit(network(), loss, (X, y), config=CPU)
    with pytest.raises(TrainingError, match="epoch 1, validation"):
        fit(network(), loss, cells(), val=(X, y), config=CPU)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (lambda m, X, y: cross_entropy(m(X), y, reduction="none"), r"shape \(16,\): take its mean"),
        (lambda m, X, y: 3.0, "not 3.0"),
        (lambda m, X, y: (m(X) > 0).sum(), "floating-point scalar"),
        (lambda m, X, y: loss(m, X, y).detach(), "does not depend on the model"),
        (lambda m, X, y: X.mean(), "does not depend on the model"),
    ],
)
def test_a_loss_of_another_kind_is_refused(bad, said):
    with pytest.raises(TrainingError, match=said):
        fit(network(), bad, cells(), config=CPU)


@pytest.mark.parametrize(
    ("tensors", "val", "said"),
    [
        ((np.zeros((0, 12)), np.zeros(0, int)), None, "tensors hold no rows"),
        ((np.zeros((5, 12)), np.zeros(4, int)), None, "different numbers of rows: 5, 4"),
        (np.zeros((5, 12)), None, "must be a tuple"),
        ((), None, "must be a tuple"),
        ((np.zeros((5, 12)), np.array(list("abcde"))), None, "tensors.1. has dtype <U1.*encode labels"),
        ((np.zeros((5, 12)), np.array([None] * 5)), None, "dtype object"),
        ((np.zeros((5, 12), complex), np.zeros(5)), None, "complex"),
        ((np.zeros((5, 12)), np.float32(3)), None, "one row an entry"),
        ((torch.zeros(5, 12).to_sparse(), np.zeros(5, int)), None, "pass a SciPy CSR"),
        (cells(), (cells()[0],), "val holds 1 tensors and the training data 2"),
        (cells(), (cells()[0][:0], cells()[1][:0]), "val hold no rows"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(tensors, val, said):
    with pytest.raises(TrainingError, match=said):
        fit(network(), loss, tensors, val=val, config=CPU)


def test_batch_norm_on_one_row_is_refused():
    with pytest.raises(TrainingError, match="batch norm cannot train on a batch of one row"):
        fit(network(norm=True), loss, cells(1), config=CPU)
    with pytest.raises(TrainingError, match="here 50 and 1"):
        fit(network(norm=True), loss, cells(), config=replace(CPU, batch_size=1))


def test_other_errors_of_the_loss_pass_through():
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        fit(network(genes=5), loss, cells(), config=CPU)
    with pytest.raises(ValueError, match="my own"):
        fit(network(), lambda m, X, y: (_ for _ in ()).throw(ValueError("my own")), cells(), config=CPU)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"epochs": 0}, "epochs=0 is not a whole number from 1 up"),
        ({"epochs": 2.5}, "epochs=2.5"),
        ({"batch_size": True}, "batch_size=True"),
        ({"patience": 0}, "patience=0"),
        ({"checkpoint_every": 0}, "checkpoint_every"),
        ({"seed": -1}, "seed=-1"),
        ({"lr": 0}, "lr=0 is not a positive number"),
        ({"lr": float("nan")}, "lr=nan"),
        ({"lr_step": 0}, "lr_step=0 is not a whole number from 1 up"),
        ({"lr_gamma": 0}, "lr_gamma=0 is not a positive number"),
        ({"step_order": "late"}, "choose standard, original"),
        ({"weight_decay": -1}, "weight_decay=-1 is not a number from 0 up"),
        ({"clip_norm": 0}, "clip_norm"),
        ({"accumulate": 0}, "accumulate=0"),
        ({"max_seconds": -3}, "max_seconds"),
        ({"optimizer": "lion"}, "choose adamw, adam, sgd"),
        ({"schedule": "step"}, "choose constant, cosine"),
        ({"precision": "8"}, "choose 32, bf16, 16"),
        ({"devices": 0}, "devices=0 is not a whole number from 1 up"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(options, said):
    with pytest.raises(SettingError, match=said):
        Config(**options)


def test_patience_needs_rows_to_judge_by():
    with pytest.raises(TrainingError, match="pass val="):
        fit(network(), loss, cells(), config=replace(CPU, patience=3))


def test_half_precision_needs_cuda():
    with pytest.raises(TrainingError, match="needs CUDA and this run is on cpu"):
        fit(network(), loss, cells(), config=replace(CPU, precision="16"))


def test_a_model_without_parameters_is_refused():
    with pytest.raises(TrainingError, match="no parameter to train"):
        fit(network().requires_grad_(False), loss, cells(), config=CPU)


def test_devices(monkeypatch):
    assert resolve_device("cpu") == resolve_device(torch.device("cpu")) == torch.device("cpu")
    monkeypatch.delenv("BORROWED_DEVICE", raising=False)
    assert resolve_device().type in {"cpu", "cuda", "mps"}
    monkeypatch.setenv("BORROWED_DEVICE", "cuda:98")
    assert resolve_device("cpu").type == "cpu"
    with pytest.raises(TrainingError, match="'cuda:98' is not present"):
        resolve_device()
    with pytest.raises(TrainingError, match="is not known"):
        resolve_device("gpu")
    with pytest.raises(TrainingError, match="is not present on this machine"):
        resolve_device("cuda:99")
    with pytest.raises(TrainingError, match="is not present"):
        resolve_device("meta")


def test_seeds():
    seed_everything(11)
    first = random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002
    seed_everything(np.int64(11))
    assert first == (random.random(), np.random.rand(), torch.rand(1).item())  # noqa: NPY002
    for bad in (-1, 2**32, 1.5, True, None):
        with pytest.raises(TrainingError, match="is not a whole number"):
            seed_everything(bad)


def test_regression_of_several_outputs_works_too():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(64, 5)).astype(np.float32)
    Y = X @ rng.normal(size=(5, 2)).astype(np.float32)
    history = fit(nn.Linear(5, 2), lambda m, X, Y: mse_loss(m(X), Y), (X, Y), config=replace(CPU, epochs=200, lr=0.05))
    assert history.rows[-1]["loss"] < 1e-3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["32", "bf16", "16"])
def test_a_gpu_run_resumes_to_the_same_bytes(tmp_path, precision):
    config = replace(CPU, device="cuda", precision=precision, checkpoint=tmp_path / "c", patience=4)
    whole, broken = network(norm=True), network(norm=True)
    fit(whole, loss, cells(), val=cells(seed=1), config=replace(config, checkpoint=None))
    with pytest.raises(Killed):
        fit(broken, loss, cells(), val=cells(seed=1), config=config, callbacks=[stop_at(4)])
    broken = network(norm=True, seed=7)
    fit(broken, loss, cells(), val=cells(seed=1), config=config)
    assert all(p.is_cuda for p in broken.parameters())
    assert digest(whole.cpu()) == digest(broken.cpu())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_names_the_batch_that_failed():
    def failing(model, X, y):
        failing.calls += 1
        return loss(model, X, y) * (float("nan") if failing.calls == 6 else 1)

    failing.calls = 0
    with pytest.raises(TrainingError, match="epoch 2, batch 2 of 4"):
        fit(network(), failing, cells(), config=replace(CPU, device="cuda"))


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_an_optimiser_steps_as_torchs_own_without_the_compiler(optimizer):
    """Importing torch's compiler takes two seconds. Weights and state are those of torch's own optimiser."""
    X, y = map(torch.from_numpy, cells())
    ours, theirs = network(), network()
    config = replace(CPU, optimizer=optimizer, weight_decay=0.1)
    made = train.loop._optimizer([*ours.parameters()], config, torch.device("cpu"))
    plain = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[optimizer]
    settings = {k: v for k, v in made.defaults.items() if k in ("lr", "weight_decay", "momentum", "fused")}
    wanted = plain(theirs.parameters(), **settings)
    for net, one in ((ours, made), (theirs, wanted)):
        for _ in range(3):
            one.zero_grad()
            loss(net.eval(), X, y).backward()
            one.step()
    assert digest(ours) == digest(theirs) and isinstance(made, plain) and torch.is_grad_enabled()
    assert str(made.state_dict()) == str(wanted.state_dict())
    made.load_state_dict(wanted.state_dict())
    assert str(made.state_dict()) == str(wanted.state_dict())


def test_training_does_not_import_torchs_compiler(tmp_path, root):
    code = (
        "import sys, torch\nfrom shared.train import Config, fit\n"
        "data = torch.ones(9, 2), torch.ones(9, 1)\nloss = lambda net, x, y: (net(x) - y).square().mean()\n"
        "for kind in ('adam', 'adamw', 'sgd'):\n    for epochs in (1, 2):\n"
        "        config = Config(epochs=epochs, device='cpu', optimizer=kind, checkpoint=sys.argv[1] + kind)\n"
        "        fit(torch.nn.Linear(2, 1), loss, data, config, val=data)\n"
        "assert 'torch._dynamo' not in sys.modules\n"
    )
    words, env = [sys.executable, "-c", code, str(tmp_path / "run")], os.environ | {"PYTHONPATH": str(root)}
    ended = subprocess.run(words, capture_output=True, text=True, env=env)
    assert not ended.returncode, ended.stderr


def test_the_defaults_are_those_that_results_were_made_with():
    common = {"lr_step": None, "lr_gamma": 0.5, "step_order": "standard", "precision": "32", "seed": 0}
    common |= {"device": "auto", "progress": False, "checkpoint": None}
    wanted = {"epochs": 100, "batch_size": 128, "lr": 1e-3, "weight_decay": 0.0, "optimizer": "adamw"}
    wanted |= {
        "schedule": "constant",
        "patience": None,
        "min_delta": 0.0,
        "clip_norm": None,
        "devices": 1,
        "accumulate": 1,
    }
    wanted |= {"checkpoint_every": 1, "max_seconds": None, "accumulate": 1} | common
    assert {name: getattr(Config(), name) for name in wanted} == wanted


def test_every_name_of_the_room_is_there():
    assert all(getattr(train, name).__name__ == name for name in train.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'fits'"):
        train.fits  # noqa: B018


def test_a_checkpoint_knows_the_last_row_of_its_data(tmp_path):
    X, y = cells()
    config = replace(CPU, checkpoint=tmp_path / "c", epochs=1)
    fit(network(), loss, (X, y), config=config)
    with pytest.raises(TrainingError, match="differs in data"):
        fit(network(), loss, (X, np.r_[y[:-1], (y[-1] + 1) % 3]), config=config)


def test_a_table_says_how_many_numbers_a_batch_holds():
    assert Table(cells(genes=12), torch.device("cpu"), "data", batch_size=16).entries == 16 * (12 + 1)
