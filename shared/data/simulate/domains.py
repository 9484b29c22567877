"""Two domains from one set of cells, that differ by covariate, label or concept shift, each exactly."""

import anndata as ad
import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.decomposition import PCA

from shared.data.cells import array_of, label_array, table_of_cells
from shared.data.constraints import NotNegative, Probability, Whole, require
from shared.data.errors import DataError


def domains(
    adata: ad.AnnData,
    label: str = "cell_type",
    *,
    covariate: float = 0.0,
    prior: float = 0.0,
    concept: float = 0.0,
    along=None,
    seed: int = 0,
) -> ad.AnnData:
    """Divide cells into a source and a target, simulated or real, with a dial for each kind of shift.

    A cell goes to the target with log odds ``covariate * z + prior * a``. There `z` is a number of its expression and
    `a` is 1 for every other type, beginning with the first in order of their names, and -1 for the rest. With
    `covariate` alone the choice looks at expression only, so ``P(y | x)`` is the same in both domains. With `prior`
    alone it looks at the type only, so ``P(x | y)`` is. `concept` moves no cell: it exchanges the names of the first
    two types in the target, so ``P(x)`` stays and ``P(y | x)`` does not.

    Parameters
    ----------
    adata : AnnData
        Expression with types. What a machine or a laboratory adds is not here: see the options of
        :func:`~shared.data.simulate.cells`, or take real batches.
    label : str
        Column of ``obs`` that holds the types, two or more.
    covariate, prior : float
        From 0 up; at 2 a cell one deviation from the mean (a type of its kind) is in the target 88 times in 100.
    concept : float
        Share, 0 to 1, of target cells of the first two types that have the name of the other.
    along : array of float, cells, optional
        What `z` is, before it is brought to mean 0 and deviation 1; without it the first principal component of ``X``.
    seed : int
        Of everything.

    Returns
    -------
    AnnData
        A copy. ``obs``: ``domain`` (1 source, -1 target), ``log_odds`` of the target, and `label`, exchanged where
        `concept` says so. ``uns["shift"]``: the dials. The division is simulated even where the cells are real.

    Raises
    ------
    SettingError, DataError
        If a dial cannot be set so, there is no such column, fewer than two types, or `along` does not fit or vary.
    """
    require(NotNegative(), covariate=covariate, prior=prior)
    require(Probability(), concept=concept)
    require(Whole(), seed=seed)
    if table_of_cells(adata) is None or label not in adata.obs:
        raise DataError(f"an AnnData with obs[{label!r}] is needed: pass the column's name as label=")
    rng, out = np.random.default_rng(seed), adata.copy()
    names, kind = np.unique(label_array(adata.obs[label], adata.n_obs, "label"), return_inverse=True)
    if len(names) < 2:
        raise DataError(f"{len(names)} types cannot shift: give two or more")
    log_odds = prior * np.where(kind % 2, -1.0, 1.0)
    if covariate:
        z = _first_component(adata, seed) if along is None else array_of(along, "along", float)
        if z.shape != (adata.n_obs,) or not np.isfinite(z).all() or not z.std() > 0:
            raise DataError(f"along has shape {z.shape}: give a finite number a cell ({adata.n_obs}), not all one")
        log_odds = log_odds + covariate * (z - z.mean()) / z.std()
    target = rng.random(adata.n_obs) < expit(log_odds)
    other = target & (kind < 2) & (rng.random(adata.n_obs) < concept)
    out.obs[label] = pd.Categorical(names[np.where(other, 1 - kind, kind)])
    out.obs["domain"], out.obs["log_odds"] = np.where(target, -1, 1), log_odds
    out.uns["shift"] = {"covariate": float(covariate), "prior": float(prior), "concept": float(concept)}
    return out


def _first_component(adata, seed):
    X = adata.X.tocsr() if hasattr(adata.X, "tocsr") else np.asarray(adata.X)
    return PCA(1, svd_solver="arpack", random_state=seed).fit_transform(X)[:, 0]
