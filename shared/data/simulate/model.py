"""The model that every simulation draws from: its options, what it draws, and the AnnData that says what was drawn."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd

from shared.data.errors import DataError

NAMES = ("Alpha", "Beta", "Gamma", "Delta", "Epsilon", "Zeta", "Eta", "Theta", "Iota", "Kappa", "Lambda", "Mu")


def type_names(labels) -> list[str]:
    """Names of the types, of a number of them or of a list of names."""
    if isinstance(labels, (int, np.integer)) and not isinstance(labels, bool):
        if labels < 1:
            raise DataError(f"labels={labels}: at least one type is needed")
        return [NAMES[i] if i < len(NAMES) else f"Type {i + 1}" for i in range(labels)]
    names = [str(n) for n in labels]
    if not names or len(set(names)) < len(names):
        raise DataError(f"labels={labels!r}: give different names, at least one")
    return names


def draw_programmes(rng, n_genes, n_types, effect):
    """How much each gene is expressed at all, and the programmes of the types: a tenth of the genes each, and a fifth
    that two or more types share. Log rates."""
    base = 1.8 * rng.normal(size=n_genes)
    own = (rng.random((n_types, n_genes)) < 0.1) * rng.normal(size=(n_types, n_genes))
    n_shared = max(1, n_types // 2)
    shared = (rng.random((n_shared, n_genes)) < 0.2) * rng.normal(size=(n_shared, n_genes))
    loading = rng.random((n_types, n_shared))
    return {"base": base, "types": effect * (own + loading @ shared)}


def given_programmes(programmes, n_genes, names):
    """The programmes of another simulation; refused where they are of other types or genes."""
    base, types = np.asarray(programmes["base"], float), np.asarray(programmes["types"], float)
    if base.shape != (n_genes,) or types.shape != (len(names), n_genes):
        raise DataError(
            f"programmes are for {types.shape[0]} types × {types.shape[1]} genes, asked are {len(names)} × {n_genes}"
        )
    return {"base": base, "types": types}


def draw_shares(rng, n_batches, n_types, composition, proportions):
    """Share of each type in each batch."""
    common = np.ones(n_types) if proportions is None else np.asarray(proportions, float)
    if common.shape != (n_types,) or not (common >= 0).all() or not common.sum() > 0:
        raise DataError(f"proportions={proportions!r}: one share for each of {n_types} types, none negative")
    common = common / common.sum()
    own = rng.dirichlet(np.ones(n_types), n_batches)
    return (1 - composition) * common + composition * own


def draw_types(rng, batch, shares, confounding):
    """The type of each cell: from its batch's shares, or, with probability `confounding`, one of its batch's own."""
    n_batches, n_types = shares.shape
    kind = np.array([rng.choice(n_types, p=shares[b]) for b in batch], dtype=int)
    if confounding:
        mine = [np.flatnonzero(np.arange(n_types) % n_batches == b % n_types) for b in range(n_batches)]
        mine = [m if len(m) else np.array([b % n_types]) for b, m in enumerate(mine)]
        tied = rng.random(len(batch)) < confounding
        kind = np.where(tied, [rng.choice(mine[b]) for b in batch], kind)
    return kind


def draw_counts(rng, mean, dispersion, dropout):
    """Negative binomial counts, float32; `dispersion` a number or one a gene."""
    rate = mean
    if np.any(np.asarray(dispersion) > 0):
        safe = np.maximum(dispersion, 1e-8)
        rate = mean * np.where(np.asarray(dispersion) > 1e-8, rng.gamma(1 / safe, safe, mean.shape), 1.0)
    counts = rng.poisson(rate).astype(np.float32)
    if dropout:
        counts[rng.random(mean.shape) < dropout * np.exp(-mean)] = 0
    return counts


def gene_names(n):
    """``SIM00001`` and so on."""
    return pd.Index([f"SIM{i + 1:05d}" for i in range(n)], dtype=object)


def as_adata(X, obs, truth, genes, units):
    """AnnData of `X` that says what was drawn and that it is simulated."""
    genes = gene_names(X.shape[1]) if genes is None else pd.Index([str(g) for g in genes], dtype=object)
    if len(genes) != X.shape[1]:
        raise DataError(f"{len(genes)} gene names for {X.shape[1]} genes: give one each")
    obs = pd.DataFrame(obs, index=[f"cell{i + 1}" for i in range(X.shape[0])])
    for column in obs:
        if obs[column].dtype.kind not in "fiu":
            obs[column] = pd.Categorical(obs[column].astype(str))
    adata = ad.AnnData(X, obs=obs, var=pd.DataFrame(index=genes))
    if units == "counts":
        adata.layers["counts"] = adata.X.copy()
    adata.uns |= {"simulated": True, "units": units, "truth": truth}
    return adata
