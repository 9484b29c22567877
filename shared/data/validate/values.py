"""The values of a matrix: looked at once, block by block, and told apart (counts, logged, per million and so on)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from shared.data.catalogue import UNITS
from shared.data.validate.structure import matrix_problems

BLOCK = 2**20  # values looked at in one go: 8 MB as float64
EXACT = 2**24  # float32 holds every whole number up to here
FLOAT32_MAX = float(np.finfo(np.float32).max)
LOGGED = ("log", "z")  # units of values that cannot be summed or logged
LOGGED_MAX = 30.0  # log2 of the largest count a cell could hold; no depth of sequencing passes it
STEADY = 0.01  # totals of cells that vary less than this, relative to their mean, were made equal


@dataclass(frozen=True)
class Values:
    """What one pass over a matrix found; numbers of values, except where said.

    Attributes
    ----------
    shape : tuple of int
    nan, infinite, negative, fractions : int
    beyond : int
        Finite values that float32 cannot hold.
    large : int
        Whole numbers that float32 rounds.
    smallest, largest : float
        Of the finite values, zeros that are not stored among them.
    zeros : int
    stored_zeros : int
        Zeros a sparse matrix stores.
    parts : int
        Entries a sparse matrix stores beyond one for each place.
    totals : float64 ndarray of shape (n_cells,)
    cells_of : int64 ndarray of shape (n_genes,)
        Cells in which each gene is not zero.
    """

    shape: tuple[int, int]
    nan: int
    infinite: int
    negative: int
    fractions: int
    beyond: int
    large: int
    smallest: float
    largest: float
    zeros: int
    stored_zeros: int
    parts: int
    totals: np.ndarray
    cells_of: np.ndarray

    @property
    def finite(self) -> bool:
        """True when no value is NaN or infinite."""
        return not (self.nan or self.infinite)

    @property
    def whole(self) -> bool:
        """True when all values are finite whole numbers."""
        return self.finite and not self.fractions


def blocks(X) -> Iterator[tuple[slice, np.ndarray | sparse.csr_matrix, int]]:
    """Rows of `X` in blocks of about a million values, float64, each place of a sparse block stored once at most.

    The third of each triple is how many entries beyond one for each place were added up to make it so.

    `X` may be an array, a sparse matrix of any format, or the matrix of a backed AnnData. A matrix in another format
    than CSR is turned into CSR first.
    """
    if hasattr(X, "to_memory") and getattr(X, "format", "csr") != "csr":
        X = X.to_memory()
    parts = 0
    if sparse.issparse(X) and X.format != "csr":
        # Entries stored in several parts may be added up on the way, and integers may overflow.
        stored = X.nnz if X.format == "coo" else None
        X = (X.astype(np.float64) if X.dtype.kind in "biu" else X).tocsr()
        parts = stored - X.nnz if stored else 0
    n = X.shape[0]
    stored = X.nnz if sparse.issparse(X) else X.shape[0] * X.shape[1]
    step = max(1, int(BLOCK * n / max(stored, 1)))
    for start in range(0, n, step):
        rows = slice(start, min(start + step, n))
        block = X[rows]
        with np.errstate(all="ignore"):
            if sparse.issparse(block):
                block = sparse.csr_matrix(block, dtype=np.float64, copy=block.dtype == np.float64)
                parts += block.nnz
                block.sum_duplicates()
                parts -= block.nnz
            else:
                block = np.asarray(block, dtype=np.float64)
        yield rows, block, parts
        parts = 0


def scan(X) -> Values:
    """Look at every value once, block by block: the memory needed does not grow with the matrix.

    Parameters
    ----------
    X : ndarray, sparse matrix, or matrix of a backed AnnData
        cells × genes, of a numeric type.

    Returns
    -------
    Values
    """
    count = dict.fromkeys(("nan", "infinite", "negative", "fractions", "beyond", "large", "stored_zeros"), 0)
    smallest, largest, nonzero, kept, parts = np.inf, -np.inf, 0, 0, 0
    totals, cells_of = np.zeros(X.shape[0]), np.zeros(X.shape[1], np.int64)
    for rows, block, more in blocks(X):
        parts += more
        isparse = sparse.issparse(block)
        v = block.data if isparse else block
        with np.errstate(all="ignore"):
            totals[rows] = np.asarray(block.sum(1)).ravel()
            finite = np.isfinite(v)
            nan = int(np.isnan(v).sum())
            count["nan"] += nan
            count["infinite"] += v.size - int(finite.sum()) - nan
            if not finite.all():
                v = v[finite]
            count["negative"] += int((v < 0).sum())
            count["fractions"] += int((v != np.rint(v)).sum())
            size = np.abs(v)
            count["beyond"] += int((size > FLOAT32_MAX).sum())
            if size.max(initial=0) > EXACT:
                whole = (size > EXACT) & (size <= FLOAT32_MAX) & (v == np.rint(v))
                count["large"] += int((v.astype(np.float32) != v)[whole].sum())
        smallest, largest = min(smallest, v.min(initial=np.inf)), max(largest, v.max(initial=-np.inf))
        if isparse:
            kept += block.nnz
            here = int(np.count_nonzero(block.data))
            count["stored_zeros"] += block.nnz - here
            cells_of += np.bincount(block.indices[block.data != 0], minlength=X.shape[1])
        else:
            here = int(np.count_nonzero(block))
            cells_of += np.count_nonzero(block, axis=0)
        nonzero += here
    places = X.shape[0] * X.shape[1]
    if getattr(X, "format", None) and kept < places:  # what a sparse matrix does not store is zero
        smallest, largest = min(smallest, 0.0), max(largest, 0.0)
    return Values(
        shape=tuple(X.shape),
        smallest=float(smallest),
        largest=float(largest),
        zeros=places - nonzero,
        parts=parts,
        totals=totals,
        cells_of=cells_of,
        **count,
    )


def units_of(adata) -> str | None:
    """What ``X`` of an AnnData holds by ``uns["units"]``; None where that is not among :data:`UNITS`.

    Words that were written before the values were logged are not repeated: ``"counts"`` and ``"tpm"`` become
    ``"log"`` where undoing log(1 + x) gives every cell the same total, or the cell's own ``layers["counts"]`` times one
    number.
    """
    units = adata.uns.get("units")
    if not isinstance(units, str) or units not in UNITS:
        return None
    if units not in ("counts", "tpm") or adata.X is None or next(matrix_problems(adata.X), None):
        return units
    values = scan(adata.X)
    if not values.finite or values.negative or values.whole or values.largest >= LOGGED_MAX:
        return units
    return "log" if _is_log1p(adata, values) else units


def _is_log1p(adata, values) -> bool:
    if _steady(values.totals):
        return False
    undone = _totals(adata.X, np.expm1)
    if _steady(undone) and (len(undone) > 2 or abs(np.log10(undone.mean()) % 1 - 0.5) > 0.4999):
        return True
    counts = adata.layers.get("counts")
    if counts is None or next(matrix_problems(counts), None) or not scan(counts).whole:
        return False
    for (_, block, _), (_, raw, _) in zip(blocks(adata.X), blocks(counts), strict=False):
        logs, raw = (b.toarray() if sparse.issparse(b) else b for b in (block, raw))
        n = min(len(logs), len(raw))
        logs, raw = np.expm1(logs[:n]), raw[:n]
        scale = logs.sum(1) / np.maximum(raw.sum(1), 1)
        return bool(np.allclose(logs, raw * scale[:, None], rtol=1e-3, atol=1e-3))
    return False


def summable(X, units=None) -> bool:
    """True when sums of genes make sense: of counts and concentrations, as `units` say or as the values look."""
    if isinstance(units, str) and units in LOGGED:
        return False
    if next(matrix_problems(X), None):
        return False
    values = scan(X)
    if isinstance(units, str) and units in UNITS and (values.whole or values.largest >= LOGGED_MAX):
        return units in ("counts", "tpm")
    linear = ("counts", "binary", "expected counts", "per million", "scaled to one total", "linear")
    # A matrix of one value tells by that value; zeros can always be summed.
    return looks_like(values, X) in linear or (values.whole and not values.negative)


def may_be_logged(values) -> bool:
    """Whether values (ndarray, all finite) hold fractions and nothing as large as counts are, as logarithms do."""
    return bool(values.size and values.max() < LOGGED_MAX and (values % 1).any())


def looks_like(values: Values, X) -> str:
    """What the values look like; the words are listed at :class:`~shared.data.validate.findings.CheckReport`."""
    if not values.finite:
        return "unreadable"
    if values.smallest == values.largest:
        return "equal"
    if values.negative:
        return "signed"
    if values.whole:
        return "counts" if values.largest > 1 else "binary"
    if values.largest < LOGGED_MAX:
        n_cells, n_genes = values.shape
        if n_cells > 2 and n_genes > 2 and not _steady(values.totals):
            undone = [_totals(X, f) for f in (np.expm1, _exp2m1)]
            if not any(map(_steady, undone)) and values.largest < 4:  # log2 of log2 of ten thousand is 3.8
                again = [_totals(X, f, f) for f in (np.expm1, _exp2m1)]
                if any(map(_steady, again)):
                    return "logged twice"
        return "logged" if values.largest > 1 else "shares"
    if _steady(values.totals) and len(values.totals) > 1:
        return "per million" if abs(np.median(values.totals) / 1e6 - 1) < STEADY else "scaled to one total"
    places = values.shape[0] * values.shape[1]
    # Read counts shared out among genes are mostly whole; concentrations and intensities hardly ever are.
    filled = max(places - values.zeros, 1)
    return "expected counts" if values.fractions < filled / 2 else "linear"


def _exp2m1(x):
    return np.exp2(x) - 1


def _steady(totals) -> bool:
    with np.errstate(all="ignore"):
        mean, spread = totals.mean(), totals.std()
    return bool(np.isfinite(mean) and mean > 0 and spread < STEADY * mean)


def _totals(X, *functions):
    totals = np.zeros(X.shape[0])
    for rows, block, _ in blocks(X):
        v = block.data if sparse.issparse(block) else block
        with np.errstate(all="ignore"):
            for f in functions:
                v = f(v)
        if sparse.issparse(block):
            block.data = v
        totals[rows] = np.asarray((block if sparse.issparse(block) else v).sum(1)).ravel()
    return totals
