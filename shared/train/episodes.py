"""The loop for learners of episodes: any network that can say how wrong it is about a few-shot task.

Every stretch of episodes starts its random numbers from (seed, episodes done), so that a run that was killed and
resumed draws what an uninterrupted one draws. Row numbers of a whole stretch are drawn at once and sent to the device
once; there the rows are gathered, and nothing is asked back until the stretch ends.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from shared.nn.episodes import EpisodeSampler
from shared.train.checkpoint import read_safetensors, replace_file
from shared.train.memory import LARGE, kept_memory
from shared.train.settings import History, TrainingError, resolve_device

STEP_ORDERS, PRECISIONS = ("standard", "original"), ("32", "bf16")
FORMAT = "shared.train.episodes 1"


@dataclasses.dataclass(frozen=True)
class MetaConfig:
    """How to train by episodes.

    Parameters
    ----------
    episodes : int
        In all. Paper and code: 300,000 on bulk, up to 50,000 or 100,000 on the target.
    lr : float
        Adam's. Paper and code: 5e-4 on bulk and on TCGA, 1e-4 on single cells.
    lr_step, lr_gamma : int or None, float
        Every `lr_step` episodes the rate is multiplied by `lr_gamma`. Paper and code halve it every 100,000 on bulk;
        the code every 1,500 on TCGA and every 10,000 on single cells, of which the paper does not speak.
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
    lr_step: int | None = None
    lr_gamma: float = 0.5
    meta_batch: int = 1
    step_order: str = "standard"
    log_every: int = 100
    stop_at: float | None = None
    seed: int = 0
    device: str = "auto"
    precision: str = "32"
    compile: bool | str = False
    progress: bool = False
    checkpoint: str | Path | None = None

    def __post_init__(self):
        for name in ("episodes", "lr_step", "meta_batch", "log_every", "seed"):
            value, least = getattr(self, name), int(name not in ("episodes", "seed"))
            if value is None and name == "lr_step":
                continue
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
                raise TrainingError(f"{name}={value!r} is not a whole number from {least} up")
        for name, (low, high) in {"lr": (0, math.inf), "lr_gamma": (0, math.inf), "stop_at": (-1, 2)}.items():
            value = getattr(self, name)
            if value is None and name == "stop_at":
                continue
            if not isinstance(value, (int, float, np.number)) or not low < value < high:
                raise TrainingError(f"{name}={value!r} is not a number above {low}")
        for name, known in {"step_order": STEP_ORDERS, "precision": PRECISIONS}.items():
            if getattr(self, name) not in known:
                raise TrainingError(f"{name}={getattr(self, name)!r} is not known: choose {', '.join(known)}")


class MetaHistory(History):
    """A :class:`shared.train.History` by episodes: rows hold ``episode``, ``loss``, ``accuracy`` and ``lr``.

    Loss and accuracy are means over the training episodes since the row before. ``stopped`` is ``"episodes"``,
    ``"accuracy"`` or ``"callback"``.
    """

    def frame(self):
        """The rows as a DataFrame, indexed by episode."""
        import pandas as pd

        return pd.DataFrame(self.rows).set_index("episode")


