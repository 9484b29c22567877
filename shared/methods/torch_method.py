"""Methods whose network is a torch module: building, training, predicting in chunks and loading, written once.

A method says what its network is (:meth:`TorchMethod.build`) and gives its training step, a function of the module,
``step(net, *batch)``, which a page can show as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from scipy import sparse

from shared.data.cells import Cells, Outline
from shared.data.constraints import Constraint
from shared.methods.base import PLACES, TransferEstimator
from shared.train import Config, History, fit, resolve_device
from shared.train.saved import ModelError
from shared.train.settings import seed_torch

ONE_PROCESS = Constraint(lambda v: v == 1, "is more than its batches can be shared by: set devices=1")


def seeded(make: Callable[[], torch.nn.Module], seed: int) -> torch.nn.Module:
    """What `make` gives with torch's CPU generator at `seed`; the caller's generator goes on as if nothing happened."""
    with torch.random.fork_rng(devices=[]):
        seed_torch(seed)
        return make()


@dataclass(eq=False, repr=False)
class TorchMethod(TransferEstimator):
    """A method whose network is a torch module; after `fit` it is ``network_``, on the CPU, in evaluation mode.

    Parameters
    ----------
    device : str
        See :func:`shared.train.resolve_device`.
    devices : int
        Processes that share every batch: see :mod:`shared.train.distributed`. A loss that is no mean over cells is
        refused there, and predictions are made in one process.
    progress : bool
        Show bars.
    checkpoint : path, optional
        A killed `fit` goes on from a file beside it, a killed `pretrain` from the file itself.
    random_state : int, RandomState or None
        Initial weights, order of rows, and what else is drawn.
    """

    constraints = Config.constraints | {
        "device": Constraint(lambda v: isinstance(v, (str, torch.device)), "names no device")
    }

    _: KW_ONLY
    device: str = "auto"
    devices: int = 1
    progress: bool = False
    checkpoint: str | Path | None = None
    random_state: int | None = None

    def build(self, *cells: Cells | Outline) -> torch.nn.Module:
        """The network for these cells, with random weights; sizes come from ``cells.n_genes``, ``n_classes``, ..."""
        raise NotImplementedError

    def new_network(self, *cells: Cells, seed: int) -> torch.nn.Module:
        """:meth:`build` with weights that depend on `seed` alone; the caller's generator is left as it was."""
        settings = {k: v for k, v in self.get_params(deep=False).items() if k not in ("random_state", *PLACES)}
        self.built_ = {"settings": settings, "cells": [some.outline() for some in cells]}
        return seeded(lambda: self.build(*cells), seed)

    def train(self, net, step, batches, *, seed: int, val=None, monitor=None, on_optimizer=None, **settings) -> History:
        """Train `net` in place by :func:`shared.train.fit`, with this estimator's settings of the same names.

        Parameters
        ----------
        net : torch.nn.Module
            Left on the CPU, in evaluation mode.
        step : callable
            ``step(net, *batch)`` gives the loss.
        batches, val, monitor, on_optimizer
            As :func:`shared.train.fit` takes them.
        seed : int
            Order of the rows, dropout, and what else is drawn.
        **settings
            Of :class:`shared.train.Config`, in place of the estimator's. A ``checkpoint`` is removed at the end.
        """
        names = {field.name for field in fields(Config)} - {"checkpoint"}
        own = {name: getattr(self, name) for name in names if getattr(self, name, None) is not None}
        config, asked = Config(**own | {"seed": seed} | settings), {"monitor": monitor, "on_optimizer": on_optimizer}
        history = fit(net, step, batches, val=val, config=config, **asked)
        net.cpu().eval()
        if settings.get("checkpoint") is not None:
            settings["checkpoint"].unlink(missing_ok=True)
        return history

    def forward(self, net, X, size: int = 4096) -> np.ndarray:
        """What `net` gives for the rows of `X`, computed on the device, `size` rows at a time: float32 ndarray.

        `net` is a module, left in evaluation mode on the CPU.
        """
        place, out = resolve_device(self.device), []
        net.to(place).eval()
        with torch.inference_mode():
            for start in range(0, X.shape[0], size):
                out.append(net(*self.rows(X[start : start + size], place)).cpu())
        net.cpu()
        return torch.cat(out).numpy()

    def probabilities(self, net, X) -> np.ndarray:
        """Softmax over the outputs of :meth:`forward`: float32 ndarray, rows × outputs."""
        return torch.from_numpy(self.forward(net, X)).softmax(1).numpy()

    def rows(self, X, device) -> tuple:
        """Some rows as the arguments of the network: one dense tensor, unless a method overrides this."""
        X = X.toarray() if sparse.issparse(X) else np.ascontiguousarray(X)
        return (torch.from_numpy(X).to(device),)

    def _restore(self):
        """The networks that were saved, built again with the settings and for the cells of the fit."""
        for name, value in self._fitted().items():
            if isinstance(value, dict) and "@module" in value:
                net = type(self)(**self.built_["settings"]).build(*self.built_["cells"])
                try:
                    net.load_state_dict(value["@module"])
                except RuntimeError as error:
                    raise ModelError(f"the saved network does not fit the settings saved with it: {error}") from error
                setattr(self, name, net.eval())
