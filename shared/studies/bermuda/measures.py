"""What is measured of an embedding: mixing, types, names given across batches, neighbours kept, and lone types."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from sklearn.decomposition import PCA
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from shared.evaluate.mixing import batch_entropy, integration_scores
from shared.studies.bermuda.arms import Made
from shared.studies.bermuda.tasks import UNKNOWN

K = 15


def all_rows(fits: Sequence[Made], cells, seed: int, *, scib: Sequence[str] = ()) -> list[dict]:
    """A row of numbers for each setting of an arm.

    Parameters
    ----------
    fits : sequence of Made
        Of :func:`shared.studies.bermuda.arms.embed_all`.
    cells : AnnData
        Of :func:`shared.studies.bermuda.tasks.draw`.
    seed : int
        Of the clusters by k-means.
    scib : sequence of str
        Data sets for whose first seed the chosen row has the scores of the package scib-metrics too.
    """
    own, found = own_neighbours(cells), []
    for i, made in enumerate(fits):
        row = {"setting": i, **made.setting, **made.facts, "cpu": made.cpu}
        found.append(row | scores(made.Z, cells, own, seed))
    if seed == 0 and cells.uns["name"] in scib:
        best = max(range(len(found)), key=lambda i: found[i]["choice"])
        found[best] |= scib_scores(fits[best].Z, cells)
    return found


def scores(Z, cells, own, seed: int = 0) -> dict[str, float]:
    """Scores of one embedding: ``choice``, which needs no type, and those that do."""
    batch, y = (cells.obs[name].to_numpy(str) for name in ("batch", "cell_type"))
    found = integration_scores(Z, batch, y, random_state=seed)
    found |= {"kept": kept(Z, batch, own), "accuracy": across(Z, cells)}
    found["choice"] = (np.clip(found["ilisi"], 0, 1) + found["kept"]) / 2
    return found


def own_neighbours(cells, n_components: int = 20) -> dict[str, np.ndarray]:
    """The nearest cells of the same batch to each cell, in components of its own batch: a table for each batch."""
    batch, found = cells.obs["batch"].to_numpy(str), {}
    for name in np.unique(batch):
        X = cells.X[batch == name]
        Z = PCA(min(n_components, *X.shape), svd_solver="full").fit_transform(X)
        found[name] = _near(Z, min(K, len(Z) - 1))
    return found


def kept(Z, batch, own) -> float:
    """Share of the neighbours of a cell in its own batch that are its neighbours there in the embedding too."""
    shares = []
    for name, before in own.items():
        after = _near(Z[batch == name], before.shape[1])
        shares += [len(np.intersect1d(a, b)) / len(a) for a, b in zip(before, after, strict=True)]
    return float(np.mean(shares))


def _near(Z, k):
    return NearestNeighbors(n_neighbors=k).fit(Z).kneighbors(return_distance=False)


def across(Z, cells) -> float:
    """Balanced accuracy of :data:`K` nearest neighbours of known type on all cells of the other batches.

    Cells whose type the reference batch lacks are not asked.
    """
    known, y = cells.obs["known"].to_numpy(str), cells.obs["cell_type"].to_numpy(str)
    learn = known != UNKNOWN
    test = ~learn & np.isin(y, known[learn])
    model = KNeighborsClassifier(min(K, int(learn.sum()))).fit(Z[learn], known[learn])
    return float(balanced_accuracy_score(y[test], model.predict(Z[test])))


def lone_rows(fits: Iterable[Made], cells, seed: int) -> Iterator[dict]:
    """Where the cells of a type that was left out of one batch lie: a row for each setting.

    ``foreign`` is the share of other batches' cells among the nearest neighbours of the lone cells, ``entropy`` that of
    the batches among them, ``own`` the share of their own type, and ``nearest`` the most frequent other type with
    ``share``, its share.
    """
    batch, y = (cells.obs[name].to_numpy(str) for name in ("batch", "cell_type"))
    lone = np.flatnonzero((y == cells.uns["without"][1]) & (batch != cells.uns["without"][0]))
    for i, made in enumerate(fits):
        near = _near(made.Z, min(K, len(y) - 1))[lone]
        kinds, n = np.unique(y[near], return_counts=True)
        other = kinds != cells.uns["without"][1]
        row = {"foreign": float((batch[near] == cells.uns["without"][0]).mean()), "cells": float(len(lone))}
        row |= {
            "entropy": float(batch_entropy(made.Z, batch, 30)[lone].mean()),
            "own": float(n[~other].sum() / n.sum()),
        }
        if other.any():
            row |= {"nearest": str(kinds[other][n[other].argmax()]), "share": float(n[other].max() / n.sum())}
        yield {"setting": i, **made.facts, "cpu": made.cpu} | row


def scib_scores(Z, cells) -> dict[str, float]:
    """Scores of scib-metrics (NaN where it is not installed): ``scib_mixing``, ``scib_types`` and ``scib_total``.

    Mixing: iLISI, kBET, the batches' silhouette and graph connectivity. Types: cLISI, the types' silhouette, and ARI
    and NMI of k-means. The total is 0.4 of the first and 0.6 of the second.
    """
    names = "scib_mixing", "scib_types", "scib_total"
    if importlib.util.find_spec("scib_metrics") is None:
        return dict.fromkeys(names, np.nan)
    import scib_metrics as scib
    from scib_metrics.nearest_neighbors import NeighborsResults

    batch, y = (np.unique(cells.obs[name].to_numpy(str), return_inverse=True)[1] for name in ("batch", "cell_type"))
    Z = np.asarray(Z, np.float32)
    far, near = NearestNeighbors(n_neighbors=min(90, len(Z))).fit(Z).kneighbors(Z)
    graph = NeighborsResults(indices=near, distances=far)
    few = NeighborsResults(indices=near[:, :15], distances=far[:, :15])
    mixing = [
        scib.ilisi_knn(graph, batch),
        scib.kbet_per_label(NeighborsResults(indices=near[:, :50], distances=far[:, :50]), batch, y),
        scib.silhouette_batch(Z, y, batch),
        scib.graph_connectivity(few, y),
    ]
    clusters = scib.nmi_ari_cluster_labels_kmeans(Z, y)
    types = [scib.clisi_knn(graph, y), scib.silhouette_label(Z, y), clusters["ari"], clusters["nmi"]]
    mixing, types = float(np.mean(mixing)), float(np.mean(types))
    return dict(zip(names, (mixing, types, 0.4 * mixing + 0.6 * types), strict=True))
