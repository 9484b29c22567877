"""Simulated expression data that come with the truth they were made from.

Every function draws from one model. Gene g of cell i, of type t and batch b, has the log rate

    eta = a[g] + L[t, g] + shift[b, g] + stretch[b] * L[t, g] + own[b, t, g]

where a is how much a gene is expressed at all, L the gene programmes of the types, and the rest what a batch does: a
shift of each gene, a stretch of the types' differences, and a shift of its own for each type. Rates are made shares of
the cell's depth, D[i] (log-normal), and counts are drawn from a negative binomial:

    mu[i, g] = D[i] * softmax(eta)[g],   x ~ Poisson(mu * Gamma(1 / dispersion, dispersion))

so that the variance is mu + dispersion * mu**2. What is returned says in ``uns["truth"]`` what was drawn, and
``uns["simulated"]`` is True: show the word wherever such data are shown. One seed gives the same bytes each time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from shared.data.errors import DataError

NAMES = ("Alpha", "Beta", "Gamma", "Delta", "Epsilon", "Zeta", "Eta", "Theta", "Iota", "Kappa", "Lambda", "Mu")


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
    DataError
        If an option is impossible.
    """
    names = _names(labels)
    _options(
        whole={"n_cells": n_cells, "n_genes": n_genes, "n_batches": n_batches},
        positive={"depth": depth},
        least={"depth_sd": depth_sd, "dispersion": dispersion, "effect": effect, "location": location, "scale": scale,
               "gene_specific": gene_specific},
        share={"dropout": dropout, "composition": composition, "confounding": confounding},
    )  # fmt: skip
    rng = np.random.default_rng(seed)
    truth = _programmes(rng, n_genes, len(names), effect) if programmes is None else _given(programmes, n_genes, names)
    truth |= {
        "shift": location * rng.normal(size=(n_batches, n_genes)),
        "stretch": scale * rng.normal(size=n_batches),
        "own": gene_specific * rng.normal(size=(n_batches, len(names), n_genes)),
        "proportions": _shares(rng, n_batches, len(names), composition, proportions),
        "dispersion": float(dispersion),
        "names": names,
    }
    batch = rng.permutation(np.arange(n_cells) % n_batches)
    kind = _kinds(rng, batch, truth["proportions"], confounding)
    deep = depth * np.exp(depth_sd * rng.normal(size=n_cells))
    X = np.zeros((n_cells, n_genes), np.float32)
    for b in range(n_batches):
        for t in range(len(names)):
            rows = np.flatnonzero((batch == b) & (kind == t))
            eta = truth["base"] + truth["types"][t] * (1 + truth["stretch"][b]) + truth["shift"][b] + truth["own"][b, t]
            X[rows] = _counts(rng, deep[rows, None] * _softmax(eta), dispersion, dropout)
    obs = {label: np.array(names)[kind], "batch": np.char.add("batch", (batch + 1).astype(str)), "depth": deep}
    return _made(sparse.csr_matrix(X), obs, truth, genes, "counts")


