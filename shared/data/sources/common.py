"""What several of the published sets need: whole tables, labels that follow the names, AnnData put together."""

from __future__ import annotations

import re
from itertools import chain

import numpy as np
import pandas as pd

from shared.data.errors import DataError
from shared.data.genes.lists import many, shown
from shared.data.io import MISSING
from shared.data.io.tables import AGAIN, blocks, fields, measure, opened, parted, separator_of, sound
from shared.data.io.tenx import distinct
from shared.data.validate.structure import name_problems


def assembled(X, genes, obs: pd.DataFrame, units: str, what: str, *, var: pd.DataFrame | None = None, notes=()):
    """AnnData with names that stand once, labels as categories, and what was done in words.

    Parameters
    ----------
    X : float32 CSR or ndarray
        Cells × genes.
    genes : sequence of str
        Names of the columns.
    obs : DataFrame
        Indexed by the names of the cells.
    units : str
        One of :data:`shared.data.catalogue.UNITS`.
    what : str
        The file or files, for messages.
    var : DataFrame, optional
        What else is known of the genes, in their order.
    notes : sequence of str
        Kept in ``uns["notes"]``.

    Raises
    ------
    DataError
        If sizes do not match, a name stands twice or cannot be written in a line, or there are no cells or genes.
    """
    import anndata as ad

    genes = pd.Index(np.asarray(genes, dtype=object), dtype=object)
    if X.shape != (len(obs), len(genes)):
        raise DataError(
            f"{what}: the matrix is {X.shape[0]:,} cells × {X.shape[1]:,} genes, and there are "
            f"{len(obs):,} and {len(genes):,} names: the files do not belong together"
        )
    if 0 in X.shape:
        raise DataError(f"{what} has {X.shape[0]:,} cells and {X.shape[1]:,} genes: there is nothing to read")
    cells = pd.Index(obs.index.astype(str), dtype=object).rename(None)  # an index named "" cannot be written
    for names in (genes, cells):
        odd = [n for n in names if n == "" or '"' in n or n != n.strip()]
        if odd:
            raise DataError(
                f"{what} has {many(len(odd), 'name')} that are empty, or hold blanks or quotation marks at their ends "
                f"({shown(map(repr, odd))}): correct them, or fetch the file again"
            )
    for finding in name_problems(genes, cells):
        raise DataError(finding.about(what))
    obs = obs.set_axis(cells)
    for name in obs.columns:
        if pd.api.types.is_string_dtype(obs[name].dtype) or obs[name].dtype == object:
            obs[name] = pd.Categorical(obs[name])
    made = ad.AnnData(X, obs=obs, var=pd.DataFrame(index=genes) if var is None else var.set_axis(genes, axis=0))
    made.uns["units"] = units
    if notes:
        made.uns["notes"] = list(notes)
    return made


def labels(values):
    """Words, or a table of them, as labels: those that mean "not known" become missing."""
    found = values if isinstance(values, pd.DataFrame) else pd.Series(values, dtype=object)
    return found.astype(object).mask(found.isin(MISSING), None)


def joined(cells: pd.Index, table: pd.DataFrame, what: str, source: str, *, need_all: bool = False) -> pd.DataFrame:
    """The rows of `table` in the order of `cells`; missing where it has none.

    Parameters
    ----------
    cells : Index
        Names of the cells.
    table : DataFrame
        Indexed by the names of cells.
    what, source : str
        The files of the matrix and of the table, for messages.
    need_all : bool
        Refuse a cell without a row.

    Raises
    ------
    DataError
        If a name stands twice in `table`, none is a cell's, or, with `need_all`, one is missing.
    """
    twice = table.index[table.index.duplicated()].unique()
    if len(twice):
        raise DataError(f"{source} names {many(len(twice), 'cell')} more than once ({shown(twice)}): it is damaged")
    there = cells.isin(table.index)
    if not there.any():
        raise DataError(
            f"{source} and {what} share no name ({shown(table.index[:2])} beside {shown(cells[:2])}): "
            "they do not belong together, or the matrix lies on its side"
        )
    if need_all and not there.all():
        raise DataError(
            f"{source} has no row for {many(int((~there).sum()), 'cell')} of {what} ({shown(cells[~there])}): "
            "the files are not of one release, or one was cut short; fetch both again"
        )
    return table.reindex(cells)


def plain(name: str) -> str:
    """A word for a column: lower case, underscores."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def numbers(path, *, ids: int = 1, units: str = "none", dense: bool = False):
    """A whole table of numbers, read in blocks so that no more than one stands in memory as text.

    Parameters
    ----------
    path : Path
        Of the file. Its header names every field, or, as R writes it, leaves out the one above the names of the rows.
    ids : int
        Fields at the start of a row that are names.
    units : str
        What the values are; see :func:`sound`.
    dense : bool
        Give an ndarray; CSR otherwise.

    Returns
    -------
    ids : DataFrame of str
        What names the rows.
    columns : Index
        Names of the columns.
    X : float32 ndarray or CSR
        Rows × columns.
    """
    separator = separator_of(path)
    with opened(path) as stream:
        named, row = fields(stream.readline(), separator), stream.readline()
        ids_named, columns = parted(named, measure(row, separator), ids, path)
        parts = blocks(chain([row], stream), path, separator, ids, columns)
        names, X = stacked(((n, sound(block, units, n, path)) for n, block in parts), dense)
    return names.set_axis(ids_named or [str(i) for i in range(ids)], axis=1), pd.Index(columns, dtype=object), X


def stacked(parts, dense: bool = False):
    """One table of names and one float32 matrix, CSR unless `dense`, of pairs such as :func:`blocks` yields."""
    from scipy import sparse

    kind = np.asarray if dense else sparse.csr_matrix
    names, numbers = zip(*((n, kind(block, dtype=np.float32)) for n, block in parts))
    X = np.concatenate(numbers) if dense else sparse.vstack(numbers, format="csr")
    return pd.concat(names, ignore_index=True), X


def column(table: pd.DataFrame, name: str, path) -> pd.Series:
    """A column by name; :class:`DataError` with those there are where it is missing."""
    there = np.flatnonzero(table.columns == name)
    if len(there) != 1:
        found = f"has no column {name!r}" if not len(there) else f"has {len(there)} columns {name!r}"
        raise DataError(f"{path.name} {found}; it has {shown(table.columns)}: {AGAIN}, or correct the name")
    return table.iloc[:, there[0]]


def gene_names(ids: pd.DataFrame, path):
    """The ids of the genes, cut at the version where the cut ones differ."""
    short = ids["id"].str.replace(r"^(ENS\w*\d+)\.\d+$", r"\1", regex=True)
    return distinct(short, ids["id"], path.name)
