"""What the readers share where rows of numbers and of words become AnnData."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from shared.data.catalogue import UNITS
from shared.data.constraints import OneOf, require
from shared.data.errors import DataError
from shared.data.genes.lists import many, shown
from shared.data.validate.structure import name_problems

MISSING = frozenset({"", "NA", "N/A", "NaN", "nan", "null", "None", "not applicable", "not available", "--"})


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

    genes = pd.Index(np.asarray(genes, dtype=object), dtype=object, name=None)
    require(OneOf(*UNITS), units=units)
    if X.shape != (len(obs), len(genes)):
        raise DataError(
            f"{what}: the matrix is {X.shape[0]:,} cells × {X.shape[1]:,} genes, and there are "
            f"{len(obs):,} and {len(genes):,} names: the files do not belong together"
        )
    if 0 in X.shape:
        raise DataError(f"{what} has {X.shape[0]:,} cells and {X.shape[1]:,} genes: there is nothing to read")
    obs = obs.copy()
    obs.index = pd.Index(obs.index.astype(str), dtype=object).rename(None)  # an index named "" cannot be written
    for names in (genes, obs.index):
        odd = [n for n in names if n == "" or '"' in n or n != n.strip()]
        if odd:
            raise DataError(
                f"{what} has {many(len(odd), 'name')} that are empty, or hold blanks or quotation marks at their ends "
                f"({shown(map(repr, odd))}): a file is damaged, fetch it again"
            )
    for finding in name_problems(genes, obs.index):
        raise DataError(finding.about(what))
    for name in obs.columns:
        if pd.api.types.is_string_dtype(obs[name].dtype) or obs[name].dtype == object:
            obs[name] = pd.Categorical(obs[name])
    var = pd.DataFrame(index=genes) if var is None else var.set_axis(genes, axis=0)
    made = ad.AnnData(X, obs=obs, var=var)
    made.uns["units"] = units
    if notes:
        made.uns["notes"] = list(notes)
    return made


def labels(values):
    """Words, or a table of them, as labels: those that mean "not known" become missing."""
    found = values if isinstance(values, pd.DataFrame) else pd.Series(values, dtype=object)
    return found.astype(object).mask(found.isin(MISSING), None)


def only(made, kept, what: str, why: str):
    """The cells that are `kept`, and a note on how many others are left out and why."""
    kept = np.asarray(kept, dtype=bool)
    made = made[kept].copy()
    made.uns["notes"] = [*made.uns.get("notes", []), f"{many(int((~kept).sum()), what)} {why}"]
    return made


def distinct(short, full, what: str) -> np.ndarray:
    """The short name of each gene where no other gene has it, else its full name; full names must differ.

    Two genes may share a symbol. Renaming the second one by a number, as is often done, makes a gene that no other data
    set has, and summing them is a choice for the reader of the book
    (:func:`shared.data.genes.translate.merge_duplicates`).
    """
    short, full = pd.Series(np.asarray(short, dtype=object)), pd.Series(np.asarray(full, dtype=object))
    shared = short.duplicated(keep=False) | short.isin(MISSING)
    names = short.where(~shared, full)
    # A full name may be another gene's short name: "1-Dec" the symbol, and "1-Dec" the label of an unnamed row.
    clash = names.duplicated(keep=False) & (names != full)
    names = names.where(~clash, full)
    twice = names[names.duplicated()].unique()
    if len(twice):
        raise DataError(
            f"{what} names {many(len(twice), 'gene')} more than once ({shown(twice)}): "
            "the file is damaged, or not the one this reader knows"
        )
    return names.to_numpy(dtype=object)


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


def names_of_files(paths) -> str:
    """The files, for messages."""
    return shown([p.name for p in paths])
