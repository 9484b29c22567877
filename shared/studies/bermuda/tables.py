"""Choices without types, levels and differences from the rows of a run.

The next study would have other data sets: seeds of one are averaged first, and intervals are over data sets (95 %,
Student's t), few as they are; where types are removed in turn, over the types.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from shared.data.errors import DataError
from shared.evaluate.intervals import Interval, over_seeds
from shared.studies.bermuda.arms import BERMUDA, FIRST, PLAIN, SCALING, WHOLE, WRONG

DRAW = ["data", "seed"]
VALUES = "ilisi", "divergence", "kept", "clisi", "silhouette", "ari", "nmi", "accuracy", "mixing", "types", "total"


def chosen(table: pd.DataFrame, by: str = "choice") -> pd.DataFrame:
    """Of each draw and arm the row with the largest `by`, which needs no type; of equal ones the first."""
    table = table.reset_index(drop=True)
    return table.loc[table.groupby([*DRAW, "arm"])[by].idxmax()]


def first(table: pd.DataFrame) -> pd.DataFrame:
    """The first setting of each arm: the row with which changes of one thing are compared."""
    return table[table["setting"] == FIRST]


def level(rows: pd.DataFrame, arm: str, value: str) -> pd.Series:
    """A number of one arm by data set, seeds averaged."""
    return rows.loc[rows["arm"] == arm].groupby("data")[value].mean()


def over_sets(values: pd.Series) -> Interval:
    """Mean over data sets, or over types removed.

    Raises
    ------
    DataError
        If fewer than two have a value.
    """
    values = values.dropna()
    if len(values) < 2:
        raise DataError(f"{len(values)} data sets have a value: an interval over data sets needs two or more")
    return over_seeds(values)


def difference(rows: pd.DataFrame, arm: str, other: str, value: str) -> Interval:
    """What `arm` has above `other`, over data sets."""
    return over_sets(level(rows, arm, value) - level(rows, other, value))


def pairs_mix(table: pd.DataFrame) -> Interval:
    """iLISI of BERMUDA minus that of the same autoencoder without pairs, both chosen without types."""
    return difference(chosen(table), BERMUDA, PLAIN, "ilisi")


def over_scaling(table: pd.DataFrame) -> Interval:
    """Accuracy across batches of BERMUDA minus that of components of scaled genes, both chosen without types."""
    return difference(chosen(table), BERMUDA, SCALING, "accuracy")


def wrong_partners_cost(table: pd.DataFrame) -> Interval:
    """Accuracy across batches of BERMUDA with its own pairs minus that with wrong partners, at one setting."""
    return difference(first(table), BERMUDA, WRONG, "accuracy")


def drawn_in(lone: pd.DataFrame) -> Interval:
    """How much more foreign the neighbours of lone cells are by whole-batch MMD than by BERMUDA, over removed types."""
    return difference(lone, WHOLE, BERMUDA, "foreign")


def implied_weight(table: pd.DataFrame, data: str, arm: str, when: str = "mean") -> Interval:
    """(total − reconstruction) / transfer of printed losses, over training seeds."""
    rows = table[(table["data"] == data) & (table["arm"] == arm)]
    return over_seeds(rows.groupby("seed")[f"ratio_{when}"].mean())


def goes_to(lone: pd.DataFrame, data: str, arm: str) -> tuple[str, float]:
    """The type that lone cells lie among, and its share of their neighbours; "none" where they lie by themselves."""
    rows = lone[(lone["data"] == data) & (lone["arm"] == arm)].dropna(subset="share")
    return ("none", 0.0) if rows.empty else (str(rows["nearest"].iloc[0]), float(rows["share"].iloc[0]))


def minutes(*tables: pd.DataFrame) -> float:
    """Minutes of processor time of all trainings."""
    return float(sum(np.nansum(table["cpu"]) for table in tables) / 60)
