"""The values of a matrix: looked at once, block by block, and told apart (counts, logged, per million and so on)."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from shared.data.catalogue import UNITS
from shared.data.errors import DataError
from shared.data.genes.lists import shown
from shared.data.validate.structure import matrix_problems

BLOCK = 2**20  # values looked at in one go: 8 MB as float64
EXACT = 2**24  # float32 holds every whole number up to here
FLOAT32_MAX = float(np.finfo(np.float32).max)
LOGGED = ("log", "z")  # units of values that cannot be summed or logged
LOGGED_MAX = 30.0  # log2 of the largest count a cell could hold; no depth of sequencing passes it
UNDONE = (np.expm1, lambda x: np.exp2(x) - 1)  # what undoes log(1 + x), to either base
STEADY = 0.01  # totals of cells that vary less than this, relative to their mean, were made equal


@dataclass(frozen=True)
class Values:
    """What one pass over a matrix of `shape` found.

    `totals` (float64) are of the cells, `cells_of` (int64) the cells in which each gene is not zero; `smallest` and
    `largest` are of the finite values, zeros that are not stored among them. The rest are numbers of values: of NaN,
    infinite, negative, fractions, zeros; `beyond`, finite values that float32 cannot hold; `large`, whole numbers that
    it rounds; `stored_zeros` of a sparse matrix; and `parts`, its entries beyond one for each place.
    """

    shape: tuple[int, int]
    totals: np.ndarray
    cells_of: np.ndarray
    smallest: float = np.inf
    largest: float = -np.inf
    nan: int = 0
    infinite: int = 0
    negative: int = 0
    fractions: int = 0
    zeros: int = 0
    beyond: int = 0
    large: int = 0
    stored_zeros: int = 0
    parts: int = 0

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

    The third of each triple is how many entries beyond one for each place were added up to make it so. `X` is an array,
    a sparse matrix of any format, or the matrix of a backed AnnData.
    """
    if hasattr(X, "to_memory") and getattr(X, "format", "csr") != "csr":
        X = X.to_memory()
    if sparse.issparse(X) and (X.dtype == np.float16 or not X.dtype.isnative):
        X = X.astype(np.float64)  # SciPy holds these types and cannot work with them
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
    """Look at every value of a numeric array, sparse or backed matrix, in blocks: memory does not grow with it."""
    count, smallest, largest = Counter(), np.inf, -np.inf
    totals, cells_of = np.zeros(X.shape[0]), np.zeros(X.shape[1], np.int64)
    wide = np.dtype(X.dtype).itemsize > 4
    for rows, block, parts in blocks(X):
        v = block.data if sparse.issparse(block) else block
        with np.errstate(all="ignore"):
            totals[rows] = np.asarray(block.sum(1)).ravel()
            cells_of += np.asarray((block != 0).sum(0)).ravel()
            finite, nan = np.isfinite(v), int(np.isnan(v).sum())
            count.update(parts=parts, stored=v.size, nonzero=np.count_nonzero(v))
            count.update(nan=nan, infinite=np.count_nonzero(~finite) - nan)
            v = v if finite.all() else v[finite]
            size, whole = np.abs(v), is_whole(v)
            count.update(negative=(v < 0).sum(), fractions=(~whole).sum(), beyond=(size > FLOAT32_MAX).sum())
            if size.max(initial=0) > EXACT:
                # From 2^53 on float64 rounds, too, and what was read may be another number than the one compared.
                lost = (v.astype(np.float32) != v) | (wide & (size >= 2**53))
                count["large"] += (lost & whole & (size > EXACT) & (size <= FLOAT32_MAX)).sum()
        smallest, largest = min(smallest, v.min(initial=np.inf)), max(largest, v.max(initial=-np.inf))
    places, stored, nonzero = X.shape[0] * X.shape[1], count.pop("stored", 0), count.pop("nonzero", 0)
    if getattr(X, "format", None):
        count["stored_zeros"] = stored - nonzero
        if stored < places:  # what a sparse matrix does not store is zero
            smallest, largest = min(smallest, 0.0), max(largest, 0.0)
    found = {name: int(n) for name, n in count.items()} | {"zeros": int(places - nonzero)}
    return Values(tuple(X.shape), totals, cells_of, float(smallest), float(largest), **found)


def units_of(adata, values: Values | None = None) -> str | None:
    """What ``X`` of an AnnData holds by ``uns["units"]``; None where that is not among :data:`UNITS`.

    ``"counts"`` and ``"tpm"`` that were written before the values were logged become ``"log"``: where undoing log(1 +
    x) gives every cell the same total, or the cell's own ``layers["counts"]`` times one number. `values` are those of
    ``X``, where they were looked at already.
    """
    units = adata.uns.get("units")
    if not isinstance(units, str) or units not in UNITS:
        return None
    if units not in ("counts", "tpm") or adata.X is None or next(matrix_problems(adata.X), None):
        return units
    values = values or scan(adata.X)
    if not values.finite or values.negative or values.whole or values.largest >= LOGGED_MAX:
        return units
    return "log" if _is_log1p(adata, values) else units


