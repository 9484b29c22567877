"""Zheng's blood cells: 68,579 with the types the authors gave them, and ten populations sorted with beads."""

import pandas as pd

from shared.data.errors import DataError
from shared.data.io.tables import words
from shared.data.io.tenx import folder
from shared.data.sources.common import assembled, facts, one_of_each, together


def donor(paths):
    """A folder of 10x Genomics (:func:`shared.data.io.tenx.folder`) with a table of labels, in any order.

    ``68k_pbmc_barcodes_annotation.tsv`` holds TSNE.1, TSNE.2, barcodes, celltype. No cell was sorted: a label is the
    sorted population the cell correlates with best. ``X``: float32 CSR, counts. ``obs``: cell_type; missing for a
    barcode without one.
    """
    (path,) = one_of_each(paths, {"labels": r"annotation"})
    made = folder([p for p in paths if p != path])
    types = facts(words(path), {"cell_type": "celltype"}, made.obs_names, "the matrix", path, key="barcodes")
    made.obs["cell_type"] = pd.Categorical(types["cell_type"])
    return made


def beads(paths, *, populations):
    """Several 10x folders, each of one sorted population, as one data set.

    `paths` are ``matrix.mtx``, ``genes.tsv`` and ``barcodes.tsv`` of each population, in the order of `populations`,
    which says what the cells of each folder are. ``X``: float32 CSR, counts. ``obs``: ``cell_type`` and ``batch``, both
    the population, because each was a library of its own. A barcode may stand in several libraries, so cells are named
    ``population:barcode``.
    """
    if not populations or len(paths) != 3 * len(populations):
        raise DataError(f"{len(paths)} files were given for {len(populations)} populations: give three of each")
    parts = []
    for i, population in enumerate(populations):
        made = folder(paths[3 * i : 3 * i + 3])
        obs = pd.DataFrame({"cell_type": population, "batch": population}, index=population + ":" + made.obs_names)
        parts.append((made.X, made.var_names, obs, f"the folder of {population}"))
    X, genes, obs = together(parts)
    return assembled(X, genes, obs, "counts", f"{len(parts)} folders of 10x Genomics", var=made.var)
