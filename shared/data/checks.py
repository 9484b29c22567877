"""Entry checks: what is wrong with a matrix, one clear sentence each, naming the problem and the cure.

:func:`check` looks and changes nothing. What no analysis can use (NaN, words, a gene named twice) is also what
:func:`shared.data.load` and :func:`shared.data.from_arrays` refuse; the rest are findings to read and judge.
"""

from __future__ import annotations

import difflib
import html
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from shared.data.catalogue import UNITS
from shared.data.errors import DataError
from shared.data.genes import (
    UNWRITABLE,
    GeneKind,
    cut_version,
    damaged_names,
    gene_hash,
    gene_kind,
    many,
    names_of,
    renamed_names,
    shouted_mouse,
    shown,
    symbols,
)

if TYPE_CHECKING:
    import anndata as ad
    import pandas as pd

SEVERITIES = ("error", "warning", "note")
NEEDS = ("counts", "log", "tpm", "z")
BLOCK = 2**20  # values looked at in one go: 8 MB as float64
EXACT = 2**24  # float32 holds every whole number up to here
FLOAT32_MAX = float(np.finfo(np.float32).max)
LOGGED_MAX = 30.0  # log2 of the largest count a cell could hold; no depth of sequencing passes it
TWICE_MAX = 2.4  # log1p of log1p of ten thousand: all that a cell scaled to that total can reach
STEADY = 0.01  # totals of cells that vary less than this, relative to their mean, were made equal
HUGE = 50  # totals of one cell over the median; the widest of the book's real sets reaches 36
SHOUTED = 0.03  # share of mouse-only names in upper case; human sets hold 0.004, mouse ones written so 0.08
NO_LABEL = {"", "nan", "none", "na", "n/a", "null", "unknown", "unlabelled", "unlabeled", "unassigned", "undefined"}
GENOMES = ("GRCh37_", "GRCh38_", "hg19_", "hg38_", "GRCm38_", "GRCm39_", "mm10_", "mm39_")


class DataWarning(UserWarning):
    """Data were loaded, but something about them deserves a look."""


@dataclass(frozen=True)
class Finding:
    """One problem and its cure.

    Attributes
    ----------
    check : str
        Short name of the check, such as ``"nan"``; the same finding always has the same one.
    severity : str
        ``"error"``: nothing should be done with the data before it is cured. ``"warning"``: look before you go on.
        ``"note"``: good to know.
    problem : str
        What the data do or hold, continuing a sentence that begins with their name.
    cure : str
    """

    check: str
    severity: str
    problem: str
    cure: str

    def about(self, what: str) -> str:
        """The finding as a sentence about `what`."""
        return f"{what} {self.problem}: {self.cure}"


