"""Splits that keep every animal, patient, donor or study on one side, and refuse where that cannot be."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold


class SplitError(ValueError):
    """The split asked for cannot be made from these cells."""


class LeakError(SplitError):
    """The same animal, patient, donor or study stands on both sides of a split."""


def _column(values, n=None, what="groups"):
    values = np.asarray(values)
    if values.ndim != 1 or (n is not None and len(values) != n):
        raise SplitError(f"{what} has shape {values.shape}: give one value for each of the {n or 'n'} cells")
    if (values.dtype.kind == "f" and np.isnan(values).any()) or any(v is None for v in values[:1000]):
        raise SplitError(f"{what} holds missing values: every cell must say which {what} it is of")
    return values


def _shown(values):
    values = list(map(str, values))
    return ", ".join(values[:5]) + (f" and {len(values) - 5} more" if len(values) > 5 else "")


def check_disjoint(train_groups, test_groups, what="donor") -> None:
    """Raise :class:`LeakError` if a group stands on both sides, naming the first few.

    Parameters
    ----------
    train_groups, test_groups : sequence
        Donor, patient, animal or study of each training and each test cell.
    what : str, default "donor"
        What the groups are, for the message.
    """
    both = np.intersect1d(np.asarray(train_groups).astype(str), np.asarray(test_groups).astype(str))
    if len(both):
        raise LeakError(
            f"{len(both)} {what}s are on both sides of the split ({_shown(both)}): a model may recognise the {what} "
            f"instead of learning the label; split by {what}"
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
    SplitError
        If a group is not there, or no cell is left to train on.
    """
    groups = _column(groups)
    wanted = np.atleast_1d(test)
    absent = [w for w in wanted if w not in set(groups.tolist())]
    if absent:
        raise SplitError(f"there is no group {_shown(absent)}; there are {_shown(np.unique(groups))}")
    mask = np.isin(groups, wanted)
    if mask.all():
        raise SplitError("every cell is held out: leave at least one group to train on")
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
        Every cell is in exactly one test fold.

    Raises
    ------
    SplitError
        If there are fewer groups than folds, or a class stands in one group only: leaving that group out would leave
        nothing of the class to learn from, so no fold can judge it.
    """
    y = _column(y, what="y")
    groups = _column(groups, len(y))
    found = np.unique(groups)
    if len(found) < n_splits:
        raise SplitError(
            f"{n_splits} folds need {n_splits} {what}s, there are {len(found)} ({_shown(found)}): use fewer"
        )
    alone = [c for c in np.unique(y) if len(np.unique(groups[y == c])) < 2]
    if alone:
        raise SplitError(
            f"class {_shown(alone)} is found in one {what} only: with that {what} held out nothing of the class is "
            f"left to learn from, and with it kept no test can tell the class from the {what}; these data cannot say"
        )
    splitter = StratifiedGroupKFold(n_splits, shuffle=True, random_state=random_state)
    with warnings.catch_warnings():
        # A class with fewer cells than folds is fine here: some folds test without it.
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        try:
            folds = list(splitter.split(np.zeros(len(y)), y, groups))
        except ValueError as e:
            raise SplitError(f"{n_splits} folds cannot be made of {len(y)} cells: {e}") from e
    if any(len(test) == 0 for _, test in folds):
        raise SplitError(
            f"{n_splits} folds leave one without a cell, because the {what}s differ in size: use fewer folds"
        )
    for train, test in folds:
        check_disjoint(groups[train], groups[test], what)
    return folds


def grouped_split(y, groups, test_size=0.25, random_state=None, what="donor"):
    """One split with whole groups on either side, about `test_size` of the cells in the test.

    The groups are tried in fifty random orders; the split nearest to the size and the class shares asked for is kept.

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
    SplitError
        If there are fewer than two groups, or a class would be missing from training however the groups fall.
    """
    y = _column(y, what="y")
    groups = _column(groups, len(y))
    if not 0 < test_size < 1:
        raise SplitError(f"test_size={test_size} is not between 0 and 1")
    found, member = np.unique(groups, return_inverse=True)
    if len(found) < 2:
        raise SplitError(f"all cells are of one {what} ({found[0]}): nothing can be held out")
    classes, label = np.unique(y, return_inverse=True)
    table = np.zeros((len(found), len(classes)))
    np.add.at(table, (member, label), 1)
    total, rng, best = table.sum(0), np.random.default_rng(random_state), None
    for _ in range(50):
        order = rng.permutation(len(found))
        sizes = np.cumsum(table[order].sum(1))
        cut = int(np.clip(np.abs(sizes - test_size * len(y)).argmin() + 1, 1, len(found) - 1))
        inside = table[order[:cut]].sum(0)
        if (total - inside == 0).any():
            continue
        cost = np.abs(inside / total - test_size).mean()
        if best is None or cost < best[0]:
            best = cost, order[:cut]
    if best is None:
        lonely = [c for c, k in zip(classes, (table > 0).sum(0), strict=True) if k == 1]
        raise SplitError(f"no split leaves every class in training; class {_shown(lonely)} is in one {what} only")
    mask = np.isin(member, best[1])
    train, test = np.flatnonzero(~mask), np.flatnonzero(mask)
    check_disjoint(groups[train], groups[test], what)
    return train, test


def few_shot(y, k, random_state=None, exclude=None, allow_fewer=False):
    """Draw `k` cells of each class without replacement.

    Parameters
    ----------
    y : sequence of shape (n_cells,)
        Labels.
    k : int
        Cells per class.
    random_state : int, optional
        Of the draw.
    exclude : sequence of int, optional
        Rows that may not be drawn and are not returned in the rest either.
    allow_fewer : bool, default False
        A class with fewer than `k` cells gives all it has, instead of an error.

    Returns
    -------
    support, rest : ndarrays of int
        ``support`` is ordered by class, in the order of ``np.unique(y)``.

    Raises
    ------
    SplitError
        If `k` is not positive, or classes have too few cells; the message names them with their counts.
    """
    y = _column(y, what="y")
    if k < 1:
        raise SplitError(f"k={k}: draw at least one cell per class")
    rng = np.random.default_rng(random_state)
    free = np.ones(len(y), dtype=bool)
    if exclude is not None:
        free[np.asarray(exclude)] = False
    pools = {c: np.flatnonzero((y == c) & free) for c in np.unique(y)}
    few = {str(c): len(p) for c, p in pools.items() if len(p) < k}
    if few and not allow_fewer:
        listed = ", ".join(f"{c} ({n})" for c, n in few.items())
        raise SplitError(f"k={k} is more than some classes have: {listed}; lower k, drop them, or set allow_fewer=True")
    support = np.concatenate([rng.permutation(pool)[:k] for pool in pools.values()])
    free[support] = False
    return support, np.flatnonzero(free)
