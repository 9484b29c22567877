"""Tasks that keep test cells apart, measures by hand, tables by hand, and claims that fail where they are false."""

import sys
from functools import partial
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "chapters"))

from chapter_rules import claim_holds

from book import notebooks
from shared.data.errors import DataError
from shared.evaluate import Interval
from shared.studies import domain_adaptation as study
from shared.studies import run

arms, measures, tables, tasks = study.arms, study.measures, study.tables, study.tasks
SETS = {"a to b": "one", "b to a": "one", "c to d": "two", "e to f": "three"}


def domain(n, kinds, seed, n_genes=30, moved=0.0, effect=2.0):
    """Logged values around a mean of each kind's own."""
    rng = np.random.default_rng(seed)
    y = np.array([f"type {k}" for k in rng.integers(0, kinds, n)])
    mean = effect * np.random.default_rng(7).normal(size=(kinds, n_genes))
    shift = moved * np.random.default_rng(8).normal(size=n_genes)
    X = mean[[int(name[-1]) for name in y]] + shift + rng.normal(size=(n, n_genes))
    return tasks.Domain(X.astype(np.float32), y)


@pytest.fixture(scope="module")
def task():
    source, target = domain(150, 4, 0), domain(200, 4, 1, moved=1.0)
    return tasks.pair("a to b", "one", source, target, counts=False)


@pytest.fixture(scope="module")
def one(task):
    return tasks.draw(task, 0, n_genes=20, most=100)


# Tasks.


def test_logs_are_of_all_genes_that_were_measured():
    counts = np.array([[1.0, 3.0], [0.0, 2.0]])
    np.testing.assert_allclose(tasks.cp10k(counts).toarray(), np.log1p([[2500, 7500], [0, 10000]]), rtol=1e-5)
    np.testing.assert_allclose(tasks.cp10k(counts, [10, 4]).toarray(), np.log1p([[1000, 3000], [0, 5000]]), rtol=1e-5)


def test_a_pair_has_the_types_that_both_domains_have_enough_cells_of():
    a = tasks.Domain(np.ones((30, 2), np.float32), np.repeat(["x", "y", "z"], 10))
    b = tasks.Domain(np.ones((27, 2), np.float32), np.r_[np.repeat(["x", "y"], 10), ["z"] * 3, [tasks.UNKNOWN] * 4])
    got = tasks.pair("a to b", "one", a, b)
    assert {*got.source.y} == {"x", "y"} and {*got.target.y} == {"x", "y", tasks.UNKNOWN}
    assert tasks.share_gap(got) == pytest.approx(0)
    with pytest.raises(DataError, match="1 types have 8 cells"):
        tasks.pair("a to b", "one", a, b.at(np.flatnonzero(b.y != "x")))


def test_all_others_are_one_source():
    parts = {name: tasks.Domain(sparse.csr_matrix(np.ones((30, 2))), np.repeat(["x", "y", name], 10)) for name in "abc"}
    got = tasks.leave_one_out("one", parts)
    assert [t.name for t in got] == ["others to a", "others to b", "others to c"]
    assert all({*t.source.y} == {"x", "y"} and len(t.source.y) == 40 and len(t.target.y) == 20 for t in got)
    both = tasks.ordered_pairs("one", {name: parts[name] for name in "ab"})
    assert [t.name for t in both] == ["a to b", "b to a"]


def test_unstable_lines_are_joined_by_twice_as_many_stable_ones():
    rng = np.random.default_rng(0)
    lines = ad.AnnData(rng.normal(size=(60, 5)))
    lines.obs["msi"] = ["MSI-H"] * 10 + ["MSI-S"] * 40 + ["MSI-L"] * 5 + [None] * 5
    tumours = ad.AnnData(rng.normal(size=(40, 4)))
    lines.var_names, tumours.var_names = list("abcde"), list("bcdf")
    tumours.obs["msi"] = ["yes"] * 10 + ["no"] * 20 + [None] * 10
    got = tasks.unstable(lines, tumours)
    assert got.source.X.shape == (30, 3) and (got.source.y == "unstable").sum() == 10
    assert got.target.X.shape == (40, 3) and (got.target.y == tasks.UNKNOWN).sum() == 10
    np.testing.assert_allclose(got.target.X.mean(1), 0, atol=1e-6)
    drawn = tasks.draw(got, 0, n_genes=3)
    assert tasks.UNKNOWN not in drawn.test.y and (drawn.adapt.y == tasks.UNKNOWN).sum() == 10