def _is_log1p(adata, values) -> bool:
    if _steady(values.totals):
        return False
    undone, counts = _totals(adata.X, np.expm1), adata.layers.get("counts")
    if _steady(undone) and (len(undone) > 2 or abs(np.log10(undone.mean()) % 1 - 0.5) > 0.4999):
        return True
    if counts is None or next(matrix_problems(counts), None) or not scan(counts).whole:
        return False
    # The first block tells.
    logs, raw = (next(blocks(X))[1] for X in (adata.X, counts))
    n = min(logs.shape[0], raw.shape[0])
    logs, raw = (b[:n].toarray() if sparse.issparse(b) else b[:n] for b in (logs, raw))
    logs = np.expm1(logs)
    scale = logs.sum(1) / np.maximum(raw.sum(1), 1)
    return bool(np.allclose(logs, raw * scale[:, None], rtol=1e-3, atol=1e-3))


def summable(X, units=None) -> bool:
    """True when sums of genes make sense: of counts and concentrations, as `units` say or as the values look."""
    units = units if isinstance(units, str) and units in UNITS else None
    if units in LOGGED or next(matrix_problems(X), None):
        return False
    values = scan(X)
    if units and (values.whole or values.largest >= LOGGED_MAX):
        return units in ("counts", "tpm")
    linear = ("counts", "binary", "expected counts", "per million", "scaled to one total", "linear")
    # A matrix of one value tells by that value; zeros can always be summed.
    return looks_like(values, X) in linear or (values.whole and not values.negative)


def may_be_logged(values) -> bool:
    """Whether values (ndarray, all finite) hold fractions and nothing as large as counts are, as logarithms do."""
    return bool(values.size and values.max() < LOGGED_MAX and not is_whole(values).all())


def is_whole(values) -> np.ndarray:
    """Which values (ndarray) are whole numbers.

    R writes 15 digits, and so 0.999999999999999 for a count of 1: what misses a whole number by a billionth of it, less
    than float32 can tell, is one.
    """
    if values.dtype.kind != "f":
        return np.ones(values.shape, bool)
    nearest = np.rint(values)
    return np.abs(values - nearest) <= 1e-9 * np.abs(nearest)


def sound(block, units: str, names, path):
    """`block`, if it holds what `units` can be: finite in float32, not negative unless logged, whole if counts."""
    wrong, why = ~(np.abs(block) <= FLOAT32_MAX), "is not finite, or beyond what float32 holds"
    if units not in ("log", "z") and not wrong.any():
        wrong, why = block < 0, f"is negative among {'counts' if units == 'counts' else 'values that are not logged'}"
    if units == "counts" and not wrong.any():
        wrong, why = ~is_whole(block), "is a fraction among counts"
    if wrong.any():
        at = tuple(np.argwhere(wrong)[0])
        row = shown(names.iloc[[at[0]], 0]) if names.shape[1] else f"{at[0] + 1:,} of a block"
        raise DataError(f"{path.name}: {block[at]} {why} (row {row}): the file is damaged, or holds other values")
    return block


def refuse_logs(values, units, what: str, cure: str) -> None:
    """Refuse what its `units` call logarithms, or what may be by its `values` (ndarray), whatever the units say."""
    if isinstance(units, str) and units in LOGGED:
        raise DataError(f"{what} looks logged already (uns['units'] says {units!r}): {cure}")
    if may_be_logged(values):
        cure += "; if these are counts, put them into adata.layers['counts']"
        raise DataError(f"{what} looks logged already (fractions, none above {values.max():.3g}): {cure}")


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
        # Undoing it twice gives cells one total, and undoing it once does not; log2 of log2 of ten thousand is 3.8.
        if values.largest < 4 and min(values.shape) > 2 and not _steady(values.totals):
            once = any(_steady(_totals(X, f)) for f in UNDONE)
            if not once and any(_steady(_totals(X, f, f)) for f in UNDONE):
                return "logged twice"
        return "logged" if values.largest > 1 else "shares"
    if _steady(values.totals) and len(values.totals) > 1:
        return "per million" if abs(np.median(values.totals) / 1e6 - 1) < STEADY else "scaled to one total"
    places = values.shape[0] * values.shape[1]
    # Read counts shared out among genes are mostly whole; concentrations and intensities hardly ever are.
    filled = max(places - values.zeros, 1)
    return "expected counts" if values.fractions < filled / 2 else "linear"


def _steady(totals) -> bool:
    with np.errstate(all="ignore"):
        mean, spread = totals.mean(), totals.std()
    return bool(np.isfinite(mean) and mean > 0 and spread < STEADY * mean)


def _totals(X, *functions):
    totals = np.zeros(X.shape[0])
    for rows, block, _ in blocks(X):
        for f in functions:  # each of them leaves zero as it is
            with np.errstate(all="ignore"):
                if sparse.issparse(block):
                    block.data = f(block.data)
                else:
                    block = f(block)
        totals[rows] = np.asarray(block.sum(1)).ravel()
    return totals
