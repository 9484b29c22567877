"""Leave one study out: learn from the cells of all other studies, and test on the sets of the one that was never seen.

A study may have published several data sets, whose cells resemble each other as no next laboratory's will. So sets of
one study are left out together. The folds are what :func:`shared.studies.run` takes for data::

    parts = folds(sets, studies)
    table = run({"": pretrain}, parts, seeds, rows, unit="study", out="study")
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import stats

from shared.data.corpus.corpus import SHARE, Corpus
from shared.data.errors import DataError
from shared.data.genes.lists import shown


def folds(sets: Mapping, studies: Mapping, share: float = SHARE) -> dict[str, tuple[dict, dict]]:
    """For each study the sets of all others, and its own.

    Parameters
    ----------
    sets : mapping of str to AnnData
        Counts, cells × genes.
    studies : mapping of str to str
        The study of each set.
    share : float, default 0.05
        Sets of two studies may not share so many of the smaller one's cells, whatever their names: cells are told by
        their counts.

    Returns
    -------
    dict of study to (others, own)
        Both by the name of the set, in the order of `sets`.

    Raises
    ------
    DataError
        If a set has no study, there is one study only, or two studies share cells.
    """
    if lacking := [name for name in sets if name not in studies]:
        raise DataError(f"{shown(lacking)} belong to no study: name one for each set")
    names = list(dict.fromkeys(studies[name] for name in sets))
    if len(names) < 2:
        raise DataError("there is one study only: without it nothing is left to learn from")
    same = Corpus(sets, genes="union").overlaps()
    same = same[(same["share"] >= share) & (same["first"].map(studies) != same["second"].map(studies))]
    if len(same):
        first, second = same[["first", "second"]].iloc[0]
        raise DataError(f"{first} and {second} share cells, but are of two studies: give them one")
    return {
        study: tuple({n: a for n, a in sets.items() if (studies[n] == study) is own} for own in (False, True))
        for study in names
    }


def choose(table: pd.DataFrame, metric: str = "accuracy") -> dict[str, dict]:
    """The value of each arm's setting that served the *other* studies best: no label of a study tunes its own arms.

    Parameters
    ----------
    table : DataFrame
        A row a try, with columns ``data`` (the study), ``arm``, ``value`` and `metric`.
    metric : str, default "accuracy"
        The higher the better; studies weigh alike, and of equal values the first is taken.

    Returns
    -------
    dict of study to (dict of arm to value)
    """
    mean = table.pivot_table(index=["arm", "value"], columns="data", values=metric, sort=False)
    return {
        study: {arm: one.droplevel("arm").mean(axis=1).idxmax() for arm, one in others.groupby("arm", sort=False)}
        for study in mean
        for others in [mean.drop(columns=study)]
    }


def signed_rank(gains) -> float:
    """Two-sided p of Wilcoxon's signed rank test that the median of paired differences is zero; 1 if all are zero."""
    gains = np.asarray(gains, float)
    gains = gains[np.isfinite(gains) & (gains != 0)]
    return float(stats.wilcoxon(gains).pvalue) if len(gains) else 1.0


def written(*modules) -> str:
    """Hash of the text of some modules: a ``version`` for a run, so that results of other code are not taken."""
    return hashlib.sha256("".join(map(inspect.getsource, modules)).encode()).hexdigest()
