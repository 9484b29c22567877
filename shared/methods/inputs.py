"""What questions to expression data are given: finite tables, counts, one word a cell; anything else is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import sparse


class DesignError(ValueError):
    """The batches, labels or facts given cannot answer the question; the message names why and the cure."""


def labels_of(values, n: int, what: str) -> np.ndarray:
    """`values` as an array of words, one a cell, none missing."""
    values = np.asarray(values, dtype=object)
    if values.shape != (n,):
        raise DesignError(f"{what} has shape {values.shape} and there are {n} cells: give one {what} a cell")
    if pd.isna(values).any():
        raise DesignError(f"{int(pd.isna(values).sum())} cells have no {what}: drop them, or name one for each")
    return values.astype(str)


def finite(X, what: str = "X"):
    """`X` as float64, CSR or ndarray; refused unless it is a table of finite numbers."""
    X = X.tocsr().astype(np.float64) if sparse.issparse(X) else np.array(X, dtype=np.float64)
    if X.ndim != 2 or 0 in X.shape:
        raise DesignError(f"{what} has shape {X.shape}: give cells in rows and genes in columns, at least one of each")
    if not np.isfinite(X.data if sparse.issparse(X) else X).all():
        raise DesignError(f"{what} holds NaN or infinite values: fill or drop those genes first")
    return X


def counted(X):
    """`X` as :func:`finite` gives it, and the total of each cell; negative values and empty cells are refused."""
    X = finite(X, "the counts")
    if X.min() < 0:
        raise DesignError("the counts hold negative values: start from the raw counts")
    totals = np.asarray(X.sum(1)).ravel()
    if (totals == 0).any():
        raise DesignError(f"{int((totals == 0).sum())} cells have no count at all: drop them first")
    return X, totals
