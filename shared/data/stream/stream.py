"""Matrices larger than memory: read an ``.h5ad`` file piece by piece, and shuffle its cells on the way to a network.

``Stream("cells.h5ad")`` reads the outline of the file; ``chunks()`` gives its cells in order, ``batches()`` in random
order. Memory depends on the buffer and on the number of genes; of each cell only its place in the file (8 bytes) and
the labels that were asked for are kept. ``.obs`` is read whole, and only when it is used.
"""

import os
from functools import cached_property

import numpy as np
import pandas as pd
from scipy import sparse

from shared.data.constraints import Maybe, OneOf, Whole, require
from shared.data.errors import DataError
from shared.data.genes.kinds import gene_kind
from shared.data.genes.lists import many, names_of, once, shown
from shared.data.stream.backed import SPAN, Backed
from shared.data.stream.batches import Batch, Batches

__all__ = ["Batch", "Batches", "Stream"]

STEP_BYTES = 32 << 20  # what a chunk takes, unless its size is named


class Stream:
    """Cells of an ``.h5ad`` file, read as needed; ``anndata.experimental.concat_on_disk`` makes one file of several.

    :class:`DataError` is raised if the file is missing, damaged, a zarr store, stored by gene (CSC) or without the
    matrix or the genes asked for. While reading: on NaN, on damage, and when the file changes meanwhile. Entries stored
    in several parts are summed.

    Parameters
    ----------
    path : path
    genes : sequence of str, optional
        The columns, in this order; all genes of the file without it.
    missing : {"refuse", "zero"}, default "refuse"
        What to do about a gene of `genes` that the file has not.
    layer : str, optional
        Read ``layers[layer]`` instead of ``X``; ``"raw"`` reads ``raw.X`` with its own genes.
    transform : function, optional
        From cells × genes (CSR or ndarray) to the same shape, each cell by itself, such as log-normalisation. It sees
        all genes of the file, so that a cell's total is its total; `genes` are picked afterwards.

    Attributes
    ----------
    shape : tuple of int
        Cells and genes.
    genes : tuple of str
    """

    def __init__(self, path, *, genes=None, missing="refuse", layer=None, transform=None):
        if not isinstance(path, (str, os.PathLike)):
            raise DataError(f"no file is named by {path}: give one .h5ad file; anndata's concat_on_disk joins several")
        if transform is not None and not callable(transform):
            raise DataError(f"transform={transform!r} is no function: give one from cells × genes to the same shape")
        require(OneOf("refuse", "zero"), missing=missing)
        self.transform, self._tried = transform, transform is None
        self.file = Backed(path, layer)
        self.genes = self.file.genes if genes is None else tuple(names_of(genes))
        self.shape = (self.file.shape[0], len(self.genes))
        if 0 in self.shape:
            raise DataError(f"there is nothing to read: {self.shape[0]} cells, genes names {self.shape[1] or 'none'}")
        self._place = None if self.genes == self.file.genes else self._places(missing)

    def _places(self, missing):
        own, name = self.file.genes, self.file.path.name
        once(own, name)
        once(self.genes, "genes")
        known = set(own)
        lost = [g for g in self.genes if g not in known]
        if len(lost) == len(self.genes):
            raise DataError(f"{name} names {gene_kind(own)}, none of the genes asked for: try shared.data.to_symbols")
        if lost and missing == "refuse":
            said = f"{name} lacks {many(len(lost), 'gene')} of the {len(self.genes):,} asked for ({shown(lost)})"
            raise DataError(f"{said}: leave them out, or fill them with zeros by missing='zero'")
        return places(own, self.genes)

    def __repr__(self):
        form, packed = "CSR" if self.file.sparse else "dense", self.file.packed or "not compressed"
        cells, genes = self.shape
        return f"Stream of {cells:,} cells × {genes:,} genes in {self.file.path.name} ({form}, {packed})"

    def __len__(self):
        return self.shape[0]

    @cached_property
    def obs(self):
        """The cells as DataFrame, read once."""
        return self.file.obs()

    def labels(self, name):
        """One column of obs without reading the others: its values, and its classes.

        Values are codes into the classes (int64; -1: not named), a sorted tuple of str; or numbers themselves (int64 or
        float32), with None for classes.
        """
        column = pd.Series(self.file.obs(name))
        if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
            whole = pd.api.types.is_integer_dtype(column) and not column.hasnans
            to = {"dtype": np.int64} if whole else {"dtype": np.float32, "na_value": np.nan}
            return column.to_numpy(**to), None
        codes, classes = pd.factorize(column.astype(object).map(str, na_action="ignore"), sort=True)
        return codes.astype(np.int64), tuple(classes)

    def read(self, rows, *, dense=False):
        """Cells by ascending position in ``obs``, aligned to ``genes``: float32 (len(rows), n_genes), CSR or ndarray as
        the file is stored, or an ndarray if `dense`.
        """
        chosen, rows = rows, self._subset(rows)
        if not np.array_equal(chosen, rows):
            raise DataError("rows should be positions in ascending order")
        X = self.file.read(rows)
        if self.transform is not None:
            X = self._transformed(X, f"{self.file.path.name}, cells {rows[0]:,} to {rows[-1]:,}")
        X = X if self._place is None else moved(X, self._place, self.shape[1])
        X = X.toarray() if dense and sparse.issparse(X) else X
        return X.astype(np.float32, copy=False)

    def _transformed(self, X, where):
        try:
            alone = None if self._tried or X.shape[0] < 2 else self.transform(X[:1].copy())
            found = self.transform(X)
        except ValueError as e:
            raise DataError(f"{where}: {e}") from e
        if np.shape(found) != X.shape:
            raise DataError(f"transform made {np.shape(found)} of {X.shape}: it should keep cells and genes")
        if sparse.issparse(found):
            found = found.tocsr()
        if alone is not None:
            first, alone = (np.asarray(m.todense() if sparse.issparse(m) else m) for m in (found[:1], alone))
            if not np.allclose(first, alone, rtol=1e-4, atol=1e-6):
                raise DataError("transform treats a cell differently beside other cells: fit it on the training cells")
            self._tried = True
        return found

    def _subset(self, cells):
        """A choice of cells as ascending positions; all for None."""
        if cells is None:
            return np.arange(self.shape[0])
        cells = np.asarray(list(cells) if isinstance(cells, (range, set)) else cells)
        if cells.dtype == bool and cells.shape == self.shape[:1]:
            cells = np.flatnonzero(cells)
        listed = cells.ndim == 1 and cells.dtype.kind in "iu" and cells.size
        found = np.unique(cells) if listed else cells
        if not listed or len(found) < len(cells) or found[0] < 0 or found[-1] >= self.shape[0]:
            raise DataError(f"cells should be a mask of shape {self.shape[:1]}, or different positions, one at least")
        return found.astype(np.int64)

    def _bytes_per_cell(self):
        # An entry of a CSR takes its value and its column.
        entry = 8 if self.file.sparse else self.file.dtype.itemsize
        return max(16, int(self.file.entries / self.shape[0] * entry))

    def chunks(self, size=None, *, cells=None, dense=False):
        """Go through the cells in the order of the file: yields X, float32 CSR or ndarray (n, n_genes), and int64
        positions (n,).

        `size` are the cells in a chunk; without it, what takes about 32 MB. `cells`, positions or a mask, are the only
        ones to come. `dense` gives ndarrays also where the file is sparse.
        """
        require(Maybe(Whole(1)), size=size)
        size = int(np.clip(STEP_BYTES // self._bytes_per_cell(), 1, SPAN)) if size is None else int(size)
        cells = self._subset(cells)
        parts = (cells[at : at + size] for at in range(0, len(cells), size))
        return ((self.read(rows, dense=dense), rows) for rows in parts)

    def batches(self, size=256, **options):
        """Mini-batches in random order, every cell exactly once an epoch: :class:`Batches` of these `options`."""
        return Batches(self, size, **options)


def places(own, genes) -> np.ndarray:
    """For each of `own` genes its column among `genes`, -1 where there is none: int32 ndarray."""
    column = {gene: i for i, gene in enumerate(genes)}
    return np.fromiter((column.get(g, -1) for g in own), np.int32, len(own))


def moved(X, place, n_genes):
    """Columns of a CSR or ndarray to their `place` (-1: left out) among `n_genes`; what nothing goes to is zero."""
    if not sparse.issparse(X):
        found = np.zeros((len(X), n_genes), X.dtype)
        found[:, place[place >= 0]] = X[:, place >= 0]
        return found
    columns = place[X.indices]
    kept = columns >= 0
    starts = np.concatenate([[0], np.cumsum(kept)])[X.indptr]
    found = sparse.csr_matrix((X.data[kept], columns[kept], starts), shape=(X.shape[0], n_genes))
    found.sort_indices()
    return found
