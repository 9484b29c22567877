"""What expression data say before a model is fitted: depth, zeros, maps, batches, and which transfer a problem needs.

Read from the counts outwards: scaling (:func:`cpm`, :func:`tpm`), zeros (:func:`dispersion`, :func:`expected_zeros`), a
map and its distortion (:func:`umap`, :func:`distortion`), whose variance it is (:func:`batch_share`), what a design can
answer (:func:`confounding`), batch correction written out (:func:`correct`), and the survey's methods
(:data:`METHODS`) with the scenario each belongs to (:func:`scenario`).

Matrices are cells × genes, AnnData, CSR or ndarray; nothing is changed in place.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import wraps
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import sparse

from shared.data.cells import array_of, count_matrix, dense_matrix, label_array
from shared.data.constraints import Whole, require
from shared.data.errors import DataError
from shared.data.genes.lists import names_of
from shared.methods.maps import distortion, neighbor_graph, umap
from shared.methods.survey import METHODS, Method, Scenario, methods, scenario

__all__ = [  # noqa: RUF022 (the order of the story)
    "cpm", "tpm", "dispersion", "expected_zeros", "zero_table", "neighbor_graph", "umap", "distortion",
    "explained", "batch_share", "Design", "confounding", "correct", "pseudobulk", "surviving", "Scenario", "scenario",
    "Method", "METHODS", "methods",
]  # fmt: skip


def cpm(counts, total=1e6):
    """Counts per million: each cell divided by its own total; a sparse matrix stays sparse.

    What is left are shares, so one gene that rises makes every other gene fall.

    Parameters
    ----------
    counts : AnnData, CSR or ndarray of shape (n_cells, n_genes)
        Raw counts.
    total : float, default 1e6
        What each cell sums to afterwards.

    Returns
    -------
    float64 CSR or ndarray of the same shape

    Raises
    ------
    DataError
        On negative or missing values, logarithms, or a cell without any count.
    """
    return counts / counts.sum(1, keepdims=True) * total


def tpm(counts, lengths, total=1e6):
    """Transcripts per million: counts per base first, then shares.

    A long transcript yields more fragments than a short one, so reads per base are nearer to molecules. Counts of
    molecular barcodes (UMI) are one a molecule already and need no lengths.

    Parameters
    ----------
    counts : AnnData, CSR or ndarray of shape (n_cells, n_genes)
        Reads or fragments.
    lengths : ndarray of shape (n_genes,)
        Transcript lengths, in any one unit.
    total : float, default 1e6
        What each cell sums to afterwards.

    Returns
    -------
    float64 CSR or ndarray of shape (n_cells, n_genes)

    Raises
    ------
    DataError
        As :func:`cpm`, and if there is not one length above 0 a gene.

    References
    ----------
    Wagner, Kin and Lynch (2012), Theory in Biosciences 131, 281.
    """
    return cpm(counts / lengths, total)


class _Counts(np.ndarray):
    """Counts that were looked at."""


def _of_counts(function):
    """`function` for whatever holds counts, which are checked first; zeros must stay zeros."""

    @wraps(function)
    def checked(counts, *lengths, **options):
        if isinstance(counts, _Counts):
            return function(counts, *lengths, **options)
        lengths = [options.pop("lengths")] if "lengths" in options else list(lengths)
        X, _ = count_matrix(counts)
        if function.__name__ == "tpm" and lengths:
            lengths[0] = array_of(lengths[0], "lengths", np.float64)
            if lengths[0].shape != X.shape[1:] or not (lengths[0] > 0).all() or not np.isfinite(lengths[0]).all():
                said = f"lengths has shape {lengths[0].shape} for {X.shape[1]} genes"
                raise DataError(f"{said}: give each a length above 0")
        if not sparse.issparse(X):
            return np.asarray(function(X.view(_Counts), *lengths, **options))
        rows = (X[start : start + 1024].toarray().view(_Counts) for start in range(0, X.shape[0], 1024))
        return sparse.vstack([sparse.csr_matrix(function(some, *lengths, **options)) for some in rows], "csr")

    return checked


cpm, tpm = _of_counts(cpm), _of_counts(tpm)  # the page shows them without the checks


def _blocks(X, totals, width=1024):
    """Slices of genes with their dense counts and the counts that depth alone predicts (cells × genes of the slice)."""
    share = np.asarray(X.sum(0)).ravel() / totals.sum()
    X = X.tocsc() if sparse.issparse(X) else X
    for start in range(0, X.shape[1], width):
        genes = slice(start, start + width)
        part = X[:, genes]
        yield genes, part.toarray() if sparse.issparse(part) else part, totals[:, None] * share[genes]


def dispersion(counts) -> np.ndarray:
    """Each gene's variance beyond counting noise, by moments: ``var = mean + dispersion * mean ** 2``.

    The mean differs from cell to cell with depth, so deep and shallow cells are no dispersion.

    Parameters
    ----------
    counts : CSR or ndarray of shape (n_cells, n_genes)
        Raw counts, of one kind of cell if the answer is to be about counting.

    Returns
    -------
    float64 ndarray of shape (n_genes,)
        0 where the counts vary no more than Poisson counts would, and for genes that are never seen.
    """
    X, totals = count_matrix(counts)
    found = np.zeros(X.shape[1])
    for genes, seen, mean in _blocks(X, totals):
        extra = ((seen - mean) ** 2 - mean).sum(0)
        found[genes] = np.maximum(extra, 0) / np.maximum((mean**2).sum(0), 1e-300)
    return found


def expected_zeros(counts, dispersion=0.0) -> np.ndarray:
    """Share of cells in which each gene would be zero if only depth and the gene's own share decided.

    With `dispersion` 0 the counts are Poisson, above it negative binomial. Compare with the share of zeros observed:
    what is above the Poisson line is variation between cells, what is above the negative binomial is more zeros than
    that variation explains.

    Parameters
    ----------
    counts : CSR or ndarray of shape (n_cells, n_genes)
        Raw counts.
    dispersion : float or ndarray of shape (n_genes,), default 0
        As :func:`dispersion` returns it.

    Returns
    -------
    float64 ndarray of shape (n_genes,)

    References
    ----------
    Svensson (2020), Nature Biotechnology 38, 147.
    """
    X, totals = count_matrix(counts)
    spread = np.broadcast_to(np.asarray(dispersion, dtype=np.float64), X.shape[1])
    if (spread < 0).any() or not np.isfinite(spread).all():
        raise DataError("dispersion holds negative or missing values: give 0 or more for each gene")
    zeros = np.zeros(X.shape[1])
    for genes, _, mean in _blocks(X, totals):
        phi = np.maximum(spread[genes], 1e-12)  # the limit at 0 is the Poisson's
        zeros[genes] = np.exp(-np.log1p(phi * mean) / phi).mean(0)
    return zeros


def zero_table(counts) -> pd.DataFrame:
    """Zeros observed and expected, gene by gene, over genes that are seen at all.

    Parameters
    ----------
    counts : CSR or ndarray of shape (n_cells, n_genes)
        Raw counts, of one type and batch if types and batches are not to pass for noise.

    Returns
    -------
    DataFrame
        One row a gene seen: ``mean`` count, ``observed`` share of zeros, and the shares that :func:`expected_zeros`
        gives without (``Poisson``) and with each gene's own :func:`dispersion` (``negative binomial``).
    """
    X, _ = count_matrix(counts)
    mean = np.asarray(X.mean(0)).ravel()
    X = X[:, np.flatnonzero(mean)]
    columns = {
        "mean": mean[mean > 0],
        "observed": 1 - np.asarray((X > 0).sum(0)).ravel() / X.shape[0],
        "Poisson": expected_zeros(X),
        "negative binomial": expected_zeros(X, dispersion(X)),
    }
    return pd.DataFrame(columns, index=np.flatnonzero(mean))


def explained(X, *groups):
    """Share of the variance of all genes that a linear model on the groups explains: between 0 and 1.

    Parameters
    ----------
    X : AnnData, CSR or ndarray of shape (n_cells, n_genes)
        Log-normalised expression.
    *groups : sequences of shape (n_cells,)
        With more than one, their effects add up; what one of them already explains is not counted twice.

    Returns
    -------
    float
    """
    member = [np.asarray(g)[:, None] == np.unique(g) for g in groups]
    design = np.hstack(member).astype(float)
    X = X - X.mean(0)
    u, size, _ = np.linalg.svd(design, full_matrices=False)
    fitted = u[:, size > 1e-8].T @ X
    return (fitted**2).sum() / (X**2).sum()


def _explained(X, *groups):
    X = dense_matrix(X)
    if not np.ptp(X, axis=0).any():
        raise DataError("no gene varies between these cells, so there is no variance to share out")
    return _share_explained(X, *(label_array(g, len(X), "group") for g in groups))


_share_explained, explained = explained, wraps(explained)(_explained)  # as above


def batch_share(X, batch, label, components=None, random_state=0) -> pd.Series:
    """Whose variance is it: the batches', the labels', or nobody can say.

    Three linear models explain all genes at once: by batch, by label, by both. What both explain beyond one of them
    is the other's alone; the remainder is shared, because batches hold the labels in different proportions. No
    correction can tell from the matrix whose the shared part is.

    Parameters
    ----------
    X : CSR or ndarray of shape (n_cells, n_genes)
        Log-normalised expression.
    batch : sequence of shape (n_cells,)
        Run, platform, study or day of each cell.
    label : sequence of shape (n_cells,)
        What is asked about: type, outcome, side.
    components : int, optional
        Share out the variance of so many principal components in place of all genes: less counting noise.
    random_state : int, default 0
        Of the components' solver.

    Returns
    -------
    Series
        ``batch``, ``shared``, ``label``, ``rest``: shares of the total variance, together 1. Random groups explain
        about one part in n for each group but the first. ``shared`` may be slightly negative where the two work
        against each other.
    """
    X = dense_matrix(X)
    batch, label = label_array(batch, len(X), "batch"), label_array(label, len(X), "label")
    if components is not None:
        from sklearn.decomposition import PCA

        require(Whole(1), components=components)
        X = PCA(min(components, *X.shape), random_state=random_state).fit_transform(X)
    by_batch, by_label, both = explained(X, batch), explained(X, label), explained(X, batch, label)
    parts = {"batch": both - by_label, "shared": by_batch + by_label - both, "label": both - by_batch, "rest": 1 - both}
    return pd.Series(parts)


@dataclass(frozen=True)
class Design:
    """What a table of batches by labels can answer; made by :func:`confounding`.

    Attributes
    ----------
    table : DataFrame
        Cells of each batch (rows) and label (columns).
    cramers_v : float
        0 when every batch holds the labels in the same shares, 1 when the batch gives the label away.
    contrasts : DataFrame
        For each pair of labels (index): ``direct``, how many batches hold both; ``estimable``, whether the
        difference can be told from batch effects at all, if both add up. It can when a chain of batches joins them.
    informative : int
        Cells in batches with two labels or more: only they say what the labels do.
    """

    table: pd.DataFrame
    cramers_v: float
    contrasts: pd.DataFrame
    informative: int

    def summary(self) -> dict:
        """The four numbers that judge a design, by name."""
        return {
            "cells": int(self.table.to_numpy().sum()),
            "Cramér's V": round(self.cramers_v, 2),
            "contrasts estimable": f"{int(self.contrasts['estimable'].sum())} of {len(self.contrasts)}",
            "informative": self.informative,
        }

    def __str__(self):
        n, answered = int(self.table.to_numpy().sum()), int(self.contrasts["estimable"].sum())
        return (
            f"Cramér's V {self.cramers_v:.2f}; {answered} of {len(self.contrasts)} contrasts can be estimated; "
            f"{self.informative} of {n} cells lie in batches with two labels or more"
        )


def confounding(batch, label) -> Design:
    """Which differences between labels a design can tell from differences between batches.

    Parameters
    ----------
    batch : sequence of shape (n_cells,)
        Run, platform, study or day of each cell.
    label : sequence of shape (n_cells,)
        What is asked about: type, outcome, side.

    Returns
    -------
    Design

    References
    ----------
    Cramér (1946), Mathematical Methods of Statistics, chapter 21.
    """
    from scipy.sparse.csgraph import connected_components

    batch = array_of(batch, "batch", object)
    batch = label_array(batch, len(batch) if batch.ndim else 0, "batch")
    label = label_array(label, len(batch), "label")
    if not len(batch):
        raise DataError("there are no cells: give one batch and one label for each")
    table = pd.crosstab(pd.Series(batch, name="batch"), pd.Series(label, name="label"))
    seen, n = table.to_numpy(), len(batch)
    expected = np.outer(seen.sum(1), seen.sum(0)) / n
    least = min(table.shape) - 1
    v = float(np.sqrt(((seen - expected) ** 2 / expected).sum() / n / least)) if least else 0.0
    joined = seen.T @ seen  # labels × labels: do they meet in a batch?
    _, part = connected_components(joined > 0)
    rows = {
        (a, b): (int(((seen[:, i] > 0) & (seen[:, j] > 0)).sum()), bool(part[i] == part[j]))
        for (i, a), (j, b) in combinations(enumerate(table.columns), 2)
    }
    index = pd.MultiIndex.from_tuples(rows, names=["label", "against"]) if rows else None
    contrasts = pd.DataFrame(list(rows.values()), columns=["direct", "estimable"], index=index)
    return Design(table, v, contrasts, int(seen[(seen > 0).sum(1) > 1].sum()))


def correct(X, batch, keep=None, shrink=True) -> np.ndarray:
    """ComBat written out: take each batch's location and scale from every gene, shrunk towards all genes of the batch.

    With `keep` the labels' differences are fitted beside the batches' and put back. That sounds safe and is the trap:
    labels told to the correction are stronger afterwards than the data make them, even when they mean nothing.

    Parameters
    ----------
    X : ndarray of shape (n_cells, n_genes)
        Log-normalised.
    batch : sequence of shape (n_cells,)
        Two batches or more, of two cells or more.
    keep : sequence of shape (n_cells,), optional
        Labels to protect. Refused where batches and labels cannot be told apart.
    shrink : bool, default True
        False takes each gene's own estimates, without empirical Bayes.

    Returns
    -------
    float64 ndarray of shape (n_cells, n_genes)
        Genes that do not vary within batches stay as they are.

    References
    ----------
    Johnson, Li and Rabinovic (2007), Biostatistics 8, 118.
    """
    X = dense_matrix(X)
    batch = label_array(batch, len(X), "batch")
    names, code = np.unique(batch, return_inverse=True)
    sizes = np.bincount(code)
    if len(names) < 2 or sizes.min() < 2:
        raise DataError("correction needs two batches or more of two cells or more: join or drop the small ones")
    member = np.eye(len(names))[code]  # cells × batches
    kept = np.zeros((len(X), 0))
    if keep is not None:
        keep = label_array(keep, len(X), "keep")
        kept = (keep[:, None] == np.unique(keep)[1:]).astype(float)
    design = np.hstack([member, kept])
    if np.linalg.matrix_rank(design) < design.shape[1]:
        raise DataError("some labels to keep cannot be told from batches: see confounding(batch, keep).contrasts")
    effect = np.linalg.lstsq(design, X, rcond=None)[0]
    noise = ((X - design @ effect) ** 2).mean(0)
    moving = noise > 1e-12
    spread = np.sqrt(np.where(moving, noise, 1))
    mean = sizes @ effect[: len(names)] / len(X) + kept @ effect[len(names) :]
    Z = (X - mean) / spread
    for b in range(len(names)):
        rows = np.flatnonzero(code == b)
        shift, scale = _shrunk(Z[np.ix_(rows, moving)], shrink)
        Z[np.ix_(rows, moving)] = (Z[np.ix_(rows, moving)] - shift) / np.sqrt(scale)
    return np.where(moving, Z * spread + mean, X)


def _shrunk(Z, shrink, rounds=500):
    """Location and scale of each gene in one batch: its own, or posterior means under priors fitted to all genes."""
    shift, scale, n = Z.mean(0), Z.var(0, ddof=1), len(Z)
    if not shrink or Z.shape[1] < 2 or not scale.var(ddof=1) > 0:
        return shift, np.maximum(scale, 1e-12)
    centre, width = shift.mean(), shift.var()
    m, s2 = scale.mean(), scale.var(ddof=1)
    a, b = (2 * s2 + m**2) / s2, (m * s2 + m**3) / s2
    own, before = shift, shift
    for _ in range(rounds):
        shift = (width * n * own + scale * centre) / (width * n + scale)
        scale = (0.5 * ((Z - shift) ** 2).sum(0) + b) / (n / 2 + a - 1)
        if np.abs(shift - before).max() < 1e-6:
            break
        before = shift
    return shift, scale


def pseudobulk(counts, groups) -> pd.DataFrame:
    """Sum the counts of each group's cells: what a tube of these cells together would have read.

    Parameters
    ----------
    counts : CSR or ndarray of shape (n_cells, n_genes)
        Raw counts.
    groups : sequence of shape (n_cells,)
        Donor, run or lane of each cell.

    Returns
    -------
    DataFrame of shape (n_groups, n_genes)
        float64, indexed by group.
    """
    X, _ = count_matrix(counts)
    groups = label_array(groups, X.shape[0], "group")
    names = np.unique(groups)
    member = sparse.csr_matrix((names[:, None] == groups).astype(np.float64))
    summed = member @ X
    return pd.DataFrame(summed.toarray() if sparse.issparse(summed) else summed, index=names)


def surviving(genes, steps: dict, weight=None) -> pd.DataFrame:
    """What is left of a gene list after each change of names or platform, one after the other.

    Parameters
    ----------
    genes : sequence of str
        The list to begin with.
    steps : dict of name to collection of str
        The genes that each step knows; a gene must be known to it and to all steps before.
    weight : ndarray of shape (n_genes,), optional
        For example each gene's reads; genes of weight 0 do not count.

    Returns
    -------
    DataFrame
        One row a step: ``genes``, share left; ``weight``, share of the weight left; ``n``, genes left.
    """
    genes = pd.Index(names_of(genes))
    weight = np.ones(len(genes)) if weight is None else np.asarray(weight, dtype=np.float64)
    if weight.shape != (len(genes),) or not np.isfinite(weight).all() or weight.min() < 0 or not weight.any():
        raise DataError(f"weight has shape {weight.shape} for {len(genes)} genes: give each 0 or more, not all 0")
    counted = left = weight > 0
    rows = {}
    for step, known in steps.items():
        left = left & genes.isin(pd.Index(known))
        rows[step] = {
            "genes": left.sum() / counted.sum(),
            "weight": weight[left].sum() / weight.sum(),
            "n": int(left.sum()),
        }
    return pd.DataFrame.from_dict(rows, orient="index")
