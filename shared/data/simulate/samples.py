"""Simulated cells, corpora, bulk samples, drug responses, open chromatin and pairs of species."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse
from scipy.special import softmax

from shared.data.constraints import NotNegative, OneOf, Positive, Probability, Whole, require
from shared.data.errors import DataError
from shared.data.simulate.model import (
    as_adata,
    draw_counts,
    draw_programmes,
    draw_shares,
    draw_types,
    given_programmes,
    type_names,
)


def cells(
    n_cells: int = 1000,
    n_genes: int = 2000,
    *,
    labels: int | Sequence[str] = 6,
    n_batches: int = 1,
    depth: float = 2000.0,
    depth_sd: float = 0.5,
    dispersion: float = 0.3,
    effect: float = 1.5,
    dropout: float = 0.0,
    location: float = 0.0,
    scale: float = 0.0,
    gene_specific: float = 0.0,
    composition: float = 0.0,
    confounding: float = 0.0,
    proportions: Sequence[float] | None = None,
    label: str = "cell_type",
    genes: Sequence[str] | None = None,
    programmes: dict | None = None,
    seed: int = 0,
) -> ad.AnnData:
    """Single cells with types, depth, zeros and batches.

    Parameters
    ----------
    n_cells, n_genes : int
        Shape.
    labels : int or sequence of str
        How many types, or their names.
    n_batches : int
        Batches, of equal size up to one cell.
    depth, depth_sd : float
        Median counts a cell, and the standard deviation of their natural logarithm.
    dispersion : float
        Of the negative binomial; 0 gives Poisson counts.
    effect : float
        Standard deviation of the types' log rates over the genes of their programmes (natural logarithm).
    dropout : float
        Share of expressed counts that are lost to zero besides: a count with mean mu is lost with probability
        ``dropout * exp(-mu)``, so that high genes keep theirs.
    location, scale, gene_specific : float
        What a batch does: standard deviation of its shift of each gene, of its stretch of the types' differences, and
        of its shift of each gene in each type.
    composition : float
        From 0 (each batch has the same types in the same shares) to 1 (shares are drawn anew for each batch).
    confounding : float
        Share of cells whose type is decided by their batch: at 1 no type is in two batches, if there are types enough.
    proportions : sequence of float, optional
        Shares of the types; equal without it.
    label : str
        Column of ``obs`` that holds the type.
    genes : sequence of str, optional
        Names; ``SIM00001`` and so on without it.
    programmes : dict, optional
        ``"base"`` (genes,) and ``"types"`` (types, genes), log rates, of another simulation: ``uns["truth"]`` of it.
    seed : int
        Of everything.

    Returns
    -------
    AnnData
        ``X`` : float32 CSR of counts, ``layers["counts"]`` the same. ``obs``: type, ``batch``, ``depth``.
        ``uns["truth"]``: ``base``, ``types`` (log rates), ``shift``, ``stretch``, ``own``, ``proportions`` (batches ×
        types), ``dispersion``.

    Raises
    ------
    SettingError
        If a number, or a choice, is impossible.
    DataError
        If options do not fit together.
    """
    names = type_names(labels)
    require(Whole(1), n_cells=n_cells, n_genes=n_genes, n_batches=n_batches)
    require(Positive(), depth=depth)
    require(
        NotNegative(),
        depth_sd=depth_sd,
        dispersion=dispersion,
        effect=effect,
        location=location,
        scale=scale,
        gene_specific=gene_specific,
    )
    require(Probability(), dropout=dropout, composition=composition, confounding=confounding)
    rng = np.random.default_rng(seed)
    truth = (
        draw_programmes(rng, n_genes, len(names), effect)
        if programmes is None
        else given_programmes(programmes, n_genes, names)
    )
    truth |= {
        "shift": location * rng.normal(size=(n_batches, n_genes)),
        "stretch": scale * rng.normal(size=n_batches),
        "own": gene_specific * rng.normal(size=(n_batches, len(names), n_genes)),
        "proportions": draw_shares(rng, n_batches, len(names), composition, proportions),
        "dispersion": float(dispersion),
        "names": names,
    }
    batch = rng.permutation(np.arange(n_cells) % n_batches)
    kind = draw_types(rng, batch, truth["proportions"], confounding)
    deep = depth * np.exp(depth_sd * rng.normal(size=n_cells))
    X = np.zeros((n_cells, n_genes), np.float32)
    for b in range(n_batches):
        for t in range(len(names)):
            rows = np.flatnonzero((batch == b) & (kind == t))
            eta = truth["base"] + truth["types"][t] * (1 + truth["stretch"][b]) + truth["shift"][b] + truth["own"][b, t]
            X[rows] = draw_counts(rng, deep[rows, None] * softmax(eta, axis=-1), dispersion, dropout)
    obs = {label: np.array(names)[kind], "batch": np.char.add("batch", (batch + 1).astype(str)), "depth": deep}
    return as_adata(sparse.csr_matrix(X), obs, truth, genes, "counts")


def many(n_sets: int = 60, *, seed: int = 0, **options) -> Iterator[ad.AnnData]:
    """Data sets that share their gene programmes, one at a time, so that a corpus of any length takes constant memory.

    `options` are those of :func:`cells`. Set k has its own seed, batch name ``set<k>`` and, with ``location`` and the
    like, its own batch effect.
    """
    require(Whole(1), n_sets=n_sets)
    names = type_names(options.get("labels", 6))
    rng = np.random.default_rng(seed)
    shared = draw_programmes(rng, options.get("n_genes", 2000), len(names), options.get("effect", 1.5))
    for k, own in enumerate(np.random.SeedSequence(seed).generate_state(n_sets)):
        adata = cells(**{"programmes": shared} | options, seed=int(own))
        adata.obs["batch"] = pd.Categorical(np.repeat(f"set{k + 1}", adata.n_obs))
        adata.obs_names = [f"set{k + 1}-{name}" for name in adata.obs_names]
        yield adata


def bulk(
    n_samples: int = 200,
    n_genes: int = 2000,
    *,
    labels: int | Sequence[str] = 6,
    n_batches: int = 1,
    units: str = "log",
    depth: float = 2e7,
    purity: float = 0.8,
    dispersion: float = 0.1,
    effect: float = 1.0,
    location: float = 0.0,
    scale: float = 0.0,
    confounding: float = 0.0,
    label: str = "cell_type",
    genes: Sequence[str] | None = None,
    programmes: dict | None = None,
    seed: int = 0,
) -> ad.AnnData:
    """Bulk samples: each a mixture in which its own tissue has the share `purity`, the rest drawn at random.

    Parameters
    ----------
    n_samples, n_genes, labels, n_batches, dispersion, effect, location, scale, confounding, label, genes, programmes
        As in :func:`cells`.
    units : {"log", "counts", "tpm"}
        ``"log"`` is log2(1 + TPM). Gene lengths are log-normal around two kilobases, and in the truth.
    depth : float
        Median counts a sample.
    purity : float
        Share of the sample's own tissue, 0 to 1.
    seed : int
        Of everything.

    Returns
    -------
    AnnData
        ``X`` : float32 ndarray. ``obsm["mixture"]``: samples × tissues. ``uns["truth"]`` as in :func:`cells`, with
        ``lengths`` in bases.
    """
    names = type_names(labels)
    require(OneOf("log", "counts", "tpm"), units=units)
    require(Whole(1), n_samples=n_samples, n_genes=n_genes, n_batches=n_batches)
    require(Positive(), depth=depth)
    require(NotNegative(), dispersion=dispersion, effect=effect, location=location, scale=scale)
    require(Probability(), purity=purity, confounding=confounding)
    rng = np.random.default_rng(seed)
    truth = (
        draw_programmes(rng, n_genes, len(names), effect)
        if programmes is None
        else given_programmes(programmes, n_genes, names)
    )
    truth |= {
        "shift": location * rng.normal(size=(n_batches, n_genes)),
        "stretch": scale * rng.normal(size=n_batches),
        "proportions": draw_shares(rng, n_batches, len(names), 0.0, None),
        "lengths": 2000 * np.exp(0.6 * rng.normal(size=n_genes)),
        "dispersion": float(dispersion),
        "names": names,
    }
    batch = rng.permutation(np.arange(n_samples) % n_batches)
    kind = draw_types(rng, batch, truth["proportions"], confounding)
    mixture = (1 - purity) * rng.dirichlet(np.ones(len(names)), n_samples)
    mixture[np.arange(n_samples), kind] += purity
    profile = np.empty((n_samples, n_genes))
    for b in range(n_batches):
        eta = truth["base"] + truth["types"] * (1 + truth["stretch"][b]) + truth["shift"][b]
        profile[batch == b] = mixture[batch == b] @ softmax(eta, axis=-1)
    long = profile * truth["lengths"]  # a long transcript is cut into more fragments
    mean = depth * np.exp(0.3 * rng.normal(size=(n_samples, 1))) * long / long.sum(1, keepdims=True)
    X = draw_counts(rng, mean, dispersion, 0.0)
    if units != "counts":
        rate = X / truth["lengths"]
        X = 1e6 * rate / rate.sum(1, keepdims=True)
        X = np.log2(1 + X) if units == "log" else X
    obs = {label: np.array(names)[kind], "batch": np.char.add("batch", (batch + 1).astype(str))}
    adata = as_adata(X.astype(np.float32), obs, truth, genes, units)
    adata.obsm["mixture"] = mixture
    return adata


def drug(
    n_lines: int = 400,
    n_patients: int = 80,
    n_genes: int = 1000,
    *,
    rule: str = "linear",
    n_causal: int = 20,
    noise: float = 0.5,
    shift: float = 1.0,
    labels: int | Sequence[str] = 6,
    seed: int = 0,
) -> ad.AnnData:
    """Cell lines and patients treated with one drug, with the rule that decides the response.

    The ln IC50 of a sample is ``z @ w`` over `n_causal` genes, z their standardised log expression before the cohort's
    shift, plus normal noise; with ``rule="gated"`` the genes count only where a gate gene is above its median. Patients
    are measured with a shift of every gene, and have a binary response: the lower half of ln IC50 responds.

    Parameters
    ----------
    n_lines, n_patients, n_genes : int
        Sizes of the two cohorts, and genes.
    rule : {"linear", "gated"}
        How genes decide.
    n_causal : int
        Genes that matter.
    noise : float
        Standard deviation of what genes do not explain, in units of what they do.
    shift : float
        Standard deviation, in log2 units, of the patients' shift of each gene.
    labels, seed
        As in :func:`bulk`.

    Returns
    -------
    AnnData
        Log expression; ``obs``: ``cohort`` (line, patient), ``tissue``, ``ln_ic50``, ``response``. ``uns["truth"]``
        adds ``causal`` (gene names), ``weights``, ``gate``, ``cohort_shift``, ``rule``.
    """
    require(Whole(1), n_lines=n_lines, n_patients=n_patients, n_causal=n_causal)
    require(NotNegative(), noise=noise, shift=shift)
    require(OneOf("linear", "gated"), rule=rule)
    if n_causal >= n_genes:
        raise DataError(f"n_causal={n_causal} of n_genes={n_genes}: leave genes that do not matter")
    adata = bulk(n_lines + n_patients, n_genes, labels=labels, label="tissue", seed=seed)
    rng = np.random.default_rng([seed, 1])
    high = np.argsort(-np.asarray(adata.X).mean(0))[: n_genes // 2]
    chosen = rng.choice(high, n_causal + 1, replace=False)
    causal, gate = chosen[:-1], chosen[-1]
    z = (adata.X - adata.X.mean(0)) / np.maximum(adata.X.std(0), 1e-6)
    weights = rng.normal(size=n_causal) / np.sqrt(n_causal)
    effect = z[:, causal] @ weights
    if rule == "gated":
        effect = effect * (adata.X[:, gate] > np.median(adata.X[:, gate]))
    effect = effect / max(effect.std(), 1e-6)
    ic50 = effect + noise * rng.normal(size=adata.n_obs)
    patient = np.arange(adata.n_obs) >= n_lines
    moved = shift * rng.normal(size=n_genes)
    adata.X = np.maximum(adata.X + patient[:, None] * moved, 0).astype(np.float32)
    adata.obs["cohort"] = pd.Categorical(np.where(patient, "patient", "line"))
    adata.obs["batch"] = adata.obs["cohort"]
    adata.obs["ln_ic50"] = ic50
    half = np.where(patient, np.median(ic50[patient]), np.median(ic50[~patient]))
    adata.obs["response"] = pd.Categorical(np.where(ic50 < half, "responder", "non-responder"))
    adata.uns["truth"] |= {
        "causal": list(adata.var_names[causal]), "weights": weights, "gate": str(adata.var_names[gate]),
        "cohort_shift": moved, "rule": rule,
    }  # fmt: skip
    return adata


def multiome(
    n_cells: int = 1000,
    n_genes: int = 1000,
    n_peaks: int = 3000,
    *,
    links: int = 2,
    open_share: float = 0.1,
    seed: int = 0,
    **options,
) -> ad.AnnData:
    """RNA and open chromatin of the same cells.

    Each of ``links * n_genes`` peaks follows one gene: its log odds of being open are the gene's log rate in the cell's
    type, centred, plus a constant; the other peaks are open at random. What is counted is 0 or 1.

    Parameters
    ----------
    n_cells, n_genes : int
        Of the RNA, which is that of :func:`cells` with `options`.
    n_peaks : int
        Regions.
    links : int
        Peaks a gene, where there are peaks enough.
    open_share : float
        Mean share of peaks open in a cell.
    seed : int
        Of everything.
    **options
        Of :func:`cells`.

    Returns
    -------
    AnnData
        Counts of genes; ``obsm["atac"]``: float32 CSR (n_cells, n_peaks). ``uns["truth"]["links"]``: gene of each
        peak, -1 for none.
    """
    require(Whole(1), n_peaks=n_peaks, links=links)
    require(Probability(), open_share=open_share)
    adata = cells(n_cells, n_genes, seed=seed, **options)
    rng = np.random.default_rng([seed, 2])
    gene = np.full(n_peaks, -1)
    linked = np.tile(np.arange(n_genes), links)[:n_peaks]
    gene[rng.permutation(n_peaks)[: len(linked)]] = linked
    types = adata.uns["truth"]["types"]
    names, kind = np.unique(adata.obs[options.get("label", "cell_type")].astype(str), return_inverse=True)
    order = [list(adata.uns["truth"]["names"]).index(n) for n in names]
    odds = np.where(gene >= 0, types[order][:, gene] - types[:, gene].mean(0), 0.0)
    base = np.log(max(open_share, 1e-6) / max(1 - open_share, 1e-6))
    chance = 1 / (1 + np.exp(-(odds + base + 0.5 * rng.normal(size=n_peaks))))
    rows = [np.flatnonzero(rng.random(n_peaks) < chance[k]) for k in kind]
    indptr = np.concatenate([[0], np.cumsum([len(r) for r in rows])])
    values = np.ones(indptr[-1], np.float32)
    adata.obsm["atac"] = sparse.csr_matrix((values, np.concatenate(rows), indptr), shape=(n_cells, n_peaks))
    adata.uns["truth"]["links"] = gene
    return adata


def species(
    n_cells: int = 600, n_genes: int = 1500, *, lost: float = 0.2, rewired: float = 0.1, seed: int = 0, **options
) -> tuple[ad.AnnData, ad.AnnData, pd.DataFrame]:
    """Cells of two species that share types and most genes.

    Of the second species' genes a share `lost` has no orthologue in the first, and of those that have one a share
    `rewired` belongs to other types there: its programme was drawn anew.

    Returns
    -------
    human, mouse : AnnData
        As :func:`cells`; ``uns["truth"]["rewired"]`` of the second names the genes whose programme changed.
    orthologs : DataFrame
        Columns ``human``, ``mouse``: one-to-one.
    """
    require(Whole(1), n_genes=n_genes)
    require(Probability(), lost=lost, rewired=rewired)
    first = cells(n_cells, n_genes, seed=seed, genes=[f"HUM{i:05d}" for i in range(n_genes)], **options)
    rng = np.random.default_rng([seed, 3])
    truth = first.uns["truth"]
    names = np.array([f"Mus{i:05d}" for i in range(n_genes)])
    kept = np.sort(rng.permutation(n_genes)[: round(n_genes * (1 - lost))])
    changed = rng.permutation(kept)[: round(len(kept) * rewired)]
    gone = np.setdiff1d(np.arange(n_genes), kept)
    fresh = draw_programmes(rng, n_genes, len(truth["names"]), float(options.get("effect", 1.5)))
    other = {"base": truth["base"].copy(), "types": truth["types"].copy()}
    anew = np.concatenate([changed, gone])
    other["types"][:, anew], other["base"][gone] = fresh["types"][:, anew], fresh["base"][gone]
    options = options | {"labels": list(truth["names"])}
    second = cells(n_cells, n_genes, genes=names, programmes=other, seed=seed + 1, **options)
    second.uns["truth"]["rewired"] = list(names[np.sort(changed)])
    pairs = pd.DataFrame({"human": first.var_names[kept], "mouse": names[kept]})
    return first, second, pairs
