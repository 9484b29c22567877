"""Counts that resemble real ones, and how far simulated counts are from real ones."""

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse
from scipy.stats import wasserstein_distance

from shared.data.cells import count_matrix
from shared.data.constraints import Whole, require
from shared.data.errors import DataError
from shared.data.simulate.model import as_adata, draw_counts
from shared.data.validate.structure import matrix_of, widened


def like(adata, n_cells: int | None = None, *, label: str = "cell_type", seed: int = 0) -> ad.AnnData:
    """Counts that resemble real ones: depth, means, dispersions and the genes of each type are estimated from `adata`.

    Each simulated cell takes a real cell's label and depth, the mean profile of its label, and for each gene a
    dispersion estimated within labels by moments and smoothed over genes of similar mean.

    Parameters
    ----------
    adata : AnnData
        Counts, cells × genes, in ``layers["counts"]`` or ``X``.
    n_cells, seed : int
        As many cells as there are, where `n_cells` is not given.
    label : str
        Column of ``obs``; where it is missing all cells are of one type.
    """
    X, totals = count_matrix(adata)
    X = sparse.csr_matrix(X)
    if (X.data % 1).any():
        raise DataError("like() needs counts: give the data before normalisation, or layers['counts']")
    n_cells = X.shape[0] if n_cells is None else n_cells
    require(Whole(1), n_cells=n_cells)
    require(Whole(), seed=seed)
    words = adata.obs[label].astype(str).to_numpy() if label in adata.obs else np.repeat("cells", X.shape[0])
    names, kind = np.unique(words, return_inverse=True)
    share = np.stack([np.asarray(X[kind == t].sum(0)).ravel() / totals[kind == t].sum() for t in range(len(names))])
    dispersion = _dispersions(X, totals, kind, share)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(X.shape[0], size=n_cells) if n_cells != X.shape[0] else np.arange(n_cells)
    out = np.zeros((n_cells, X.shape[1]), np.float32)
    for start in range(0, n_cells, 2048):
        rows = drawn[start : start + 2048]
        out[start : start + 2048] = draw_counts(rng, totals[rows, None] * share[kind[rows]], dispersion)
    truth = {"types": np.log(np.maximum(share, 1e-12)), "names": names.tolist(), "dispersion": dispersion}
    obs = {label: words[drawn], "depth": totals[drawn]}
    return as_adata(sparse.csr_matrix(out), obs, truth, adata.var_names, "counts")


def _dispersions(X, totals, kind, share):
    """Dispersion of each gene within types, by moments, as the median over the hundred genes nearest in mean."""
    mean, excess = np.zeros(X.shape[1]), np.zeros(X.shape[1])
    for t in range(len(share)):
        rows = np.flatnonzero(kind == t)
        for start in range(0, len(rows), 2048):
            some = rows[start : start + 2048]
            expected = totals[some, None] * share[t]
            excess += ((X[some].toarray() - expected) ** 2 - expected).sum(0)
            mean += (expected**2).sum(0)
    raw = np.where(mean > 0, excess / np.maximum(mean, 1e-12), np.nan)
    level = share.mean(0)
    order = np.argsort(level, kind="stable")
    smooth = pd.Series(raw[order]).rolling(101, center=True, min_periods=1).median().fillna(0.1).to_numpy()
    out = np.empty_like(smooth)
    out[order] = np.clip(smooth, 0, 20)
    return out


def compare(real, simulated) -> pd.DataFrame:
    """How far a simulated set of counts is from a real one, statistic by statistic.

    Parameters
    ----------
    real, simulated : AnnData
        Counts of the same genes.

    Returns
    -------
    DataFrame
        Indexed by statistic: ``distance`` and ``within``, the same between two random halves of the real cells, which
        is what chance alone does. ``mean``: mean absolute difference of the genes' log10 means; ``variance`` and
        ``zeros``: of log10 variance and of the share of zeros, among genes of the same mean; ``depth``: Wasserstein
        distance of log10 counts a cell; ``correlation``: of the correlations between genes, Wasserstein.
    """
    if list(real.var_names) != list(simulated.var_names):
        raise DataError("the two sets have different genes: simulate with like(real), or align them first")
    a, b = (sparse.csr_matrix(count_matrix(x, empty=True)[0]) for x in (real, simulated))
    order = np.random.default_rng(0).permutation(a.shape[0])
    halves = a[order[::2]], a[order[1::2]]
    table = pd.DataFrame({"distance": _distances(a, b), "within": _distances(*halves)})
    return table.rename_axis("statistic")


def summary(X) -> dict[str, np.ndarray]:
    """What :func:`compare` and its figure look at: per-gene ``mean``, ``variance``, ``zeros``; per-cell ``depth``;
    ``correlation`` of the two hundred genes with the highest mean, after log-normalising."""
    X = sparse.csr_matrix(widened(matrix_of(X)), dtype=np.float64)
    mean = np.asarray(X.mean(0)).ravel()
    square = np.asarray(X.multiply(X).mean(0)).ravel()
    depth = np.asarray(X.sum(1)).ravel()
    top = np.argsort(-mean, kind="stable")[:200]
    logged = np.log1p(X[:, top].toarray() * (1e4 / np.maximum(depth, 1))[:, None])
    logged = logged[:, logged.std(0) > 0]
    correlation = np.corrcoef(logged, rowvar=False)[np.triu_indices(logged.shape[1], 1)]
    zeros = 1 - np.asarray((X > 0).mean(0)).ravel()
    return {"mean": mean, "variance": square - mean**2, "zeros": zeros, "depth": depth, "correlation": correlation}


def _distances(a, b):
    a, b = summary(a), summary(b)
    seen = (a["mean"] > 0) & (b["mean"] > 0)
    ours, others = (np.log10(x["mean"][seen]) for x in (a, b))
    edges = np.quantile(ours, np.linspace(0, 1, 21)[1:-1])
    bins, theirs = np.digitize(ours, edges), np.digitize(others, edges)

    def along(values):
        one, two = (pd.Series(v[seen]).groupby(where).median() for v, where in zip(values, (bins, theirs), strict=True))
        return float((one - two).abs().mean())

    logs = [np.log10(np.maximum(x["variance"], 1e-12)) for x in (a, b)]
    return {
        "mean": float(np.abs(ours - others).mean()),
        "variance": along(logs),
        "zeros": along((a["zeros"], b["zeros"])),
        "depth": wasserstein_distance(np.log10(1 + a["depth"]), np.log10(1 + b["depth"])),
        "correlation": wasserstein_distance(a["correlation"], b["correlation"]),
    }
