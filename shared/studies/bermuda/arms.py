"""Ways to bring batches together, each with two settings, and changes of BERMUDA that are tried one at a time."""

from __future__ import annotations

import time
import warnings
from typing import NamedTuple

import numpy as np
from sklearn.decomposition import PCA

from shared.methods.bermuda import Bermuda, batch_ranges, scaled
from shared.studies import rivals

UNCORRECTED, CENTRING, SCALING, COMBAT = "uncorrected", "centring", "0 to 1 by batch", "ComBat"
PLAIN, BERMUDA, WHOLE = "autoencoder", "BERMUDA", "whole-batch MMD"
HARMONY, SCANORAMA, SCVI, SCANVI = rivals.METHODS
LINEAR, NETWORKS, RIVALS = (UNCORRECTED, CENTRING, SCALING, COMBAT), (PLAIN, BERMUDA, WHOLE), rivals.METHODS
ARMS = *LINEAR, *NETWORKS, *RIVALS
LONE = UNCORRECTED, SCALING, COMBAT, *NETWORKS, HARMONY, SCANORAMA, SCVI  # where a type is left out of one batch
CODE = 20
EPOCHS = 100
FIRST = 0  # of the two settings: what is taken where nothing is chosen

COMPONENTS = [{"n_components": n} for n in (20, 10)]
WEIGHTS = [{"weight": w} for w in (2.5, 8.0)]
GRID = {
    **dict.fromkeys((*LINEAR, PLAIN), COMPONENTS),
    **dict.fromkeys((BERMUDA, WHOLE), WEIGHTS),
    HARMONY: [{"theta": t} for t in (2.0, 4.0)],
    SCANORAMA: [{"knn": k} for k in (20, 40)],
    **dict.fromkeys((SCVI, SCANVI), COMPONENTS),
}
# Changes of BERMUDA at its first setting.
TYPES, SHUFFLED, WRONG, UNSCALED = "true types", "shuffled clusters", "wrong partners", "without scaling"
CHANGED = {
    "mutual pairs": {"mutual": True},
    "median widths": {"widths": None},
    "as published": {"original": True, "weight": 1.0, "weight_decay": 5e-5},
    "coarse clusters": {"resolution": 0.2},
    "fine clusters": {"resolution": 2.0},
    TYPES: {},
    SHUFFLED: {},
    WRONG: {},
    UNSCALED: {},
}
THRESHOLDS = "thresholds"
WIDE = "weights"
SWEPT = {
    THRESHOLDS: [{"threshold": t} for t in (0.6, 0.7, 0.8, 0.9, 0.95, 1.0)],
    WIDE: [{"weight": w} for w in (0.1, 0.5, 30.0)],
}


class Made(NamedTuple):
    """An embedding.

    Attributes
    ----------
    Z : float32 ndarray, cells × numbers
    setting : dict
    cpu : float
        Seconds of processor time.
    facts : dict of str to float
        Of BERMUDA: ``clusters``, ``pairs``, and ``right``, the share of pairs whose clusters are mostly of one type.
    """

    Z: np.ndarray
    setting: dict
    cpu: float
    facts: dict


class WholeBatch(Bermuda):
    """BERMUDA's network and loss with one cluster a batch, each matched with each: nothing says what is alike."""

    def _clusters(self, X, of_cell, names, seed):
        return of_cell.astype(np.int64)

    def _batches(self, X, of_cell, seed):
        n = len(self.batches_)
        self.pairs_, self.similarity_ = np.stack(np.triu_indices(n, 1)), 1.0 - np.eye(n)
        return super()._batches(X, of_cell, seed)


class WrongPartners(Bermuda):
    """BERMUDA whose pairs are as many as it finds, but each with another cluster of the partner's batch."""

    def _batches(self, X, of_cell, seed):
        rng, wrong = np.random.default_rng(seed), []
        for a, b in self.pairs_.T:
            others = np.flatnonzero((self.cluster_batch_ == self.cluster_batch_[b]) & (self.similarity_[a] > 0))
            others = np.setdiff1d(others, self.pairs_[1][self.pairs_[0] == a])
            if len(others):
                wrong.append((a, rng.choice(others)))
        self.pairs_ = np.array(wrong, np.int64).reshape(-1, 2).T
        return super()._batches(X, of_cell, seed)


class Unscaled(Bermuda):
    """BERMUDA whose genes are scaled by the ranges of all batches together."""

    def _batches(self, X, of_cell, seed):
        self.scale_ = {
            "low": np.repeat(self.scale_["low"].min(0)[None], len(self.batches_), 0),
            "high": np.repeat(self.scale_["high"].max(0)[None], len(self.batches_), 0),
        }
        return super()._batches(X, of_cell, seed)


CLASSES = {WHOLE: WholeBatch, WRONG: WrongPartners, UNSCALED: Unscaled}


def installed() -> list[str]:
    """Arms that can be run here."""
    return [*LINEAR, *NETWORKS, *rivals.installed()]


def centred(X, batch) -> np.ndarray:
    """Each batch minus its mean."""
    X = X.copy()
    for name in np.unique(batch):
        X[batch == name] -= X[batch == name].mean(0)
    return X


