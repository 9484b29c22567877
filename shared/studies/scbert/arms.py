"""The arms: networks and regressions that get the same labelled cells, the same split of these, and as many tries."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.multiclass import OneVsRestClassifier

from shared.data.cells import digest
from shared.evaluate.metrics import accuracy, macro_f1
from shared.methods.network_classifier import stratified_split
from shared.methods.scbert import ScBERT, coexpression_vectors
from shared.studies.scbert.blood import Split, draw

PRETRAINED, SCRATCH = "pre-trained", "from scratch"
NAMELESS, CONTROL = "without gene vectors", "nameless pre-training"
L1, L2, ALL = "L1 regression", "L2 regression", "L1 regression, all genes"
NETWORKS, REGRESSIONS = (PRETRAINED, SCRATCH, NAMELESS, CONTROL), (L1, L2, ALL)
# Four tries for each arm: the learning rate of fine-tuning, and C.
TRIES = {
    **dict.fromkeys(NETWORKS, (1e-4, 3e-4, 1e-3, 3e-3)), **dict.fromkeys((L1, ALL), (0.1, 0.3, 1.0, 3.0)),
    L2: (0.01, 0.1, 1.0, 10.0),
}  # fmt: skip
SIZES = {
    "bins": 7, "dim": 32, "depth": 2, "heads": 2, "width": 16, "length": 64, "lr": 3e-3, "schedule": "cosine",
    "unfreeze": "all", "patience": 3, "fit_epochs": 60, "validation": 0.2, "device": "cpu",
}  # fmt: skip
FIT_LENGTH = 96
SAVED_EVERY = 60.0  # seconds, where progress is kept


class Learned(NamedTuple):
    """What was learned without labels.

    Attributes
    ----------
    split : Split
    named, nameless : ScBERT
        Pre-trained with gene vectors and without.
    vectors : float32 ndarray, genes × dim
    cpu : dict
        Seconds of processor time of each pre-training.
    fit_length : int
        Genes of a cell in fine-tuning.
    """

    split: Split
    named: ScBERT
    nameless: ScBERT
    vectors: np.ndarray
    cpu: dict
    fit_length: int


def pretrained(split: Split, seed: int, *, epochs: int, sizes=None, fit_length=FIT_LENGTH, progress_in=None) -> Learned:
    """Two pre-trainings on the corpus of a split: with gene vectors made from it, and with none.

    In the second all tokens of a bin look alike, so it can learn how often bins occur and no relation of genes. Killed,
    they go on from the folder `progress_in`, where one is given; then their seconds are those of a clock, over all
    starts.
    """
    sizes, cpu = SIZES | (sizes or {}) | {"epochs": epochs, "logged": True, "random_state": seed}, {}
    start = time.process_time()
    vectors = coexpression_vectors(split.corpus, sizes["dim"], seed)
    models = {}
    for name, given in ((PRETRAINED, vectors), (NAMELESS, None)):
        path = None
        if progress_in is not None:
            told = digest([repr([sizes, name]), split.corpus.data, split.corpus.indices])
            path = Path(progress_in, f"pre-training-{told[:12]}.safetensors")
            path.parent.mkdir(parents=True, exist_ok=True)
        model = ScBERT(**sizes, gene_vectors="none", checkpoint=path, checkpoint_seconds=SAVED_EVERY)
        models[name] = model.pretrain(split.corpus, vectors=given).set_params(checkpoint=None)
        spent = time.process_time() - start
        cpu[name] = spent if path is None else model.pretrained_["history"].seconds
        start = time.process_time()
    return Learned(split, models[PRETRAINED], models[NAMELESS], vectors, cpu, fit_length)


def network(learned: Learned, arm: str, lr: float, seed: int) -> ScBERT:
    """An arm's network, to be fine-tuned; those with gene vectors have the same ones."""
    base = clone(learned.nameless if arm in (NAMELESS, CONTROL) else learned.named)
    if arm == SCRATCH:
        del base.pretrained_
    if arm == CONTROL:
        state = dict(base.pretrained_["state"])
        state["genes.weight"] = torch.cat([torch.from_numpy(learned.vectors), state["genes.weight"][-1:]])
        base.pretrained_ = base.pretrained_ | {"state": state}
    return base.set_params(fit_lr=lr, length=learned.fit_length, random_state=seed)


