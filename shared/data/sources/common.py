"""What several of the published sets need: whole tables, labels that follow the names, AnnData put together."""

import re
from itertools import chain

import numpy as np
import pandas as pd
from scipy import sparse

from shared.data.errors import DataError
from shared.data.genes.lists import many, shown
from shared.data.io import MISSING, named, names_of_files
from shared.data.io.tables import AGAIN, blocks, fields, measure, opened, parted, separator_of, sound
from shared.data.io.tenx import distinct


def one_of_each(paths, rules: dict[str, str], optional=()) -> list:
    """The file whose name fits each of the `rules`, regular expressions by what they stand for; None for no `optional`.

    :class:`DataError` if several files fit a rule, or none fits one that is not `optional`.
    """
    found = {kind: [p for p in paths if re.search(rule, p.name)] for kind, rule in rules.items()}
    for kind, files in found.items():
        if len(files) > 1 or not (files or kind in optional):
            there = f"are {len(files)} files" if files else "is no file"
            raise DataError(f"{names_of_files(paths)}: there {there} of {kind}, named like {rules[kind]}: give one")
    return [files[0] if files else None for files in found.values()]


def assembled(X, genes, obs: pd.DataFrame, units: str, what: str, *, var: pd.DataFrame | None = None, notes=()):
    """AnnData with names that stand once, words as categories, ``uns["units"]`` and ``uns["notes"]``.

    `X` is float32, CSR or ndarray, of cells × genes; `obs` is indexed by the names of the cells, `var` has one row a
    gene, and `what` names the files. :class:`DataError` if sizes do not match, a name stands twice or cannot be
    written in a line, or there are no cells or genes.
    """
    genes = pd.Index(np.asarray(genes, dtype=object), dtype=object)
    if X.shape != (len(obs), len(genes)):
        raise DataError(
            f"{what}: the matrix is {X.shape[0]:,} cells × {X.shape[1]:,} genes, and there are "
            f"{len(obs):,} and {len(genes):,} names: the files do not belong together"
        )
    if 0 in X.shape:
        raise DataError(f"{what} has {X.shape[0]:,} cells and {X.shape[1]:,} genes: there is nothing to read")
    cells = pd.Index(obs.index.astype(str), dtype=object)
    odd = [n for n in chain(genes, cells) if n == "" or '"' in n or n != n.strip()]
    if odd:
        raise DataError(
            f"{what} has {many(len(odd), 'name')} that are empty, or hold blanks or quotation marks at their ends "
            f"({shown(map(repr, odd))}): correct them, or fetch the file again"
        )
    made = named(X, genes, cells, what, var=var, notes=notes)
    words = obs.select_dtypes(["object", "string"])
    made.obs = obs.set_axis(made.obs_names).assign(**{name: pd.Categorical(obs[name]) for name in words})
    made.uns["units"] = units
    return made


def together(parts):
    """The matrices, genes and tables of cells of parts with the same genes, as one CSR, list and DataFrame.

    A part is a CSR matrix of cells × genes, the names of its genes, what is known of its cells, and where it comes
    from. :class:`DataError` if it names other genes than the first part, or the same in another order.
    """
    matrices, genes, obs, names = zip(*parts)
    for own, name in zip(genes, names):
        if list(own) != list(genes[0]):
            raise DataError(
                f"{name} names other genes than {names[0]}, or the same in another order: they are not of one release "
                f"or species, or one is damaged; {AGAIN}"
            )
    return sparse.vstack(matrices, format="csr"), genes[0], pd.concat(obs)


# Labels


def labels(values):
    """Words, or a table of them, as labels: those that mean "not known" become missing."""
    found = values if isinstance(values, pd.DataFrame) else pd.Series(values, dtype=object)
    return found.astype(object).mask(found.isin(MISSING), None)


