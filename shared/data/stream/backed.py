"""One ``.h5ad`` file of which little is in memory: what it holds, and any of its cells.

The matrix is read through HDF5 directly, CSR or dense. The file is open only while something is read.
"""

import contextlib
import os
from pathlib import Path

import h5py
import numpy as np
from scipy import sparse

from shared.data.errors import DataError
from shared.data.genes.lists import many, shown
from shared.data.validate.structure import widened

SPAN = 4096  # cells read at once
GAP = 4  # unwanted cells that are read along rather than read around: cheaper than another call


class Backed:
    """One ``.h5ad`` file: its outline, and cells from it.

    `layer` None reads ``X``, ``"raw"`` reads ``raw.X``, any other name ``layers[layer]``.
    """

    def __init__(self, path, layer=None):
        self.path, self.layer = Path(path), layer
        if self.path.is_dir():
            raise DataError(f"{self.path} is a folder, perhaps a zarr store: write it with anndata's write_h5ad")
        self.signature = self._stat()
        with self.reading() as file:
            self._outline(file)

    def _stat(self):
        try:
            found = os.stat(self.path)
        except OSError as e:
            raise DataError(f"{self.path} cannot be read ({e.strerror}): check the path and your rights") from e
        return found.st_size, found.st_mtime_ns, found.st_ino

    def unchanged(self):
        """Raise if the file is not the one whose outline was read."""
        if self._stat() != self.signature:
            raise DataError(f"{self.path.name} was changed while it was being read: start again when it is whole")

    @contextlib.contextmanager
    def reading(self):
        """The file, open; whatever the HDF5 library says is said as :class:`DataError`."""
        try:
            # No cache of chunks: blocks come in random order, and a block is read by one call.
            with h5py.File(self.path, "r", rdcc_nbytes=0, locking="best-effort") as file:
                yield file
            self.unchanged()
        except DataError:
            raise
        except BlockingIOError as e:
            raise DataError(f"{self.path.name} is open for writing elsewhere: close it there first") from e
        except (OSError, KeyError, RuntimeError, ValueError, TypeError, IndexError, AttributeError) as e:
            self.unchanged()
            raise DataError(f"{self.path.name} is no sound .h5ad file ({e}): fetch or write it again") from e

    def _outline(self, file):
        from anndata.io import read_elem

        places = {None: ("X", "var"), "raw": ("raw/X", "raw/var")}
        self.where, var = places.get(self.layer, (f"layers/{self.layer}", "var"))
        if self.where not in file:
            has = [k for k in ("X", "raw/X") if k in file] + [f"layers/{k}" for k in file.get("layers", ())]
            cure = f"it has {', '.join(has)}: name one by layer=" if has else "it has no matrix: write it with one"
            raise DataError(f"{self.path.name} has no {self.where}; {cure}")
        X = file[self.where]
        kind = str(X.attrs.get("encoding-type", "array"))
        if kind not in ("csr_matrix", "array"):
            kind = "gene by gene (CSC)" if kind == "csc_matrix" else f"as {kind}"
            raise DataError(f"{self.path.name} stores {self.where} {kind}: write it again as CSR, by its tocsr()")
        self.sparse = kind != "array"
        self.genes = tuple(map(str, read_elem(file[var][file[var].attrs["_index"]])))
        values = X["data"] if self.sparse else X
        self.dtype, self.packed = values.dtype, values.compression
        self.indptr = X["indptr"][:] if self.sparse else None
        self.shape = tuple(map(int, X.attrs["shape"] if self.sparse else X.shape))
        self._sound(X)
        self.entries = int(self.indptr[-1]) if self.sparse else int(np.prod(self.shape))
        per_cell = max(1.0, self.entries / max(1, self.shape[0])) if self.sparse else 1
        self.chunk_cells = min(values.chunks[0] / per_cell if values.chunks else 1, self.shape[0])

    def _sound(self, X):
        """Refuse an outline that does not fit itself, before a wrong number reaches compiled code."""
        if self.dtype.kind not in "fiub" or self.shape[1:] != (len(self.genes),):
            raise ValueError(f"{self.where} is {self.dtype} of shape {self.shape}, and var has {len(self.genes)} genes")
        if self.sparse:
            p, stored = self.indptr, min(len(X["data"]), len(X["indices"]))
            if len(p) != self.shape[0] + 1 or p[0] != 0 or (np.diff(p) < 0).any() or stored < p[-1]:
                raise ValueError("indptr does not count the entries up from 0, once a cell")

    def read(self, rows):
        """Cells by ascending position, in the file's own number type: CSR or ndarray of shape (len(rows), n_genes)."""
        with self.reading() as file:
            X = file[self.where]
            if self.sparse:
                found = self._read_sparse(X, rows)
            else:
                found = np.concatenate([X[first:last][wanted - first] for first, last, wanted in _spans(rows)])
        if self.sparse and not found.has_canonical_format:  # an entry stored in two parts would be logged in two parts
            found = widened(found)
            found.sum_duplicates()
        with np.errstate(over="ignore"):
            values = (found.data if self.sparse else found).astype(np.float32, copy=False)
        # A sum is finite only if every value is; it costs a tenth of asking each of them.
        if not np.isfinite(values.sum(dtype=np.float64)):
            self._refuse_holes(sparse.coo_matrix(found), rows)
        return found

    def _read_sparse(self, X, rows):
        data, indices, values, columns, lengths = X["data"], X["indices"], [], [], []
        for first, last, wanted in _spans(rows):
            entries = slice(int(self.indptr[first]), int(self.indptr[last]))
            v, c, n = data[entries], indices[entries], np.diff(self.indptr[first : last + 1])
            if len(wanted) < last - first:
                keep = np.zeros(last - first, dtype=bool)
                keep[wanted - first] = True
                here = np.repeat(keep, n)
                v, c, n = v[here], c[here], n[keep]
            values.append(v)
            columns.append(c)
            lengths.append(n)
        values, columns = np.concatenate(values), np.concatenate(columns)
        if columns.size and (columns.min() < 0 or columns.max() >= self.shape[1]):
            raise ValueError(f"an entry lies in a column that is not one of {self.shape[1]}")
        values = values.astype(np.float32) if values.dtype == np.float16 else values
        starts = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
        small = np.int32 if starts[-1] < 2**31 and self.shape[1] < 2**31 else np.int64
        parts = values, columns.astype(small, copy=False), starts.astype(small)
        return sparse.csr_matrix(parts, shape=(len(rows), self.shape[1]), copy=False)

    def _refuse_holes(self, stored, rows):
        with np.errstate(over="ignore"):
            bad = ~np.isfinite(stored.data.astype(np.float32))
        first = f"first in cell {rows[stored.row[bad][0]]:,}, gene {self.genes[stored.col[bad][0]]}"
        said = f"{many(int(bad.sum()), 'value')} between cells {rows[0]:,} and {rows[-1]:,}, {first}"
        raise DataError(
            f"{self.path.name} holds NaN or infinity, or more than float32 can: {said}: fill them or drop those genes"
        )

    def obs(self, name=None):
        """The table of cells, or one column of it."""
        from anndata.io import read_elem

        with self.reading() as file:
            columns = [str(c) for c in file["obs"].attrs.get("column-order", ())]
            if name is not None and name not in columns:
                raise DataError(f"{self.path.name} has no column {name!r} in obs: it has {shown(columns) or 'none'}")
            return read_elem(file["obs"] if name is None else file["obs"][name])


def _spans(rows):
    """Cut ascending `rows` into stretches (first, one past the last, rows of the stretch) that are read at once."""
    cuts = np.flatnonzero(np.diff(rows) > GAP + 1) + 1
    for part in np.split(rows, cuts):
        for at in range(0, len(part), SPAN):
            piece = part[at : at + SPAN]
            yield int(piece[0]), int(piece[-1]) + 1, piece
