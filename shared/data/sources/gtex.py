"""GTEx: gene expression of many tissues of many donors, in the .gct format, read in blocks."""

import numpy as np
import pandas as pd

from shared.data.io.gct import head
from shared.data.io.tables import blocks, opened, sound, words
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
    """Samples × genes, in memory only the matrix and one block of text.

    Layout of ``…_gene_tpm.gct.gz``: see :mod:`shared.data.io.gct`; a row's ``Name`` is an Ensembl id with a version and
    its ``Description`` the symbol. ``…_SampleAttributesDS.txt``: one row a sample (SAMPID, SMTS organ, SMTSD tissue,
    SMGEBTCH batch, ...), of more samples than have RNA. Values are TPM.

    The whole of version 8 is 17,382 × 56,200, 3.9 GB as float32. A donor gave many tissues: split by ``obs["donor"]``.
    Genes of the X and the Y chromosome that are the same piece (ids ending in ``_PAR_Y``) keep their full name.

    :class:`DataError` is raised if a file is damaged, the table is not as large as its second line says, or a sample
    has no attributes.

    Parameters
    ----------
    paths : list of Path
        The .gct, gzipped or not, and the sample attributes.

    Returns
    -------
    AnnData
        ``X``: float32 ndarray. ``obs``: tissue, organ, donor, and batch, center, rin, ischemic_minutes as far as the
        attributes have them. ``var``: id (as it stands), symbol. Genes are named by their ids, cut at the version.
    """
    path, attributes = paths
    found, at = [], 0
    with opened(path) as stream:
        due, samples = head(stream, path)
        said = words(attributes, "\t", quoted=False)
        obs = facts(said, COLUMNS, samples, path.name, attributes, key="SAMPID", all_cells=True)
        X = np.empty((len(samples), due), np.float32)
        for ids, block in blocks(stream, path, "\t", 2, samples, due=due):
            found.append(ids)
            X[:, at : at + len(block)] = sound(block, "tpm", ids, path).T
            at += len(block)
    for name in {"rin", "ischemic_minutes"} & set(obs):
        obs[name] = pd.to_numeric(obs[name], errors="coerce")
    obs.insert(2, "donor", samples.str.extract(r"^([^-]+-[^-]+)", expand=False).to_numpy())
    ids = pd.concat(found, ignore_index=True).set_axis(["id", "symbol"], axis=1)
    return assembled(X, gene_names(ids, path), obs, "tpm", path.name, var=ids)
