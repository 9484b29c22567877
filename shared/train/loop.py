"""The loop: epochs, batches, early stopping, and what to say when the loss is no number."""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from shared.train import checkpoint
from shared.train.rows import Sparse, Table
from shared.train.settings import PRECISIONS, Config, History, TrainingError, resolve_device, seed_everything


def fit(
    model: torch.nn.Module,
    loss: Callable[..., torch.Tensor],
    tensors: Sequence,
    *,
    val: Sequence | None = None,
    config: Config | None = None,
    callbacks: Sequence[Callable[[torch.nn.Module, dict], object]] = (),
) -> History:
    """Train `model` in place.

    Parameters
    ----------
    model : torch.nn.Module
        Moved to the device, and left there in evaluation mode. Parameters with ``requires_grad=False`` stay.
    loss : callable
        ``loss(model, *batch)`` gives the scalar to make small: a mean over the rows of the batch.
    tensors : sequence of tensor, ndarray or SciPy CSR matrix
        One or more, with as many rows each. Floats become float32, whole numbers int64. Dense ones live on the
        device; of a CSR matrix only the rows of a batch are ever made dense.
    val : sequence, optional
        As many, of rows to judge by. `loss` is asked in evaluation mode and averaged over rows.
    config : Config, optional
        How to train; the defaults when left out.
    callbacks : sequence of callable
        ``callback(model, row)`` after each epoch, on the epoch's row of the history. It may add numbers to the row; a
        true answer ends training. What a callback remembers itself is not in the checkpoint.

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
    optimiser, best weights, epoch and history. A run killed at any moment leaves the last whole one.
    """
    config = Config() if config is None else config
    device = resolve_device(config.device)
    if config.precision == "16" and device.type != "cuda":
        raise TrainingError(f"precision '16' needs CUDA and this run is on {device.type}: use 'bf16' or '32'")
    data = Table(tensors, device, "tensors")
    judge = None if val is None else Table(val, device, "val")
    if judge is not None and len(judge.columns) != len(data.columns):
        raise TrainingError(f"val holds {len(judge.columns)} tensors and the training data {len(data.columns)}")
    if config.patience is not None and judge is None:
        raise TrainingError("patience needs rows to judge by: pass val=, or set patience=None")
    model.to(device)
    if not any(p.requires_grad for p in model.parameters()):
        raise TrainingError("the model has no parameter to train: is every requires_grad False?")
    with _own_generators(device):
        return _Run(model, loss, data, judge, config, device).go(callbacks)


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

    def __init__(self, model, loss, data, judge, config, device):
        self.model, self.loss, self.data, self.judge, self.config = model, loss, data, judge, config
        self.device, self.history, self.best, self.best_loss = device, History(), {}, math.inf
        batches, last = divmod(data.rows, config.batch_size)
        self.batches = max(1, batches + (last > 1 or (last == 1 and config.batch_size == 1)))
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = _optimizer(self.parameters, config, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "16")
        dtype = PRECISIONS[config.precision]
        self.autocast = contextlib.nullcontext if dtype is None else lambda: torch.autocast(device.type, dtype)
        self.path = None if config.checkpoint is None else Path(config.checkpoint)

    def go(self, callbacks):
        config, history, began = self.config, self.history, time.perf_counter()
        if self.path is not None and self.path.exists():
            checkpoint.restore(self)
        before = history.seconds
        bar = _bar(config, len(history.rows))
        finished = history.stopped in ("patience", "callback")
        while not finished and len(history.rows) < config.epochs:
            row = self.epoch(len(history.rows) + 1)
            history.rows.append(row)
            self.keep_best(row)
            asked = [bool(callback(self.model, row)) for callback in callbacks]
            history.seconds = before + time.perf_counter() - began
            history.stopped = self.reason(any(asked), history.seconds - before)
            finished = bool(history.stopped)
            if self.path is not None and (finished or row["epoch"] % config.checkpoint_every == 0):
                checkpoint.save(self)
            if bar is not None:
                bar.set_postfix({k: f"{v:.4g}" for k, v in row.items() if k != "epoch"}, refresh=False)
                bar.update()
        if bar is not None:
            bar.close()
        if config.patience is not None:
            self.model.load_state_dict(self.best)
        self.model.eval()
        return history

    def reason(self, asked, spent):
        """Why training ends after this epoch, or the empty string."""
        config, done = self.config, len(self.history.rows)
        if asked:
            return "callback"
        if config.patience is not None and done - self.history.best_epoch >= config.patience:
            return "patience"
        if done >= config.epochs:
            return "epochs"
        return "time" if config.max_seconds is not None and spent >= config.max_seconds else ""

    def epoch(self, number):
        """One pass over the rows; returns the epoch's row of the history."""
        mixed = int(np.random.SeedSequence((self.config.seed, number)).generate_state(1)[0])
        seed_everything(mixed)
        order, size = self.data.order(mixed), self.config.batch_size
        losses = torch.zeros(self.batches, device=self.device)
        # Asking an accelerator for a number makes it wait, so there losses are looked at now and then.
        look = 1 if self.device.type == "cpu" else 64
        self.model.train()
        for i in range(self.batches):
            rows = order[i * size : (i + 1) * size if i + 1 < self.batches else self.data.rows]
            lr = self.set_lr((number - 1) * self.batches + i)
            self.optimizer.zero_grad(set_to_none=True)
            with self.autocast():
                value = self.ask(self.data.take(rows))
            losses[i] = value.detach()
            if (i + 1) % look == 0 or i + 1 == self.batches:
                first = i // look * look
                self.check_finite(losses[first : i + 1], f"epoch {number}, batch {{}} of {self.batches}", first, lr)
            self.step(value)
        sizes = torch.full((self.batches,), float(size), device=self.device)
        sizes[-1] = self.data.rows - size * (self.batches - 1)
        row = {"epoch": number, "loss": float((losses * sizes).sum() / self.data.rows)}
        if self.judge is not None:
            row["val_loss"] = self.validate(number, lr)
        return row | {"lr": lr}

    def ask(self, batch):
        """The loss of one batch, made sure to be a scalar that depends on the parameters."""
        try:
            value = self.loss(self.model, *batch)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise TrainingError(
                f"batch norm cannot train on a batch of one row: use at least two rows and batch_size >= 2, "
                f"here {self.data.rows} and {self.config.batch_size}"
            ) from error
        if not isinstance(value, torch.Tensor) or value.ndim or not value.is_floating_point():
            said = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else f"{value!r}"
            raise TrainingError(f"loss must return one floating-point scalar tensor, not {said}: take its mean")
        if torch.is_grad_enabled() and not value.requires_grad:
            raise TrainingError(
                "the loss does not depend on the model's parameters: was it detached or made from numbers?"
            )
        return value

    def step(self, value):
        self.scaler.scale(value).backward()
        if self.config.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def set_lr(self, step):
        total = self.batches * self.config.epochs
        wave = 1.0 if self.config.schedule == "constant" else 0.5 * (1 + math.cos(math.pi * step / total))
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr * wave
        return self.config.lr * wave

    def check_finite(self, losses, where, first, lr):
        bad = (~torch.isfinite(losses)).nonzero()
        if len(bad):
            value, where = float(losses[bad[0, 0]]), where.format(first + int(bad[0, 0]) + 1)
            rows = sum(int((~torch.isfinite(c)).sum()) for c in self.data.columns if not isinstance(c, Sparse))
            cure = (
                f"the data hold {rows} values that are not finite: remove them"
                if rows
                else "lower lr, or set clip_norm"
            )
            raise TrainingError(f"the loss is {value} at {where}, lr {lr:.3g}: {cure}")

    @torch.no_grad()
    def validate(self, number, lr):
        self.model.eval()
        total, size = 0.0, max(self.config.batch_size, 256)
        for start in range(0, self.judge.rows, size):
            rows = torch.arange(start, min(start + size, self.judge.rows), device=self.device)
            with self.autocast():
                total += self.ask(self.judge.take(rows)).float() * len(rows)
        total = torch.as_tensor(total / self.judge.rows).reshape(1)
        self.check_finite(total, f"epoch {number}, validation", 0, lr)
        return float(total)

    def keep_best(self, row):
        now = row.get("val_loss", row["loss"])
        if now < self.best_loss - self.config.min_delta or not self.history.best_epoch:
            self.best_loss, self.history.best_epoch = now, row["epoch"]
            if self.config.patience is not None:
                self.best = {k: v.detach().clone() for k, v in self.model.state_dict().items()}


def _optimizer(parameters, config, device):
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=config.lr, momentum=0.9, weight_decay=config.weight_decay)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    # One pass over the memory instead of eight; a network with a weight per gene is mostly optimiser.
    fused = device.type in ("cpu", "cuda")
    return kind(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=fused)


def _bar(config, done):
    if not config.progress:
        return None
    from tqdm import tqdm

    return tqdm(total=config.epochs, initial=done, unit="epoch", desc="training")