def regression(arm: str, C: float):
    """L1 one type against the rest, by coordinate descent; L2 as one softmax."""
    if arm == L2:
        return LogisticRegression(C=C, max_iter=500)
    return OneVsRestClassifier(LogisticRegression(l1_ratio=1, solver="liblinear", C=C, random_state=0))


def parts_of(y, seed: int, validation: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """The rows that every arm is trained on with this seed, and those that stop it or choose its setting."""
    return stratified_split(np.unique(y, return_inverse=True)[1], validation, np.random.RandomState(seed))


def fitted(learned: Learned, arm: str, value: float, rows, seed: int):
    """An arm fitted on some labelled cells; its loss on those it stopped by; seconds of processor time.

    Regressions are fitted on the cells that networks train on, and not once more on those held out: so all arms have
    the same labels.
    """
    split = learned.split
    y, start = split.train.y[rows], time.process_time()
    kept, out = parts_of(y, seed)
    if arm in NETWORKS:
        model = network(learned, arm, value, seed)
        given = {"vectors": learned.vectors} if arm == SCRATCH else {}
        model.fit(split.train.X[rows][:, split.chosen], y, held=out, **given)
        held = model.history_.frame()["val_loss"].min()
    else:
        X = split.train.X[rows] if arm == ALL else split.train.X[rows][:, split.chosen]
        model = regression(arm, value).fit(X[kept], y[kept])
        held = log_loss(y[out], model.predict_proba(X[out]), labels=model.classes_)
    return model, float(held), time.process_time() - start


def probabilities(learned: Learned, arm: str, model):
    """Of test cells: float, cells × types."""
    split = learned.split
    return model.predict_proba(split.test.X if arm == ALL else split.test.X[:, split.chosen])


def label_rows(learned: Learned, seed: int, shares, arms=(*NETWORKS, *REGRESSIONS), done=None) -> list[dict]:
    """Every arm at every share of the labels: accuracy, macro F1, seconds, and accuracy of each group of test cells.

    The value of an arm's setting is the one with the lowest loss on the held-out part of the *smallest* share, which
    all larger shares hold: no label is used that an arm would not have. `done` is a dict for the models of the largest.
    """
    test, rows, done = learned.split.test, [], {} if done is None else done
    for arm in arms:
        few = draw(learned.split.train.y, min(shares), seed)
        tried = {value: fitted(learned, arm, value, few, seed) for value in TRIES[arm]}
        value = min(tried, key=lambda v: tried[v][1])
        for share in sorted(shares):
            mine = draw(learned.split.train.y, share, seed)
            model, held, cpu = tried[value] if share == min(shares) else fitted(learned, arm, value, mine, seed)
            start = time.process_time()
            proba = probabilities(learned, arm, model)
            asked, called = time.process_time() - start, model.classes_[proba.argmax(1)]
            row = {"what": "labels", "arm": arm, "share": share, "labels": len(mine), "value": value}
            row |= {"accuracy": accuracy(test.y, called), "macro_f1": macro_f1(test.y, called), "held_loss": held}
            row |= {"cpu": cpu, "cpu_tries": sum(one[2] for one in tried.values()), "cpu_predict": asked}
            row |= {"epochs": len(model.history_.rows) if arm in NETWORKS else np.nan}
            row |= {"parameters": _parameters(model) if arm in NETWORKS else _weights(model)}
            rows.append(row)
            groups = np.unique(test.groups)
            for group in groups if len(groups) > 1 else ():
                at = test.groups == group
                some = {"group": group, "accuracy": accuracy(test.y[at], called[at]), "cells": int(at.sum())}
                rows.append({"what": "group", "arm": arm, "share": share, **some})
        done[arm] = model, value
    return rows


def _parameters(model):
    return sum(p.numel() for name, p in model.network_.named_parameters() if "genes" not in name)


def _weights(model):
    parts = getattr(model, "estimators_", [model])
    return sum(int((one.coef_ != 0).sum()) + one.intercept_.size for one in parts)
