"""Files in, AnnData out: one module a format, and here what they share."""

import warnings

import pandas as pd

from shared.data.genes.lists import shown
from shared.data.validate.findings import refuse
from shared.data.validate.structure import name_problems


def named(X, genes, cells, what: str, *, duplicated_genes=False, obs=None, var=None, notes=(), units=None):
    """AnnData of a file: names as written, twice the same only where `duplicated_genes`, for the door to judge."""
    import anndata as ad

    genes, cells = genes.rename(None), cells.rename(None)
    refuse(name_problems(genes, cells), what, but="genes twice" if duplicated_genes else None)
    obs = pd.DataFrame(index=cells) if obs is None else pd.DataFrame(obs).set_axis(cells, axis=0)
    var = pd.DataFrame(index=genes) if var is None else pd.DataFrame(var).set_axis(genes, axis=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*names are not unique", category=UserWarning)
        made = ad.AnnData(X, obs=obs, var=var)
    made.uns |= {key: value for key, value in (("notes", list(notes)), ("units", units)) if value}
    return made


def names_of_files(paths) -> str:
    """The files, for messages."""
    return shown([p.name for p in paths])