def combat(X, batch, rounds: int = 30) -> np.ndarray:
    """Location and scale of each gene in each batch, shrunken towards those of the batch's other genes, taken away.

    Parameters
    ----------
    X : ndarray, cells × genes
        Logged expression.
    batch : array, cells
        Batches.
    rounds : int
        Of the two conditional means, which settle within a few.

    Returns
    -------
    ndarray, cells × genes

    References
    ----------
    Johnson, Li and Rabinovic, *Adjusting batch effects in microarray expression data using empirical Bayes methods*
    (Biostatistics 2007), parametric form without covariates.
    """
    X, names = np.asarray(X, np.float64), np.unique(batch)
    parts = {name: X[batch == name] for name in names}
    grand = X.mean(0)
    pooled = np.sqrt(sum(((part - part.mean(0)) ** 2).sum(0) for part in parts.values()) / len(X))
    varies, out = pooled > 0, X.copy()
    for name, part in parts.items():
        Z, n = (part[:, varies] - grand[varies]) / pooled[varies], len(part)
        shift, spread = Z.mean(0), Z.var(0, ddof=1)
        mean, tau = shift.mean(), shift.var(ddof=1)
        m, v = spread.mean(), max(spread.var(ddof=1), 1e-12)
        a, b = 2 + m**2 / v, m + m**3 / v  # inverse gamma by its moments
        gamma, delta = shift, spread
        for _ in range(rounds):
            gamma = (n * tau * shift + delta * mean) / (n * tau + delta)
            delta = (b + ((Z - gamma) ** 2).sum(0) / 2) / (n / 2 + a - 1)
        out[np.ix_(batch == name, varies)] = (Z - gamma) / np.sqrt(delta) * pooled[varies] + grand[varies]
    return out


def ranged(X, batch) -> np.ndarray:
    """Each gene from 0 to 1 within each batch, as BERMUDA scales it."""
    of_cell = np.unique(batch, return_inverse=True)[1]
    return scaled(X, of_cell, **batch_ranges(X, of_cell))


BEFORE = {UNCORRECTED: lambda X, batch: X, CENTRING: centred, SCALING: ranged, COMBAT: combat}


def components(X, n_components: int) -> np.ndarray:
    """The first principal components."""
    return PCA(min(n_components, *X.shape), svd_solver="full").fit_transform(X).astype(np.float32)


def majority(y, clusters) -> np.ndarray:
    """The most frequent type of each cluster."""
    kinds, codes = np.unique(y, return_inverse=True)
    n = np.zeros((clusters.max() + 1, len(kinds)), int)
    np.add.at(n, (clusters, codes), 1)
    return kinds[n.argmax(1)]


def bermuda(arm: str, setting: dict, cells, seed: int, epochs: int) -> tuple[np.ndarray, dict]:
    """Codes of BERMUDA, or of what differs from it in one respect, and its clusters and pairs."""
    batch, y = (cells.obs[name].to_numpy(str) for name in ("batch", "cell_type"))
    how = {"epochs": epochs, "lr_step": max(1, epochs // 10), "device": "cpu", "random_state": seed, "threshold": 0.85}
    how |= CHANGED.get(arm, {}) | {k: v for k, v in setting.items() if k != "n_components"}
    if arm == PLAIN:
        how |= {"weight": 0.0, "hidden": (200, setting["n_components"])}
    if arm == WHOLE:
        how |= {"threshold": 0.0, "batch_size": 150}  # about as many steps as with clusters
    model, given = CLASSES.get(arm, Bermuda)(**how), None
    if how.get("original"):  # its epoch holds whole batches of the largest cluster alone
        model.set_params(batch_size=20)
    if arm == TYPES:
        given = y
    if arm == SHUFFLED:
        given = shuffled(Bermuda(epochs=1, device="cpu", random_state=seed), cells, batch, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no pairs, which the row says
        Z = model.fit_transform(cells.X, batch=batch, clusters=given)
    facts = {"clusters": float(model.clusters_.max() + 1), "pairs": float(model.pairs_.shape[1]), "right": np.nan}
    if model.pairs_.size:
        a, b = majority(y, model.clusters_)[model.pairs_]
        facts["right"] = float((a == b).mean())
    return Z, facts


def shuffled(model, cells, batch, seed) -> np.ndarray:
    """Clusters as they are found, dealt out at random among the cells of a batch."""
    of_cell = np.unique(batch, return_inverse=True)[1]
    labels, rng = model._clusters(cells.X, of_cell, None, seed), np.random.default_rng((seed, 4))
    for b in range(of_cell.max() + 1):
        labels[of_cell == b] = rng.permutation(labels[of_cell == b])
    return labels.astype(str)


def embed(arm: str, setting: dict, cells, seed: int, *, epochs: int = EPOCHS, deep: int = 40):
    """One arm with one setting: the embedding of all cells, and facts.

    Parameters
    ----------
    arm : str
        Of :data:`ARMS`, :data:`CHANGED` or :data:`SWEPT`.
    setting : dict
        Of :data:`GRID` or :data:`SWEPT`.
    cells : AnnData
        Of :func:`shared.studies.bermuda.tasks.draw`.
    seed : int
        Of the training.
    epochs, deep : int
        Of BERMUDA and its relatives, and of scVI and scANVI.
    """
    batch = cells.obs["batch"].to_numpy(str)
    if arm in LINEAR:
        return components(BEFORE[arm](cells.X, batch), **setting), {}
    if arm in (HARMONY, SCANORAMA):  # of the same values as all other arms
        return rivals.embed(cells, "batch", arm, layer=None, n_components=CODE, seed=seed, **setting), {}
    if arm in (SCVI, SCANVI):
        labels = {"labels": "known"} if arm == SCANVI else {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return rivals.embed(cells, "batch", arm, max_epochs=deep, seed=seed, **setting, **labels), {}
    return bermuda(arm, setting, cells, seed, epochs)


def embed_all(cells, seed: int, *, arm: str, settings: list | None = None, **how) -> list[Made]:
    """Every setting of an arm, or those that are given."""
    found = []
    for setting in (GRID | SWEPT).get(arm, [{}]) if settings is None else settings:
        start = time.process_time()
        Z, facts = embed(arm, setting, cells, seed, **how)
        found.append(Made(Z, setting, time.process_time() - start, facts))
    return found
