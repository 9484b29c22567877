"""Intervals cover what they say, agree with scipy where it has them, and refuse what has no interval."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse, stats

from shared import evaluate
from shared.evaluate import Interval
from shared.evaluate.intervals import _tables, confusion_bootstrap, from_confusion

COUNT = st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@settings(deadline=None)
@given(COUNT, st.sampled_from([0.8, 0.95, 0.99]))
def test_binomial_intervals_agree_with_scipy(count, level):
    k, n = count
    got, want = evaluate.clopper_pearson(k, n, level), stats.binomtest(k, n).proportion_ci(level, "exact")
    assert (got.low, got.high) == pytest.approx((want.low, want.high), abs=1e-9)
    assert got.low <= got.value <= got.high and got.n == n


@pytest.mark.parametrize(("k", "n"), [(0, 7), (5, 12), (12, 12), (83, 100)])
def test_the_score_interval_is_the_textbooks(k, n):
    """Wilson 1927, solved for the two shares at which the normal test is just not significant."""
    z, p = 1.959963984540054, k / n
    middle, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    got = evaluate.wilson(k, n)
    wanted = (middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)
    assert (got.low, got.high) == pytest.approx(wanted, abs=1e-9)


def test_ten_of_twelve_mice():
    got = evaluate.clopper_pearson(10, 12)
    assert (round(got.low, 2), round(got.high, 2)) == (0.52, 0.98) and not got.excludes(0.6)


@pytest.mark.parametrize(("k", "n"), [(-1, 3), (4, 3), (1, 0), (0.5, 2)])
def test_no_share_no_interval(k, n):
    for interval in (evaluate.clopper_pearson, evaluate.wilson):
        with pytest.raises(ValueError, match="is no share"):
            interval(k, n)


def simulate(make, n_sim=300):
    return [make(np.random.default_rng(seed)) for seed in range(n_sim)]


def coverage(made, truth, stretch=1.0):
    """Share of intervals that hold the truth, each stretched about its value."""
    off = np.array([truth - i.value for i in made])
    low, high = np.array([(i.low - i.value, i.high - i.value) for i in made]).T * stretch
    return ((low <= off) & (off <= high)).mean()


def mean_of_cells(rng):
    return evaluate.bootstrap(np.mean, rng.exponential(size=80), n_boot=200, level=0.9, random_state=0)


def mean_of_donors(rng, groups=True):
    donors = np.repeat(np.arange(30), rng.integers(1, 8, 30))
    x = rng.normal(size=30)[donors] + 0.3 * rng.normal(size=len(donors))
    return evaluate.bootstrap(np.mean, x, n_boot=200, level=0.9, groups=donors if groups else None, random_state=0)


def recall_of_cells(rng):
    y = np.repeat(["common", "rare"], [150, 40])
    called = np.where(rng.random(190) < np.where(y == "rare", 0.6, 0.9), y, "other")
    return evaluate.bootstrap(evaluate.balanced_accuracy, y, called, n_boot=200, level=0.9, strata=y, random_state=0)


@pytest.mark.parametrize(("make", "truth"), [(mean_of_cells, 1.0), (mean_of_donors, 0.0), (recall_of_cells, 0.75)])
def test_bootstrap_covers_about_as_often_as_it_says(make, truth):
    """Of 300 intervals at 90 %, between 84 and 95 % hold the truth. One too short by a third, or too long, does not."""
    made = simulate(make)
    assert 0.84 < coverage(made, truth) < 0.95
    assert coverage(made, truth, stretch=2 / 3) < 0.84 and coverage(made, truth, stretch=1.5) > 0.95


def test_cells_in_place_of_donors_cover_too_little():
    assert coverage(simulate(lambda rng: mean_of_donors(rng, groups=False)), 0.0) < 0.8


def test_bootstrap_over_groups_is_wider_when_cells_of_a_donor_agree():
    rng = np.random.default_rng(0)
    donors = np.repeat(np.arange(12), 50)
    x = rng.normal(size=12)[donors] + 0.1 * rng.normal(size=600)
    cells = evaluate.bootstrap(np.mean, x, random_state=0)
    whole = evaluate.bootstrap(np.mean, x, groups=donors, random_state=0)
    assert (whole.high - whole.low) > 4 * (cells.high - cells.low)
    assert whole.n == 12 and cells.n == 600 and whole.value == cells.value


def test_strata_keep_the_rare_class():
    y = np.array(["common"] * 60 + ["rare"] * 2)

    def n_classes(y):
        return float(len(set(y)))

    assert evaluate.bootstrap(n_classes, y, strata=y, random_state=0).low == 2
    assert evaluate.bootstrap(n_classes, y, random_state=0).low == 1


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: evaluate.bootstrap(np.mean, [1.0]), "two rows or more"),
        (lambda: evaluate.bootstrap(np.mean, [1.0, 2], [1.0]), "one length"),
        (lambda: evaluate.bootstrap(np.mean, [1.0, 2], groups=[0, 0]), "of one group"),
        (lambda: evaluate.bootstrap(np.mean, [1.0, 2], groups=[0, 1], strata=[0, 1]), "not both"),
        (lambda: evaluate.bootstrap(lambda x: x.mean() if x.std() else np.nan, [1.0, 2]), "is NaN in"),
        (lambda: evaluate.bootstrap(np.mean, [1.0, 2], level=95), "level=.* is not a number between 0 and 1"),
        (lambda: evaluate.bootstrap(np.mean, [1.0, 2], n_boot=1), "n_boot=1 is not a whole number from 2 up"),
        (lambda: evaluate.bootstrap(np.mean, np.arange(9.0), groups=[0, 1, 2]), r"groups has shape \(3,\) for 9 rows"),
        (lambda: evaluate.bootstrap(np.mean, np.arange(9.0), strata=[0, 1, 2]), r"strata has shape \(3,\) for 9 rows"),
        (lambda: evaluate.bootstrap(np.mean, [1.0, 2], groups=["a", None]), "groups holds missing values"),
        (lambda: evaluate.bootstrap(np.mean, sparse.csr_matrix(np.eye(3))), "one row a cell"),
        (lambda: evaluate.bootstrap(evaluate.accuracy, ["a", "b"], [0, 1]), "one kind for both"),
        (lambda: evaluate.over_seeds([0.5]), "two finite values"),
        (lambda: evaluate.over_seeds([0.5, np.nan]), "two finite values"),
        (lambda: evaluate.paired_test([1, 2], [1]), "one value of each"),
        (lambda: evaluate.paired_test([1], [1]), "two pairs or more"),
        (lambda: evaluate.paired_test([1, np.nan], [1, 2]), "1 of them not: drop a pair as a whole"),
        (lambda: evaluate.mcnemar_exact([True], [True, False]), "one truth value a cell"),
        (lambda: evaluate.mcnemar_exact(["no", "no"], ["yes", "no"]), "other values than True and False"),
        (lambda: evaluate.mcnemar_exact([1, 0], [1, np.nan]), "other values than True and False"),
        (lambda: evaluate.mcnemar_exact([True], [True], level=2), "level=.* is not a number between 0 and 1"),
    ],
)
def test_what_has_no_interval_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def tables(seed=0, n=400):
    rng = np.random.default_rng(seed)
    y = rng.choice(list("abc"), n, p=[0.7, 0.25, 0.05])
    called = np.where(rng.random(n) < 0.7, y, rng.choice(list("abcd"), n))
    return y, called


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "macro_f1", "cohen_kappa"])
@pytest.mark.parametrize("how", ["cells", "strata", "batches", "groups"])
def test_shortcut_by_tables_agrees_with_resampling_the_cells(metric, how):
    """The wrapped metric is not known to the bootstrap and takes the long way. Both ends are compared."""
    y, called = tables()
    # Donors of very different size: each is drawn alike, whatever it holds.
    donors = np.random.default_rng(3).choice(12, len(y), p=np.arange(1, 13) ** 2 / 650)
    options = {"cells": {}, "strata": {"strata": y}, "batches": {"strata": donors % 3}, "groups": {"groups": donors}}[
        how
    ]
    known = getattr(evaluate, metric)
    quick = evaluate.bootstrap(known, y, called, n_boot=4000, level=0.9, random_state=0, **options)
    slow = evaluate.bootstrap(lambda *a: known(*a), y, called, n_boot=300, level=0.9, random_state=1, **options)
    assert quick.value == slow.value and quick.method == slow.method and quick.n == slow.n
    assert (quick.low, quick.high) == pytest.approx((slow.low, slow.high), abs=0.15 * (slow.high - slow.low))


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "macro_f1", "cohen_kappa"])
def test_a_table_scores_what_its_cells_score_with_classes_missing_too(metric):
    y, called = tables(n=300)
    part = np.concatenate([np.arange(60), np.random.default_rng(4).integers(0, 60, 240)])
    stacked, own = _tables(y, called, part, 60)
    cells = [getattr(evaluate, metric)(y[part == i], called[part == i]) for i in range(60)]
    assert (stacked.sum(2) == 0).any()
    assert from_confusion(stacked.astype(float), own)[metric] == pytest.approx(cells)


def test_shortcut_by_tables_forgets_no_class_that_is_called_only():
    y, called = np.array(list("aabb")), np.array(list("azbz"))
    assert evaluate.bootstrap(evaluate.accuracy, y, called, n_boot=500, random_state=0).high == 1
    everything = evaluate.bootstrap(evaluate.balanced_accuracy, y, called, n_boot=50, strata=y, random_state=0)
    assert everything.value == 0.5
    # Not stratified, a class goes missing from some resamples; it then has no part in the mean, and nothing is NaN.
    assert evaluate.bootstrap(evaluate.macro_f1, y, called, n_boot=500, random_state=0).low >= 0


def test_many_at_once_draws_what_one_by_one_draws(monkeypatch):
    x = np.random.default_rng(0).exponential(size=50)
    unequal, equal = np.repeat(np.arange(5), [4, 6, 10, 13, 17]), np.repeat(np.arange(5), 10)
    for options in ({}, {"strata": unequal}, {"groups": unequal}, {"groups": equal}):
        at_once = evaluate.bootstrap(np.mean, x, n_boot=101, random_state=0, **options)
        one_by_one = evaluate.bootstrap(lambda v: v.mean(), x, n_boot=101, random_state=0, **options)
        assert (at_once.low, at_once.high) == pytest.approx((one_by_one.low, one_by_one.high), rel=1e-12)
        monkeypatch.setattr("shared.evaluate.intervals.BLOCK", 400)
        assert evaluate.bootstrap(np.mean, x, n_boot=101, random_state=0, **options) == at_once
        monkeypatch.undo()
    table = np.random.default_rng(1).normal(size=(50, 3))
    assert evaluate.bootstrap(np.mean, table, n_boot=50, random_state=0).value == pytest.approx(table.mean())


def test_tables_in_blocks_are_tables(monkeypatch):
    y, called = tables()
    monkeypatch.setattr("shared.evaluate.intervals.BLOCK", 100)
    blocks = evaluate.bootstrap(evaluate.accuracy, y, called, n_boot=1001, random_state=0)
    monkeypatch.undo()
    whole = evaluate.bootstrap(evaluate.accuracy, y, called, n_boot=1001, random_state=0)
    assert (blocks.low, blocks.high) == pytest.approx((whole.low, whole.high), abs=0.01)


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "macro_f1", "cohen_kappa"])
def test_confusion_bootstrap_agrees_with_resampling_the_cells(metric):
    y, called = tables()
    drawn, table, own = confusion_bootstrap(y, called, 2000, np.random.default_rng(0))
    quick, at = from_confusion(drawn, own)[metric], from_confusion(table, own)[metric]
    assert at == pytest.approx(getattr(evaluate, metric)(y, called))
    slow = evaluate.bootstrap(getattr(evaluate, metric), y, called, strata=y, n_boot=600, random_state=1)
    width = slow.high - slow.low
    assert np.quantile(quick, [0.025, 0.975]) == pytest.approx([slow.low, slow.high], abs=0.15 * width)


def test_over_seeds_is_the_t_interval():
    got = evaluate.over_seeds([0.7, 0.8, 0.9])
    want = stats.t.interval(0.95, 2, 0.8, stats.sem([0.7, 0.8, 0.9]))
    assert (got.low, got.high) == pytest.approx(want) and got.n == 3
    assert evaluate.over_seeds([0.5, 0.5]).low == 0.5


def test_paired_test_is_exact_for_few_pairs():
    got = evaluate.paired_test([2, 3, 4, 5, 6.0], [1, 1, 1, 1, 1.0])
    assert got.p == pytest.approx(2 / 2**5) and got.difference.value == 3 and "exact" in got.method
    assert evaluate.paired_test([1, 2, 3.0], [1, 2, 3.0]).p == 1


def test_paired_test_agrees_with_scipy_for_many_pairs():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.25, 1, 60), rng.normal(size=60)
    ours = evaluate.paired_test(a, b)
    theirs = stats.permutation_test((a, b), lambda x, y: (x - y).mean(), permutation_type="samples", rng=0)
    assert ours.p == pytest.approx(theirs.pvalue, abs=0.02) and "random" in ours.method


def test_paired_test_does_not_cry_wolf():
    false = [evaluate.paired_test(*np.random.default_rng(s).normal(size=(2, 8))).p < 0.05 for s in range(300)]
    assert np.mean(false) < 0.09


def test_mcnemar_agrees_with_the_binomial_test():
    a = np.array([True] * 40 + [False] * 10 + [True] * 12 + [False] * 3)
    b = np.array([True] * 40 + [False] * 10 + [False] * 12 + [True] * 3)
    got = evaluate.mcnemar_exact(a, b)
    assert got.p == pytest.approx(stats.binomtest(12, 15).pvalue)
    assert got.difference.value == pytest.approx(a.mean() - b.mean())
    assert evaluate.mcnemar_exact(a, a).p == 1
    assert evaluate.mcnemar_exact(a.astype(int), b.astype(float)) == got


def test_mcnemar_on_every_small_table_agrees_with_the_binomial_test():
    for only_a in range(7):
        for only_b in range(7):
            a = np.repeat([True, False, True], [only_a, only_b, 4])
            b = np.repeat([False, True, True], [only_a, only_b, 4])
            got = evaluate.mcnemar_exact(a, b)
            want = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1
            assert got.p == pytest.approx(want) and got.n == only_a + only_b + 4
            assert -1 <= got.difference.low <= got.difference.value <= got.difference.high <= 1
            assert got.difference.low < got.difference.high


def test_mcnemar_interval_covers_with_as_few_as_twelve_mice():
    """Both right in eight of ten mice, one of them only in two of ten; the truth is no difference."""

    def interval(rng):
        u = rng.random(12)
        return evaluate.mcnemar_exact(u < 0.8, (u < 0.7) | (u > 0.9)).difference

    assert coverage(simulate(interval), 0.0) >= 0.93
    same = evaluate.mcnemar_exact([True] * 10 + [False] * 2, [True] * 10 + [False] * 2).difference
    assert (same.low, same.high) == pytest.approx((-0.14, 0.14), abs=0.001)  # 1.96 / 14


def test_an_interval_reads_as_one():
    interval = Interval(0.7634, 0.7, 0.8)
    assert str(interval) == "0.76 [0.70, 0.80]" and f"{interval:.3f}" == "0.763 [0.700, 0.800]"
    assert interval.excludes(0.5) and not interval.excludes(0.7)
    assert not Interval(np.nan, np.nan, np.nan).excludes(0.5)
