"""What expression data say before a model is fitted: depth, zeros, maps, batches, and which transfer a problem needs.

Read from the counts outwards: scaling (:func:`cpm`, :func:`tpm`), zeros (:func:`dispersion`, :func:`expected_zeros`), a
map and its distortion (:func:`umap`, :func:`distortion`), whose variance it is (:func:`batch_share`), what a design can
answer (:func:`confounding`), batch correction written out (:func:`correct`), and the survey's methods
(:data:`METHODS`) with the scenario each belongs to (:func:`scenario`).

Matrices are cells × genes, CSR or ndarray; nothing is changed in place.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse


class DesignError(ValueError):
    """The batches, labels or facts given cannot answer the question; the message names why and the cure."""


def _labels(values, n: int, what: str) -> np.ndarray:
    """`values` as an array of words, one a cell, none missing."""
    values = np.asarray(values, dtype=object)
    if values.shape != (n,):
        raise DesignError(f"{what} has shape {values.shape} and there are {n} cells: give one {what} a cell")
    if pd.isna(values).any():
        raise DesignError(f"{int(pd.isna(values).sum())} cells have no {what}: drop them, or name one for each")
    return values.astype(str)


def _finite(X, what: str = "X"):
    """`X` as float64, CSR or ndarray; refused unless it is a table of finite numbers."""
    X = X.tocsr().astype(np.float64) if sparse.issparse(X) else np.array(X, dtype=np.float64)
    if X.ndim != 2 or 0 in X.shape:
        raise DesignError(f"{what} has shape {X.shape}: give cells in rows and genes in columns, at least one of each")
    if not np.isfinite(X.data if sparse.issparse(X) else X).all():
        raise DesignError(f"{what} holds NaN or infinite values: fill or drop those genes first")
    return X


def _counts(X):
    """`X` as :func:`_finite` gives it; negative values and cells without a count are refused."""
    X = _finite(X, "the counts")
    if X.min() < 0:
        raise DesignError("the counts hold negative values: start from the raw counts")
    totals = np.asarray(X.sum(1)).ravel()
    if (totals == 0).any():
        raise DesignError(f"{int((totals == 0).sum())} cells have no count at all: drop them first")
    return X, totals


def cpm(counts, total=1e6):
    """Counts per million: each cell divided by its own total.

    What is left are shares, so one gene that rises makes every other gene fall.

    Parameters
    ----------
    counts : ndarray of shape (n_cells, n_genes)
        Raw counts.
    total : float, default 1e6
        What each cell sums to afterwards.

    Returns
    -------
    float64 ndarray of the same shape
    """
    return counts / counts.sum(1, keepdims=True) * total


def tpm(counts, lengths, total=1e6):
    """Transcripts per million: counts per base first, then shares.

    A long transcript yields more fragments than a short one, so reads per base are nearer to molecules. Counts of
    molecular barcodes (UMI) are one a molecule already and need no lengths.

    Parameters
    ----------
    counts : ndarray of shape (n_cells, n_genes)
        Reads or fragments.
    lengths : ndarray of shape (n_genes,)
        Transcript lengths, in any one unit.
    total : float, default 1e6
        What each cell sums to afterwards.

    Returns
    -------
    float64 ndarray of shape (n_cells, n_genes)

    References
    ----------
    Wagner, Kin and Lynch (2012), Theory in Biosciences 131, 281.
    """
    return cpm(counts / lengths, total)


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
    X, totals = _counts(counts)
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
    X, totals = _counts(counts)
    spread = np.broadcast_to(np.asarray(dispersion, dtype=np.float64), X.shape[1])
    if (spread < 0).any() or not np.isfinite(spread).all():
        raise DesignError("dispersion holds negative or missing values: give 0 or more for each gene")
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
    X, _ = _counts(counts)
    mean = np.asarray(X.mean(0)).ravel()
    X = X[:, np.flatnonzero(mean)]
    columns = {
        "mean": mean[mean > 0],
        "observed": 1 - np.asarray((X > 0).sum(0)).ravel() / X.shape[0],
        "Poisson": expected_zeros(X),
        "negative binomial": expected_zeros(X, dispersion(X)),
    }
    return pd.DataFrame(columns, index=np.flatnonzero(mean))


def neighbor_graph(points, n_neighbors=15) -> sparse.csr_matrix:
    """The fuzzy graph that UMAP lays out: how surely two cells are neighbours, seen from either.

    Each cell's nearest neighbour counts fully; the weight then falls off so that every cell has the same sum of
    weights, the logarithm of `n_neighbors` to base 2. Dense and sparse regions are made alike, which is why sizes and
    densities on the map mean little.

    Parameters
    ----------
    points : ndarray of shape (n_cells, n_features)
        For example 20 principal components.
    n_neighbors : int, default 15
        The cell itself counts as one, as in umap-learn.

    Returns
    -------
    CSR of shape (n_cells, n_cells), symmetric, values from 0 to 1

    References
    ----------
    McInnes, Healy and Melville (2018), arXiv 1802.03426.
    """
    from sklearn.neighbors import NearestNeighbors

    points = _finite(points, "points")
    n = len(points)
    if not 2 <= n_neighbors <= n:
        raise DesignError(f"n_neighbors={n_neighbors} for {n} cells: choose from 2 to {n}")
    away, near = NearestNeighbors(n_neighbors=n_neighbors).fit(points).kneighbors(points)
    first = np.where(away > 0, away, np.inf).min(1)
    beyond = np.maximum(away - np.where(np.isfinite(first), first, 0)[:, None], 0)[:, 1:]
    low, high = np.zeros(n), np.full(n, np.inf)
    width = np.ones(n)
    for _ in range(64):  # bisection, all cells at once
        excess = np.exp(-beyond / width[:, None]).sum(1) - np.log2(n_neighbors)
        low, high = np.where(excess > 0, low, width), np.where(excess > 0, width, high)
        width = np.where(np.isinf(high), width * 2, (low + high) / 2)
    floor = 1e-3 * np.where(np.isfinite(first) & (first > 0), away.mean(1), away.mean())
    weight = np.exp(-beyond / np.maximum(width, floor)[:, None])
    rows = np.repeat(np.arange(n), n_neighbors - 1)
    graph = sparse.csr_matrix((weight.ravel(), (rows, near[:, 1:].ravel())), shape=(n, n))
    graph.setdiag(0)
    graph.eliminate_zeros()
    return (graph + graph.T - graph.multiply(graph.T)).tocsr()


def umap(points, n_neighbors=15, min_dist=0.1, epochs=300, start="components", random_state=0):
    """Lay cells out in the plane so that neighbours attract each other and all others repel: UMAP, written out.

    The graph and the curve are umap-learn's, to rounding; the descent moves all cells at once where umap-learn moves
    one pair after the other, and starts from the first two columns of `points` (principal components) or at random,
    where umap-learn starts from a spectral map unless told otherwise. Distances between clusters are no part of what
    is minimised.

    Parameters
    ----------
    points : ndarray of shape (n_cells, n_features)
        For example 20 principal components.
    n_neighbors : int, default 15
        As for :func:`neighbor_graph`.
    min_dist : float, default 0.1
        How close the map may put two neighbours.
    epochs : int, default 300
        Rounds of the descent; the step shrinks to nothing over them.
    start : {"components", "random"}, default "components"
        Where the cells stand before the descent.
    random_state : int, default 0
        Of the start's jitter and of the sampled pairs.

    Returns
    -------
    float64 ndarray of shape (n_cells, 2)
    """
    from scipy.optimize import curve_fit

    if start not in ("components", "random"):
        raise DesignError(f"start {start!r} is not known: choose 'components' or 'random'")
    if start == "components" and (np.shape(points)[1] < 2 or not np.ptp(np.asarray(points)[:, :2])):
        raise DesignError("points give no plane to start from: give two columns that vary, or start='random'")
    graph = neighbor_graph(points, n_neighbors).tocoo()
    at = np.linspace(0, 3, 300)
    wanted = np.where(at < min_dist, 1.0, np.exp(-(at - min_dist)))
    (a, b), _ = curve_fit(lambda x, a, b: 1 / (1 + a * x ** (2 * b)), at, wanted)
    rng = np.random.default_rng(random_state)
    if start == "components":
        place = np.asarray(points, dtype=np.float64)[:, :2]
        place = 10 * place / np.abs(place).max() + rng.normal(0, 0.5, (len(place), 2))
    else:
        place = rng.uniform(-10, 10, (len(points), 2))
    often = graph.data / graph.data.max()  # an edge is used in this share of the epochs
    for epoch in range(epochs):
        used = rng.random(len(often)) < often
        head, tail = graph.row[used], graph.col[used]
        others = rng.integers(len(place), size=5 * len(head))
        step = np.zeros_like(place)
        for i, j, pull in ((head, tail, True), (np.repeat(head, 5), others, False)):
            apart = place[i] - place[j]
            square = (apart**2).sum(1)
            if pull:
                force = -2 * a * b * square ** (b - 1) * (square > 0) / (1 + a * square**b) if len(i) else square
            else:
                force = 2 * b / ((0.001 + square) * (1 + a * square**b)) * (i != j)
            move = np.clip(force[:, None] * apart, -4, 4)
            for axis in (0, 1):
                step[:, axis] += np.bincount(i, move[:, axis], len(place))
        place = place + (1 - epoch / epochs) * np.clip(step, -4, 4)
    return place


def distortion(points, shown, labels) -> float:
    """How well a map keeps the order of the distances between groups: Spearman's correlation, 1 at best.

    Parameters
    ----------
    points : ndarray of shape (n_cells, n_features)
        Where the cells lie.
    shown : ndarray of shape (n_cells, 2)
        Where the map puts them.
    labels : sequence of shape (n_cells,)
        Groups; the distance of two groups is that of their means. At least three.

    Returns
    -------
    float
    """
    from scipy.spatial.distance import pdist
    from scipy.stats import spearmanr

    points, shown = _finite(points, "points"), _finite(shown, "shown")
    labels = _labels(labels, len(points), "label")
    if len(shown) != len(points):
        raise DesignError(f"shown has {len(shown)} cells and points {len(points)}: give the same cells in one order")
    names = np.unique(labels)
    if len(names) < 3:
        raise DesignError(f"{len(names)} groups have at most one distance, so no order: give three groups or more")
    there, here = (pdist(np.stack([x[labels == t].mean(0) for t in names])) for x in (points, shown))
    return float(spearmanr(there, here).statistic)


def explained(X, *groups):
    """Share of the variance of all genes that a linear model on the groups explains: between 0 and 1.

    Parameters
    ----------
    X : ndarray of shape (n_cells, n_genes)
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
    X = _finite(X)
    X = X.toarray() if sparse.issparse(X) else X
    batch, label = _labels(batch, len(X), "batch"), _labels(label, len(X), "label")
    if not np.ptp(X, axis=0).any():
        raise DesignError("no gene varies between these cells, so there is no variance to share out")
    if components is not None:
        from sklearn.decomposition import PCA

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

    batch = _labels(batch, np.shape(batch)[0] if np.ndim(batch) else 0, "batch")
    label = _labels(label, len(batch), "label")
    if not len(batch):
        raise DesignError("there are no cells: give one batch and one label for each")
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
    X = _finite(X)
    X = X.toarray() if sparse.issparse(X) else X
    batch = _labels(batch, len(X), "batch")
    names, code = np.unique(batch, return_inverse=True)
    sizes = np.bincount(code)
    if len(names) < 2 or sizes.min() < 2:
        raise DesignError("correction needs two batches or more of two cells or more: join or drop the small ones")
    member = np.eye(len(names))[code]  # cells × batches
    kept = np.zeros((len(X), 0))
    if keep is not None:
        keep = _labels(keep, len(X), "keep")
        kept = (keep[:, None] == np.unique(keep)[1:]).astype(float)
    design = np.hstack([member, kept])
    if np.linalg.matrix_rank(design) < design.shape[1]:
        raise DesignError("some labels to keep cannot be told from batches: see confounding(batch, keep).contrasts")
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
    X, _ = _counts(counts)
    groups = _labels(groups, X.shape[0], "group")
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
    genes = pd.Index(genes)
    weight = np.ones(len(genes)) if weight is None else np.asarray(weight, dtype=np.float64)
    if weight.shape != (len(genes),) or not np.isfinite(weight).all() or weight.min() < 0 or not weight.any():
        raise DesignError(f"weight has shape {weight.shape} for {len(genes)} genes: give each 0 or more, not all 0")
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


