"""Several processes end where one does, refuse what they would train otherwise, and say so when one is lost.

Two processes are started with `devices=2` by some tests here and by `torchrun` in another; what they run stands here,
where they can import it.
"""

import importlib
import os
import signal
import sys
import time
import types
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from shared.data.constraints import SettingError
from shared.train import Batches, Config, DomainBatches, TrainingError, distributed, fit, read_safetensors
from shared.train.batches import Table, part, seed_of
from tests.train.test_fit import cells, digest
from tests.train.test_fit import network as with_dropout

# Four batches an epoch, of 15, 15, 15 and 5 rows.
CPU = Config(
    device="cpu", epochs=4, batch_size=15, lr=2e-2, weight_decay=0.1, clip_norm=0.5, patience=4, step_order="original"
)
TWO, SEEN = replace(CPU, devices=2), []


class Network(nn.Module):
    """Its loss goes past ``forward``, and past some of its parameters."""

    def __init__(self):
        super().__init__()
        self.encode, self.head, self.spare = nn.Linear(12, 16), nn.Linear(16, 3), nn.Linear(2, 2)
        self.register_buffer("scale", torch.ones(1))


def network(seed=0):
    torch.manual_seed(seed)
    return Network()


def step(net, X, y):
    SEEN.append(len(X))
    if len(SEEN) == 15 and os.environ.get("RANK") == "1" and "DIE" in os.environ:  # in the third epoch
        with open(os.environ["DIE"], "w") as file:
            file.write(str(time.time()))
        os.kill(os.getpid(), signal.SIGKILL)
    logits = net.head(net.encode(X).relu() * net.scale)
    return cross_entropy(logits, y), {"accuracy": (logits.argmax(1) == y).float().mean()}


def halve(net):
    net.encode.weight.grad /= 2


def project(net):
    net.head.bias.data.clamp_(min=0)


HOOKS = {"on_gradients": halve, "project_weights": project, "val": cells(seed=1)}


def apart(net, other, history, rival) -> float:
    """The largest difference between two runs, of weights and of numbers in the history."""
    weights = [float((a - b).detach().abs().max()) for a, b in zip(net.parameters(), other.parameters(), strict=True)]
    assert (history.best_epoch, history.stopped) == (rival.best_epoch, rival.stopped)
    return max(*weights, float((history.frame() - rival.frame()).abs().max().max()))


@pytest.fixture(scope="module")
def both():
    """One run in one process and in two, with what the callback of the second saw."""
    one, two, seen = network(), network(), []

    def callback(net, row):
        seen.append(row["val_loss"])
        inner = network()
        fit(inner, step, cells(), replace(TWO, epochs=1, patience=None))  # its own affair: no process is started

    first = fit(one, step, cells(), CPU, **HOOKS)
    SEEN.clear()
    importlib.import_module("torch._dynamo")  # which DDP imports, and which sets a variable of its own
    threads, variables = torch.get_num_threads(), dict(os.environ)
    second = fit(two, step, cells(), TWO, **HOOKS, callbacks=[callback])
    assert (threads, variables) == (torch.get_num_threads(), dict(os.environ))
    return types.SimpleNamespace(
        one=one, two=two, first=first, second=second, seen=seen, rows=SEEN[:8], digest=digest(two)
    )


def test_two_processes_end_where_one_does(both):
    assert apart(both.one, both.two, both.first, both.second) < 1e-5
    assert torch.equal(both.two.spare.weight, network().spare.weight), "what takes no part in the loss stays as it was"


def test_each_takes_half_of_every_batch_and_the_first_decides(both):
    assert both.rows == [15, 15, 8, 7, 8, 8, 8, 3], "a look at the first batch and its halves, then shares"
    assert both.seen == [row["val_loss"] for row in both.second.rows] and len(both.seen) == 4


def test_the_network_trains_on_alone(both):
    histories = [fit(net, step, cells(), replace(CPU, patience=None)) for net in (both.one, both.two)]
    assert apart(both.one, both.two, *histories) < 1e-5


