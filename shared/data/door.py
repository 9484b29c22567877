"""The door: a name or a path in, checked AnnData out."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from shared.data.catalogue import bundled_path, entry
from shared.data.errors import DataError

READERS = (".h5ad", ".csv", ".tsv")
UNITS = ("counts", "log")


def load(name, *, layer=None) -> ad.AnnData:
    """Load a data set of the catalogue by name, or a file of your own by path.

    Parameters
    ----------
    name : str or path
        A name in ``data/catalog.yml``, or a path to an ``.h5ad``, ``.csv`` or ``.tsv`` file (cells × genes, first
        column the cell names, first row the gene names; also with ``.gz`` added).
    layer : str, optional
        Take ``X`` from this layer of an ``.h5ad`` file.

    Returns
    -------
    AnnData
        ``X`` : float32, CSR or ndarray, cells × genes. Where ``X`` holds counts, ``layers["counts"]`` holds a copy,
        so that normalising ``X`` loses nothing. ``uns["sha256"]``: of the file; ``uns["source"]``: where it came
        from; ``uns["units"]``: ``"counts"``, ``"log"`` or ``"unknown"``.

    Raises
    ------
    DataError
        If the name is unknown, the file is missing, damaged, altered or of a kind that is not read, or the matrix is
        empty, holds NaN, infinities, words or negative counts, or names a gene or a cell twice.
    """
    path = Path(str(name)).expanduser()
    if path.suffix or path.name != str(name):
        return _own(path, layer)
    found = entry(str(name))
    path = bundled_path(found)
    sha256 = _sha256(path)
    if sha256 != found.sha256:  # before the file is opened: damage makes a reader say something else, or crash
        raise DataError(f"{path.name} is not the file the catalogue describes (its sha256 differs): restore it")
    units = found.units if layer is None else None
    source = f"{found.citation} {found.accession}. {found.licence}."
    return _checked(_read(path, layer), found.name, units, sha256, source)


def _own(path: Path, layer) -> ad.AnnData:
    if not path.exists():
        raise DataError(f"there is no file {path}: check the spelling, and the folder it is relative to ({Path.cwd()})")
    adata = _read(path, layer)
    return _checked(adata, path.name, None, _sha256(path), str(path))


def _sha256(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: Path, layer):
    name = path.name.removesuffix(".gz")
    kind = Path(name).suffix
    if path.is_dir() or kind not in READERS:
        raise DataError(f"{path.name} is not a kind of file this door reads: {', '.join(READERS)}")
    if kind != ".h5ad" and layer is not None:
        raise DataError(f"{path.name} is a table and has no layer {layer!r}: leave layer out")
    if not path.stat().st_size:
        raise DataError(f"{path.name} is empty: the copy or download may have stopped early")
    try:
        return _h5ad(path, layer) if kind == ".h5ad" else _table(path, "," if kind == ".csv" else "\t")
    except DataError:
        raise
    except Exception as e:
        raise DataError(f"{path.name} cannot be read as {kind}: {e}; the file may be damaged, fetch it again") from e


def _h5ad(path, layer):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*names are not unique", category=UserWarning)  # refused below
        adata = ad.read_h5ad(path)
    if layer is not None:
        if layer not in adata.layers:
            raise DataError(f"{path.name} has no layer {layer!r}; it has {', '.join(adata.layers) or 'none'}")
        adata.X = adata.layers[layer]
    if adata.X is None:
        raise DataError(f"{path.name} has no X: name the layer to read, load(..., layer=...)")
    return adata


def _table(path, separator):
    table = pd.read_csv(path, sep=separator, index_col=0)
    # pandas renames the second of two equal gene names, which would hide it, so the header is read as it stands.
    header = pd.read_csv(path, sep=separator, header=None, nrows=1, dtype=str, keep_default_na=False).iloc[0]
    # A table written by R names the genes only, without a field above the cell names.
    genes = pd.Index(header if len(header) == table.shape[1] else header[1:], dtype=str, name="gene")
    cells = pd.Index(table.index.astype(str), name=None)
    _named_once(path.name, genes, cells)
    if table.shape[1] == 0:
        other = "tabs, name it .tsv" if separator == "," else "commas, name it .csv"
        raise DataError(f"{path.name} is empty: {len(table)} cells × 0 genes; if its fields are parted by {other}")
    if table.shape[0] == 0:
        return ad.AnnData(np.zeros(table.shape, np.float32))
    words = [c for c in table.columns if not pd.api.types.is_numeric_dtype(table[c])]
    if words:
        shown = ", ".join(map(str, words[:3]))
        raise DataError(f"{path.name}: {len(words)} columns hold words ({shown}): keep only genes, labels go into obs")
    return ad.AnnData(table.to_numpy(np.float32), obs=pd.DataFrame(index=cells), var=pd.DataFrame(index=genes))


def _named_once(name, genes, cells):
    for names, what, cure in ((genes, "gene", "sum or drop the copies"), (cells, "cell", "drop or rename the copies")):
        twice = names[names.duplicated()].unique()
        if len(twice):
            shown = ", ".join(map(str, twice[:3]))
            raise DataError(f"{name} names {len(twice)} {what}s more than once ({shown}): {cure} before loading")


def _checked(adata, name, units, sha256, source):
    """Refuse what no analysis can use; set units, hash and source; keep counts in a layer."""
    if 0 in adata.shape:
        raise DataError(f"{name} is empty: {adata.n_obs} cells × {adata.n_vars} genes")
    _named_once(name, adata.var_names, adata.obs_names)
    X = adata.X
    if not sparse.issparse(X):
        X = np.asarray(X)
    values = X.data if sparse.issparse(X) else X
    if values.dtype.kind not in "biuf":
        raise DataError(f"{name} holds {values.dtype} where numbers are needed")
    if not np.isfinite(values).all():
        n = int((~np.isfinite(values)).sum())
        raise DataError(f"{name} holds {n} values that are NaN or infinite: fill or drop those genes before loading")
    whole = bool((values == np.round(values)).all())
    negative = int((values < 0).sum())
    units = units or (adata.uns.get("units") if adata.uns.get("units") in UNITS else None)
    if negative and (whole or units == "counts"):
        raise DataError(f"{name} holds {negative} negative counts: load the counts as measured, before any step")
    if units == "counts" and not whole:
        raise DataError(f"{name} should hold counts, but has fractions: load the raw counts, or set uns['units']")
    adata.X = sparse.csr_matrix(X, dtype=np.float32) if sparse.issparse(X) else np.ascontiguousarray(X, np.float32)
    if units is None:
        units = "counts" if whole and values.max(initial=0) > 1 else "unknown"
    if units == "counts":
        adata.layers["counts"] = adata.X.copy()  # of X, so that the two agree whatever layer X was read from
    adata.uns |= {"units": units, "sha256": sha256, "source": source}
    return adata


def to_arrays(adata, labels="cell_type"):
    """AnnData to what estimators take.

    Parameters
    ----------
    adata : AnnData
        cells × genes.
    labels : str
        Column of ``obs``.

    Returns
    -------
    X : float32, CSR or ndarray of shape (n_cells, n_genes)
    y : ndarray of str, shape (n_cells,)
    genes : list of str

    Raises
    ------
    DataError
        If ``obs`` has no such column, or a cell has no label.
    """
    if labels not in adata.obs:
        raise DataError(f"obs has no column {labels!r}; it has {', '.join(map(str, adata.obs.columns)) or 'none'}")
    column = adata.obs[labels]
    if column.isna().any():
        raise DataError(f"{int(column.isna().sum())} cells have no {labels!r}: drop them, or label them, first")
    X = adata.X
    X = sparse.csr_matrix(X, dtype=np.float32) if sparse.issparse(X) else np.ascontiguousarray(X, np.float32)
    return X, column.astype(str).to_numpy(dtype=str), list(map(str, adata.var_names))


def from_arrays(X, genes, *, obs=None) -> ad.AnnData:
    """Arrays to AnnData: the way back, and the way in for a matrix that is not in a file.

    Parameters
    ----------
    X : CSR or ndarray of shape (n_cells, n_genes)
        Counts or logged values.
    genes : sequence of str
        One name a column.
    obs : DataFrame or dict of column to values, optional
        One row a cell.

    Raises
    ------
    DataError
        As :func:`load`, and if lengths do not match.
    """
    if X.ndim != 2 or X.shape[1] != len(genes):
        raise DataError(f"X has shape {X.shape} and there are {len(genes)} gene names: cells in rows, genes in columns")
    obs = pd.DataFrame(obs if obs is not None else {}, index=None if obs is not None else range(X.shape[0]))
    if len(obs) != X.shape[0]:
        raise DataError(f"X has {X.shape[0]} cells and obs {len(obs)} rows: give one row for each cell")
    obs.index = obs.index.astype(str)
    _named_once("the matrix", pd.Index(list(genes), dtype=str), obs.index)
    adata = ad.AnnData(X.copy(), obs=obs, var=pd.DataFrame(index=pd.Index(list(genes), dtype=str)))
    digest = hashlib.sha256("\n".join(map(str, genes)).encode())
    digest.update(X.tocsr().data.tobytes() if sparse.issparse(X) else np.ascontiguousarray(X).tobytes())
    return _checked(adata, "the matrix", None, digest.hexdigest(), "arrays")
