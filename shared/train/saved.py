"""A trained model as a folder: weights, configuration and the ordered list of its genes, bound together by hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from shared.data.genes import gene_hash
from shared.train.checkpoint import read_safetensors, replace_file
from shared.train.settings import TrainingError


def save_model(folder: str | Path, state: Mapping[str, torch.Tensor], config: dict, genes: Iterable[str]) -> Path:
    """Save a model so that it can only be loaded on the genes it was trained on.

    Parameters
    ----------
    folder : path
        Receives ``model.safetensors``, ``genes.txt`` (one a line, in order) and ``config.json``.
    state : mapping of str to tensor
        As ``module.state_dict()`` returns it.
    config : dict
        What rebuilds the network; anything JSON can hold.
    genes : iterable of str
        Names of the input genes, in the order of the columns.

    Raises
    ------
    TrainingError
        If a file cannot be written, or `genes` are empty, repeated or hold a line break.
    """
    from safetensors.torch import save

    folder, genes = Path(folder), [str(g) for g in genes]
    if not genes or len(set(genes)) < len(genes) or any("\n" in g or "\r" in g for g in genes):
        raise TrainingError("genes must be a list of different names without line breaks: make them unique first")
    weights = save({k: v.detach().cpu().contiguous().clone() for k, v in state.items()})
    about = {"weights_sha256": _sha256(weights), "genes_sha256": gene_hash(genes), "config": config}
    replace_file(folder / "model.safetensors", weights)
    replace_file(folder / "genes.txt", _text(genes))
    # Last, with the hashes of the others: a folder half written is never taken for a whole one.
    replace_file(folder / "config.json", json.dumps(about, indent=1).encode())
    return folder


def load_model(folder: str | Path, genes: Iterable[str]) -> tuple[dict[str, torch.Tensor], dict]:
    """Weights and configuration saved by :func:`save_model`, for data whose columns are `genes`.

    Raises
    ------
    TrainingError
        If files are missing or damaged, or if `genes` are not the model's, in the model's order.
    """
    folder, genes = Path(folder), [str(g) for g in genes]
    try:
        about = json.loads((folder / "config.json").read_bytes())
        theirs = (folder / "genes.txt").read_bytes().decode().splitlines()
        found = {
            "weights_sha256": _sha256((folder / "model.safetensors").read_bytes()),
            "genes_sha256": gene_hash(theirs),
        }
    except FileNotFoundError as error:
        raise TrainingError(f"{folder} is no saved model: {error.filename} is missing") from error
    except ValueError as error:
        raise TrainingError(f"{folder} is damaged ({error}): save the model again") from error
    for name, value in found.items():
        if not isinstance(about, dict) or about.get(name) != value:
            raise TrainingError(f"{folder} is damaged: {name} is not what config.json says; save the model again")
    if genes != theirs:
        missing, extra = len(set(theirs) - set(genes)), len(set(genes) - set(theirs))
        how = f"{missing} are missing and {extra} are new to it" if missing or extra else "they are in another order"
        raise TrainingError(
            f"the model in {folder} was trained on {len(theirs)} other genes ({how}): "
            "align the data first with shared.preprocess.align_genes"
        )
    return read_safetensors(folder / "model.safetensors")[0], about["config"]


def _text(genes):
    return "".join(f"{g}\n" for g in genes).encode()


def _sha256(content):
    return hashlib.sha256(content).hexdigest()
