"""Intervals cover what they say, agree with scipy where it has them, and refuse what has no interval."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from shared import evaluate
from shared.evaluate import Interval
from shared.evaluate.intervals import confusion_bootstrap, from_confusion

COUNT = st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(COUNT, st.sampled_from([0.8, 0.95, 0.99]))
def test_binomial_intervals_agree_with_scipy(count, level):
    k, n = count
    for ours, method in ((evaluate.clopper_pearson, "exact"), (evaluate.wilson, "wilson")):
        got, want = ours(k, n, level), stats.binomtest(k, n).proportion_ci(level, method)
        assert (got.low, got.high) == pytest.approx((want.low, want.high), abs=1e-9)
        assert got.low <= got.value <= got.high and got.n == n


def test_ten_of_twelve_mice():
    got = evaluate.clopper_pearson(10, 12)
    assert (round(got.low, 2), round(got.high, 2)) == (0.52, 0.98) and not got.excludes(0.6)


@pytest.mark.parametrize(("k", "n"), [(-1, 3), (4, 3), (1, 0), (0.5, 2)])
def test_no_share_no_interval(k, n):
    for interval in (evaluate.clopper_pearson, evaluate.wilson):
        with pytest.raises(ValueError, match="is no share"):
            interval(k, n)


def coverage(make, truth, n_sim=300):
    return np.mean([not make(np.random.default_rng(s)).excludes(truth) for s in range(n_sim)])


def test_bootstrap_covers_a_mean_about_as_often_as_it_says():
    """Of 300 intervals at 90 %, between 84 and 95 % must hold the truth; one too short by a third would not."""

    def interval(rng):
        return evaluate.bootstrap(np.mean, rng.exponential(size=80), n_boot=200, level=0.9, random_state=0)

    assert 0.84 < coverage(interval, 1.0) < 0.95


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
        (lambda: evaluate.bootstrap(np.mean, [1.0, 2], level=95), "not between 0 and 1"),
        (lambda: evaluate.over_seeds([0.5]), "two finite values"),
        (lambda: evaluate.over_seeds([0.5, np.nan]), "two finite values"),
        (lambda: evaluate.paired_test([1, 2], [1]), "one value of each"),
        (lambda: evaluate.mcnemar_exact([True], [True, False]), "one truth value a cell"),
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


def test_an_interval_reads_as_one():
    interval = Interval(0.7634, 0.7, 0.8)
    assert str(interval) == "0.76 [0.70, 0.80]" and f"{interval:.3f}" == "0.763 [0.700, 0.800]"
    assert interval.excludes(0.5) and not interval.excludes(0.7)
