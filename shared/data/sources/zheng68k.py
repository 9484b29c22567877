"""Zheng's 68,579 blood cells: a folder of 10x Genomics, and the types the authors gave them."""

from __future__ import annotations

import pandas as pd

from shared.data.errors import DataError
from shared.data.io import names_of_files
from shared.data.io.tables import words
from shared.data.io.tenx import folder, kind_of
from shared.data.sources.common import facts


def read(paths):
    """A folder of 10x Genomics with a table of labels.

    Layout: see :func:`shared.data.io.tenx.folder`, and ``68k_pbmc_barcodes_annotation.tsv`` (TSNE.1, TSNE.2, barcodes,
    celltype). No cell was sorted: a label is the sorted population the cell correlates with best.

    Parameters
    ----------
    paths : list of Path
        The three files of the folder and the table, in any order.

    Returns
    -------
    AnnData
        ``X``: float32 CSR, counts. ``obs``: cell_type; missing for a barcode without one.

    Raises
    ------
    DataError
        If a file is damaged or missing, or no label fits.
    """
    others = [p for p in paths if kind_of(p) is None]
    if len(others) != 1:
        raise DataError(f"{names_of_files(paths)}: one table of labels is needed beside the three files of 10x")
    (path,) = others
    made = folder([p for p in paths if p != path])
    types = facts(words(path), {"cell_type": "celltype"}, made.obs_names, "the matrix", path, key="barcodes")
    made.obs["cell_type"] = pd.Categorical(types["cell_type"])
    return made