def test_no_test_cell_is_learned_from_and_parts_do_not_meet(task):
    for seed in range(3):
        drawn = tasks.draw(task, seed, n_genes=30)
        rows = [{tuple(row) for row in part.X.round(5)} for part in drawn[1:]]
        assert not any(a & b for i, a in enumerate(rows) for b in rows[:i])
    assert sum(map(len, rows)) == 350
    short = tasks.draw(task, 0, n_genes=5, most=40)
    assert [len(part.y) for part in short[1:]] == [40, 20, 40, 40] and short.test.X.shape[1] == 5
    for part in short[1:]:
        assert {*part.y} == {*task.source.y}


def test_test_cells_and_labels_have_no_say_in_the_genes(task):
    other = task.target.X.copy()
    _, test = tasks.halves(task, 0)
    other[test] = other[test][:, ::-1] * 9
    again = task._replace(target=task.target._replace(X=other))
    np.testing.assert_array_equal(tasks.draw(task, 0, n_genes=9).train.X, tasks.draw(again, 0, n_genes=9).train.X)


def test_every_beginning_holds_the_types_in_their_shares():
    y = np.repeat(["x", "y"], [80, 20])
    order = tasks.in_shares(y, np.random.default_rng(0))
    assert sorted(order) == list(range(100)) and abs((y[order[:50]] == "x").sum() - 40) <= 1


# Arms.


@pytest.mark.parametrize("arm", arms.ARMS)
def test_every_arm_has_four_settings_and_sees_no_target_label(arm, one):
    assert len(arms.GRID[arm]) == 4
    tries = arms.fit_all(one, 0, arm=arm, epochs=3, hidden=(8, 4))
    other = one._replace(adapt=one.adapt._replace(y=one.adapt.y[::-1]))
    again = arms.fit_all(other, 0, arm=arm, epochs=3, hidden=(8, 4))
    for a, b in zip(tries.fitted, again.fitted, strict=True):
        np.testing.assert_array_equal(a.predict_proba(one.test.X), b.predict_proba(one.test.X))
        assert a.embed(one.test.X, False).shape[0] == len(one.test.y)


def test_arms_without_adaptation_see_no_target_cell(one):
    other = one._replace(adapt=one.adapt._replace(X=one.adapt.X + 5))
    for arm in (arms.LOGISTIC, arms.NETWORK):
        a, b = (arms.fit(arm, arms.GRID[arm][1], d, 0, epochs=2, hidden=(8, 4)) for d in (one, other))
        np.testing.assert_array_equal(a.predict_proba(one.test.X), b.predict_proba(one.test.X))


def test_centring_takes_a_shift_away_and_few_labels_need_no_source(one):
    right = {arm: (arms.fit(arm, {"C": 1}, one, 0).predict(one.test.X) == one.test.y).mean() for arm in arms.ARMS[:2]}
    assert right[arms.CENTRING] > 0.9
    assert (arms.few_labels(one, 5, 0).predict(one.test.X) == one.test.y).mean() > 0.7


# Measures.


def test_distances_are_zero_for_one_cloud_and_large_for_two():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 120, 5))
    assert measures.proxy_distance(a, b) < 0.5 and measures.proxy_distance(a, b + 9) == 2
    assert abs(measures.discrepancy(a, b)) < 0.01 < measures.discrepancy(a, b + 1)
    assert measures.discrepancy(9 * a, 9 * b + 9) == pytest.approx(measures.discrepancy(a, b + 1), rel=1e-4)


def test_the_joint_error_is_zero_where_one_classifier_does_for_both_and_large_where_names_are_exchanged():
    a, b = domain(200, 2, 0, effect=5.0), domain(200, 2, 1, effect=5.0)
    turned = np.where(b.y == "type 0", "type 1", "type 0")
    for y, least, most in ((b.y, 0, 0.02), (turned, 0.8, 1.2)):
        parts = (a.X[:100], b.X[:100]), (a.X[100:], b.X[100:])
        found = measures.joint_error(*parts, ((a.y[:100], y[:100]), (a.y[100:], y[100:])))
        assert least <= found <= most


