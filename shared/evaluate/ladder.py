"""The ladder of baselines and the learning curve: one call, one table, the same under every method of the book."""

from __future__ import annotations

import inspect
import time
from itertools import chain

import numpy as np
import pandas as pd
from sklearn.base import clone
from tqdm import tqdm

from shared.data.cells import read
from shared.data.constraints import Constraint, Flag, Several, Whole, check, nearest, require
from shared.data.errors import DataError, warn
from shared.data.genes.lists import shown
from shared.evaluate.intervals import Interval, confusion_bootstrap, from_confusion
from shared.evaluate.metrics import HARD, as_labels
from shared.evaluate.splits import as_column, few_shot
from shared.preprocess import center_by

CENTRED = "per-study centring + logistic"
PRINTED = ("balanced_accuracy", "macro_f1")
SEEDS = Constraint(len, "are none: give at least one seed")


def ladder(
    X_train, y_train, X_test, y_test, *,
    study_train=None, study_test=None, models=None, extra=None, metrics=tuple(HARD), n_boot=1000, seeds=(0, 1, 2),
    random_state=0, progress=True,
) -> Ladder:  # fmt: skip
    """Fit every baseline on the training cells, score it on the test cells.

    Parameters
    ----------
    X_train, X_test : AnnData, DataFrame, CSR or ndarray of shape (n_cells, n_genes), float32
        Log-normalised, of the same genes in one order.
    y_train, y_test : sequences of str, or str
        Labels; of an AnnData also the name of a column of ``obs``. A class of the test cells that training lacks counts
        as missed, for every baseline alike.
    study_train, study_test : sequences, optional
        Study, run or donor of each cell. With both given, one baseline more is fitted: every study minus its own mean,
        then logistic regression. It sees the test cells, not their labels, and the table says so.
    models : dict of name to estimator, optional
        The baselines; ``shared.methods.baselines.ladder_models`` without it.
    extra : dict of name to estimator, optional
        More baselines: the method that is being compared.
    metrics : sequence of str
        Of ``balanced_accuracy, accuracy, macro_f1, cohen_kappa``.
    n_boot : int, default 1000
        Bootstrap resamples of the test cells, within each class; one for each seed, or more.
    seeds : sequence of int
        A baseline with a random part is fitted once for each: its value is the mean, its interval pools the resamples
        of all, so it holds both what other cells and what another seed may give. The others are fitted once.
    random_state : int, default 0
        Of the bootstrap.
    progress : bool, default True
        Show a bar where it takes longer than a second, on a terminal.

    Returns
    -------
    Ladder
        A DataFrame that prints two metrics with their intervals, so that it fits a screen. One row a baseline, in the
        order fitted: each metric with ``_low`` and ``_high`` (95 %), ``seconds`` of one fit and call, ``n_seeds``,
        ``sees_test_cells``, ``error``. A baseline that fails keeps its row, with the error in words and NaN for
        numbers, and a warning is given; the others go on.

    Raises
    ------
    DataError
        If the genes, the shapes or the kinds of labels do not fit, no class is on both sides, the study of one side
        only is given, or two baselines have one name.
    SettingError
        If a metric is not known, no seed is given, or there are fewer resamples than seeds.
    """
    known = {"metrics": Several(*HARD), "seeds": SEEDS, "n_boot": Whole(len(seeds)), "progress": Flag()}
    check({"metrics": metrics, "seeds": seeds, "n_boot": n_boot, "progress": progress}, known)
    X_train, y_train, X_test, y_test, genes = _sides(X_train, y_train, X_test, y_test)
    if (study_train is None) != (study_test is None):
        raise DataError("the study of one side only was given: centring needs study_train and study_test, or neither")
    if study_train is not None:
        as_column(study_train, len(y_train), "study_train")
        as_column(study_test, len(y_test), "study_test")
    if models is None:
        from shared.methods.baselines import ladder_models

        models = ladder_models(random_state=seeds[0])
    centring, extra = study_train is not None, extra or {}
    twice = [name for name in extra if name in models] + [CENTRED] * (centring and CENTRED in {**models, **extra})
    if twice:
        raise DataError(f"two baselines have the name {twice[0]!r}: give the one in extra another")
    climbed = {**models, **extra} | ({CENTRED: None} if centring else {})
    rows = {}
    # None shows a bar on a terminal only.
    bar = tqdm(climbed.items(), unit="baseline", leave=False, delay=1, disable=None if progress else True)
    for name, model in bar:
        bar.set_description(name, refresh=False)
        here, there, sees = X_train, X_test, centring and name == CENTRED
        try:
            if sees:
                # Only here is a dense copy of all cells made; if there is no room for it, one baseline is lost.
                model, here, there = _logistic(models), center_by(X_train, study_train), center_by(X_test, study_test)
            rows[name] = _scored(model, here, y_train, there, y_test, genes, metrics, n_boot, seeds, random_state)
        except Exception as e:
            warn(f"baseline {name!r} failed: {type(e).__name__}: {e}", RuntimeWarning)
            rows[name] = {"n_seeds": 0, "error": f"{type(e).__name__}: {e}"}
        rows[name]["sees_test_cells"] = sees
    columns = [c for m in metrics for c in (m, f"{m}_low", f"{m}_high")]
    columns += ["seconds", "n_seeds", "sees_test_cells", "error"]
    table = pd.DataFrame.from_dict(rows, orient="index").reindex([*rows], columns=columns).fillna({"error": ""})
    return Ladder(table.rename_axis("baseline"))