def many(n_sets: int = 60, *, seed: int = 0, **options) -> Iterator[ad.AnnData]:
    """Data sets that share their gene programmes, one at a time, so that a corpus of any length takes constant memory.

    `options` are those of :func:`cells`. Set k has its own seed, batch name ``set<k>`` and, with ``location`` and the
    like, its own batch effect.
    """
    _options(whole={"n_sets": n_sets})
    names = _names(options.get("labels", 6))
    rng = np.random.default_rng(seed)
    shared = _programmes(rng, options.get("n_genes", 2000), len(names), options.get("effect", 1.5))
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
    names = _names(labels)
    if units not in ("log", "counts", "tpm"):
        raise DataError(f"units={units!r} is not known: choose log, counts or tpm")
    _options(
        whole={"n_samples": n_samples, "n_genes": n_genes, "n_batches": n_batches},
        positive={"depth": depth},
        least={"dispersion": dispersion, "effect": effect, "location": location, "scale": scale},
        share={"purity": purity, "confounding": confounding},
    )
    rng = np.random.default_rng(seed)
    truth = _programmes(rng, n_genes, len(names), effect) if programmes is None else _given(programmes, n_genes, names)
    truth |= {
        "shift": location * rng.normal(size=(n_batches, n_genes)),
        "stretch": scale * rng.normal(size=n_batches),
        "proportions": _shares(rng, n_batches, len(names), 0.0, None),
        "lengths": 2000 * np.exp(0.6 * rng.normal(size=n_genes)),
        "dispersion": float(dispersion),
        "names": names,
    }
    batch = rng.permutation(np.arange(n_samples) % n_batches)
    kind = _kinds(rng, batch, truth["proportions"], confounding)
    mixture = (1 - purity) * rng.dirichlet(np.ones(len(names)), n_samples)
    mixture[np.arange(n_samples), kind] += purity
    profile = np.empty((n_samples, n_genes))
    for b in range(n_batches):
        eta = truth["base"] + truth["types"] * (1 + truth["stretch"][b]) + truth["shift"][b]
        profile[batch == b] = mixture[batch == b] @ _softmax(eta)
    long = profile * truth["lengths"]  # a long transcript is cut into more fragments
    mean = depth * np.exp(0.3 * rng.normal(size=(n_samples, 1))) * long / long.sum(1, keepdims=True)
    X = _counts(rng, mean, dispersion, 0.0)
    if units != "counts":
        rate = X / truth["lengths"]
        X = 1e6 * rate / rate.sum(1, keepdims=True)
        X = np.log2(1 + X) if units == "log" else X
    obs = {label: np.array(names)[kind], "batch": np.char.add("batch", (batch + 1).astype(str))}
    adata = _made(X.astype(np.float32), obs, truth, genes, units)
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
    _options(
        whole={"n_lines": n_lines, "n_patients": n_patients, "n_causal": n_causal},
        least={"noise": noise, "shift": shift},
    )
    if rule not in ("linear", "gated"):
        raise DataError(f"rule={rule!r} is not known: choose linear or gated")
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
    _options(whole={"n_peaks": n_peaks, "links": links}, share={"open_share": open_share})
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
    _options(whole={"n_genes": n_genes}, share={"lost": lost, "rewired": rewired})
    first = cells(n_cells, n_genes, seed=seed, genes=[f"HUM{i:05d}" for i in range(n_genes)], **options)
    rng = np.random.default_rng([seed, 3])
    truth = first.uns["truth"]
    names = np.array([f"Mus{i:05d}" for i in range(n_genes)])
    kept = np.sort(rng.permutation(n_genes)[: round(n_genes * (1 - lost))])
    changed = rng.permutation(kept)[: round(len(kept) * rewired)]
    gone = np.setdiff1d(np.arange(n_genes), kept)
    fresh = _programmes(rng, n_genes, len(truth["names"]), float(options.get("effect", 1.5)))
    other = {"base": truth["base"].copy(), "types": truth["types"].copy()}
    anew = np.concatenate([changed, gone])
    other["types"][:, anew], other["base"][gone] = fresh["types"][:, anew], fresh["base"][gone]
    options = options | {"labels": list(truth["names"])}
    second = cells(n_cells, n_genes, genes=names, programmes=other, seed=seed + 1, **options)
    second.uns["truth"]["rewired"] = list(names[np.sort(changed)])
    pairs = pd.DataFrame({"human": first.var_names[kept], "mouse": names[kept]})
    return first, second, pairs


def like(adata, n_cells: int | None = None, *, label: str = "cell_type", seed: int = 0) -> ad.AnnData:
    """Counts that resemble real ones: depth, means, dispersions and the genes of each type are estimated from `adata`.

    Each simulated cell takes a real cell's label and depth, the mean profile of its label, and for each gene a
    dispersion estimated within labels by moments and smoothed over genes of similar mean.

    Parameters
    ----------
    adata : AnnData
        Counts, cells × genes, in ``layers["counts"]`` or ``X``.
    n_cells : int, optional
        As many as there are, without it.
    label : str
        Column of ``obs``; where it is missing all cells are of one type.
    seed : int
        Of everything.
    """
    X = sparse.csr_matrix(adata.layers.get("counts", adata.X), dtype=np.float64)
    if X.nnz and (X.data.min() < 0 or (X.data != np.round(X.data)).any()):
        raise DataError("like() needs counts: give the data before normalisation, or layers['counts']")
    n_cells = X.shape[0] if n_cells is None else n_cells
    _options(whole={"n_cells": n_cells})
    totals = np.asarray(X.sum(1)).ravel()
    if not (totals > 0).all():
        raise DataError(f"{int((totals == 0).sum())} cells have no count: drop them first")
    words = adata.obs[label].astype(str).to_numpy() if label in adata.obs else np.repeat("cells", X.shape[0])
    names, kind = np.unique(words, return_inverse=True)
    share = np.stack([np.asarray(X[kind == t].sum(0)).ravel() / totals[kind == t].sum() for t in range(len(names))])
    dispersion = _dispersions(X, totals, kind, share)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(X.shape[0], size=n_cells) if n_cells != X.shape[0] else np.arange(n_cells)
    out = np.zeros((n_cells, X.shape[1]), np.float32)
    for start in range(0, n_cells, 2048):
        rows = drawn[start : start + 2048]
        out[start : start + 2048] = _counts(rng, totals[rows, None] * share[kind[rows]], dispersion, 0.0)
    truth = {"types": np.log(np.maximum(share, 1e-12)), "names": names.tolist(), "dispersion": dispersion}
    obs = {label: words[drawn], "depth": totals[drawn]}
    return _made(sparse.csr_matrix(out), obs, truth, adata.var_names, "counts")