def test_the_dial_keeps_the_number_of_cells_and_turns_their_shares(one):
    sizes, rare = {}, {}
    for name, level in measures.LEVELS.items():
        drawn = measures.shifted(one, level, 3)
        n = pd.Series(drawn.adapt.y).value_counts()
        sizes[name], rare[name] = n.sum(), n.sort_values().reindex(np.unique(one.adapt.y)).fillna(0).sort_values()
        np.testing.assert_array_equal(drawn.train.X, one.train.X)
        np.testing.assert_array_equal(drawn.test.X, one.test.X)
    assert max(sizes.values()) - min(sizes.values()) <= 4
    assert rare["left out"].iloc[:2].eq(0).all() and rare["left out"].iloc[2:].gt(0).all()
    assert len({*rare["1 to 1"]}) == 1 and rare["1 to 9"].iloc[-1] == pytest.approx(9 * rare["1 to 9"].iloc[0], abs=9)
    few = one._replace(adapt=one.adapt.at(np.arange(20)))
    assert measures.shifted(few, 1.0, 0) is None


def test_shuffled_genes_are_the_same_for_every_cell_of_the_target(one):
    other = measures.shuffled(one, 0)
    order = np.array([np.flatnonzero((column[:, None] == one.test.X).all(0))[0] for column in other.test.X.T])
    assert (order != np.arange(20)).any()
    np.testing.assert_array_equal(one.adapt.X[:, order], other.adapt.X)
    np.testing.assert_array_equal(one.train.X, other.train.X)


@pytest.fixture(scope="module")
def table():
    made = tasks.simulated()
    how = {"n_genes": 30, "most": 80}
    return run(
        {arm: partial(arms.fit_all, arm=arm, epochs=2, hidden=(8, 4)) for arm in (arms.LOGISTIC, arms.CENTRING)},
        {name: partial(tasks.drawn, one, **how) for name, one in made.items()},
        (0, 1),
        partial(study.all_rows, dial=list(made), control=list(made)),
    )


def test_all_rows_of_an_arm(table):
    fits = study.part(table, "fit")
    assert len(fits) == 2 * 2 * 2 * 4 and fits["accuracy"].between(0, 1).all() and fits["distance"].between(0, 2).all()
    assert fits[[*measures.RISKS, "joint", "error", "mmd"]].notna().all().all()
    dial = study.part(table, "dial", arm=arms.LOGISTIC)
    assert len(dial) == 16 and dial.groupby(["data", "seed"])["accuracy"].nunique().eq(1).all(), "nothing adapts"
    assert {*study.part(table, "control")["arm"]} == {arms.LOGISTIC}
    assert {*study.part(table, "labels")["arm"]} == {*arms.LABELS}
    assert tables.minutes(table) > 0


# Tables.


def planted(values, seeds=2, **columns):
    """Rows of fits: accuracy of arms (a list of settings each) in every task, with risks that are given or alike."""
    rows = [
        {"what": "fit", "data": data, "seed": seed, "arm": arm, "setting": i, "accuracy": v + 0.001 * seed}
        for data in SETS
        for seed in range(seeds)
        for arm, some in values.items()
        for i, v in enumerate(some)
    ]
    table = pd.DataFrame(rows).assign(accuracy_known=lambda t: t["accuracy"], source=0.1, error=0.1, joint=0.0, mmd=0.1)
    return table.assign(distance=2.0).assign(**columns)


def test_choices_and_gains_by_hand():
    fits = planted({arms.LOGISTIC: [0.5, 0.7], arms.CENTRING: [0.9, 0.6]})
    fits["source"] = np.where(fits["setting"] == 1, 0.1, 0.2)
    assert tables.gains(fits)[arms.CENTRING].to_numpy() == pytest.approx(-0.1)
    assert tables.gains(fits, tables.KNOWN)[arms.CENTRING].to_numpy() == pytest.approx(0.2)
    assert tables.accuracies(fits, "source").loc["a to b", 0] == pytest.approx(0.7), "of equal ones the first"
    assert tables.accuracies(fits, "source", "mean").loc["a to b", 0] == pytest.approx(0.65), "their mean"
    assert tables.regret(fits, "source").to_numpy() == pytest.approx(0.2)
    assert tables.regret(fits, tables.RANDOM).to_numpy() == pytest.approx(0.9 - 0.675)
    assert tables.agreement(fits, "source").loc["c to d", 1] == pytest.approx(0), "ranks 1.5 and 3.5 against 1 to 4"
    assert tables.agreement(fits, tables.KNOWN).to_numpy() == pytest.approx(1)
    assert np.isnan(tables.agreement(fits.assign(source=0.0), "source").loc["c to d", 1])


