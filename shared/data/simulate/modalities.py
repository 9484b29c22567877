"""RNA of some cells and gene activity of others, on one list of genes, with the types of both."""

import anndata as ad
import numpy as np
from scipy import sparse
from scipy.special import expit, logit

from shared.data.constraints import NotNegative, Probability, Share, Whole, require
from shared.data.errors import DataError
from shared.data.simulate.model import as_adata, gene_names

# Cells of each type in the RNA half of the blood set of Lin and others (2022).
BLOOD = {
    "CD14 Monocytes": 3113, "Naive CD4 T": 1395, "Naive CD8 T": 1260, "Memory CD4 T": 1231, "B cells": 934,
    "Memory CD8 T": 802, "NK cells": 431, "CD16 Monocytes": 396, "Dendritic cells": 153, "Plasma cells": 107,
    "Platelets": 19,
}  # fmt: skip
DENSITY = {"rna": 0.14, "atac": 0.23}  # share of genes that a cell expresses


def modalities(
    n_rna: int = 1500, n_atac: int = 1000, n_genes: int = 2000, *, proportions: dict | None = None,
    swapped: float = 0.15, noise: float = 0.5, depth: float = 0.0, missing=(), seed: int = 0,
) -> ad.AnnData:  # fmt: skip
    """Cells of one tissue in two modalities: whether each gene is expressed, by the programme of the cell's type.

    Gene g of a cell of type t is on with log odds ``base[g] + programme[t, g] + cell``, a Bernoulli draw. In ATAC
    `base` is another, of a denser modality, the programme is weaker, and some genes have the programme of another gene.

    Parameters
    ----------
    n_rna, n_atac, n_genes : int
        Cells of each modality, and genes.
    proportions : dict of str to float, optional
        Types and their shares, in any unit; :data:`BLOOD` without it, eleven types of which the rarest is 2 in 1,000.
    swapped : float
        Share, 0 to 1, of genes that in ATAC follow the programme of another gene.
    noise : float
        Share, 0 up to but not 1, of each programme's strength that ATAC lacks.
    depth : float
        Mean shift of the log odds of all genes in ATAC, for cells that were sequenced deeper (above 0) or less deep.
    missing : sequence of str
        Types that RNA lacks and ATAC has.
    seed : int
        Of everything.

    Returns
    -------
    AnnData
        RNA cells first. ``X``: float32 CSR of 0 and 1. ``obs``: ``cell_type``, ``modality`` and ``domain`` (1 for RNA,
        -1 for ATAC). ``uns["truth"]``: ``programmes`` (modality × types × genes), ``swapped`` (genes) and ``types``.

    Raises
    ------
    SettingError, DataError
        If an option cannot be used so, or fewer than two types are left in RNA.
    """
    require(Whole(1), n_rna=n_rna, n_atac=n_atac, n_genes=n_genes)
    require(Probability(), swapped=swapped)
    require(Share(), noise=noise)
    require(Whole(), seed=seed)
    table = BLOOD if proportions is None else dict(proportions)
    require(NotNegative(), **{f"proportions of {name}": share for name, share in table.items()})
    names, shares = np.array(list(table)), np.array(list(table.values()), float)
    kept = ~np.isin(names, missing)
    if not np.isfinite(depth) or not set(missing) <= set(names.tolist()) or (shares[kept] > 0).sum() < 2:
        raise DataError(
            f"missing={missing!r}, depth={depth!r}: name types of proportions, keep two, and shift by a number"
        )
    rng = np.random.default_rng(seed)
    base = {
        kind: logit(rng.beta(0.8, 0.8 * (1 - mean) / mean, n_genes).clip(0.01, 0.99)) for kind, mean in DENSITY.items()
    }
    programme = rng.normal(0, 2, (len(names), n_genes)) * (rng.random((len(names), n_genes)) < 0.05)
    other = np.arange(n_genes)
    moved = rng.choice(n_genes, round(swapped * n_genes), replace=False)
    other[moved] = np.roll(moved, 1)
    programmes = {"rna": programme, "atac": (1 - noise) * programme[:, other]}
    kinds, parts = [], []
    for kind, n, share, shift in (("rna", n_rna, shares * kept, 0.0), ("atac", n_atac, shares, depth)):
        own = rng.choice(len(names), n, p=share / share.sum())
        odds = base[kind] + shift
        cell = rng.normal(0, 0.3, n)
        blocks = (slice(start, start + 1024) for start in range(0, n, 1024))
        parts += [_drawn(rng, odds + programmes[kind][own[s]] + cell[s, None]) for s in blocks]
        kinds.append(own)
    modality = np.repeat(["rna", "atac"], [n_rna, n_atac])
    obs = {
        "cell_type": names[np.concatenate(kinds)],
        "modality": modality,
        "domain": np.where(modality == "rna", 1, -1),
    }
    truth = {"programmes": np.stack(list(programmes.values())), "swapped": other != np.arange(n_genes), "types": names}
    return as_adata(sparse.vstack(parts, format="csr"), obs, truth, gene_names(n_genes), "log")


def _drawn(rng, log_odds):
    return sparse.csr_matrix((rng.random(log_odds.shape) < expit(log_odds)).astype(np.float32))
