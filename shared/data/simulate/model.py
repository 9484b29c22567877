"""The model that every simulation draws from: its options, what it draws, and the AnnData that says what was drawn."""

import anndata as ad
import numpy as np
import pandas as pd

from shared.data.errors import DataError
from shared.data.genes.lists import names_of

NAMES = ("Alpha", "Beta", "Gamma", "Delta", "Epsilon", "Zeta", "Eta", "Theta", "Iota", "Kappa", "Lambda", "Mu")


def type_names(labels) -> list[str]:
    """Names of the types, of a number of them or of a list of names."""
    if isinstance(labels, (int, np.integer)) and not isinstance(labels, bool):
        labels = [NAMES[i] if i < len(NAMES) else f"Type {i + 1}" for i in range(labels)]
    names = names_of(labels, "labels")
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


def draw_truth(
    rng, names, n_genes, n_batches, programmes=None, *, effect, dispersion, location, scale, own=None, composition=0.0
):
    """The programmes, drawn or those of another simulation, and what each batch does to them."""
    if programmes is None:
        programmes = draw_programmes(rng, n_genes, len(names), effect)
    if lost := {"base", "types"} - {*programmes}:
        raise DataError(f"programmes lack {' and '.join(sorted(lost))}: give uns['truth'] of another simulation")
    base, types = np.asarray(programmes["base"], float), np.asarray(programmes["types"], float)
    if base.shape != (n_genes,) or types.shape != (len(names), n_genes):
        raise DataError(f"programmes are for {' × '.join(map(str, types.shape))}, asked are {len(names)} × {n_genes}")
    truth = {"base": base, "types": types, "names": names, "dispersion": float(dispersion)}
    truth["shift"] = location * rng.normal(size=(n_batches, n_genes))
    truth["stretch"] = scale * rng.normal(size=n_batches)
    if own is not None:
        truth["own"] = own * rng.normal(size=(n_batches, *types.shape))
    anew = rng.dirichlet(np.ones(len(names)), n_batches)
    truth["proportions"] = (1 - composition) * np.full(anew.shape, 1 / len(names)) + composition * anew
    return truth


def draw_types(rng, n_cells, shares, confounding):
    """Batch and type of each cell: by its batch's shares, or with probability `confounding` one of its batch's own."""
    n_batches, n_types = shares.shape
    batch = rng.permutation(np.arange(n_cells) % n_batches)
    kind = np.array([rng.choice(n_types, p=shares[b]) for b in batch], dtype=int)
    if confounding:
        mine = [np.arange(b % n_types, n_types, n_batches) for b in range(n_batches)]
        tied = rng.random(n_cells) < confounding
        kind = np.where(tied, [rng.choice(mine[b]) for b in batch], kind)
    return batch, kind


def draw_counts(rng, mean, dispersion):
    """Negative binomial counts, float32; `dispersion` a number or one a gene."""
    dispersion = np.asarray(dispersion)
    if (dispersion > 0).any():
        safe = np.maximum(dispersion, 1e-8)
        mean = mean * np.where(dispersion > 1e-8, rng.gamma(1 / safe, safe, mean.shape), 1.0)
    return rng.poisson(mean).astype(np.float32)


def gene_names(n):
    """``SIM00001`` and so on."""
    return pd.Index([f"SIM{i + 1:05d}" for i in range(n)], dtype=object)


def as_adata(X, obs, truth, genes, units):
    """AnnData of `X` that says what was drawn and that it is simulated."""
    obs = pd.DataFrame(obs, index=[f"cell{i + 1}" for i in range(X.shape[0])])
    if "batch" in obs:
        obs["batch"] = "batch" + (obs["batch"] + 1).astype(str)
    words = obs.columns[[dtype.kind not in "fiu" for dtype in obs.dtypes]]
    obs = obs.assign(**{name: pd.Categorical(obs[name].astype(str)) for name in words})
    uns = {"simulated": True, "units": units, "truth": truth}
    adata = ad.AnnData(X, obs=obs, var=pd.DataFrame(index=genes), uns=uns)
    if units == "counts":
        adata.layers["counts"] = adata.X.copy()
    return adata