def test_tasks_of_a_set_count_once():
    values = pd.Series({("a to b", 0): 0.0, ("b to a", 0): 1.0, ("c to d", 0): 2.0}).rename_axis(["data", "seed"])
    got = tables.over_sets(values, SETS)
    assert got.value == pytest.approx(1.25) and got.n == 2
    with pytest.raises(DataError, match="1 data sets have a value"):
        tables.over_sets(values.iloc[:2], SETS)
    two = pd.Series({("a to b", s): 0.1 * s for s in (0, 1)}).rename_axis(["data", "seed"])
    assert tables.of_set(two, SETS, "one").value == pytest.approx(0.05)


def test_the_bound_by_hand():
    fits = planted({arms.LOGISTIC: [0.5]}, source=0.1, distance=1.0, joint=0.2, error=0.3)
    assert tables.bound(fits)["sum"].to_numpy() == pytest.approx(0.8)
    assert tables.slack(fits, SETS).value == pytest.approx(0.5)


def test_the_best_arm_of_each_set_is_the_mark():
    fits = planted({arms.LOGISTIC: [0.5], arms.CENTRING: [0.9]})
    labels = fits[fits["arm"] == arms.LOGISTIC].set_index(["data", "seed"])["accuracy"] + 0.3
    assert tables.behind(fits, labels, SETS).to_dict() == pytest.approx({"one": 0.1, "two": 0.1, "three": 0.1})


def test_few_cells_of_a_type_are_all_labelled():
    y = np.repeat(["x", "y", tasks.UNKNOWN], [30, 10, 10])
    cells = tasks.Domain(np.zeros((50, 2), np.float32), y)
    assert tables.labelled_share(tasks.Drawn("a", cells, cells, cells, cells), 20) == pytest.approx(30 / 50)


# Rivals of other people's packages.


def test_counts_come_back_from_logs_but_for_a_factor_of_a_cell():
    made = np.random.default_rng(0).poisson(0.8, (40, 60))
    made[0], made[1] = 0, 3 * made[1]
    logged = tasks.cp10k(made).toarray()
    found = study.rivals.counts(logged).toarray()
    np.testing.assert_array_equal(found[2:], made[2:])
    np.testing.assert_array_equal(3 * found[1], made[1])
    assert not found[0].any()
    with pytest.raises(DataError, match="holds no whole numbers of counts"):
        study.rivals.counts(np.random.default_rng(0).random((3, 60)))


@pytest.mark.parametrize("arm", study.rivals.OWN)
def test_a_rival_is_told_the_types_of_training_cells_alone_and_chosen_by_held_out_ones(arm, one, monkeypatch):
    told = []

    def embed(cells, batch, method, *, n_components, layer, seed, labels=None, **own):
        told.append(np.asarray(cells.obs["known"]))
        assert {*cells.obs[batch]} == {"source", "target"} and (labels == "known") is (method == "scANVI")
        return np.asarray(cells.X[:, :n_components])

    monkeypatch.setattr(study.rivals.rivals, "embed", embed)
    monkeypatch.setattr(study.rivals, "counts", lambda X: X)
    rows = study.rivals.fit_all(one, 0, arm=arm)
    n = len(one.train.y)
    assert all((known[:n] == one.train.y).all() and (known[n:] == tasks.UNKNOWN).all() for known in told)
    assert len(rows) == 4 and [row["setting"] for row in rows] == [0, 1, 2, 3]
    assert all(0 <= row[name] <= 1 for row in rows for name in ("source", "accuracy", "accuracy_known"))
    table = pd.DataFrame(rows).assign(data="a to b", seed=0)
    best = min(rows, key=lambda row: row["source"])
    assert tables.levels(table)[arm].item() == pytest.approx(best["accuracy"])


