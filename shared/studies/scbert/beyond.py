"""Beside accuracy: masked genes, types that no label names, and whether scored genes are known markers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from sklearn.metrics import roc_auc_score

from shared.studies.scbert.arms import (
    L1,
    L2,
    NAMELESS,
    PRETRAINED,
    SCRATCH,
    Learned,
    fitted,
    label_rows,
    probabilities,
)
from shared.studies.scbert.blood import draw

# Genes by which the types of sorted blood are commonly told, in textbooks and in the tutorials of Seurat and scanpy.
# CD34+ cells have none here: CD34 itself and their other markers are not among the genes that all sets list.
MARKERS = {
    "CD19+ B": ("CD79A", "CD79B", "MS4A1", "CD19", "CD37", "BANK1", "TCL1A", "CD74", "HLA-DRA"),
    "CD14+ Monocyte": ("LYZ", "CD14", "S100A8", "S100A9", "FCN1", "CST3", "VCAN"),
    "CD56+ NK": ("NKG7", "GNLY", "KLRD1", "KLRF1", "PRF1", "GZMB", "FCGR3A", "NCAM1"),
    "CD8+ Cytotoxic T": ("CD8A", "CD8B", "CD3D", "CD3E", "GZMK", "CCL5"),
    "CD8+/CD45RA+ Naive Cytotoxic": ("CD8A", "CD8B", "CD3D", "CD3E", "CCR7", "SELL", "LEF1"),
    "CD4+/CD25 T Reg": ("FOXP3", "IL2RA", "CTLA4", "CD3D", "CD3E", "IL32", "TIGIT"),
    "CD4+/CD45RA+/CD25- Naive T": ("CD3D", "CD3E", "IL7R", "CCR7", "SELL", "LEF1"),
    "CD4+/CD45RO+ Memory": ("CD3D", "CD3E", "IL7R", "S100A4", "IL32", "LTB"),
    "CD4+ T Helper2": ("CD3D", "CD3E", "IL7R", "LTB", "GATA3"),
}


def masked_rows(learned: Learned, seed: int) -> list[dict]:
    """How often masked genes of test cells are predicted right, of every group of them: by networks and by rules."""
    test, rows = learned.split.test, []
    for group in np.unique(test.groups):
        X = test.X[test.groups == group][:, learned.split.chosen]
        for name, model in ((PRETRAINED, learned.named), (NAMELESS, learned.nameless)):
            found = model.masked_scores(X, seed=seed)
            rules = {k: v for k, v in found.items() if k != "network" and name == PRETRAINED}
            for arm, value in {name: found["network"], **rules}.items():
                rows.append({"what": "masked", "arm": arm, "group": group, "masked": value, "cells": X.shape[0]})
    return rows


def unknown_rows(learned: Learned, seed: int, values: Mapping, share: float, left_out: int = 2) -> list[dict]:
    """A type without labels: do the largest probabilities of its cells lie below those of the other cells?

    Seed 0 leaves out the first `left_out` types in turn, seed 1 the next. Rows hold the AUROC of the unknown cells
    against the known ones, and at the code's threshold of .5 the shares of unknown and of known cells that are rejected
    and the accuracy of the known ones that are named.
    """
    train, test, rows = learned.split.train, learned.split.test, []
    kinds = np.unique(train.y)
    few = draw(train.y, share, seed)
    for kind in kinds[[(seed * left_out + i) % len(kinds) for i in range(left_out)]]:
        known, here = few[train.y[few] != kind], test.y == kind
        for arm, value in values.items():
            model, _, _ = fitted(learned, arm, value, known, seed)
            proba = probabilities(learned, arm, model)
            best, called = proba.max(1), model.classes_[proba.argmax(1)]
            named = (best >= 0.5) & ~here
            row = {"what": "unknown", "arm": arm, "type": kind, "auroc": roc_auc_score(here, -best)}
            row |= {"unknown_rejected": (best[here] < 0.5).mean(), "known_rejected": (best[~here] < 0.5).mean()}
            rows.append(row | {"named_right": (called[named] == test.y[named]).mean() if named.any() else np.nan})
    return rows


def found_markers(scores, expressed, genes, markers, top: int = 20, near: int = 10) -> tuple[float, float, int]:
    """Share of the markers among the `top` genes by score, the share that chance gives, and how many markers there are.

    For each marker the `near` genes whose mean expression lies closest, markers left out, say what a draw of genes of
    its expression would give.

    Parameters
    ----------
    scores, expressed : ndarray, genes
        Of one type: the higher the more it matters, and mean expression.
    genes : sequence of str
        Their names.
    markers : sequence of str
        Those that are no gene here are passed over.
    top : int
        Genes that count as found.
    near : int
        Genes of similar expression for each marker.
    """
    genes, best = np.asarray(genes), np.zeros(len(scores), bool)
    best[np.argsort(-scores, kind="stable")[:top]] = True
    mine = np.flatnonzero(np.isin(genes, markers))
    others = np.setdiff1d(np.arange(len(genes)), mine)
    drawn = [best[others[np.argsort(abs(expressed[others] - expressed[i]), kind="stable")[:near]]].mean() for i in mine]
    if not len(mine):
        return np.nan, np.nan, 0
    return float(best[mine].mean()), float(np.mean(drawn)), len(mine)


def marker_rows(learned: Learned, seed: int, done: Mapping, cells: int = 10, top: int = 20) -> list[dict]:
    """Known markers among the top genes of each type, by attention, by integrated gradients and by coefficients.

    Scores of a network are means over up to `cells` test cells of the type; they are shown as they are, and less
    their mean over all types, for what all types have tells none apart.
    """
    split, rows = learned.split, []
    X, y = split.test.X[:, split.chosen], split.test.y
    kinds = [kind for kind in np.unique(y) if kind in MARKERS]
    rng = np.random.default_rng((seed, 11))
    some = {kind: rng.permutation(np.flatnonzero(y == kind))[:cells] for kind in kinds}
    level = {kind: np.asarray(X[y == kind].mean(0)).ravel() for kind in kinds}
    found = {}
    for arm in (PRETRAINED, SCRATCH):
        model = done[arm][0]
        for name in ("attention", "gradients"):
            mean = {k: model.gene_scores(X[some[k]], by=name).mean(0) for k in kinds}
            middle = np.mean([*mean.values()], 0)
            found[f"{name}, {arm}"] = mean
            found[f"{name} above its mean, {arm}"] = {k: v - middle for k, v in mean.items()}
    for arm in (L1, L2):
        model = done[arm][0]
        parts = getattr(model, "estimators_", None)
        weight = model.coef_ if parts is None else np.concatenate([one.coef_ for one in parts])
        # What a gene adds to the logit, as gradients do: its coefficient times its expression in the type.
        found[f"coefficients, {arm}"] = {k: weight[[*model.classes_].index(k)] * level[k] for k in kinds}
    for method, of_kind in found.items():
        for kind, scores in of_kind.items():
            share, chance, n = found_markers(scores, level[kind], split.genes, MARKERS[kind], top)
            rows.append(
                {"what": "markers", "arm": method, "type": kind, "found": share, "chance": chance, "markers": n}
            )
    return rows


def all_rows(learned: Learned, _, seed: int, *, shares, unknown: float | None = None, markers: bool = False):
    """All that is measured of one seed, as :func:`shared.studies.run` takes a metric."""
    done: dict = {}
    rows = [
        {"what": "pre-training", "arm": arm, "cpu": cpu, "cells": learned.split.corpus.shape[0]}
        for arm, cpu in learned.cpu.items()
    ]
    history = learned.named.pretrained_["history"].rows
    rows += [{"what": "epoch", "arm": PRETRAINED, "epoch": r["epoch"], "masked": r["accuracy"]} for r in history]
    rows += masked_rows(learned, seed) + label_rows(learned, seed, shares, done=done)
    if unknown:
        rows += unknown_rows(learned, seed, {arm: done[arm][1] for arm in (PRETRAINED, L1, L2)}, unknown)
    return rows + (marker_rows(learned, seed, done) if markers else [])
