"""Simulated cells, corpora, bulk samples and open chromatin."""

from collections.abc import Iterator, Sequence

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse
from scipy.special import softmax

from shared.data.constraints import NotNegative, OneOf, Positive, Probability, Whole, check, require
from shared.data.simulate import model

BOTH = {"n_genes": Whole(1), "n_batches": Whole(1), "depth": Positive(), "confounding": Probability(), "seed": Whole()}
BOTH |= dict.fromkeys(("dispersion", "effect", "location", "scale"), NotNegative())
CELLS = BOTH | {"n_cells": Whole(1), "composition": Probability()}
CELLS |= dict.fromkeys(("depth_sd", "gene_specific"), NotNegative())
BULK = BOTH | {"n_samples": Whole(1), "units": OneOf("log", "counts", "tpm"), "purity": Probability()}
EFFECTS = ("effect", "dispersion", "location", "scale")


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
    location: float = 0.0,
    scale: float = 0.0,
    gene_specific: float = 0.0,
    composition: float = 0.0,
    confounding: float = 0.0,
    programmes: dict | None = None,
    seed: int = 0,
) -> ad.AnnData:
    """Single cells with types, depth, zeros and batches.

    Parameters
    ----------
    n_cells, n_genes, n_batches, seed : int
        Shape, batches of equal size up to one cell, and the seed of everything.
    labels : int or sequence of str
        How many types, or their names.
    depth, depth_sd : float
        Median counts a cell, and the standard deviation of their natural logarithm.
    dispersion : float
        Of the negative binomial; 0 gives Poisson counts.
    effect : float
        Standard deviation of the types' log rates over the genes of their programmes (natural logarithm).
    location, scale, gene_specific : float
        What a batch does: standard deviation of its shift of each gene, of its stretch of the types' differences, and
        of its shift of each gene in each type.
    composition : float
        From 0 (types have the same shares in all batches) to 1 (shares are drawn anew for each batch).
    confounding : float
        Share of cells whose type is decided by their batch: at 1 no type is in two batches, if there are types enough.
    programmes : dict, optional
        ``uns["truth"]`` of another simulation: ``"base"`` (genes,) and ``"types"`` (types, genes), log rates.

    Returns
    -------
    AnnData
        ``X`` : float32 CSR of counts, ``layers["counts"]`` the same. ``obs``: ``cell_type``, ``batch``, ``depth``.
        ``uns["truth"]``: ``base``, ``types`` (log rates), ``shift``, ``stretch``, ``own``, ``proportions`` (batches ×
        types), ``dispersion``, ``names``.

    Raises
    ------
    SettingError, DataError
        If an option is impossible, or options do not fit together.
    """
    options = locals()
    check(options, CELLS)
    names, rng = model.type_names(labels), np.random.default_rng(seed)
    effects = {name: options[name] for name in (*EFFECTS, "composition")}
    truth = model.draw_truth(rng, names, n_genes, n_batches, programmes, own=gene_specific, **effects)
    batch, kind = model.draw_types(rng, n_cells, truth["proportions"], confounding)
    deep = depth * np.exp(depth_sd * rng.normal(size=n_cells))
    X = np.zeros((n_cells, n_genes), np.float32)
    for b in range(n_batches):
        for t in range(len(names)):
            rows = np.flatnonzero((batch == b) & (kind == t))
            eta = truth["base"] + truth["types"][t] * (1 + truth["stretch"][b]) + truth["shift"][b] + truth["own"][b, t]
            X[rows] = model.draw_counts(rng, deep[rows, None] * softmax(eta, axis=-1), dispersion)
    obs = {"cell_type": np.array(names)[kind], "batch": batch, "depth": deep}
    return model.as_adata(sparse.csr_matrix(X), obs, truth, model.gene_names(n_genes), "counts")


def many(n_sets: int = 60, *, seed: int = 0, **options) -> Iterator[ad.AnnData]:
    """Data sets that share their gene programmes, one at a time, so that a corpus of any length takes constant memory.

    `options` are those of :func:`cells`. Set k has its own seed, batch name ``set<k>`` and, with ``location`` and the
    like, its own batch effect.
    """
    require(Whole(1), n_sets=n_sets)
    require(Whole(), seed=seed)
    names = model.type_names(options.get("labels", 6))
    rng = np.random.default_rng(seed)
    shared = model.draw_programmes(rng, options.get("n_genes", 2000), len(names), options.get("effect", 1.5))
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
    seed: int = 0,
) -> ad.AnnData:
    """Bulk samples: each a mixture in which its own tissue has the share `purity`, the rest drawn at random.

    Parameters
    ----------
    n_samples, n_genes, labels, n_batches, dispersion, effect, location, scale, confounding, seed
        As in :func:`cells`.
    units : {"log", "counts", "tpm"}
        ``"log"`` is log2(1 + TPM). Gene lengths are log-normal around two kilobases, and in the truth.
    depth, purity : float
        Median counts a sample, and the share of its own tissue, 0 to 1.
    label : str
        Column of ``obs`` that holds the tissue.

    Returns
    -------
    AnnData
        ``X`` : float32 ndarray. ``obsm["mixture"]``: samples × tissues. ``uns["truth"]`` as in :func:`cells`, with
        ``lengths`` in bases and without ``own``.
    """
    options = locals()
    check(options, BULK)
    names, rng = model.type_names(labels), np.random.default_rng(seed)
    truth = model.draw_truth(rng, names, n_genes, n_batches, **{name: options[name] for name in EFFECTS})
    truth["lengths"] = 2000 * np.exp(0.6 * rng.normal(size=n_genes))
    batch, kind = model.draw_types(rng, n_samples, truth["proportions"], confounding)
    mixture = (1 - purity) * rng.dirichlet(np.ones(len(names)), n_samples)
    mixture[np.arange(n_samples), kind] += purity
    profile = np.empty((n_samples, n_genes))
    for b in range(n_batches):
        eta = truth["base"] + truth["types"] * (1 + truth["stretch"][b]) + truth["shift"][b]
        profile[batch == b] = mixture[batch == b] @ softmax(eta, axis=-1)
    long = profile * truth["lengths"]  # a long transcript is cut into more fragments
    mean = depth * np.exp(0.3 * rng.normal(size=(n_samples, 1))) * long / long.sum(1, keepdims=True)
    X = model.draw_counts(rng, mean, dispersion)
    if units != "counts":
        rate = X / truth["lengths"]
        X = 1e6 * rate / rate.sum(1, keepdims=True)
        X = np.log2(1 + X) if units == "log" else X
    obs = {label: np.array(names)[kind], "batch": batch}
    adata = model.as_adata(X.astype(np.float32), obs, truth, model.gene_names(n_genes), units)
    adata.obsm["mixture"] = mixture
    return adata


