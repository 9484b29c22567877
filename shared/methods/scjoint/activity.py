"""Gene activity: peaks of open chromatin, summed over each gene and what lies before its start."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import sparse

from shared.data.cells import finite_matrix
from shared.data.constraints import Whole, require
from shared.data.errors import DataError


def gene_activity(X, peaks: pd.DataFrame, genes: pd.DataFrame, upstream: int = 2000) -> sparse.csr_matrix:
    """Sum over the peaks that overlap a gene or the `upstream` bases before its start: float32 CSR, cells × genes.

    It puts chromatin on the axis of genes, which is what scJoint needs, and it is crude: a peak counts for every gene
    that it overlaps, whichever it regulates, and an enhancer far from its gene for none.

    Parameters
    ----------
    X : AnnData, ndarray or sparse matrix, cells × peaks
        Counts, or whether a peak is open.
    peaks : DataFrame, peaks × ``chromosome``, ``start``, ``end``
        In the order of the columns of `X`. Places are whole numbers of bases from 0, `end` not included, as in BED.
    genes : DataFrame, genes × ``chromosome``, ``start``, ``end``, ``strand``
        The strand is ``"+"`` or ``"-"``, for which the gene starts at `end`.
    upstream : int
        Bases.

    Raises
    ------
    SettingError, DataError
        If `upstream` is no such number, a table lacks a column or its places cannot be, `X` has another number of
        peaks, or `peaks` and `genes` have no chromosome in common.

    References
    ----------
    Sum over gene body and 2,000 bases upstream: Stuart and others, *Single-cell chromatin state analysis with Signac*
    (Nature Methods, 2021), with which the data of scJoint were made.
    """
    require(Whole(), upstream=upstream)
    X = sparse.csr_matrix(finite_matrix(X, dtype=np.float32))
    where, bodies = _places(peaks, "peaks"), _places(genes, "genes")
    if X.shape[1] != len(where):
        raise DataError(
            f"X has {X.shape[1]} columns and peaks {len(where)} rows: give one row a column, in their order"
        )
    if not set(genes["strand"]) <= {"+", "-"}:
        raise DataError('strand of genes must be "+" or "-": drop genes without one')
    if not set(where["chromosome"]) & set(bodies["chromosome"]):
        names = f"{where['chromosome'].iloc[0]!r} and {bodies['chromosome'].iloc[0]!r}"
        raise DataError(f"peaks and genes have no chromosome in common ({names}): name chromosomes alike")
    forward = (genes["strand"] == "+").to_numpy()
    bodies["start"] -= np.where(forward, upstream, 0)
    bodies["end"] += np.where(forward, 0, upstream)
    return (X @ overlaps(where, bodies)).tocsr()


def overlaps(peaks: pd.DataFrame, windows: pd.DataFrame) -> sparse.csr_matrix:
    """Which peak overlaps which window: float32 CSR of 0 and 1, peaks × windows; tables as of :func:`gene_activity`."""
    pairs = [np.empty((2, 0), np.int64)]
    for chromosome, own in windows.groupby("chromosome").indices.items():
        at = np.flatnonzero((peaks["chromosome"] == chromosome).to_numpy())
        at = at[np.argsort(peaks["start"].to_numpy()[at], kind="stable")]
        start, end = (peaks[name].to_numpy()[at] for name in ("start", "end"))
        # The farthest end so far never falls, so that both sides of the candidates are found by bisection.
        first = np.searchsorted(np.maximum.accumulate(end), windows["start"].to_numpy()[own], "right")
        last = np.maximum(np.searchsorted(start, windows["end"].to_numpy()[own], "left"), first)
        window = np.repeat(own, last - first)
        place = np.arange(len(window)) - np.repeat(np.cumsum(last - first) - last, last - first)
        near = end[place] > windows["start"].to_numpy()[window]
        pairs.append(np.stack([at[place[near]], window[near]]))
    peak, window = np.concatenate(pairs, 1)
    return sparse.csr_matrix((np.ones(len(peak), np.float32), (peak, window)), (len(peaks), len(windows)))


def _places(table, what: str) -> pd.DataFrame:
    """Chromosome, start and end, checked, of a table that stays as it is."""
    needed = ["chromosome", "start", "end"] + ["strand"] * (what == "genes")
    if not isinstance(table, pd.DataFrame) or (lost := [name for name in needed if name not in table]):
        lost = lost if isinstance(table, pd.DataFrame) else needed
        raise DataError(f"{what} must be a table with the columns {', '.join(needed)}: {', '.join(lost)} not found")
    places = table[["start", "end"]].apply(pd.to_numeric, errors="coerce")
    if len(table) == 0 or places.isna().any(axis=None) or (places["start"] >= places["end"]).any():
        raise DataError(f"start and end of {what} must be numbers of bases, start below end, one row or more")
    return places.astype(np.int64).assign(chromosome=table["chromosome"].astype(str)).reset_index(drop=True)