class Ladder(pd.DataFrame):
    """What :func:`ladder` returns: a DataFrame that prints only what fits a screen; ``list(table)`` names the rest."""

    def _short(self, columns=None):
        metrics = [m for m in (*PRINTED, *HARD) if {m, f"{m}_low", f"{m}_high"} <= {*self.columns}]
        metrics = list(dict.fromkeys(metrics))[:2]
        if not metrics or not {"sees_test_cells", "error"} <= {*self.columns}:
            return pd.DataFrame(self)
        frame = readable(self, metrics)
        failed = self["error"] != ""
        frame = frame.mask(failed, "failed") if failed.any() else frame
        wide = columns is not None and len(metrics) > 1 and len(frame.to_string().splitlines()[0]) > columns
        return frame.drop(columns=metrics[1].replace("_", " ")) if wide else frame

    def __repr__(self):
        return self._short(80).to_string()

    def _repr_html_(self):
        return self._short()._repr_html_()


def _sides(X_train, y_train, X_test, y_test):
    """Training and test cells with their labels, of the same genes in one order, and these genes."""
    sides = []
    for X, y, which in ((X_train, y_train, "training"), (X_test, y_test, "test")):
        try:
            sides.append(read(X, y, like=sides[0] if sides else None, dtype=(np.float64, np.float32)))
        except ValueError as problem:
            raise DataError(f"{which} cells: {problem}") from problem
    train, test = sides
    y_train, y_test = as_labels(train.y, "y_train"), as_labels(test.y, "y_test")
    if (y_train.dtype.kind == "U") != (y_test.dtype.kind == "U"):
        raise DataError(f"y_train is {y_train.dtype} and y_test {y_test.dtype}: use one kind of label for both")
    if not np.isin(y_test, y_train).any():
        ours, theirs = (shown(np.unique(y)) for y in (y_test, y_train))
        raise DataError(f"no class of the test cells ({ours}) is among those of training ({theirs}): name both alike")
    return train.X, y_train, test.X, y_test, train.genes


def _called(model, X_train, y_train, X_test, genes):
    """What a model fitted on training cells calls test cells; told the genes where it asks for them."""
    kit = genes is not None and "genes" in inspect.signature(model.fit).parameters
    named = {"genes": genes} if kit else {}
    return model.fit(X_train, y_train, **named).predict(X_test, **named)


def _logistic(models):
    """The ladder's own logistic baseline, so that the centred baseline differs from it in the centring alone."""
    from shared.methods.baselines import ladder_models

    known = chain(models.items(), ladder_models(random_state=0).items())
    return next(model for name, model in known if "logistic" in name.lower())


# A convex problem has one solution: the seed of these solvers orders their passes and changes the result hardly at all.
CONVEX = {"lbfgs", "newton-cg", "newton-cholesky", "cholesky", "svd", "auto", "sparse_cg", "lsqr", "saga", "liblinear"}


