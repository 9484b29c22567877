"""Mixtures of cancer cell lines with known truth (sc_mixology): counts and metadata of several platforms."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from shared.data.errors import DataError
from shared.data.genes.lists import many, shown
from shared.data.io import names_of_files
from shared.data.io.tables import words
from shared.data.sources.common import assembled, column, joined, labels, numbers

COUNT, META = ".count.csv", ".metadata.csv"


def read(paths: list[Path]):
    """Cells × the genes that all batches report.

    Layout: for each batch ``<batch>.count.csv.gz``, comma-separated as R writes it (a header of the cells only, then
    one row a gene: its Ensembl id and whole numbers), and ``<batch>.metadata.csv.gz`` with one row a cell in the same
    way: among others ``cell_line_demuxlet``, the line by genotype, and ``demuxlet_cls``: SNG for one cell, DBL for two
    that were measured as one. A doublet carries the label of one of its two lines, so it is no truth.

    Parameters
    ----------
    paths : list of Path
        The pairs, in any order.

    Returns
    -------
    AnnData
        ``X``: float32 CSR, UMI counts; genes in the order of their names. ``obs``: cell_type, batch, demuxlet_cls.
        Cells are named ``batch_cell``.

    Raises
    ------
    DataError
        If a file is damaged or its pair is missing, cells of counts and metadata differ, or no gene is in all batches.
    """
    from scipy import sparse

    pairs: dict = {}
    for path in paths:
        kind = next((k for k in (COUNT, META) if k in path.name), None)
        if kind is None:
            raise DataError(f"{path.name} is neither <batch>.count.csv.gz nor <batch>.metadata.csv.gz")
        pairs.setdefault(path.name.split(kind)[0], {})[kind] = path
    lonely = [b for b, files in pairs.items() if len(files) < 2]
    if lonely or not pairs:
        raise DataError(
            f"{shown(lonely) or 'nothing'} came without its pair: each batch has a count and a metadata file"
        )
    parts, obs, shared = [], [], None
    for batch, files in pairs.items():
        ids, cells, X = numbers(files[COUNT], units="counts")
        genes = pd.Index(ids.iloc[:, 0], dtype=object)
        if genes.has_duplicates:
            twice = genes[genes.duplicated()].unique()
            raise DataError(
                f"{files[COUNT].name} has {many(len(twice), 'gene')} more than once ({shown(twice)}): damaged"
            )
        shared = genes if shared is None else shared.intersection(genes)
        parts.append((X, genes))
        obs.append(_cells(batch, cells, files))
    if not len(shared):
        raise DataError(f"{names_of_files(paths)} have no gene in common: the files do not belong together")
    shared = shared.sort_values()
    X = sparse.vstack([X[genes.get_indexer(shared)].T.tocsr() for X, genes in parts], format="csr")
    left = sorted({len(g) - len(shared) for _, g in parts} - {0})
    notes = [f"genes that not every batch reports left out ({shown(left)} of a batch)"] if left else []
    return assembled(X, shared, pd.concat(obs), "counts", names_of_files(paths), notes=notes)


def _cells(batch, cells, files):
    path = files[META]
    table = words(path)
    picked = {"cell_type": "cell_line_demuxlet", "demuxlet_cls": "demuxlet_cls"}
    found = labels(pd.DataFrame({new: column(table, old, path) for new, old in picked.items()}))
    found = joined(
        cells, found.set_axis(pd.Index(column(table, "name", path))), files[COUNT].name, path.name, need_all=True
    )
    found.insert(1, "batch", batch)
    if len(table) != len(cells):
        raise DataError(
            f"{path.name} has {len(table):,} rows for {len(cells):,} cells: the files are not of one release"
        )
    return found.set_axis(batch + "_" + cells)