@dataclass(frozen=True)
class CheckReport:
    """What :func:`check` found; print it, or ask ``report.ok``.

    Attributes
    ----------
    findings : tuple of Finding
        Errors first.
    shape : tuple of int
        (cells, genes).
    looks : str
        What the values look like: ``"counts"``, ``"binary"``, ``"expected counts"``, ``"logged"``,
        ``"logged twice"``, ``"per million"``, ``"scaled to one total"``, ``"linear"``, ``"shares"``, ``"signed"``,
        ``"equal"``, or ``"unreadable"``.
    genes : GeneKind or None
        Kind and species of the gene names.
    facts : str
        One line that describes the matrix.
    """

    findings: tuple[Finding, ...]
    shape: tuple[int, int]
    looks: str
    genes: GeneKind | None
    facts: str = field(default="", compare=False)

    @property
    def ok(self) -> bool:
        """True when nothing worse than a note was found."""
        return all(f.severity == "note" for f in self.findings)

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings of severity ``"error"``."""
        return tuple(f for f in self.findings if f.severity == "error")

    @property
    def checks(self) -> tuple[str, ...]:
        """Short names of what was found."""
        return tuple(f.check for f in self.findings)

    def to_frame(self) -> pd.DataFrame:
        """One row a finding: severity, check, problem, cure."""
        import pandas as pd

        rows = [(f.severity, f.check, f.problem, f.cure) for f in self.findings]
        return pd.DataFrame(rows, columns=["severity", "check", "problem", "cure"])

    def __str__(self):
        said = [f"{f.severity:<8} {f.problem}: {f.cure}" for f in self.findings]
        return "\n".join([self.facts, *(said or ["nothing to complain of"])])

    __repr__ = __str__

    def _repr_html_(self):
        if not self.findings:
            return f"<p>{html.escape(self.facts)}: nothing to complain of</p>"
        return f"<p>{html.escape(self.facts)}</p>" + self.to_frame().to_html(index=False, border=0)


def check(
    adata: ad.AnnData,
    *,
    need=None,
    labels=None,
    per_class=None,
    genes=None,
    organism=None,
    layer=None,
    strict=False,
) -> CheckReport:
    """Look for what could spoil an analysis; nothing is changed.

    Parameters
    ----------
    adata : AnnData
        cells × genes; also backed by a file, which is then read block by block.
    need : {"counts", "log", "tpm", "z"}, optional
        What the next step takes: raw counts, log-normalised values, transcripts per million, or values centred gene
        by gene. What clearly is something else is an error.
    labels : str, optional
        Column of ``obs`` that holds the classes.
    per_class : int, optional
        Cells each class must have: for an episode, support and query together. Needs `labels`.
    genes : sequence of str or AnnData, optional
        Reference list, such as a model's genes; little overlap is explained.
    organism : {"human", "mouse"}, optional
        Species the genes should be of.
    layer : str, optional
        Look at this layer in place of ``X``.
    strict : bool, default False
        Raise on findings of severity ``"error"``.

    Returns
    -------
    CheckReport

    Raises
    ------
    DataError
        If an argument makes no sense, or, with `strict`, if there is an error.
    """
    import anndata as ad

    if not isinstance(adata, ad.AnnData):
        raise DataError(f"check takes AnnData, not {type(adata).__name__}: shared.data.from_arrays makes one")
    _arguments(need, labels, per_class, organism)
    X = _layer(adata, layer)
    found = list(_structural(adata, X))
    values, looks, kind = None, "unreadable", None
    if not {f.check for f in found} & {"empty", "no matrix", "dtype", "damaged"}:
        values = scan(X)
        looks = looks_like(values, X)
        found += _of_values(values, _units(adata, layer))
        found += _of_looks(values, looks, need, _units(adata, layer), adata, layer)
        found += _of_storage(X, values)
    if not any(f.check == "names" for f in found) and adata.n_vars:
        kind = gene_kind(adata)
        found += _of_names(adata, kind, organism)
        if genes is not None:
            found += _of_overlap(adata, genes, kind)
    if labels is not None:
        found += _of_labels(adata, labels, per_class)
    if any(f.check == "transposed" for f in found):
        found = [f for f in found if f.check not in ("empty cells", "empty genes", "huge cell", "one cell")]
    found = _once_each(found)
    report = CheckReport(tuple(found), adata.shape, looks, kind, _facts(adata, values, looks, kind))
    if strict and report.errors:
        raise DataError("\n".join(f.about("the matrix") for f in report.errors))
    return report


def _once_each(found):
    """Errors first, and of findings by the same check only the first."""
    kept = {}
    for f in sorted(found, key=lambda f: SEVERITIES.index(f.severity)):
        kept.setdefault(f.check, f)
    return list(kept.values())


def _arguments(need, labels, per_class, organism):
    if need is not None and (not isinstance(need, str) or need not in NEEDS):
        raise DataError(f"need={need!r} is not known: choose {', '.join(map(repr, NEEDS))}, or leave it out")
    if organism not in (None, "human", "mouse"):
        raise DataError(f"organism={organism!r} has no gene table here: choose 'human' or 'mouse', or leave it out")
    if per_class is not None:
        whole = isinstance(per_class, (int, np.integer)) and not isinstance(per_class, bool)
        if not whole or per_class < 1:
            raise DataError(f"per_class={per_class!r} should be a whole number of cells, 1 or more")
        if labels is None:
            raise DataError("per_class needs labels: name the column of obs that holds the classes")


def _layer(adata, layer):
    if layer is None:
        return adata.X
    if layer not in adata.layers:
        raise DataError(f"there is no layer {layer!r}; the data have {shown(adata.layers) or 'none'}")
    return adata.layers[layer]


def _units(adata, layer=None):
    """The units the data state, if they are ones we know; a layer other than counts states none."""
    if layer is not None:
        return "counts" if layer == "counts" else None
    units = adata.uns.get("units")
    return units if isinstance(units, str) and units in UNITS else None


# What no analysis can use.


def structure(adata: ad.AnnData, what="the matrix", duplicated_genes=False) -> None:
    """Refuse data whose shape, type, storage or names no step can work with; values are not looked at.

    Parameters
    ----------
    adata : AnnData
        cells × genes.
    what : str
        How the message calls the data.
    duplicated_genes : bool, default False
        Let names of genes stand that occur twice.

    Raises
    ------
    DataError
        With the first problem found.
    """
    import anndata as ad

    if not isinstance(adata, ad.AnnData):
        raise DataError(f"AnnData is needed, not {type(adata).__name__}: shared.data.from_arrays makes one")
    for f in _structural(adata, adata.X):
        if not (duplicated_genes and f.check == "genes twice"):
            raise DataError(f.about(what))


def _structural(adata, X) -> Iterator[Finding]:
    if 0 in adata.shape:
        cells = f"{adata.n_obs} cells × {adata.n_vars} genes"
        yield Finding("empty", "error", f"is empty, {cells}", "see which step or which part of the file lost the rest")
    if X is None:
        yield Finding("no matrix", "error", "has no X", "put a layer there, adata.X = adata.layers[...].copy()")
    else:
        yield from matrix_problems(X)
    yield from name_problems(adata.var_names, adata.obs_names)
    columns = adata.obs.columns
    if columns.has_duplicates:
        twice = shown(columns[columns.duplicated()].unique())
        yield Finding("columns twice", "error", f"has obs columns of the same name ({twice})", "rename or drop one")


def name_problems(genes, cells) -> Iterator[Finding]:
    """What is wrong with names as such: twice the same, or nothing that can be written in a line."""
    for names, what, cure in (
        (genes, "gene", "shared.data.merge_duplicates sums the copies, or drop them"),
        (cells, "cell", "drop the copies, or rename them with adata.obs_names_make_unique()"),
    ):
        bad = [n for n in names if UNWRITABLE.search(str(n))]
        if bad:
            problem = f"has {many(len(bad), f'{what} name')} with line breaks or control characters"
            yield Finding("names", "error", f"{problem} ({shown(map(ascii, bad))})", "rename them")
        twice = names[names.duplicated()].unique()
        if len(twice):
            problem = f"names {many(len(twice), what)} more than once ({shown(twice)})"
            yield Finding(f"{what}s twice", "error", problem, cure)


def matrix_problems(X) -> Iterator[Finding]:
    """What is wrong with a matrix as such: its type, its entries' type, or damaged sparse storage."""
    if not (isinstance(X, np.ndarray) or sparse.issparse(X) or _on_disk(X)):
        problem = f"is a {type(X).__module__}.{type(X).__name__}, which is not read here"
        yield Finding("dtype", "error", problem, "make it a NumPy array or a SciPy CSR matrix first")
        return
    dtype = np.dtype(X.dtype)
    if dtype.kind not in "biuf":
        words = {"O": "Python objects", "U": "words", "S": "bytes", "c": "complex numbers", "M": "dates", "T": "words"}
        problem = f"holds {words.get(dtype.kind, 'values')} ({dtype}) where numbers are needed"
        cure = "keep the real part" if dtype.kind == "c" else "keep only the genes, then adata.X.astype('float32')"
        yield Finding("dtype", "error", problem, cure)
        return
    if np.ma.is_masked(X):
        problem = f"holds {many(int(np.ma.count_masked(X)), 'masked value')}"
        yield Finding("nan", "error", problem, "fill them, or drop those genes")
    if sparse.issparse(X) and X.format in ("csr", "csc", "bsr"):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                X.check_format(full_check=True)
        except (ValueError, TypeError, IndexError) as e:
            # Taken at its word, such a matrix makes compiled code read outside its memory.
            problem = f"is a damaged {X.format.upper()} matrix ({e})"
            yield Finding("damaged", "error", problem, "its index arrays contradict its shape; write the file again")


