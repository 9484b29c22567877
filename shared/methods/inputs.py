"""What methods are given: an AnnData or arrays, finite tables, counts, one word a cell; anything else is refused."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.utils.validation import check_array, check_X_y, validate_data

from shared.data.errors import DataError, DataWarning
from shared.data.genes import names_of, once
from shared.data.values import LOGGED_MAX

NO_LABELS = "no_validation"  # scikit-learn's word for an absent y, which None is not


def labels_of(values, n: int, what: str) -> np.ndarray:
    """`values` as an array of words, one a cell, none missing."""
    values = np.asarray(values, dtype=object)
    if values.shape != (n,):
        raise DataError(f"{what} has shape {values.shape} and there are {n} cells: give one {what} a cell")
    if pd.isna(values).any():
        raise DataError(f"{int(pd.isna(values).sum())} cells have no {what}: drop them, or name one for each")
    return values.astype(str)


def finite(X, what: str = "X"):
    """`X` as float64, CSR or ndarray; refused unless it is a table of finite numbers."""
    if hasattr(X, "obs"):  # numpy would walk through it for hours
        raise DataError(f"{what} is an AnnData, and a matrix is read here: pass adata.X, or to_arrays(adata)[0]")
    X = X.tocsr().astype(np.float64) if sparse.issparse(X) else np.array(X, dtype=np.float64)
    if X.ndim != 2 or 0 in X.shape:
        raise DataError(f"{what} has shape {X.shape}: give cells in rows and genes in columns, at least one of each")
    if not np.isfinite(X.data if sparse.issparse(X) else X).all():
        raise DataError(f"{what} holds NaN or infinite values: fill or drop those genes first")
    return X


def counted(X):
    """`X` as :func:`finite` gives it, and the total of each cell; negative values and empty cells are refused."""
    X = finite(X, "the counts")
    if X.min() < 0:
        raise DataError("the counts hold negative values: start from the raw counts")
    totals = np.asarray(X.sum(1)).ravel()
    if (totals == 0).any():
        raise DataError(f"{int((totals == 0).sum())} cells have no count at all: drop them first")
    return X, totals


def cells_of(estimator, X, y=NO_LABELS, genes=None, *, reset: bool, matrix=None, what: str = "cells"):
    """Cells, labels and names of genes, from an AnnData, a table or arrays, checked as scikit-learn does.

    Parameters
    ----------
    estimator : BaseEstimator
        Whose ``n_features_in_`` is compared with `X`, or set.
    X : AnnData, DataFrame, ndarray or CSR
        Cells × genes.
    y : array, cells; or str
        Labels; or, with an AnnData, the column of ``obs`` that holds them. Without it there are none.
    genes : sequence of str, optional
        Names of the columns, in place of those of `X`.
    reset : bool
        Set ``n_features_in_``.
    matrix : callable, optional
        What to read of an AnnData, in place of ``X``.
    what : str, default "cells"
        What a row is called in messages.

    Returns
    -------
    X : ndarray or CSR of float32
    y : ndarray or None
    names : list of str or None
        None for arrays without `genes`, and for a table whose columns pandas numbered.

    Raises
    ------
    ValueError
        If they do not fit together, hold what is no finite number, or name a gene twice.
    """
    named = names_of(genes) if genes is not None else columns_of(X)
    if hasattr(X, "obs"):
        y = _column(X.obs, y, what) if isinstance(y, str) and y != NO_LABELS else y
        X = X.X if matrix is None else matrix(X)
        X = X.to_memory() if hasattr(X, "to_memory") else X  # sparse, in the file of a backed AnnData
    else:
        _no_column(y)
    _labelled(y, what)
    known = getattr(estimator, "genes_in_", None)
    if not reset and None not in (known, named) and len(known) != len(named):
        missing, new = len(set(known) - set(named)), len(set(named) - set(known))
        raise ValueError(
            f"the network was tuned on {len(known)} genes, and these {len(named)} are others ({missing} are missing, "
            f"{new} are new to it): align the data first with shared.preprocess.align_genes"
        )
    found = validate_data(estimator, X, y, accept_sparse="csr", dtype=np.float32, reset=reset)
    X, y = found if isinstance(found, tuple) else (found, None)
    if named is not None:
        if len(named) != X.shape[1]:
            raise ValueError(f"{len(named)} genes are named and X has {X.shape[1]} columns: name each column once")
        once(named, "genes")
    return X, y, named


def rows_of(estimator, X, y=NO_LABELS, *, reset: bool, **how):
    """Rows as float32 from an AnnData, a table or arrays, for estimators that keep ``feature_names_in_``.

    Genes that a later table or AnnData names are held to those of the first one, in their order.

    Parameters
    ----------
    estimator : BaseEstimator
        Whose ``n_features_in_`` and ``feature_names_in_`` are compared with `X`, or set.
    X : AnnData, DataFrame, ndarray or CSR
        Samples × genes; of an AnnData its ``X``.
    y : array or str
        As for :func:`cells_of`; with it the two are returned.
    reset : bool
        Set the names and the number of genes.
    **how
        For scikit-learn's checks, such as ``multi_output``.
    """
    how = {"dtype": np.float32, "accept_sparse": "csr"} | how
    if not hasattr(X, "obs"):
        _no_column(y)
        return validate_data(estimator, X, y, reset=reset, **how)
    once(columns_of(X), "genes")
    validate_data(estimator, pd.DataFrame(columns=X.var_names), reset=reset, skip_check_array=True)
    y = _column(X.obs, y, "rows") if isinstance(y, str) and y != NO_LABELS else y
    X = (X.to_memory() if X.isbacked else X).X
    if isinstance(y, str):
        return check_array(X, estimator=estimator, **how)
    return check_X_y(X, y, estimator=estimator, **how)


def refuse_logged(X, units=None):
    """Raise where an AnnData's values, given as counts, look logged.

    Fractions with nothing large among them may be either, as in :class:`shared.data.Corpus`, unless `units` say. Cells
    that add up to one total once the logarithm is undone were scaled and logged, whatever is said.

    Parameters
    ----------
    X : CSR, cells × genes
        None negative.
    units : str, optional
        What ``uns["units"]`` says.
    """
    if not X.nnz or X.data.max() >= LOGGED_MAX or not (X.data % 1).any():
        return
    cure = "read the counts (layers['counts'], where there is one), or set logged=True"
    if not (isinstance(units, str) and units in ("counts", "tpm")):
        raise ValueError(
            f"X may hold counts or logarithms (fractions, none above {X.data.max():.3g}): {cure}; "
            "if these are counts, say so by adata.uns['units'] = 'counts'"
        )
    totals = np.bincount(np.repeat(np.arange(X.shape[0]), np.diff(X.indptr)), np.expm1(X.data), X.shape[0])
    if len(totals) > 2 and totals.std() < 0.01 * totals.mean():
        raise ValueError(f"uns['units'] says {units!r} and X looks scaled to one total and logged: {cure}")


def are_linear(X) -> bool | None:
    """Whether values, cells × genes, are counts or the like, and no logarithms or z-scores; None where few would tell.

    Up to 256 of the cells are looked at.
    """
    some = X[np.unique(np.linspace(0, X.shape[0] - 1, 256).astype(np.int64))]
    values = some.data if sparse.issparse(some) else some
    if not values.size or (values.min() >= 0 and values.max() <= 1):
        return None
    return bool(values.min() >= 0 and (values.max() >= LOGGED_MAX or not (values % 1).any()))


def warn_mixed(mine: bool | None, theirs: bool | None, what: str):
    """Warn where counts meet a network of logarithms, or the other way round."""
    if None in (mine, theirs) or mine == theirs:
        return
    kinds = {True: "counts, or not logged", False: "logged, or z-scores"}
    warnings.warn(
        f"these values look like {kinds[mine]}; those that the network was {what} on look like {kinds[theirs]}: "
        "bring both to one scale (shared.preprocess.log_normalize logs counts)",
        DataWarning,
        stacklevel=4,
    )


def warn_few_shared(n: int, known: int, of: int):
    """Warn where encoder and data share fewer than a tenth of the shorter list; names of two kinds do."""
    if n < min(known, of) / 10:
        warnings.warn(
            f"{n} of the {known} genes that the encoder knows are among these {of}, and it reads no others: "
            "are the names of one kind (shared.data.to_symbols)?",
            DataWarning,
            stacklevel=4,
        )


def _labelled(y, what):
    """Refuse labels with gaps, which scikit-learn would call a NaN of unknown place, or words that cannot be sorted."""
    labels = np.asarray(None if isinstance(y, str) else y, dtype=object)
    missing = int(pd.isna(labels).sum()) if labels.ndim == 1 else 0
    if missing:
        raise ValueError(f"y has no label for {missing} of {len(labels)} {what}: drop them first, or name them")


def columns_of(X) -> list[str] | None:
    """Names of the columns of an AnnData or a table; None where there are none, or numbers that pandas gave."""
    names = getattr(X, "var_names", getattr(X, "columns", None))
    return None if names is None or isinstance(names, pd.RangeIndex) else names_of(names)


def _no_column(y):
    if isinstance(y, str) and y != NO_LABELS:
        raise ValueError("y names a column of obs, and X is no AnnData: pass one label a cell")


def _column(obs, name, what):
    if name not in obs:
        raise ValueError(f"obs has no column {name!r}; it has {', '.join(obs.columns)}: name another")
    if obs[name].isna().any():
        raise ValueError(f"obs[{name!r}] has no label for {int(obs[name].isna().sum())} {what}: drop them first")
    return obs[name].astype(str).to_numpy(dtype=str)
