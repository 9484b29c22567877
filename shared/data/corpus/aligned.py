"""One data set of a corpus, its genes moved to the corpus's columns: in memory, or read from disk row by row.

Work and memory go with the entries that are stored, never with cells times genes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import sparse

from shared.data.corpus.fingerprint import Fingerprint, fingerprint, gene_keys, joined
from shared.data.errors import DataError
from shared.data.genes.kinds import gene_kind
from shared.data.genes.lists import many, names_of, once
from shared.data.stream import Stream
from shared.data.stream.batches import BUFFER_CELLS
from shared.data.validate.structure import matrix_of, widened
from shared.data.validate.values import may_be_logged, units_of


class Columns(NamedTuple):
    """Genes of a corpus: the place of each, and its key for fingerprints."""

    place: dict[str, int]
    keys: np.ndarray

    @classmethod
    def of(cls, genes) -> Columns:
        return cls({gene: i for i, gene in enumerate(genes)}, gene_keys(genes))


class Aligned:
    """What both forms have in common.

    Attributes
    ----------
    name : str
    shape : tuple of int
        Cells and genes of the corpus, once :meth:`align` was called.
    names : tuple of str or None
        What each of its own genes is called in the corpus; None for one that has no name there.
    report : GeneReport or None
        Of a translation.
    logged : bool
        Whether the values are logarithms as they come.
    logs, counts : matrix
        Aligned: CSR, or :class:`OnDisk`.
    here : bool ndarray, genes of the corpus
        Which of them it has.
    hash : str
        Of its content, over all genes of its own.
    """

    def align(self, columns: Columns, *, empty=False):
        """Find the place of each gene; `empty` admits a set that has none of the corpus's."""
        place = np.fromiter((columns.place.get(g, -1) for g in self.names), np.int32, len(self.names))
        self.here = np.zeros(len(columns.place), bool)
        self.here[place[place >= 0]] = True
        if not self.here.any() and not empty:
            kind = gene_kind([g for g in self.names if g])
            raise DataError(
                f"{self.name} has none of the {many(len(columns.place), 'gene')}; it has {kind}: translate it first "
                "with shared.data.to_symbols, or with to_human=True"
            )
        in_place = len(place) == len(columns.place) and (place == np.arange(len(place))).all()
        self.keys, self._place, self._whole = columns.keys, None if in_place else place, None
        self.shape = (self.n_cells, len(columns.place))

    def fingerprint(self, both) -> Fingerprint:
        """Over those genes of the corpus that are in the mask `both`; it has all of them."""
        if (self.here & ~both).any():
            return joined([fingerprint(X, self.keys, both) for X in self._parts()])
        if self._whole is None:
            self._look()
        return self._whole

    def _look(self):
        self._whole = joined([fingerprint(X, self.keys) for X in self._parts()])

    def _move(self, X):
        """CSR over its own genes to CSR over the corpus's."""
        if self._place is None:
            return X
        place = self._place[X.indices]
        kept = place >= 0
        before = np.zeros(len(kept) + 1, X.indptr.dtype)
        np.cumsum(kept, out=before[1:])
        moved = sparse.csr_matrix((X.data[kept], place[kept], before[X.indptr]), shape=(X.shape[0], self.shape[1]))
        moved.sum_duplicates()
        return moved