def seeded_parts(model) -> list[str]:
    """Names of the parameters that set a random part of an estimator, such as ``"pca__random_state"``."""
    params, found = model.get_params(deep=True), []
    for name in params:
        owner, _, last = name.rpartition("random_state")
        exact = params.get(f"{owner}solver") in CONVEX or params.get(f"{owner}strategy") in ("most_frequent", "prior")
        if not last and name.endswith("random_state") and not exact:
            found.append(name)
    return found


def _scored(model, X_train, y_train, X_test, y_test, genes, metrics, n_boot, seeds, random_state):
    parts = seeded_parts(model)
    used = list(seeds) if parts else [seeds[0]]
    values, resampled, seconds = [], [], []
    for i, seed in enumerate(used):
        fresh = clone(model).set_params(**dict.fromkeys(parts, seed))
        start = time.perf_counter()
        called = _called(fresh, X_train, y_train, X_test, genes)
        seconds.append(time.perf_counter() - start)
        rng = np.random.default_rng([random_state, i])
        drawn, table, own = confusion_bootstrap(y_test, called, max(1, n_boot // len(used)), rng)
        values.append(from_confusion(table, own))
        resampled.append(from_confusion(drawn, own))
    row = {"seconds": float(np.median(seconds)), "n_seeds": len(used), "error": ""}
    for m in metrics:
        low, high = np.quantile(np.concatenate([one[m] for one in resampled]), [0.025, 0.975])
        row |= {m: float(np.mean([one[m] for one in values])), f"{m}_low": float(low), f"{m}_high": float(high)}
    return row


def readable(table, metrics=PRINTED) -> pd.DataFrame:
    """A ladder for the eye: one column a metric, each entry "value [low, high]", and who has seen the test cells."""
    columns = {m.replace("_", " "): [f"{at(table, baseline, m)}" for baseline in table.index] for m in metrics}
    seen = table["sees_test_cells"].map({True: "yes", False: ""}) if table["sees_test_cells"].any() else None
    frame = pd.DataFrame(columns, index=table.index)
    return frame if seen is None else frame.assign(**{"sees test cells": seen})


def at(table, baseline, metric="balanced_accuracy") -> Interval:
    """One entry of a ladder as an :class:`Interval`; an unknown baseline raises ``KeyError`` naming those there are."""
    if baseline not in table.index:
        raise KeyError(f"no baseline {baseline!r}; there are {', '.join(table.index)}{nearest(baseline, table.index)}")
    value, low, high = (float(table.loc[baseline, c]) for c in (metric, f"{metric}_low", f"{metric}_high"))
    return Interval(value, low, high, 0.95, "stratified bootstrap")


def learning_curve(models, X_train, y_train, X_test, y_test, *, sizes, seeds) -> pd.DataFrame:
    """Recall of every type after training on at most `k` cells of each, drawn anew for every seed.

    Parameters
    ----------
    models : dict of name to estimator
        Cloned for every fit.
    X_train, X_test : AnnData, DataFrame, CSR or ndarray of shape (n_cells, n_genes)
        Log-normalised, of the same genes in one order.
    y_train, y_test : sequences of str, or str
        Labels; of an AnnData also the name of a column of ``obs``.
    sizes : sequence of int
        Values of k. A type with fewer cells gives all it has.
    seeds : sequence of int
        Each draws its own cells; all models see the same ones.

    Returns
    -------
    DataFrame
        Columns ``model, k, seed, type, recall``. The mean over types is the balanced accuracy.
    """
    require(SEEDS, seeds=seeds)
    X_train, y_train, X_test, y_test, genes = _sides(X_train, y_train, X_test, y_test)
    types, label = np.unique(y_test, return_inverse=True)
    rows = []
    for k in sizes:
        for seed in seeds:
            cells, _ = few_shot(y_train, k, random_state=seed, allow_fewer=True)
            for name, model in models.items():
                called = _called(clone(model), X_train[cells], y_train[cells], X_test, genes)
                recall = np.bincount(label, called == y_test) / np.bincount(label)
                rows += [(name, k, seed, t, r) for t, r in zip(types, recall, strict=True)]
    return pd.DataFrame(rows, columns=["model", "k", "seed", "type", "recall"])
