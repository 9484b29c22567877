"""Labelled data sets of several studies, under human gene symbols, each with the study that made it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from shared.data import simulate, to_symbols
from shared.data.cache import sha256
from shared.data.errors import DataError
from shared.data.genes.kinds import gene_kind
from shared.data.genes.lists import shown
from shared.data.genes.translate import to_human

LEAST = 10  # cells of a type: of fewer, a test part of three tenths may hold none

# File (without .h5ad) → study, and the column of obs that makes several sets of it.
FILES = {
    "pbmc3k_2638": ("10x Genomics", None),
    "pbmc_10x_3tech_1200": ("10x Genomics", "batch"),
    "pbmc_zheng_facs_3774": ("10x Genomics", None),
    "pbmc": ("Hao", "run"),
    "pbmc_kang_ifnb_muscat_1556": ("Kang", "batch"),
    "cell_lines_sc_mixology_5batches": ("Tian", "batch"),
    "pancreas_baron_human_mouse_350": ("Baron", "species"),
    "pancreas_baron_segerstolpe_lawlor_528": ("", "study"),
    "pancreas_xin_674x1075": ("Xin", None),
    "pollen_11types_299": ("Pollen", None),
    "tabula_muris_kidney_facs_215": ("Tabula Muris", None),
}
NAMES = {
    "pbmc3k_2638": "pbmc3k", "pbmc_10x_3tech_1200": "blood", "pbmc_zheng_facs_3774": "sorted blood", "pbmc": "blood",
    "pbmc_kang_ifnb_muscat_1556": "blood", "cell_lines_sc_mixology_5batches": "cell lines",
    "pancreas_baron_human_mouse_350": "islets", "pancreas_baron_segerstolpe_lawlor_528": "islets, two types",
    "pancreas_xin_674x1075": "islets", "pollen_11types_299": "mixed", "tabula_muris_kidney_facs_215": "kidney",
}  # fmt: skip


# Of the catalogue, by its official routes: name → study, and the column that makes several sets of it.
OFFICIAL = {
    "pbmc3k": ("10x Genomics", None), "pbmc8k": ("10x Genomics", None), "zheng-beads": ("10x Genomics", None),
    "kang": ("Kang", "batch"), "sc-mixology": ("Tian", "batch"), "baron": ("Baron", None),
    "baron-mouse": ("Baron", None), "muraro": ("Muraro", None), "segerstolpe": ("Segerstolpe", None),
    "wang": ("Wang", None), "xin": ("Xin", None), "tabula-muris-facs": ("Tabula Muris", "batch"),
    "tabula-muris-droplet": ("Tabula Muris", "batch"),
}  # fmt: skip


def of_files(files, bundled=None, most: int = 1000, per_study: int = 3, seed: int = 0) -> tuple[dict, dict, dict]:
    """Data sets of the ``.h5ad`` files that :data:`FILES` names.

    Parameters
    ----------
    files : sequence of path
        Files of other names are passed over.
    bundled : AnnData, optional
        The book's ``pbmc``.
    most : int, default 1000
        Cells of each set at most, drawn at random: for all arms alike, and before anything is measured.
    per_study : int, default 3
        Sets of a study at most, the largest.
    seed : int
        Of that draw.

    Returns
    -------
    sets : dict of str to AnnData
        Counts, float32 CSR, cells × genes; ``obs["cell_type"]``, missing for types of fewer than ten cells, which are
        only learned from; ``obs["total"]``, counts of each cell over all genes that were measured;
        ``uns["organism"]``. Doublets are left out.
    studies : dict of str to str
    hashes : dict of str to str
        SHA-256 of each file.

    Raises
    ------
    DataError
        If a file is missing.
    """
    paths = {path.stem: path for path in map(Path, files) if path.stem in FILES}
    if lacking := [name for name in FILES if name not in paths and name != "pbmc"]:
        raise DataError(
            f"{shown(lacking)} are in no folder of BORROWED_MIRROR: the study's page says where these sets can be had; "
            "profile='full' takes whole sets by the catalogue's official routes"
        )
    hashes = {name: sha256(path) for name, path in paths.items()}
    found = {name: ad.read_h5ad(path) for name, path in paths.items()} | ({} if bundled is None else {"pbmc": bundled})
    sets, studies = _sets({name: (raw, *FILES[name]) for name, raw in found.items()}, most, seed)
    for study in dict.fromkeys(studies.values()):
        mine = sorted((name for name in sets if studies[name] == study), key=lambda name: -sets[name].n_obs)
        for name in mine[per_study:]:
            del sets[name], studies[name]
    return sets, studies, hashes


def of_catalogue(load) -> tuple[dict, dict]:
    """Whole data sets by the catalogue's official routes; what is missing here is printed with the reason.

    Parameters
    ----------
    load : callable
        ``load(name, route="official")``.

    Returns
    -------
    sets, studies
        As :func:`of_files` gives them.
    """
    found = {}
    for name, about in OFFICIAL.items():
        try:
            found[name] = (load(name, route="official"), *about)
        except DataError as missing:
            print(f"{name} is left out: {missing}")
    return _sets(found, None, 0)


def _sets(found, most, seed):
    sets, studies = {}, {}
    for key, (raw, study, column) in found.items():
        whole = _counts(raw, key)
        parts = {"": np.arange(whole.n_obs)}
        if column:
            parts = {f", {value}": rows for value, rows in whole.obs.groupby(column, observed=True).indices.items()}
        for value, rows in parts.items():
            mine = study or value[2:].title()
            name = f"{mine} {NAMES.get(key, key)}{value if study else ''}"
            keep = np.sort(np.random.default_rng(seed).permutation(rows)[:most])
            sets[name], studies[name] = _rare_unnamed(whole[keep].copy()), mine
            if column == "species":
                sets[name].uns["organism"] = value[2:]
    return sets, studies


def _counts(raw, key) -> ad.AnnData:
    X = sparse.csr_matrix(raw.layers.get("counts", raw.X), dtype=np.float32)
    if "xin" in key and X.max() < 50:  # stored as log2(1 + value)
        X.data = np.exp2(X.data) - 1
    total = raw.obs.get("n_counts_all_genes", pd.Series(np.asarray(X.sum(1)).ravel(), raw.obs_names))
    made = ad.AnnData(X, raw.obs.assign(total=total.astype(float)), raw.var[[]])
    if "demuxlet_cls" in made.obs:
        made = made[(made.obs["demuxlet_cls"] == "SNG").to_numpy()].copy()
    organism = gene_kind(made.var_names).organism
    made = to_human(made)[0] if organism == "mouse" else to_symbols(made)[0]
    made.uns = {"organism": organism or "human"}
    return made


def _rare_unnamed(adata) -> ad.AnnData:
    y = adata.obs["cell_type"].astype(object)
    adata.obs["cell_type"] = pd.Categorical(y.where(y.map(y.value_counts()) >= LEAST))
    return adata


def simulated(n: int = 4, seed: int = 0, **options) -> tuple[dict, dict, Mapping]:
    """Simulated sets in the same form: the first two of one study, the last of a mouse."""
    sets = {f"set {i + 1}": a for i, a in enumerate(simulate.many(n, seed=seed, **options))}
    for name, one in sets.items():
        one.X = sparse.csr_matrix(one.layers.get("counts", one.X), dtype=np.float32)
        one.obs["total"] = np.asarray(one.X.sum(1)).ravel()
        one.uns = {"organism": "mouse" if name == f"set {n}" else "human"}
    return sets, {name: "A" if i < 2 else f"study {i}" for i, name in enumerate(sets)}, {}