def _on_disk(X) -> bool:
    """True for the matrix of a backed AnnData."""
    return type(X).__module__.partition(".")[0] in ("h5py", "anndata") and hasattr(X, "shape") and hasattr(X, "dtype")


# One pass over the values.


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


def summable(X, units=None) -> bool:
    """True when sums of genes make sense: of counts and concentrations, as `units` say or as the values look."""
    if isinstance(units, str) and units in UNITS:
        return units in ("counts", "tpm")
    if next(matrix_problems(X), None):
        return False
    values = scan(X)
    linear = ("counts", "binary", "expected counts", "per million", "scaled to one total", "linear")
    # A matrix of one value tells by that value; zeros can always be summed.
    return looks_like(values, X) in linear or (values.whole and not values.negative)


def looks_like(values: Values, X) -> str:
    """What the values look like; the words are listed at :class:`CheckReport`."""
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


# Findings.


def _of_values(v, units) -> Iterator[Finding]:
    if not v.finite:
        what = [f"{n:,} {w}" for n, w in ((v.nan, "NaN"), (v.infinite, "infinite")) if n]
        problem = f"holds {' and '.join(what)} {'value' if v.nan + v.infinite == 1 else 'values'}"
        yield Finding("nan" if v.nan else "infinite", "error", problem, "fill them or drop those genes before loading")
    if v.beyond:
        problem = f"holds {many(v.beyond, 'value')} beyond 3.4e38, which float32 cannot hold"
        yield Finding("beyond float32", "error", problem, "find out what was multiplied or not logged")
    if v.negative and (units in ("counts", "tpm") or (v.whole and v.finite)):
        problem = f"holds {many(v.negative, 'negative value')} among " + ("TPM" if units == "tpm" else "counts")
        yield Finding("negative", "error", problem, "load the values as measured, before any step")
    if units == "counts" and v.fractions:
        problem = f"should hold counts, but has {many(v.fractions, 'fraction')}"
        yield Finding("not counts", "error", problem, "load the raw counts, or set uns['units'] to what it holds")


