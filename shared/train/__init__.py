"""One training loop in plain torch, for every network of the book.

A method builds a network and says what its loss on one batch is; :func:`fit` does the rest: the device, batches,
precision, progress, early stopping, checkpoints, and clear words when something goes wrong::

    history = fit(network, step, (X, y), val=(X_val, y_val), config=Config(epochs=50, patience=5))

Batches are those of a table, as here, or whatever a function of the epoch yields: episodes
(:func:`shared.train.episodes.meta_train`), a batch of every data set at once.

Every epoch starts its random numbers from the pair (seed, epoch). A run that was killed and resumed therefore draws
what an uninterrupted run draws, on any device, and ends with the same bytes; no generator needs to be stored.
"""

import importlib

_HOMES = {
    "Batches": "batches",
    "Config": "settings",
    "DomainBatches": "domains",
    "History": "settings",
    "ModelError": "saved",
    "TrainingError": "settings",
    "fit": "loop",
    "load_model": "saved",
    "read_safetensors": "checkpoint",
    "replace_file": "saved",
    "resolve_device": "settings",
    "save_model": "saved",
    "seed_everything": "settings",
}
__all__ = list(_HOMES)


def __getattr__(name):
    # Loaded when asked for, so that settings and errors can be had without torch.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__():
    return sorted({*globals(), *__all__})
