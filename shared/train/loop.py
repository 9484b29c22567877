"""The loop: epochs, batches, early stopping, checkpoints, and what to say when the loss is not finite."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import math
import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from shared.train.batches import Batches, Table, seed_of
from shared.train.checkpoint import plain, read_checkpoint, save_checkpoint, settings_of
from shared.train.distributed import OneProcess, asked, check_rows, processes
from shared.train.memory import LARGE, kept_memory
from shared.train.saved import CURE
from shared.train.settings import Config, History, TrainingError, seed_everything, warm_restarts

# Settings that a resumed run may change.
FREE = {"device", "devices", "progress", "checkpoint", "checkpoint_every", "checkpoint_seconds", "max_seconds"}


def fit(
    net: torch.nn.Module,
    step: Callable[..., torch.Tensor | tuple[torch.Tensor, dict]],
    batches: Sequence | Callable,
    config: Config | None = None,
    *,
    val: Sequence | None = None,
    monitor: Callable[[torch.nn.Module, dict], float] | None = None,
    callbacks: Sequence[Callable[[torch.nn.Module, dict], object]] = (),
    on_gradients: Callable[[torch.nn.Module], object] | None = None,
    project_weights: Callable[[torch.nn.Module], object] | None = None,
    on_optimizer: Callable[[torch.optim.Optimizer, torch.nn.Module], object] | None = None,
) -> History:
    """Train `net` in place.

    Parameters
    ----------
    net : torch.nn.Module
        Moved to the device, and left there in evaluation mode. Parameters with ``requires_grad=False`` stay.
    step : callable
        ``step(net, *batch)`` gives the scalar to make small, a mean over the rows of the batch; or a tuple of it and a
        dict of numbers (such as ``{"accuracy": ...}``), which the history holds averaged like the loss. Several
        processes measure that it is a mean over rows, unless its attribute ``rowwise`` says so or says no.
    batches : sequence of arrays, or callable
        Either one or more tensors, ndarrays or SciPy CSR matrices with as many rows each, to be shuffled and cut into
        batches of ``config.batch_size``. Floats become float32, whole numbers int64. Dense ones live on the device; of
        a CSR matrix only the rows of a batch are ever made dense. Or ``batches(epoch)``, which yields the batches of an
        epoch as tuples; :class:`shared.train.Batches` lets it say more of itself.
    config : Config, optional
        How to train; the defaults when left out.
    val : sequence of arrays, optional
        As many as `batches` has, of rows to stop early by. `step` is called in evaluation mode, its loss averaged over
        rows.
    monitor : callable, optional
        ``monitor(net, row)`` gives the number that early stopping minimises, in place of the validation loss. It is
        called after each epoch in evaluation mode without gradients, on the epoch's row of the history, and may add
        numbers to the row.
    callbacks : sequence of callable
        ``callback(net, row)`` after each epoch, in evaluation mode. It may add numbers to the row; a true answer ends
        training, and becomes ``history.stopped`` if it is a word. What a callback remembers itself is not in the
        checkpoint.
    on_gradients : callable, optional
        ``on_gradients(net)`` between the backward pass and the optimiser's step, before clipping.
    project_weights : callable, optional
        ``project_weights(net)`` at the end of each step, such as a projection onto non-negative weights.
    on_optimizer : callable, optional
        ``on_optimizer(optimizer, net)`` once, before training: to register hooks of torch on the optimiser's step,
        which run after clipping. With a method ``about()``, which gives a dict, it tells its checkpoints from others'.

    Returns
    -------
    History

    Raises
    ------
    TrainingError
        If inputs do not fit together, the loss is not a scalar or not finite, or a checkpoint is damaged, belongs to
        another run, or cannot be written.

    Notes
    -----
    On the CPU one seed and one number of threads give the same bytes every time. The caller's random generators
    are left as they were. A checkpoint is one safetensors file, the JSON in its header, replaced in one step: weights,
    optimiser, best weights, epoch and history. A run killed at any moment leaves the last whole one. Settings of the
    network that are numbers or words among the attributes of its modules tell its checkpoints from another's.
    With several processes (:mod:`shared.train.distributed`) `val`, `monitor` and `callbacks` are the first one's.
    """
    config = Config() if config is None else config
    (world, device), given = asked(config), batches
    if not callable(batches):
        batches = Table(batches, device, "tensors", config.batch_size, config.seed)
    elif not isinstance(batches, Batches):
        batches = Batches(batches)
    val = None if val is None else Table(val, device, "val", max(config.batch_size, 256))
    if val is not None and isinstance(batches, Table) and len(val.columns) != len(batches.columns):
        raise TrainingError(f"val holds {len(val.columns)} tensors and the training data {len(batches.columns)}")
    refused = {
        f"precision '16' needs CUDA and this run is on {device.type}: use 'bf16' or '32'": (
            config.precision == "16" and device.type != "cuda"
        ),
        "patience needs rows to judge by: pass val=, or set patience=None": (
            config.patience is not None and val is None and monitor is None
        ),
        "schedule 'cosine' needs the batches of an epoch: give Batches steps=, or use 'constant'": (
            config.schedule == "cosine" and not batches.steps
        ),
        "step_order 'original' takes the gradient of one batch: set accumulate=1, or step_order='standard'": (
            config.step_order == "original" and config.accumulate > 1
        ),
        "the network has no parameter to train: is every requires_grad False?": (
            not any(p.requires_grad for p in net.parameters())
        ),
    }
    if any(refused.values()):
        raise TrainingError(next(said for said, true in refused.items() if true))
    net.to(device)
    large = device.type == "cpu" and 4 * max(batches.entries, *(p.numel() for p in net.parameters())) >= LARGE
    with _own_generators(device), kept_memory(large):
        hooks = {"on_gradients": on_gradients, "project_weights": project_weights, "on_optimizer": on_optimizer}
        run = _Run(net, step, batches, config, device, val, monitor, **hooks)
        unused = world > 1 and check_rows(net, step, run.ask, batches)
        # Another process judges nothing, so it needs neither rows to judge by nor a real monitor.
        again = partial(fit, batches=given, config=config, monitor=callable if config.patience else None)
        with processes(world, device, unused, again, {"net": net, "step": step, **hooks}) as run.group:
            return run.go(callbacks)


@contextlib.contextmanager
def _own_generators(device):
    """Training draws from generators of its own; the caller's go on as if nothing had happened."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002


