"""Pairs of domains under the same genes and types, and what one seed makes of a pair.

A task has a source, all of whose cells have a type, and a target, whose types are for the test and for yardsticks. A
data set may hold several tasks, which share cells: what the next study would vary is the data set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from scipy import sparse

from shared.data import simulate
from shared.data.errors import DataError
from shared.studies.mirror import read_mirror
from shared.studies.scbert.blood import residual_variance

RUNS, MIXOLOGY, TECHNOLOGIES = "blood, two runs", "cell lines, five batches", "blood, three technologies"
STIMULATED, SPECIES, TUMOURS = "blood, stimulated", "islets, two species", "lines to tumours"
FILES = {
    MIXOLOGY: "cell_lines_sc_mixology_5batches",
    TECHNOLOGIES: "pbmc_10x_3tech_1200",
    STIMULATED: "pbmc_kang_ifnb_muscat_1556",
    SPECIES: "pancreas_baron_human_mouse_350",
}
DATA_SETS = RUNS, *FILES, TUMOURS
LEAST = 8  # cells of a type in each domain: of fewer, a part may hold none
UNKNOWN = ""  # the type of a target cell that nobody named


class Domain(NamedTuple):
    """Cells of one domain.

    Attributes
    ----------
    X : float32 ndarray or CSR, cells × genes
        ln(1 + counts per 10,000); of bulk samples, genes standardised within each sample.
    y : ndarray of str
        Types.
    """

    X: np.ndarray | sparse.csr_matrix
    y: np.ndarray

    def at(self, rows, genes=None) -> Domain:
        """Some of the cells, dense where genes are chosen too."""
        X = self.X[rows]
        if genes is not None:
            X = X[:, genes]
            X = np.asarray(X.toarray() if sparse.issparse(X) else X, np.float32)
        return Domain(X, self.y[rows])


class Task(NamedTuple):
    """A source and a target with the same genes and the same types, but for target cells of no known type.

    Attributes
    ----------
    name, data_set : str
    source, target : Domain
    counts : bool
        Whether values come of counts, which says how genes are chosen.
    """

    name: str
    data_set: str
    source: Domain
    target: Domain
    counts: bool = True


class Drawn(NamedTuple):
    """What one seed makes of a task, on the chosen genes.

    Attributes
    ----------
    name : str
        Of the task.
    train, held : Domain
        Source cells to learn from, and held-out ones.
    adapt : Domain
        Target cells to learn from; what they are called is for yardsticks alone.
    test : Domain
        Target cells that nothing learns from.
    """

    name: str
    train: Domain
    held: Domain
    adapt: Domain
    test: Domain


def cp10k(counts, totals=None) -> sparse.csr_matrix:
    """ln(1 + counts per 10,000); `totals` are those of all genes, where `counts` has some of them only."""
    X = sparse.csr_matrix(counts, dtype=np.float32, copy=True)
    totals = np.asarray(X.sum(1)).ravel() if totals is None else np.asarray(totals)
    X.data = np.log1p(X.data * np.repeat(1e4 / np.maximum(totals, 1), np.diff(X.indptr))).astype(np.float32)
    return X


def pair(name: str, data_set: str, source: Domain, target: Domain, counts: bool = True) -> Task:
    """A task of the types that both domains have :data:`LEAST` cells of, and of target cells of unknown type.

    Raises
    ------
    DataError
        If fewer than two types are left.
    """
    known = [dict(zip(*np.unique(one.y, return_counts=True), strict=True)) for one in (source, target)]
    kept = [k for k in known[0] if k != UNKNOWN and min(one.get(k, 0) for one in known) >= LEAST]
    if len(kept) < 2:
        raise DataError(f"{name}: {len(kept)} types have {LEAST} cells in both domains, and two or more are needed")
    return Task(
        name,
        data_set,
        source.at(np.flatnonzero(np.isin(source.y, kept))),
        target.at(np.flatnonzero(np.isin(target.y, [*kept, UNKNOWN]))),
        counts,
    )


def ordered_pairs(data_set: str, domains: Mapping[str, Domain]) -> list[Task]:
    """Every domain as the source of every other."""
    return [
        pair(f"{a} to {b}", data_set, domains[a], domains[b]) for a in domains for b in domains if a != b
    ]  # fmt: skip


def leave_one_out(data_set: str, domains: Mapping[str, Domain]) -> list[Task]:
    """Every domain as the target, with all others as one source, and the types that every domain has."""
    kinds = sorted(set.intersection(*({*one.y} for one in domains.values())))
    kept = {name: one.at(np.flatnonzero(np.isin(one.y, kinds))) for name, one in domains.items()}
    tasks = []
    for name in domains:
        others = [one for other, one in kept.items() if other != name]
        source = Domain(sparse.vstack([one.X for one in others]).tocsr(), np.concatenate([one.y for one in others]))
        tasks.append(pair(f"others to {name}", data_set, source, kept[name]))
    return tasks


def by(adata, column: str, totals=None) -> dict[str, Domain]:
    """Domains of a data set by a column of ``obs``."""
    X, y = cp10k(adata.layers.get("counts", adata.X), totals), adata.obs["cell_type"].to_numpy(str)
    of = adata.obs[column].to_numpy(str)
    return {name: Domain(X[of == name], y[of == name]) for name in np.unique(of)}


def by_sample(X) -> np.ndarray:
    """Bulk samples, each standardised over its own genes: float32."""
    X = np.asarray(X, np.float64)
    return ((X - X.mean(1, keepdims=True)) / X.std(1, keepdims=True)).astype(np.float32)


def unstable(lines, tumours, per_unstable: int = 2, seed: int = 0) -> Task:
    """Microsatellites of cell lines and of colorectal tumours: unstable or stable.

    The stable lines are cut, at random, to `per_unstable` times the unstable ones; those of low instability count as
    stable. Most tumours have no answer: they are there to adapt to.
    """
    common = [g for g in tumours.var_names if g in lines.var_names]
    answer = (
        lines.obs["msi"].astype("string").fillna("").map({"MSI-H": "unstable", "MSI-S": "stable", "MSI-L": "stable"})
    )
    y = answer.fillna(UNKNOWN).to_numpy(str)
    rng, high = np.random.default_rng(seed), np.flatnonzero(y == "unstable")
    low = rng.permutation(np.flatnonzero(y == "stable"))[: per_unstable * len(high)]
    rows = np.sort(np.r_[high, low])
    source = Domain(by_sample(lines[rows, common].X), y[rows])
    called = tumours.obs["msi"].astype("string").fillna("").map({"yes": "unstable", "no": "stable"}).fillna(UNKNOWN)
    target = Domain(by_sample(tumours[:, common].X), called.to_numpy(str))
    return pair("cell lines to colorectal tumours", TUMOURS, source, target, counts=False)


def of_files(files, load: Callable) -> tuple[dict[str, Task], dict[str, str]]:
    """All tasks by name, and the SHA-256 of the files of the mirror.

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
    found, hashes = read_mirror(files, list(FILES.values()))
    sets = {name: found[stem] for name, stem in FILES.items()}
    lines = sets[MIXOLOGY]
    sets[MIXOLOGY] = lines = lines[(lines.obs["demuxlet_cls"] != "DBL").to_numpy()].copy()
    lines.obs["experiment"] = lines.obs["batch"].astype(str).str.replace(r"_p\d$", "", regex=True)  # three are plates
    totals = sets[TECHNOLOGIES].obs["n_counts_all_genes"].to_numpy(float)
    tasks = [
        *ordered_pairs(RUNS, by(load("pbmc"), "run")),
        *leave_one_out(MIXOLOGY, by(lines, "experiment")),
        *ordered_pairs(TECHNOLOGIES, by(sets[TECHNOLOGIES], "batch", totals)),
        *ordered_pairs(STIMULATED, by(sets[STIMULATED], "batch")),
        *ordered_pairs(SPECIES, by(sets[SPECIES], "species")),
        unstable(load("gdsc"), load("colorectal")),
    ]
    return {task.name: task for task in tasks}, hashes


