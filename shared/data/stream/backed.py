"""One ``.h5ad`` file, opened but not loaded: what it holds, and any of its cells.

The matrix is read through HDF5 directly, CSR or dense. One that is stored gene by gene is for
:func:`shared.data.stream.to_rows.to_rows` to rewrite.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np
from scipy import sparse

from shared.data.errors import DataError
from shared.data.genes.lists import many, shown

SPAN = 4096  # cells read at once
GAP = 4  # unwanted cells that are read along rather than read around: cheaper than another call


class Backed:
    """One ``.h5ad`` file, open for reading: its outline, and cells from it.

    Parameters
    ----------
    path : path
    layer : str or None
        ``None`` reads ``X``, ``"raw"`` reads ``raw.X``, any other name ``layers[layer]``.
    any_order : bool, default False
        Admit a matrix stored by gene, whose cells :meth:`read` cannot give.
    """

    def __init__(self, path, layer=None, *, any_order=False):
        self.path, self.layer = Path(path), layer
        self._handle = self._opener = None
        if self.path.suffix == ".zarr" or self.path.is_dir():
            kind = "a zarr store" if (self.path / ".zgroup").exists() or self.path.suffix == ".zarr" else "a folder"
            raise DataError(
                f"{self.path} is {kind}, and only .h5ad files are streamed: "
                'write it as one with anndata.read_zarr(path).write_h5ad("cells.h5ad")'
            )
        self.signature = self._stat()
        with self.reading():
            self._outline(self.handle(), any_order)

    def _stat(self):
        try:
            found = os.stat(self.path)
        except OSError as e:
            raise DataError(f"{self.path} cannot be read ({e.strerror}): check the path and your rights") from e
        return found.st_size, found.st_mtime_ns, found.st_ino

    def unchanged(self):
        """Raise if the file is not the one that was opened."""
        if self._stat() != self.signature:
            raise DataError(
                f"{self.path.name} was changed while it was being read: what came before does not fit what comes "
                "now. Start again, and let nothing write to it meanwhile"
            )

    @contextlib.contextmanager
    def reading(self):
        """Whatever the HDF5 library says, say it as :class:`DataError`."""
        try:
            yield
            self.unchanged()
        except DataError:
            raise
        except BlockingIOError as e:
            raise DataError(f"{self.path.name} is open for writing elsewhere: close it there first") from e
        except (OSError, KeyError, RuntimeError, ValueError, TypeError, IndexError, AttributeError) as e:
            self.unchanged()
            said = " ".join(str(e).split())
            raise DataError(f"{self.path.name} is no sound .h5ad file ({said}): fetch or write it again") from e

    def handle(self):
        """The open file, opened again in a forked process: HDF5 must not share one."""
        if self._handle is None or self._opener != os.getpid():
            import h5py

            # No cache of chunks: blocks come in random order, and a block is read by one call.
            self._handle = h5py.File(self.path, "r", rdcc_nbytes=0, locking="best-effort")
            self._opener = os.getpid()
        return self._handle

    def close(self):
        if self._handle is not None and self._opener == os.getpid():
            self._handle.close()
        self._handle = None

    def __getstate__(self):
        return self.__dict__ | {"_handle": None}

    def _outline(self, f, any_order):
        places = {None: ("X", "var"), "raw": ("raw/X", "raw/var")}
        self.where, var = places.get(self.layer, (f"layers/{self.layer}", "var"))
        if self.where not in f:
            has = [k for k in ("X", "raw/X") if k in f] + [f"layers/{k}" for k in f.get("layers", ())]
            has = (
                f"it has {', '.join(has)}: name one by layer=" if has else "it has no matrix at all: write it with one"
            )
            raise DataError(f"{self.path.name} has no {self.where}; {has}")
        X = f[self.where]
        if var not in f or "obs" not in f:
            raise DataError(f"{self.path.name} has no obs or no {var}: it is no .h5ad file of AnnData")
        kind = str(X.attrs.get("encoding-type") or X.attrs.get("h5sparse_format") or "array")
        self.by_gene = "csc" in kind
        if self.by_gene and not any_order:
            raise DataError(
                f"{self.path.name} stores {self.where} gene by gene (CSC), and no cell can be read without reading "
                f'all: convert it once with shared.data.stream.to_rows("{self.path.name}", "by-cells.h5ad")'
            )
        if kind not in ("csr", "csr_matrix", "csc", "csc_matrix", "array"):
            raise DataError(f"{self.path.name} stores {self.where} as {kind}: write it as CSR or as a dense array")
        self.sparse = kind != "array"
        self.shape = tuple(int(n) for n in (_shape_of(X) if self.sparse else X.shape))
        self.indptr = X["indptr"][:] if self.sparse else None
        self.genes = _names(f[var])
        values = X["data"] if self.sparse else X
        self.dtype, self.packed = values.dtype, values.compression
        self.entries = int(self.indptr[-1]) if self.sparse else int(np.prod(self.shape))
        self._sound(X)
        per_cell = max(1.0, self.entries / max(1, self.shape[0])) if self.sparse else 1
        self.chunk_cells = values.chunks[0] / per_cell if values.chunks else 1
        self.chunk_cells = min(self.chunk_cells, self.shape[0])

    def _sound(self, X):
        """Refuse an outline that does not fit itself, before a wrong number reaches compiled code."""
        if len(self.shape) != 2 or self.dtype.kind not in "fiub":
            raise ValueError(f"{self.where} should be a table of numbers, not {self.dtype} of shape {self.shape}")
        if len(self.genes) != self.shape[1]:
            raise ValueError(f"{self.where} has {self.shape[1]} columns and var {len(self.genes)} genes")
        if not self.sparse:
            return
        p = self.indptr
        if len(p) != self.shape[self.by_gene] + 1 or p[0] != 0 or (np.diff(p) < 0).any():
            raise ValueError(f"indptr does not count up from 0 once a {'gene' if self.by_gene else 'cell'}")
        if min(len(X["data"]), len(X["indices"])) < p[-1]:
            raise ValueError(f"indptr promises {p[-1]} entries and {min(len(X['data']), len(X['indices']))} are there")

    def read(self, rows):
        """Cells by ascending position, in the file's own number type: CSR or ndarray of shape (len(rows), n_genes)."""
        with self.reading():
            X = self.handle()[self.where]
            found = self._read_sparse(X, rows) if self.sparse else self._read_dense(X, rows)
        values = found.data if self.sparse else found
        # A sum is finite only if every value is; it costs a tenth of asking each of them.
        if values.dtype.kind == "f" and not np.isfinite(values.sum(dtype=np.float64)):
            self._refuse_holes(found, rows)
        return found

    def _read_sparse(self, X, rows):
        data, indices, indptr = X["data"], X["indices"], self.indptr
        values, columns, lengths = [], [], []
        for first, last, wanted in _spans(rows):
            a, b = int(indptr[first]), int(indptr[last])
            v, c, n = data[a:b], indices[a:b], np.diff(indptr[first : last + 1])
            if len(wanted) < last - first:
                keep = np.zeros(last - first, dtype=bool)
                keep[wanted - first] = True
                entries = np.repeat(keep, n)
                v, c, n = v[entries], c[entries], n[keep]
            values.append(v)
            columns.append(c)
            lengths.append(n)
        columns = np.concatenate(columns)
        if columns.size and (columns.min() < 0 or columns.max() >= self.shape[1]):
            raise ValueError(f"an entry lies in a column that is not one of {self.shape[1]}")
        starts = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
        small = np.int32 if starts[-1] < 2**31 and self.shape[1] < 2**31 else np.int64
        values = np.concatenate(values)
        parts = (values if values.dtype != np.float16 else values.astype(np.float32), columns.astype(small, copy=False))
        return sparse.csr_matrix((*parts, starts.astype(small)), shape=(len(rows), self.shape[1]), copy=False)

    def _read_dense(self, X, rows):
        found = np.empty((len(rows), self.shape[1]), dtype=self.dtype)
        at = 0
        for first, last, wanted in _spans(rows):
            part = X[first:last]
            found[at : at + len(wanted)] = part if len(wanted) == last - first else part[wanted - first]
            at += len(wanted)
        return found

    def _refuse_holes(self, X, rows):
        where = np.argwhere(~np.isfinite(X)) if not self.sparse else None
        if self.sparse:
            bad = np.flatnonzero(~np.isfinite(X.data))
            where = np.stack([np.searchsorted(X.indptr, bad, side="right") - 1, X.indices[bad]], axis=1)
        cell, gene = where[0]
        raise DataError(
            f"{self.path.name} holds NaN or infinity: {many(len(where), 'value')} between cells {rows[0]:,} and "
            f"{rows[-1]:,}, first in cell {rows[cell]:,}, gene {self.genes[gene]}: fill them or drop those genes"
        )

    def column(self, name):
        """One column of obs, as a Series or array."""
        from anndata.io import read_elem

        with self.reading():
            obs = self.handle()["obs"]
            columns = [str(c) for c in obs.attrs.get("column-order", ())]
            if name not in columns:
                raise DataError(f"{self.path.name} has no column {name!r} in obs: it has {shown(columns) or 'none'}")
            return read_elem(obs[name])

    def obs(self):
        """The whole table of cells."""
        from anndata.io import read_elem

        with self.reading():
            return read_elem(self.handle()["obs"])


def _shape_of(X):
    shape = X.attrs.get("shape", X.attrs.get("h5sparse_shape"))
    if shape is None:
        raise ValueError("a sparse matrix without a shape")
    return shape


def _names(table) -> tuple[str, ...]:
    """Names of the rows of an encoded data frame."""
    import h5py
    from anndata.io import read_elem

    if isinstance(table, h5py.Dataset):
        raise DataError("the file was written by anndata before 0.7: read it with anndata and write it again")
    return tuple(map(str, read_elem(table[table.attrs["_index"]])))


def _spans(rows):
    """Cut ascending `rows` into stretches (first, one past the last, rows of the stretch) that are read at once."""
    cuts = np.flatnonzero(np.diff(rows) > GAP + 1) + 1
    for part in np.split(rows, cuts):
        for at in range(0, len(part), SPAN):
            piece = part[at : at + SPAN]
            yield int(piece[0]), int(piece[-1]) + 1, piece