def value_errors(values: Values, units=None) -> list[Finding]:
    """What no analysis can use among the values, where they are said to be in `units`."""
    return list(_of_values(values, units))


COUNTS = "start from the raw counts"
ELSE_COUNTS = {
    "logged": ("looks logged already, nothing is above {top}", COUNTS),
    "logged twice": ("looks logged twice", COUNTS),
    "shares": ("holds only values from 0 to 1", COUNTS),
    "signed": ("holds {negative} negative values, so it was centred, scaled or logged", COUNTS),
    "per million": ("is scaled to one million in every cell (TPM or CPM)", COUNTS),
    "scaled to one total": ("is scaled to the same total in every cell", COUNTS),
    "linear": ("holds fractions as concentrations or intensities do (FPKM, TPM, array)", COUNTS),
}
NOT_LOGGED = "shared.preprocess.log_normalize logs counts; log other values with numpy.log1p"
ELSE_LOG = {
    "counts": ("holds counts that are not logged", "shared.preprocess.log_normalize scales and logs them"),
    "expected counts": ("is not logged, its largest value is {top}", NOT_LOGGED),
    "per million": ("is not logged, its largest value is {top}", NOT_LOGGED),
    "scaled to one total": ("is not logged, its largest value is {top}", NOT_LOGGED),
    "linear": ("is not logged, its largest value is {top}", NOT_LOGGED),
    "logged twice": ("looks logged twice", "take numpy.expm1 once, or start from the raw counts"),
}
ELSE_TPM = {
    "counts": ("holds counts", "divide by gene length and scale to a million"),
    "logged": ("looks logged, nothing is above {top}", "undo the logarithm (numpy.expm1, or 2 ** x - 1)"),
    "logged twice": ("looks logged twice", "undo both logarithms"),
    "signed": ("holds {negative} negative values", "undo what was done after TPM"),
    "shares": ("holds only values from 0 to 1", "scale to a million"),
}