@pytest.mark.slow
@pytest.mark.nightly  # once, the dead process was waited for as long as gloo waits, thirty minutes
def test_a_killed_process_ends_the_run_and_the_next_goes_on(both, tmp_path, monkeypatch):
    config = replace(TWO, checkpoint=tmp_path / "c")
    monkeypatch.setenv("DIE", str(tmp_path / "died"))
    with pytest.raises(TrainingError, match=r"a process ended before the training .*SIGKILL.*: run again, which goes"):
        fit(network(), step, cells(), config, **HOOKS)
    assert time.time() - float((tmp_path / "died").read_text()) < 20
    assert len(read_safetensors(config.checkpoint)[1]["history"]["rows"]) == 2
    monkeypatch.delenv("DIE")
    resumed = network(seed=7)
    history = fit(resumed, step, cells(), config, **HOOKS)
    assert digest(resumed) == both.digest and history.rows == both.second.rows


SCRIPT = """
import os, sys
from dataclasses import replace
from tests.train.test_distributed import CPU, HOOKS, TrainingError, apart, cells, digest, fit, network, step

alone, launched = network(), {name: os.environ.pop(name) for name in ("RANK", "WORLD_SIZE")}
first = fit(alone, step, cells(), CPU, **HOOKS)
assert "accelerate" not in sys.modules
os.environ.update(launched)
rank = int(os.environ["RANK"])
net = network(seed=rank)  # weights of the first process hold
second = fit(net, step, cells(), CPU, **HOOKS)
assert apart(alone, net, first, second) < 1e-5
for change, said in (({"seed": rank}, "given different runs, which differ in seed"), ({"devices": 3}, "2 processes")):
    try:
        fit(net, step, cells(), replace(CPU, **change), **HOOKS)
    except TrainingError as error:
        assert said in str(error), error
    else:
        raise AssertionError(said)
with open(os.path.join(sys.argv[1], f"rank {rank}"), "w") as file:
    file.write(digest(net) + repr(second.rows))
"""


@pytest.mark.slow
def test_torchrun_trains_the_same(torchrun):
    torchrun(SCRIPT)


# What is refused, before any process is started.


@pytest.fixture
def none_starts(monkeypatch):
    monkeypatch.setattr(distributed, "start_processes", lambda *_: pytest.fail("a process was started"))


def plain(net, X, y):
    return cross_entropy(net(X), y)


def spread(net, X, y):
    return plain(net, X, y) + 0.1 * torch.cov(net(X).T).square().sum()


def declared(net, X, y):
    return plain(net, X, y)


declared.rowwise = False


def noisy(net, X, y):
    return plain(net, X + torch.randn_like(X), y)


@pytest.mark.parametrize(
    ("net", "loss", "batches", "said"),
    [
        (with_dropout(), spread, cells(), r"the mean over its halves .*no mean over rows.*devices=1"),
        (with_dropout(), partial(cross_entropy, weight=torch.tensor([1.0, 2, 9])), cells(), "no mean over rows"),
        (with_dropout(), declared, cells(), "no mean over the rows of a batch"),
        (with_dropout(), noisy, cells(), "random draws alone differ, say step.rowwise = True"),
        (with_dropout(), plain, lambda epoch: [cells()], "no mean over the rows of a batch"),
        (with_dropout(), plain, DomainBatches(cells(), cells()[:1], 16, 0), "no mean over the rows of a batch"),
        (with_dropout(norm=True), plain, cells(), "1.running_mean would be collected.*batch norm: use layer norm"),
        (nn.Sequential(nn.BatchNorm1d(12, track_running_stats=False), nn.Linear(12, 3)), plain, cells(), "no mean ov"),
    ],
)
def test_what_is_no_mean_over_rows_is_refused(none_starts, net, loss, batches, said):
    before = digest(net)
    loss = (lambda m, X, y, weighed=loss: weighed(m(X), y)) if isinstance(loss, partial) else loss
    with pytest.raises(TrainingError, match=said):
        fit(net, loss, batches, replace(TWO, patience=None))
    assert digest(net) == before


def test_a_step_may_say_that_it_is_a_mean_over_rows():
    def trusted(net, X, y):
        return noisy(net, X, y)

    trusted.rowwise, net = True, with_dropout()
    table = Table(cells(), torch.device("cpu"), "tensors", 15)
    ask = lambda batch: (trusted(net, *batch), {})  # noqa: E731
    assert distributed.check_rows(net, trusted, ask, table) is False
    net.register_parameter("spare", nn.Parameter(torch.ones(2)))
    assert distributed.check_rows(net, trusted, ask, table) is True