class InMemory(Aligned):
    """CSR of counts and of their logarithms, which share their columns.

    Parameters
    ----------
    name : str
    X : CSR, as :func:`cleaned` gives it
    genes : tuple of str
    logged, to_human : bool
    given : ndarray, optional
        Memory that is the caller's.
    file : OnFile, optional
        Where the values were read, for the hash if it is asked for.
    """

    def __init__(self, name, X, genes, logged, to_human, given=(), file=None):
        self.name, self.logged, self.n_cells, self._X, self._given = name, logged, X.shape[0], X, given
        self.names, self.report = translated(name, genes, to_human, logged)
        self._file, self._hash = file, None if file else fingerprint(X, *_own_keys(self.names)).hash

    @property
    def hash(self):
        return self._hash or self._file.hash

    @classmethod
    def of(cls, name, adata, to_human):
        """From an AnnData: ``layers["counts"]`` or ``X``."""
        if not adata.n_obs or not adata.n_vars:
            raise DataError(f"{name} is empty: {many(adata.n_obs, 'cell')} × {many(adata.n_vars, 'gene')}")
        has_counts = "counts" in adata.layers
        X = adata.layers["counts"] if has_counts else adata.X
        if X is None:
            raise DataError(f"{name} has neither X nor layers['counts']: put the counts into one of them")
        X = matrix_of(X, name)
        found = cleaned(name, X)
        logged = not has_counts and is_logged(name, units_of(adata), found)
        return cls(name, found, tuple(names_of(adata)), logged, to_human, getattr(X, "data", ()))

    def align(self, columns, *, empty=False):
        super().align(columns, empty=empty)
        X = self._move(self._X)
        # What the caller does to his matrix later must not reach the corpus.
        X = X.copy() if X is self._X and len(self._given) and np.shares_memory(X.data, self._given) else X
        self._X = self._given = None
        self.logs = X if self.logged else _with(X, np.log1p(X.data))
        self.counts = _with(X, np.expm1(X.data)) if self.logged else X

    def _parts(self):
        return [self.logs if self.logged else self.counts]

    def loaded(self, columns):
        return self


class OnFile(Aligned):
    """An ``.h5ad`` file: cells are read, moved and logged when they are asked for."""

    def __init__(self, name, path, to_human):
        self.name, self.to_human, self._hash = name, to_human, None
        layer, units = _said(path)
        self.stream = Stream(path, layer=layer)
        self.n_cells = len(self.stream)
        some = cleaned(name, self.read(np.arange(min(256, self.n_cells))))
        self.logged = layer is None and is_logged(name, units, some)
        self.names, self.report = translated(name, self.stream.genes, to_human, self.logged)

    def align(self, columns, *, empty=False):
        super().align(columns, empty=empty)
        self.logs, self.counts = OnDisk(self, True), OnDisk(self, False)

    def read(self, rows):
        """Rows in ascending order, over its own genes."""
        # An open file costs HDF5 about a megabyte, and a corpus may have more files than a process may open.
        with self.stream:
            return self.stream.read(rows)

    def _chunks(self):
        with self.stream:
            yield from self.stream.chunks()

    def made(self, X, logs):
        """What the stream read, as CSR of logarithms or of counts."""
        X = self._move(cleaned(self.name, X))
        return X if logs == self.logged else _with(X, (np.log1p if logs else np.expm1)(X.data))

    @property
    def hash(self):
        if self._hash is None:
            self._look()
        return self._hash

    def _parts(self):
        return (self.made(X, self.logged) for X, _ in self._chunks())

    def _look(self):
        """Both fingerprints in one pass over the file."""
        own, whole, keys = [], [], _own_keys(self.names)
        for X, _ in self._chunks():
            X = cleaned(self.name, X)
            own.append(fingerprint(X, *keys))
            whole.append(fingerprint(self._move(X), self.keys))
        self._hash, self._whole = joined(own).hash, joined(whole)

    def loaded(self, columns):
        X = cleaned(self.name, self.read(np.arange(self.n_cells)))
        found = InMemory(self.name, X, self.stream.genes, self.logged, self.to_human, file=self)
        found.align(columns)
        return found


