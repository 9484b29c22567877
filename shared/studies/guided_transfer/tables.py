"""Means, differences and their intervals, from the rows of the other modules."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from shared.evaluate.intervals import Interval, over_seeds
from shared.studies.guided_transfer.muscle import GRADIENT, PRETRAINED, SCRATCH
from shared.studies.guided_transfer.rivals import FULL, SHUFFLED, UPDATE


def part(table: pd.DataFrame, what: str, **where) -> pd.DataFrame:
    """Rows of one kind, and with a value in each further column."""
    rows = table[table["what"] == what]
    for column, value in where.items():
        rows = rows[rows[column] == value]
    return rows


def level(rows: pd.DataFrame, value: str, arm: str) -> Interval:
    """Mean of a column for one arm, modules averaged first, with an interval over seeds (95 %, Student's t)."""
    return over_seeds(rows[rows["arm"] == arm].groupby("seed")[value].mean())


def gain(rows: pd.DataFrame, arm: str, baseline: str, value: str = "accuracy") -> Interval:
    """What an arm has above another, modules averaged first, with an interval over seeds (95 %, Student's t)."""
    mean = rows.pivot_table(index="seed", columns="arm", values=value)
    return over_seeds((mean[arm] - mean[baseline]).dropna())


def which_weights(rows: pd.DataFrame) -> Interval:
    """What is lost where the guide's numbers are shuffled within each tensor: balanced accuracy, over seeds."""
    return gain(rows, UPDATE, SHUFFLED)


def lead(rows: pd.DataFrame) -> Interval:
    """The guide at work on updates, minus full fine-tuning: balanced accuracy, over seeds."""
    return gain(rows, UPDATE, FULL)


def direction(rows: pd.DataFrame, arm: str = GRADIENT) -> Interval:
    """Cosine between the way an arm went and that of unguided fine-tuning, over seeds; `rows` are of table 1."""
    return level(rows, "cosine", arm)


def share(rows: pd.DataFrame, arm: str, right: str = "right", n: str | None = "n") -> Interval:
    """Share of samples that are right, over seeds; without `n` the column holds shares."""
    rows = rows[rows["arm"] == arm]
    found = rows[right] if n is None else rows[right] / rows[n]
    return over_seeds(found.groupby(rows["seed"]).mean())


def pretraining_adds(rows: pd.DataFrame, right: str = "right", n: str | None = "n") -> Interval:
    """Share of samples that are right with pre-training, minus that without, over seeds; see :func:`share`."""
    return gain(rows.assign(share=rows[right] if n is None else rows[right] / rows[n]), PRETRAINED, SCRATCH, "share")


def cost_ratio(learned: pd.DataFrame, fits: pd.DataFrame, arm: str = FULL) -> Interval:
    """How many times one fine-tuning the scouts cost in processor time, over seeds; of modules the geometric mean.

    Parameters
    ----------
    learned : DataFrame
        ``what == "learned"``, with ``cpu_scouts``, ``seed`` and ``data``.
    fits : DataFrame
        Rows of fine-tunings with ``arm`` and ``cpu``, the chosen setting's alone.
    arm : str
        Of the fine-tunings.
    """
    one = fits[fits["arm"] == arm].groupby(["seed", "data"])["cpu"].mean()
    logs = np.log(learned.set_index(["seed", "data"])["cpu_scouts"] / one)
    got = over_seeds(logs.groupby("seed").mean())
    value, low, high = np.exp([got.value, got.low, got.high]).tolist()
    return replace(got, value=value, low=low, high=high)


def minutes(muscle: pd.DataFrame, blood: pd.DataFrame) -> float:
    """Minutes of one core that pre-trainings, scouts, Fisher information and all fine-tunings of networks took."""
    spent = sum(table.filter(regex="^cpu_").sum().sum() for table in (muscle, blood))
    return float(spent + muscle["cpu"].sum()) / 60