def facts(table, columns: dict, cells, matrix: str, path, *, key: str | None = None, all_cells=False, only_cells=False):
    """Columns of a table of labels under the names the book uses, in the order of the cells; missing where not known.

    :class:`DataError` is raised if a column is missing, a cell has two rows, no row is a cell's, or one is missing or
    too many.

    Parameters
    ----------
    table : DataFrame of str
        One row a cell.
    columns : dict
        New name to old name, or to several, the first of which that is there is taken, and none may be.
    cells, matrix, path : sequence of str, str, Path
        Names of the cells, what holds them, and where the table is.
    key : str, optional
        The column that names the cells; the index does without it.
    all_cells, only_cells : bool
        Refuse a cell without a row, and a row of no cell.
    """
    cells = pd.Index(cells, dtype=object)
    columns = {new: [old] if isinstance(old, str) else [n for n in old if n in table] for new, old in columns.items()}
    picked = {new: column(table, names[0], path) for new, names in columns.items() if names}
    found = labels(pd.DataFrame(picked, table.index))
    found = found if key is None else found.set_axis(pd.Index(column(table, key, path), dtype=object))
    twice = found.index[found.index.duplicated()].unique()
    if len(twice):
        raise DataError(f"{path.name} names {many(len(twice), 'cell')} more than once ({shown(twice)}): it is damaged")
    lacking, foreign = cells[~cells.isin(found.index)], found.index[~found.index.isin(cells)]
    if len(lacking) == len(cells):
        raise DataError(
            f"{path.name} names none of the cells of {matrix} ({shown(found.index[:2])} beside {shown(cells[:2])}): "
            "they do not belong together, or the matrix lies on its side"
        )
    for wrong, names in (("lacks", lacking if all_cells else ()), ("names, beside the", foreign if only_cells else ())):
        if len(names):
            raise DataError(
                f"{path.name} {wrong} {many(len(names), 'cell')} of {matrix} ({shown(names)}): "
                "the files are not of one release, or one was cut short; fetch both again"
            )
    return found.reindex(cells)


def column(table: pd.DataFrame, name: str, path) -> pd.Series:
    """A column by name; :class:`DataError` with those there are where it is missing."""
    there = np.flatnonzero(table.columns == name)
    if len(there) != 1:
        found = f"has no column {name!r}" if not len(there) else f"has {len(there)} columns {name!r}"
        raise DataError(f"{path.name} {found}; it has {shown(table.columns)}: {AGAIN}, or correct the name")
    return table.iloc[:, there[0]]


def plain(name: str) -> str:
    """A word for a column: lower case, underscores."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


# Tables of numbers


def header(line: bytes, corners, path) -> pd.Index:
    """The names of the cells in a header of tabs that begins with one of the words `corners`."""
    corner, *cells = fields(line, "\t") or [""]
    if corner not in corners or not cells:
        raise DataError(
            f"{path.name} begins with {corner[:40]!r} where {corners[0]!r} and the names of cells are due: "
            f"it is another table, or its head was lost; {AGAIN}"
        )
    return pd.Index(cells, dtype=object)


def numbers(path, *, ids: int = 1, units: str = "none", dense: bool = False):
    """A whole table of numbers, read in blocks so that no more than one stands in memory as text.

    Its header names every field, or, as R writes it, leaves out the one above the names of the rows. The first `ids`
    fields of a row are names; the others are checked for being what `units` says (:func:`sound`).

    Returns
    -------
    ids : DataFrame of str
        What names the rows.
    columns : Index
        Names of the columns.
    X : float32 CSR, or ndarray if `dense`
        Rows × columns.
    """
    separator = separator_of(path)
    with opened(path) as stream:
        first, row = fields(stream.readline(), separator), stream.readline()
        heads, columns = parted(first, measure(row, separator), ids, path)
        parts = blocks(chain([row], stream), path, separator, ids, columns)
        names, X = stacked(((n, sound(block, units, n, path)) for n, block in parts), dense)
    return names.set_axis(heads or [str(i) for i in range(ids)], axis=1), pd.Index(columns, dtype=object), X


def stacked(parts, dense: bool = False):
    """One table of names and one float32 matrix, CSR unless `dense`, of pairs such as :func:`blocks` yields."""
    kind = np.asarray if dense else sparse.csr_matrix
    names, values = zip(*((n, kind(block, dtype=np.float32)) for n, block in parts))
    X = np.concatenate(values) if dense else sparse.vstack(values, format="csr")
    return pd.concat(names, ignore_index=True), X


def gene_names(ids: pd.DataFrame, path):
    """The ids of the genes, cut at the version where the cut ones differ."""
    short = ids["id"].str.replace(r"^(ENS\w*\d+)\.\d+$", r"\1", regex=True)
    return distinct(short, ids["id"], path.name)