def _dispersions(X, totals, kind, share):
    """Dispersion of each gene within types, by moments, as the median over the hundred genes nearest in mean."""
    mean, excess = np.zeros(X.shape[1]), np.zeros(X.shape[1])
    for t in range(len(share)):
        rows = np.flatnonzero(kind == t)
        for start in range(0, len(rows), 2048):
            some = rows[start : start + 2048]
            expected = totals[some, None] * share[t]
            excess += ((X[some].toarray() - expected) ** 2 - expected).sum(0)
            mean += (expected**2).sum(0)
    raw = np.where(mean > 0, excess / np.maximum(mean, 1e-12), np.nan)
    level = share.mean(0)
    order = np.argsort(level, kind="stable")
    smooth = pd.Series(raw[order]).rolling(101, center=True, min_periods=1).median().fillna(0.1).to_numpy()
    out = np.empty_like(smooth)
    out[order] = np.clip(smooth, 0, 20)
    return out


def write_large(
    path, n_cells: int = 1_000_000, n_genes: int = 2000, *, labels: int | Sequence[str] = 6, n_batches: int = 4,
    depth: float = 120.0, chunk: int = 20_000, compression: str | None = None, seed: int = 0, progress: bool = False,
) -> None:  # fmt: skip
    """Write an ``.h5ad`` of any length chunk by chunk: counts as CSR, ``obs`` with ``cell_type`` and ``batch``.

    Memory does not grow with `n_cells`. Counts are multinomial draws from the profile of the cell's type and batch.

    Parameters
    ----------
    path : path
        Must not exist.
    n_cells, n_genes, labels, n_batches, depth, seed
        As in :func:`cells`.
    chunk : int
        Cells made and written at a time.
    compression : {None, "lzf", "gzip"}
        Of the matrix.
    progress : bool
        Show a bar.
    """
    from pathlib import Path

    import h5py
    from tqdm.auto import tqdm

    sizes = {"n_cells": n_cells, "n_genes": n_genes, "n_batches": n_batches, "chunk": chunk}
    _options(whole=sizes, positive={"depth": depth})
    path = Path(path)
    if path.exists():
        raise DataError(f"{path} exists: choose another name, or remove it first")
    write_elem = getattr(ad, "io", ad.experimental).write_elem
    names, rng = _names(labels), np.random.default_rng(seed)
    truth = _programmes(rng, n_genes, len(names), 1.5)
    eta = truth["base"] + truth["types"] + 0.3 * rng.normal(size=(n_batches, 1, n_genes))
    ladder = np.cumsum(_softmax(eta), axis=-1)  # batches × types × genes
    part = path.with_name(path.name + ".part")
    try:
        with h5py.File(part, "w") as file:
            file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
            group = file.create_group("X")
            group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
            group.attrs["shape"] = (n_cells, n_genes)
            width = int(depth * chunk)
            made = {"maxshape": (None,), "chunks": (max(1024, min(width, 1 << 18)),), "compression": compression}
            data = group.create_dataset("data", (0,), np.float32, **made)
            indices = group.create_dataset("indices", (0,), np.int32, **made)
            indptr, kinds, batches = np.zeros(n_cells + 1, np.int64), [], []
            for start in tqdm(range(0, n_cells, chunk), disable=not progress, unit="chunk"):
                n = min(chunk, n_cells - start)
                kind, batch = rng.integers(len(names), size=n), rng.integers(n_batches, size=n)
                total = np.maximum(rng.poisson(depth * np.exp(0.5 * rng.normal(size=n))), 1)
                X = _multinomial(rng, ladder, kind, batch, total)
                at = data.shape[0]
                data.resize(at + X.nnz, 0), indices.resize(at + X.nnz, 0)
                data[at:], indices[at:] = X.data, X.indices
                indptr[start + 1 : start + n + 1] = at + X.indptr[1:]
                kinds.append(kind.astype(np.int8)), batches.append(batch.astype(np.int8))
            group.create_dataset("indptr", data=indptr)
            called = [f"batch{b + 1}" for b in range(n_batches)]
            obs = pd.DataFrame(
                {
                    "cell_type": pd.Categorical.from_codes(np.concatenate(kinds), names),
                    "batch": pd.Categorical.from_codes(np.concatenate(batches), called),
                },
                index=np.char.add("cell", np.arange(n_cells).astype(str)).astype(object),
            )
            write_elem(file, "obs", obs)
            write_elem(file, "var", pd.DataFrame(index=_gene_names(n_genes)))
            write_elem(file, "uns", {"simulated": True, "units": "counts"})
            for empty in ("layers", "obsm", "varm", "obsp", "varp"):
                write_elem(file, empty, {})
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _multinomial(rng, ladder, kind, batch, total):
    """Counts of cells as CSR: `total` draws a cell from the cumulated shares of its batch and type."""
    n_genes = ladder.shape[-1]
    row, gene = [], []
    for b in range(ladder.shape[0]):
        for t in range(ladder.shape[1]):
            rows = np.flatnonzero((kind == t) & (batch == b))
            drawn = rng.random(int(total[rows].sum()), dtype=np.float32)
            gene.append(np.minimum(np.searchsorted(ladder[b, t], drawn), n_genes - 1).astype(np.int32))
            row.append(np.repeat(rows, total[rows]).astype(np.int32))
    row, gene = np.concatenate(row), np.concatenate(gene)
    X = sparse.coo_matrix((np.ones(len(row), np.float32), (row, gene)), shape=(len(kind), n_genes)).tocsr()
    X.sum_duplicates()
    return X


