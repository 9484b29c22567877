"""One data set of a corpus, its genes moved to the corpus's columns: in memory, or read from disk row by row.

Work and memory go with the entries that are stored, never with cells times genes.
"""

import os
from functools import cached_property

import h5py
import numpy as np
from scipy import sparse

from shared.data.cells import finite_matrix
from shared.data.corpus.fingerprint import Fingerprint, fingerprint, gene_keys, joined
from shared.data.errors import DataError
from shared.data.genes.kinds import gene_kind
from shared.data.genes.lists import names_of, once
from shared.data.stream.batches import BUFFER_CELLS
from shared.data.stream.stream import Stream, moved, places
from shared.data.validate.values import refuse_logs, units_of

HOW = "translate it first with shared.data.to_symbols or shared.data.genes.translate.to_human"
CURE = "put counts into adata.layers['counts']; where they are lost, np.expm1 of the logarithms"


class DataSet:
    """Counts of one data set, an AnnData or an ``.h5ad`` file, over genes of its own and then over those of a corpus.

    With `logs` logarithms are admitted, which can be compared with counts by the genes that a cell expresses, but not
    trained on. A file is read when its cells are asked for. ``genes`` are its own; once :meth:`align` was called,
    ``counts`` and ``logs``, log(1 + count), are float32 CSR that share their columns, or :class:`OnDisk`, over the
    genes of a corpus, and the bool array ``here`` says which of these it has.
    """

    def __init__(self, name, value, *, logs=False):
        self.name, self.stream = name, None
        if isinstance(value, (str, os.PathLike)):
            layer, units = _said(value)
            self.stream = Stream(value, layer=layer)
            self.genes, self.n_cells = self.stream.genes, len(self.stream)
            X = cleaned(name, self.stream.read(np.arange(min(256, self.n_cells))))
        else:
            if not hasattr(value, "var_names") or not hasattr(value, "layers"):
                raise DataError(f"{name!r} is {type(value).__name__}: give an AnnData, or the path of an .h5ad file")
            layer = "counts" if "counts" in value.layers else None
            X = self._X = cleaned(name, value.layers[layer] if layer else value)
            self.genes, self.n_cells, units = tuple(names_of(value)), value.n_obs, units_of(value)
        once(self.genes, name)
        if not logs and layer is None:  # beside log(1 + count) they would be on another scale
            refuse_logs(X.data, units, name, CURE)
        if self.stream is None:
            _ = self.hash  # while its own genes are there

    def align(self, genes, keys, *, empty=False):
        """Find the column of each gene; `empty` admits a set that has none of the corpus's."""
        place = places(self.genes, genes)
        self.here = np.isin(np.arange(len(genes)), place)
        if not self.here.any() and not empty:
            raise DataError(f"{self.name} has none of the {len(genes):,} genes; it has {gene_kind(self.genes)}: {HOW}")
        self._place, self.keys, self.shape = place, keys, (self.n_cells, len(genes))
        if self.stream is None:
            self.counts = self._moved(self._X)
            self.logs, self._X = logged(self.counts), None
        else:
            self.counts, self.logs = OnDisk(self, False), OnDisk(self, True)

    def _moved(self, X):
        in_place = np.array_equal(self._place, np.arange(self.shape[1]))
        return X if in_place else moved(X, self._place, self.shape[1])

    def _own(self):
        return [self._X] if self.stream is None else (cleaned(self.name, X) for X, _ in self.stream.chunks())

    @cached_property
    def hash(self) -> str:
        """Of its content, over all genes of its own."""
        keys = gene_keys(self.genes)
        return joined([fingerprint(X, keys) for X in self._own()]).hash

    def fingerprint(self, both) -> Fingerprint:
        """Over those genes of the corpus that are in the mask `both`; it has all of them."""
        return self._printed(both) if (self.here & ~both).any() else self._whole

    @cached_property
    def _whole(self):
        return self._printed(self.here)

    def _printed(self, genes):
        parts = [self.counts] if self.stream is None else map(self._moved, self._own())
        return joined([fingerprint(X[:, genes], self.keys[genes]) for X in parts])


class OnDisk:
    """The matrix of a data set on disk, of `shape` cells × genes of the corpus: it gives the rows it is asked for."""

    def __init__(self, data_set, logs):
        self._set, self._logs, self.shape = data_set, logs, data_set.shape

    def __repr__(self):
        return f"{self.shape[0]:,} cells × {self.shape[1]:,} genes in {self._set.stream.file.path.name}"

    def _made(self, X):
        X = self._set._moved(cleaned(self._set.name, X))
        return logged(X) if self._logs else X

    def __getitem__(self, rows):
        """float32 CSR of these rows: an array of positions in any order."""
        rows = np.asarray(rows)
        if rows.ndim != 1 or rows.dtype.kind not in "iu":
            raise DataError("a data set on disk gives whole rows: ask for an array of positions")
        if not rows.size:
            return sparse.csr_matrix((0, self.shape[1]), dtype=np.float32)
        wanted, back = np.unique(rows, return_inverse=True)
        return self._made(self._set.stream.read(wanted))[back]

    def shuffled(self, size, seed, memory):
        """Batches of `size` cells and their rows, as :meth:`shared.data.stream.Stream.batches` orders them."""
        stream = self._set.stream
        buffer = int(np.clip(memory // stream._bytes_per_cell(), size, max(size, BUFFER_CELLS)))
        return ((self._made(X), rows) for X, _, rows in stream.batches(size, seed=seed, buffer=buffer, dense=False))


def cleaned(name, X) -> sparse.csr_matrix:
    """A new float32 CSR of what is in `X`, no zero stored; NaN and negative values are refused."""
    made = sparse.csr_matrix(finite_matrix(X, name, np.float32))
    made.eliminate_zeros()
    if made.nnz and made.data.min() < 0:
        raise DataError(f"{name} holds negative values, which are no counts: give counts, or leave the set out")
    return made


def logged(X) -> sparse.csr_matrix:
    """log(1 + x) of a CSR, with whose columns it shares its memory."""
    return sparse.csr_matrix((np.log1p(X.data), X.indices, X.indptr), shape=X.shape, copy=False)


def _said(path):
    """What an ``.h5ad`` file says of itself: its layer of counts, or None for ``X``, and its units."""
    from anndata.io import read_elem

    try:
        with h5py.File(path, "r") as file:
            units = read_elem(file["uns/units"]) if "uns/units" in file else None
            return ("counts" if "counts" in file.get("layers", ()) else None), units
    except (OSError, KeyError, ValueError, TypeError):
        return None, None  # the stream says what is wrong with the file
