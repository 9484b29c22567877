"""UCSC Xena: genes × samples of TCGA, TARGET and GTEx, with the table of phenotypes."""

import numpy as np
import pandas as pd

from shared.data.constraints import OneOf, require
from shared.data.errors import DataError
from shared.data.genes.lists import many, shown
from shared.data.io.tables import blocks, opened, words
from shared.data.sources.common import assembled, facts, gene_names, header
from shared.data.validate.names import MISSING
from shared.data.validate.values import sound

ABSENT = tuple(MISSING - {""})
# Columns of obs, and what the hubs call them.
PHENOTYPES = {
    "study": ("_study",),
    "sample_type": ("_sample_type", "sample_type"),
    "tissue": ("_primary_site",),
    "disease": ("primary disease or tissue",),
    "detail": ("detailed_category",),
    "sex": ("_gender",),
    "cancer": ("_primary_disease", "cancer type abbreviation"),
}
# TCGA-OR-A5J1-01 and TARGET-20-PANSBH-03A name the donor in three parts, GTEX-1117F-0226-SM-5GZZ7 in two.
DONOR = r"^((?:TCGA|TARGET)-[^-]+-[^-]+|GTEX-[^-]+)"


def read(paths, *, base=None, offset=0.0, units="log", missing="refuse", twice="refuse"):
    """Samples × genes, in memory only the matrix and one block of text.

    Layout: tabs; a header ``sample`` and the samples; one row a gene. Toil (``TcgaTargetGtex_rsem_gene_tpm.gz``):
    Ensembl ids with versions, log2(TPM + 0.001) to four decimals, so that -9.9658 is zero: ``base=2, offset=0.001,
    units="tpm"`` gives TPM. PanCan (``EB++AdjustPANCAN…geneExp.xena.gz``): symbols, log2(normalised count + 1),
    adjusted for batch; some genes have no value in some samples (NA), so ``missing="drop"``. Phenotypes: one row a
    sample, of more samples than were measured; Toil's is in Latin-1.

    `paths` are the matrix and the phenotypes. `base` and `offset` undo log_base(x + offset): a value at the floor, the
    logarithm of the offset as the file rounds it, becomes exactly zero; others keep the precision of four decimals,
    3.5e-5 of TPM + offset. `units` are those in the end. `missing` and `twice`, "refuse" or "drop", say what becomes of
    a gene without a value in some sample, and of all genes of a name that stands more than once.

    ``X``: float32 ndarray. ``obs``: study, sample_type, tissue, disease, detail, sex, cancer as far as the phenotypes
    have them, missing for samples without one; donor, from the sample's name; batch (the study) where it is known.
    ``var``: id; genes are named by it, cut at the version where it has one.
    """
    path, phenotypes = paths
    require(OneOf("refuse", "drop"), missing=missing, twice=twice)
    found, parts, lacking = [], [], []
    with opened(path) as stream:
        cells = header(stream.readline(), ["sample", "Ensembl_ID", "gene"], path)
        obs = facts(words(phenotypes, quoted=False), PHENOTYPES, cells, path.name, phenotypes, key="sample")
        for ids, block in blocks(stream, path, "\t", 1, cells, absent=ABSENT):
            gone = np.isnan(block).any(axis=1)
            if gone.any() and missing == "refuse":
                names = shown(ids.iloc[gone, 0])
                raise DataError(f"{path.name} has no value in some sample for {names}: missing='drop' leaves them out")
            lacking += list(ids.iloc[gone, 0])
            ids, block = ids[~gone], block[~gone]
            if base is not None:
                block = undone(sound(block, "log", ids, path), base, offset, path.name)
            found.append(ids)
            parts.append(sound(block, units, ids, path).astype(np.float32))
    ids = pd.concat(found, ignore_index=True).set_axis(["id"], axis=1)
    X, notes = np.empty((len(cells), len(ids)), np.float32), []
    while parts:  # each block is let go as soon as it is copied
        part, at = parts.pop(), sum(map(len, parts))
        X[:, at : at + len(part)] = part.T
    if lacking:
        notes.append(f"{many(len(lacking), 'gene')} without a value in some sample left out ({shown(lacking)})")
    again = ids["id"].duplicated(keep=False).to_numpy()
    if again.any() and twice == "drop":
        names = shown(ids["id"][again].unique())
        notes.append(f"{many(int(again.sum()), 'row')} left out whose name stands twice ({names})")
        ids, X = ids[~again].reset_index(drop=True), X[:, ~again]
    obs["donor"] = cells.str.extract(DONOR, expand=False).to_numpy()
    if "study" in obs:
        obs["batch"] = obs["study"]
    obs = obs.dropna(axis=1, how="all")
    return assembled(X, gene_names(ids, path), obs, units, path.name, var=ids, notes=notes)


def undone(values, base: float, offset: float, what: str = "the matrix"):
    """x of log_base(x + offset): exactly zero where a value is the floor as four decimals round it."""
    with np.errstate(over="ignore"):  # refused as not finite
        x = np.power(float(base), values) - offset
    floor = np.log(offset) / np.log(base) if offset > 0 else -np.inf
    if (values < floor - 0.01).any():
        low = values.min()
        raise DataError(f"{what} holds {low:g}, which is no log{base:g}(x + {offset:g}): correct base and offset")
    x[values <= floor + 0.5e-4] = 0.0
    return np.maximum(x, 0.0)
