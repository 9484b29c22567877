"""What several of the published sets need: whole tables, labels that follow the names, AnnData put together."""

import re
from itertools import chain

import numpy as np
import pandas as pd
from scipy import sparse

from shared.data.errors import DataError
from shared.data.genes.lists import many, shown
from shared.data.io import named, names_of_files
from shared.data.io.tables import AGAIN, blocks, fields, joined, measure, opened, parted, separator_of
from shared.data.validate.names import MISSING, distinct
from shared.data.validate.structure import column_of


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
    """AnnData with words as categories, ``uns["units"]`` and ``uns["notes"]``.

    `X` is float32, CSR or ndarray, cells × genes; `obs` is indexed by the names of the cells, `var` has one row a gene,
    and `what` names the files. :class:`DataError` if sizes do not match, a name stands twice or cannot be written in a
    line, or there are no cells or genes.
    """
    genes = pd.Index(np.asarray(genes, dtype=object), dtype=object)
    if X.shape != (len(obs), len(genes)) or 0 in X.shape:
        raise DataError(f"{what}: X is {X.shape}, and {len(obs)} cells, {len(genes)} genes are named: {AGAIN}")
    cells = pd.Index(obs.index.astype(str), dtype=object)
    odd = [n for n in chain(genes, cells) if n == "" or '"' in n or n != n.strip()]
    if odd:
        raise DataError(f"{what} has names with blanks or quotation marks, or none ({shown(map(repr, odd))}): {AGAIN}")
    made = named(X, genes, cells, what, var=var, notes=notes)
    words = obs.select_dtypes(["object", "string"])
    made.obs = obs.set_axis(made.obs_names).assign(**{name: pd.Categorical(obs[name]) for name in words})
    made.uns["units"] = units
    return made


def together(parts):
    """The matrices, genes and tables of cells of parts with the same genes, as one CSR, list and DataFrame.

    A part is a CSR of cells × genes, the names of its genes, a table of its cells, and where it comes from.
    :class:`DataError` if it names other genes than the first part, or the same in another order.
    """
    matrices, genes, obs, names = zip(*parts)
    for own, name in zip(genes, names):
        if list(own) != list(genes[0]):
            raise DataError(f"{name} names other genes than {names[0]}, or in another order: fetch both again")
    return sparse.vstack(matrices, format="csr"), genes[0], pd.concat(obs)


def labels(values):
    """Words, or a table of them, as labels: those that mean "not known" become missing."""
    found = values if isinstance(values, pd.DataFrame) else pd.Series(values, dtype=object)
    return found.astype(object).mask(found.isin(MISSING), None)


def facts(table, columns: dict, cells, matrix: str, path, *, key: str | None = None, all_cells=False, only_cells=False):
    """Columns of a table of labels, one row a cell, in the order of `cells`; missing where not known.

    `columns` are new name to old name, or to several, the first of which that is there is taken, and none may be. `key`
    is the column that names the cells, the index without it. `matrix` names what holds the cells, `path` is the
    table's. :class:`DataError` if a column is missing, a cell has two rows, no row is a cell's, or, with `all_cells`, a
    cell has no row, or, with `only_cells`, a row no cell.
    """
    cells = pd.Index(cells, dtype=object)
    columns = {new: [old] if isinstance(old, str) else [n for n in old if n in table] for new, old in columns.items()}
    picked = {new: column_of(table, names[0], path.name) for new, names in columns.items() if names}
    found = labels(pd.DataFrame(picked, table.index))
    found = found if key is None else found.set_axis(pd.Index(column_of(table, key, path.name), dtype=object))
    twice = found.index[found.index.duplicated()].unique()
    if len(twice):
        raise DataError(f"{path.name} names {many(len(twice), 'cell')} more than once ({shown(twice)}): it is damaged")
    lacking, foreign = cells[~cells.isin(found.index)], found.index[~found.index.isin(cells)]
    if len(lacking) == len(cells):
        raise DataError(f"{path.name} names none of the cells of {matrix} ({shown(cells)}): is it of another set?")
    for wrong, names in (("lacks", lacking if all_cells else ()), ("names, beside the", foreign if only_cells else ())):
        if len(names):
            raise DataError(f"{path.name} {wrong} {many(len(names), 'cell')} of {matrix} ({shown(names)}): fetch both")
    return found.reindex(cells)


def plain(name: str) -> str:
    """A word for a column: lower case, underscores."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def header(line: bytes, corners, path) -> pd.Index:
    """The names of the cells in a header of tabs that begins with one of the words `corners`."""
    corner, *cells = fields(line, "\t") or [""]
    if corner not in corners or not cells:
        raise DataError(f"{path.name} begins with {corner[:40]!r} where {corners[0]!r} and cells are due: {AGAIN}")
    return pd.Index(cells, dtype=object)


def numbers(path, *, ids: int = 1, units: str = "none", dense: bool = False):
    """A whole table of numbers, read in blocks: the names of its rows, the names of its columns, and its values.

    Its header names every field, or, as R writes it, leaves out the one above the names of the rows. The first `ids`
    fields of a row are names (a DataFrame of str); the others are checked for being what `units` says (:func:`sound`),
    and become float32, CSR or, if `dense`, ndarray, rows × columns.
    """
    separator = separator_of(path)
    with opened(path) as stream:
        first, row = fields(stream.readline(), separator), stream.readline()
        heads, columns = parted(first, measure(row, separator), ids, path)
        parts = blocks(chain([row], stream), path, separator, ids, columns, units)
        names, X = joined(parts, np.float32, dense=dense)
    return names.set_axis(heads or [str(i) for i in range(ids)], axis=1), pd.Index(columns, dtype=object), X


def gene_names(ids: pd.DataFrame, path):
    """The ids of the genes, cut at the version where the cut ones differ."""
    short = ids["id"].str.replace(r"^(ENS\w*\d+)\.\d+$", r"\1", regex=True)
    return distinct(short, ids["id"], path.name)
