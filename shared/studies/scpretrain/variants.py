"""One thing changed at a time, on small corpora: what a leak is worth, and what each part of the method adds.

Corpora hold one set of each study, so that a pre-training takes seconds. The numbers say what a change does there; how
good the method is on larger corpora, :mod:`shared.studies.scpretrain.left_out` says.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression

from shared.data import Corpus
from shared.data.errors import DataError
from shared.methods.scpretrain import MultiTaskNet, ScPretrain, cluster_numbers, cluster_step
from shared.nn.sparse import Rows
from shared.studies.scpretrain.left_out import own_genes, read_by, timed, tuned_by, widespread

VARIANTS = {
    "first clusters on components": {"space": "pca"},
    "Ward's method": {"clusterer": "ward"},
    "one partition": {},  # the first of the configuration's
    "one round": {"rounds": 1},
}
BASE, HUMAN, ZERO = "as published", "human cells alone", "zero rows"
LEAKS = ("cells of another study", "other cells of the same study", "the test cells")

# Differences of two of them: cells of one's own study, the very cells, and both.
STEPS = {"own_cells": (LEAKS[1], LEAKS[0]), "same_cells": (LEAKS[2], LEAKS[1]), "both": (LEAKS[2], LEAKS[0])}


def passed_on(others: Mapping, seed: int) -> Mapping:
    """The other studies' sets as they are: an arm for rows that pre-train for themselves."""
    return others


def one_a_study(sets: Mapping, studies: Mapping, most: int, seed: int = 0) -> dict:
    """The largest set of each study, and of each organism, with `most` cells at most."""
    found = {}
    for name, one in sorted(sets.items(), key=lambda item: -item[1].n_obs):
        found.setdefault((studies[name], one.uns["organism"]), name)
    chosen = {name: sets[name] for name in sets if name in found.values()}
    rng = np.random.default_rng(seed)
    return {name: one[np.sort(rng.permutation(one.n_obs)[:most])].copy() for name, one in chosen.items()}


