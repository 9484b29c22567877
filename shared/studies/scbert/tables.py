"""Means, differences and their intervals, from the rows of :func:`shared.studies.scbert.all_rows`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from shared.evaluate.intervals import Interval, over_seeds
from shared.methods.scbert import ScBERT, coexpression_vectors
from shared.studies.scbert.arms import FIT_LENGTH, SIZES
from shared.studies.scbert.beyond import MARKERS, found_markers
from shared.studies.scbert.blood import SORTED, Split, draw


def part(table: pd.DataFrame, what: str, task: str, **where) -> pd.DataFrame:
    """Rows of one kind and task, and with a value in each further column."""
    rows = table[(table["what"] == what) & (table["data"] == task)]
    for column, value in where.items():
        rows = rows[rows[column] == value]
    return rows


def level(rows: pd.DataFrame, value: str = "accuracy", unit: str = "seed") -> pd.DataFrame:
    """Mean of a column: units × arms."""
    return rows.pivot_table(index=unit, columns="arm", values=value)


def gain(rows: pd.DataFrame, arm: str, baseline: str, value: str = "accuracy", unit: str = "seed") -> Interval:
    """What an arm has above another, with an interval over units that both have (95 %, Student's t)."""
    mean = level(rows, value, unit)
    return over_seeds((mean[arm] - mean[baseline]).dropna())


def by_groups(rows: pd.DataFrame, arm: str, baseline: str, value: str = "accuracy") -> Interval:
    """The same over groups of test cells, each weighed alike and averaged over seeds first."""
    return gain(rows, arm, baseline, value, "group")


def wider(rows: pd.DataFrame, arm: str, baseline: str, value: str = "accuracy", groups=()) -> Interval:
    """:func:`gain` or :func:`by_groups`, whichever has the wider interval; without rows of `groups` the first."""
    found = [gain(rows, arm, baseline, value)]
    found += [by_groups(groups, arm, baseline, value)] if len(groups) else []
    return max(found, key=lambda one: one.high - one.low)


def cost_ratio(rows: pd.DataFrame, learning: pd.DataFrame, arm: str, baseline: str) -> Interval:
    """How many times the seconds of a baseline an arm takes, tries and pre-training counted, over seeds.

    Parameters
    ----------
    rows : DataFrame
        ``what == "labels"`` at one share.
    learning : DataFrame
        ``what == "pre-training"``.
    arm, baseline : str
        Names of arms.
    """
    spent = level(rows, "cpu") + level(rows, "cpu_tries")
    mine = spent[arm] + level(learning, "cpu").get(arm, 0)
    got = over_seeds(np.log(mine / spent[baseline]))
    value, low, high = np.exp([got.value, got.low, got.high]).tolist()
    return replace(got, value=value, low=low, high=high)


def minutes(table: pd.DataFrame) -> float:
    """Minutes of one core that pre-trainings and fits to labels took; of a value tried at the smallest share once."""
    labels = table[table["what"] == "labels"]
    whole = ["data", "seed", "arm"]
    larger = labels["share"] > labels.groupby(whole)["share"].transform("min")
    tries = labels.groupby(whole)["cpu_tries"].first().sum()
    before = table.loc[table["what"] == "pre-training", "cpu"].sum()
    return float(before + tries + labels.loc[larger, "cpu"].sum()) / 60


def expression_rows(split: Split, seed: int, cells: int = 10, top: int = 20) -> list[dict]:
    """Markers found by mean expression above its mean over types: what a score may find without any model.

    Rows and cells are those of :func:`shared.studies.scbert.beyond.marker_rows`; so is chance, of all cells of a type.
    """
    X, y = split.test.X[:, split.chosen], split.test.y
    kinds, rng = [kind for kind in np.unique(y) if kind in MARKERS], np.random.default_rng((seed, 11))
    some = {kind: rng.permutation(np.flatnonzero(y == kind))[:cells] for kind in kinds}
    level = {kind: np.asarray(X[some[kind]].mean(0)).ravel() for kind in kinds}
    middle, rows = np.mean([*level.values()], 0) if level else 0, []
    for kind, mean in level.items():
        whole = np.asarray(X[y == kind].mean(0)).ravel()
        share, chance, n = found_markers(mean - middle, whole, split.genes, MARKERS[kind], top)
        row = {"what": "markers", "arm": "expression above its mean", "type": kind, "seed": seed, "data": SORTED}
        rows.append(row | {"found": share, "chance": chance, "markers": n})
    return rows


def longer(split: Split, seed: int, share: float, *, sizes=None, fit_length=FIT_LENGTH, patience: int = 20) -> dict:
    """What more patience brings the network from scratch on its *held-out* labels, never on test cells.

    Returns ``loss`` and ``accuracy`` of the held-out cells: at the best epoch within `patience`, minus that of the
    epoch which the study's own patience keeps.
    """
    sizes = SIZES | (sizes or {})
    own, more = sizes["patience"], {"logged": True, "random_state": seed, "length": fit_length, "patience": patience}
    few, vectors = draw(split.train.y, share, seed), coexpression_vectors(split.corpus, sizes["dim"], seed)
    model = ScBERT(**sizes | more, gene_vectors="none")
    model.fit(split.train.X[few][:, split.chosen], split.train.y[few], vectors=vectors)
    found = model.history_.frame()[["val_loss", "val_accuracy"]]
    since = [i - int(np.argmin(found["val_loss"][: i + 1])) for i in range(len(found))]
    end = next((i for i, waited in enumerate(since) if waited == own), len(found) - 1)
    kept, late = (found.iloc[int(np.argmin(found["val_loss"][:n]))] for n in (end + 1, len(found)))
    return {"loss": late["val_loss"] - kept["val_loss"], "accuracy": late["val_accuracy"] - kept["val_accuracy"]}
