"""Files in, AnnData out: one module a format, and here what they share."""

from __future__ import annotations

import warnings

import pandas as pd

from shared.data.errors import DataError
from shared.data.genes.lists import shown
from shared.data.validate.structure import name_problems

MISSING = frozenset({"", "NA", "N/A", "NaN", "nan", "null", "None", "not applicable", "not available", "--"})


def named(X, genes: pd.Index, cells: pd.Index, what: str, duplicated_genes=False, *, var=None, notes=()):
    """AnnData of a reader's own file: names as written, twice the same only where `duplicated_genes` lets genes be."""
    import anndata as ad

    genes, cells = genes.rename(None), cells.rename(None)
    for finding in name_problems(genes, cells):
        if not (duplicated_genes and finding.check == "genes twice"):
            raise DataError(finding.about(what))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*names are not unique", category=UserWarning)  # as asked for
        made = ad.AnnData(X, obs=pd.DataFrame(index=cells), var=pd.DataFrame(index=genes))
    made.var = made.var if var is None else pd.DataFrame(var).set_axis(genes, axis=0)
    if notes:
        made.uns["notes"] = list(notes)
    return made


def names_of_files(paths) -> str:
    """The files, for messages."""
    return shown([p.name for p in paths])
