"""Blood cells with antibodies that the source archive of scvi-tools holds for its own tests.

The files are of a layout from before AnnData settled on one, so they are read with h5py and do not depend on how long
anndata goes on reading it.
"""

import h5py
import numpy as np
import pandas as pd
from scipy import sparse

from shared.data.io.tables import refused
from shared.data.io.tenx import text_of
from shared.data.sources.common import assembled
from shared.data.validate.values import sound

COUNTED = ("n_genes", "percent_mito", "n_counts")
PANEL = "_TotalSeqB"  # the kind of antibody, at the end of each name


def read(paths):
    """Counts of genes, with the antibodies beside them, of ``pbmc_5k_protein_v3.h5ad`` or ``pbmc_10k_protein_v3.h5ad``.

    ``X``: float32 CSR, counts. ``obs``: ``n_genes``, ``percent_mito`` and ``n_counts``, counted before genes were left
    out. ``obsm["proteins"]``: float32 DataFrame of counts of the antibodies. There are no labels.
    """
    (path,) = paths
    with refused(path, "the file of scvi-tools"), h5py.File(path) as file:
        cells, genes, panel = map(text_of, (file["obs/index"], file["var/index"], file["uns/protein_names"]))
        obs = pd.DataFrame({name: file[f"obs/{name}"][:] for name in COUNTED}, index=cells)
        names = pd.DataFrame({"cell": cells})
        X, proteins = (sound(file[name][:], "counts", names, path) for name in ("X", "obsm/protein_expression"))
        panel = [name.removesuffix(PANEL) for name in panel]
        found = assembled(sparse.csr_matrix(X, dtype=np.float32), genes, obs, "counts", path.name)
        found.obsm["proteins"] = pd.DataFrame(proteins.astype(np.float32), cells, panel)
    return found