def simulated(n_cells: int = 320, n_genes: int = 60, seed: int = 0) -> dict[str, Task]:
    """Simulated tasks under the names of two data sets: two batches that differ by a shift of genes."""
    tasks = []
    for i, name in enumerate((RUNS, SPECIES)):
        how = {"labels": 4, "n_batches": 2, "location": 0.8, "effect": 0.9, "depth": 400}
        made = simulate.cells(n_cells, n_genes, seed=seed + i, **how)
        source, target = by(made, "batch").values()
        tasks.append(pair(f"simulated, {name}", name, source, target))
    return {task.name: task for task in tasks}


def share_gap(task: Task) -> float:
    """Half the summed differences of the shares of the types in both domains: 0 for equal shares, 1 for no overlap."""
    kinds = sorted({*task.source.y})
    shares = [np.array([(one.y == kind).mean() for kind in kinds]) for one in (task.source, labelled(task.target))]
    return float(np.abs(shares[0] - shares[1]).sum() / 2)


def labelled(cells: Domain) -> Domain:
    """Those whose type is known."""
    return cells.at(np.flatnonzero(cells.y != UNKNOWN))


def in_shares(y, rng) -> np.ndarray:
    """All rows in an order whose every beginning holds the types in about their shares, at random within a type."""
    place = np.empty(len(y))
    for kind in np.unique(y):
        mine = np.flatnonzero(y == kind)
        place[rng.permutation(mine)] = (np.arange(len(mine)) + rng.random()) / len(mine)
    return np.argsort(place, kind="stable")


