"""Intervals over episodes, seeds and classes: against formulas written out, and against simulated worlds."""

import numpy as np
import pytest
from scipy import stats

from shared import evaluate
from shared.data.constraints import SettingError
from shared.data.errors import DataError
from shared.evaluate.episode_intervals import few_shot_interval, few_shot_intervals
from shared.evaluate.episodes import few_shot_accuracy
from shared.nn.blocks import encoder
from shared.nn.heads import nearest_centroid
from shared.nn.meta import Prototypical

from .few_shots import G, answers, from_accuracy, sampler


def test_intervals_over_episodes_and_seeds_are_students():
    drawn = sampler()
    runs = [few_shot_accuracy(Prototypical(encoder((G, 8), "layer")), drawn, 50) for _ in range(3)]
    one = few_shot_interval(runs[0], "episodes")
    half = stats.t.ppf(0.975, 49) * stats.sem(runs[0].accuracy)
    assert (one.low, one.high) == pytest.approx((one.value - half, one.value + half)) and one.n == 50
    over = few_shot_interval(runs, "seeds", what="ari")
    expected = evaluate.over_seeds([r.ari.mean() for r in runs])
    assert (over.value, over.low, over.high) == pytest.approx((expected.value, expected.low, expected.high))
    with pytest.raises(DataError, match="two training runs or more, got 1"):
        few_shot_interval(runs[0], "seeds")


def test_leaving_classes_out_is_the_jackknife_written_out():
    result = few_shot_accuracy(nearest_centroid, sampler(kinds=6), 200)
    for what in ("accuracy", "ari"):
        table = result.table()
        without = [table[[f"t{i}" not in row for row in table["classes"]]][what].mean() for i in range(6)]
        half = stats.t.ppf(0.975, 5) * np.sqrt(5 / 6 * np.square(without - np.mean(without)).sum())
        found = few_shot_interval(result, what=what)
        assert found.value == pytest.approx(table[what].mean()) and found.n == 6
        assert found.high == pytest.approx(min(found.value + half, 1)) and found.low == pytest.approx(
            found.value - half
        )


def test_jackknife_of_all_subsets_of_additive_classes_is_the_t_interval_of_the_classes():
    from itertools import combinations

    ability = np.array([0.1, 0.4, 0.5, 0.8, 0.9, 0.2, 0.7])
    classes = np.array(list(combinations(range(7), 3)))
    found = few_shot_interval(from_accuracy(classes, ability[classes], 7))
    exact = evaluate.over_seeds(ability)
    assert (found.value, found.low, found.high) == pytest.approx((exact.value, exact.low, exact.high))


def test_variances_of_seeds_and_classes_add_up():
    rng = np.random.default_rng(0)
    classes = np.array([rng.permutation(9)[:3] for _ in range(300)])
    ability = np.linspace(0.3, 0.6, 9)[classes]
    runs = [from_accuracy(classes, ability + shift, 9, queries=100) for shift in (0.0, 0.02, 0.1)]
    both, seeds, alone = (few_shot_interval(runs, over) for over in ("seeds and classes", "seeds", "classes"))
    parts = [((i.high - i.value) / stats.t.ppf(0.975, n - 1)) ** 2 for i, n in ((seeds, 3), (alone, 9))]
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 2 + parts[1] ** 2 / 8)
    half = stats.t.ppf(0.975, freedom) * np.sqrt(sum(parts))
    assert (both.low, both.high) == pytest.approx((both.value - half, both.value + half)) and both.n == 9
    wide, narrow = few_shot_interval(runs[:1] * 2, "seeds and classes"), few_shot_interval(runs[0])
    assert (wide.low, wide.high) == pytest.approx((narrow.low, narrow.high)), "seeds that agree add nothing"


def test_as_many_classes_as_an_episode_has_cannot_be_left_out():
    result = few_shot_accuracy(nearest_centroid, sampler(kinds=4), 50)
    found = few_shot_interval(result)
    assert "too short" in found.method and found.n == 4 and found.low < found.value < found.high
    means = result.recall().mean()
    assert means.min() <= found.low and found.high <= means.max()
    for options in ({"what": "ari"}, {"over": "seeds and classes"}):
        with pytest.raises(DataError, match="ask for episodes of fewer than 4 classes"):
            few_shot_interval([result, result], **options)


