"""Plain ``.h5ad`` files, and tables with cells in rows and genes in columns."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from shared.data.errors import DataError
from shared.data.genes.lists import many, shown
from shared.data.io.text import refused
from shared.data.validate.structure import name_problems


def h5ad(paths: list[Path], *, layer=None, obs=None, units=None, missing=()):
    """An ``.h5ad`` file as it stands.

    Parameters
    ----------
    paths : list of Path
        One file.
    layer : str, optional
        Take ``X`` from this layer.
    obs : dict, optional
        New name to old name of columns of ``obs``; the old ones stay. ``{"cell_type": "celltype", "batch": "tech"}``
        gives scIB's pancreas the names the book uses.
    units : str, optional
        What ``X`` holds, where the file does not say it.
    missing : sequence of str
        Values of the new columns that mean "no label"; they become missing.

    Returns
    -------
    AnnData

    Raises
    ------
    DataError
        If the file is damaged, or has no such layer or column.
    """
    import anndata as ad

    (path,) = paths
    with refused(path, ".h5ad"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*names are not unique", category=UserWarning)  # the door refuses
        found = ad.read_h5ad(path)
    if layer is not None:
        if layer not in found.layers:
            raise DataError(f"{path.name} has no layer {layer!r}; it has {', '.join(found.layers) or 'none'}")
        found.X = found.layers[layer].copy()
    if found.X is None:
        raise DataError(f"{path.name} has no X: name the layer to read, load(..., layer=...)")
    for new, old in (obs or {}).items():
        if old not in found.obs:
            raise DataError(f"{path.name} has no column {old!r} in obs; it has {shown(found.obs.columns) or 'none'}")
        column = found.obs[old]
        found.obs[new] = column.mask(column.isin(list(missing))) if len(missing) else column
    if units is not None:
        found.uns["units"] = units
    return found


def table(paths: list[Path], *, separator=None, duplicated_genes=False, transposed=False):
    """A table of numbers: the first column names the cells, the first row the genes.

    Parameters
    ----------
    paths : list of Path
        One file, ``.csv`` or ``.tsv``, gzipped or not. A table written by R, whose header names the genes only, is read
        as well.
    separator : str, optional
        By the file's name where not given: a comma for ``.csv``, a tab otherwise.
    duplicated_genes : bool, default False
        Let names of genes stand that occur twice, for the door to merge or to refuse.
    transposed : bool, default False
        The rows are genes and the columns cells; what is returned has cells in rows.

    Returns
    -------
    AnnData
        ``X``: float32 ndarray. Units are not known; missing values stay NaN, for the door to refuse.

    Raises
    ------
    DataError
        If the file is damaged, a name stands twice, or a column holds words.
    """
    import anndata as ad

    (path,) = paths
    if separator is None:
        separator = "," if path.name.lower().removesuffix(".gz").endswith(".csv") else "\t"
    with refused(path, "a table"):
        found = pd.read_csv(path, sep=separator, index_col=0)
        # pandas renames the second of two equal gene names, which would hide it, so the header is read as it stands.
        header = pd.read_csv(path, sep=separator, header=None, nrows=1, dtype=str, keep_default_na=False).iloc[0]
    # A table written by R names the genes only, without a field above the cell names.
    genes = pd.Index(header if len(header) == found.shape[1] else header[1:], dtype=str, name="gene")
    cells = pd.Index(found.index.astype(str), name=None)
    if found.shape[1] == 0:
        other = "tabs, name it .tsv" if separator == "," else "commas, name it .csv"
        if any(";" in str(name) for name in (found.index.name, *found.index[:1])):
            other = "semicolons, as some spreadsheets save them, write it with commas"
        raise DataError(f"{path.name} is empty: {len(found)} cells × 0 genes; if its fields are parted by {other}")
    if transposed:
        genes, cells = cells.rename("gene"), genes.rename(None)
    for finding in name_problems(genes, cells):
        if not (duplicated_genes and finding.check == "genes twice"):
            raise DataError(finding.about(path.name))
    if found.shape[0] == 0:
        return ad.AnnData(np.zeros((len(cells), len(genes)), np.float32))
    words = [c for c in found.columns if not pd.api.types.is_numeric_dtype(found[c])]
    if words:
        raise DataError(
            f"{path.name}: {many(len(words), 'column')} with words in place of numbers ({shown(words)}): "
            "keep only genes, labels go into obs"
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*names are not unique", category=UserWarning)  # as asked for
        X = found.to_numpy(np.float32)
        return ad.AnnData(X.T if transposed else X, obs=pd.DataFrame(index=cells), var=pd.DataFrame(index=genes))
