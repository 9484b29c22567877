"""Pairs of gene names: the one kind of table in the catalogue that holds no expression."""

import pandas as pd

from shared.data.errors import DataError
from shared.data.io.tables import refused


def read(paths):
    """Gene names of two species side by side.

    :class:`DataError` is raised if the file is damaged, or a name stands twice.

    Parameters
    ----------
    paths : list of Path
        One tab-separated table with a header, gzipped or not: ``data/genes/orthologs.tsv.gz``.

    Returns
    -------
    DataFrame
        human, mouse: symbols; neither is named twice. :func:`shared.data.genes.lists.gene_table` returns the same.
    """
    (path,) = paths
    with refused(path):
        table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    if list(table.columns) != ["human", "mouse"] or table.empty:
        raise DataError(f"{path.name} has columns {', '.join(table.columns)}; human and mouse are needed")
    for column in table:
        if table[column].duplicated().any() or (table[column] == "").any():
            raise DataError(f"{path.name} names a {column} gene twice, or leaves one empty: restore it")
    return table