def leak_rows(others: Mapping, own: Mapping, seed: int, *, config: dict, n_genes: int, labels: int, n_own: int = 2000):
    """What it is worth that the corpus held the test cells, without their labels.

    Three corpora with the same sets, and one more of equal size: cells of another study, cells of the same set that
    are not tested on, or the cells that are. The second minus the first is what unlabelled cells of one's own study
    give; the third minus the second is the leak.

    Parameters
    ----------
    others, own : mapping of str to AnnData
        As :func:`shared.studies.leave_one_out.folds` gives them.
    seed : int
        Of the halves, first weights and k-means.
    config, n_genes
        As in :func:`shared.studies.scpretrain.pretrained`.
    labels : int
        Labelled cells, of the half that is tested on.
    n_own : int, default 2000
        Genes that the network reads.

    Returns
    -------
    list of dict
        ``set``, ``arm`` (of :data:`LEAKS`), ``reading`` ("network" or "logistic"), and scores. None for a set whose
        half has no more than twice as many cells as `labels`.
    """
    rows, start = [], time.process_time()
    for name, adata in own.items():
        named = adata[adata.obs["cell_type"].notna()]
        order = np.random.default_rng((seed, 1)).permutation(named.n_obs)
        filler = max(others, key=lambda n: others[n].n_obs)
        m = min(named.n_obs // 2, others[filler].n_obs)
        if m <= 2 * labels:
            continue
        tested, aside = named[order[:m]].copy(), named[order[m : 2 * m]].copy()
        rest = {n: one for n, one in others.items() if n != filler}
        if not rest:
            raise DataError("the studies are too few: one fills up the corpus, and another has to be in it")
        some = np.sort(np.random.default_rng((seed, 2)).permutation(others[filler].n_obs)[:m])
        added = dict(zip(LEAKS, (others[filler][some].copy(), aside, tested)))
        genes, few = widespread(rest, n_genes), own_genes(tested, n_own)
        for arm, part in added.items():
            corpus = Corpus(rest | {"added": part}, genes=genes)
            model = ScPretrain(**config, random_state=seed).pretrain(corpus)
            rows += _read(model, few, tested, np.arange(labels), np.arange(labels, m), seed, name, arm)
    return timed(rows, start)


def _read(model, few, adata, train, test, seed, name, arm):
    """The network, and regression on the encoder's embedding."""
    y, about = adata.obs["cell_type"].to_numpy(str), {"set": name, "arm": arm}
    regression = LogisticRegression(C=100, max_iter=1000)
    return [
        about | {"reading": "network", **tuned_by(model, few, train, test, seed)},
        about | {"reading": "logistic", **read_by(model.transform(adata), y, train, test, regression)},
    ]


def variant_rows(others: Mapping, own: Mapping, seed: int, *, config: dict, n_genes: int, labels: int, n_own=2000):
    """The method as it is, and with one of :data:`VARIANTS` each, on the same labelled cells.

    Two more change no setting: mouse sets left out of the corpus, and zeros in place of random numbers as first weights
    of genes that the encoder does not know. Parameters and rows are those of :func:`leak_rows`.
    """
    rows, start = [], time.process_time()
    for name, adata in own.items():
        named = adata[adata.obs["cell_type"].notna()].copy()
        order = np.random.default_rng((seed, 1)).permutation(named.n_obs)
        if named.n_obs <= 2 * labels:
            continue
        train, test, few = order[:labels], order[labels:], own_genes(named, n_own)
        corpus = Corpus(others, genes=widespread(others, n_genes))
        human = [n for n, one in others.items() if one.uns["organism"] != "mouse"]
        for arm, settings in ({BASE: {}} | VARIANTS | {HUMAN: {}}).items():
            part = corpus.select(human) if arm == HUMAN else corpus
            model = ScPretrain(**config | settings, random_state=seed)
            if arm == "one partition":
                model.set_params(cells_per_cluster=model.cells_per_cluster[:1])
            model.pretrain(part)
            rows += _read(model, few, named, train, test, seed, name, arm)
            if arm == BASE:
                zero = with_zero_rows(model, few.var_names)
                rows += _read(zero, few, named, train, test, seed, name, ZERO)[:1]
    return timed(rows, start)


def with_zero_rows(model: ScPretrain, genes) -> ScPretrain:
    """The same encoder, which also knows `genes` it did not know: they begin at zero, not at random."""
    same, own = clone(model), model.pretrained_
    more = [g for g in genes if g not in set(own["genes"])]
    weight = np.vstack([own["weight"], np.zeros((len(more), own["weight"].shape[1]), np.float32)])
    same.pretrained_ = own | {"weight": weight, "genes": [*own["genes"], *more], "n_genes": len(weight)}
    return same


def measured_step(n_sets: int, seed: int = 0, n_genes: int = 17298, n_cells: int = 15209, density: float = 0.08):
    """Seconds of one optimisation step of pre-training, and MiB of its cells, on sets of the paper's mean size.

    The sets are simulated as counts at random places, `density` of the entries; the step takes a thirtieth of each.
    """
    rng, batch = np.random.default_rng(seed), n_cells // 30
    cells = [
        sparse.random_array((batch, n_genes), density=density, rng=rng, format="csr", dtype="f4") for _ in range(n_sets)
    ]
    ks = [cluster_numbers(n_cells)] * n_sets
    net = MultiTaskNet(n_genes, 200, ks)
    labels = [torch.from_numpy(np.stack([rng.integers(0, k, batch) for k in ks[0]], 1)) for _ in cells]
    optimizer, took = torch.optim.Adam(net.parameters(), lr=1e-4), []
    for _ in range(3):
        start = time.perf_counter()
        optimizer.zero_grad()
        cluster_step(net, Rows([sparse.csr_matrix(X) for X in cells], "cpu"), labels).backward()
        optimizer.step()
        took.append(time.perf_counter() - start)
    size = sum(X.data.nbytes + X.indices.nbytes + X.indptr.nbytes for X in cells)
    return min(took), size / 2**20
