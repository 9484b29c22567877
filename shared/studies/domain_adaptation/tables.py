"""Choices, gains, regrets and correlations from the rows of :func:`shared.studies.domain_adaptation.all_rows`.

The next study would have other data sets: tasks of one data set share cells, so their mean counts once, and intervals
are over data sets (95 %, Student's t), few as they are.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import stats

from shared.data.errors import DataError
from shared.evaluate.intervals import Interval, over_seeds
from shared.studies.domain_adaptation.arms import ARMS, BASELINE, CENTRING, DEEP_MMD, LOGISTIC
from shared.studies.domain_adaptation.measures import ALIGNMENT, LEVELS, RISKS
from shared.studies.domain_adaptation.tasks import UNKNOWN, Drawn

KNOWN = "target labels"  # a choice by labelled target cells that are no test cells: what no arm may have
RANDOM = "any"
DRAW = ["data", "seed"]


def part(table: pd.DataFrame, what: str, **where) -> pd.DataFrame:
    """Rows of one kind, and with a value in each further column."""
    rows = table[table["what"] == what]
    for column, value in where.items():
        rows = rows[rows[column] == value]
    return rows


def over_sets(values: pd.Series, sets: Mapping) -> Interval:
    """Mean over data sets of a number a task and seed: seeds averaged first, then the tasks of a set.

    Parameters
    ----------
    values : Series
        Indexed by ``data`` (the task) and ``seed``; missing values are left out.
    sets : mapping of str to str
        The data set of each task.

    Raises
    ------
    DataError
        If fewer than two data sets have a value.
    """
    by_task = values.dropna().groupby("data").mean()
    by_set = by_task.groupby(lambda task: sets[task]).mean()
    if len(by_set) < 2:
        raise DataError(f"{len(by_set)} data sets have a value: an interval over data sets needs two or more")
    return over_seeds(by_set)


def of_set(values: pd.Series, sets: Mapping, name: str) -> Interval:
    """Mean of one data set, tasks averaged first, with an interval over seeds, which share its cells."""
    mine = values.dropna()
    mine = mine[mine.index.get_level_values("data").map(sets) == name]
    return over_seeds(mine.groupby("seed").mean())


def risk(rows: pd.DataFrame, by: str) -> pd.Series:
    """What a choice makes small: a risk, a distance, or what labelled target cells say."""
    return -rows["accuracy_known"] if by == KNOWN else rows[by]


def chosen(fits: pd.DataFrame, by: str, within=("data", "seed", "arm")) -> pd.DataFrame:
    """Of each draw and arm, or of each draw, the row with the least risk; of equal ones the first.

    Parameters
    ----------
    fits : DataFrame
        Rows with ``what == "fit"``.
    by : str
        One of the risks or alignments; :data:`KNOWN`, which nobody who adapts has; or :data:`RANDOM`, the mean of all.
    within : sequence of str
        Columns within which is chosen.
    """
    within = list(within)
    if by == RANDOM:
        return fits.groupby(within, as_index=False)["accuracy"].mean()
    ranked = fits.assign(risk=risk(fits, by).to_numpy()).reset_index(drop=True)
    return ranked.loc[ranked.groupby(within)["risk"].idxmin()]


def levels(fits: pd.DataFrame, by: str = "source") -> pd.DataFrame:
    """Accuracy of each arm at the setting that was chosen: (data, seed) × arms."""
    return chosen(fits, by).pivot_table(index=DRAW, columns="arm", values="accuracy")


def gains(fits: pd.DataFrame, by: str = "source") -> pd.DataFrame:
    """What each adapting arm has above the same classifier without adaptation: (data, seed) × arms."""
    found = levels(fits, by)
    return pd.DataFrame({arm: found[arm] - found[base] for arm, base in BASELINE.items() if arm in found})


def accuracies(fits: pd.DataFrame, by: str, ties: str = "first") -> pd.Series:
    """Accuracy of the one model of each draw that a choice among all arms and settings takes, by (data, seed).

    Of models with the least risk the first is taken, the simplest classifier without adaptation before all others; with
    ``ties="mean"`` their mean accuracy.
    """
    if ties == "mean":
        risks = risk(fits, by)
        least = risks.groupby([fits[column] for column in DRAW]).transform("min")
        return fits[risks <= least + 1e-12].groupby(DRAW)["accuracy"].mean()
    return chosen(fits, by, DRAW).set_index(DRAW)["accuracy"]


def regret(fits: pd.DataFrame, by: str, ties: str = "first") -> pd.Series:
    """What a choice among all models gives up to one by labelled target cells, by (data, seed)."""
    return accuracies(fits, KNOWN) - accuracies(fits, by, ties)


def better_than_any(fits: pd.DataFrame, sets: Mapping, by: str = "source") -> Interval:
    """What a choice among all models has above a model taken at random, over data sets."""
    return over_sets(accuracies(fits, by) - accuracies(fits, RANDOM), sets)


def agreement(fits: pd.DataFrame, by: str, arms=ARMS) -> pd.Series:
    """Spearman's correlation, over the models of a draw, of accuracy with what a choice makes large: (data, seed).

    1 where the choice ranks models as the target does. Missing where one of both does not vary.
    """
    rows = fits[fits["arm"].isin(arms)]
    rows = rows.assign(good=-risk(rows, by))
    found = {
        draw: stats.spearmanr(one["good"], one["accuracy"])[0]
        if min(one["good"].std(), one["accuracy"].std())
        else np.nan
        for draw, one in rows.groupby(DRAW)
    }
    return pd.Series(found).rename_axis(DRAW)


def dial(table: pd.DataFrame, arm: str) -> pd.DataFrame:
    """What an arm has above the same classifier without adaptation, at each level of label shift: draws × levels."""
    wide = part(table, "dial").pivot_table(index=DRAW, columns=["arm", "level"], values="accuracy")
    return pd.DataFrame({level: wide[arm, level] - wide[BASELINE[arm], level] for level in LEVELS})


def shift_costs(table: pd.DataFrame, sets: Mapping, arm: str = CENTRING) -> Interval:
    """What leaving half of the types out of the target changes in the gain of an arm, over data sets."""
    found = dial(table, arm)
    return over_sets(found["left out"] - found["1 to 1"], sets)


def closer_when_shuffled(table: pd.DataFrame, sets: Mapping, arm: str = DEEP_MMD, value: str = "mmd") -> Interval:
    """MMD, or proxy distance, of an aligning arm where target genes are shuffled, minus that of real, unaligned ones.

    Both at the setting that held-out source cells choose; below zero, what cannot be recognised lies nearer.
    """
    control = part(table, "control", arm=arm).set_index(DRAW)[value]
    honest = chosen(part(table, "fit", arm=BASELINE[arm]), "source").set_index(DRAW)[value]
    return over_sets(control - honest, sets)


def bound(fits: pd.DataFrame, arm: str = LOGISTIC) -> pd.DataFrame:
    """Terms of the bound at the chosen setting, by (data, seed): ``source``, ``half``, ``joint``, ``sum``, ``error``.

    ``sum`` is the error in the source, plus half the proxy A-distance, plus the joint error.
    """
    rows = chosen(fits[fits["arm"] == arm], "source").set_index(DRAW)
    found = rows[["source", "joint", "error"]].assign(half=rows["distance"] / 2)
    return found.assign(sum=found["source"] + found["half"] + found["joint"])


def slack(fits: pd.DataFrame, sets: Mapping, arm: str = LOGISTIC) -> Interval:
    """By how much the sum of the terms exceeds the error in the target, over data sets."""
    found = bound(fits, arm)
    return over_sets(found["sum"] - found["error"], sets)


def gain_of(fits: pd.DataFrame, sets: Mapping, arm: str, by: str = "source") -> Interval:
    """What one arm has above the same classifier without adaptation, over data sets."""
    return over_sets(gains(fits, by)[arm], sets)


def ranked_tasks(fits: pd.DataFrame, terms: str = "sum", arm: str = LOGISTIC) -> float:
    """Spearman's correlation over tasks of a term of the bound with the error in the target."""
    means = bound(fits, arm).groupby("data").mean()
    return float(stats.spearmanr(means[terms], means["error"])[0])


def behind(fits: pd.DataFrame, labels: pd.Series, sets: Mapping) -> pd.Series:
    """By how much accuracies, indexed as draws are, lie below those of the arm that is best in each data set."""
    best, mine = (found.groupby("data").mean().groupby(sets).mean() for found in (levels(fits), labels))
    return best.max(axis=1) - mine


def labelled_share(one: Drawn, n: int) -> float:
    """Of the cells to adapt to, the share that gets a label where `n` of each type do, or all where there are fewer."""
    sizes = np.unique(one.adapt.y[one.adapt.y != UNKNOWN], return_counts=True)[1]
    return float(np.minimum(sizes, n).sum() / len(one.adapt.y))


def minutes(table: pd.DataFrame) -> float:
    """Minutes of one core that all fits and measures took."""
    return float(table.filter(regex="^cpu").sum().sum()) / 60


CHOICES = *RISKS, *ALIGNMENT