class _Run:
    """The state of one run: everything a checkpoint holds, and the steps that change it."""

    def __init__(self, net, step, batches, config, device, val, monitor, on_gradients, project_weights, on_optimizer):
        self.net, self.step, self.batches, self.config, self.device = net, step, batches, config, device
        self.val, self.monitor, self.on_gradients, self.project_weights = val, monitor, on_gradients, project_weights
        self.history, self.best, self.best_value, self.group = History(), {}, math.inf, OneProcess()
        self.parameters = [p for p in net.parameters() if p.requires_grad]
        self.optimizer = _optimizer(self.parameters, config, device)
        self.optimizer.zero_grad(set_to_none=True)
        if on_optimizer is not None:
            on_optimizer(self.optimizer, net)
        self.about_optimizer = on_optimizer.about() if hasattr(on_optimizer, "about") else {}
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "16")
        half = {"bf16": torch.bfloat16, "16": torch.float16}.get(config.precision)
        self.autocast = partial(torch.autocast, device.type, half) if half else contextlib.nullcontext
        # On an accelerator losses are looked at now and then, see Batches.look.
        self.look = 1 if device.type == "cpu" else batches.look
        self.path = None if config.checkpoint is None else Path(config.checkpoint)
        self.identity = None if self.path is None else self._identity()  # before a callback touches the network
        self.saved = time.perf_counter()

    def go(self, callbacks):
        config, history, unit, began = self.config, self.history, self.batches.unit, time.perf_counter()
        self.group.agree(lambda: self._identity() | {"val": None})  # which the first process alone holds
        state = self.group.first(self.read)
        if state is not None:
            self.restore(state)
        step = self.group.wrap(self.net, self.step)
        before, finished = history.seconds, history.stopped not in ("", f"{unit}s", "time")
        total, done = self.batches.done(config.epochs + 1), self.batches.done(len(history.rows) + 1)
        shown = {"unit": unit, "desc": self.batches.label, "disable": not config.progress or self.group.rank > 0}
        with tqdm(total=total, initial=done, **shown) as bar:
            while not finished and len(history.rows) < config.epochs:
                self.epoch(len(history.rows) + 1, step)
                row, history.seconds, history.stopped = self.group.first(partial(self.end, callbacks, before, began))
                history.rows[-1], finished = row, bool(history.stopped)
                bar.set_postfix({k: f"{v:.4g}" for k, v in row.items() if k != unit}, refresh=False)
                bar.update(row[unit] - bar.n)
        self.optimizer.zero_grad(set_to_none=True)
        if config.patience is not None:
            self.net.load_state_dict(self.best)
        self.net.eval()
        return history

    def end(self, callbacks, before, began):
        """What ends an epoch, in the first process: callbacks, whether training ends too, and a checkpoint."""
        history, row = self.history, self.history.rows[-1]
        answers = [callback(self.net, row) for callback in callbacks]
        history.seconds = before + time.perf_counter() - began
        history.stopped = self.reason(next(filter(None, answers), None), history.seconds - before)
        if self.path is not None and (history.stopped or self.due(len(history.rows))):
            self.save()
            self.saved = time.perf_counter()
        return row, history.seconds, history.stopped

    def due(self, done):
        """Whether progress is saved after so many epochs."""
        waits = self.config.checkpoint_seconds or 0
        return done % self.config.checkpoint_every == 0 and time.perf_counter() - self.saved >= waits

    def reason(self, answer, spent):
        """Why training ends after this epoch, or the empty string."""
        config, done = self.config, len(self.history.rows)
        reasons = [
            (answer if isinstance(answer, str) else "callback", answer is not None),
            ("patience", config.patience is not None and done - self.history.best_epoch >= config.patience),
            (f"{self.batches.unit}s", done >= config.epochs),
            ("time", config.max_seconds is not None and spent >= config.max_seconds),
        ]
        return next((reason for reason, true in reasons if true), "")

    def epoch(self, number, step):
        """One pass over the batches; adds the epoch's row to the history."""
        net, original, seen, looked = self.net, self.config.step_order == "original", [], 0
        seed_everything(seed_of(self.config.seed, number, self.group.rank))  # rank 0 changes nothing
        net.train()
        for batch in self.group.batches(self.batches, number):
            lr = self.set_lr(number, len(seen))
            if original and any(p.grad is not None for p in self.parameters):
                self.update()
            with self.autocast():
                loss, numbers = self.ask(batch, step)
            seen.append(self.group.mean({"loss": loss.detach(), **numbers}))
            if len(seen) - looked == self.look:
                looked = self.check_finite(seen, looked, number, lr)
            waits = len(seen) % self.config.accumulate
            self.scaler.scale(loss / self.config.accumulate if self.config.accumulate > 1 else loss).backward()
            if not (original or waits):
                self.update()
            if not waits:
                self.project()
            del batch, loss  # or the next batch is made while this one is still held
        if not seen:
            raise TrainingError(f"epoch {number} has no batch: give smaller batches or more rows")
        if waits:
            self.update()
            self.project()
        self.check_finite(seen, looked, number, lr)
        sizes = self.batches.sizes(number)
        row = {k: self.mean([one[k] for one in seen], sizes) for k in seen[0]}
        row = {self.batches.unit: self.batches.done(number + 1), **row}
        net.eval()
        row, value = self.group.first(partial(self.judge, row, number, lr))
        row["lr"] = lr
        self.history.rows.append(row)
        self.keep_best(value)

    @torch.no_grad()
    def judge(self, row, number, lr):
        """The row, with what validation and the monitor add, and the number that early stopping minimises."""
        value = row["loss"] if self.val is None else self.validate(row, number, lr)
        return row, value if self.monitor is None else self.monitor(self.net, row)

    def ask(self, batch, step=None):
        """The loss of one batch, made sure to be a scalar that depends on the parameters, and the step's numbers."""
        try:
            answer = (step or self.step)(self.net, *batch)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error) or not isinstance(self.batches, Table):
                raise
            raise TrainingError(
                f"batch norm cannot train on a batch of one row: use at least two rows and batch_size >= 2, "
                f"here {self.batches.rows} and {self.config.batch_size}"
            ) from error
        loss, numbers = answer if isinstance(answer, tuple) else (answer, {})
        if not isinstance(loss, torch.Tensor) or loss.ndim or not loss.is_floating_point():
            said = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else f"{loss!r}"
            raise TrainingError(f"step must return one floating-point scalar tensor, not {said}: take its mean")
        if torch.is_grad_enabled() and not loss.requires_grad:
            raise TrainingError(
                "the loss does not depend on the model's parameters: was it detached or made from numbers?"
            )
        return loss, {k: v.detach() if isinstance(v, torch.Tensor) else v for k, v in numbers.items()}

    def update(self):
        """One optimiser step by the gradients, which are then dropped: they take as much memory as the weights."""
        self.scaler.unscale_(self.optimizer)
        if self.on_gradients is not None:
            self.on_gradients(self.net)
        if self.config.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def project(self):
        if self.project_weights is not None:
            self.project_weights(self.net)

    def set_lr(self, number, i):
        config, lr, steps = self.config, self.config.lr, self.batches.steps
        if config.schedule == "cosine":
            lr *= 0.5 * (1 + math.cos(math.pi * ((number - 1) * steps + i) / (steps * config.epochs)))
        if config.schedule == "restarts":
            lr = warm_restarts(number, lr)
        if config.lr_step is not None:
            lr *= config.lr_gamma ** (self.batches.decayed(number, i) // config.lr_step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        return lr

    def mean(self, values, sizes):
        """Mean over the batches of an epoch, weighed by their rows where these are known."""
        values = [torch.as_tensor(v, dtype=torch.float32, device=self.device) for v in values]
        if sizes is None:
            return float(sum(values)) / len(values)
        weights = torch.tensor(sizes, dtype=torch.float32, device=self.device)
        return float((torch.stack(values) * weights).sum() / sum(sizes))

    def check_finite(self, seen, first, number, lr):
        """Stop at a loss that is not finite among those of batches `first` and later; returns how many were seen."""
        values = [one["loss"] for one in seen[first:]]
        for i, value in enumerate(torch.stack(values).tolist() if len(values) > 1 else map(float, values), first):
            if not math.isfinite(value):
                raise self.not_finite(value, self.batches.place(number, i), lr)
        return len(seen)

    def not_finite(self, value, where, lr):
        return TrainingError(f"the loss is {value} {where}, lr {lr:.3g}: {self.batches.cure}")

    def validate(self, row, number, lr):
        total, val = 0.0, self.val
        for rows in torch.arange(val.rows, device=self.device).split(val.batch_size):
            with self.autocast():
                total += self.ask(val.take(rows))[0].float() * len(rows)
        row["val_loss"] = float(torch.as_tensor(total / val.rows))
        if not math.isfinite(row["val_loss"]):
            raise self.not_finite(row["val_loss"], f"at epoch {number}, validation", lr)
        return row["val_loss"]

    def keep_best(self, value):
        if value < self.best_value - self.config.min_delta or not self.history.best_epoch:
            self.best_value, self.history.best_epoch = value, len(self.history.rows)
            if self.config.patience is not None:
                self.best = {k: v.detach().clone() for k, v in self.net.state_dict().items()}

    # Checkpoints.

    def _identity(self):
        """What must be equal for a checkpoint to be this run's; epochs may be added unless the rate depends on them."""
        free = FREE | (set() if self.config.schedule == "cosine" else {"epochs"})
        fields = {k: v for k, v in dataclasses.asdict(self.config).items() if k not in free}
        shapes = {k: [str(v.dtype), *v.shape] for k, v in self.net.state_dict().items()}
        val = None if self.val is None else self.val.digest()
        about = {"network": shapes, "modules": settings_of(self.net), **self.batches.about(), "val": val}
        about |= self.about_optimizer
        return plain(fields | about)

    def save(self):
        """Write weights, optimiser, best weights, a gradient not yet used (one order of steps keeps it) and history."""
        state = {"model": self.net.state_dict(), "gradients": [p.grad for p in self.parameters]}
        state |= {"optimizer": {str(i): s for i, s in self.optimizer.state_dict()["state"].items()}}
        state |= {"best": self.best, "best_value": self.best_value}
        state |= {"history": vars(self.history), "scaler": self.scaler.state_dict()}
        save_checkpoint(self.path, state, self.identity)

    def read(self):
        """The state in the checkpoint, after making sure that it is this run's; None where there is none."""
        if self.path is None or not self.path.exists():
            return None
        state = read_checkpoint(self.path, self.identity)
        refusal = self.batches.refusal(state["history"]["rows"], self.config.epochs)
        if refusal:
            raise TrainingError(f"{self.path} {refusal}: {CURE}")
        return state

    def restore(self, state):
        """Put the run where its checkpoint left it."""
        self.net.load_state_dict(state["model"])
        for p, gradient in zip(self.parameters, state["gradients"], strict=True):
            p.grad = None if gradient is None else gradient.to(self.device)
        moments = {int(i): s for i, s in state["optimizer"].items()}
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": moments})
        self.best, self.best_value = state["best"], state["best_value"]
        vars(self.history).update(state["history"])
        self.scaler.load_state_dict(state["scaler"])  # does nothing unless precision is "16"


def _optimizer(parameters, config, device):
    if config.optimizer == "sgd":
        return _eager(torch.optim.SGD)(parameters, lr=config.lr, momentum=0.9, weight_decay=config.weight_decay)
    kind = _eager(torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam)
    # One pass over the memory instead of eight; a network with a weight per gene is mostly optimiser.
    fused = device.type in ("cpu", "cuda")
    return kind(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=fused)


def _eager(kind):
    """The optimiser without its precautions for ``torch.compile``, which runs no step of this loop.

    They import torch's compiler the first time an optimiser is made: two seconds, more than a small training takes.
    Where torch does not wrap a method, it stays as it is.
    """
    names = "add_param_group", "zero_grad", "state_dict", "load_state_dict"
    own = {name: inspect.unwrap(getattr(kind, name)) for name in names}
    return type(kind.__name__, (kind,), own | {"step": torch.no_grad()(inspect.unwrap(kind.step))})
