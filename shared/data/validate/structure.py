"""What no analysis can use, whatever the values: no matrix, no numbers, damaged storage, names that clash."""

import numbers
import warnings
from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy import sparse

from shared.data.constraints import nearest
from shared.data.errors import DataError
from shared.data.genes.lists import UNWRITABLE, many, shown
from shared.data.validate.findings import Finding, findings, refuse

BARCODE = r"(?:.*[#_:])?[ACGTN]{8,}(?:-\d+)?"
MERGE = "shared.data.genes.translate.merge_duplicates sums the copies, or drop them"


def structure(adata, what="the matrix", duplicated_genes=False, cure=MERGE) -> None:
    """Refuse AnnData whose shape, type, storage or names no step can work with; values are not looked at.

    The first problem is raised as :class:`DataError` about `what`. Genes that are named twice may stand where
    `duplicated_genes`; `cure` is what to do about them otherwise.
    """
    import anndata as ad

    if not isinstance(adata, ad.AnnData):
        raise DataError(f"AnnData is needed, not {type(adata).__name__}: shared.data.from_arrays makes one")
    refuse(structural(adata, adata.X, cure), what, but="genes twice" if duplicated_genes else None)


def structural(adata, X, cure=MERGE) -> Iterator[Finding]:
    """What is wrong with `adata` beside the values of `X`, its own matrix or one of its layers."""
    if 0 in adata.shape:
        problem = f"is empty, {adata.n_obs} cells × {adata.n_vars} genes"
        yield Finding("empty", "error", problem, "see which step or which part of the file lost the rest")
    if X is None:
        yield Finding("no matrix", "error", "has no X", "put a layer there, adata.X = adata.layers[...].copy()")
    else:
        yield from matrix_problems(X)
    yield from name_problems(adata.var_names, adata.obs_names, cure)
    columns = adata.obs.columns
    if twice := shown(columns[columns.duplicated()].unique()):
        yield Finding("columns twice", "error", f"has obs columns of the same name ({twice})", "rename or drop one")


def name_problems(genes, cells, cure=MERGE) -> Iterator[Finding]:
    """What is wrong with names as such: twice the same (for genes, with this `cure`), or not writable in a line."""
    for names, what, todo in (
        (genes, "gene", cure),
        (cells, "cell", "drop the copies, or give each a name of its own"),
    ):
        bad = [n for n in names if UNWRITABLE.search(str(n))]
        odd = f"has {many(len(bad), f'{what} name')} with line breaks or control characters ({shown(map(ascii, bad))})"
        twice = names[names.duplicated()].unique()
        again = f"names {many(len(twice), what)} more than once ({shown(twice)})"
        yield from findings((bad, "names", "error", odd, "rename them"))
        yield from findings((len(twice), f"{what}s twice", "error", again, todo))


def layer_of(adata, name, what):
    """The layer called `name` of the AnnData `what`; :class:`DataError` where there is none."""
    if name not in adata.layers:
        have = f"{shown(adata.layers) or 'none'}{nearest(name, adata.layers)}"
        raise DataError(f"{what} has no layer {name!r}; it has {have}")
    return adata.layers[name]


def column_of(obs, name, what="obs") -> pd.Series:
    """The column called `name` of the table `what`; :class:`DataError` where there is none, or two."""
    columns = list(obs.columns)
    if name not in columns:
        cure = nearest(name, columns) or ": name another"
        raise DataError(f"{what} has no column {name!r}; it has {shown(columns) or 'none'}{cure}")
    if columns.count(name) > 1:
        raise DataError(f"{what} has several columns {name!r}: rename or drop one")
    return obs[name]


