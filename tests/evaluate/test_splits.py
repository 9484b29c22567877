"""Splits keep groups whole, lose no cell, and say which class or donor makes the impossible impossible."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from shared.evaluate import LeakError, SplitError, check_disjoint, few_shot, grouped_folds, grouped_split, holdout

CELLS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 6)), min_size=12, max_size=80)


def columns(cells):
    return np.array([c for c, _ in cells]), np.array([g for _, g in cells])


def test_a_shared_donor_is_named():
    with pytest.raises(LeakError, match=r"2 patients are on both sides of the split \(p1, p2\)"):
        check_disjoint(["p1", "p2", "p3"], ["p2", "p1", "p9"], what="patient")
    assert check_disjoint(["p1"], ["p2"]) is None


def test_many_shared_donors_are_counted_not_listed():
    with pytest.raises(LeakError, match=r"8 donors .* and 3 more"):
        check_disjoint(range(8), range(8))


def test_a_donor_is_the_same_written_as_word_or_number():
    with pytest.raises(LeakError):
        check_disjoint([1, 2], ["2", "3"])


@settings(deadline=None)
@given(CELLS, st.integers(2, 4), st.integers(0, 5))
def test_folds_keep_groups_whole_and_lose_no_cell(cells, n_splits, seed):
    y, groups = columns(cells)
    try:
        folds = grouped_folds(y, groups, n_splits, random_state=seed)
    except SplitError:
        assume(False)
    tested = np.concatenate([test for _, test in folds])
    assert sorted(tested) == list(range(len(y)))
    for train, test in folds:
        assert not set(groups[train]) & set(groups[test]) and len(train) + len(test) == len(y)


@settings(deadline=None)
@given(CELLS, st.floats(0.1, 0.6), st.integers(0, 5))
def test_split_keeps_groups_whole_and_every_class_in_training(cells, size, seed):
    y, groups = columns(cells)
    try:
        train, test = grouped_split(y, groups, size, random_state=seed)
    except SplitError:
        assume(False)
    assert not set(groups[train]) & set(groups[test])
    assert sorted([*train, *test]) == list(range(len(y))) and len(train) and len(test)
    assert set(y[train]) == set(y)


def test_split_comes_near_the_size_and_the_shares_asked_for():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 40, 2000)
    y = np.where(rng.random(2000) < 0.2, "rare", "common")
    _, test = grouped_split(y, groups, 0.25, random_state=0)
    assert abs(len(test) / 2000 - 0.25) < 0.03
    assert abs((y[test] == "rare").mean() - (y == "rare").mean()) < 0.03


@pytest.mark.parametrize("call", [grouped_folds, grouped_split])
def test_same_seed_same_split(call):
    y, groups = np.tile(list("ab"), 50), np.repeat(np.arange(20), 5)
    one, two = (call(y, groups, random_state=3) for _ in range(2))
    assert (
        all((np.concatenate(a) == np.concatenate(b)).all() for a, b in zip(one, two))
        if call is grouped_folds
        else ((one[0] == two[0]).all())
    )


def test_a_class_of_one_donor_is_refused_with_the_reason():
    y, groups = np.repeat(["sick", "well"], 10), np.repeat([0, 1], 10)
    with pytest.raises(SplitError, match="class sick, well is found in one donor only"):
        grouped_folds(y, groups, 2)
    with pytest.raises(SplitError, match="is in one donor only"):
        grouped_split(y, groups)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: grouped_folds(list("abab"), [0, 0, 1, 1], 3), "3 folds need 3 donors, there are 2"),
        (lambda: grouped_folds(list("ab"), [0, 1, 2]), "one value for each of the 2 cells"),
        (lambda: grouped_folds(list("ab"), [0, np.nan]), "missing"),
        (lambda: grouped_split(list("ab"), [0, 0]), "all cells are of one donor"),
        (lambda: grouped_split(list("ab"), [0, 1], 1.5), "not between 0 and 1"),
        (lambda: holdout([1, 1, 2], 3), "no group 3; there are 1, 2"),
        (lambda: holdout([1, 1, 2], [1, 2]), "every cell is held out"),
        (lambda: few_shot(list("aab"), 2), r"lower k.*|b \(1\)"),
        (lambda: few_shot(list("aab"), 0), "at least one cell"),
    ],
)
def test_impossible_requests_say_why(call, says):
    with pytest.raises(SplitError, match=says):
        call()


def test_holdout_takes_one_group_or_several():
    train, test = holdout(["x", "y", "z", "x"], ["x", "z"])
    assert train.tolist() == [1] and test.tolist() == [0, 2, 3]
    assert holdout([1, 2, 3], 2)[1].tolist() == [1]


@given(st.lists(st.sampled_from("abc"), min_size=6, max_size=60), st.integers(1, 8), st.integers(0, 9))
def test_few_shot_draws_k_of_each_and_leaves_the_rest(labels, k, seed):
    y = np.array(labels)
    support, rest = few_shot(y, k, seed, allow_fewer=True)
    assert sorted([*support, *rest]) == list(range(len(y)))
    for c in set(labels):
        assert (y[support] == c).sum() == min(k, (y == c).sum())
    assert (few_shot(y, k, seed, allow_fewer=True)[0] == support).all()


def test_few_shot_excludes_and_names_what_is_short():
    y = np.array(list("aaabbb"))
    support, rest = few_shot(y, 1, 0, exclude=[0, 1, 3])
    assert not {0, 1, 3} & {*support, *rest} and y[support].tolist() == ["a", "b"]
    with pytest.raises(SplitError, match=r"some classes have: b \(2\)"):
        few_shot(y[:5], 3)


def test_few_shot_draws_differ_between_seeds():
    y = np.repeat(list("ab"), 50)
    assert (few_shot(y, 10, 0)[0] != few_shot(y, 10, 1)[0]).any()