def compare(real, simulated) -> pd.DataFrame:
    """How far a simulated set of counts is from a real one, statistic by statistic.

    Parameters
    ----------
    real, simulated : AnnData
        Counts of the same genes.

    Returns
    -------
    DataFrame
        Indexed by statistic: ``distance`` and ``within``, the same between two random halves of the real cells, which
        is what chance alone does. ``mean``: mean absolute difference of the genes' log10 means; ``variance`` and
        ``zeros``: of log10 variance and of the share of zeros, among genes of the same mean; ``depth``: Wasserstein
        distance of log10 counts a cell; ``correlation``: of the correlations between genes, Wasserstein.
    """
    if list(real.var_names) != list(simulated.var_names):
        raise DataError("the two sets have different genes: simulate with like(real), or align them first")
    a, b = (_counts_of(x) for x in (real, simulated))
    order = np.random.default_rng(0).permutation(a.shape[0])
    halves = a[order[::2]], a[order[1::2]]
    table = pd.DataFrame({"distance": _distances(a, b), "within": _distances(*halves)})
    return table.rename_axis("statistic")


def summary(X) -> dict[str, np.ndarray]:
    """What :func:`compare` and its figure look at: per-gene ``mean``, ``variance``, ``zeros``; per-cell ``depth``;
    ``correlation`` of the two hundred genes with the highest mean, after log-normalising."""
    X = sparse.csr_matrix(X, dtype=np.float64)
    mean = np.asarray(X.mean(0)).ravel()
    square = np.asarray(X.multiply(X).mean(0)).ravel()
    depth = np.asarray(X.sum(1)).ravel()
    top = np.argsort(-mean, kind="stable")[:200]
    logged = np.log1p(X[:, top].toarray() * (1e4 / np.maximum(depth, 1))[:, None])
    logged = logged[:, logged.std(0) > 0]
    correlation = np.corrcoef(logged, rowvar=False)[np.triu_indices(logged.shape[1], 1)]
    zeros = 1 - np.asarray((X > 0).mean(0)).ravel()
    return {"mean": mean, "variance": square - mean**2, "zeros": zeros, "depth": depth, "correlation": correlation}


def _counts_of(adata):
    return sparse.csr_matrix(adata.layers.get("counts", adata.X), dtype=np.float64)


def _distances(a, b):
    from scipy.stats import wasserstein_distance

    a, b = summary(a), summary(b)
    seen = (a["mean"] > 0) & (b["mean"] > 0)
    ours, others = (np.log10(x["mean"][seen]) for x in (a, b))
    edges = np.quantile(ours, np.linspace(0, 1, 21)[1:-1])
    bins, theirs = np.digitize(ours, edges), np.digitize(others, edges)

    def along(values):
        one, two = (pd.Series(v[seen]).groupby(where).median() for v, where in zip(values, (bins, theirs), strict=True))
        return float((one - two).abs().mean())

    logs = [np.log10(np.maximum(x["variance"], 1e-12)) for x in (a, b)]
    return {
        "mean": float(np.abs(ours - others).mean()),
        "variance": along(logs),
        "zeros": along((a["zeros"], b["zeros"])),
        "depth": wasserstein_distance(np.log10(1 + a["depth"]), np.log10(1 + b["depth"])),
        "correlation": wasserstein_distance(a["correlation"], b["correlation"]),
    }


