"""Blood cells of five sources under the same gene symbols: what a seed learns from, takes labels from, and tests on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.model_selection import train_test_split

from shared.data import simulate, to_symbols
from shared.data.cache import sha256
from shared.data.errors import DataError
from shared.preprocess import log_normalize

SORTED, OTHER, UNSORTED = "sorted blood", "other donors", "unsorted blood"
FILES = {SORTED: "pbmc_zheng_facs_3774", "pbmc3k": "pbmc3k_2638"}
SMALL = ("CellTypist", "10x 5k", "10x 10k")
UNLABELLED = dict(zip(SMALL, ("celltypist-immune", "pbmc5k-protein", "pbmc10k-protein"), strict=True))
# Of a task: the set with the labels, the set with the test cells (None: a part of the first), further sets to learn
# from. The bundled blood lists other genes than the files do, so the tasks have separate corpora.
TASKS = {
    SORTED: (SORTED, None, ("pbmc3k", *SMALL)), OTHER: ("run 1", OTHER, SMALL), UNSORTED: (SORTED, "pbmc3k", SMALL)
}  # fmt: skip
# Clusters of pbmc3k that are named as a sorted type is. Other clusters and types have no counterpart, or several.
AS_SORTED = {
    "B": "CD19+ B", "CD14+ Mono": "CD14+ Monocyte", "NK": "CD56+ NK", "CD8 T": "CD8+ Cytotoxic T",
    "Memory CD4 T": "CD4+/CD45RO+ Memory", "Naive CD4 T": "CD4+/CD45RA+/CD25- Naive T",
}  # fmt: skip


class Cells(NamedTuple):
    """Some cells.

    Attributes
    ----------
    X : float32 CSR, cells × genes
        ln(1 + counts per 10,000), of the depth of all genes that were measured.
    y : ndarray of str
        Types.
    groups : ndarray of str
        What some of them share, such as a lane of the instrument.
    """

    X: sparse.csr_matrix
    y: np.ndarray
    groups: np.ndarray

    def at(self, rows=slice(None), genes=slice(None)) -> Cells:
        """Some of the cells and genes."""
        return Cells(self.X[rows][:, genes], self.y[rows], self.groups[rows])


class Split(NamedTuple):
    """What one seed makes of a task.

    Attributes
    ----------
    corpus : float32 CSR, cells × chosen genes
        Everything but test cells, labels unseen.
    train, test : Cells
        Cells to draw labels from, and test cells, with all common genes.
    chosen : int64 ndarray
        Places of the chosen genes among those.
    genes : list of str
        Names of the chosen.
    """

    corpus: sparse.csr_matrix
    train: Cells
    test: Cells
    chosen: np.ndarray
    genes: list


def of_files(files, load) -> tuple[dict, dict]:
    """Counts of all sets under gene symbols, by name, and the SHA-256 of the files.

    Parameters
    ----------
    files : sequence of path
        In which those of :data:`FILES` are looked for.
    load : callable
        ``load(name)`` gives an AnnData that comes with the book or with a package.

    Raises
    ------
    DataError
        If a file is missing.
    """
    paths = {path.stem: path for path in map(Path, files)}
    if lacking := [name for name in FILES.values() if name not in paths]:
        raise DataError(
            f"{' and '.join(lacking)} are in no folder of BORROWED_MIRROR: the study's page says where these cells can "
            "be had; profile='smoke' takes simulated ones"
        )
    sets = {name: ad.read_h5ad(paths[stem]) for name, stem in FILES.items()}
    sets["pbmc3k"].obs["cell_type"] = sets["pbmc3k"].obs["cell_type"].astype(str).replace(AS_SORTED)
    blood = load("pbmc")
    for run, name in (("run1", "run 1"), ("run2", OTHER)):
        sets[name] = blood[blood.obs["run"] == run].copy()
    sets |= {name: load(known) for name, known in UNLABELLED.items()}
    return {name: to_symbols(one)[0] for name, one in sets.items()}, {
        stem: sha256(paths[stem]) for stem in FILES.values()
    }


def simulated(seed: int = 0, **options) -> tuple[dict, dict]:
    """Simulated sets under the same names."""
    names = [*FILES, "run 1", OTHER, *SMALL]
    sets = dict(zip(names, simulate.many(len(names), seed=seed, **options), strict=True))
    for i, name in enumerate((OTHER, "run 1")):
        sets[name].obs["lane"] = [f"lane {j % 3 + 3 * i}" for j in range(sets[name].n_obs)]
    return sets, {}


def logs(sets: Mapping) -> dict[str, tuple]:
    """Of each set its cells with all its genes, and the names of these."""
    found = {}
    for name, one in sets.items():
        X = sparse.csr_matrix(one.layers.get("counts", one.X), dtype=np.float32)
        types = one.obs.get("cell_type", pd.Series("", one.obs_names)).to_numpy(str)
        lanes = one.obs.get("lane", pd.Series(name, one.obs_names)).to_numpy(str)
        found[name] = Cells(log_normalize(X).astype(np.float32).tocsr(), types, lanes), one.var_names
    return found


def residual_variance(X) -> np.ndarray:
    """Variance of every gene's Pearson residuals (Lause and others, 2021): what it varies beyond depth and chance.

    `X` holds ln(1 + counts per 10,000), cells × genes; counts per 10,000 stand for counts, with an overdispersion of
    1/100, and residuals are clipped at the root of the number of cells.
    """
    X = np.expm1(X.toarray() if sparse.issparse(X) else X) / 5  # about the counts of a cell of 2,000
    mean = X.sum(1, keepdims=True) @ X.sum(0, keepdims=True) / max(X.sum(), 1e-9)
    residual = (X - mean) / np.sqrt(mean + mean**2 / 100 + 1e-9)
    return residual.clip(-np.sqrt(len(X)), np.sqrt(len(X))).var(0)


def split(cells: Mapping, seed: int, *, task: str, n_genes: int, test: float = 0.5) -> Split:
    """Test cells of this seed, everything else as corpus, and the genes that vary most in it.

    Sorted blood is split at random within its types, as the published audit did. Of the other tasks the cells of
    another set are tested whatever the seed, and only types that both sets have are labelled and tested. A gene's score
    is its mean over the sets of the corpus; test cells have no say.

    Parameters
    ----------
    cells : mapping
        Of :func:`logs`.
    seed : int
        Of the split.
    n_genes : int
        To choose.
    task : str
        Of :data:`TASKS`.
    test : float
        Share of test cells, where a set is split.
    """
    labelled, tested, others = TASKS[task]
    used = {name: cells[name] for name in (labelled, tested, *others) if name}
    genes = sorted(set.intersection(*(set(names) for _, names in used.values())))
    laid = {name: one.at(genes=names.get_indexer(genes)) for name, (one, names) in used.items()}
    train, rest = laid[labelled], laid.get(tested)
    if rest is None:
        rows = np.arange(len(train.y))
        kept, out = train_test_split(rows, test_size=test, stratify=train.y, random_state=seed)
        train, rest = train.at(np.sort(kept)), train.at(np.sort(out))
    corpus = [train.X, *(laid[name].X for name in others)]
    both = np.intersect1d(train.y, rest.y)
    train, rest = (one.at(np.flatnonzero(np.isin(one.y, both))) for one in (train, rest))
    score = np.mean([residual_variance(X) for X in corpus], 0)
    chosen = np.sort(np.argsort(-score, kind="stable")[:n_genes])
    stacked = sparse.vstack([X[:, chosen] for X in corpus]).tocsr()
    return Split(stacked, train, rest, chosen, [genes[i] for i in chosen])


def draw(y, share: float, seed: int) -> np.ndarray:
    """Rows to label: of each type a share, rounded up, at random; a larger share holds those of a smaller one."""
    rng, place = np.random.default_rng((seed, 7)), np.zeros(len(y))
    for kind in np.unique(y):
        mine = np.flatnonzero(y == kind)
        place[rng.permutation(mine)] = np.arange(len(mine)) / len(mine)
    return np.flatnonzero(place < share)


def parted(cells: Mapping, seed: int, *, task: str, n_genes: int):
    """:func:`split` as :func:`shared.studies.run` takes data: what is learned from, and nothing beside it."""
    return split(cells, seed, task=task, n_genes=n_genes), None
