"""One training loop in plain torch, for every network of the book.

A method builds a network and says what its loss on one batch is; :func:`fit` does the rest: the device, batches,
precision, progress, early stopping, checkpoints, and clear words when something goes wrong::

    history = fit(network, loss, (X, y), val=(X_val, y_val), config=Config(epochs=50, patience=5))

Every epoch starts its random numbers from the pair (seed, epoch). A run that was killed and resumed therefore draws
what an uninterrupted run draws, on any device, and ends with the same bytes; no generator needs to be stored.
"""

from shared.train.checkpoint import read_safetensors, replace_file
from shared.train.loop import fit
from shared.train.saved import load_model, save_model
from shared.train.settings import Config, History, TrainingError, resolve_device, seed_everything

__all__ = [
    "Config",
    "History",
    "TrainingError",
    "fit",
    "load_model",
    "read_safetensors",
    "replace_file",
    "resolve_device",
    "save_model",
    "seed_everything",
]
