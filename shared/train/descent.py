"""Adam, epoch by epoch, keeping the best: the loop of networks whose step is more than one batch of one data set."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable

import torch

from shared.train.settings import History, TrainingError


def descend(net, lr, epochs, patience, one_epoch: Callable[[torch.optim.Optimizer, int], dict], bar=None) -> History:
    """Adam, epoch by epoch, keeping the best weights; the loop of pre-training and of fine-tuning.

    Parameters
    ----------
    net : torch.nn.Module
        Left with its best weights.
    lr, epochs
        Step size, and epochs at most.
    one_epoch : callable
        Takes the steps and returns the epoch's numbers: ``loss``, and ``val_accuracy`` where there is something to
        judge by, which then decides.
    patience : int or None
        Stop after so many epochs without a new best.
    bar : tqdm.tqdm, optional
        Moved on after each epoch.

    Raises
    ------
    shared.train.TrainingError
        If the loss is not finite.
    """
    device = next(net.parameters()).device.type
    optimizer = torch.optim.Adam(net.parameters(), lr=lr, fused=device in ("cpu", "cuda"))
    history, best, state, began = History(stopped="epochs"), math.inf, None, time.perf_counter()
    for epoch in range(1, epochs + 1):
        row = {"epoch": epoch, **one_epoch(optimizer, epoch)}
        if not math.isfinite(row["loss"]):
            raise TrainingError(f"the loss is {row['loss']} in epoch {epoch}: look at the data, or lower lr={lr:g}")
        history.rows.append(row)
        value = -row["val_accuracy"] if "val_accuracy" in row else row["loss"]
        if value < best:
            best, history.best_epoch = value, epoch
            state = {k: v.detach().clone() for k, v in net.state_dict().items()} if patience else None
        if bar is not None:
            bar.set_postfix({k: f"{v:.4g}" for k, v in row.items() if k != "epoch"}, refresh=False)
            bar.update()
        if patience and epoch - history.best_epoch >= patience:
            history.stopped = "patience"
            break
    if state is not None:
        net.load_state_dict(state)
    history.seconds = time.perf_counter() - began
    return history


@contextlib.contextmanager
def epoch_bar(progress, total, what):
    """A bar that counts epochs, or None without `progress`."""
    if not progress:
        yield None
        return
    from tqdm import tqdm

    with tqdm(total=total, unit="epoch", desc=what) as bar:
        yield bar
