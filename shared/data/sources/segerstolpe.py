"""Segerstolpe's pancreas (E-MTAB-5061): RPKM and counts of every cell side by side in one table."""

import numpy as np
import pandas as pd

from shared.data.io.tables import blocks, joined, opened, words
from shared.data.sources.common import assembled, facts, header
from shared.data.validate.names import distinct
from shared.data.validate.values import sound

# Column of obs to heading of the sdrf, without blanks and in lower case.
COLUMNS = {
    "cell_type": "characteristics[celltype]",
    "donor": "characteristics[individual]",
    "disease": ("characteristics[disease]",),
    "quality": ("characteristics[singlecellwellquality]",),
    "sex": ("characteristics[sex]",),
    "age": ("characteristics[age]",),
}


def read(paths):
    """Cells × genes with their types, donors and disease, of the table and the sdrf, in this order.

    Layout of ``pancreas_refseq_rpkms_counts_3514sc.txt`` (tabs): a first line ``#samples`` and the 3,514 cells once;
    then in each row a symbol, RefSeq accessions, 3,514 RPKM and 3,514 counts in the same order. Whoever takes all 7,028
    columns counts every cell twice. The last rows are 92 spike-in controls (ERCC_…) and eGFP. ``E-MTAB-5061.sdrf.txt``
    (tabs) has one row a cell; about 1,300 cells failed the authors' own control and have the type "not applicable".

    ``X``: float32 CSR, counts. ``obs``: cell_type, donor, batch (the donor), disease, quality, sex, age, as far as the
    sdrf has them; cell_type and donor are needed. ``var``: accession, spike_in.
    """
    path, sdrf = paths
    with opened(path) as stream:
        cells = header(stream.readline(), ["#samples"], path)
        # The RPKM are looked at too: a row that slipped by one shows there.
        parts = blocks(stream, path, "\t", 2, [*cells, *cells], "none")
        parts = ((n, sound(b[:, len(cells) :], "counts", n, path)) for n, b in parts)
        names, X = joined(parts, np.float32, dense=False)
    genes = distinct(names[0], np.where(names[1].isin(["", "NA"]), names[0], names[0] + "|" + names[1]), path.name)
    obs = _facts(sdrf, cells, path)
    var = pd.DataFrame({"accession": names[1].to_numpy(), "spike_in": names[0].str.match(r"ERCC[-_]").to_numpy()})
    return assembled(X.T.tocsr(), genes, obs, "counts", path.name, var=var)


def _facts(path, cells, matrix):
    table = words(path, "\t", whole=False)  # nobody here has seen how it ends
    table.columns = [str(c).replace(" ", "").lower() for c in table.columns]
    table = table.loc[:, ~table.columns.duplicated(keep=False)]  # Protocol REF and the like
    key = "extractname" if "extractname" in table and cells.isin(table["extractname"]).any() else "sourcename"
    # A cell read from both its ends has two rows, which say the same.
    table = table[table.columns.intersection([key, *np.hstack([*COLUMNS.values()])], sort=False)].drop_duplicates()
    obs = facts(table, COLUMNS, cells, matrix.name, path, key=key, all_cells=True)
    obs["cell_type"] = obs["cell_type"].str.replace(r" cells?$", "", regex=True)
    return obs.assign(batch=obs["donor"])
