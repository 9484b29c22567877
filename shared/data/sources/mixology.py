"""Mixtures of cancer cell lines with known truth (sc_mixology): counts and metadata of several platforms."""

import re

import pandas as pd

from shared.data.errors import DataError
from shared.data.genes.lists import once, shown
from shared.data.io import names_of_files
from shared.data.io.tables import words
from shared.data.sources.common import assembled, facts, numbers, one_of_each, together

KINDS = {"counts": r"\.count\.csv", "metadata": r"\.metadata\.csv"}
COLUMNS = {"cell_type": "cell_line_demuxlet", "demuxlet_cls": "demuxlet_cls"}


def read(paths):
    """Cells × the genes that all batches report, in the order of their names; of pairs of files, in any order.

    Layout: for each batch ``<batch>.count.csv.gz``, commas as R writes it (a header of the cells only, then one row a
    gene: its Ensembl id and whole numbers), and ``<batch>.metadata.csv.gz`` with one row a cell in the same way: among
    others ``cell_line_demuxlet``, the line by genotype, and ``demuxlet_cls``: SNG for one cell, DBL for two that were
    measured as one. A doublet carries the label of one of its two lines, so it is no truth.

    ``X``: float32 CSR, UMI counts. ``obs``: cell_type, batch, demuxlet_cls. Cells are named ``batch_cell``.
    """
    pairs: dict = {}
    for path in paths:
        pairs.setdefault(re.split("|".join(KINDS.values()), path.name)[0], []).append(path)
    found = []
    for batch, files in pairs.items():
        counts, metadata = one_of_each(files, KINDS)
        ids, cells, X = numbers(counts, units="counts")
        genes = pd.Index(ids.iloc[:, 0], dtype=object)
        once(genes, counts.name)
        obs = facts(words(metadata), COLUMNS, cells, counts.name, metadata, key="name", all_cells=True, only_cells=True)
        obs.insert(1, "batch", batch)
        found.append((X, genes, obs.set_axis(batch + "_" + cells), counts.name))
    shared = sorted(set.intersection(*(set(genes) for _, genes, _, _ in found)))
    if not shared:
        raise DataError(f"{names_of_files(paths)} have no gene in common: the files do not belong together")
    left = sorted({len(genes) - len(shared) for _, genes, _, _ in found} - {0})
    notes = [f"genes that not every batch reports left out ({shown(left)} of a batch)"] if left else []
    parts = ((X[genes.get_indexer(shared)].T.tocsr(), shared, obs, name) for X, genes, obs, name in found)
    X, genes, obs = together(parts)
    return assembled(X, genes, obs, "counts", names_of_files(paths), notes=notes)
