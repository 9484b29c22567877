"""Blood cells sorted with antibodies on beads, one 10x folder a population."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from shared.data.errors import DataError
from shared.data.io.tenx import folder
from shared.data.sources.common import assembled, together


def read(paths: list[Path], *, populations):
    """Several 10x folders, each of one sorted population, as one data set.

    Parameters
    ----------
    paths : list of Path
        ``matrix.mtx``, ``genes.tsv`` and ``barcodes.tsv`` of each population, in the order of `populations`.
    populations : sequence of str
        What the cells of each folder are.

    Returns
    -------
    AnnData
        ``X``: float32 CSR, counts. ``obs``: ``cell_type`` and ``batch``, both the population, because each was a
        library of its own. A barcode may stand in several libraries, so cells are named ``population:barcode``.

    Raises
    ------
    DataError
        If a file is damaged or missing, or the folders list other genes.
    """
    if not populations or len(paths) != 3 * len(populations):
        raise DataError(
            f"{len(paths)} files were given for {len(populations)} populations: give the matrix, the genes and the "
            "barcodes of each, in order"
        )
    parts = []
    for i, population in enumerate(populations):
        made = folder(paths[3 * i : 3 * i + 3])
        obs = pd.DataFrame({"cell_type": population, "batch": population}, index=population + ":" + made.obs_names)
        parts.append((made.X, made.var_names, obs, f"the folder of {population}"))
    X, genes, obs = together(parts)
    return assembled(X, genes, obs, "counts", f"{len(parts)} folders of 10x Genomics", var=made.var)