def _of_looks(v, looks, need, units, adata, layer) -> Iterator[Finding]:
    wrong = {"counts": ELSE_COUNTS, "log": ELSE_LOG, "tpm": ELSE_TPM}.get(need, {}).get(looks)
    if wrong:
        problem = wrong[0].format(top=f"{v.largest:,.4g}", negative=f"{v.negative:,}")
        cure = wrong[1]
        if need == "counts" and layer is None and "counts" in adata.layers:
            cure = "adata.X = adata.layers['counts'].copy()"
        yield Finding(f"not {need}", "error", problem, cure)
    elif need == "counts" and looks in ("expected counts", "binary"):
        what = (
            "fractions among counts, as RSEM and kallisto estimate them" if looks != "binary" else "zeros and ones only"
        )
        cure = (
            "round them where whole numbers are needed" if looks != "binary" else "is it detection in place of counts?"
        )
        yield Finding("not counts", "warning", f"holds {what}", cure)
    elif need == "tpm" and looks in ("expected counts", "linear", "scaled to one total"):
        middle = f"{np.median(v.totals):,.4g}"
        yield Finding("not tpm", "warning", f"has cells that sum to {middle}, not to a million", "scale each to 1e6")
    elif need == "z" and looks != "signed":
        yield Finding(
            "not z", "warning", "holds no negative value, so it is not centred", "shared.preprocess.center_by"
        )
    elif looks == "logged twice":
        yield Finding("logged twice", "warning", "looks logged twice", "take numpy.expm1 once")
    elif units == "log" and looks in ("counts", "linear", "expected counts") and v.largest > LOGGED_MAX:
        problem = f"says it is logged, but its largest value is {v.largest:,.4g}"
        yield Finding("not log", "warning", problem, "log it, or set uns['units'] to what it holds")
    elif units == "tpm" and looks in ELSE_TPM:
        problem = ELSE_TPM[looks][0].format(top=f"{v.largest:,.4g}", negative=f"{v.negative:,}")
        yield Finding("not tpm", "warning", f"says it is TPM, but {problem}", "set uns['units'] to what it holds")
    elif looks == "logged" and v.largest < TWICE_MAX and units != "none" and min(v.shape) > 9 and v.shape[1] > 199:
        problem = f"holds nothing above {v.largest:.3g}, little for values logged once"
        yield Finding("logged twice", "warning", problem, "make sure it was not logged twice or scaled to a range")
    if looks == "equal":
        yield Finding("equal", "warning", f"holds the same value everywhere, {v.smallest:g}", "see what was read")
    if v.finite:
        yield from _of_totals(v, looks, adata)
    if v.large:
        problem = f"holds {many(v.large, 'count')} above {EXACT:,} that float32 rounds"
        yield Finding("rounded", "note", problem, "harmless for expression; identifiers do not belong into X")