def test_no_rival_is_asked_for_where_it_is_not_installed(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert study.rivals.installed() == []


# Each claim fails on data where it is false, by the page's own functions.


@pytest.fixture(scope="module")
def claims():
    front = notebooks.front_matter(next(p for p in notebooks.pages(["domain-adaptation-study"], drafts=True)))
    return {claim["id"]: claim for claim in front["claims"]}


def fails(claim, found: Interval):
    return bool(claim_holds(claim, {claim["metric"]: {"value": found.value, "low": found.low, "high": found.high}}))


def test_an_adversary_that_gains_is_seen(claims):
    better = planted({arms.NETWORK: [0.7], arms.ADVERSARIAL: [0.9]})
    same = better.assign(accuracy=np.where(better["arm"] == arms.ADVERSARIAL, 0.7, better["accuracy"]))
    same.loc[same["data"].isin(["a to b", "c to d"]), "accuracy"] -= 0.05 * (same["arm"] == arms.NETWORK)
    same.loc[same["data"] == "e to f", "accuracy"] += 0.05 * (same["arm"] == arms.NETWORK)
    assert fails(claims["adversary"], tables.gain_of(better, SETS, arms.ADVERSARIAL))
    assert not fails(claims["adversary"], tables.gain_of(same, SETS, arms.ADVERSARIAL))


FIRST = {"id": "first bound", "metric": "gain", "below": 0.05}  # as they were committed before the run
FOURTH = {"id": "fourth bound", "metric": "closer", "below": 0.0}


def test_the_first_bound_would_have_seen_an_adversary_that_gains_five_points():
    for gain, wrong in ((0.2, True), (0.01, False)):
        fits = planted({arms.NETWORK: [0.7], arms.ADVERSARIAL: [0.7 + gain]})
        assert fails(FIRST, tables.gain_of(fits, SETS, arms.ADVERSARIAL)) is wrong


def test_the_fourth_bound_would_have_seen_shuffled_genes_that_stay_away():
    fits = planted({arms.NETWORK: [0.7]}, mmd=0.1)
    for far, wrong in ((0.4, True), (0.02, False)):
        control = fits.assign(what="control", arm=arms.DEEP_MMD, mmd=far)
        assert fails(FOURTH, tables.closer_when_shuffled(pd.concat([fits, control]), SETS)) is wrong


def dialled(centred_left_out):
    values = {arms.LOGISTIC: 0.8, arms.CENTRING: 0.9}
    rows = [
        {"what": "dial", "data": data, "seed": s, "arm": arm, "level": level, "accuracy": v}
        for data in SETS
        for s in range(2)
        for arm, v in values.items()
        for level in measures.LEVELS
    ]
    table = pd.DataFrame(rows)
    table.loc[(table["arm"] == arms.CENTRING) & (table["level"] == "left out"), "accuracy"] = centred_left_out
    return table


def test_a_centring_that_shares_of_types_do_not_harm_is_seen(claims):
    assert fails(claims["shift"], tables.shift_costs(dialled(0.9), SETS))
    assert not fails(claims["shift"], tables.shift_costs(dialled(0.6), SETS))


def test_a_source_that_knows_is_seen(claims):
    fits = planted({arms.LOGISTIC: [0.5, 0.7, 0.9]})
    for sign, wrong in ((-0.1, True), (0.1, False)):
        mine = fits.assign(source=0.5 + sign * fits["accuracy"])
        assert fails(claims["choice"], tables.over_sets(tables.regret(mine, "source"), SETS)) is wrong
        assert tables.better_than_any(mine, SETS).value == pytest.approx(0.2 if wrong else -0.2)


def test_a_control_that_lies_far_away_is_seen(claims):
    fits = planted({arms.NETWORK: [0.7]}, distance=1.0, mmd=0.1)
    for far, wrong in ((1.9, True), (0.3, False)):
        control = fits.assign(what="control", arm=arms.DEEP_MMD, distance=far)
        closer = partial(tables.closer_when_shuffled, pd.concat([fits, control]), SETS, arms.DEEP_MMD)
        assert fails(claims["control"], closer("distance")) is wrong and closer("mmd").value == pytest.approx(0)


def test_a_bound_that_says_something_is_seen(claims):
    assert fails(claims["bound"], tables.slack(planted({arms.LOGISTIC: [0.5]}, distance=0.1, error=0.2), SETS))
    assert not fails(claims["bound"], tables.slack(planted({arms.LOGISTIC: [0.5]}), SETS))
