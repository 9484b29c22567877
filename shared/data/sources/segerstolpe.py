"""Segerstolpe's pancreas (E-MTAB-5061): RPKM and counts of every cell side by side in one table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from shared.data.constraints import OneOf, require
from shared.data.errors import DataError
from shared.data.genes.lists import shown
from shared.data.io.assemble import assembled, distinct, joined, labels, only
from shared.data.io.text import AGAIN, blocks, fields, opened, sound, stacked, words

# Column of obs to heading of the sdrf, without blanks and in lower case.
FACTS = {
    "cell_type": "characteristics[celltype]",
    "donor": "characteristics[individual]",
    "disease": "characteristics[disease]",
    "quality": "characteristics[singlecellwellquality]",
    "sex": "characteristics[sex]",
    "age": "characteristics[age]",
}


def read(paths: list[Path], *, values: str = "counts", keep: str = "all"):
    """Cells × genes with their types, donors and disease.

    Layout of ``pancreas_refseq_rpkms_counts_3514sc.txt`` (tabs): a first line ``#samples`` and the 3,514 cells once;
    then in each row a symbol, RefSeq accessions, 3,514 RPKM and 3,514 counts in the same order. Whoever takes all 7,028
    columns counts every cell twice. The last rows are 92 spike-in controls (ERCC_…) and eGFP. ``E-MTAB-5061.sdrf.txt``
    (tabs) has one row a cell; about 1,300 cells failed the authors' own control and have the type "not applicable".

    Parameters
    ----------
    paths : list of Path
        The table and the sdrf, in this order.
    values : {"counts", "rpkm"}
        Which half to take.
    keep : {"all", "good"}
        With "good", cells whose well the authors call OK and that have a type.

    Returns
    -------
    AnnData
        ``X``: float32 CSR. ``obs``: cell_type, donor, batch (the donor), disease, quality, sex, age, as far as the sdrf
        has them; cell_type and donor are needed. ``var``: accession, spike_in.

    Raises
    ------
    DataError
        If a file is damaged, the rows do not hold each cell twice, or the files do not belong together.
    """
    require(OneOf("counts", "rpkm"), values=values)
    require(OneOf("all", "good"), keep=keep)
    path, sdrf = paths
    units = "counts" if values == "counts" else "none"
    with opened(path) as stream:
        first, *cells = fields(stream.readline(), "\t", path)
        if first != "#samples" or not cells:
            raise DataError(
                f"{path.name} does not begin with #samples: it is another table, or its head was lost; {AGAIN}"
            )
        half = slice(len(cells), None) if values == "counts" else slice(0, len(cells))
        # The other half is looked at too: a row that slipped by one shows there.
        parts = ((n, sound(b, "none", n, path)) for n, b in blocks(stream, path, "\t", 2, 2 + 2 * len(cells)))
        names, X = stacked((n, sound(b[:, half], units, n, path)) for n, b in parts)
    genes = distinct(names[0], np.where(names[1].isin(["", "NA"]), names[0], names[0] + "|" + names[1]), path.name)
    cells = pd.Index(cells, dtype=object)
    obs = _facts(sdrf, cells, path)
    var = pd.DataFrame({"accession": names[1].to_numpy(), "spike_in": names[0].str.match(r"ERCC[-_]").to_numpy()})
    made = assembled(X.T.tocsr(), genes, obs, units, path.name, var=var)
    if keep == "all":
        return made
    good = made.obs["cell_type"].notna() & (made.obs.get("quality", "OK") == "OK")
    return only(made, good, "cell", "left out that failed the authors' control or have no type")


def _facts(path, cells, matrix):
    table = words(path, "\t", whole=False)  # nobody here has seen how it ends
    table.columns = [str(c).replace(" ", "").lower() for c in table.columns]
    keys = [c for c in ("extractname", "sourcename") if (table.columns == c).sum() == 1 and cells.isin(table[c]).any()]
    if not keys:
        raise DataError(
            f"{path.name} names none of the cells of {matrix.name} as Source Name or Extract Name ({shown(cells)}): "
            "it is another file, or damaged"
        )
    there = {new: old for new, old in FACTS.items() if (table.columns == old).sum() == 1}
    lost = {"cell_type", "donor"} - set(there)
    if lost:
        raise DataError(
            f"{path.name} has no one column for {shown(sorted(lost))}; it has {shown(table.columns)}: {AGAIN}"
        )
    # A cell read from both its ends has two rows, which say the same.
    facts = pd.DataFrame({new: table[old] for new, old in there.items()}).set_index(pd.Index(table[keys[0]]))
    facts = facts[~facts.reset_index().duplicated().to_numpy()]
    facts = labels(joined(cells, facts, matrix.name, path.name, need_all=True))
    facts["cell_type"] = facts["cell_type"].str.replace(r" cells?$", "", regex=True)
    facts["batch"] = facts["donor"]
    return facts