def multiome(
    n_cells=1000, n_genes=1000, n_peaks=3000, *, links=2, open_share=0.1, distal=0.3, seed=0, **options
) -> ad.AnnData:
    """RNA and open chromatin of the same cells.

    Each of ``links * n_genes`` peaks follows one gene: its log odds of being open are the gene's log rate in the cell's
    type, centred, plus a constant; the other peaks are open at random. What is counted is 0 or 1.

    Parameters
    ----------
    n_cells, n_genes, seed, **options
        Of the RNA, which is that of :func:`cells`.
    n_peaks, links : int
        Regions, and how many of them follow a gene, where there are enough.
    open_share : float
        Mean share of peaks open in a cell.
    distal : float
        Share, 0 to 1, of the peaks that follow a gene and lie far from it, up to 60,000 bases; others lie in it or in
        the 2,000 bases before its start. Peaks that follow no gene lie anywhere.

    Returns
    -------
    AnnData
        Counts of genes; ``obsm["atac"]``: float32 CSR (n_cells, n_peaks). ``uns["truth"]["links"]``: gene of each
        peak, -1 for none. ``var`` and ``uns["peaks"]``: ``chromosome``, ``start`` and ``end`` of
        genes, which also have a ``strand``, and of peaks.
    """
    require(Whole(1), n_peaks=n_peaks, links=links)
    require(Probability(), open_share=open_share, distal=distal)
    adata = cells(n_cells, n_genes, seed=seed, **options)
    truth = adata.uns["truth"]
    rng = np.random.default_rng([seed, 2])
    gene = np.full(n_peaks, -1)
    linked = np.tile(np.arange(n_genes), links)[:n_peaks]
    gene[rng.permutation(n_peaks)[: len(linked)]] = linked
    names, kind = np.unique(adata.obs["cell_type"].astype(str), return_inverse=True)
    types = truth["types"][[truth["names"].index(name) for name in names]]
    odds = np.where(gene >= 0, types[:, gene] - truth["types"][:, gene].mean(0), 0.0)
    base = np.log(max(open_share, 1e-6) / max(1 - open_share, 1e-6))
    chance = 1 / (1 + np.exp(-(odds + base + 0.5 * rng.normal(size=n_peaks))))
    rows = [np.flatnonzero(rng.random(n_peaks) < chance[k]) for k in kind]
    indptr = np.concatenate([[0], np.cumsum([len(r) for r in rows])])
    values = np.ones(indptr[-1], np.float32)
    adata.obsm["atac"] = sparse.csr_matrix((values, np.concatenate(rows), indptr), shape=(n_cells, n_peaks))
    truth["links"] = gene
    places = _places(np.random.default_rng([seed, 3]), n_genes, gene, distal)
    adata.var, adata.uns["peaks"] = places[0].set_index(adata.var_names), places[1]
    return adata


def _places(rng, n_genes, gene, distal, apart=200_000, width=500):
    """Genes `apart` bases from one another on one chromosome, and peaks near the genes that they follow, or far."""
    start = np.arange(n_genes) * apart + apart // 2
    genes = {"chromosome": "chr1", "start": start, "end": start + rng.integers(5_000, 50_000, n_genes)}
    genes["strand"] = rng.choice(["+", "-"], n_genes)
    low = genes["start"] - 2000 * (genes["strand"] == "+")  # of the gene and what lies before its start
    high = genes["end"] + 2000 * (genes["strand"] == "-")
    inside = rng.integers(low[gene], high[gene] - width)
    away = rng.integers(width, 60_000, len(gene))
    outside = np.where(rng.random(len(gene)) < 0.5, low[gene] - width - away, high[gene] + away)
    at = np.where(rng.random(len(gene)) < distal, outside, inside)
    at = np.where(gene < 0, rng.integers(0, n_genes * apart, len(gene)), at)
    return pd.DataFrame(genes), pd.DataFrame({"chromosome": "chr1", "start": at, "end": at + width})
