"""Tuning on one labelled data set: the published split, the same cells for every arm, a stop by held-out accuracy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from sklearn.base import clone
from torch.nn.functional import cross_entropy

from shared.nn.shared_encoder import chunks
from shared.nn.sparse import Rows
from shared.train.descent import descend, epoch_bar
from shared.train.settings import History


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


def tune(net, X, target, kept, held, seed, *, lr, epochs, patience=None, batch_size=5000, progress=False) -> History:
    """Train a classifier of sparse cells, stopping by its accuracy on cells held out.

    Parameters
    ----------
    net : torch.nn.Module
        Takes :class:`shared.nn.sparse.Rows` and gives logits; on the device it is to be trained on. Left with its best
        weights.
    X : CSR matrix
        Cells × genes.
    target : int array, cells
        Classes, counted from 0.
    kept, held : int array
        Rows to train on, and to stop by; without the latter all epochs are run.
    seed : int
        Of the order of cells.
    lr, epochs, patience
        As in :func:`shared.train.descent.descend`.
    batch_size : int, default 5000
        Cells of a batch, at most.
    progress : bool, default False
        Show a bar.
    """
    device = next(net.parameters()).device
    y = torch.as_tensor(target)
    pieces = -(-len(kept) // batch_size)
    whole = [(Rows(X[kept], device), y[kept].to(device))] if pieces == 1 else None
    net.train()
    judge = [(Rows(X[r], device), target[r]) for r in chunks(held)]

    def batches(epoch):
        order = np.random.default_rng((seed, 2, epoch)).permutation(kept)
        return ((Rows(X[r], device), y[r].to(device)) for r in np.array_split(order, pieces))

    def one_epoch(optimizer, epoch):
        total = 0.0
        for rows, types in whole or batches(epoch):
            optimizer.zero_grad()
            loss = cross_entropy(net(rows), types)
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(rows)
        row = {"loss": total / len(kept)}
        if judge:
            net.eval()
            with torch.no_grad():
                right = sum((net(rows).argmax(1).cpu().numpy() == types).sum() for rows, types in judge)
            row["val_accuracy"] = float(right) / len(held)
            net.train()
        return row

    with epoch_bar(progress, epochs, "tuning") as bar:
        return descend(net, lr, epochs, patience if judge else None, one_epoch, bar)
