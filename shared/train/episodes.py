"""Training by episodes: a thin layer on the training loop, for any network whose loss is that of a few-shot task.

What the loop calls an epoch is here one row of the history, a stretch of ``log_every`` episodes. Every stretch starts
its random numbers from (seed, episodes done), so that a run that was killed and resumed draws what an uninterrupted one
draws. Row numbers of a whole stretch are drawn at once and sent to the device once; there the rows are gathered, and
nothing is asked back until the stretch ends.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable, Sequence

import torch

from shared.data.constraints import Between, Maybe, OneOf, Whole
from shared.nn.episodes import EpisodeSampler
from shared.train.batches import Batches, seed_of
from shared.train.loop import fit
from shared.train.settings import Common, Config, History, TrainingError, resolve_device, seed_torch


@dataclasses.dataclass(frozen=True, kw_only=True)
class MetaConfig(Common):
    """How to train by episodes.

    Parameters
    ----------
    episodes : int
        In all. Paper and code: 300,000 on bulk, up to 50,000 or 100,000 on the target.
    lr : float
        Adam's. Paper and code: 5e-4 on bulk and on TCGA, 1e-4 on single cells.
    lr_step, lr_gamma : int or None, float
        Every `lr_step` episodes the learning rate is multiplied by `lr_gamma`. Paper and code halve it every 100,000 on
        bulk; the code every 1,500 on TCGA and every 10,000 on single cells, of which the paper does not speak.
    meta_batch : int
        Episodes a step; the loss is their mean. Paper and code: 1. More cost little more where the weights are many,
        because moving the weights is most of the work.
    step_order : {"standard", "original"}
        The code steps first, by the gradient of the episode before, and clamps last: the last gradient is never used,
        and every forward pass sees weights that have moved since they were clamped. The default is the textbook's.
    log_every : int
        Episodes between two rows of the history; 2,500 in the code.
    stop_at : float, optional
        Stop when the mean training accuracy since the last row is above this; 0.99 in paper and code, in fine-tuning.
    seed : int
        Which episodes, and whatever the learner draws.
    device : str
        See :func:`shared.train.resolve_device`. The sampler's table is moved there too.
    devices : int
        1: an episode's loss is no mean over rows that processes could share, and more are refused.
    precision : {"32", "bf16"}
        Of the forward pass; weights and Adam stay float32.
    compile : bool or str
        Pass the learner through ``torch.compile``; a string names its mode, such as ``"reduce-overhead"``.
    progress : bool
        Show a bar.
    checkpoint : path, optional
        File to save to, at rows of the history, and to resume from.
    """

    episodes: int = 1000
    lr: float = 5e-4
    meta_batch: int = 1
    log_every: int = 100
    stop_at: float | None = None
    compile: bool | str = False

    constraints = Common.constraints | {
        "precision": OneOf("32", "bf16"),
        "episodes": Whole(),
        **dict.fromkeys(("meta_batch", "log_every"), Whole(1)),
        "stop_at": Maybe(Between(-1, 2)),  # an accuracy; above 1 it never stops
    }

    def config(self) -> Config:
        """The same for the loop, whose epochs are rows of the history."""
        same = {field.name: getattr(self, field.name) for field in dataclasses.fields(Common)}
        return Config(epochs=max(1, -(-self.episodes // self.log_every)), optimizer="adam", **same)


def meta_train(
    learner: torch.nn.Module,
    sampler: EpisodeSampler,
    settings: MetaConfig | None = None,
    callbacks: Sequence[Callable[[torch.nn.Module, dict], object]] = (),
) -> History:
    """Train any learner of episodes, in place.

    Parameters
    ----------
    learner : torch.nn.Module
        Has ``loss(support, query, target)``, a scalar; or ``loss_and_scores``, which gives the scores (episodes ×
        queries × classes) of the same forward pass too, for the training accuracy. ``project_weights()`` is called
        at the end of each step where there is one. Settings that are numbers or words among its attributes, and those
        of the modules in it, tell its checkpoints from another's; a module with ``about()`` says its settings itself,
        as a dict.
    sampler : EpisodeSampler
        Its own random numbers are left alone: episodes depend on ``settings.seed`` only.
    settings : MetaConfig, optional
        The defaults when left out.
    callbacks : sequence of callable
        ``callback(learner, row)`` at each row of the history, in evaluation mode. It may add numbers to the row; a true
        answer ends training.

    Returns
    -------
    shared.train.History
        By episodes: rows hold ``episode``, ``loss``, ``accuracy`` and ``lr``. Loss and accuracy are means over the
        training episodes since the row before. ``stopped`` is ``"episodes"``, ``"accuracy"`` or ``"callback"``;
        ``best_epoch`` is the number of the row with the lowest loss.

    Raises
    ------
    TrainingError
        If a setting cannot be used, the loss is not finite, or a checkpoint is of another run.

    Notes
    -----
    On the CPU one seed and one number of threads give the same bytes every time, resumed or not. The learner is left
    on the device in evaluation mode. On an accelerator nothing is asked of it between two rows of the history.
    """
    settings = MetaConfig() if settings is None else settings
    device = resolve_device(settings.device)
    if settings.stop_at is not None and not hasattr(learner, "loss_and_scores"):
        raise TrainingError(
            "stop_at needs the training accuracy: give the learner loss_and_scores, or set stop_at=None"
        )
    if not settings.episodes:
        learner.to(device).eval()
        return History()
    ask = getattr(learner, "loss_and_scores", lambda *batch: (learner.loss(*batch), None))
    if settings.compile:
        ask = torch.compile(ask, mode=settings.compile if isinstance(settings.compile, str) else None)

    def step(_, support, query, target):
        loss, scores = ask(support, query, target)
        right = math.nan if scores is None else (scores.detach().argmax(2) == target).float().mean()
        return loss, {"accuracy": right}

    def enough(_, row):
        return "accuracy" if settings.stop_at is not None and row["accuracy"] > settings.stop_at else ""

    project, batches = getattr(type(learner), "project_weights", None), _Episodes(sampler.to(device), settings)
    return fit(learner, step, batches, settings.config(), callbacks=[*callbacks, enough], project_weights=project)


class _Episodes(Batches):
    """The episodes of a run; an epoch is a stretch of ``log_every``."""

    unit, label = "episode", "meta-training"
    cure = "lower lr, or scale the data first (shared.nn.episodes.unit_range)"
    look = sys.maxsize  # an accelerator is asked for nothing within a stretch

    def __init__(self, sampler, settings):
        self.sampler, self.settings = sampler, settings
        rows = settings.meta_batch * sampler.n_way * (sampler.k_shot + sampler.n_query)
        self.entries = rows * sampler.X.shape[1]

    def __call__(self, epoch):
        done, seed, size = self.done(epoch), self.settings.seed, self.settings.meta_batch
        seed_torch(seed_of(seed, done))  # by episodes, so that it does not depend on how many a row has
        drawn = self.sampler.stretch(sum(self.sizes(epoch)), seed, done)  # row numbers of all of them, sent once
        for parts in zip(*(part.split(size) for part in drawn), strict=True):
            yield self.sampler.gather(*parts)

    def sizes(self, epoch):
        n, size = self.done(epoch + 1) - self.done(epoch), self.settings.meta_batch
        return [min(size, n - start) for start in range(0, n, size)]

    def done(self, epoch, i=0):
        settings = self.settings
        return min(settings.episodes, (epoch - 1) * settings.log_every + i * settings.meta_batch)

    def place(self, epoch, i):
        return f"after {self.done(epoch, i)} episodes"

    def about(self):
        return {
            "meta_batch": self.settings.meta_batch,
            "log_every": self.settings.log_every,
            "data": self.sampler.digest(),
        }

    def refusal(self, rows, epochs):
        done, settings = rows[-1]["episode"], self.settings
        if len(rows) <= epochs and done == self.done(len(rows) + 1):
            return ""
        return (
            f"ends after {done} episodes and episodes={settings.episodes}: a run goes on from a multiple of "
            f"log_every={settings.log_every} to more"
        )