class Scenario(NamedTuple):
    """A scenario of transfer: its name, the kind within it, and the facts that decide."""

    name: str
    kind: str
    why: str


def scenario(*, source_labels, target_labels, target_data=True, same_task=True, same_domain=False) -> Scenario:
    """Which scenario of transfer a problem is, from what is at hand when the model is trained.

    Parameters
    ----------
    source_labels : bool
        The source comes with labels, and training uses them.
    target_labels : bool
        Some target samples come with labels, and training uses them.
    target_data : bool, default True
        Target samples, with or without labels, are at hand in training.
    same_task : bool, default True
        The labels asked for in the target are those of the source.
    same_domain : bool, default False
        Source and target follow one distribution: same genes, platform, species, mix of samples.

    Returns
    -------
    Scenario
        ``name`` is ``inductive``, ``transductive``, ``unsupervised`` or ``none``.

    References
    ----------
    Pan and Yang (2010), IEEE Transactions on Knowledge and Data Engineering 22, 1345; Table 2.
    """
    facts = {"source_labels": source_labels, "target_labels": target_labels, "target_data": target_data}
    facts |= {"same_task": same_task, "same_domain": same_domain}
    vague = [name for name, value in facts.items() if not isinstance(value, (bool, np.bool_))]
    if vague:
        raise DesignError(f"{vague[0]} is {facts[vague[0]]!r}: answer with True or False")
    if target_labels and not target_data:
        raise DesignError("target labels without target data cannot be used: is target_data True?")
    if same_domain and same_task and (source_labels or target_labels):
        return Scenario("none", "supervised learning", "source and target are one problem")
    if target_labels:
        kind = "fine-tuning or multi-task" if source_labels else "self-taught"
        return Scenario("inductive", kind, "target labels guide the training")
    if not source_labels:
        return Scenario("unsupervised", "representation", "no labels on either side")
    if not same_task:
        return Scenario("none", "no bridge", "no label says what the target's task is: label a few target samples")
    if not target_data:
        return Scenario("none", "applied as it is", "the target has no part in the training")
    return Scenario(
        "transductive", "domain adaptation", "labels in the source only, target samples seen without theirs"
    )