def _of_totals(v, looks, adata) -> Iterator[Finding]:
    # A sum of signed values can be zero by chance or by centring, so it says nothing of them.
    blank = np.flatnonzero(v.totals == 0) if looks != "signed" else []
    if len(blank) and looks != "equal":
        problem = f"has {many(len(blank), 'cell')} without any expression ({shown(adata.obs_names[blank[:9]])})"
        yield Finding("empty cells", "warning", problem, "shared.preprocess.quality_control drops them")
    unseen = int((v.cells_of == 0).sum())
    if unseen and looks != "equal":
        problem = f"has {many(unseen, 'gene')} with no expression in any cell"
        yield Finding("empty genes", "note", problem, "shared.preprocess.quality_control drops them")
    if looks in ("counts", "expected counts", "linear") and v.shape[0] >= 10 and not v.beyond:
        middle = float(np.median(v.totals[v.totals > 0]))
        top = int(v.totals.argmax())
        if v.totals[top] > HUGE * middle:
            times = f"{v.totals[top] / middle:,.0f} times the median"
            problem = f"has a cell of a size of its own, {shown([adata.obs_names[top]])} with {times}"
            yield Finding("huge cell", "warning", problem, "a clump, or a row of totals? look at it, then drop it")
    if v.shape[0] == 1:
        yield Finding("one cell", "note", "holds a single cell", "nothing can be compared or learned from it alone")


def _of_storage(X, v) -> Iterator[Finding]:
    if v.parts:
        problem = f"stores {many(v.parts, 'entry').replace('entrys', 'entries')} in several parts"
        yield Finding("parts", "warning", problem, "X.sum_duplicates() adds them up; so does shared.data.load")
    if v.stored_zeros:
        problem = f"stores {many(v.stored_zeros, 'zero')}"
        yield Finding(
            "stored zeros", "note", problem, "X.eliminate_zeros() saves their memory; so does shared.data.load"
        )
    format = getattr(X, "format", None)
    if format and format != "csr":
        problem = f"is stored as {format.upper()}, slow to take cells from"
        yield Finding("format", "note", problem, "X.tocsr(); shared.data.load does it")
    if np.dtype(X.dtype).kind == "b":
        yield Finding("truth values", "note", "holds true and false", "they are taken as 1 and 0")


def _of_names(adata, kind, organism) -> Iterator[Finding]:
    names = names_of(adata)
    if _transposed(adata, kind):
        cells = gene_kind(adata.obs_names)
        problem = f"names genes where cells should be ({shown(adata.obs_names[:3])}: {cells})"
        yield Finding("transposed", "error", problem, "it is genes × cells, turn it with adata = adata.T")
        return
    spaced = [n for n in names if n != n.strip()]
    if spaced:
        problem = f"has {many(len(spaced), 'gene name')} with spaces around ({shown(map(repr, spaced))})"
        yield Finding("spaces", "warning", problem, "adata.var_names = adata.var_names.str.strip()")
    nameless = [n for n in names if n.strip().lower() in ("", "nan", "none", "<na>", "nat")]
    if nameless:
        problem = f"has {many(len(nameless), 'gene')} without a name ({shown(map(repr, nameless))})"
        yield Finding("nameless genes", "warning", problem, "name or drop them")
    damaged = damaged_names(names)
    if damaged:
        first, was = next(iter(damaged.items()))
        problem = f"has {many(len(damaged), 'gene name')} a spreadsheet turned into dates or numbers ({shown(damaged)})"
        cure = f"take names from the source; {first} was {' or '.join(was) or 'a clone name that is lost'}"
        yield Finding("spreadsheet", "warning", problem, cure)
    retired = renamed_names(names)
    if retired:
        old, new = next(iter(retired.items()))
        problem = f"has {many(len(retired), 'retired gene name')} ({shown(retired)})"
        yield Finding("retired", "note", problem, f"{old} is {new} today; the translations here know both")
    genome = [g for g in GENOMES if any(n.startswith(g) for n in names)]
    if genome:
        problem = f"has gene names that begin with a genome ({', '.join(genome)})"
        yield Finding("genome", "warning", problem, "cut it off, and part the species if there are two")
    yield from _of_kind(adata, names, kind, organism)
    stated = adata.uns.get("gene_hash")
    if isinstance(stated, str) and stated != gene_hash(names):
        problem = "carries the hash of another list of genes in uns['gene_hash']"
        yield Finding("gene hash", "note", problem, "genes were chosen since; shared.data.stamp(adata) writes it anew")


