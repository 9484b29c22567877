"""Splits that keep every animal, patient, donor or study on one side, and refuse where that cannot be."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from sklearn.metrics.cluster import contingency_matrix
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.utils import check_random_state

from shared.data.cells import array_of
from shared.data.constraints import Between, Maybe, SettingError, Whole, require
from shared.data.errors import DataError
from shared.data.genes.lists import many, shown


class LeakError(DataError):
    """The same animal, patient, donor or study stands on both sides of a split."""


def as_column(values, n=None, what="groups"):
    """One value a cell as an array that sorts: words, or numbers."""
    values = array_of(values, what)
    if values.ndim != 1 or (n is not None and len(values) != n):
        given = "" if n is None else f" for {n} rows"
        raise DataError(f"{what} has shape {values.shape}{given}: give one value for each of the {n or 'n'} cells")
    missing = pd.isna(values)
    if missing.any():
        raise DataError(
            f"{what} holds missing values ({missing.sum()} of {len(values)}): every cell must say which {what} it is of"
        )
    if values.dtype.kind in "OT":
        # Words beside numbers do not sort; as words they do, and they mean the same.
        mixed = len({isinstance(v, str) for v in values}) > 1
        values = np.array([str(v) for v in values] if mixed else values.tolist())
    return values


def _names(groups, what):
    """Each group as it would be written: a table stores donor 7 as 7, 7.0 or "7"."""
    found = np.unique(as_column(groups, what=what)).tolist()
    return {str(int(g) if isinstance(g, float) and g.is_integer() else g).strip() for g in found}


def check_disjoint(train_groups, test_groups, what="donor") -> None:
    """Raise :class:`LeakError` if a group stands on both sides, naming the first few.

    The same donor stored as 7, 7.0 and "7" is one donor.

    Parameters
    ----------
    train_groups, test_groups : sequence
        Donor, patient, animal or study of each training and each test cell.
    what : str, default "donor"
        What the groups are, for the message.

    Raises
    ------
    LeakError
        If they share a group.
    DataError
        If a cell does not say which group it is of.
    """
    both = sorted(_names(train_groups, what) & _names(test_groups, what))
    if both:
        raise LeakError(
            f"{many(len(both), what)} {'is' if len(both) == 1 else 'are'} on both sides of the split "
            f"({shown(both)}): a model may recognise the {what} instead of learning the label; split by {what}, with "
            f"grouped_split, grouped_folds or holdout"
        )


def holdout(groups, test):
    """Hold out named groups.

    Parameters
    ----------
    groups : sequence of shape (n_cells,)
        Donor, patient, animal or study of each cell.
    test : value or list of values
        The groups to test on.

    Returns
    -------
    train, test : ndarray of int
        Row numbers.

    Raises
    ------
    DataError
        If a group is not there, none is named, or no cell is left to train on.
    """
    groups = as_column(groups)
    wanted = list(test) if isinstance(test, set) else np.atleast_1d(array_of(test, "test")).tolist()
    if not wanted:
        raise DataError(f"no group is named to test on; there are {shown(np.unique(groups))}")
    there = set(groups.tolist())
    absent = [w for w in wanted if w not in there]
    if absent:
        raise DataError(f"there is no group {shown(absent)}; there are {shown(np.unique(groups))}")
    mask = np.isin(groups, wanted)
    if mask.all():
        raise DataError("every cell is held out: leave at least one group to train on")
    return np.flatnonzero(~mask), np.flatnonzero(mask)


def grouped_folds(y, groups, n_splits=5, random_state=None, what="donor"):
    """Cross-validation folds that keep every group on one side and the class shares as even as the groups allow.

    Parameters
    ----------
    y : sequence of shape (n_cells,)
        Labels.
    groups : sequence of shape (n_cells,)
        Donor, patient, animal or study of each cell.
    n_splits : int, default 5
        Folds.
    random_state : int, optional
        Of the order in which groups are dealt out.
    what : str, default "donor"
        What the groups are, for the messages.

    Returns
    -------
    list of (train, test) : ndarrays of int
        Every cell is in exactly one test fold, and every class of a test fold is in its training cells too.

    Raises
    ------
    DataError
        If there are fewer groups than folds, or a class stands in one group only: leaving that group out would leave
        nothing of the class to learn from, so no fold can judge it. Also if no dealing out of the groups was found that
        leaves every class in training; one group a fold always does.
    SettingError
        If `n_splits` is no whole number from 2 up.

    Notes
    -----
    With more groups than folds these are the folds of scikit-learn's ``StratifiedGroupKFold`` with the same
    `random_state`, wherever those leave every class in training. It does not look for that by itself; here other orders
    are tried.
    """
    require(Whole(2), n_splits=n_splits)
    y = as_column(y, what="y")
    groups = as_column(groups, len(y))
    found, member = np.unique(groups, return_inverse=True)
    if len(found) < n_splits:
        raise DataError(
            f"{n_splits} folds need {many(n_splits, what)}, there are {len(found)} ({shown(found)}): use fewer"
        )
    table, classes = contingency_matrix(member, y), np.unique(y)  # cells of each class in each group
    alone = classes[(table > 0).sum(0) < 2]
    if len(alone):
        raise DataError(
            f"class {shown(alone)} is found in one {what} only: with that {what} held out nothing of the class is "
            f"left to learn from, and with it kept no test can tell the class from the {what}; these data cannot say. "
            f"Drop the class, or add cells of it from another {what}"
        )
    if len(found) == n_splits:
        order = np.arange(n_splits) if random_state is None else check_random_state(random_state).permutation(n_splits)
        return [(np.flatnonzero(member != g), np.flatnonzero(member == g)) for g in order]
    short = set()
    for seed in [random_state] + [check_random_state(random_state)] * 49:
        splitter = StratifiedGroupKFold(n_splits, shuffle=True, random_state=seed)
        with warnings.catch_warnings():
            # A class with fewer cells than folds is fine here: some folds test without it.
            warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
            try:
                folds = list(splitter.split(np.zeros(len(y)), y, groups))
            except ValueError:
                # scikit-learn asks for a class with as many cells as folds; one group a fold needs no such thing.
                break
        lost = [c for train, test in folds for c in np.setdiff1d(y[test], y[train])]
        if not lost and all(len(test) for _, test in folds):
            return folds
        short.update(lost)
    raise DataError(
        f"no {n_splits} folds were found that keep each {what} whole, hold cells each and leave every class in training"
        f"{f' (class {shown(sorted(short))} went missing)' if short else ''}: use n_splits={len(found)}, "
        f"one {what} a fold"
    )


def grouped_split(y, groups, test_size=0.25, random_state=None, what="donor"):
    """One split with whole groups on either side, about `test_size` of the cells in the test.

    The groups are tried in fifty random orders, each cut at every place; the split nearest to the share asked for, of
    the cells and of each class, is kept. Every class stays in training, so a group that alone holds a class is never
    tested.

    Parameters
    ----------
    y, groups : sequences of shape (n_cells,)
        Label, and donor, patient, animal or study, of each cell.
    test_size : float, default 0.25
        Share of cells to test on, between 0 and 1.
    random_state : int, optional
        Of the orders that are tried.
    what : str, default "donor"
        What the groups are, for the messages.

    Returns
    -------
    train, test : ndarrays of int

    Raises
    ------
    DataError
        If there are fewer than two groups, or each of them holds a class that no other has.
    SettingError
        If `test_size` is not between 0 and 1.
    """
    require(Between(0, 1), test_size=test_size)
    y = as_column(y, what="y")
    groups = as_column(groups, len(y))
    found, member = np.unique(groups, return_inverse=True)
    if len(found) < 2:
        raise DataError(
            f"all cells are of one {what} ({shown(found)}): nothing can be held out, and a split within one "
            f"cannot say how a model does on another"
        )
    table, classes = contingency_matrix(member, y), np.unique(y)
    alone = (table > 0).sum(0) == 1
    free = np.flatnonzero((table[:, alone] == 0).all(1))
    if not len(free):
        raise DataError(
            f"each {what} holds a class that no other has: class {shown(classes[alone])} is in one {what} only, and "
            f"would be missing from training with that {what} held out; drop these classes, or add cells of them from "
            f"another {what}"
        )
    total, rng, best = table.sum(0), np.random.default_rng(random_state), None
    for _ in range(50):
        order = rng.permutation(free)
        inside = np.cumsum(table[order], axis=0)
        possible = (inside < total).all(1)
        share = (inside / total)[:, ~alone] if not alone.all() else inside.sum(1, keepdims=True) / len(y)
        off = np.abs(share - test_size).mean(1) + np.abs(inside.sum(1) / len(y) - test_size)
        off[~possible] = np.inf
        cut = int(off.argmin())
        if np.isfinite(off[cut]) and (best is None or off[cut] < best[0]):
            best = off[cut], order[: cut + 1]
    mask = np.isin(member, best[1])
    train, test = np.flatnonzero(~mask), np.flatnonzero(mask)
    check_disjoint(groups[train], groups[test], what)
    return train, test


def few_shot(y, k, random_state=None, exclude=None, allow_fewer=False, min_size=None, n_classes=None):
    """Draw `k` cells of each class without replacement.

    Parameters
    ----------
    y : sequence of shape (n_cells,)
        Labels.
    k : int
        Cells per class.
    random_state : int, optional
        Of the draw, of classes and of cells.
    exclude : sequence of int, optional
        Rows, or a mask of them, that may not be drawn and are not returned in the rest either.
    allow_fewer : bool, default False
        A class with fewer than `k` cells gives all it has, which may be none, instead of an error.
    min_size : int, optional
        Draw only from classes with at least so many cells (and at least `k`). The others stay in the rest, whole.
    n_classes : int, optional
        Draw from so many of those classes, chosen at random; `min_size` is `k` where it is left out.

    Returns
    -------
    support, rest : ndarrays of int
        ``support`` is ordered by class, in the order of ``np.unique(y)``.

    Raises
    ------
    DataError
        If classes have too few cells; the message names them with their counts.
    SettingError
        If a number is no positive whole number, or `allow_fewer` is asked for beside `min_size` or `n_classes`.
    """
    require(Whole(1), k=k)
    require(Maybe(Whole(1)), min_size=min_size, n_classes=n_classes)
    y = as_column(y, what="y")
    rng = np.random.default_rng(random_state)
    free = np.ones(len(y), dtype=bool)
    if exclude is not None:
        rows = array_of(exclude, "exclude")
        if rows.dtype == bool and rows.shape == y.shape:
            rows = np.flatnonzero(rows)
        if rows.size and (rows.dtype.kind not in "iu" or rows.min() < 0 or rows.max() >= len(y)):
            raise DataError(
                f"exclude does not fit: give row numbers from 0 to {len(y) - 1}, or a mask of {len(y)} cells"
            )
        free[rows.astype(np.int64)] = False
    pools = {c: np.flatnonzero((y == c) & free) for c in np.unique(y)}
    if min_size is not None or n_classes is not None:
        if allow_fewer:
            raise SettingError("allow_fewer=True and min_size or n_classes contradict each other: give one of them")
        pools = _large_pools(pools, max(k, min_size or k), n_classes, rng)
    few = {str(c): len(p) for c, p in pools.items() if len(p) < k}
    if few and not allow_fewer:
        listed = ", ".join(f"{c} ({n})" for c, n in few.items())
        raise DataError(
            f"k={k} is more than some classes have: {listed}; lower k, leave them out by min_size={k}, "
            "or set allow_fewer=True"
        )
    support = np.concatenate([rng.permutation(pool)[:k] for pool in pools.values()])
    free[support] = False
    return support, np.flatnonzero(free)


def _large_pools(pools, least, n_classes, rng):
    """Those classes that have `least` cells, or `n_classes` of them, in their order."""
    large = [c for c in pools if len(pools[c]) >= least]
    wanted = n_classes or len(large)
    if not 1 <= wanted <= len(large):
        raise DataError(
            f"{len(large)} of {len(pools)} classes have {least} cells, and n_classes={n_classes}: "
            "lower k, min_size or n_classes"
        )
    return {large[i]: pools[large[i]] for i in np.sort(rng.permutation(len(large))[:wanted])}


def matched(y, here, random_state=None):
    """Two training sets of the same size and class counts, one from the tested group of cells, one from outside it.

    What meeting the donors beforehand is worth shows only when the training sets do not also differ in size. Half of
    each class `here` becomes the test; the other half, cut to what the class has elsewhere, is the first training set;
    as many cells of the class from elsewhere are the second.

    Parameters
    ----------
    y : sequence of shape (n_cells,)
        Labels.
    here : sequence of bool of shape (n_cells,)
        Cells of the tested run, donor or study.
    random_state : int, optional
        Of the draw.

    Returns
    -------
    known, strange, test : ndarrays of int
        Row numbers. A class with fewer than four cells here or two elsewhere is left out of all three.

    Raises
    ------
    DataError
        If no class has enough cells on both sides.
    """
    y, here = as_column(y, what="y"), array_of(here, "here", bool)
    if here.shape != y.shape:
        raise DataError(f"here has shape {here.shape}: give one truth value for each of the {len(y)} cells")
    rng, known, strange, test = np.random.default_rng(random_state), [], [], []
    for c in np.unique(y):
        inside = rng.permutation(np.flatnonzero((y == c) & here))
        outside = rng.permutation(np.flatnonzero((y == c) & ~here))
        if len(inside) >= 4 and len(outside) >= 2:
            half = len(inside) // 2
            k = min(half, len(outside))
            known, strange, test = [*known, *inside[:k]], [*strange, *outside[:k]], [*test, *inside[half:]]
    if not test:
        raise DataError("no class has four cells here and two elsewhere: there is nothing to match")
    return np.array(known), np.array(strange), np.array(test)
