"""Splits keep groups whole, lose no cell, and say which class or donor makes the impossible impossible."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from shared.data.constraints import SettingError
from shared.data.errors import DataError
from shared.evaluate import (
    LeakError,
    check_disjoint,
    few_shot,
    grouped_folds,
    grouped_split,
    holdout,
    matched,
)

CELLS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 6)), min_size=12, max_size=80)


def columns(cells):
    return np.array([c for c, _ in cells]), np.array([g for _, g in cells])


def test_a_shared_donor_is_named():
    with pytest.raises(LeakError, match=r"2 patients are on both sides of the split \(p1, p2\)"):
        check_disjoint(["p1", "p2", "p3"], ["p2", "p1", "p9"], what="patient")
    assert check_disjoint(["p1"], ["p2"]) is None


def test_many_shared_donors_are_counted_not_listed():
    with pytest.raises(LeakError, match=r"8 donors .*, …"):
        check_disjoint(range(8), range(8))


def test_a_donor_is_the_same_written_as_word_or_number():
    with pytest.raises(LeakError):
        check_disjoint([1, 2], ["2", "3"])


@pytest.mark.parametrize(("here", "there"), [([7.0, 8.0], ["7"]), ([7], np.array([7.0])), (["d1 "], ["d1"])])
def test_a_donor_is_the_same_however_a_table_stores_it(here, there):
    with pytest.raises(LeakError, match="1 donor is on both sides"):
        check_disjoint(here, there)


def test_the_leak_is_told_with_its_cure():
    with pytest.raises(LeakError, match=r"2 studies are .* split by study, with grouped_split"):
        check_disjoint(["a", "b"], ["b", "a"], what="study")
    with pytest.raises(DataError, match="patient holds missing values"):
        check_disjoint(["a", None], ["b"], what="patient")


def lonely(y, groups):
    return {c for c in set(y.tolist()) if len(set(groups[y == c].tolist())) < 2}


@settings(deadline=None)
@given(CELLS, st.integers(2, 4), st.integers(0, 5))
def test_folds_keep_groups_whole_lose_no_cell_and_test_no_class_unseen(cells, n_splits, seed):
    y, groups = columns(cells)
    try:
        folds = grouped_folds(y, groups, n_splits, random_state=seed)
    except DataError as e:
        n = len(set(groups.tolist()))
        # One group a fold is always possible when no class is alone in a group.
        assert n < n_splits or lonely(y, groups) or (n > n_splits and f"use n_splits={n}" in str(e))
        return
    assert len(folds) == n_splits
    tested = np.concatenate([test for _, test in folds])
    assert sorted(tested) == list(range(len(y)))
    for train, test in folds:
        assert not set(groups[train]) & set(groups[test]) and len(train) + len(test) == len(y)
        assert len(test) and set(y[test]) <= set(y[train])


@settings(deadline=None)
@given(CELLS, st.floats(0.05, 0.95), st.integers(0, 5))
def test_split_is_refused_only_where_none_exists(cells, size, seed):
    """One exists exactly where some group can go without taking a class along."""
    y, groups = columns(cells)
    fixed = {g for c in lonely(y, groups) for g in groups[y == c].tolist()}
    found = set(groups.tolist())
    if len(found) < 2 or found == fixed:
        with pytest.raises(DataError):
            grouped_split(y, groups, size, random_state=seed)
        return
    train, test = grouped_split(y, groups, size, random_state=seed)
    assert not set(groups[train]) & set(groups[test])
    assert sorted([*train, *test]) == list(range(len(y))) and len(train) and len(test)
    assert set(y[train]) == set(y)


def test_no_fold_tests_a_class_it_never_trained_on():
    """Three donors, each class in two of them: any two donors in one fold take a class along."""
    y, groups = np.array(list("aabbcc")), np.array([0, 1, 1, 2, 0, 2])
    for seed in range(5):
        with pytest.raises(DataError, match=r"class [abc].* went missing\): use n_splits=3, one donor a fold"):
            grouped_folds(y, groups, 2, random_state=seed)
        assert len(grouped_folds(y, groups, 3, random_state=seed)) == 3
    rare = np.concatenate([y, np.repeat(["d"], 8)]), np.concatenate([groups, np.arange(3, 11)])
    for seed in range(20):
        for train, test in grouped_folds(*rare, 3, random_state=seed):
            assert set(rare[0][test]) <= set(rare[0][train])


def test_folds_are_those_of_scikit_learn_where_those_will_do():
    rng = np.random.default_rng(0)
    y, groups = rng.choice(list("abc"), 400), rng.integers(0, 20, 400)
    theirs = StratifiedGroupKFold(4, shuffle=True, random_state=7).split(y, y, groups)
    for (_, ours), (_, expected) in zip(grouped_folds(y, groups, 4, random_state=7), theirs, strict=True):
        assert (ours == expected).all()


def test_a_donor_that_alone_holds_a_class_stays_in_training():
    y, groups = np.array(list("aaaabbbbc")), np.array([0, 0, 1, 1, 0, 1, 2, 2, 0])
    for seed in range(10):
        train, _ = grouped_split(y, groups, 0.5, random_state=seed)
        assert set(groups[train]) >= {0} and set(y[train]) == {"a", "b", "c"}


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
    with pytest.raises(DataError, match="class sick, well is found in one donor only"):
        grouped_folds(y, groups, 2)
    with pytest.raises(DataError, match="is in one donor only"):
        grouped_split(y, groups)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: grouped_folds(list("abab"), [0, 0, 1, 1], 3), "3 folds need 3 donors, there are 2"),
        (lambda: grouped_folds(list("ab"), [0, 1, 2]), "one value for each of the 2 cells"),
        (lambda: grouped_folds(list("ab"), [0, np.nan]), "missing"),
        (lambda: grouped_folds(list("ab"), np.array(["x", np.nan], dtype=object)), "missing"),
        (lambda: grouped_folds(list("abac"), [0, 0, 1, 1], 2), "class b, c is found in one .* Drop the class"),
        (lambda: holdout([1, 1, 2], []), "no group is named"),
        (lambda: few_shot(list("aabb"), 1, exclude=[4]), "row numbers from 0 to 3"),
        (lambda: few_shot(list("aabb"), 1, exclude=[-1]), "row numbers from 0 to 3"),
        (lambda: few_shot(list("aabb"), 1, exclude=[True, False]), "a mask of 4 cells"),
        (lambda: few_shot(np.array(["a", None, "b"]), 1), "y holds missing values"),
        (lambda: grouped_split(list("ab"), [0, 0]), "all cells are of one donor"),
        (lambda: holdout([1, 1, 2], 3), "no group 3; there are 1, 2"),
        (lambda: holdout([1, 1, 2], [1, 2]), "every cell is held out"),
        (lambda: few_shot(list("aab"), 2), r"b \(1\); lower k"),
    ],
)
def test_impossible_requests_say_why(call, says):
    with pytest.raises(DataError, match=says):
        call()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: grouped_folds(list("abab"), [0, 0, 1, 1], 1), "n_splits=1 is not a whole number from 2 up"),
        (lambda: grouped_folds(list("abab"), [0, 0, 1, 1], 2.5), "n_splits=2.5"),
        (lambda: grouped_split(list("ab"), [0, 1], 1.5), "test_size=1.5 is not a number between 0 and 1"),
        (lambda: few_shot(list("aabb"), 1.5), "k=1.5 is not a whole number from 1 up"),
        (lambda: few_shot(list("aab"), 0), "k=0"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(call, says):
    with pytest.raises(SettingError, match=says):
        call()


def test_holdout_takes_one_group_or_several():
    train, test = holdout(["x", "y", "z", "x"], ["x", "z"])
    assert train.tolist() == [1] and test.tolist() == [0, 2, 3]
    assert holdout([1, 2, 3], 2)[1].tolist() == [1]
    assert holdout([1, 2, 3], {2, 3})[0].tolist() == [0]
    assert holdout(np.array(["p1", 7, "p1"], dtype=object), "p1")[0].tolist() == [1]


def test_few_shot_chooses_classes_among_the_large_ones():
    y = np.repeat(["a", "b", "c", "d"], (20, 16, 15, 30))
    for seed in range(8):
        support, rest = few_shot(y, 10, seed, n_classes=2, min_size=16)
        assert len(np.unique(y[support])) == 2 and "c" not in y[support] and len(support) == 20
        assert set(y[rest]) == set(y), "the other classes are left to test on"
    assert set(y[few_shot(y, 16, 0, min_size=1)[0]]) == {"a", "b", "d"}, "a class with fewer than k is never drawn from"
    assert np.array_equal(few_shot(y, 10, 3, n_classes=3)[0], few_shot(y, 10, 3, n_classes=3)[0])
    for asked in ({"k": 10, "n_classes": 4, "min_size": 16}, {"k": 100, "min_size": 1}):
        with pytest.raises(DataError, match="of 4 classes have 1"):
            few_shot(y, **asked)
    with pytest.raises(SettingError, match="contradict"):
        few_shot(y, 10, min_size=16, allow_fewer=True)


@settings(deadline=None)
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
    masked, _ = few_shot(y, 1, 0, exclude=np.isin(np.arange(6), [0, 1, 3]))
    assert (masked == support).all()
    with pytest.raises(DataError, match=r"some classes have: b \(2\)"):
        few_shot(y[:5], 3)


def test_few_shot_draws_differ_between_seeds():
    y = np.repeat(list("ab"), 50)
    assert (few_shot(y, 10, 0)[0] != few_shot(y, 10, 1)[0]).any()


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), min_size=10, max_size=80), st.integers(0, 5))
def test_matched_sets_have_the_same_classes_and_the_test_stays_apart(cells, seed):
    y, here = np.array([c for c, _ in cells]), np.array([h for _, h in cells])
    try:
        known, strange, test = matched(y, here, random_state=seed)
    except DataError:
        assert not any((y[here] == c).sum() >= 4 and (y[~here] == c).sum() >= 2 for c in "abc")
        return
    assert sorted(y[known]) == sorted(y[strange]) and set(y[known]) == set(y[test])
    assert here[known].all() and here[test].all() and not here[strange].any()
    assert len({*known, *strange, *test}) == len(known) + len(strange) + len(test)
    assert all((a == b).all() for a, b in zip(matched(y, here, seed), (known, strange, test), strict=True))


@pytest.mark.parametrize(
    ("y", "here", "says"),
    [(list("aaab"), [True] * 4, "nothing to match"), (list("aab"), [True, False], "one truth value for each of the 3")],
)
def test_what_cannot_be_matched_is_refused(y, here, says):
    with pytest.raises(DataError, match=says):
        matched(y, here)


def test_what_is_grouped_is_named_in_the_plural():
    for what, many in (("assay", "assays"), ("study", "studies"), ("donor", "donors")):
        with pytest.raises(DataError, match=f"3 folds need 3 {many}, there are 2"):
            grouped_folds(["a", "b"] * 4, [1, 2] * 4, n_splits=3, what=what)