def _transposed(adata, kind) -> bool:
    """Names decide, not the shape: bulk sets and panels have fewer genes than samples, or more."""
    if kind.kind not in ("unknown", "entrez") or adata.n_obs < 3:
        return False
    cells = [str(n) for n in adata.obs_names]
    if any(UNWRITABLE.search(n) for n in cells):
        return False
    return gene_kind(cells).kind in ("symbols", "ensembl", "transcripts", "probes")


def _of_kind(adata, names, kind, organism) -> Iterator[Finding]:
    if kind.kind == "unknown":
        problem = f"has gene names of a kind not known here ({shown(names)})"
        yield Finding("unknown names", "note", problem, "fine by itself; nothing here can translate them")
    elif kind.kind == "transcripts":
        problem = f"names transcripts ({shown(names)})"
        yield Finding("transcripts", "warning", problem, "sum them to genes first, with the table they were made with")
    elif kind.kind in ("entrez", "probes") and not adata.var.columns.empty:
        problem = f"names genes by {'Entrez ids' if kind.kind == 'entrez' else 'probes'}"
        cure = f"if a column of var holds symbols ({shown(adata.var.columns)}), to_symbols(adata, column=...)"
        yield Finding("ids", "note", problem, cure)
    if kind.kind == "ensembl" and any(cut_version(n) != n and "." in n for n in names):
        yield Finding("versions", "note", "has Ensembl ids with versions", "to_ensembl and to_symbols cut them")
    other = {"human": "mouse", "mouse": "human"}.get(organism)
    if kind.organism == "mixed":
        severity = "warning" if organism is None else "error"
        yield Finding("species", severity, "has genes of human and mouse", "part them before anything else")
    elif other and kind.organism in (other, "other"):
        cure = f"shared.data.to_{organism} translates" if kind.organism == other else "there is no table for them"
        yield Finding("species", "error", f"has {kind}, not {organism} genes", cure)
    elif kind.kind == "symbols" and kind.organism == "human" and shouted_mouse(names) > SHOUTED:
        problem = f"has mouse symbols in upper case ({shouted_mouse(names):.0%} of the names)"
        yield Finding("species", "warning", problem, "write them as mouse symbols are, then shared.data.to_human")
    if kind.kind == "symbols" and kind.organism in ("human", "mouse"):
        have, known = set(names), symbols(kind.organism)
        have &= known
        made = [n for n in names if n[-2:-1] in ("-", ".") and n[-1:].isdigit() and n[:-2] in have and n not in known]
        if made:
            problem = f"has {many(len(made), 'gene name')} as copies get when made unique ({shown(made)})"
            yield Finding("made unique", "note", problem, "take Ensembl ids if there are any, or drop them")


def _of_overlap(adata, genes, kind) -> Iterator[Finding]:
    wanted = names_of(genes, "the reference list")
    twice = len(wanted) - len(set(wanted))
    if not wanted:
        raise DataError("the reference list is empty: give the genes to compare with")
    if twice:
        raise DataError(f"the reference list names {many(twice, 'gene')} more than once: drop the copies")
    have = names_of(adata)
    shared = len(set(have) & set(wanted))
    if shared >= len(wanted) / 2:
        return
    problem = f"shares {shared:,} of {many(len(wanted), 'gene')} with the reference list"
    severity = "warning" if shared else "error"
    yield Finding("overlap", severity, problem, _why_apart(have, wanted, shared, kind))