def meta_train(
    learner: torch.nn.Module,
    sampler: EpisodeSampler,
    settings: MetaConfig | None = None,
    callbacks: Sequence[Callable[[torch.nn.Module, dict], object]] = (),
) -> MetaHistory:
    """Train any learner of episodes, in place.

    Parameters
    ----------
    learner : torch.nn.Module
        Has ``loss(support, query, target)``, a scalar; or ``loss_and_scores``, which gives the scores (episodes ×
        queries × classes) of the same forward pass too, for the training accuracy. ``after_step()`` is called at the
        end of each step where there is one. Settings that are numbers or words among its attributes, and those of the
        modules in it, tell its checkpoints from another's; a module with ``about()`` says its settings itself, as a
        dict.
    sampler : EpisodeSampler
        Its own random numbers are left alone: episodes depend on ``settings.seed`` only.
    settings : MetaConfig, optional
        The defaults when left out.
    callbacks : sequence of callable
        ``callback(learner, row)`` at each row of the history, in evaluation mode. It may add numbers to the row; a true
        answer ends training.

    Returns
    -------
    MetaHistory

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
    learner.to(device)
    if not any(p.requires_grad for p in learner.parameters()):
        raise TrainingError("the learner has no parameter to train: is every requires_grad False?")
    if settings.stop_at is not None and not hasattr(learner, "loss_and_scores"):
        raise TrainingError(
            "stop_at needs the training accuracy: give the learner loss_and_scores, or set stop_at=None"
        )
    rows = settings.meta_batch * sampler.n_way * (sampler.k_shot + sampler.n_query)
    largest = max(rows * sampler.X.shape[1], *(p.numel() for p in learner.parameters()))
    large = device.type == "cpu" and 4 * largest >= LARGE
    with torch.random.fork_rng([device] if device.type == "cuda" else []), kept_memory(large):
        return _MetaRun(learner, sampler.to(device), settings, device).go(callbacks)


class _MetaRun:
    """The state of one run: everything a checkpoint holds, and the steps that change it."""

    def __init__(self, learner, sampler, settings, device):
        self.learner, self.sampler, self.settings, self.device = learner, sampler, settings, device
        self.history = MetaHistory()
        self.parameters = [p for p in learner.parameters() if p.requires_grad]
        # The code has one Adam for each network, with equal settings: a parameter cannot tell.
        self.optimizer = torch.optim.Adam(self.parameters, lr=settings.lr, fused=device.type in ("cpu", "cuda"))
        ask = getattr(learner, "loss_and_scores", self._loss_then_scores)
        mode = settings.compile if isinstance(settings.compile, str) else None
        self.ask = torch.compile(ask, mode=mode) if settings.compile else ask
        self.path = None if settings.checkpoint is None else Path(settings.checkpoint)

    def _loss_then_scores(self, support, query, target):
        return self.learner.loss(support, query, target), None

    def go(self, callbacks):
        settings, history, began = self.settings, self.history, time.perf_counter()
        if self.path is not None:
            self.identity = self._identity()  # before a callback touches the learner
            if self.path.exists():
                self.restore()
        before, done = history.seconds, history.rows[-1]["episode"] if history.rows else 0
        with _bar(settings, done) as bar:
            while done < settings.episodes and history.stopped in ("", "episodes"):
                n = min(settings.log_every, settings.episodes - done)
                row = self.stretch(done, n)
                done = row["episode"]
                self.learner.eval()
                asked = [bool(callback(self.learner, row)) for callback in callbacks]
                history.rows.append(row)
                history.seconds = before + time.perf_counter() - began
                history.stopped = self.reason(any(asked), row)
                if self.path is not None:
                    self.save()
                if bar is not None:
                    bar.set_postfix({k: f"{v:.4g}" for k, v in row.items() if k != "episode"}, refresh=False)
                    bar.update(n)
        self.optimizer.zero_grad(set_to_none=True)
        self.learner.eval()
        return history

    def reason(self, asked, row):
        """Why training ends after this row, or the empty string."""
        stop = self.settings.stop_at
        if asked:
            return "callback"
        if stop is not None and row["accuracy"] > stop:
            return "accuracy"
        return "episodes" if row["episode"] >= self.settings.episodes else ""

    def stretch(self, done, n):
        """Train on `n` episodes after the first `done`; returns a row of the history."""
        settings, learner = self.settings, self.learner
        torch.manual_seed(int(np.random.SeedSequence((settings.seed, done)).generate_state(1)[0]))
        episodes = self.sampler.stretch(n, settings.seed, done)  # row numbers of all of them, sent once
        steps = range(0, n, settings.meta_batch)
        losses = torch.zeros(len(steps), device=self.device)
        right = torch.zeros(len(steps), device=self.device)
        learner.train()
        for i, start in enumerate(steps):
            lr = self.set_lr(done + start)
            if settings.step_order == "original":
                self.step()
            batch = self.sampler.gather(*(part[start : start + settings.meta_batch] for part in episodes))
            with torch.autocast(self.device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
                loss, scores = self.ask(*batch)
            # Asking an accelerator for a number makes it wait.
            if self.device.type == "cpu" and not math.isfinite(float(loss.detach())):
                raise self.not_finite(loss, done + start, lr)
            loss.backward()
            if settings.step_order == "standard":
                self.step()
            getattr(learner, "after_step", _nothing)()
            losses[i] = loss.detach()
            if scores is None:
                right[i] = math.nan
            else:
                right[i] = (scores.detach().argmax(2) == batch.target).float().mean()
        if not torch.isfinite(losses).all():
            raise self.not_finite(losses[~torch.isfinite(losses)][0], done, lr)
        sizes = torch.full((len(steps),), float(settings.meta_batch), device=self.device)
        sizes[-1] = n - steps[-1]
        row = {"episode": done + n, "loss": float((losses * sizes).sum() / n)}
        return row | {"accuracy": float((right * sizes).sum() / n), "lr": lr}

    def step(self):
        """One step of Adam by the gradients that are there, which are then let go: they take as much as the weights."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def set_lr(self, done):
        step, lr = self.settings.lr_step, self.settings.lr
        lr = lr if step is None else lr * self.settings.lr_gamma ** (done // step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        return lr

    def not_finite(self, value, done, lr):
        return TrainingError(
            f"the loss is {float(value.detach())} after {done} episodes, lr {lr:.3g}: lower lr, or "
            "scale the data first (shared.nn.episodes.unit_range)"
        )

    # Checkpoints.

    def _identity(self):
        """What must be equal for a checkpoint to be this run's; the number of episodes may grow."""
        fields = dataclasses.asdict(self.settings)
        for name in ("episodes", "device", "compile", "progress", "checkpoint", "stop_at"):
            del fields[name]
        shapes = {k: [str(v.dtype), *v.shape] for k, v in self.learner.state_dict().items()}
        about = {"network": shapes, "learner": settings_of(self.learner), "data": self.sampler.digest()}
        return json.loads(json.dumps(fields | about, default=float))

    def save(self):
        """Weights, what Adam remembers, a gradient not yet used (the original order keeps one), and the history."""
        from safetensors.torch import save

        tensors = {f"learner/{k}": v for k, v in self.learner.state_dict().items()}
        tensors |= {f"gradient/{i}": p.grad for i, p in enumerate(self.parameters) if p.grad is not None}
        state = self.optimizer.state_dict()["state"]
        tensors |= {f"adam/{i}/{k}": v for i, s in state.items() for k, v in s.items()}
        tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
        about = {"format": FORMAT, "identity": self.identity, "history": dataclasses.asdict(self.history)}
        replace_file(self.path, save(tensors, {"about": json.dumps(about, default=float)}))

    def restore(self):
        """Put the run where its checkpoint left it, after making sure that the checkpoint is its own."""
        tensors, about = read_safetensors(self.path)
        cure = "delete the file to start anew, or choose another checkpoint path"
        if about.get("format") != FORMAT:
            raise TrainingError(f"{self.path} is not a checkpoint of training by episodes: {cure}")
        mine, other = self.identity, about["identity"]
        differ = [k for k in mine if mine[k] != other.get(k)]
        if differ:
            said = ", ".join(
                _differences(mine["learner"], other.get("learner")) if k == "learner" else k for k in differ
            )
            raise TrainingError(f"{self.path} is a checkpoint of another run, which differs in {said}: {cure}")
        done = about["history"]["rows"][-1]["episode"]
        if done > self.settings.episodes or (done < self.settings.episodes and done % self.settings.log_every):
            raise TrainingError(
                f"{self.path} ends after {done} episodes and episodes={self.settings.episodes}: a run goes on from a "
                f"multiple of log_every={self.settings.log_every} to more; {cure}"
            )
        parts = {"learner": {}, "gradient": {}, "adam": {}}
        for name, value in tensors.items():
            part, _, rest = name.partition("/")
            parts[part][rest] = value
        self.learner.load_state_dict(parts["learner"])
        for i, value in parts["gradient"].items():
            self.parameters[int(i)].grad = value.to(self.device)
        state: dict[int, dict] = {}
        for name, value in parts["adam"].items():
            i, _, key = name.partition("/")
            state.setdefault(int(i), {})[key] = value
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})
        self.history.__dict__.update(about["history"])


