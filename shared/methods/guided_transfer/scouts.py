"""Scouts: copies of a pre-trained network, fine-tuned on an easy task each, and how far a weight moved on average."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import torch
from sklearn.cluster import KMeans

from shared.data.constraints import Maybe, OneOf, Share, Whole, require
from shared.data.errors import DataError
from shared.methods.network_classifier import stratified_split
from shared.methods.torch_method import seeded
from shared.nn.features import components
from shared.train import Config, History, fit

CHANGES = {"squared": torch.square, "absolute": torch.abs}


def trained(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of a network that training changes, by name; neither frozen ones nor running statistics."""
    return {name: p.detach() for name, p in net.named_parameters() if p.requires_grad}


class Scouts:
    """How far scouts moved each weight: a running mean, so that no scout is kept.

    With w the weights a scout starts from and w' those it ends with, the mean over scouts of (w' - w)² of each weight.

    Parameters
    ----------
    start : torch.nn.Module, or mapping of str to float tensor
        The pre-trained network, of which the trainable tensors count; or such tensors by name. They are copied.
    change : {"squared", "absolute"}
        The paper names both; the authors' code squares, and their library can do either.

    Attributes
    ----------
    mean : dict of str to float32 tensor
        By name, of the shape of the weights; zeros before the first scout.
    n : int
        Scouts so far.
    histories : list of shared.train.History
        What :func:`send_scouts` saw of each.
    """

    def __init__(self, start, change: str = "squared"):
        require(OneOf(*CHANGES), change=change)
        start = trained(start) if isinstance(start, torch.nn.Module) else start
        if not start:
            raise DataError("the network has no tensor to train, so no scout could move: set requires_grad of some")
        self.start = {name: w.detach().float().cpu().clone() for name, w in start.items()}
        self.mean = {name: torch.zeros_like(w) for name, w in self.start.items()}
        self.change, self.n, self.histories = change, 0, []

    def add(self, state, start=None) -> Scouts:
        """Count one scout in.

        Parameters
        ----------
        state : torch.nn.Module, or mapping of str to tensor
            The scout after its training; names that are not of the start are left out.
        start : mapping of str to tensor, optional
            What this scout started from, where that differs: a head drawn anew, as in the authors' code.

        Raises
        ------
        shared.data.errors.DataError
            If a tensor is missing, has another shape or is not finite. Nothing is counted then.
        """
        state = dict(state.named_parameters()) if isinstance(state, torch.nn.Module) else state
        moved = {}
        for name, first in (self.start | {k: v for k, v in (start or {}).items() if k in self.start}).items():
            last = state.get(name)
            if last is None or last.shape != first.shape:
                found = "missing" if last is None else f"of shape {tuple(last.shape)}"
                said = f"{name} of this scout is {found}, and the others' is of shape {tuple(first.shape)}"
                raise DataError(f"{said}: pass as state a copy of the network that the scouts start from")
            moved[name] = CHANGES[self.change](last.detach().float().cpu() - first.detach().float().cpu())
            if not torch.isfinite(moved[name]).all():
                raise DataError(f"{name} of this scout is not finite: give add a state that was trained at a lower lr")
        self.n += 1
        for name, change in moved.items():
            self.mean[name] += (change - self.mean[name]) / self.n
        return self


def cluster(X, n_clusters: int = 30, n_components: int = 40, seed: int = 0) -> np.ndarray:
    """k-means on principal components: int32 ndarray, cells, the cluster of each.

    The paper has 30 clusters on 40 components, chosen by eye.

    Parameters
    ----------
    X : float32 ndarray or CSR matrix, cells × genes
        Logged expression.
    n_clusters, n_components : int
        Components are cut to what the table allows.
    seed : int
        Of the first centres.
    """
    require(Whole(2), n_clusters=n_clusters)
    (coordinates,) = components(X, n_components=n_components, seed=seed)
    if len(coordinates) < n_clusters:
        raise DataError(f"{len(coordinates)} cells make no {n_clusters} clusters: lower n_clusters")
    return KMeans(n_clusters, n_init=1, random_state=seed).fit_predict(coordinates)


