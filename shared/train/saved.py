"""A trained model as a folder: arrays, configuration and the ordered list of its genes, bound together by hashes.

Nothing here loads torch or Keras, and nothing is unpickled: arrays are safetensors, the rest is JSON. :func:`pack`
takes apart what a fitted estimator holds, :func:`unpack` puts it together again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy import sparse

from shared.data.cells import difference
from shared.data.genes.lists import UNWRITABLE, gene_hash
from shared.train.settings import TrainingError

FORMAT = "shared.model 3"
CURE = "delete the file to start anew, or choose another checkpoint path"


class ModelError(ValueError):
    """A saved model cannot be written or read; the message names the problem and the cure."""


def save_model(folder: str | Path, arrays: Mapping[str, np.ndarray], config: dict, genes: Sequence[str]) -> Path:
    """Save a model so that it can only be loaded on the genes it was trained on.

    Parameters
    ----------
    folder : path
        Receives ``model.safetensors``, ``genes.txt`` (one a line, in order) and ``config.json``.
    arrays : mapping of str to ndarray
        Numbers and booleans of any shape.
    config : dict
        Anything JSON can hold.
    genes : sequence of str
        Names of the input genes, in the order of the columns.

    Raises
    ------
    ModelError
        If `genes` are empty, repeated or hold a line break.
    TrainingError
        If a file cannot be written.
    """
    from safetensors.numpy import save

    folder, genes = Path(folder), [str(g) for g in genes]
    if not genes or len(set(genes)) < len(genes) or any(map(UNWRITABLE.search, genes)):
        raise ModelError("genes must be a list of different names without line breaks: make them unique first")
    weights = save({k: np.asarray(v, order="C") for k, v in arrays.items()})
    hashes = {"weights_sha256": hashlib.sha256(weights).hexdigest(), "genes_sha256": gene_hash(genes)}
    about = json.dumps({"format": FORMAT} | hashes | {"config": config}, indent=1).encode()
    # The configuration last, with the hashes of the others: a folder half replaced is never taken for a whole one.
    parts = {"model.safetensors": weights, "genes.txt": "".join(f"{g}\n" for g in genes).encode(), "config.json": about}
    replace_files({folder / name: content for name, content in parts.items()})
    return folder


def load_model(folder: str | Path, genes: Sequence[str] | None = None) -> tuple[dict[str, np.ndarray], dict, list[str]]:
    """Arrays, configuration and genes saved by :func:`save_model`.

    Parameters
    ----------
    folder : path
        A saved model.
    genes : sequence of str, optional
        Columns of the data the model is wanted for; they must be the model's, in the model's order.

    Raises
    ------
    ModelError
        If files are missing or damaged or of an older layout, or if `genes` are not the model's.
    """
    from safetensors.numpy import load

    folder = Path(folder)
    try:
        about = json.loads((folder / "config.json").read_bytes())
        weights = (folder / "model.safetensors").read_bytes()
        theirs = (folder / "genes.txt").read_bytes().decode().splitlines()
        found = {"weights_sha256": hashlib.sha256(weights).hexdigest(), "genes_sha256": gene_hash(theirs)}
    except (FileNotFoundError, NotADirectoryError) as error:
        older = folder.is_dir() and any((folder / part).is_dir() for part in ("encoder", "classifier"))
        raise ModelError(
            _older(folder) if older else f"{folder} is no saved model: {error.filename} is missing"
        ) from error
    except ValueError as error:
        raise ModelError(f"{folder} is damaged ({error}): save the model again") from error
    if isinstance(about, dict) and "config" in about and about.get("format") != FORMAT:
        raise ModelError(_older(folder))
    for name, value in found.items():
        if not isinstance(about, dict) or about.get(name) != value:
            raise ModelError(f"{folder} is damaged: {name} is not what config.json says; save the model again")
    genes = theirs if genes is None else [str(g) for g in genes]
    if genes != theirs:
        raise ModelError(
            f"the model in {folder} was trained on {len(theirs)} other genes ({difference(theirs, genes)}): "
            "align the data first with shared.preprocess.align_genes"
        )
    return load(weights), about["config"], theirs


def _older(folder):
    return f"{folder} was saved by an older version, whose layout is no longer read: fit the model again and save it"


def pack(value, path: str, arrays: dict, genes: Sequence[str] | None = None):
    """`value` as JSON can hold it; arrays in it are put into `arrays` under names that begin with `path`.

    Numbers, words, None, lists, tuples, dicts, arrays, CSR, torch tensors and modules, and dataclasses of this
    package. Lists equal to `genes` are replaced by a mark.

    Raises
    ------
    ModelError
        If something else is met.
    """
    again = lambda part, name: pack(part, f"{path}/{name}", arrays, genes)  # noqa: E731
    named = lambda words: genes is not None and words == list(genes)  # noqa: E731
    match value:
        case None | bool() | int() | float() | str():
            return value
        case _ if hasattr(value, "indptr"):
            return {"@csr": again([value.data, value.indices, value.indptr], "parts"), "shape": list(value.shape)}
        case np.generic():
            return {"@scalar": again(np.asarray(value), "0")}
        case np.ndarray() if value.dtype.kind in "biuf":
            arrays[path] = value
            # Products of a matrix stored by columns differ in the last digit from those of its copy by rows.
            return {"@array": path, "order": "F" if value.flags.f_contiguous else "C"}
        case np.ndarray():
            words = value.tolist()
            return {"@words": "@genes" if named(words) else words, "dtype": value.dtype.str}
        case list():
            words = all(isinstance(v, str) for v in value)
            return {"@genes": True} if words and named(value) else [again(v, i) for i, v in enumerate(value)]
        case tuple():
            return {"@tuple": [again(v, i) for i, v in enumerate(value)]}
        case Mapping() if all(isinstance(k, str) and not k.startswith("@") for k in value):
            return {k: again(v, k) for k, v in value.items()}
        case Mapping():
            return {"@pairs": [again(list(pair), i) for i, pair in enumerate(value.items())]}
        case _ if hasattr(value, "state_dict"):
            return {"@module": again(dict(value.state_dict()), "state")}
        case _ if hasattr(value, "detach"):
            arrays[path] = value.detach().cpu()
            return {"@tensor": path}
    kind = type(value)
    if dataclasses.is_dataclass(value) and kind.__module__.startswith("shared.") and not hasattr(value, "get_params"):
        return {"@dataclass": f"{kind.__module__}:{kind.__qualname__}", "fields": again(vars(value), "fields")}
    raise ModelError(f"{path} is a {kind.__name__}, which cannot be saved: keep arrays, numbers, words, lists or dicts")


def unpack(value, arrays: Mapping, genes: Sequence[str] | None = None):
    """What :func:`pack` took apart; a module comes back as its state, a dict of tensors under ``"@module"``."""
    again = lambda part: unpack(part, arrays, genes)  # noqa: E731
    match value:
        case list():
            return [again(v) for v in value]
        case {"@module": state}:
            return {"@module": again(state)}
        case {"@tensor": path}:
            import torch

            # A copy, in memory aligned as torch likes it: products in unaligned memory differ in the last digit.
            return torch.as_tensor(arrays[path]).clone()
        case {"@array": path, "order": order}:
            return np.array(arrays[path], order=order)
        case {"@csr": parts, "shape": shape}:
            return sparse.csr_matrix(tuple(again(parts)), shape=shape)
        case {"@pairs": pairs}:
            return dict(again(pairs))
        case {"@scalar": array}:
            return again(array)[()]
        case {"@words": words, "dtype": dtype}:
            return np.array(list(genes) if words == "@genes" else words, dtype=dtype)
        case {"@genes": _}:
            return list(genes)
        case {"@tuple": parts}:
            return tuple(map(again, parts))
        case {"@dataclass": kind, "fields": fields}:
            module, _, name = kind.partition(":")
            known = getattr(importlib.import_module(module), name, None) if module.startswith("shared.") else None
            if not dataclasses.is_dataclass(known):
                raise ModelError(
                    f"the saved model names {kind!r}, which is no data class of this package: save it again"
                )
            made = object.__new__(known)
            vars(made).update(again(fields))
            return made
        case dict():
            return {k: again(v) for k, v in value.items()}
    return value


def replace_file(path: str | Path, content: bytes) -> None:
    """Write `content` to `path` in one step: a reader, or a crash, finds the old file or the new one, never half.

    Raises
    ------
    TrainingError
        If it cannot be written, as when the disk is full. The old file is left whole.
    """
    replace_files({Path(path): content})


def replace_files(contents: Mapping[Path, bytes]) -> None:
    """As :func:`replace_file`, for several files: all are written before the first is replaced."""
    beside = {path: path.with_name(f".{path.name}.writing") for path in contents}
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(beside[path], "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for path in contents:
            os.replace(beside[path], path)
    except OSError as error:
        for draft in beside.values():
            with contextlib.suppress(OSError):
                draft.unlink()
        kept = "the one saved before is whole" if path.is_file() else "nothing was saved"
        raise TrainingError(
            f"cannot write {path} ({error.strerror or error}); {kept}. Free space, run again"
        ) from error