class OnDisk:
    """The matrix of a data set on disk: it gives the rows it is asked for.

    Attributes
    ----------
    shape : tuple of int
        Cells and genes of the corpus.
    """

    def __init__(self, file, logs):
        self._file, self._logs, self.shape = file, logs, file.shape

    def __repr__(self):
        return f"{self.shape[0]:,} cells × {self.shape[1]:,} genes in {self._file.stream.files[0].path.name}"

    def __getitem__(self, rows):
        """float32 CSR of these rows: positions in any order, a mask, or a slice."""
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(self.shape[0]))
        rows = np.asarray(rows)
        if rows.dtype == bool:
            if rows.shape != self.shape[:1]:
                raise DataError(f"a mask of shape {rows.shape} was given for {self.shape[0]:,} cells: one value a cell")
            rows = np.flatnonzero(rows)
        if not rows.size:
            return sparse.csr_matrix((0, self.shape[1]), dtype=np.float32)
        if rows.ndim != 1 or rows.dtype.kind not in "iu":
            raise DataError("a data set on disk gives whole rows: ask by positions, a mask or a slice")
        wanted, back = np.unique(rows, return_inverse=True)
        X = self._file.made(self._file.read(wanted), self._logs)
        return X if len(wanted) == len(rows) and (np.diff(back) > 0).all() else X[back]

    def shuffled(self, size, seed, memory):
        """Batches of `size` cells and their rows, as :meth:`shared.data.stream.Stream.batches` orders them."""
        stream = self._file.stream
        buffer = int(np.clip(memory // stream._bytes_per_cell(), size, max(size, BUFFER_CELLS)))
        for X, _, rows in stream.batches(size, seed=seed, buffer=buffer, dense=False):
            stream.close()
            yield self._file.made(X, self._logs), rows


def cleaned(name, X) -> sparse.csr_matrix:
    """`X` as float32 CSR, each entry once and no zero stored; `X` itself is not changed.

    Raises
    ------
    DataError
        On NaN and negative values.
    """
    made = sparse.csr_matrix(X if getattr(X, "format", "") == "csr" else widened(X), dtype=np.float32)
    if not made.has_canonical_format or not made.data.all():
        # What SciPy did not have to convert is still the caller's.
        made = made.copy() if sparse.issparse(X) else made
        made.sum_duplicates()
        made.eliminate_zeros()
    if made.nnz and not np.isfinite(made.data.sum(dtype=np.float64)):
        raise DataError(f"{name} holds NaN or infinity: fill them, or drop those genes")
    if made.nnz and made.data.min() < 0:
        raise DataError(f"{name} holds negative values, which are no counts: give counts, or leave the set out")
    return made


def is_logged(name, units, X) -> bool:
    """Whether values are logarithms, by what the data say of themselves."""
    if isinstance(units, str) and units == "log":
        return True
    if may_be_logged(X.data):
        raise DataError(
            f"{name} may hold counts or logarithms (fractions, none above {X.data.max():.3g}): put counts into "
            'adata.layers["counts"]; of logarithms say adata.uns["units"] = "log"'
        )
    return False


def translated(name, genes, to_human, logged):
    """What the genes are called in the corpus, None for those it cannot have, and the report of the translation."""
    genes = tuple(genes)
    once(genes, name)
    if not to_human or gene_kind(genes).organism != "mouse":
        return genes, None
    import anndata as ad
    import pandas as pd

    from shared.data.genes.translate import to_human as translate

    # Names are all that is translated, so one cell without counts stands in for the others.
    one = ad.AnnData(sparse.csr_matrix((1, len(genes)), dtype=np.float32), var=pd.DataFrame(index=list(genes)))
    renamed, report = translate(one)
    if report.merged and logged:
        raise DataError(
            f"{name}: {many(report.merged, 'gene')} would be added to another, which logarithms cannot be: give "
            "counts, or translate the set first with shared.data.genes.translate.to_human(adata, duplicates='first')"
        )
    partner = {old: new for new, before in renamed.var["before"].items() for old in before.split(";")}
    return tuple(partner.get(g) for g in genes), report


def _with(X, data):
    """The same entries with other values."""
    return sparse.csr_matrix((data, X.indices, X.indptr), shape=X.shape, copy=False)


def _own_keys(names):
    """Keys of a set's own genes, and which of them have a name in the corpus."""
    return gene_keys([g or "" for g in names]), np.array([g is not None for g in names])


def _said(path):
    """What an ``.h5ad`` file says of itself: its layer of counts, or None for ``X``, and its units."""
    import h5py
    from anndata.io import read_elem

    try:
        with h5py.File(path, "r") as file:
            units = read_elem(file["uns/units"]) if "uns/units" in file else None
            return ("counts" if "counts" in file.get("layers", ()) else None), units
    except (OSError, KeyError, ValueError, TypeError):
        return None, None  # the stream says what is wrong with the file
