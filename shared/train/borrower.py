"""A pre-trained encoder and the network that was tuned on it, as two saved models in one folder.

The encoder takes genes by name, so it is loaded as it is; the tuned network reads its own genes in their order, and no
others.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from shared.data.genes import names_of
from shared.train.saved import load_model, save_model
from shared.train.settings import TrainingError


def save_borrower(model, folder: str | Path, genes: Sequence[str] | None = None) -> Path:
    """What :meth:`shared.methods.scpretrain.ScPretrain.save` does, for a model with its attributes."""
    folder, settings = Path(folder), model.get_params() | {"device": "auto", "checkpoint": None}
    if not isinstance(model.random_state, (int, type(None))):
        settings["random_state"] = None
    settings = json.loads(json.dumps(settings, default=list))
    if hasattr(model, "pretrained_"):
        p = model.pretrained_
        state = {k: torch.from_numpy(p[k]) for k in ("weight", "bias")}
        save_model(folder / "encoder", state, {"settings": settings, "history": p["history"]}, p["genes"])
    if hasattr(model, "network_"):
        names = model.genes_in_ if genes is None else names_of(genes)
        if names is None or len(names) != model.n_features_in_:
            found = "none" if names is None else len(names)
            raise TrainingError(f"the network reads {model.n_features_in_} genes, {found} were named: pass genes=")
        about = {"settings": settings, "classes": model.classes_.tolist(), "kind": model.classes_.dtype.kind}
        about["shared"] = np.flatnonzero(model.shared_).tolist()
        save_model(folder / "classifier", model.network_.state_dict(), about, names)
    if not hasattr(model, "pretrained_") and not hasattr(model, "network_"):
        raise TrainingError("there is nothing to save: call pretrain or fit first")
    return folder


def load_borrower(kind: type, folder: str | Path, genes: Sequence[str] | None = None):
    """A model of this kind with what :func:`save_borrower` wrote; without `genes` the encoder alone."""
    folder, model = Path(folder), None
    if (folder / "encoder").is_dir():
        path = folder / "encoder" / "genes.txt"
        own = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        state, about = load_model(folder / "encoder", own)
        model = _set_up(kind, about["settings"])
        model.pretrained_ = {k: v.numpy() for k, v in state.items()}
        model.pretrained_ |= {"genes": own, "history": about["history"], "labels": [], "inertia": [], "seconds": []}
    if genes is not None or model is None:
        genes = names_of(genes or [])
        state, about = load_model(folder / "classifier", genes)
        model = model or _set_up(kind, about["settings"])
        model.classes_ = np.array(about["classes"], dtype=object if about["kind"] == "O" else None)
        model.n_features_in_, model.genes_in_ = len(genes), genes
        model.shared_ = np.isin(np.arange(len(genes)), about["shared"])
        model.network_ = model._network().eval()
        model.network_.load_state_dict(state)
    return model


def _set_up(kind, settings):
    return kind(**settings | {"cells_per_cluster": tuple(settings["cells_per_cluster"])})