def _why_apart(have, wanted, shared, kind):
    theirs = gene_kind(wanted)
    better = max(2 * shared, shared + len(wanted) / 10, 1)
    for change, cure in (
        (str.strip, "spaces stand around the names of one of them, strip them"),
        (cut_version, "they differ in Ensembl versions, shared.data.to_ensembl cuts them"),
    ):
        if len(set(map(change, have)) & set(map(change, wanted))) >= better:
            return cure
    if kind.kind != theirs.kind and theirs.kind in ("symbols", "ensembl"):
        return f"the data have {kind}, the list {theirs}: shared.data.to_{theirs.kind} translates what it knows"
    if {kind.organism, theirs.organism} == {"human", "mouse"}:
        return f"the data have {kind}, the list {theirs}: shared.data.to_{theirs.organism} translates"
    if len(set(map(str.upper, have)) & set(map(str.upper, wanted))) >= better:
        return "upper and lower case differ: is one of them of another species?"
    return f"the data have {kind}, the list {theirs}: compare {have[0]!r} with {wanted[0]!r}"


def label_values(adata, labels):
    """The column of ``obs`` called `labels`, as a Series; :class:`DataError` where there is none, or two."""
    columns = list(adata.obs.columns)
    if labels not in columns:
        near = difflib.get_close_matches(str(labels), map(str, columns), 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise DataError(f"obs has no column {labels!r}; it has {shown(columns) or 'none'}{hint}")
    if columns.count(labels) > 1:
        raise DataError(f"obs has several columns {labels!r}: rename or drop one")
    return adata.obs[labels]


def _of_labels(adata, labels, per_class) -> Iterator[Finding]:
    try:
        column = label_values(adata, labels)
    except DataError as e:
        problem, _, cure = str(e).partition("; ")
        yield Finding("labels", "error", "has no labels to learn, " + problem, cure or "name another column")
        return
    missing = int(column.isna().sum())
    if missing:
        problem = f"has {many(missing, 'cell')} without {labels!r}"
        yield Finding("missing labels", "error", problem, "drop them, or label them, first")
    words = column[column.notna()].astype(str)
    sizes = words.value_counts()
    blank = [c for c in sizes.index if c.strip().lower() in NO_LABEL]
    if blank:
        problem = f"has {many(int(sizes[blank].sum()), 'cell')} whose {labels!r} is {shown(map(repr, blank))}"
        yield Finding("unlabelled", "warning", problem, "drop them, or they are learned as a class of their own")
    if column.dtype.kind == "f" and len(sizes) > max(10, len(words) / 2):
        problem = f"has a different number in {labels!r} for almost every cell"
        yield Finding("numbers", "warning", problem, "these are values to predict, not classes")
    alike = {}
    for c in sizes.index:
        alike.setdefault(" ".join(c.lower().replace("_", " ").split()), []).append(c)
    alike = [same for same in alike.values() if len(same) > 1]
    if alike:
        problem = f"has classes that differ in case or spaces only ({shown(map(repr, alike[0]))})"
        yield Finding("alike", "warning", problem, "make them one")
    if len(sizes) < 2:
        problem = f"has one class only in {labels!r}" + (f", {sizes.index[0]!r}" if len(sizes) else "")
        yield Finding("one class", "error", problem, "classification needs two; take another column or more data")
    few = sizes[sizes < (per_class or 0)]
    if len(few):
        listed = [f"{c} {n}" for c, n in few.items()]
        short = f"fewer than the {per_class} cells asked for"
        problem = f"has {len(few):,} of {len(sizes):,} classes with {short} ({shown(listed)})"
        yield Finding("few per class", "error", problem, "ask for fewer, or drop or merge these classes")


def _facts(adata, v, looks, kind):
    said = [f"{adata.n_obs:,} cells × {adata.n_vars:,} genes"]
    if kind is not None:
        said.append(str(kind))
    if v is not None:
        empty = v.zeros / (v.shape[0] * v.shape[1])
        said.append(f"looks {looks}, from {v.smallest:,.4g} to {v.largest:,.4g}, {empty:.0%} zeros")
    return "; ".join(said)
