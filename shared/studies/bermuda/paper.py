"""The paper's first simulation, and losses of published runs, which the survey's table can be compared with."""

from __future__ import annotations

import importlib.util
from typing import NamedTuple

import numpy as np
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score

from shared.data import simulate
from shared.evaluate.mixing import divergence
from shared.methods.bermuda import PUBLISHED, Bermuda
from shared.studies.bermuda.tasks import Problem, drawn

UNCORRECTED, PUBLISHED_RUN, DEFAULT = "uncorrected", "published", "default"
ARMS = UNCORRECTED, PUBLISHED_RUN, DEFAULT
VALUES = "total", "reconstruction", "transfer"


class Trained(NamedTuple):
    """An embedding, and the losses of each epoch.

    Attributes
    ----------
    Z : ndarray, cells × numbers
    losses : dict of str to ndarray, epochs
        :data:`VALUES`; empty where nothing was trained.
    facts : dict of str to float
    """

    Z: np.ndarray
    losses: dict
    facts: dict


def gaussian(seed: int, **how):
    """The paper's Gaussian cells, always the same: what a seed varies is the training."""
    cells = simulate.gaussian(seed=0, **how)
    return cells, cells


def first_draw(one: Problem, seed: int, **how):
    """Cells of a data set, always those of the first draw: what a seed varies is the training."""
    return drawn(one, 0, **how)


def fit(cells, seed: int, *, arm: str, epochs: int, threshold: float, n_clusters: int | None = None) -> Trained:
    """The uncorrected cells, or a training with the published or the default settings but for epochs and threshold.

    Parameters
    ----------
    cells : AnnData
        With ``batch`` in ``obs``.
    seed : int
        Of the training.
    arm : {"uncorrected", "published", "default"}
        Whose settings.
    epochs : int
        The learning rate is halved after each tenth of them, as in the published runs.
    threshold : float
        As the published run on these data took it.
    n_clusters : int, optional
        Cluster each batch by k-means, as was done where the published code was run at small scale.
    """
    batch = cells.obs["batch"].to_numpy(str)
    if arm == UNCORRECTED:
        return Trained(np.asarray(cells.X), {}, {})
    given = None
    if n_clusters:
        given = np.empty(len(batch), "U8")
        for name in np.unique(batch):
            rows = batch == name
            given[rows] = KMeans(n_clusters, n_init=5, random_state=0).fit_predict(cells.X[rows]).astype(str)
    how = PUBLISHED if arm == PUBLISHED_RUN else {}
    how = how | {"epochs": epochs, "lr_step": max(1, epochs // 10), "threshold": threshold}
    small = {"batch_size": 25} if len(cells) < 1000 else {}  # its epoch holds whole batches of the largest cluster
    model = Bermuda(**how, **small, device="cpu", random_state=seed)
    Z = model.fit_transform(cells.X, batch=batch, clusters=given)
    rows = model.history_.rows
    losses = {name: np.array([row[name] for row in rows]) for name in VALUES[1:]}
    losses["total"] = np.array([row["loss"] for row in rows])
    return Trained(Z, losses, {"pairs": float(model.pairs_.shape[1])})


def rows(made: Trained, cells, seed: int, *, pictures: int = 0) -> dict[str, float]:
    """Divergence of the batches, silhouette of the types by cosine, and losses: the mean of the epochs and the last.

    ``ratio_mean`` and ``ratio_last`` are (total − reconstruction) / transfer of either. For the first seeds, as many
    as `pictures`, the divergence is taken in a plane by UMAP too, as in the paper.
    """
    batch, y = (cells.obs[name].to_numpy(str) for name in ("batch", "cell_type"))
    Z = made.Z if made.Z.shape[1] <= 50 else PCA(50, svd_solver="full").fit_transform(made.Z)
    found = {"divergence": divergence(Z, batch, y), "silhouette": float(silhouette_score(Z, y, metric="cosine"))}
    if seed < pictures and importlib.util.find_spec("umap"):
        import umap

        flat = umap.UMAP(n_neighbors=30, min_dist=0.1, metric="cosine", random_state=seed).fit_transform(Z)
        found["plane"] = divergence(flat, batch, y)
    found |= made.facts
    for when, take in (("mean", np.mean), ("last", lambda v: v[-1])) if made.losses else ():
        values = {name: float(take(made.losses[name])) for name in VALUES}
        found |= {f"{name}_{when}": value for name, value in values.items()}
        found[f"ratio_{when}"] = implied(**values)
    return found


def implied(total: float, reconstruction: float, transfer: float) -> float:
    """The weight of the discrepancy that three printed losses imply."""
    return (total - reconstruction) / transfer if transfer else float("nan")
