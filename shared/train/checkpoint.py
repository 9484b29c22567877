"""Files of weights: written in one step, read without running anything, recognised as one's own."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from pathlib import Path

import torch

from shared.train.settings import TrainingError

FORMAT = "shared.train 1"


def identity(run):
    """What must be equal for a checkpoint to be this run's; the number of epochs may grow under a constant rate."""
    fields = dataclasses.asdict(run.config)
    for name in ("device", "devices", "progress", "checkpoint", "checkpoint_every", "max_seconds"):
        del fields[name]
    if run.config.schedule == "constant":
        del fields["epochs"]
    shapes = {k: [str(v.dtype), *v.shape] for k, v in run.model.state_dict().items()}
    rows = {"data": run.data.digest(), "val": run.judge and run.judge.digest()}
    return json.loads(json.dumps(fields | {"network": shapes} | rows, default=float))


def save(run):
    """Write everything the run needs to go on as if it had never stopped."""
    from safetensors.torch import save

    state = run.optimizer.state_dict()["state"]
    tensors = {f"model/{k}": v for k, v in run.model.state_dict().items()}
    tensors |= {f"best/{k}": v for k, v in run.best.items()}
    tensors |= {f"optimizer/{i}/{k}": v for i, s in state.items() for k, v in s.items() if torch.is_tensor(v)}
    about = {
        "format": FORMAT,
        "identity": identity(run),
        "history": dataclasses.asdict(run.history),
        "best_loss": run.best_loss,
        "scaler": run.scaler.state_dict(),
    }
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    replace_file(run.path, save(tensors, {"about": json.dumps(about, default=float)}))


def restore(run):
    """Put the run where its checkpoint left it, after making sure that the checkpoint is its own."""
    tensors, about = read_safetensors(run.path)
    cure = "delete the file to start anew, or choose another checkpoint path"
    if about.get("format") != FORMAT:
        raise TrainingError(f"{run.path} is not a checkpoint of this training loop: {cure}")
    mine, other = identity(run), about["identity"]
    differ = [k for k in mine if mine[k] != other.get(k)] + sorted(other.keys() - mine.keys())
    if differ:
        said = ", ".join(
            f"{k} ({other.get(k)} there, {mine.get(k)} here)" if k in vars(run.config) else k for k in differ
        )
        raise TrainingError(f"{run.path} is a checkpoint of another run, which differs in {said}: {cure}")
    done = len(about["history"]["rows"])
    if done > run.config.epochs:
        raise TrainingError(f"{run.path} holds {done} epochs and epochs={run.config.epochs} asks for fewer: {cure}")
    parts = {"model": {}, "best": {}, "optimizer": {}}
    for name, value in tensors.items():
        part, _, rest = name.partition("/")
        parts[part][rest] = value
    state: dict[int, dict] = {}
    for name, value in parts["optimizer"].items():
        i, _, key = name.partition("/")
        state.setdefault(int(i), {})[key] = value
    run.model.load_state_dict(parts["model"])
    groups = run.optimizer.state_dict()["param_groups"]
    run.optimizer.load_state_dict({"state": state, "param_groups": groups})
    run.best = {k: v.to(run.device) for k, v in parts["best"].items()}
    run.history.__dict__.update(about["history"])
    run.best_loss = about["best_loss"]
    if run.scaler.is_enabled():
        run.scaler.load_state_dict(about["scaler"])


def replace_file(path: str | Path, content: bytes) -> None:
    """Write `content` to `path` in one step: a reader, or a crash, finds the old file or the new one, never half.

    Raises
    ------
    TrainingError
        If it cannot be written, as when the disk is full. The old file is left whole.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.writing")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(beside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        kept = "the one saved before is whole" if path.is_file() else "nothing was saved"
        raise TrainingError(
            f"cannot write {path} ({error.strerror or error}); {kept}. Free space, run again"
        ) from error


def read_safetensors(path: str | Path) -> tuple[dict[str, torch.Tensor], dict]:
    """The tensors of a safetensors file, and the JSON under ``about`` in its header (empty where there is none).

    Raises
    ------
    TrainingError
        If the file is missing, damaged or of another format.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get("about", "{}"))
            return {k: file.get_tensor(k) for k in file.keys()}, about  # noqa: SIM118
    except FileNotFoundError as error:
        raise TrainingError(f"there is no file {path}") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise TrainingError(f"{path} is damaged or no safetensors file ({error}): delete it to start anew") from error
