"""How to train, what happened, where to compute, and the error that training raises."""

from __future__ import annotations

import dataclasses
import math
import os
import random
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

from shared.data.constraints import Maybe, NotNegative, OneOf, Positive, Whole, check

DEVICE_VARIABLE = "BORROWED_DEVICE"
OPTIMIZERS, STEP_ORDERS = ("adamw", "adam", "sgd"), ("standard", "original")


class TrainingError(ValueError):
    """Training cannot start, or cannot go on; the message names the problem and the cure."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Common:
    """Settings of every training, by epochs or by episodes; see :class:`Config`."""

    lr: float = 1e-3
    lr_step: int | None = None
    lr_gamma: float = 0.5
    step_order: str = "standard"
    precision: str = "32"
    seed: int = 0
    device: str = "auto"
    devices: int = 1
    progress: bool = False
    checkpoint: str | Path | None = None

    constraints = {
        **dict.fromkeys(("lr", "lr_gamma"), Positive()),
        "lr_step": Maybe(Whole(1)),
        "step_order": OneOf(*STEP_ORDERS),
        "precision": OneOf("32", "bf16", "16"),
        "seed": Whole(),
        "devices": Whole(1),
    }

    def __post_init__(self):
        check(vars(self), self.constraints)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Common):
    """How to train. The defaults suit a small network on a few thousand cells.

    Parameters
    ----------
    epochs : int
        Passes over the rows, at most.
    batch_size : int
        Rows a step. A last batch of one row joins the batch before it: batch norm has no variance to use in it.
    lr, weight_decay : float
        Step size and decay of ``optimizer``.
    optimizer : {"adamw", "adam", "sgd"}
        SGD has momentum 0.9.
    schedule : {"constant", "cosine", "restarts"}
        The cosine falls from `lr` to 0 over all steps; with restarts it goes as :func:`warm_restarts` says.
    lr_step, lr_gamma : int or None, float
        Every `lr_step` epochs (episodes, in :func:`shared.train.episodes.meta_train`) the learning rate is multiplied
        by `lr_gamma`.
    step_order : {"standard", "original"}
        ``"original"`` is the order of the code published with TMP: each optimiser step uses the gradient of the batch
        before and comes before the forward pass, so the last gradient is never used.
    precision : {"32", "bf16", "16"}
        Arithmetic of the forward pass; weights stay float32. ``"16"`` scales the loss and needs CUDA.
    patience : int, optional
        Stop when the validation loss (or what ``monitor`` returns) has not fallen by more than `min_delta` for so
        many epochs, and give the model the weights of its best epoch. None: no early stop, and the weights of the last
        epoch stay.
    clip_norm : float, optional
        Largest norm of the gradient.
    accumulate : int
        Batches whose mean gradient makes one step of the optimiser, for batches that do not fit into memory at once.
        Where an epoch ends before so many, those that were seen make a step, as if the others had gradient 0.
    seed : int
        Order of the rows, dropout, and whatever else the network or the loss draws.
    device : str
        See :func:`resolve_device`.
    devices : int
        Processes that share the rows of every batch, each on a GPU of its own or all on the CPU: see
        :mod:`shared.train.distributed`. Where ``torchrun`` or ``accelerate launch`` started several, these train
        together, and 1 stands for as many as were started.
    progress : bool
        Show a bar.
    checkpoint : path, optional
        File to save to and resume from. A run resumes when the file exists, and refuses a file of another run.
    checkpoint_every : int
        Epochs between two saves; the last epoch is always saved.
    checkpoint_seconds : float, optional
        Least time between two saves, at the end of an epoch: a save in short epochs need not cost more than they.
    max_seconds : float, optional
        Stop after the epoch in which this call has taken so long. With `checkpoint` the next call goes on.

    Raises
    ------
    SettingError
        If a value cannot be used.
    """

    epochs: int = 100
    batch_size: int = 128
    weight_decay: float = 0.0
    optimizer: str = "adamw"
    schedule: str = "constant"
    patience: int | None = None
    min_delta: float = 0.0
    clip_norm: float | None = None
    accumulate: int = 1
    checkpoint_every: int = 1
    checkpoint_seconds: float | None = None
    max_seconds: float | None = None

    constraints = Common.constraints | {
        **dict.fromkeys(("epochs", "batch_size", "accumulate", "checkpoint_every"), Whole(1)),
        "patience": Maybe(Whole(1)),
        **dict.fromkeys(("weight_decay", "min_delta"), NotNegative()),
        **dict.fromkeys(("clip_norm", "max_seconds", "checkpoint_seconds"), Maybe(Positive())),
        "optimizer": OneOf(*OPTIMIZERS),
        "schedule": OneOf("constant", "cosine", "restarts"),
    }


def warm_restarts(
    epoch: int, lr: float, floor: float = 1e-6, length: int = 15, warm: int = 5, decay: float = 0.9
) -> float:
    """Learning rate of an epoch, from 1: a linear rise from `floor`, a cosine back to it, and again, longer and lower.

    Cycles take 15, 25, 45, 85, ... epochs: what follows the rise doubles. Each peak is `decay` times the one before.
    The first epoch of every cycle trains at `floor`.
    """
    t = epoch - 1
    while t >= length:
        t, length, lr = t - length, 2 * (length - warm) + warm, lr * decay
    if t < warm:
        return floor + (lr - floor) * t / warm
    return floor + (lr - floor) * (1 + math.cos(math.pi * (t - warm) / (length - warm))) / 2


@dataclasses.dataclass
class History:
    """What happened, epoch by epoch.

    Attributes
    ----------
    rows : list of dict
        One an epoch: ``epoch`` (from 1; where training is by episodes ``episode``, how many are done), ``loss`` (mean
        over training rows, while training), other numbers of the step, ``val_loss`` where there were validation rows,
        what the monitor added, ``lr`` of its last step, and what callbacks added.
    best_epoch : int
        Epoch with the lowest monitored number: validation loss, or training loss where there is none.
    stopped : {"epochs", "episodes", "accuracy", "patience", "callback", "time"} or str
        Why training ended; where a callback returned a word, that word.
    seconds : float
        Wall time, summed over the calls of a resumed run.
    """

    rows: list[dict] = dataclasses.field(default_factory=list)
    best_epoch: int = 0
    stopped: str = ""
    seconds: float = 0.0

    def frame(self):
        """The rows as a DataFrame, indexed by epoch or episode."""
        import pandas as pd

        return pd.DataFrame(self.rows).set_index(next(iter(self.rows[0])))


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """The device to compute on.

    Parameters
    ----------
    device : str or torch.device
        ``"auto"`` takes what the environment's ``BORROWED_DEVICE`` names, else CUDA, else Apple's MPS, else the CPU.

    Raises
    ------
    TrainingError
        If the device is not known or not present.
    """
    import torch

    device = (os.environ.get(DEVICE_VARIABLE) or device) if device == "auto" else device
    if device == "auto":
        return torch.device(
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    try:
        place = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise TrainingError(f"device {device!r} is not known: try 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'") from error
    count = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (place.index or 0) >= count.get(place.type, 0):
        raise TrainingError(f"device {device!r} is not present on this machine: use 'auto' or 'cpu'")
    return place


def seed_torch(seed: int) -> None:
    """Seed torch's global generators, of all devices."""
    import torch

    # Without an accelerator torch.manual_seed formats a stack trace at each call, for a device that may come later.
    (torch.manual_seed if torch.accelerator.is_available() else torch.default_generator.manual_seed)(int(seed))


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch (all devices)."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**32:
        raise TrainingError(f"seed {seed!r} is not a whole number from 0 to 2**32 - 1")
    random.seed(int(seed))
    np.random.seed(int(seed))  # noqa: NPY002  libraries that draw from the old global generator
    seed_torch(seed)
