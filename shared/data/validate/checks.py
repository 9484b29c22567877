"""Entry checks: what is wrong with a matrix, one clear sentence each, naming the problem and the cure.

What no analysis can use (NaN, words, a gene named twice) is also what :func:`shared.data.load` and
:func:`shared.data.from_arrays` refuse; the rest are findings to read and judge.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from shared.data.constraints import Maybe, OneOf, Whole, require
from shared.data.errors import DataError
from shared.data.genes.kinds import gene_kind
from shared.data.genes.lists import many, shown
from shared.data.validate.findings import CheckReport, Finding, findings
from shared.data.validate.names import of_names, of_overlap
from shared.data.validate.structure import column_of, layer_of, structural
from shared.data.validate.values import EXACT, LOGGED_MAX, Values, blocks, looks_like, scan, units_of

if TYPE_CHECKING:
    import anndata as ad

SEVERITIES = ("error", "warning", "note")
NEEDS = ("counts", "log", "tpm", "z")
TWICE_MAX = 2.4  # log1p of log1p of ten thousand: all that a cell scaled to that total can reach
HUGE = 50  # totals of one cell over the median; the widest of the book's real sets reaches 36
DEEP = 3e6  # reads of a bulk library; the deepest cells of the book's real sets have half a million
FILLED = 0.25  # share of zeros: bulk and arrays of 500 genes and more have fewer, cells more
NO_LABEL = {"", "nan", "none", "na", "n/a", "null", "unknown", "unlabelled", "unlabeled", "unassigned", "undefined"}


def check(
    adata: ad.AnnData, *, need=None, labels=None, per_class=None, genes=None, organism=None, layer=None, strict=False,
    values=None,
) -> CheckReport:  # fmt: skip
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
    values : Values, optional
        What :func:`~shared.data.validate.values.scan` found of ``X``, where it was looked at already.

    Returns
    -------
    CheckReport

    Raises
    ------
    SettingError
        If `need`, `organism` or `per_class` cannot be used.
    DataError
        If `per_class` comes without `labels`, or, with `strict`, if there is an error.
    """
    import anndata as ad

    if not isinstance(adata, ad.AnnData):
        raise DataError(f"check takes AnnData, not {type(adata).__name__}: shared.data.from_arrays makes one")
    require(Maybe(OneOf(*NEEDS)), need=need)
    require(Maybe(OneOf("human", "mouse")), organism=organism)
    require(Maybe(Whole(1)), per_class=per_class)
    if per_class is not None and labels is None:
        raise DataError("per_class needs labels: name the column of obs that holds the classes")
    X = adata.X if layer is None else layer_of(adata, layer, "the matrix")
    found = list(structural(adata, X))
    looks, kind, row = "unreadable", None, "cell"
    if {f.check for f in found} & {"empty", "no matrix", "dtype", "damaged"}:
        values = None
    else:
        values = scan(X) if values is None else values
        looks = looks_like(values, X)
        row = _row(adata, values, looks)
        # A layer other than counts does not say what it holds.
        units = units_of(adata, values) if layer is None else "counts" if layer == "counts" else None
        found += value_errors(values, units) + _of_looks(values, looks, need, units, adata, layer, row)
        found += _of_totals(X, values, looks, adata, row) + _of_storage(X, values)
        said = adata.uns.get("units")
        if layer is None and units == "log" != said:
            problem = f"says it holds {said}, and was logged since"
            found.append(Finding("units", "note", problem, "adata.uns['units'] = 'log' says so"))
    if not any(f.check == "names" for f in found) and adata.n_vars:
        kind = gene_kind(adata)
        found += of_names(adata, kind, organism)
        found += of_overlap(adata, genes, kind) if genes is not None else []
    if labels is not None:
        found += _of_labels(adata, labels, per_class, row)
    if any(f.check == "transposed" for f in found):
        found = [f for f in found if f.check not in ("empty cells", "empty genes", "huge cell", "one cell")]
    first = {}  # of findings by the same check, errors before the others
    for f in sorted(found, key=lambda f: SEVERITIES.index(f.severity)):
        first.setdefault(f.check, f)
    facts = [f"{adata.n_obs:,} {row}s × {adata.n_vars:,} genes", *([] if kind is None else [str(kind)])]
    if values is not None:
        empty = values.zeros / (values.shape[0] * values.shape[1])
        facts.append(f"looks {looks}, from {values.smallest:,.4g} to {values.largest:,.4g}, {empty:.0%} zeros")
    report = CheckReport(tuple(first.values()), adata.shape, looks, kind, "; ".join(facts))
    if strict and report.errors:
        raise DataError("\n".join(f.about("the matrix") for f in report.errors))
    return report