class Method(NamedTuple):
    """One method of the survey: what it takes, what it moves, how the survey files it, and the facts that decide."""

    name: str
    year: int
    key: str
    source: str
    target: str
    moves: str
    filed: str
    source_labels: bool
    target_labels: bool
    target_data: bool = True
    same_task: bool = True
    chapter: str = ""

    @property
    def scenario(self) -> Scenario:
        """By :func:`scenario`, from the method's own facts."""
        return scenario(
            source_labels=self.source_labels,
            target_labels=self.target_labels,
            target_data=self.target_data,
            same_task=self.same_task,
        )


# The survey's sixteen, in the order of its Table 1; `filed` is the strategy its Table 6 gives, `key` a citation of the
# book. The facts are read from each method's own paper: which labels its training uses, and if it meets the target.
# fmt: off
METHODS = (
    Method("MultiPLIER", 2019, "taroni2019", "37,000 human RNA-seq samples", "small rare-disease sets",
           "gene loadings tied to pathways", "unsupervised", False, False),
    Method("projectR", 2019, "steinobrien2019", "mouse retina, single cell", "brain of human and mouse",
           "gene loadings of a factorisation", "unsupervised", False, False),
    Method("projectR_ICI", 2021, "davismarcisak2021", "treated mouse tumours, single cell", "human tumours",
           "gene loadings of a factorisation", "unsupervised", False, False),
    Method("FIT", 2018, "normand2018", "170 matched mouse and human studies", "a new mouse study",
           "one mouse-to-human slope a gene", "unsupervised", True, False, False),
    Method("CaSTLe", 2018, "lieberman2018", "labelled single cells", "unlabelled cells of another study",
           "a classifier on binned genes both show", "supervised", True, False),
    Method("TF-Binding", 2021, "novakovsky2021", "DNA bound by fifty factors", "few regions bound by one factor",
           "weights of a convolutional network", "unsupervised", True, True, same_task=False),
    Method("scJoint", 2022, "lin2022", "labelled single-cell RNA", "unlabelled single-cell chromatin",
           "an encoder and its cell types", "domain adaptation", True, False),
    Method("BERMUDA", 2019, "wang2019", "one batch of single cells", "another batch",
           "an autoencoder's shared code", "domain adaptation", False, False),
    Method("trVAE", 2020, "lotfollahi2020", "cells under two conditions", "a cell type seen under one",
           "the effect of the condition", "transductive", True, False),
    Method("XGSEA", 2021, "cai2021", "scored gene sets of mouse or zebrafish", "unscored human gene sets",
           "enrichment scores", "transductive", True, False),
    Method("PRECISE", 2019, "mourragui2019", "cell lines and grafts with drug response", "human tumours",
           "a subspace common to both", "transductive", True, False),
    Method("AITL", 2020, "sharifinoghabi2020", "cell lines with drug response", "few patients with response",
           "an encoder, aligned by adversaries", "inductive", True, True, same_task=False),
    Method("ssNN", 2019, "brubaker2019", "mouse studies, sick or healthy", "human studies without labels",
           "labels, by self-training", "transductive", True, False),
    Method("TransComp-R", 2020, "brubaker2020", "mouse proteins", "human biopsies with drug response",
           "the mouse's principal components", "unsupervised", False, True, same_task=False),
    Method("scDEAL", 2022, "chen2022", "bulk cell lines with drug response", "single cells without",
           "a predictor on matched codes", "supervised", True, False),
    Method("CaSee", 2022, "yuan2022", "bulk tumours and normal tissue", "single cells",
           "a classifier, as it is", "supervised", True, False, False),
)
# fmt: on


def methods() -> pd.DataFrame:
    """:data:`METHODS` as a table for a reader, one row a method.

    Returns
    -------
    DataFrame
        Indexed by method: ``Year``, ``Source``, ``Target``, ``Labels`` (where training uses them), ``Survey says``,
        ``By its facts`` (:func:`scenario`), ``What moves``, and ``Chapter`` of this book once one teaches any of them.
    """
    where = {(True, True): "both", (True, False): "source", (False, True): "target", (False, False): "none"}
    rows = {
        m.name: {
            "Year": m.year,
            "Source": m.source,
            "Target": m.target,
            "Labels": where[m.source_labels, m.target_labels],
            "Survey says": m.filed,
            "By its facts": m.scenario.name,
            "What moves": m.moves,
            "Chapter": m.chapter or "–",
        }
        for m in METHODS
    }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("Method")
    return table if any(m.chapter for m in METHODS) else table.drop(columns="Chapter")
