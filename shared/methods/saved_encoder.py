"""A pre-trained or tuned encoder as a folder, and back: weights, scales, settings and the ordered list of genes.

Only these two functions need torch, and it is loaded when one is called: a process that only trains in Keras does
without.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from shared.nn.keras_net import Scale

SCALES = ("scale_", "adapted_", "tuned_scale_")


def save_encoder(model, folder: str | Path, genes: Sequence[str] | None = None) -> Path:
    """Save an ``AutoencoderClassifier`` or ``AutoencoderRegressor``; their method ``save`` says what is refused."""
    import torch

    from shared.train import TrainingError, save_model

    genes = getattr(model, "feature_names_in_", None) if genes is None else list(genes)
    if genes is None or len(genes) != model.n_features_in_:
        found = "none" if genes is None else len(genes)
        raise TrainingError(f"the network reads {model.n_features_in_} genes, {found} were named: pass genes=")
    settings = model.get_params(deep=False) | {"hidden": list(model.hidden)}
    if not isinstance(model.random_state, (int, type(None))):
        settings["random_state"] = None
    arrays, scales = {}, {}
    parts = {"encoder": "encoder_weights_", "head": "head_weights_"}
    groups = {name: getattr(model, attribute, ()) for name, attribute in parts.items()}
    groups["pretrained"] = getattr(model, "pretrained_", {"weights": ()})["weights"]
    for name in SCALES:
        if hasattr(model, name):
            groups[name] = (getattr(model, name).centre, getattr(model, name).spread)
            scales[name] = getattr(model, name).kind
    for name, group in groups.items():
        arrays |= {f"{name}.{i}": torch.from_numpy(np.array(w)) for i, w in enumerate(group)}
    about = {"class": type(model).__name__, "settings": settings, "scales": scales, "told": model._told()}
    about["named"] = hasattr(model, "feature_names_in_")
    about["losses"] = getattr(model, "pretrained_", {}).get("losses", [])
    return save_model(folder, arrays, about, genes)


def load_encoder(cls, folder: str | Path, genes: Sequence[str]):
    """A model of class `cls` as :func:`save_encoder` saved it, for data whose columns are `genes`."""
    from shared.train import TrainingError, load_model

    arrays, about = load_model(folder, genes)
    if about.get("class") != cls.__name__:
        raise TrainingError(f"{folder} holds a {about.get('class')}: load it with that class")
    loaded = cls(**about["settings"])

    def group(name):
        named = sorted((k for k in arrays if k.rpartition(".")[0] == name), key=lambda k: int(k.split(".")[-1]))
        return [arrays[k].numpy() for k in named]

    loaded.n_features_in_ = len(genes)
    if about.get("named"):
        loaded.feature_names_in_ = np.asarray(list(genes), dtype=object)
    if group("pretrained"):
        loaded.pretrained_ = {"weights": group("pretrained"), "losses": about["losses"]}
    if group("head"):
        loaded.encoder_weights_, loaded.head_weights_ = group("encoder"), group("head")
    for name, kind in about["scales"].items():
        scale = Scale.__new__(Scale)
        scale.kind, (scale.centre, scale.spread) = kind, group(name)
        setattr(loaded, name, scale)
    for name, value in about["told"].items():
        kind = np.float32 if name.startswith("y_") else None
        setattr(loaded, name, np.array(value, kind) if isinstance(value, list) else value)
    return loaded
