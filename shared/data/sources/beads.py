"""Blood cells sorted with antibodies on beads, one 10x folder a population."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from shared.data.errors import DataError
from shared.data.io.tenx import folder
from shared.data.sources.common import assembled


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
        library of its own. The same barcode may stand for a cell in several libraries, so cells are named
        ``population:barcode``.

    Raises
    ------
    DataError
        If a file is damaged or missing, or the folders list other genes.
    """
    from scipy import sparse

    populations = list(populations)
    if not populations or len(paths) != 3 * len(populations):
        raise DataError(
            f"{len(paths)} files were given for {len(populations)} populations: give the matrix, the genes and the "
            "barcodes of each, in order"
        )
    parts = [folder(paths[i : i + 3]) for i in range(0, len(paths), 3)]
    for population, part in zip(populations, parts, strict=True):
        if list(part.var_names) != list(parts[0].var_names):
            raise DataError(
                f"the genes of {population} are not those of {populations[0]}: the folders are not of one release"
            )
    obs = parts[0].obs.iloc[:0].reindex([f"{p}:{c}" for p, part in zip(populations, parts) for c in part.obs_names])
    obs["cell_type"] = obs["batch"] = np.repeat(populations, [part.n_obs for part in parts]).astype(object)
    X = sparse.vstack([part.X for part in parts], format="csr")
    return assembled(X, parts[0].var_names, obs, "counts", f"{len(parts)} folders of 10x Genomics", var=parts[0].var)
