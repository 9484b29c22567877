"""GTEx: gene expression of many tissues of many donors, in the .gct format, read in blocks."""

import numpy as np
import pandas as pd

from shared.data.io.gct import head
from shared.data.io.tables import blocks, opened, words
from shared.data.sources.common import assembled, facts, gene_names

COLUMNS = {
    "tissue": "SMTSD",
    "organ": "SMTS",
    "batch": ("SMGEBTCH",),
    "center": ("SMCENTER",),
    "rin": ("SMRIN",),
    "ischemic_minutes": ("SMTSISCH",),
}


def read(paths):
    """Samples × genes, in memory only the matrix and one block of text; of the .gct, gzipped or not, and the
    attributes.

    Layout of ``…_gene_tpm.gct.gz``: see :mod:`shared.data.io.gct`; a row's ``Name`` is an Ensembl id with a version and
    its ``Description`` the symbol. ``…_SampleAttributesDS.txt``: one row a sample (SAMPID, SMTS organ, SMTSD tissue,
    SMGEBTCH batch, ...), of more samples than have RNA. Values are TPM. Version 8 is 17,382 × 56,200, 3.9 GB as
    float32. A donor gave many tissues: split by ``obs["donor"]``.

    ``X``: float32 ndarray. ``obs``: tissue, organ, donor, and batch, center, rin, ischemic_minutes as far as the
    attributes have them. ``var``: id (as it stands), symbol. Genes are named by their ids, cut at the version, but for
    pieces that X and Y share (ids ending in ``_PAR_Y``).
    """
    path, attributes = paths
    found, at = [], 0
    with opened(path) as stream:
        due, samples = head(stream, path)
        said = words(attributes, "\t", quoted=False)
        obs = facts(said, COLUMNS, samples, path.name, attributes, key="SAMPID", all_cells=True)
        X = np.empty((len(samples), due), np.float32)
        for ids, block in blocks(stream, path, "\t", 2, samples, "tpm", due=due):
            found.append(ids)
            X[:, at : at + len(block)] = block.T
            at += len(block)
    for name in {"rin", "ischemic_minutes"} & set(obs):
        obs[name] = pd.to_numeric(obs[name], errors="coerce")
    obs.insert(2, "donor", samples.str.extract(r"^([^-]+-[^-]+)", expand=False).to_numpy())
    ids = pd.concat(found, ignore_index=True).set_axis(["id", "symbol"], axis=1)
    return assembled(X, gene_names(ids, path), obs, "tpm", path.name, var=ids)
