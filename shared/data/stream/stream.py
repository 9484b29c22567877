"""Matrices larger than memory: read an ``.h5ad`` file piece by piece, and shuffle its cells on the way to a network.

``Stream("cells.h5ad")`` reads nothing but the outline of the file. ``chunks()`` gives its cells in order, ``batches()``
in random order: contiguous blocks of cells are read in a random order into a buffer, and the buffer is shuffled.

Memory depends on the buffer and on the number of genes. Of each cell only its place in the file is kept (8 bytes),
and the labels that were asked for. ``.obs`` is read whole, and only when it is used.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cached_property
from itertools import pairwise

import numpy as np
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
    """Cells of one or several ``.h5ad`` files, read as they are needed.

    Parameters
    ----------
    paths : path or sequence of paths
        Several files are one corpus, one after another.
    genes : sequence of str, optional
        The columns, in this order. Without it: all genes of one file, or those that all files share, in the order of
        the first.
    missing : {"refuse", "zero"}, default "refuse"
        What to do about a gene of `genes` that a file has not.
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

    Raises
    ------
    DataError
        If a file is missing, damaged, a zarr store, stored by gene (CSC) or without the matrix asked for, or the
        files share no gene. While reading: on NaN, on damage, and when the file changes meanwhile.

    Examples
    --------
    >>> stream = Stream("atlas.h5ad", transform=np.log1p)  # doctest: +SKIP
    >>> for X, y, rows in stream.batches(256, labels="cell_type"): ...  # doctest: +SKIP
    """

    def __init__(self, paths, *, genes=None, missing="refuse", layer=None, transform=None):
        paths = [paths] if isinstance(paths, (str, os.PathLike)) or not isinstance(paths, Iterable) else list(paths)
        if not paths or not all(isinstance(p, (str, os.PathLike)) for p in paths):
            raise DataError(f"no file is named by {paths}: give the path of an .h5ad file, or a list of paths")
        require(OneOf("refuse", "zero"), missing=missing)
        self.transform, self._tried = transform, transform is None
        self.files = tuple(Backed(p, layer) for p in paths)
        self._starts = np.cumsum([0, *(f.shape[0] for f in self.files)])
        self.genes = self._shared_genes() if genes is None else tuple(names_of(genes))
        if genes is not None and not self.genes:
            raise DataError("genes names none: give at least one, or leave genes out for all")
        self._places = [self._places_of(f, missing) for f in self.files]
        self.shape = (int(self._starts[-1]), len(self.genes))
        if not self.shape[0] or not self.shape[1]:
            raise DataError(f"there is nothing to read: {self.shape[0]} cells and {self.shape[1]} genes")

    def _shared_genes(self):
        first, *others = (f.genes for f in self.files)
        if all(g == first for g in others):
            return first
        for f in self.files:
            once(f.genes, f.path.name)
        inside = set(first).intersection(*others)
        if not inside:
            kinds = "; ".join(f"{f.path.name}: {gene_kind(f.genes)}" for f in self.files[:4])
            raise DataError(
                f"the files share no gene ({kinds}): bring them to one kind of names with shared.data.to_symbols or "
                "to_human first"
            )
        return tuple(g for g in first if g in inside)

    def _places_of(self, file, missing):
        """The column that each gene of a file goes to; None where nothing has to be moved."""
        if file.genes == self.genes:
            return None
        once(file.genes, file.path.name)
        once(self.genes, "genes")
        lost = set(self.genes).difference(file.genes)
        if len(lost) == len(self.genes):
            raise DataError(
                f"{file.path.name} holds none of the {many(len(lost), 'gene')} asked for; it names "
                f"{gene_kind(file.genes)} ({shown(file.genes)}): bring both to one kind of names"
            )
        if lost and missing == "refuse":
            raise DataError(
                f"{file.path.name} lacks {many(len(lost), 'gene')} of the {len(self.genes):,} asked for "
                f"({shown(g for g in self.genes if g in lost)}): leave them out, or fill them with zeros by "
                "missing='zero'"
            )
        return places(file.genes, self.genes)

    def __repr__(self):
        forms = sorted({"CSR" if f.sparse else "dense" for f in self.files})
        packed = sorted({f.packed or "not compressed" for f in self.files})
        return (
            f"Stream of {self.shape[0]:,} cells × {self.shape[1]:,} genes in {many(len(self.files), 'file')} "
            f"({' and '.join(forms)}, {' and '.join(packed)})"
        )

    def __len__(self):
        return self.shape[0]

    @cached_property
    def obs(self):
        """The cells as DataFrame, read once; of several files with a column ``file``, the path of each."""
        import pandas as pd

        if len(self.files) == 1:
            return self.files[0].obs()
        obs = pd.concat([f.obs() for f in self.files])
        obs["file"] = np.repeat([str(f.path) for f in self.files], np.diff(self._starts))
        return obs

    def labels(self, name):
        """One column of obs without reading the others.

        Parameters
        ----------
        name : str
            A column that every file has.

        Returns
        -------
        values : ndarray of shape (n_cells,)
            Codes into `classes` (int64; -1: not named), or the numbers themselves (int64 or float32).
        classes : tuple of str or None
            Sorted; None for a column of numbers.
        """
        import pandas as pd

        found = [pd.Series(f.obs(name)) for f in self.files]
        if all(pd.api.types.is_numeric_dtype(s) and not pd.api.types.is_bool_dtype(s) for s in found):
            whole = all(pd.api.types.is_integer_dtype(s) and not s.hasnans for s in found)
            to = {"dtype": np.int64} if whole else {"dtype": np.float32, "na_value": np.nan}
            return np.concatenate([s.to_numpy(**to) for s in found]), None
        named = [s.map(str, na_action="ignore") for s in found]
        codes, classes = pd.factorize(pd.concat(named).astype(object), sort=True)
        return codes.astype(np.int64), tuple(classes)

    def read(self, rows):
        """Cells by ascending position, aligned to ``genes``.

        Parameters
        ----------
        rows : int ndarray
            Ascending positions in ``obs``.

        Returns
        -------
        float32 CSR or ndarray of shape (len(rows), n_genes)
            CSR if any of the files read here is sparse.
        """
        rows = np.asarray(rows)
        if rows.ndim != 1 or not rows.size or rows.dtype.kind not in "iu" or (rows[1:] <= rows[:-1]).any():
            raise DataError("rows should be positions in ascending order, each once, and at least one")
        rows = rows.astype(np.int64, copy=False)
        if rows[0] < 0 or rows[-1] >= self.shape[0]:
            raise DataError(f"rows reach from {rows[0]} to {rows[-1]}, and positions from 0 to {self.shape[0] - 1}")
        cuts = enumerate(pairwise(np.searchsorted(rows, self._starts)))
        parts = [self._aligned(i, rows[a:b] - self._starts[i]) for i, (a, b) in cuts if b > a]
        X = parts[0]
        if len(parts) > 1:
            X = sparse.vstack(parts, format="csr") if any(map(sparse.issparse, parts)) else np.concatenate(parts)
        return X.astype(np.float32, copy=False)

    def _aligned(self, i, rows):
        X = self.files[i].read(rows)
        if self.transform is not None:
            X = self._transformed(X, f"{self.files[i].path.name}, cells {rows[0]:,} to {rows[-1]:,}")
        return X if self._places[i] is None else moved(X, self._places[i], len(self.genes))

    def _transformed(self, X, where):
        try:
            alone = None if self._tried or X.shape[0] < 2 else self.transform(X[:1].copy())
            found = self.transform(X)
        except ValueError as e:
            raise DataError(f"{where}: {e}") from e
        if getattr(found, "shape", None) != X.shape:
            raise DataError(
                f"transform made {getattr(found, 'shape', type(found).__name__)} of {X.shape}: it should keep cells "
                "and genes; pick genes with Stream(genes=...)"
            )
        if sparse.issparse(found):
            found = found.tocsr()
        if alone is not None:
            first, alone = (np.asarray(m.todense() if sparse.issparse(m) else m) for m in (found[:1], alone))
            if not np.allclose(first, alone, rtol=1e-4, atol=1e-6):
                raise DataError(
                    "transform treats a cell differently beside other cells, so the result would depend on where the "
                    "file is cut: fit what it learns on the training cells first, chunk by chunk"
                )
            self._tried = True
        return found

    def _subset(self, cells):
        """A choice of cells as ascending positions; None for all."""
        if cells is None:
            return None
        cells = np.asarray(list(cells) if isinstance(cells, (range, set)) else cells)
        if cells.dtype == bool:
            if cells.shape != (self.shape[0],):
                raise DataError(f"cells is a mask of shape {cells.shape}, and there are {self.shape[0]:,} cells")
            cells = np.flatnonzero(cells)
        if not cells.size:
            raise DataError("cells chooses none: give at least one position")
        if cells.ndim != 1 or not np.issubdtype(cells.dtype, np.integer):
            raise DataError("cells should be a mask or a list of positions: np.flatnonzero(stream.obs['batch'] == 'a')")
        cells = np.sort(cells.astype(np.int64))
        if cells[0] < 0 or cells[-1] >= self.shape[0]:
            raise DataError(
                f"cells names position {cells[0 if cells[0] < 0 else -1]}, outside 0 to {self.shape[0] - 1}"
            )
        if (np.diff(cells) == 0).any():
            raise DataError("cells names a cell twice: drop the copies with np.unique(cells)")
        return cells

    def _bytes_per_cell(self):
        # An entry of a CSR takes its value and its column.
        sizes = [f.entries / f.shape[0] * (8 if f.sparse else f.dtype.itemsize) for f in self.files if f.shape[0]]
        return max(16, int(max(sizes)))

    def chunks(self, size=None, *, cells=None, dense=False):
        """Go through the cells in the order of the file.

        Parameters
        ----------
        size : int, optional
            Cells in a chunk; without it, what takes about 32 MB.
        cells : int or bool ndarray, optional
            Only these cells; they come in the order of the file.
        dense : bool, default False
            Give ndarrays also where the file is sparse.

        Yields
        ------
        X : float32 CSR or ndarray of shape (n, n_genes)
        rows : int64 ndarray of shape (n,)
            Positions in ``obs``.
        """
        require(Maybe(Whole(1)), size=size)
        size = int(np.clip(STEP_BYTES // self._bytes_per_cell(), 1, SPAN)) if size is None else int(size)
        return self._chunks(size, self._subset(cells), dense)

    def _chunks(self, size, cells, dense):
        n = self.shape[0] if cells is None else len(cells)
        for at in range(0, n, size):
            rows = np.arange(at, min(n, at + size)) if cells is None else cells[at : at + size]
            X = self.read(rows)
            yield (X.toarray() if dense and sparse.issparse(X) else X), rows

    def batches(self, size=256, **options):
        """Mini-batches in random order; every cell exactly once an epoch.

        Parameters
        ----------
        size : int, default 256
            Cells in a batch.
        **options
            ``labels``, ``cells``, ``seed``, ``epoch``, ``rank``, ``world`` and the others of :class:`Batches`.

        Returns
        -------
        Batches
            Of tuples (X, y, rows).
        """
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