def settings_of(learner: torch.nn.Module) -> dict:
    """What a learner does that its weights do not tell: settings of it and of the modules in it, by name."""
    found = {}
    for name, module in learner.named_modules():
        about = module.about() if hasattr(module, "about") else _scalars(module)
        about = {"class": type(module).__qualname__} | about
        found |= {f"{name}.{k}" if name else k: v for k, v in about.items()}
    trained = [name for name, p in learner.named_parameters() if p.requires_grad]
    plain = lambda value: value.item() if isinstance(value, np.generic) else repr(value)  # noqa: E731
    return json.loads(json.dumps(found | {"trained": trained}, default=plain))


def _scalars(module):
    """Public attributes that are numbers or words; ``chunk`` is how the work is cut, which may change on the way."""
    kinds = (int, float, str, np.number, type(None))
    named = ((k, v) for k, v in vars(module).items() if not k.startswith("_") and k not in ("training", "chunk"))
    return {k: v for k, v in named if isinstance(v, kinds)}


def _differences(mine, other):
    """Which settings of the learner differ, the first of many."""
    if other is None:
        return "learner"
    keys = [k for k in {**mine, **other} if mine.get(k) != other.get(k)]
    said = [f"{k} ({other.get(k)!r} there, {mine.get(k)!r} here)" for k in keys if k != "trained"]
    return ", ".join([*said, *(["the parameters that are trained"] if "trained" in keys else [])][:3])


def _nothing():
    pass


@contextlib.contextmanager
def _bar(settings, done):
    if not settings.progress:
        yield None
        return
    from tqdm import tqdm

    with tqdm(total=settings.episodes, initial=done, unit="episode", desc="meta-training") as bar:
        yield bar
