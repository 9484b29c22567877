"""Many data sets over one list of genes, in memory or on disk, and the certainty that one of them is really left out.

``corpus.without("a")`` leaves out the data set, and with it every other one that holds its cells, whatever its name:
cells are told by their content (:mod:`shared.data.corpus.fingerprint`).
"""

import copy
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Self

import numpy as np
import pandas as pd

from shared.data.constraints import Whole, require
from shared.data.corpus.aligned import DataSet, OnDisk
from shared.data.corpus.fingerprint import gene_keys, shared_cells
from shared.data.errors import DataError
from shared.data.genes.kinds import gene_kind
from shared.data.genes.lists import many, names_of, once, shown
from shared.data.stream.batches import BUFFER_BYTES

SHARE = 0.05  # of the smaller data set's cells: from here on two sets count as one
MEMORY = 4 * BUFFER_BYTES  # for the buffers of all files together


class Corpus:
    """Data sets aligned to one list of genes.

    :class:`DataError` is raised if there is no set, a set is no counts, sets share no gene, or a list names a gene
    twice.

    Parameters
    ----------
    sets : mapping of str to AnnData or path
        Counts, cells × genes: ``layers["counts"]`` where there is one, else ``X``. Logarithms are refused, for beside
        counts they would be on another scale. A path to an ``.h5ad`` file stays on disk.
    genes : {"common", "union"} or sequence of str, default "common"
        Genes that all sets have, or that any has, sorted; or these, in this order. A gene that a set lacks is zero.

    Attributes
    ----------
    genes, left_out : tuple of str
        ``left_out`` is what :meth:`without` left out.
    matrices, counts : dict of str to matrix
        log(1 + count), and counts, by name: float32, cells × genes, CSR (12 bytes an entry for both) or, on disk, a
        :class:`~shared.data.corpus.aligned.OnDisk`, which gives CSR for the rows it is asked for.
    memo : dict
        What was computed from one data set and its name tells, for parts of the corpus to share.
    """

    def __init__(self, sets, *, genes="common"):
        if not isinstance(sets, Mapping) or not sets or not all(isinstance(name, str) and name for name in sets):
            raise DataError("sets should be a dict of names (words) and AnnData or paths, and hold one at least")
        self._sets = {name: DataSet(name, value) for name, value in sets.items()}
        self.genes = _gene_list(genes, {name: s.genes for name, s in self._sets.items()})
        self._keys, self.left_out, self.memo = gene_keys(self.genes), (), {}
        for s in self._sets.values():
            s.align(self.genes, self._keys)

    @property
    def matrices(self) -> dict:
        return {name: s.logs for name, s in self._sets.items()}

    @property
    def counts(self) -> dict:
        return {name: s.counts for name, s in self._sets.items()}

    def __len__(self):
        return len(self._sets)

    def __iter__(self):
        return iter(self._sets)

    def __repr__(self):
        n = sum(s.n_cells for s in self._sets.values())
        on_disk = sum(s.stream is not None for s in self._sets.values())
        where = f", {on_disk} on disk" if on_disk else ""
        return f"Corpus of {many(len(self), 'data set')}{where}: {n:,} cells × {len(self.genes):,} genes"

    def select(self, names) -> Self:
        """The corpus with these data sets only, over the same genes; it shares its memory."""
        names = [names] if isinstance(names, str) else list(names)
        lost = [name for name in names if name not in self._sets]
        if lost or not names:
            raise DataError(f"the corpus has no data set {shown(lost) or 'without a name'}; it has {shown(self)}")
        part = copy.copy(self)
        part._sets = {name: self._sets[name] for name in names}
        return part

    def batches(self, n_batches, rng) -> Iterator[tuple]:
        """One epoch: at each step a batch from every data set, until some data set has no more.

        A set of n cells has batches of ``n // n_batches``, one at least; the last of a set may be smaller. `rng`, a
        Generator or int, draws the order. Cells in memory are shuffled; those of a file come as
        :meth:`shared.data.stream.Stream.batches` gives them. Yields two tuples in the order of the data sets: log(1 +
        count), float32 CSR of cells × genes, and which cells these are, int64 rows of ``corpus.matrices[name]``.
        """
        require(Whole(1), n_batches=n_batches)
        rng, sets = np.random.default_rng(rng), list(self.matrices.values())
        sizes = [max(1, X.shape[0] // n_batches) for X in sets]
        memory = MEMORY // max(1, sum(isinstance(X, OnDisk) for X in sets))
        drawn = [_drawn(X, size, rng, memory) for X, size in zip(sets, sizes)]
        n_steps = min(-(-X.shape[0] // size) for X, size in zip(sets, sizes))
        return (tuple(zip(*(next(batches) for batches in drawn))) for _ in range(n_steps))

    def overlaps(self):
        """Cells that two data sets share: a DataFrame of one row a pair that shares any, the largest share first.

        ``first``, ``second``, ``cells`` (how many) and ``share`` (of the smaller set's cells). Only the genes that both
        have and that are among ``genes`` are compared.
        """
        rows = []
        for first, second in combinations(self._sets, 2):
            n, share = _overlap(self._sets[first], self._sets[second])
            if n:
                rows.append((first, second, n, share))
        found = pd.DataFrame(rows, columns=["first", "second", "cells", "share"])
        return found.sort_values("share", ascending=False, kind="stable", ignore_index=True)

    def _like(self, one) -> dict[str, float]:
        """Sets that share cells with `one`, and the share."""
        shares = {name: _overlap(one, s)[1] for name, s in self._sets.items() if s is not one}
        return {name: share for name, share in shares.items() if share >= SHARE}

    def without(self, name) -> Self:
        """The corpus without one data set and without every other that holds its cells.

        `name` is a set of the corpus, or an AnnData to be tested on that may be in it under any name. A set goes if it
        shares at least 5 % of the smaller one's cells; ``left_out`` says which did. The genes stay. :class:`DataError`
        is raised if there is no such set, or none is left.
        """
        named = isinstance(name, str)
        one = self.select(name)._sets[name] if named else self._outside(name)
        gone = [*([name] if named else []), *self._like(one)]
        kept = [n for n in self._sets if n not in gone]
        if not kept:
            raise DataError(f"nothing is left: without {shown(gone)} the corpus holds no data set")
        part = self.select(kept)
        part.left_out = (*self.left_out, *gone)
        return part

    def check_absent(self, adata) -> None:
        """Raise :class:`DataError` if :meth:`without` would find a data set (AnnData or path) in the corpus, under any
        name."""
        found = self._like(self._outside(adata))
        if found:
            said = ", ".join(f"{name!r} ({share:.0%} of the cells of the smaller)" for name, share in found.items())
            raise DataError(f"the data set is in the corpus as {said}: pre-train on corpus.without(adata)")

    def _outside(self, adata):
        one = DataSet("the data set", adata, logs=True)
        one.align(self.genes, self._keys, empty=True)
        return one


def _gene_list(genes, names) -> tuple[str, ...]:
    if isinstance(genes, str):
        if genes not in ("common", "union"):
            raise DataError(f"genes={genes!r} is not known: choose 'common', 'union', or give a list of names")
        found = list(map(set, names.values()))
        merged = set.intersection(*found) if genes == "common" else set.union(*found)
        if len(merged) < min(map(len, found)) / 10:
            kinds = {name: gene_kind(own) for name, own in names.items()}
            mixed = {k.organism for k in kinds.values()} >= {"human", "mouse"}
            if not merged or mixed:
                said = "; ".join(f"{name}: {kind}" for name, kind in list(kinds.items())[:4])
                cure = "shared.data.genes.translate.to_human" if mixed else "shared.data.to_symbols"
                raise DataError(f"the data sets share {many(len(merged), 'gene')} ({said}): use {cure}, or 'union'")
        return tuple(sorted(merged))
    found = tuple(names_of(genes))
    once(found, "genes")
    if not found:
        raise DataError("genes names none: give at least one, or 'common' or 'union'")
    return found


def _overlap(a, b):
    """How many cells two data sets share, and which share of the smaller one's."""
    both = a.here & b.here
    same = a.hash == b.hash
    n = a.n_cells if same else shared_cells(a.fingerprint(both), b.fingerprint(both), int(both.sum()))
    return n, n / min(a.n_cells, b.n_cells)


def _drawn(X, size, rng, memory):
    if isinstance(X, OnDisk):
        return X.shuffled(size, int(rng.integers(2**31)), memory)
    order = rng.permutation(X.shape[0])
    parts = (order[at : at + size] for at in range(0, len(order), size))
    return ((X[rows], rows) for rows in parts)
