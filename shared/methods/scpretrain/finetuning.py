"""Fine-tuning on one labelled data set: the published split, first weights, batches and early stopping."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from sklearn.base import clone

from shared.data.constraints import SettingError
from shared.data.errors import DataError, warn
from shared.data.genes.lists import once
from shared.methods.scpretrain.network import CellTypeNet, transplant
from shared.methods.scpretrain.rounds import chunks
from shared.nn.sparse import Rows
from shared.train import Batches, resolve_device


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
    DataError
        If there are too few cells for all three parts.
    """
    train, val = min(int(0.6 * n), limit), min(int(0.1 * n), limit)
    if val < 1 or n - train - val < 1:
        raise DataError(f"{n} cells cannot be split into 60 % to train, 10 % to stop by and a test: use 10 or more")
    order = np.random.default_rng(split_seed).permutation(n)
    return Split(np.sort(order[:train]), np.sort(order[train : train + val]), np.sort(order[train + val :]))


def finetune(model, X, y="cell_type", *, split_seed, genes=None, limit=1000, arms=None):
    """Train several arms on the same cells.

    Parameters
    ----------
    model : ScPretrain
        Pre-trained. It is cloned for each arm and not changed.
    X, y, genes
        As in :meth:`~shared.methods.scpretrain.estimator.ScPretrain.fit`.
    split_seed : int
        Of :func:`paper_split`; the arms share it.
    limit : int
        Cells to train on, at most, and as many to stop by.
    arms : mapping of str to dict, optional
        Settings of each arm. ``{"pretrained": {}, "scratch": {"use_pretrained": False}}`` without it.

    Returns
    -------
    arms : dict of str to ScPretrain
        Fitted; ask each for ``predict_proba`` of the test cells.
    split : Split
    """
    arms = {"pretrained": {}, "scratch": {"use_pretrained": False}} if arms is None else arms
    split = paper_split(X.shape[0], split_seed, limit)
    labelled = np.sort(np.concatenate([split.train, split.val]))
    val = np.searchsorted(labelled, split.val)
    y = y if isinstance(y, str) else np.asarray(y)[labelled]
    X = X.iloc[labelled] if hasattr(X, "iloc") else X[labelled]
    fitted = {
        name: clone(model).set_params(**settings).fit(X, y, genes=genes, val=val) for name, settings in arms.items()
    }
    return fitted, split


def validation_rows(target: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Rows to stop by, drawn at random: int64, sorted. Of a type that would be held out whole, one cell stays."""
    held = np.random.default_rng((seed, 1)).permutation(len(target))[: int(share * len(target))]
    lost = np.setdiff1d(target[held], np.delete(target, held))
    return np.setdiff1d(held, [held[np.argmax(target[held] == kind)] for kind in lost])


def row_numbers(rows, n: int) -> np.ndarray:
    """Row numbers, sorted, from numbers or a mask of `n` rows; others are refused."""
    rows = np.asarray(rows)
    if rows.dtype == bool and rows.shape == (n,):
        return np.flatnonzero(rows)
    if (rows.size and rows.dtype.kind not in "iu") or rows.ndim != 1 or (rows < 0).any() or (rows >= n).any():
        raise DataError(
            f"val must hold numbers of rows from 0 to {n - 1}, or one truth value for each of the {n} cells"
        )
    return np.unique(rows.astype(np.int64))


def pretrained_rows(pretrained: dict, genes, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`weight`, `genes` × width, with the pre-trained encoder's rows of shared genes; and which these are.

    Without names (None) the genes are the encoder's.

    Raises
    ------
    DataError
        If no gene is shared or a list names a gene twice. A :class:`~shared.data.errors.DataWarning` is given where
        fewer than a tenth of the shorter list are shared.
    """
    known = pretrained["genes"]
    genes = known if genes is None else genes
    for names, what in ((known, "the pre-trained encoder"), (genes, "the data")):
        once(names, what)
    weight, shared = transplant(pretrained["weight"], known, weight, genes)
    if not shared.any():
        raise DataError(
            f"no gene is shared: the data have {genes[0]!r}, the encoder {known[0]!r}. Is it another species, or "
            "symbols against Ensembl identifiers? See shared.data.genes.translate.to_human and to_symbols"
        )
    if shared.sum() < min(len(known), len(genes)) / 10:  # as names of two kinds do
        warn(
            f"{shared.sum()} of the {len(known)} genes that the encoder knows are among these {len(genes)}, and it "
            "reads no others: are the names of one kind (shared.data.to_symbols)?"
        )
    return weight, shared


def set_encoder(net: CellTypeNet, X, init: str, pretrained: dict | None, genes) -> np.ndarray:
    """First weights of the encoder, in place: scaled to the cells `X` it is to be trained on, or pre-trained.

    Returns which genes have pre-trained weights: bool (n_genes,).
    """
    weight, bias = (part.detach().numpy() for part in net.encoder.parameters())
    if init == "scaled":
        mean = np.asarray(X.mean(0)).ravel()
        spread = max(float(X.multiply(X).sum() / X.shape[0] - mean @ mean), 1e-12)
        weight *= np.sqrt(3 * X.shape[1] / spread)  # uniform within ±bound has variance bound² / 3
        bias[:] = -mean @ weight
    if pretrained is None:
        return np.zeros(X.shape[1], bool)
    if len(bias) != len(pretrained["bias"]):
        raise SettingError(
            f"width={len(bias)} and the encoder was pre-trained with width={len(pretrained['bias'])}: "
            "set that, or pre-train again"
        )
    weight[:], shared = pretrained_rows(pretrained, genes, weight)
    bias[:] = pretrained["bias"]
    return shared


def labelled_batches(X, target, kept, held, batch_size: int, seed: int, device: str):
    """Batches of labelled cells for :func:`shared.train.fit`, and the accuracy on held-out cells that stops it.

    Parameters
    ----------
    X : CSR matrix
        Cells × genes.
    target : int64 array of shape (n_cells,)
        Types, counted from 0.
    kept, held : int array
        Rows to train on, and to stop by.
    batch_size : int
        Cells of a batch, at most; the batches of an epoch are of about equal size.
    seed : int
        Of the order of cells.
    device : str
        See :func:`shared.train.resolve_device`.

    Returns
    -------
    batches : Batches
        Of ``(Rows, int64 tensor)``. A single batch, and the cells held out, stay on the device for all epochs.
    accuracy : callable or None
        Adds ``val_accuracy`` to the row of the history, and returns it with the sign turned; None where no cell is held
        out.
    """
    place, pieces = resolve_device(device), np.array_split(kept, -(-len(kept) // batch_size))

    def batch(rows, reused=False):
        return Rows(X[rows], place, reused=reused), torch.from_numpy(target[rows]).to(place)

    whole = [batch(kept, reused=True)] if len(pieces) == 1 else None
    val = [batch(rows, reused=True) for rows in chunks(held)]

    def draw(epoch):
        order = np.random.default_rng((seed, 2, epoch)).permutation(kept)
        return whole or map(batch, np.array_split(order, len(pieces)))

    def accuracy(net, row):
        row["val_accuracy"] = sum(int((net(rows).argmax(1) == types).sum()) for rows, types in val) / len(held)
        return -row["val_accuracy"]

    about = {"held out": held.tolist(), "batch_size": batch_size}
    batches = Batches(draw, label="fine-tuning", sizes=lambda epoch: [*map(len, pieces)], about=lambda: about)
    return batches, accuracy if len(held) else None