@pytest.mark.parametrize(
    ("module", "name", "settings", "said"),
    [
        ("domain_adaptation", "DeepCORAL", {}, "no mean over the rows of a batch"),
        ("domain_adaptation", "DANN", {}, "no mean over the rows of a batch"),
        ("tmp", "TMP", {}, "devices=2 is more than its batches can be shared by: set devices=1"),
        ("network_classifier", "NetworkClassifier", {"batch_norm": True}, "batch norm"),
        ("scpretrain", "ScPretrain", {}, "devices=2 is more than its batches can be shared by: set devices=1"),
    ],
)
def test_estimators_hand_devices_on(none_starts, module, name, settings, said):
    # Loaded here, or the processes that other tests start would load them too.
    example = getattr(importlib.import_module(f"shared.methods.{module}"), name).example()
    with pytest.raises((TrainingError, SettingError), match=said):
        example.model.set_params(devices=2, **settings).fit(example.cells, example.y, **example.fit)


def test_a_step_that_cannot_be_sent_is_refused():
    with pytest.raises(TrainingError, match=r"not all can be sent \(.*local.*torchrun"):
        fit(network(), lambda *batch: step(*batch), cells(), TWO, **HOOKS)


@pytest.mark.nightly
def test_a_process_that_cannot_start_is_reported(monkeypatch, capfd):
    here = types.ModuleType("only_here")
    exec("def step(net, X, y): return net(X).square().mean()", vars(here))
    monkeypatch.setitem(sys.modules, "only_here", here)
    with pytest.raises(TrainingError, match=r"could not start \(.*exit code 1\): define step and network in a module"):
        fit(with_dropout(), here.step, cells(), replace(TWO, patience=None))
    assert "only_here" in capfd.readouterr().err and not torch.distributed.is_initialized()


def test_accelerate_is_an_extra(none_starts, monkeypatch):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(TrainingError, match=r'need Accelerate: pip install "borrowed-strength\[distributed\]", or set'):
        fit(network(), step, cells(), TWO, **HOOKS)


def test_numbers_that_do_not_fit_are_refused(none_starts, monkeypatch):
    monkeypatch.setattr(distributed, "resolve_device", lambda device: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(TrainingError, match="2 processes need a GPU each, and there are 1: set device='cpu'"):
        distributed.asked(TWO)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert distributed.asked(TWO) == (2, torch.device("cuda:0"))
    monkeypatch.setenv("RANK", "1"), monkeypatch.setenv("LOCAL_RANK", "1"), monkeypatch.setenv("WORLD_SIZE", "2")
    assert distributed.asked(CPU) == distributed.asked(TWO) == (2, torch.device("cuda:1"))
    with pytest.raises(TrainingError, match="devices=3, and 2 processes were launched: leave devices out"):
        distributed.asked(replace(CPU, devices=3))


# Shares.


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_shares_make_up_the_batch(world):
    table = Table((np.arange(19.0),), torch.device("cpu"), "tensors", 8)
    for i, (n, batch) in enumerate(zip(table.sizes(1), table(1), strict=True)):
        mine = [part(n, rank, world) for rank in range(world)]
        shares = [list(table(1, rank, world))[i][0] for rank in range(world)]
        assert [row for some in mine for row in some] == list(range(n))
        assert torch.equal(torch.cat([share for share, some in zip(shares, mine) if some]), batch[0])
        assert all(torch.equal(share, batch[0][:1]) for share, some in zip(shares, mine) if not some)
        assert max(map(len, mine)) - min(map(len, mine)) <= 1


def test_the_first_process_draws_what_one_process_draws():
    seeds = [seed_of(2**32 - 1, 7, rank) for rank in range(3)]
    assert seeds[0] == seed_of(2**32 - 1, 7) and len(set(seeds)) == 3


def test_a_function_of_the_epoch_may_share_its_batches():
    batches = Batches(lambda epoch, rank=0, world=1: [(epoch, rank, world)], rowwise=True)
    assert list(batches(3)) == [(3, 0, 1)] and list(batches(3, 1, 2)) == [(3, 1, 2)]
