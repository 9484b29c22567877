"""Tuning on one labelled data set: the published split, the same cells for every arm, a stop by held-out accuracy."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sklearn.base import clone
from torch.nn.functional import cross_entropy

from shared.nn.shared_encoder import chunks
from shared.nn.sparse import Rows
from shared.train.batches import Batches
from shared.train.loop import fit
from shared.train.rounds import digest_of
from shared.train.settings import Config, History


class Split(NamedTuple):
    """Rows of one labelled data set: int64 ndarrays ``train``, ``val`` and ``test``, which share no cell."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


def paper_split(n: int, split_seed: int, limit: int = 1000) -> Split:
    """The published split: at random 60 % to train, 10 % to stop by, each at most `limit` cells; the rest is the test.

    The authors' code draws it anew, without a seed, for each arm, so its two arms train and test on different cells.
    Here one `split_seed` gives one split.

    Raises
    ------
    ValueError
        If there are too few cells for all three parts.
    """
    train, val = min(int(0.6 * n), limit), min(int(0.1 * n), limit)
    if val < 1 or n - train - val < 1:
        raise ValueError(f"{n} cells cannot be split into 60 % to train, 10 % to stop by and a test: use 10 or more")
    order = np.random.default_rng(split_seed).permutation(n)
    return Split(np.sort(order[:train]), np.sort(order[train : train + val]), np.sort(order[train + val :]))


def finetune(model, X, y="cell_type", *, split_seed, genes=None, limit=1000, arms=None):
    """Train several arms on the same cells.

    Parameters
    ----------
    model : ScPretrain
        Pre-trained. It is cloned for each arm and not changed.
    X, y, genes
        As in :meth:`shared.methods.scpretrain.ScPretrain.fit`.
    split_seed : int
        Of :func:`paper_split`; the arms share it.
    limit : int
        Cells to train on, at most, and as many to stop by.
    arms : mapping of str to dict, optional
        Settings of each arm. ``{"pretrained": {}, "scratch": {"borrow": False}}`` without it.

    Returns
    -------
    arms : dict of str to ScPretrain
        Fitted; ask each for ``predict_proba`` of the test cells.
    split : Split
    """
    arms = {"pretrained": {}, "scratch": {"borrow": False}} if arms is None else arms
    split = paper_split(X.shape[0], split_seed, limit)
    labelled = np.sort(np.concatenate([split.train, split.val]))
    val = np.searchsorted(labelled, split.val)
    y = y if isinstance(y, str) else np.asarray(y)[labelled]
    X = X.iloc[labelled] if hasattr(X, "iloc") else X[labelled]
    fitted = {
        name: clone(model).set_params(**settings).fit(X, y, genes=genes, val=val) for name, settings in arms.items()
    }
    return fitted, split


def tune(
    net: torch.nn.Module,
    X,
    target: np.ndarray,
    kept: np.ndarray,
    held: np.ndarray,
    seed: int,
    *,
    lr: float,
    epochs: int,
    patience: int | None = None,
    batch_size: int = 5000,
    progress: bool = False,
    checkpoint: str | Path | None = None,
) -> History:
    """Train a classifier of sparse cells, stopping by its accuracy on cells held out.

    Parameters
    ----------
    net : torch.nn.Module
        Takes :class:`shared.nn.sparse.Rows` and gives logits; on the device it is to be trained on. Left with its best
        weights, in evaluation mode.
    X : CSR matrix
        Cells × genes.
    target : int array, cells
        Classes, counted from 0.
    kept, held : int array
        Rows to train on, and to stop by; without the latter all epochs are run.
    seed : int
        Of the order of cells.
    lr : float
        Learning rate, of Adam.
    epochs, patience : int
        Epochs at most, and epochs without a higher accuracy after which training stops; see
        :class:`shared.train.Config`.
    batch_size : int, default 5000
        Cells of a batch, at most.
    progress : bool, default False
        Show a bar.
    checkpoint : path, optional
        File to save to after each epoch, and to resume from.

    Returns
    -------
    History
        Rows hold ``epoch``, ``loss``, ``val_accuracy`` where cells were held out, and ``lr``.

    Raises
    ------
    shared.train.TrainingError
        If a setting cannot be used, the loss is not finite, or the checkpoint is of another run.
    """
    device, y = next(net.parameters()).device, torch.as_tensor(target)
    pieces = -(-len(kept) // batch_size)
    whole = [(Rows(X[kept], device), y[kept].to(device))] if pieces == 1 else None
    judge = [(Rows(X[r], device), target[r]) for r in chunks(held)]

    def batches(epoch):
        order = np.random.default_rng((seed, 2, epoch)).permutation(kept)
        return whole or ((Rows(X[r], device), y[r].to(device)) for r in np.array_split(order, pieces))

    def accuracy(net, row):
        right = sum((net(rows).argmax(1).cpu().numpy() == types).sum() for rows, types in judge)
        row["val_accuracy"] = float(right) / len(held)
        return -row["val_accuracy"]

    about = {
        "label": "fine-tuning",
        "sizes": lambda epoch: [len(piece) for piece in np.array_split(kept, pieces)],
        "about": lambda: {"data": digest_of(X), "labels": _digest(target, kept, held), "batch_size": batch_size},
    }
    settings = {"epochs": epochs, "lr": lr, "patience": patience if judge else None, "progress": progress}
    config = Config(optimizer="adam", seed=seed, device=str(device), checkpoint=checkpoint, **settings)
    return fit(net, _cross_entropy, Batches(batches, **about), config, monitor=accuracy if judge else None)


def _cross_entropy(net, rows, types):
    return cross_entropy(net(rows), types)


def _digest(*arrays):
    return hashlib.sha256(b" ".join(np.ascontiguousarray(a, np.int64).tobytes() for a in arrays)).hexdigest()
