"""Cells told by their content: the same cell under another name, in another row or with its genes in another order.

Each gene's name becomes a random number of 64 bits, and a cell's number is the sum, modulo 2**64, over the genes it
expresses, in any order. Two numbers are made of each cell: one mixes in how much of the gene there is; the other asks
only which genes there are, so that counts agree with what was scaled or logged from them. Unlike cells get one number
with a chance of about 1 in 10**19. What the numbers cannot see: a copy whose genes have other names, or whose values
were smoothed, imputed or drawn anew.
"""

import hashlib
from typing import NamedTuple

import numpy as np
from scipy import sparse

TOLD = 10  # genes that a cell must express (and leave silent, where values are not asked) to count as told apart
BLOCK = 1 << 18  # entries hashed at a time


class Fingerprint(NamedTuple):
    """What tells the cells of one data set from others: ndarrays of shape (n_cells,).

    `values` and `pattern`, uint64, are of the genes that a cell expresses and how much of each, and of the genes alone;
    `expressed`, int32, is how many genes that are.
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


def fingerprint(X, keys) -> Fingerprint:
    """Fingerprint of cells: a float32 CSR, each entry once and none of them zero, and the keys of its genes."""
    parts, step = [], max(1, BLOCK * X.shape[0] // max(1, X.nnz))
    for at in range(0, X.shape[0], step):
        part = X[at : at + step]
        key = keys[part.indices]
        sums = (
            sparse.csr_matrix((terms, part.indices, part.indptr), shape=part.shape) @ np.ones(len(keys), terms.dtype)
            for terms in (_mixed(key, part.data), key, np.ones(part.nnz, np.int32))
        )
        parts.append(Fingerprint(*sums))
    return joined(parts)


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
    """How many cells two data sets share, as far as it can be told from fingerprints over the same `n_genes` genes.

    Cells are counted that agree in values, or in which genes they express, whichever finds more. A cell with fewer than
    ten genes tells nothing, and neither does a pattern that a data set shows more than once: all samples of an array
    do.
    """
    told = [f.expressed >= TOLD for f in (a, b)]
    values = np.intersect1d(*(np.unique(f.values[t]) for f, t in zip((a, b), told, strict=True)), assume_unique=True)
    told = [t & (f.expressed <= n_genes - TOLD) for f, t in zip((a, b), told, strict=True)]
    patterns = np.intersect1d(*(_single(f.pattern[t]) for f, t in zip((a, b), told, strict=True)), assume_unique=True)
    return max(len(values), len(patterns))


def _single(values):
    found, times = np.unique(values, return_counts=True)
    return found[times == 1]
