"""Mixtures of cancer cell lines with known truth (sc_mixology): counts and metadata of several platforms."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from shared.data.constraints import OneOf, require
from shared.data.errors import DataError
from shared.data.genes.lists import many, shown
from shared.data.io.assemble import assembled, joined, labels, names_of_files, only
from shared.data.io.text import column, numbers, words

COUNT, META = ".count.csv", ".metadata.csv"


def read(paths: list[Path], *, doublets: str = "keep"):
    """Cells × the genes that all batches report.

    Layout: for each batch ``<batch>.count.csv.gz``, comma-separated as R writes it (a header of the cells only, then
    one row a gene: its Ensembl id and whole numbers), and ``<batch>.metadata.csv.gz`` with one row a cell in the same
    way: among others ``cell_line_demuxlet``, the line by genotype, and ``demuxlet_cls``: SNG for one cell, DBL for two
    that were measured as one. A doublet carries the label of one of its two lines, so it is no truth.

    Parameters
    ----------
    paths : list of Path
        The pairs, in any order.
    doublets : {"keep", "drop"}
        Drop cells that are not SNG. Kept, they are told by ``demuxlet_cls``.

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

    require(OneOf("keep", "drop"), doublets=doublets)
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
        found = numbers(files[COUNT], ",", corner=False, units="counts")
        genes = pd.Index(found.ids.iloc[:, 0], dtype=object)
        if genes.has_duplicates:
            twice = genes[genes.duplicated()].unique()
            raise DataError(
                f"{files[COUNT].name} has {many(len(twice), 'gene')} more than once ({shown(twice)}): damaged"
            )
        shared = genes if shared is None else shared.intersection(genes)
        parts.append((found.X, genes))
        obs.append(_cells(batch, found.columns, files))
    if not len(shared):
        raise DataError(f"{names_of_files(paths)} have no gene in common: the files do not belong together")
    shared = shared.sort_values()
    X = sparse.vstack([X[genes.get_indexer(shared)].T.tocsr() for X, genes in parts], format="csr")
    left = sorted({len(g) - len(shared) for _, g in parts} - {0})
    notes = [f"genes that not every batch reports left out ({shown(left)} of a batch)"] if left else []
    made = assembled(X, shared, pd.concat(obs), "counts", names_of_files(paths), notes=notes)
    return made if doublets == "keep" else only(made, made.obs["demuxlet_cls"] == "SNG", "doublet", "left out")


def _cells(batch, cells, files):
    path = files[META]
    table = words(path, ",", corner=False)
    picked = {"cell_type": "cell_line_demuxlet", "demuxlet_cls": "demuxlet_cls"}
    found = labels(pd.DataFrame({new: column(table, old, path) for new, old in picked.items()}))
    found = joined(cells, found.set_axis(pd.Index(table["name"])), files[COUNT].name, path.name, need_all=True)
    found.insert(1, "batch", batch)
    if len(table) != len(cells):
        raise DataError(
            f"{path.name} has {len(table):,} rows for {len(cells):,} cells: the files are not of one release"
        )
    return found.set_axis(batch + "_" + cells)