def _row(adata, v, looks) -> str:
    """What a row is called: a cell, or a sample where names, depth or the lack of zeros tell that it is bulk."""
    sampled = sum(bool(re.match(r"(TCGA|TARGET|GTEX)-", str(name))) for name in adata.obs_names)
    deep = looks in ("counts", "expected counts") and np.median(v.totals) >= DEEP
    # Centring fills the zeros of cells, too.
    full = looks not in ("signed", "equal") and v.shape[1] >= 500 and v.zeros < FILLED * v.shape[0] * v.shape[1]
    return "sample" if deep or full or 2 * sampled > len(adata) else "cell"


def value_errors(v: Values, units=None) -> list[Finding]:
    """What no analysis can use among the values, where they are said to be in `units`."""
    holes = " and ".join(f"{n:,} {what}" for n, what in ((v.nan, "NaN"), (v.infinite, "infinite")) if n)
    named = f"{holes} {'value' if v.nan + v.infinite == 1 else 'values'}"
    among = "TPM" if units == "tpm" else "counts"
    return findings(
        (holes, "nan" if v.nan else "infinite", "error",
         f"holds {named}", "fill them or drop those genes before loading"),
        (v.beyond, "beyond float32", "error",
         f"holds {many(v.beyond, 'value')} beyond 3.4e38, which float32 cannot hold",
         "find out what was multiplied or not logged"),
        (v.negative and (units in ("counts", "tpm") or v.whole), "negative", "error",
         f"holds {many(v.negative, 'negative value')} among {among}", "load the values as measured, before any step"),
        (units == "counts" and v.fractions, "not counts", "error",
         f"should hold counts, but has {many(v.fractions, 'fraction')}",
         "load the raw counts, or set uns['units'] to what it holds"),
    )  # fmt: skip


# What values look like that are not what is needed, and the cure.
COUNTS = "start from the raw counts"
ELSE_COUNTS = {
    "logged": ("looks logged already, nothing is above {top}", COUNTS),
    "logged twice": ("looks logged twice", COUNTS),
    "shares": ("holds only values from 0 to 1", COUNTS),
    "signed": ("holds {negative} negative values, so it was centred, scaled or logged", COUNTS),
    "per million": ("is scaled to one million in every {row} (TPM or CPM)", COUNTS),
    "scaled to one total": ("is scaled to the same total in every {row}", COUNTS),
    "linear": ("holds fractions as concentrations or intensities do (FPKM, TPM, array)", COUNTS),
}
SCALE = "scale counts to one total a cell first; then, as other values, log them with numpy.log1p"
NOT_LOGGED = ("is not logged, its largest value is {top}", SCALE)
ELSE_LOG = dict.fromkeys(("expected counts", "per million", "scaled to one total", "linear"), NOT_LOGGED) | {
    "counts": ("holds counts that are not logged", "scale each cell to one total, then take numpy.log1p"),
    "logged twice": ("looks logged twice", "take numpy.expm1 once, or start from the raw counts"),
}
ELSE_TPM = {
    "counts": ("holds counts", "divide by gene length and scale to a million"),
    "logged": ("looks logged, nothing is above {top}", "undo the logarithm (numpy.expm1, or 2 ** x - 1)"),
    "logged twice": ("looks logged twice", "undo both logarithms"),
    "signed": ("holds {negative} negative values", "undo what was done after TPM"),
    "shares": ("holds only values from 0 to 1", "scale to a million"),
}