# What the functions share.


def _names(labels) -> list[str]:
    if isinstance(labels, (int, np.integer)) and not isinstance(labels, bool):
        if labels < 1:
            raise DataError(f"labels={labels}: at least one type is needed")
        return [NAMES[i] if i < len(NAMES) else f"Type {i + 1}" for i in range(labels)]
    names = [str(n) for n in labels]
    if not names or len(set(names)) < len(names):
        raise DataError(f"labels={labels!r}: give different names, at least one")
    return names


def _options(*, whole=(), positive=(), least=(), share=()):
    for name, value in dict(whole).items():
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise DataError(f"{name}={value!r} is not a whole number from 1 up")
    for name, value in dict(positive).items():
        if not (np.isscalar(value) and np.isfinite(value) and value > 0):
            raise DataError(f"{name}={value!r} is not a positive number")
    for name, value in dict(least).items():
        if not (np.isscalar(value) and np.isfinite(value) and value >= 0):
            raise DataError(f"{name}={value!r} is not a number from 0 up")
    for name, value in dict(share).items():
        if not (np.isscalar(value) and 0 <= value <= 1):
            raise DataError(f"{name}={value!r} is a share: from 0 to 1")


def _programmes(rng, n_genes, n_types, effect):
    """How much each gene is expressed at all, and the programmes of the types: a tenth of the genes each, and a fifth
    that two or more types share. Log rates."""
    base = 1.8 * rng.normal(size=n_genes)
    own = (rng.random((n_types, n_genes)) < 0.1) * rng.normal(size=(n_types, n_genes))
    n_shared = max(1, n_types // 2)
    shared = (rng.random((n_shared, n_genes)) < 0.2) * rng.normal(size=(n_shared, n_genes))
    loading = rng.random((n_types, n_shared))
    return {"base": base, "types": effect * (own + loading @ shared)}


def _given(programmes, n_genes, names):
    base, types = np.asarray(programmes["base"], float), np.asarray(programmes["types"], float)
    if base.shape != (n_genes,) or types.shape != (len(names), n_genes):
        raise DataError(
            f"programmes are for {types.shape[0]} types × {types.shape[1]} genes, asked are {len(names)} × {n_genes}"
        )
    return {"base": base, "types": types}


def _shares(rng, n_batches, n_types, composition, proportions):
    common = np.ones(n_types) if proportions is None else np.asarray(proportions, float)
    if common.shape != (n_types,) or not (common >= 0).all() or not common.sum() > 0:
        raise DataError(f"proportions={proportions!r}: one share for each of {n_types} types, none negative")
    common = common / common.sum()
    own = rng.dirichlet(np.ones(n_types), n_batches)
    return (1 - composition) * common + composition * own


def _kinds(rng, batch, shares, confounding):
    """The type of each cell: from its batch's shares, or, with probability `confounding`, one of its batch's own."""
    n_batches, n_types = shares.shape
    kind = np.array([rng.choice(n_types, p=shares[b]) for b in batch], dtype=int)
    if confounding:
        mine = [np.flatnonzero(np.arange(n_types) % n_batches == b % n_types) for b in range(n_batches)]
        mine = [m if len(m) else np.array([b % n_types]) for b, m in enumerate(mine)]
        tied = rng.random(len(batch)) < confounding
        kind = np.where(tied, [rng.choice(mine[b]) for b in batch], kind)
    return kind


def _softmax(eta):
    eta = np.exp(eta - eta.max(-1, keepdims=True))
    return eta / eta.sum(-1, keepdims=True)


def _counts(rng, mean, dispersion, dropout):
    """Negative binomial counts, float32; `dispersion` a number or one a gene."""
    rate = mean
    if np.any(np.asarray(dispersion) > 0):
        safe = np.maximum(dispersion, 1e-8)
        rate = mean * np.where(np.asarray(dispersion) > 1e-8, rng.gamma(1 / safe, safe, mean.shape), 1.0)
    counts = rng.poisson(rate).astype(np.float32)
    if dropout:
        counts[rng.random(mean.shape) < dropout * np.exp(-mean)] = 0
    return counts


def _gene_names(n):
    return pd.Index([f"SIM{i + 1:05d}" for i in range(n)], dtype=object)


def _made(X, obs, truth, genes, units):
    genes = _gene_names(X.shape[1]) if genes is None else pd.Index([str(g) for g in genes], dtype=object)
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
