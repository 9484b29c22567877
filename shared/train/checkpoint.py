"""Checkpoints and other files of weights: written in one step, read without running anything, recognised as one's own.

A checkpoint is one safetensors file; its header holds, as JSON, what the run goes on with and an identity: everything
that must be equal for the file to be of this run. Every kind of training writes and reads it here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from shared.train.saved import CURE, pack, replace_file, unpack
from shared.train.settings import TrainingError

FORMAT = "shared.train 3"


def save_checkpoint(path: str | Path, state: dict, identity: dict) -> None:
    """Write what a run needs to go on as if it had never stopped.

    Parameters
    ----------
    path : path
        File to write.
    state : dict
        Whatever :func:`shared.train.saved.pack` takes.
    identity : dict
        As :func:`plain` returns it.

    Raises
    ------
    TrainingError
        If the file cannot be written.
    """
    from safetensors.torch import save

    arrays = {}
    about = {"format": FORMAT, "identity": identity} | pack(state, "state", arrays)
    tensors = {k: torch.as_tensor(v).contiguous().clone() for k, v in arrays.items()}
    replace_file(path, save(tensors, {"about": json.dumps(about)}))


def read_checkpoint(path: str | Path, identity: dict) -> dict:
    """The state in a checkpoint; its tensors are on the CPU.

    Raises
    ------
    TrainingError
        If the file is damaged, no checkpoint, of another format, or of a run with another identity.
    """
    tensors, about = read_safetensors(path)
    if about.pop("format", None) != FORMAT:
        raise TrainingError(f"{path} is not a checkpoint of this version of shared.train: {CURE}")
    differ = list(differences(identity, about.pop("identity")))
    if differ:
        raise TrainingError(f"{path} is a checkpoint of another run, which differs in {', '.join(differ[:5])}: {CURE}")
    return unpack(about, tensors)


def plain(identity: dict) -> dict:
    """An identity as JSON gives it back, so that one of a run and one of a file can be compared."""
    return json.loads(json.dumps(identity, default=lambda v: v.item() if isinstance(v, np.generic) else repr(v)))


def differences(mine: dict, other: dict) -> Iterator[str]:
    """What differs between two identities, with both values where they are short."""
    for key in [k for k in {**mine, **other} if mine.get(k) != other.get(k)]:
        here, there = mine.get(key), other.get(key)
        both = f"{key} ({there!r} there, {here!r} here)"
        if key == "modules" and here and there:
            yield from differences(here, there)
        else:
            yield both if len(both) < 80 else key


def settings_of(net: torch.nn.Module) -> dict:
    """What a network does that its weights do not tell: settings of it and of the modules in it, by name.

    These are public attributes that are numbers or words; a module with ``about()`` says its settings itself, as a
    dict. ``chunk`` is how the work is cut, which may change on the way.
    """
    found, kinds = {}, (int, float, str, np.number, type(None))
    for name, module in net.named_modules():
        public = {k: v for k, v in vars(module).items() if not k.startswith("_") and k not in ("training", "chunk")}
        known = (
            module.about() if hasattr(module, "about") else {k: v for k, v in public.items() if isinstance(v, kinds)}
        )
        found |= {f"{name}.{k}" if name else k: v for k, v in {"class": type(module).__qualname__, **known}.items()}
    return found | {"the parameters that are trained": [k for k, p in net.named_parameters() if p.requires_grad]}


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