def _of_looks(v, looks, need, units, adata, layer, row) -> list[Finding]:
    """What does not fit what is needed or said: the first that holds."""
    said = {"top": f"{v.largest:,.4g}", "negative": f"{v.negative:,}", "row": row}
    problem, cure = {"counts": ELSE_COUNTS, "log": ELSE_LOG, "tpm": ELSE_TPM}.get(need, {}).get(looks, ("", ""))
    no_tpm = ELSE_TPM.get(looks, ("",))[0]
    if need == "counts" and layer is None and "counts" in adata.layers:
        cure = "adata.X = adata.layers['counts'].copy()"
    small = v.largest < TWICE_MAX and units != "none" and min(v.shape) > 9 and v.shape[1] > 199
    linear = looks in ("counts", "linear", "expected counts")
    return findings(
        (problem, f"not {need}", "error", problem.format(**said), cure),
        (need == "counts" and looks == "expected counts", "not counts", "warning",
         "holds fractions among counts, as RSEM and kallisto estimate them",
         "round them where whole numbers are needed"),
        (need == "counts" and looks == "binary", "not counts", "warning",
         "holds zeros and ones only", "is it detection in place of counts?"),
        (need == "tpm" and looks in ("expected counts", "linear", "scaled to one total"), "not tpm", "warning",
         f"has {row}s that sum to {np.median(v.totals):,.4g}, not to a million", "scale each to 1e6"),
        (need == "z" and looks != "signed", "not z", "warning",
         "holds no negative value, so it is not centred", "subtract each gene's mean"),
        (looks == "logged twice", "logged twice", "warning", "looks logged twice", "take numpy.expm1 once"),
        (units == "log" and linear and v.largest > LOGGED_MAX, "not log", "warning",
         f"says it is logged, but its largest value is {v.largest:,.4g}",
         "log it, or set uns['units'] to what it holds"),
        (units == "tpm" and no_tpm, "not tpm", "warning",
         f"says it is TPM, but {no_tpm.format(**said)}", "set uns['units'] to what it holds"),
        (looks == "logged" and small, "logged twice", "warning",
         f"holds nothing above {v.largest:.3g}, little for values logged once",
         "make sure it was not logged twice or scaled to a range"),
    )[:1]  # fmt: skip


def _sums_up(X, v, top) -> bool:
    """Whether a row is the sum of all others, gene by gene."""
    if v.shape[0] < 3 or v.shape[1] < 2 or not np.isclose(2 * v.totals[top], v.totals.sum(), rtol=1e-6):
        return False
    signs = ((np.where(np.arange(rows.start, rows.stop) == top, 1.0, -1.0), block) for rows, block, _ in blocks(X))
    return bool(np.allclose(sum(sign @ block for sign, block in signs), 0, atol=1e-6 * v.totals[top]))


