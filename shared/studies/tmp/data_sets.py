"""Studies on the genes that they share, and classes held out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import sparse

from shared.data.errors import DataError
from shared.nn.episodes import unit_range
from shared.preprocess import log_normalize


def on_same_genes(source, studies: Mapping, n_genes: int = 600):
    """Source and studies on the genes they share, the most varied of the source first, each profile scaled to [0, 1].

    Parameters
    ----------
    source : (AnnData, str)
        Log expression or z-scores, and the column of ``obs`` with the labels.
    studies : dict of name to (AnnData, str)
        Those to fine-tune and to evaluate on. Values may have another unit: each profile is scaled by its own range.
    n_genes : int
        At most so many.

    Returns
    -------
    genes : list of str
    source : (X, y)
    studies : dict of name to (X, y)

    Raises
    ------
    shared.data.errors.DataError
        If fewer than two genes are shared.
    """
    everywhere = [set(adata.var_names) for adata, _ in studies.values()]
    common = [g for g in source[0].var_names if all(g in names for names in everywhere)]
    if len(common) < 2:
        raise DataError(f"{len(common)} genes are in all studies: are they named by symbols everywhere?")
    X = source[0][:, common].X
    spread = np.asarray(X.todense() if sparse.issparse(X) else X).std(0)
    genes = [common[i] for i in np.argsort(-spread, kind="stable")[:n_genes]]

    def read(adata, column):
        X = unit_range(adata[:, genes].X)
        return (X.toarray() if sparse.issparse(X) else X), adata.obs[column].to_numpy(str)

    return genes, read(*source), {name: read(*study) for name, study in studies.items()}


def hold_out_classes(y, n: int, seed: int = 0) -> np.ndarray:
    """Rows of `n` classes drawn at random, as a mask: what a pre-training never sees."""
    return np.isin(y, np.random.default_rng(seed).permutation(np.unique(y))[:n])


def published(load) -> tuple:
    """The paper's studies, by the catalogue's official routes: GTEx, five studies of pancreas, and TCGA's tumours.

    Parameters
    ----------
    load : callable
        ``load(name, route="official")`` gives an AnnData.

    Returns
    -------
    source, label, studies
        GTEx and its column of tissues, and (AnnData, column) by name of study, as :func:`on_same_genes` takes them.
    """
    gtex, joined, wang, tcga = (load(name, route="official") for name in ("gtex-v8", "pancreas", "wang", "tcga"))
    for adata in (gtex, joined, wang):
        adata.X = log_normalize(adata.X)
    gtex = gtex[:, ~gtex.var["symbol"].duplicated(keep=False)].copy()
    gtex.var_names = gtex.var["symbol"].astype(str)
    techs = {"Baron": "inDrop", "Muraro": "celseq2", "Segerstolpe": "smartseq2", "Xin": "smarter"}
    cells = {k: joined[joined.obs["batch"].astype(str).str.startswith(tech)] for k, tech in techs.items()}
    if "sample_type" in tcga.obs:
        tcga = tcga[tcga.obs["sample_type"].astype(str).str.contains("Tumor|Blood")]
    studies = {k: (v, "cell_type") for k, v in (cells | {"Wang": wang}).items()}
    return gtex, "tissue", studies | {"TCGA": (tcga, "cancer")}