def cluster_pairs(clusters, n_scouts: int, seed: int = 0, least: int = 2) -> list[tuple]:
    """Pairs of different clusters, drawn without replacement: one a scout; fewer where there are no more pairs.

    Clusters of fewer than `least` cells are left out. The authors' code also never draws cluster 0; drop its cells to
    do as it does.

    Raises
    ------
    shared.data.errors.DataError
        If fewer than two clusters are large enough.
    """
    require(Whole(1), n_scouts=n_scouts, least=least)
    names, sizes = np.unique(np.asarray(clusters), return_counts=True)
    pairs = list(combinations(names[sizes >= least].tolist(), 2))
    if not pairs:
        raise DataError(
            f"{(sizes >= least).sum()} of {len(names)} clusters have {least} cells or more, and a pair needs two: pass "
            "as clusters fewer and larger ones"
        )
    return [pairs[i] for i in np.random.default_rng(seed).permutation(len(pairs))[:n_scouts]]


def send_scouts(
    net: torch.nn.Module,
    step: Callable,
    columns: Sequence,
    clusters,
    n_scouts: int = 16,
    *,
    config: Config | None = None,
    validation: float = 0.2,
    new_head: Callable[[torch.nn.Module], object] | None = None,
    max_cells: int | None = None,
    change: str = "squared",
    seed: int = 0,
) -> Scouts:
    """Train copies of a network to tell two clusters apart, one after another, and keep how far the weights moved.

    Parameters
    ----------
    net : torch.nn.Module
        Pre-trained, with a head of two outputs; it is copied for each scout and stays as it is.
    step : callable
        ``step(net, *rows_of_columns, target)`` gives the loss; targets are int64, 0 or 1.
    columns : sequence of tensor, ndarray or CSR matrix
        What the network takes of each cell, such as ``(X,)``, or tokens and genes; see :func:`shared.train.fit`.
    clusters : array, cells
        Of :func:`cluster`, or any labels.
    n_scouts : int
        The paper does not say how many; its code kept guides of 17, 20 and 25.
    config : shared.train.Config, optional
        Of each scout's training; 20 epochs where it is left out. With ``patience`` a scout is taken at its lowest
        validation loss, else at its end. The paper compares the final weights with the initial ones; the code takes the
        weights of the best validation accuracy, and stops after 10 epochs without a lower validation loss.
    validation : float
        Share of each cluster's cells held out.
    new_head : callable, optional
        ``new_head(net)`` changes the weights of a copy before it starts, such as drawing its head anew. Changes are
        measured from there.
    max_cells : int, optional
        Of a cluster, at most.
    change : {"squared", "absolute"}
        See :class:`Scouts`.
    seed : int
        Pairs, held-out cells, heads and order of the cells.

    Returns
    -------
    Scouts
        With ``histories``: look whether the tasks were learned, and how soon.
    """
    require(Share(), validation=validation)
    require(Maybe(Whole(2)), max_cells=max_cells)
    config, clusters = Config(epochs=20) if config is None else config, np.asarray(clusters)
    scouts = Scouts(net, change)
    if config.patience is not None and not validation:
        raise DataError("patience of config needs cells to stop by: set validation above 0, or leave patience out")
    if any(column.shape[0] != len(clusters) for column in columns):
        raise DataError(f"columns have {[c.shape[0] for c in columns]} rows and clusters {len(clusters)}: give as many")
    for i, pair in enumerate(cluster_pairs(clusters, n_scouts, seed)):
        rng = np.random.default_rng((seed, i))
        rows = np.concatenate([rng.permutation(np.flatnonzero(clusters == name))[:max_cells] for name in pair])
        target = (clusters[rows] == pair[1]).astype(np.int64)
        scout, history = train_scout(net, step, [c[rows] for c in columns], target, config, validation, new_head, rng)
        scouts.add(*scout).histories.append(history)
    return scouts


def train_scout(net, step, columns, target, config, validation, new_head, rng) -> tuple[tuple, History]:
    """One scout on one pair: the trained copy and what it started from, and its history."""
    kept, held = stratified_split(target, validation, rng)
    scout, seed = copy.deepcopy(net), int(rng.integers(2**31))
    if new_head is not None:
        seeded(lambda: new_head(scout), seed)
    start = {name: w.clone() for name, w in trained(scout).items()}
    train, val = ([*(c[rows] for c in columns), target[rows]] for rows in (kept, held))
    config = replace(config, seed=seed, patience=config.patience if len(held) else None, checkpoint=None)
    history = fit(scout, step, train, config, val=val if len(held) else None)
    return (scout.cpu(), start), history