def _of_totals(X, v, looks, adata, row) -> list[Finding]:
    if not v.finite:
        return []
    # A sum of signed values can be zero by chance or by centring, so it says nothing of them.
    blank = np.flatnonzero(v.totals == 0) if looks not in ("signed", "equal") else []
    unseen, top = int((v.cells_of == 0).sum()), int(v.totals.argmax())
    sized = looks in ("counts", "expected counts", "linear") and v.shape[0] >= 10 and not v.beyond
    middle = float(np.median(v.totals[v.totals > 0])) if sized else np.inf
    return findings(
        (len(blank), "empty cells", "warning",
         f"has {many(len(blank), row)} without any expression ({shown(adata.obs_names[blank[:9]])})",
         "drop them in quality control"),
        (unseen and looks != "equal", "empty genes", "note",
         f"has {many(unseen, 'gene')} with no expression in any {row}", "drop them in quality control"),
        (v.totals[top] > HUGE * middle, "huge cell", "warning",
         f"has a {row} of a size of its own, {shown([adata.obs_names[top]])} with "
         f"{v.totals[top] / middle:,.0f} times the median",
         "a clump, or a row of totals? look at it, then drop it"),
        (looks in ("counts", "expected counts", "linear") and _sums_up(X, v, top), "totals", "warning",
         f"has a {row} that is the sum of all others ({shown([adata.obs_names[top]])})", "drop it"),
        (v.shape[0] == 1, "one cell", "note",
         f"holds a single {row}", "nothing can be compared or learned from it alone"),
        (looks == "equal", "equal", "warning",
         f"holds the same value everywhere, {v.smallest:g}", "see what was read"),
    )  # fmt: skip


def _of_storage(X, v) -> list[Finding]:
    form = getattr(X, "format", None) or "csr"
    return findings(
        (v.large, "rounded", "note", f"holds {many(v.large, 'count')} above {EXACT:,} that float32 rounds",
         "harmless for expression; identifiers do not belong into X"),
        (v.parts, "parts", "warning", f"stores {many(v.parts, 'entry')} in several parts",
         "X.sum_duplicates() adds them up; so does shared.data.load"),
        (v.stored_zeros, "stored zeros", "note", f"stores {many(v.stored_zeros, 'zero')}",
         "X.eliminate_zeros() saves their memory; so does shared.data.load"),
        (form != "csr", "format", "note", f"is stored as {form.upper()}, slow to take cells from",
         "X.tocsr(); shared.data.load does it"),
        (np.dtype(X.dtype).kind == "b", "truth values", "note",
         "holds true and false", "they are taken as 1 and 0"),
    )  # fmt: skip


def _of_labels(adata, labels, per_class, row) -> list[Finding]:
    try:
        column = column_of(adata.obs, labels)
    except DataError as e:
        problem, _, cure = str(e).partition("; ")
        return [Finding("labels", "error", "has no labels to learn, " + problem, cure or "name another column")]
    missing, words = int(column.isna().sum()), column[column.notna()].astype(str)
    sizes = words.value_counts()
    blank = [c for c in sizes.index if c.strip().lower() in NO_LABEL]
    plain = sizes.index.to_series().str.lower().str.replace("_", " ").str.split().str.join(" ")
    same = [c for c in sizes.index[plain.duplicated(keep=False)] if plain[c] == plain[plain.duplicated()].iloc[0]]
    few = sizes[sizes < (per_class or 0)]
    return findings(
        (missing, "missing labels", "error",
         f"has {many(missing, row)} without {labels!r}", "drop them, or label them, first"),
        (blank, "unlabelled", "warning",
         f"has {many(int(sizes[blank].sum()), row)} whose {labels!r} is {shown(map(repr, blank))}",
         "drop them, or they are learned as a class of their own"),
        (column.dtype.kind == "f" and len(sizes) > max(10, len(words) / 2), "numbers", "warning",
         f"has a different number in {labels!r} for almost every {row}", "these are values to predict, not classes"),
        (same, "alike", "warning",
         f"has classes that differ in case or spaces only ({shown(map(repr, same))})", "make them one"),
        (len(sizes) < 2, "one class", "error",
         f"has one class only in {labels!r}" + "".join(f", {c!r}" for c in sizes.index),
         "classification needs two; take another column or more data"),
        (len(few), "few per class", "error",
         f"has {len(few):,} of {len(sizes):,} classes with fewer than the {per_class} {row}s asked for "
         f"({shown(f'{c} {n}' for c, n in few.items())})",
         "ask for fewer, or drop or merge these classes"),
    )  # fmt: skip
