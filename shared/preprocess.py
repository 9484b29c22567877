"""From counts to what models take: quality control, normalisation, variable genes, centring, aligning gene lists.

Every function takes cells × genes, changes nothing in place and returns float32. Given an AnnData, one that changes the
scale returns an AnnData whose ``uns["units"]`` says so. What learns
something from the cells it is given (:class:`VariableGenes`) is a scikit-learn transformer, so that it can be fitted
on training cells alone; what treats each cell by itself (:func:`log_normalize`) is a function and cannot leak.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.feature_selection import SelectorMixin
from sklearn.utils.sparsefuncs import mean_variance_axis
from sklearn.utils.validation import check_is_fitted

from shared.data.cells import column, count_matrix, finite_matrix, label_array, read, table_of_cells
from shared.data.constraints import Between, Flag, OneOf, Probability, Whole, require
from shared.data.errors import DataError, warn
from shared.data.genes.lists import names_of, stamp
from shared.data.validate.structure import matrix_of
from shared.data.validate.values import units_of


def _matrix(X):
    return finite_matrix(X, dtype=np.float32)


def _rescaled(adata, X, units, note):
    """A copy of `adata` with this ``X``, which is in these units; counts that it replaces go to a layer."""
    out = adata.to_memory() if adata.isbacked else adata.copy()
    if units == "log":
        out.layers.setdefault("counts", out.X)
    out.X, out.uns["units"] = X, units
    stamp(out, notes=[note])
    return out


def _cells(adata):
    """Refuse what is no AnnData, in words."""
    import anndata as ad

    if not isinstance(adata, ad.AnnData):
        raise DataError(f"AnnData is needed, not {type(adata).__name__}: shared.data.from_arrays makes one")


def log_normalize(X, target_sum=1e4):
    """Divide each cell by its total, multiply by `target_sum`, take log(1 + x): CP10K and log1p.

    Each cell uses only its own counts, so nothing passes from test cells to training cells.

    Parameters
    ----------
    X : AnnData, CSR or ndarray of shape (n_cells, n_genes)
        Raw counts.
    target_sum : float, default 1e4
        Counts each cell is scaled to before the logarithm (natural).

    Returns
    -------
    float32 CSR or ndarray of the same shape; of an AnnData a copy, whose ``uns["units"]`` is ``"log"`` and whose
    ``layers["counts"]`` keeps the counts.

    Raises
    ------
    DataError
        On negative values, NaN or infinities, cells without any count, or values that are logged already.
    """
    require(Between(1e-30, 1e30), target_sum=target_sum)  # within what float32 holds
    made, totals = count_matrix(X, np.float32, layer=None)
    scale = (target_sum / totals).astype(np.float32)
    if sparse.issparse(made):
        made.data *= np.repeat(scale, np.diff(made.indptr))
        np.log1p(made.data, out=made.data)
    else:
        made *= scale[:, None]
        np.log1p(made, out=made)
    if table_of_cells(X) is None:
        return made
    return _rescaled(X, made, "log", f"each cell scaled to {target_sum:g} counts and logged")


class LogNormalize(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """:func:`log_normalize` as a pipeline step; it learns nothing.

    Parameters
    ----------
    target_sum : float, default 1e4
    """

    def __init__(self, target_sum=1e4):
        self.target_sum = target_sum

    def fit(self, X, y=None):
        """Check the number of genes; nothing else is learned."""
        read(X, estimator=self)
        return self

    def transform(self, X):
        """Normalised `X`, as :func:`log_normalize` returns it."""
        check_is_fitted(self)
        return log_normalize(read(X, estimator=self, reset=False).X, self.target_sum)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.positive_only = True
        tags.requires_fit = False
        return tags


class VariableGenes(SelectorMixin, BaseEstimator):
    """Keep the genes that vary most between the cells it was fitted on.

    The rule is Seurat's first: mean and variance on the unlogged scale, log dispersion (variance over mean), genes
    sorted by log mean into bins, and the dispersion standardised within its bin, so that a gene competes with genes
    expressed as much. It agrees with ``scanpy.pp.highly_variable_genes(flavor="seurat")``.

    Parameters
    ----------
    n_top : int, default 2000
        Genes to keep; all are kept if there are fewer.
    flavor : {"seurat", "variance"}, default "seurat"
        ``"variance"`` ranks by plain variance of the values as they are.
    n_bins : int, default 20
        Bins of mean expression for ``"seurat"``.

    Attributes
    ----------
    scores_ : ndarray of shape (n_genes,)
        Standardised dispersion, or variance; NaN counts as lowest.

    References
    ----------
    Satija and others (2015), Nature Biotechnology 33, 495; as implemented by Wolf and others (2018) in scanpy.
    """

    def __init__(self, n_top=2000, flavor="seurat", n_bins=20):
        self.n_top, self.flavor, self.n_bins = n_top, flavor, n_bins

    def fit(self, X, y=None):
        """Learn which genes vary among these cells; give training cells only.

        Parameters
        ----------
        X : AnnData, DataFrame, CSR or ndarray of shape (n_cells, n_genes)
            Log-normalised; counts are warned of, unless ``flavor="variance"``.
        y : ignored
            Present for pipelines; no label is used.
        """
        require(OneOf("seurat", "variance"), flavor=self.flavor)
        require(Whole(1), n_top=self.n_top, n_bins=self.n_bins)
        cells = read(X, estimator=self, dtype=(np.float32, np.float64))
        X = cells.X
        if X.shape[0] < 2:
            raise DataError("n_samples=1 cell has no variance: give two cells or more")
        if self.flavor == "seurat" and (cells.is_log is False or X.min() < 0):
            looks = "counts" if cells.is_log is False else "centred values"
            cure = "shared.preprocess.log_normalize gives it one"
            warn(f"these values look like {looks}, and flavor='seurat' undoes a logarithm: {cure}")
        self.scores_ = _dispersion(X, self.n_bins) if self.flavor == "seurat" else _moments(X)[1]
        return self

    def transform(self, X):
        """The columns of `X` that are kept: CSR or ndarray of shape (n_cells, n_top)."""
        check_is_fitted(self)
        return read(X, estimator=self, reset=False, dtype=(np.float32, np.float64)).X[:, self.get_support(indices=True)]

    def inverse_transform(self, X):
        """`X` with a column of zeros for each gene that is not kept."""
        return super().inverse_transform(matrix_of(X))

    def _get_support_mask(self):
        check_is_fitted(self)
        order = np.argsort(-np.nan_to_num(self.scores_, nan=-np.inf), kind="stable")
        mask = np.zeros(len(order), dtype=bool)
        mask[order[: self.n_top]] = True
        return mask

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def _moments(X):
    """Mean and unbiased variance of each gene, in float64."""
    n = X.shape[0]
    if sparse.issparse(X):
        mean, variance = mean_variance_axis(X.astype(np.float64, copy=False), axis=0)
    else:
        mean, variance = X.mean(0, dtype=np.float64), X.var(0, dtype=np.float64)
    return mean, variance * n / (n - 1)


def _dispersion(X, n_bins):
    # One path for sparse and dense: genes at the edge of a bin must fall on the same side of it.
    counts = sparse.csr_matrix(X, dtype=np.float64, copy=True)
    counts.sum_duplicates()
    with np.errstate(over="ignore"):
        np.expm1(counts.data, out=counts.data)
    if not np.isfinite(counts.data).all():
        raise DataError(f"values up to {X.max():,.4g} are no logarithms: shared.preprocess.log_normalize first")
    mean, variance = _moments(counts)
    mean[mean == 0] = 1e-12
    dispersion = variance / mean
    dispersion[dispersion == 0] = np.nan
    # The last digits depend on the order of the cells, and would push equal genes to either side of a bin's edge.
    frame = pd.DataFrame({"mean": np.log1p(mean).round(10), "dispersion": np.log(dispersion).round(10)})
    bins = frame.groupby(pd.cut(frame["mean"], bins=n_bins), observed=True)["dispersion"]
    average, spread = bins.transform("mean"), bins.transform("std")
    # A gene alone in its bin has no spread to be measured by; it is given a score of one, as in Seurat.
    alone = spread.isna()
    spread[alone], average[alone] = average[alone], 0.0
    return ((frame["dispersion"] - average) / spread).to_numpy()


def center_by(X, groups, scale=False):
    """Subtract from each group of cells its own gene means.

    No label is used, but every cell of a group is, so test cells help to centre themselves: the step is transductive.
    It assumes that the groups hold the same types in the same shares; where they do not, it removes biology. A group
    of one cell becomes zeros.

    Parameters
    ----------
    X : AnnData, CSR or ndarray of shape (n_cells, n_genes)
        Log-normalised.
    groups : sequence of shape (n_cells,), or str
        Study, run or donor of each cell; of an AnnData also the name of a column of ``obs``.
    scale : bool, default False
        Also divide by the group's standard deviation (genes that do not vary there are left at zero).

    Returns
    -------
    float32 ndarray of shape (n_cells, n_genes)
        Dense: centred zeros are no longer zero. Of an AnnData a copy, whose ``uns["units"]`` is ``"z"``.
    """
    require(Flag(), scale=scale)
    given, X = X, _matrix(X)
    X = X.toarray() if sparse.issparse(X) else X
    groups = label_array(column(table_of_cells(given), groups), X.shape[0], "group")
    for group in np.unique(groups):
        rows = groups == group
        part = X[rows] - X[rows].mean(0, dtype=np.float64).astype(np.float32)
        if scale:
            spread = part.std(0, dtype=np.float64)
            part /= np.where(spread > 1e-6, spread, 1).astype(np.float32)
        X[rows] = part
    return X if table_of_cells(given) is None else _rescaled(given, X, "z", "each group centred gene by gene")


@dataclass(frozen=True)
class Report:
    """What a step kept and what it lost.

    Attributes
    ----------
    kept : int
    lost : dict of reason to number
    names : dict of reason to names lost, where there are names
    """

    kept: int
    lost: dict[str, int] = field(default_factory=dict)
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __str__(self):
        lost = "; ".join(f"{n} {why}" for why, n in self.lost.items() if n) or "nothing lost"
        return f"{self.kept} kept; {lost}"


def align_genes(adata, genes, fill=0.0):
    """Give `adata` exactly these genes in this order, as a model that was trained on them needs.

    Parameters
    ----------
    adata : AnnData
        cells × genes.
    genes : sequence of str
        The reference list, each gene once.
    fill : float, default 0
        Value of a gene that `adata` does not have.

    Returns
    -------
    aligned : AnnData
        cells × ``genes``, CSR if `adata` was; layers are dropped, because they would not be aligned.
        ``uns["gene_hash"]`` is that of the list, ``uns["units"]`` what the values are in, and ``uns["notes"]`` says
        what was lost.
    report : Report
        ``kept`` genes; ``lost``: ``"missing, filled"`` and ``"not in the list, dropped"``, with their names.

    Raises
    ------
    SettingError
        If `fill` is no finite number.
    DataError
        If a list is empty or names a gene twice, `genes` is no list of names, or no gene is shared (another species or
        another kind of name).
    """
    import anndata as ad

    _cells(adata)
    require(Between(-math.inf, math.inf), fill=fill)
    wanted, have = pd.Index(names_of(genes, "the reference list")), pd.Index(names_of(adata, "the data"))
    for names, whose in ((wanted, "the reference list"), (have, "the data")):
        if not len(names):
            raise DataError(f"{whose} names no gene: see which step lost them all")
        if names.has_duplicates:
            twice = ", ".join(names[names.duplicated()].unique()[:3])
            raise DataError(f"{whose} names genes twice ({twice}): sum or drop the copies first")
    where = have.get_indexer(wanted)
    found = where >= 0
    if not found.any():
        raise DataError(
            f"no gene is shared: the data have {have[0]!r}, the list {wanted[0]!r}. "
            "Is it another species, or symbols against Ensembl identifiers?"
        )
    X = _matrix(adata.X)
    if sparse.issparse(X):
        place = sparse.csr_matrix(
            (np.ones(found.sum(), np.float32), (where[found], np.flatnonzero(found))), shape=(len(have), len(wanted))
        )
        aligned = X @ place
        if fill and not found.all():
            filled = np.where(found, 0, fill).astype(np.float32)
            aligned += sparse.csr_matrix(np.tile(filled, (X.shape[0], 1)))
    else:
        aligned = np.full((X.shape[0], len(wanted)), fill, np.float32)
        aligned[:, found] = X[:, where[found]]
    dropped = have.difference(wanted, sort=False)
    report = Report(
        kept=int(found.sum()),
        lost={"missing, filled": int((~found).sum()), "not in the list, dropped": len(dropped)},
        names={"missing, filled": tuple(wanted[~found]), "not in the list, dropped": tuple(dropped)},
    )
    out = ad.AnnData(aligned, obs=adata.obs.copy(), var=pd.DataFrame(index=wanted), uns=dict(adata.uns))
    if "units" in out.uns:  # while all genes are there to tell
        out.uns["units"] = units_of(adata) or out.uns["units"]
    stamp(out, notes=[f"aligned: {report}"])
    return out, report


def quality_control(adata, min_genes=200, min_cells=3, max_mito=0.2, mito_prefix="MT-"):
    """Drop cells with too few genes or too much mitochondrial RNA, then genes seen in too few cells.

    Parameters
    ----------
    adata : AnnData
        Raw counts.
    min_genes : int, default 200
        Genes a cell must show.
    min_cells : int, default 3
        Cells a gene must be seen in, among those kept.
    max_mito : float, default 0.2
        Largest share of a cell's counts from genes whose name starts with `mito_prefix`; 1 for any.
    mito_prefix : str, default "MT-"
        ``"mt-"`` in mouse.

    Returns
    -------
    kept : AnnData
        A copy, with ``obs`` columns ``n_counts``, ``n_genes`` and ``mito``.
    report : Report

    Raises
    ------
    SettingError
        If a limit is no number of its kind: genes and cells are whole, and `max_mito` is a share, not per cent.
    DataError
        If no cell or no gene is left, naming the limit that took most, `adata` is no AnnData, or ``X`` is no counts.

    Warns
    -----
    DataWarning
        If no gene's name begins with `mito_prefix`, and `max_mito` is below 1.
    """
    _cells(adata)
    require(Whole(), min_genes=min_genes, min_cells=min_cells)
    require(Probability(), max_mito=max_mito)
    if not isinstance(mito_prefix, str) or not mito_prefix:
        raise DataError(f"mito_prefix={mito_prefix!r} begins no name: give the letters, such as 'MT-' or 'mt-'")
    X, totals = count_matrix(adata, np.float32, layer=None, empty=True)
    names = pd.Index(names_of(adata))
    mitochondrial = names.str.startswith(mito_prefix)
    if not mitochondrial.any() and max_mito < 1:
        close = names[names.str.lower().str.startswith(mito_prefix.lower())]
        cure = (
            f"mito_prefix={close[0][: len(mito_prefix)]!r}" if len(close) else "mito_prefix= says how they begin here"
        )
        warn(f"no gene name begins with {mito_prefix!r}, so every mitochondrial share is 0: {cure}")
    seen = np.asarray((X > 0).sum(1)).ravel()
    share = np.asarray(X[:, mitochondrial].sum(1, dtype=np.float64)).ravel() / np.where(totals > 0, totals, 1)
    empty = totals == 0
    few, stressed = (seen < min_genes) | empty, share > max_mito
    cells = ~(few | stressed)
    if not cells.any():
        worst = f"min_genes={min_genes}" if few.sum() >= stressed.sum() else f"max_mito={max_mito}"
        raise DataError(f"no cell passes; {worst} takes most of the {len(cells)}: is X raw counts? loosen it if so")
    genes = np.asarray((X[cells] > 0).sum(0)).ravel() >= min_cells
    if not genes.any():
        raise DataError(f"no gene is seen in min_cells={min_cells} of the {int(cells.sum())} cells left: lower it")
    kept = adata[np.flatnonzero(cells), np.flatnonzero(genes)]
    kept = kept.to_memory() if adata.isbacked else kept.copy()
    kept.obs = kept.obs.assign(n_counts=totals[cells], n_genes=seen[cells], mito=share[cells])
    lost = {
        **({"cells without any count": int(empty.sum())} if empty.any() else {}),
        f"cells with fewer than {min_genes} genes": int((few & ~empty).sum()),
        f"cells over {max_mito:.0%} mitochondrial": int((stressed & ~few).sum()),
        f"genes in fewer than {min_cells} cells": int((~genes).sum()),
    }
    report = Report(kept=kept.n_obs, lost=lost)
    stamp(kept, notes=[f"quality control: {report}"])
    return kept, report


def combat(adata, batch="batch"):
    """ComBat by scanpy: remove each batch's location and scale, gene by gene, with empirical Bayes shrinkage.

    Like :func:`center_by` it sees all cells and assumes that batches hold the same biology.

    Parameters
    ----------
    adata : AnnData
        Log-normalised.
    batch : str, default "batch"
        Column of ``obs`` with at least two batches of at least two cells.

    Returns
    -------
    AnnData
        A copy with corrected, dense float32 ``X``.

    Raises
    ------
    DataError
        If a cell has no batch, batches are too few or too small, or ``X`` is no finite numbers.

    Warns
    -----
    DataWarning
        If ``X`` looks like counts.

    References
    ----------
    Johnson, Li and Rabinovic (2007), Biostatistics 8, 118.
    """
    import anndata as ad

    _cells(adata)
    batches = label_array(column(adata.obs, batch), adata.n_obs, "batch")
    cells = read(adata)
    if cells.is_log is False:
        warn("these values look like counts, and ComBat is made for logged expression: shared.preprocess.log_normalize")
    sizes = pd.Series(batches).value_counts()
    if len(sizes) < 2 or sizes.min() < 2:
        raise DataError(f"{batch!r} needs two batches or more of two cells or more; it has {sizes.to_dict()}")
    try:
        import scanpy as sc
    except ImportError as e:
        raise ImportError("combat needs scanpy: pip install 'borrowed-strength[single-cell]'") from e
    X = cells.X.toarray() if sparse.issparse(cells.X) else cells.X
    plain = ad.AnnData(X, obs=pd.DataFrame({"batch": pd.Categorical(batches)}, index=adata.obs_names))
    corrected = np.asarray(sc.pp.combat(plain, key="batch", inplace=False), dtype=np.float32)
    return _rescaled(
        adata, corrected, cells.units if cells.units in ("log", "z") else "none", f"{batch!r} corrected by ComBat"
    )
