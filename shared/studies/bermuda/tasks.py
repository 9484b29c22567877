"""Cells of several batches under the same genes, and what one seed makes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from shared.data import simulate
from shared.data.errors import DataError
from shared.studies.domain_adaptation.tasks import cp10k
from shared.studies.mirror import read_mirror
from shared.studies.scbert.blood import residual_variance

RUNS, MIXOLOGY, TECHNOLOGIES = "blood, two runs", "cell lines, five batches", "blood, three technologies"
PROTEINS, STIMULATED, SPECIES = "blood, proteins", "blood, stimulated", "islets, two species"
FILES = {
    MIXOLOGY: ["cell_lines_sc_mixology_5batches"],
    TECHNOLOGIES: ["pbmc_10x_3tech_1200"],
    PROTEINS: ["pbmc_citeseq_adt_4644", "pbmc_asapseq_adt_4502"],
    STIMULATED: ["pbmc_kang_ifnb_muscat_1556"],
    SPECIES: ["pancreas_baron_human_mouse_350"],
}
DATA_SETS = RUNS, *FILES
REMOVED_FROM = RUNS, PROTEINS  # two batches each, and types enough to remove one after another
LEAST = 8  # cells of a type in the whole data set; rarer ones are left out
UNKNOWN = ""


class Problem(NamedTuple):
    """All cells of a data set.

    Attributes
    ----------
    name : str
    X : float32 CSR, cells × genes
        ln(1 + counts per 10,000); of proteins ln(1 + count).
    counts : float32 CSR, cells × genes
    batch, y : ndarray of str, cells
        Batches and types.
    """

    name: str
    X: sparse.csr_matrix
    counts: sparse.csr_matrix
    batch: np.ndarray
    y: np.ndarray

    @property
    def reference(self) -> str:
        """The batch whose types are known: the one with most types, then with most cells."""
        found = pd.Series(self.y).groupby(self.batch).agg(["nunique", "size"])
        return found.sort_values(["nunique", "size"], kind="stable").index[-1]


def problem(name: str, X, counts, batch, y) -> Problem:
    """A problem without the types that have fewer than :data:`LEAST` cells.

    Raises
    ------
    DataError
        If fewer than two types or two batches are left.
    """
    batch, y = np.asarray(batch).astype(str), np.asarray(y).astype(str)
    n = pd.Series(y).map(pd.Series(y).value_counts()).to_numpy()
    rows = np.flatnonzero((n >= LEAST) & (y != UNKNOWN))
    for what, values in (("types", y[rows]), ("batches", batch[rows])):
        if len(np.unique(values)) < 2:
            raise DataError(f"{name}: {len(np.unique(values))} {what} are left, and two or more are needed")
    X, counts = (sparse.csr_matrix(some, dtype=np.float32)[rows] for some in (X, counts))
    return Problem(name, X, counts, batch[rows], y[rows])


def of_counts(name: str, adata, column: str = "batch", totals=None) -> Problem:
    """A problem of counts, by a column of ``obs``."""
    counts = adata.layers.get("counts", adata.X)
    return problem(name, cp10k(counts, totals), counts, adata.obs[column], adata.obs["cell_type"])


def of_proteins(name: str, *sets) -> Problem:
    """A problem of the proteins that all sets measured; their values are ln(1 + count)."""
    common = sets[0].var_names
    for one in sets[1:]:
        common = common[common.isin(one.var_names)]
    X = np.concatenate([np.asarray(one[:, common].X, np.float32) for one in sets])
    obs = pd.concat([one.obs for one in sets])
    y = obs["cell_type"].astype(str).replace("unknown", UNKNOWN)
    return problem(name, X, np.rint(np.expm1(X)), obs["batch"], y)


def of_files(files: Iterable, load: Callable) -> tuple[dict[str, Problem], dict[str, str]]:
    """All problems by name, and the SHA-256 of the files of the mirror.

    Parameters
    ----------
    files : iterable of path
        In which those of :data:`FILES` are looked for.
    load : callable
        ``load(name)`` gives an AnnData of the catalogue.

    Raises
    ------
    DataError
        If a file is missing.
    """
    found, hashes = read_mirror(files, [stem for stems in FILES.values() for stem in stems])
    sets = {name: [found[stem] for stem in stems] for name, stems in FILES.items()}
    (lines,), (technologies,) = sets[MIXOLOGY], sets[TECHNOLOGIES]
    lines = lines[(lines.obs["demuxlet_cls"] != "DBL").to_numpy()]
    problems = [
        of_counts(RUNS, load("pbmc"), "run"),
        of_counts(MIXOLOGY, lines),
        of_counts(TECHNOLOGIES, technologies, totals=technologies.obs["n_counts_all_genes"].to_numpy(float)),
        of_proteins(PROTEINS, *sets[PROTEINS]),
        of_counts(STIMULATED, *sets[STIMULATED]),
        of_counts(SPECIES, *sets[SPECIES], "species"),
    ]
    return {one.name: one for one in problems}, hashes


def simulated(n_cells: int = 240, n_genes: int = 60, seed: int = 0) -> dict[str, Problem]:
    """Simulated problems under the names of two data sets: two batches that differ in a shift of each gene."""
    how = {"labels": 4, "n_batches": 2, "location": 0.3, "gene_specific": 0.6, "depth": 400}
    made = {name: simulate.cells(n_cells, n_genes, seed=seed + i, **how) for i, name in enumerate(REMOVED_FROM)}
    return {name: of_counts(name, one) for name, one in made.items()}


def draw(
    one: Problem, seed: int, *, n_genes: int = 300, most: int = 600, without: tuple[str, str] | None = None
) -> ad.AnnData:
    """Some cells of each batch, and the genes that vary most in the mean of the batches; no type has a say in either.

    Parameters
    ----------
    one : Problem
        All cells.
    seed : int
        Of the cells.
    n_genes, most : int
        Genes, and cells of all batches together, of each at most its share.
    without : (batch, type), optional
        Cells that are then left out.

    Returns
    -------
    AnnData
        ``X``: float32 ndarray. ``layers["counts"]``. ``obs``: ``batch``, ``cell_type``, and ``known``, the type in
        the reference batch and :data:`UNKNOWN` elsewhere. ``uns``: ``name``, and ``without``, where cells were left
        out.
    """
    rng, names = np.random.default_rng((seed, 0)), np.unique(one.batch)
    share = most // len(names)
    rows = np.sort(np.concatenate([rng.permutation(np.flatnonzero(one.batch == name))[:share] for name in names]))
    if without is not None:
        rows = rows[~((one.batch[rows] == without[0]) & (one.y[rows] == without[1]))]
    batch, y = one.batch[rows], one.y[rows]
    score = np.mean([residual_variance(one.X[rows[batch == name]]) for name in names], 0)
    genes = np.sort(np.argsort(-score, kind="stable")[:n_genes])
    obs = pd.DataFrame({"batch": batch, "cell_type": y}, index=[str(i) for i in rows])
    obs["known"] = np.where(batch == one.reference, y, UNKNOWN)
    cells = ad.AnnData(one.X[rows][:, genes].toarray(), obs)
    cells.layers["counts"] = one.counts[rows][:, genes].copy()
    cells.uns["name"] = one.name
    if without is not None:
        cells.uns["without"] = list(without)
    return cells


def drawn(one: Problem, seed: int, **how) -> tuple[ad.AnnData, ad.AnnData]:
    """:func:`draw` as :func:`shared.studies.run` takes data: the arms get it, and so do the measures."""
    cells = draw(one, seed, **how)
    return cells, cells


def removals(problems: dict[str, Problem], least: int = 15, **how) -> dict[str, tuple[str, tuple[str, str]]]:
    """Which type to leave out of which batch: the name of its data set, and (batch, type), by a name of its own.

    Types with `least` cells in either batch of the first draw come in turn, and the batch they are taken from
    alternates.
    """
    found = {}
    for name in REMOVED_FROM:
        cells = draw(problems[name], 0, **how)
        n = pd.crosstab(cells.obs["cell_type"], cells.obs["batch"])
        for i, kind in enumerate(n.index[n.min(axis=1) >= least]):
            found[f"{name} without {kind}"] = name, (n.columns[i % 2], kind)
    return found
