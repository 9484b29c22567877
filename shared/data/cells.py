"""One reader for every room: :func:`read` makes checked cells × genes of an AnnData, a table or arrays.

It is the only place where labels, gene names and domains are taken from what a user has.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Real
from typing import Self

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_array, check_X_y, validate_data

from shared.data.errors import DataError
from shared.data.genes.lists import names_of, once
from shared.data.validate.structure import column_of, matrix_of, narrow, widened
from shared.data.validate.values import may_be_logged, refuse_logs, units_of

AS_COUNTS = "start from the raw counts, adata.layers['counts'] where there is one"
NO_LABELS = "no_validation"  # scikit-learn's word for an absent y, which None is not


@dataclass(frozen=True)
class Outline:
    """Sizes and names of some cells, without values: enough to build a network again.

    `genes` are names or None, `classes` the different labels, sorted, or None, and `n_outputs` the columns of ``y``, 1
    for labels and for no ``y``.
    """

    n_genes: int
    genes: list | None = None
    classes: np.ndarray | None = None
    n_outputs: int = 1

    @property
    def n_classes(self) -> int:
        """Number of different labels; 0 without labels."""
        return 0 if self.classes is None else len(self.classes)


@dataclass(eq=False)
class Cells:
    """Cells × genes with what belongs to them.

    `X` is float32, ndarray or CSR. `y` is None, labels (n_cells,), or, where `numbers`, what is to be predicted,
    (n_cells,) or (n_cells, n_outputs), so that there are no classes. `genes` are names of the columns in order, None
    for arrays without names. `sample_domain` (int64) is positive for source, negative for target (the convention of
    skada), or None. `layer` is what was read of an AnnData, a layer or ``"X"``; `units` what ``uns["units"]`` says of
    ``X``, where the values do not contradict it.
    """

    X: np.ndarray | sparse.csr_matrix
    y: np.ndarray | None = None
    genes: list[str] | None = None
    sample_domain: np.ndarray | None = None
    layer: str = ""
    units: str | None = None
    numbers: bool = False

    def __len__(self):
        return self.X.shape[0]

    def __getitem__(self, rows) -> Self:
        """Some of the cells, by row numbers or by a boolean mask; a view where they follow one another."""
        y, domain = (None if part is None else part[rows] for part in (self.y, self.sample_domain))
        return replace(self, X=_taken(self.X, rows), y=y, sample_domain=domain)

    @property
    def n_genes(self) -> int:
        """Number of columns."""
        return self.X.shape[1]

    n_classes = Outline.n_classes

    @property
    def n_outputs(self) -> int:
        """Columns of `y`; 1 for labels and for no `y`."""
        return 1 if self.y is None or self.y.ndim == 1 else self.y.shape[1]

    @cached_property
    def _found(self):
        return (None, None) if self.y is None or self.numbers else np.unique(self.y, return_inverse=True)

    @property
    def classes(self) -> np.ndarray | None:
        """Different labels, sorted; None without labels."""
        return self._found[0]

    @property
    def codes(self) -> np.ndarray | None:
        """Labels as places in :attr:`classes`: int64 (n_cells,)."""
        return self._found[1]

    @cached_property
    def is_log(self) -> bool | None:
        """Whether values are logarithms or z-scores (True) or counts (False); None where they could be either.

        Up to 256 cells are looked at. Values that all lie from 0 to 1 could be either.
        """
        some = self.X[np.unique(np.linspace(0, len(self) - 1, 256).astype(np.int64))]
        values = some.data if sparse.issparse(some) else some
        values = values[np.isfinite(values)]
        if not values.size or (values.min() >= 0 and values.max() <= 1):
            return None
        return bool(values.min() < 0) or may_be_logged(values)

    @property
    def source(self) -> Self:
        """Cells of the source domain; all of them where no domain is given."""
        return self if self.sample_domain is None else self[self.sample_domain > 0]

    @property
    def target(self) -> Self:
        """Cells of the target domain; none where no domain is given."""
        return self[:0] if self.sample_domain is None else self[self.sample_domain < 0]

    def refuse_logs(self, cure: str) -> None:
        """Refuse an ``X`` that is read as counts and is logged, or may be."""
        refuse_logs(self.X.data if sparse.issparse(self.X) else self.X, self.units, "X", cure)

    def outline(self) -> Outline:
        """What builds a network for these cells."""
        return Outline(self.n_genes, self.genes, self.classes, self.n_outputs)


def read(
    X,
    y=NO_LABELS,
    *,
    genes: Sequence[str] | None = None,
    sample_domain=None,
    like: Cells | Outline | Sequence[str] | None = None,
    layer: str | None = None,
    numbers: bool = False,
    accept_sparse: bool = True,
    allow_nan: bool | str = False,
    dtype=np.float32,
    estimator: BaseEstimator | None = None,
    reset: bool = True,
) -> Cells:
    """Read cells from whatever holds them.

    :class:`DataError` is raised if labels have gaps, names do not fit the columns or come twice, a column of ``obs`` is
    missing, domains are not one non-zero number a cell, or genes are not those of `like`; ValueError by scikit-learn
    for NaN, other shapes, and another number of genes. Memory may be shared with `X`: do not write to it.

    Parameters
    ----------
    X : AnnData, DataFrame, ndarray or sparse matrix of any format, cells × genes
        An AnnData may be backed by its file.
    y : array of shape (n_cells,) or (n_cells, n_outputs), or str
        Labels, or numbers to predict; of an AnnData also the name of a column of ``obs``. ``NO_LABELS``: there are
        none, which differs from None as in scikit-learn.
    genes : sequence of str, optional
        Names of the columns, in place of those of `X`.
    sample_domain : int array of shape (n_cells,), or str, optional
        Positive for source, negative for target; of an AnnData also the name of a column of ``obs``.
    like : Cells, Outline or sequence of str, optional
        The genes must be these, in this order.
    layer : str, optional
        Read this layer of an AnnData where it has one, in place of ``X``.
    numbers : bool
        `y` holds numbers, not labels.
    accept_sparse : bool
        False refuses sparse values with the cure.
    allow_nan : bool or "y"
        True lets `X` hold NaN, ``"y"`` lets `y`.
    dtype : dtype or tuple of dtype
        Of `X`; of several, that of `X` is kept where it is one of them, and the first taken otherwise.
    estimator, reset : scikit-learn estimator, and bool
        Its ``n_features_in_`` and ``feature_names_in_`` are set (`reset`) or compared with the columns.
    """
    estimator = BaseEstimator() if estimator is None else estimator
    names = column_names(X) if genes is None else names_of(genes)
    obs, units, where = table_of_cells(X), None, ""
    y, domain = (column(obs, part, numbers) for part in (y, sample_domain))
    if obs is not None:
        where = layer if layer in X.layers else "X"
        units = "counts" if where == "counts" else units_of(X)
        X = X.layers[where] if where == layer else X
    if not _is_for_scikit_learn(X):
        X = widened(matrix_of(X))
    if table_of_cells(y) is not None or table_of_cells(domain) is not None:
        raise DataError("labels and domains are one value a cell, not an AnnData: pass the name of a column of its obs")
    if y is None:
        raise DataError(f"{type(estimator).__name__} requires y to be passed, but the target y is None: pass labels")
    if not numbers and not isinstance(y, str):
        # scikit-learn would call gaps a NaN of unknown place, or words that cannot be sorted.
        values = np.asarray(y, dtype=object)
        missing = int(pd.isna(values).sum()) if values.ndim == 1 else 0
        if missing:
            raise DataError(f"y has no label for {missing} of {len(values)} cells: drop them first, or name them")
    if names is not None:
        once(names, "genes")
        _like(like, names, len(names))
        if np.ndim(X) == 2 and len(names) != np.shape(X)[1]:
            raise DataError(f"{len(names)} genes are named and X has {np.shape(X)[1]} columns: name each column once")
        named = pd.DataFrame(np.empty((0, len(names))), columns=names)
        validate_data(estimator, named, reset=reset, skip_check_array=True)
    checks = {"accept_sparse": "csr" if accept_sparse else False, "estimator": estimator}
    checks["dtype"] = list(dtype) if isinstance(dtype, tuple) else dtype
    checks["ensure_all_finite"] = "allow-nan" if allow_nan is True else True
    if isinstance(y, str):
        X, y = check_array(X, **checks), None
    elif numbers and allow_nan == "y":
        X = check_array(X, **checks)
        y = check_array(y, dtype=float, ensure_2d=False, ensure_all_finite="allow-nan", input_name="y")
        if len(y) != X.shape[0]:
            raise DataError(f"X has {X.shape[0]} cells and y {len(y)}: give one value or row of y a cell")
    else:
        X, y = check_X_y(X, y, multi_output=numbers, y_numeric=numbers, **checks)
    if names is None:
        validate_data(estimator, X, reset=reset, skip_check_array=True)
        _like(like, None, X.shape[1])
    if sparse.issparse(X):
        X = narrow(X if X.has_canonical_format else X.copy())
        X.sum_duplicates()
    return Cells(X, y, names, _domains(domain, X.shape[0]), where, units, numbers)


def _is_for_scikit_learn(X) -> bool:
    """Whether these are complex numbers or Python objects that are neither numbers nor words."""
    known = (str, bytes, Real, type(None), type(pd.NA))
    kind = X.dtype.kind if isinstance(X, np.ndarray) else ""
    return kind == "c" or (kind == "O" and not all(isinstance(v, known) for v in X.flat))


def column_names(X) -> list[str] | None:
    """Names of the columns of an AnnData or a table; None where there are none, or numbers that pandas gave."""
    names = X.var_names if table_of_cells(X) is not None else getattr(X, "columns", None)
    counted = isinstance(names, pd.RangeIndex) and names.equals(pd.RangeIndex(len(names)))
    return None if names is None or counted else names_of(names)


def table_of_cells(X) -> pd.DataFrame | None:
    """``obs`` of an AnnData; None for anything else, also for a table with a column of that name."""
    return X.obs if hasattr(X, "var_names") and hasattr(X, "obs") and not isinstance(X, pd.DataFrame) else None


def digest(parts: Iterable) -> str:
    """SHA-256 of arrays, by their bytes row by row, and of anything else, by its ``repr``."""
    seen = hashlib.sha256()
    for part in parts:
        seen.update(np.ascontiguousarray(part) if isinstance(part, np.ndarray) else repr(part).encode())
    return seen.hexdigest()


def _taken(X, rows):
    """Rows of a matrix. Those that follow one another are not copied: half a data set of domains is large."""
    if isinstance(rows, slice):
        rows = np.arange(X.shape[0])[rows]
    at = np.flatnonzero(rows) if np.asarray(rows).dtype == bool else np.asarray(rows)
    if at.ndim != 1 or not len(at) or at[0] < 0 or (np.diff(at) != 1).any():
        return X[rows]
    start, stop = at[0], at[-1] + 1
    if not sparse.issparse(X):
        return X[start:stop]
    first, last = X.indptr[start], X.indptr[stop]
    some = type(X)((stop - start, X.shape[1]), dtype=X.dtype)  # given the parts, it would copy less than a half
    some.data, some.indices = X.data[first:last], X.indices[first:last]
    some.indptr = X.indptr[start : stop + 1] - first
    return some


def finite_matrix(X, what: str = "X", dtype=np.float64):
    """`X` as a new CSR or C-ordered ndarray of finite values, or :class:`DataError`; for functions of one matrix."""
    X = widened(matrix_of(X, what))
    if sparse.issparse(X):
        X = narrow(X.tocsr().astype(dtype, copy=True))
        X.sum_duplicates()  # an entry stored in two parts would be logged in two parts
    else:
        with np.errstate(over="ignore"):
            X = np.array(X, dtype=dtype, order="C")
    if X.ndim != 2 or 0 in X.shape:
        raise DataError(f"{what} has shape {X.shape}: give cells in rows and genes in columns, at least one of each")
    missing = int((~np.isfinite(X.data if sparse.issparse(X) else X)).sum())
    if missing:
        raise DataError(f"{what} holds {missing} values that are NaN or infinite: fill or drop those genes first")
    return X


def dense_matrix(X, what: str = "X"):
    """:func:`finite_matrix` as a float64 ndarray."""
    X = finite_matrix(X, what)
    return X.toarray() if sparse.issparse(X) else X


def count_matrix(X, dtype=np.float64, *, layer: str | None = "counts", empty: bool = False):
    """Counts as :func:`finite_matrix` gives them, and the total of each cell (float64).

    Of an AnnData `layer` is read where there is one. Negative values and logarithms are refused, and cells without a
    count unless `empty`.
    """
    obs, units = table_of_cells(X), None
    if obs is not None:
        units = units_of(X)
        X, units = (X.layers[layer], "counts") if layer in X.layers else (X, units)
    X = finite_matrix(X, "the counts" if obs is None else "X", dtype)
    values = X.data if sparse.issparse(X) else X
    if values.min(initial=0) < 0:
        raise DataError("the counts hold negative values: start from the raw counts")
    refuse_logs(values, units, "X", AS_COUNTS)
    totals = np.asarray(X.sum(1, dtype=np.float64)).ravel()
    if not empty and (totals == 0).any():
        raise DataError(f"{int((totals == 0).sum())} cells have no count at all: drop them first")
    return X, totals


def array_of(values, what: str = "values", dtype=None) -> np.ndarray:
    """`values` as an array; an AnnData, which numpy would read for hours, is refused."""
    if table_of_cells(values) is not None:
        raise DataError(f"{what} is an AnnData, and an array is read here: pass adata.obs[...], or adata.X")
    return np.asarray(values, dtype=dtype)


def label_array(values, n: int, what: str) -> np.ndarray:
    """`values` as an array of str, one a cell, none missing."""
    values = array_of(values, what, object)
    if values.shape != (n,):
        raise DataError(f"{what} has shape {values.shape} and there are {n} cells: give one {what} a cell")
    if pd.isna(values).any():
        raise DataError(f"{int(pd.isna(values).sum())} cells have no {what}: drop them, or name one for each")
    return values.astype(str)


def column(obs, value, numbers=False):
    """A column of ``obs`` where `value` names one; anything else as it is. Categories without cells are left out.

    `obs` is None where the cells come without one. With `numbers` the column comes as float64, NaN where missing.
    """
    if not isinstance(value, str) or value == NO_LABELS:
        return value
    if obs is None:
        raise DataError(f"{value!r} names a column of obs, and X is no AnnData: pass one value a cell")
    column = column_of(obs, value)
    if numbers or (pd.api.types.is_numeric_dtype(column) and not column.isna().any()):
        return column.to_numpy(dtype=float) if numbers else column.to_numpy()
    if missing := int(column.isna().sum()):
        raise DataError(f"obs[{value!r}] has no label for {missing} cells: drop them first")
    kinds = getattr(column.dtype, "categories", None)
    if kinds is not None and kinds.dtype.kind in "biuf":
        return column.astype(kinds.dtype).to_numpy()
    return column.astype(str).to_numpy(dtype=str)


def _domains(domain, n):
    if domain is None:
        return None
    try:
        found = np.asarray(domain, dtype=float)
    except (TypeError, ValueError):
        found = np.empty(0)
    if found.shape != (n,) or not np.isfinite(found).all() or not found.all() or (found % 1).any():
        needed = f"one whole number for each of the {n} cells, positive for source and negative for target"
        raise DataError(f"sample_domain must hold {needed}")
    return found.astype(np.int64)


def _like(like, names, n):
    """Refuse other genes than those of `like`, or the same in another order."""
    if like is None:
        return
    theirs = like.genes if hasattr(like, "n_genes") else names_of(like)
    wanted = len(theirs) if theirs is not None else like.n_genes
    if wanted == n and (theirs is None or names is None or theirs == names):
        return
    how = difference(theirs, names) if theirs is not None and names is not None else f"{n} columns"
    raise DataError(f"these are not the {wanted} genes of before ({how}): bring the columns into that order first")


def difference(theirs: Sequence[str], mine: Sequence[str]) -> str:
    """In what a list of genes differs from another, in words."""
    missing, new = len(set(theirs) - set(mine)), len(set(mine) - set(theirs))
    return f"{missing} are missing and {new} are new" if missing or new else "they are in another order"