def halves(task: Task, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the target to adapt to, and to test on; those of unknown type are only adapted to."""
    order = in_shares(task.target.y, np.random.default_rng((seed, 1)))
    known = order[task.target.y[order] != UNKNOWN]
    test = np.concatenate([known[task.target.y[known] == kind][::2] for kind in np.unique(task.target.y[known])])
    return order[~np.isin(order, test)], test


def variable(task: Task, parts, n_genes: int) -> np.ndarray:
    """Places of the genes that vary most, in the mean over some parts of cells."""
    score = np.mean([residual_variance(X) if task.counts else np.asarray(X).var(0) for X in parts], 0)
    return np.sort(np.argsort(-score, kind="stable")[:n_genes])


def draw(task: Task, seed: int, *, n_genes: int = 500, most: int = 256) -> Drawn:
    """Two thirds of the source to learn from, a third held out; half of the target to adapt to, half to test on.

    A part has `most` cells at most, half as many held out, drawn with types in their shares. Genes are chosen by the
    training part of the source and by the target cells to adapt to, both without labels.
    """
    order = in_shares(task.source.y, np.random.default_rng((seed, 0)))
    train, held = order[: min(most, 2 * len(order) // 3)], order[-min(most // 2, len(order) // 3) :]
    adapt, test = halves(task, seed)
    adapt, test = adapt[:most], in_shares_of(task.target.y, test, most, seed)
    if (task.target.y == UNKNOWN).any():  # all that have an answer, for the yardsticks, and others beside them
        rest, _ = halves(task, seed)
        known = task.target.y[rest] != UNKNOWN
        adapt = np.r_[rest[known], rest[~known]][:most]
    genes = variable(task, (task.source.X[train], task.target.X[adapt]), n_genes)
    parts = (task.source, train), (task.source, held), (task.target, adapt), (task.target, test)
    return Drawn(task.name, *(one.at(np.sort(rows), genes) for one, rows in parts))


def in_shares_of(y, rows, most: int, seed: int) -> np.ndarray:
    """Some of `rows` at most, types in their shares."""
    return rows[in_shares(y[rows], np.random.default_rng((seed, 2)))[:most]]


def drawn(task: Task, seed: int, **how) -> tuple[Drawn, Drawn]:
    """:func:`draw` as :func:`shared.studies.run` takes data: the arms get it, and so do the measures."""
    one = draw(task, seed, **how)
    return one, one
