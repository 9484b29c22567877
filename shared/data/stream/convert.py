"""Rewrite a matrix of an ``.h5ad`` file cell by cell (CSR), at constant memory."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy import sparse

from shared.data.constraints import OneOf, require
from shared.data.errors import DataError
from shared.data.stream.backed import Backed

STEP = 2 << 20  # entries held at once
BANDS = 200  # temporary files open at once at most
PACKED_CHUNK = (
    16_384  # entries: about a hundred cells, so that one block of a shuffle unpacks little more than it needs
)


def to_rows(path_in, path_out, *, layer=None, compression=None, progress=True) -> Path:
    """Write a copy of an ``.h5ad`` file whose matrix is stored cell by cell.

    A matrix stored gene by gene (CSC) is sorted through temporary files beside `path_out`: two passes over it and
    about 12 bytes of disk an entry. A dense or CSR matrix is copied in one pass, so this also packs, unpacks, or
    re-chunks a file. Everything else in the file is copied as it is.

    Parameters
    ----------
    path_in, path_out : path
        `path_out` must not exist yet; it appears when it is complete.
    layer : str, optional
        Convert ``layers[layer]``, or ``raw.X`` for ``"raw"``, instead of ``X``.
    compression : {None, "lzf", "gzip"}, default None
        Uncompressed is largest and fastest.
    progress : bool, default True
        Show a bar, on a terminal.

    Returns
    -------
    Path
        `path_out`.

    Raises
    ------
    DataError
        If `path_in` cannot be read or is damaged, `path_out` exists or cannot be written, or the disk is too small.
    """
    import h5py

    path_in, path_out = Path(path_in), Path(path_out)
    require(OneOf(None, "lzf", "gzip"), compression=compression)
    if path_out.exists():
        raise DataError(f"{path_out.name} exists already: name another file, or delete it first")
    source = Backed(path_in, layer, any_order=True)
    _room(source, path_out)
    try:
        with tempfile.TemporaryDirectory(dir=path_out.parent, prefix=f".{path_out.name}-") as folder:
            draft = Path(folder) / "draft.h5ad"
            with h5py.File(draft, "w") as out:
                with source.reading():
                    _copy_others(source.handle(), out, source.where)
                # How many values of a dense matrix are not zero is known at the end only.
                entries = source.entries if source.sparse else None
                write = Writer(out.create_group(source.where), source.shape, source.dtype, entries, compression)
                pieces = _sorted_bands(source, Path(folder)) if source.by_gene else _in_order(source)
                with _bar(source, progress) as bar:
                    for piece in pieces:
                        bar.update(write(*piece))
                write.close()
            os.replace(draft, path_out)
    except OSError as e:
        raise DataError(f"{path_out.name} cannot be written ({e.strerror or e}): check the folder and its disk") from e
    finally:
        source.close()
    return path_out


def _room(source, path_out):
    try:
        free = shutil.disk_usage(path_out.parent).free
    except OSError as e:
        raise DataError(f"{path_out.parent} is no folder to write to ({e.strerror}): make it first") from e
    entry = source.dtype.itemsize + 4
    need = source.signature[0] + source.entries * (entry + (entry + 4 if source.by_gene else 0))
    if free < need:
        raise DataError(f"{path_out.parent} has {free / 1e9:.1f} GB free and {need / 1e9:.1f} GB are needed: make room")


def _bar(source, progress):
    from tqdm import tqdm

    return tqdm(total=source.shape[0], unit="cell", unit_scale=True, desc="to rows", disable=None if progress else True)


def _copy_others(f, out, where):
    """Everything but the matrix; the groups on the way to it are made anew with their attributes."""
    parent, _, name = where.rpartition("/")
    out.attrs.update(f.attrs)
    for key in f:
        if key not in (parent, where):
            f.copy(key, out)
    if parent:
        made = out.create_group(parent)
        made.attrs.update(f[parent].attrs)
        for key in f[parent]:
            if key != name:
                f[parent].copy(key, made)


class Writer:
    """Appends CSR pieces to an encoded sparse matrix."""

    def __init__(self, group, shape, dtype, entries=None, compression=None, chunk=PACKED_CHUNK):
        self.group, self.starts, self.at = group, [np.zeros(1, np.int64)], 0
        group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
        group.attrs["shape"] = np.array(shape, np.int64)
        self.known = entries is not None and not compression
        packed = {"maxshape": (None,), "chunks": (chunk,), "compression": compression}
        size, how = (entries, {}) if self.known else (0, packed)
        self.data = group.create_dataset("data", (size,), dtype, **how)
        self.indices = group.create_dataset("indices", (size,), np.int32 if shape[1] < 2**31 else np.int64, **how)

    def __call__(self, values, columns, starts) -> int:
        end = self.at + len(values)
        if not self.known:
            self.data.resize((end,))
            self.indices.resize((end,))
        self.data[self.at : end], self.indices[self.at : end] = values, columns
        self.starts.append(self.at + starts[1:].astype(np.int64))
        self.at = end
        return len(starts) - 1

    def close(self):
        self.group.create_dataset("indptr", data=np.concatenate(self.starts))


def _in_order(source):
    per_cell = source.entries / max(1, source.shape[0])
    size = max(1, int(STEP // max(1, per_cell)))
    for at in range(0, source.shape[0], size):
        X = source.read(np.arange(at, min(at + size, source.shape[0])))
        X = X if sparse.issparse(X) else sparse.csr_matrix(X)
        yield X.data, X.indices, X.indptr


def _columns(source):
    """A matrix stored by gene, as pieces: values, cells, genes, each about STEP entries long."""
    n, indptr = source.shape[0], source.indptr
    for a in range(0, source.entries, STEP):
        b = min(a + STEP, source.entries)
        with source.reading():
            X = source.handle()[source.where]
            values, cells = X["data"][a:b], X["indices"][a:b]
            if cells.size and (cells.min() < 0 or cells.max() >= n):
                raise ValueError(f"an entry lies in a cell that is not one of {n}")
        first, last = np.searchsorted(indptr, a, side="right") - 1, np.searchsorted(indptr, b)
        lengths = np.diff(np.clip(indptr[first : last + 1], a, b))
        yield values, cells, np.repeat(np.arange(first, last), lengths)


def _sorted_bands(source, folder):
    """Bands of neighbouring cells as parts of a CSR: entries are dealt out to a file a band, and each file
    is sorted alone.
    """
    n = source.shape[0]
    entry = np.dtype([("cell", np.int32 if n < 2**31 else np.int64), ("gene", np.int32), ("value", source.dtype)])
    counts = np.zeros(n, np.int64)
    for _, cells, _ in _columns(source):
        counts += np.bincount(cells, minlength=n)
    ends = np.cumsum(counts)
    bands = int(np.clip(-(-source.entries // STEP), 1, min(BANDS, n)))
    # Bands of about as many entries each, and of whole cells.
    edges = np.searchsorted(ends, source.entries * np.arange(1, bands) / bands, side="left") + 1
    edges = np.unique(np.concatenate([[0], np.minimum(edges, n), [n]]))
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(open(folder / f"band-{i}", "wb")) for i in range(len(edges) - 1)]
        for values, cells, genes in _columns(source):
            order = np.argsort(cells, kind="stable")
            piece = np.empty(len(cells), entry)
            piece["cell"], piece["gene"], piece["value"] = cells[order], genes[order], values[order]
            cuts = np.searchsorted(piece["cell"], edges)
            for f, a, b in zip(files, cuts[:-1], cuts[1:]):
                piece[a:b].tofile(f)
    for i, (a, b) in enumerate(pairwise(edges)):
        path = folder / f"band-{i}"
        found = np.fromfile(path, entry)
        path.unlink()
        # Stable: within a cell the genes stay in their order.
        found = found[np.argsort(found["cell"], kind="stable")]
        yield found["value"], found["gene"], np.concatenate([[0], np.cumsum(counts[a:b])])