def matrix_of(X, what="X"):
    """The ndarray or sparse matrix that `X` is or holds, in a type of this machine; nothing is copied that need not be.

    `X` is an AnnData, DataFrame, ndarray, sparse matrix or nested sequence, cells × genes, and called `what`. What lies
    in the file of a backed AnnData is read. Numbers among Python objects become float64, and what is missing there
    (None, ``pd.NA``) becomes NaN. :class:`DataError` if there is no matrix, words stand in place of numbers, a type is
    none of numbers, or sparse storage is damaged.
    """
    if hasattr(X, "obs") and hasattr(X, "var_names") and not isinstance(X, pd.DataFrame):
        X = X.X
        if X is None:
            raise DataError(f"{what} is an AnnData without X: put a layer there, adata.X = adata.layers[...].copy()")
    if _on_disk(X):
        X = X.to_memory() if hasattr(X, "to_memory") else X[:]
    if isinstance(X, pd.DataFrame):
        if words := [c for c, kind in zip(X.columns, X.dtypes) if kind.kind not in "biuf" and not _are_numbers(X[c])]:
            raise DataError(f"{what} has words, no numbers, in {len(words)} columns ({shown(words)}): drop them")
        X = X.to_numpy()
    elif not sparse.issparse(X) and not isinstance(X, np.ma.MaskedArray):
        try:
            X = np.asarray(X)
        except Exception as e:  # rows of several lengths, arrays on another device, ...
            raise DataError(f"{what} is no matrix ({e}): give an array, a sparse matrix or a DataFrame") from e
        if X.ndim == 0:
            raise DataError(f"{what} is no matrix ({X.item()!r:.40}): give an array, a sparse matrix or a DataFrame")
    if type(X) is np.ndarray and X.dtype == object and X.ndim == 2 and _are_numbers(X.ravel()):
        X = np.where(pd.isna(X), np.nan, X).astype(np.float64)
    refuse(matrix_problems(X), what)
    native = np.dtype(np.float64) if X.dtype == np.longdouble else X.dtype.newbyteorder("=")
    if sparse.issparse(X) and X.dtype == np.float16:  # which SciPy holds and cannot work with
        native = np.dtype(np.float32)
    return X if X.dtype == native else X.astype(native)


def _are_numbers(values) -> bool:
    return all(isinstance(v, (numbers.Real, np.bool_)) or v is None or v is pd.NA for v in values)


def widened(X):
    """`X` in a type in which entries can be added: small integers would overflow, and float16 does."""
    if X.dtype.kind == "f" and X.dtype.itemsize >= 4:
        return X
    return X.astype(np.float32 if X.dtype.itemsize <= 2 else np.float64)


def narrow(X):
    """CSR with indices of 32 bits where these suffice: many a solver takes no others."""
    if X.indices.dtype == np.int32 or max(X.nnz, *X.shape) > np.iinfo(np.int32).max:
        return X
    return type(X)((X.data, X.indices.astype(np.int32), X.indptr.astype(np.int32)), X.shape)


WORDS = {"O": "Python objects", "U": "words", "S": "bytes", "c": "complex numbers", "M": "dates", "T": "words"}


def matrix_problems(X) -> Iterator[Finding]:
    """What is wrong with a matrix as such: its type, its entries' type, or damaged sparse storage."""
    if not (isinstance(X, np.ndarray) or sparse.issparse(X) or _on_disk(X)):
        yield Finding("dtype", "error", f"is a {type(X).__module__}.{type(X).__name__}", "make it a NumPy array or CSR")
        return
    dtype = np.dtype(X.dtype)
    if dtype.kind not in "biuf":
        problem = f"holds {WORDS.get(dtype.kind, 'values')} ({dtype}) where numbers are needed"
        cure = "keep the real part" if dtype.kind == "c" else "keep only the genes, then adata.X.astype('float32')"
        yield Finding("dtype", "error", problem, cure)
        return
    if np.ma.is_masked(X):
        yield Finding("nan", "error", f"holds {many(int(np.ma.count_masked(X)), 'masked value')}", "fill or drop them")
    if sparse.issparse(X) and X.format in ("csr", "csc", "bsr"):
        try:
            with warnings.catch_warnings(action="ignore"):
                X.check_format(full_check=True)
        except (ValueError, TypeError, IndexError) as e:
            # Taken at its word, such a matrix makes compiled code read outside its memory.
            yield Finding("damaged", "error", f"is a damaged {X.format.upper()} matrix ({e})", "write the file again")


def _on_disk(X) -> bool:
    return type(X).__module__.partition(".")[0] in ("h5py", "anndata") and hasattr(X, "shape") and hasattr(X, "dtype")


def fitted(X, genes: pd.DataFrame, cells: pd.Index, what: str) -> None:
    """Refuse names that do not fit the matrix, or stand in each other's place."""
    if X.shape == (len(cells), len(genes)):
        like = [pd.Series(n, dtype=object).astype(str).str.fullmatch(BARCODE).mean() for n in (genes["id"], cells)]
        if like[0] > 0.5 > like[1]:  # a square matrix has room for its names either way
            raise DataError(f"{what}: the genes look like barcodes, and the barcodes do not: the two files are swapped")
        return
    swapped = X.shape == (len(genes), len(cells))
    cure = "the two files are swapped, or the matrix lies on its side" if swapped else "they do not belong together"
    names, shape = (f"{g:,} genes and {c:,} cells" for g, c in ((len(genes), len(cells)), X.shape[::-1]))
    raise DataError(f"{what}: the matrix is of {shape}, and there are names of {names}: {cure}, or one was cut short")
