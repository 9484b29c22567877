"""Cells told by their content: the same cell under another name, in another row or with its genes in another order.

Each gene's name becomes a random number of 64 bits, and a cell's number is the sum, modulo 2**64, over the genes it
expresses; sums do not ask for an order. A gene that no cell expresses adds nothing, so a file that leaves it out gives
the same numbers. Two numbers are made of each cell. One mixes in how much of the gene there is. The other asks only
which genes there are, so that counts agree with what was scaled or logged from them.

Unlike cells get one number with a chance of about 1 in 10**19. What the numbers cannot see: a copy whose genes have
other names, or whose values were smoothed, imputed or drawn anew.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np

TOLD = 10  # genes that a cell must express (and leave silent, where values are not asked) to count as told apart
BLOCK = 1 << 15  # entries hashed at a time, which stay in the processor's cache


class Fingerprint(NamedTuple):
    """What tells the cells of one data set from others.

    Attributes
    ----------
    values : uint64 ndarray of shape (n_cells,)
        From the genes that a cell expresses and how much of each.
    pattern : uint64 ndarray of shape (n_cells,)
        From the genes alone.
    expressed : int32 ndarray of shape (n_cells,)
        How many genes that are.
    """

    values: np.ndarray
    pattern: np.ndarray
    expressed: np.ndarray

    @property
    def hash(self) -> str:
        """SHA-256 of the data set: all its cells by their values, in no order."""
        return hashlib.sha256(np.sort(self.values).astype("<u8").tobytes()).hexdigest()


def gene_keys(genes) -> np.ndarray:
    """uint64 ndarray: a number for each name, the same on every machine."""
    found = b"".join(hashlib.blake2b(g.encode(), digest_size=8).digest() for g in genes)
    return np.frombuffer(found, "<u8").astype(np.uint64)


def fingerprint(X, keys, keep=None) -> Fingerprint:
    """Fingerprint of cells.

    Parameters
    ----------
    X : CSR of shape (n_cells, n_genes)
        Each entry once.
    keys : uint64 ndarray of shape (n_genes,)
        Of :func:`gene_keys`.
    keep : bool ndarray of shape (n_genes,), optional
        Look at these genes only.
    """
    n = X.shape[0]
    found = Fingerprint(np.zeros(n, np.uint64), np.zeros(n, np.uint64), np.zeros(n, np.int32))
    start = 0
    while start < n:
        stop = int(np.searchsorted(X.indptr, X.indptr[start] + BLOCK, side="right")) - 1
        stop = min(n, max(stop, start + 1))
        entries = slice(X.indptr[start], X.indptr[stop])
        genes, values = X.indices[entries], X.data[entries].astype(np.float32, copy=False)
        counted = values != 0
        if keep is not None:
            counted &= keep[genes]
        key = keys[genes]
        mixed = _mixed(key, values)
        if not counted.all():
            key[~counted] = mixed[~counted] = 0
        edges = X.indptr[start : stop + 1] - X.indptr[start]
        for out, terms in zip(found, (mixed, key, counted), strict=True):
            total = np.zeros(len(terms) + 1, out.dtype)
            np.cumsum(terms, dtype=out.dtype, out=total[1:])
            out[start:stop] = total[edges[1:]] - total[edges[:-1]]
        start = stop
    return found


def _mixed(key, values):
    """A random number for each pair of a gene and a value (the last steps of the generator SplitMix64)."""
    z = values.view(np.uint32).astype(np.uint64)
    z *= np.uint64(0x9E3779B97F4A7C15)
    z += key
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z ^= z >> np.uint64(shift)
        z *= np.uint64(factor)
    return z ^ (z >> np.uint64(31))


def joined(parts) -> Fingerprint:
    """Fingerprints of successive cells as one."""
    return Fingerprint(*(np.concatenate(p) for p in zip(*parts, strict=True)))


def shared_cells(a: Fingerprint, b: Fingerprint, n_genes: int) -> int:
    """How many cells two data sets share, as far as it can be told.

    Parameters
    ----------
    a, b : Fingerprint
        Taken over the same genes.
    n_genes : int
        How many genes those were.

    Returns
    -------
    int
        Cells that agree in values, or in which genes they express, whichever finds more. A cell with fewer than ten
        genes tells nothing, and neither does a pattern that a data set shows more than once: all samples of an array
        express every gene.
    """
    told = [f.expressed >= TOLD for f in (a, b)]
    values = np.intersect1d(*(np.unique(f.values[t]) for f, t in zip((a, b), told, strict=True)), assume_unique=True)
    told = [t & (f.expressed <= n_genes - TOLD) for f, t in zip((a, b), told, strict=True)]
    patterns = np.intersect1d(*(_single(f.pattern[t]) for f, t in zip((a, b), told, strict=True)), assume_unique=True)
    return max(len(values), len(patterns))


def _single(values):
    found, times = np.unique(values, return_counts=True)
    return found[times == 1]
