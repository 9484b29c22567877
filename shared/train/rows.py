"""The rows a network is trained on: checked once, kept where they are needed, handed out in batches."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch

from shared.train.settings import TrainingError


class Table:
    """Columns with one length: tensors on the device, sparse matrices on the host."""

    def __init__(self, columns, device, what):
        if hasattr(columns, "shape") or not isinstance(columns, Sequence) or not columns:
            raise TrainingError(f"{what} must be a tuple of arrays, such as (X, y)")
        self.columns = [column(c, f"{what}[{i}]").to(device) for i, c in enumerate(columns)]
        lengths = [c.shape[0] for c in self.columns]
        if len(set(lengths)) > 1:
            raise TrainingError(f"{what} have different numbers of rows: {', '.join(map(str, lengths))}")
        self.rows, self.device = lengths[0], device
        if not self.rows:
            raise TrainingError(f"{what} hold no rows")

    def order(self, seed):
        """A shuffled order of the rows, on the device (where the batches are gathered)."""
        return torch.randperm(self.rows, generator=torch.Generator().manual_seed(seed)).to(self.device)

    def take(self, rows):
        return [c.take(rows, self.device) if isinstance(c, Sparse) else c.index_select(0, rows) for c in self.columns]

    def digest(self):
        """Tells one data set from another: shapes and up to 256 rows, evenly spaced."""
        seen = hashlib.sha256(repr([tuple(c.shape) for c in self.columns]).encode())
        rows = torch.linspace(0, self.rows - 1, min(self.rows, 256), dtype=torch.float64).long().to(self.device)
        for column in self.take(rows):
            seen.update(np.ascontiguousarray(column.cpu().numpy()).tobytes())
        return seen.hexdigest()


class Sparse:
    """A CSR matrix on the host whose rows become dense when a batch needs them."""

    def __init__(self, matrix):
        self.matrix, self.shape = matrix, matrix.shape

    def to(self, device):
        return self

    def take(self, rows, device):
        return torch.from_numpy(self.matrix[rows.cpu().numpy()].toarray()).to(device, non_blocking=True)


def column(values, what):
    if hasattr(values, "tocsr"):
        return Sparse(values.tocsr().astype(np.float32, copy=False))
    if not isinstance(values, torch.Tensor):
        values = np.asarray(values)
        if values.dtype.kind not in "fiub":
            cure = "encode labels as whole numbers first (np.unique with return_inverse)"
            raise TrainingError(f"{what} has dtype {values.dtype}, which torch cannot use: {cure}")
        # A fresh array in the machine's byte order: torch takes neither read-only nor reversed memory.
        kind = {"f": np.float32, "b": np.bool_}.get(values.dtype.kind, np.int64)
        values = torch.from_numpy(np.array(values, dtype=kind, order="C"))
    values = values.detach()
    if values.is_complex() or values.ndim == 0:
        raise TrainingError(f"{what} must be real numbers with one row an entry, not {values.dtype} {values.shape}")
    if values.layout != torch.strided:
        raise TrainingError(f"{what} is a sparse torch tensor: pass a SciPy CSR matrix")
    return values if values.dtype == torch.bool else values.float() if values.is_floating_point() else values.long()