def test_a_difference_is_of_the_same_episodes():
    drawn = sampler()
    good, bad = (
        few_shot_accuracy(nearest_centroid, drawn, 60),
        few_shot_accuracy(lambda s, q: -nearest_centroid(s, q), drawn, 60),
    )
    found = few_shot_interval(good, against=bad)
    assert found.value == pytest.approx((good.accuracy - bad.accuracy).mean()) and found.low > 0
    same = few_shot_interval(good, against=good)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    backwards = few_shot_interval(bad, against=good)
    assert backwards.high < 0 and backwards.low < -0.5, "a difference is not cut at zero"
    with pytest.raises(DataError, match="not asked the same episodes"):
        few_shot_interval(good, against=few_shot_accuracy(nearest_centroid, drawn, 60, seed=1))
    few = sampler(kinds=4)
    pair = [few_shot_accuracy(f, few, 60) for f in (nearest_centroid, lambda s, q: -nearest_centroid(s, q))]
    assert few_shot_interval(pair[0], against=pair[1]).low > 0


def test_the_table_of_intervals_holds_what_the_results_allow():
    result = few_shot_accuracy(nearest_centroid, sampler(), 60)
    assert list(few_shot_intervals(result).index) == ["episodes", "classes"]
    table = few_shot_intervals([result, result], what="ari", level=0.9)
    assert list(table.index) == ["episodes", "seeds", "classes", "seeds and classes"]
    found = few_shot_interval([result, result], "classes", what="ari", level=0.9)
    assert table.loc["classes", ["low", "high"]].tolist() == [found.low, found.high]


def test_intervals_that_cannot_be_made_are_refused():
    result = few_shot_accuracy(nearest_centroid, sampler(), 5)
    with pytest.raises(DataError, match="there is no result"):
        few_shot_interval([])
    for options, said in (
        ({"over": "donors"}, "over='donors' is not known"),
        ({"what": "f1"}, "what='f1'"),
        ({"level": 95}, "level=95"),
    ):
        with pytest.raises(SettingError, match=said):
            few_shot_interval(result, **options)


def worlds(N, n, rng, ways=5, episodes=300):
    """Episodes of nearest means among N classes, of which some are alike: class numbers and recalls."""
    for _ in range(n):
        family = 2 * rng.normal(size=(max(2, N // 2), 3))
        means = family[rng.integers(len(family), size=N)] + rng.normal(size=(N, 3))
        spread = np.exp(0.3 * rng.normal(size=N))
        classes = rng.random((episodes, N)).argsort(1)[:, :ways]
        centre, width = means[classes], spread[classes]
        prototype = centre + rng.normal(size=centre.shape) * width[..., None] / np.sqrt(5)
        query = centre[:, :, None] + rng.normal(size=(episodes, ways, 10, 3)) * width[:, :, None, None]
        called = np.square(query[:, :, :, None] - prototype[:, None, None]).sum(4).argmin(3)
        yield classes, (called == np.arange(ways)[:, None]).mean(2)


def covered(N, n, over, rng, truth):
    found = [few_shot_interval(from_accuracy(*world, N), over) for world in worlds(N, n, rng)]
    return np.mean([not i.excludes(truth) for i in found])


def test_the_interval_over_classes_holds_new_classes_and_the_one_over_episodes_does_not():
    rng = np.random.default_rng(0)
    truth = np.mean([recall.mean() for _, recall in worlds(11, 2000, rng, episodes=20)])
    assert covered(11, 100, "classes", rng, truth) > 0.88
    assert covered(11, 100, "episodes", rng, truth) < 0.3


def test_the_value_is_the_mean_over_episodes_also_where_classes_gave_unequally_many():
    scores = np.array([[[1, 0], [1, 0]]] * 3)
    result = answers([[0, 0], [0, 0], [1, 1]], scores, queries="one class")
    assert few_shot_interval(result, "classes").value == pytest.approx(2 / 3) == result.accuracy.mean()


def test_a_class_that_takes_part_in_every_episode_cannot_be_left_out():
    result = from_accuracy(np.array([[0, 1], [0, 2], [0, 1]]), np.full((3, 2), 0.5), 3)
    assert few_shot_interval(result, "classes").method.endswith("too short")
    with pytest.raises(DataError, match="a class takes part in every episode and cannot be left out"):
        few_shot_interval([result, result], "seeds and classes")


def test_there_is_no_ari_of_queries_of_one_class():
    result = answers([[0, 0], [1, 1]], np.ones((2, 2, 2)), queries="one class")
    with pytest.raises(DataError, match="there is no ARI where all queries are of one class"):
        few_shot_interval(result, what="ari")
