"""Draws that no type decides, arms by hand, measures by hand, and claims that fail where they are false."""

import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "chapters"))

from chapter_rules import claim_holds

from book import notebooks
from shared.data.errors import DataError
from shared.evaluate import Interval
from shared.studies import bermuda as study
from shared.studies import rivals

arms, measures, paper, tables, tasks = study.arms, study.measures, study.paper, study.tables, study.tasks
SETS = "one", "two", "three"


@pytest.fixture(scope="module")
def one():
    return tasks.simulated(160, 40)[tasks.RUNS]


@pytest.fixture(scope="module")
def cells(one):
    return tasks.draw(one, 0, n_genes=30, most=160)


# Tasks.


def test_rare_types_and_cells_of_no_type_are_left_out():
    X, batch = np.ones((40, 3), np.float32), np.repeat(["a", "b"], 20)
    y = np.array(["x"] * 12 + ["y"] * 20 + ["z"] * 4 + [tasks.UNKNOWN] * 4)
    got = tasks.problem("one", X, X, batch, y)
    assert {*got.y} == {"x", "y"} and got.X.shape == (32, 3)
    assert got.reference == "a", "the batch with two types"
    with pytest.raises(DataError, match="1 types are left"):
        tasks.problem("one", X, X, batch, np.repeat("x", 40))
    with pytest.raises(DataError, match="1 batches are left"):
        tasks.problem("one", X, X, np.repeat("a", 40), y)


def test_proteins_of_two_sets_are_those_that_both_have():
    sets = []
    for i, names in enumerate((["p", "q", "r"], ["r", "q", "s"])):
        made = ad.AnnData(np.log1p(np.tile(np.array([[1.0, 2, 3]], np.float32) + i, (10, 1))))
        made.obs_names, made.var_names = [f"{i}-{j}" for j in range(10)], names
        made.obs["batch"], made.obs["cell_type"] = f"batch {i}", ["x"] * 5 + ["y"] * 4 + ["unknown"]
        sets.append(made)
    got = tasks.of_proteins("one", *sets)
    assert got.X.shape == (18, 2) and {*got.y} == {"x", "y"}
    np.testing.assert_allclose(got.counts.toarray()[[0, 9]], [[2, 3], [3, 2]])


def test_no_type_has_a_say_in_cells_and_genes(one):
    other = one._replace(y=one.y[::-1])
    a, b = (tasks.draw(some, 3, n_genes=20, most=100) for some in (one, other))
    np.testing.assert_array_equal(a.X, b.X)
    assert a.shape == (100, 20) and (a.obs["batch"].value_counts() == 50).all()
    known = a.obs["known"] != tasks.UNKNOWN
    assert {*a.obs["batch"][known]} == {one.reference} and (a.obs["known"] == a.obs["cell_type"])[known].all()


def test_a_type_is_left_out_of_one_batch_only(one):
    found = tasks.removals(dict.fromkeys(tasks.REMOVED_FROM, one), least=5, n_genes=20, most=120)
    assert {batch for _, (batch, _) in found.values()} == {*np.unique(one.batch)}
    _, (batch, kind) = next(iter(found.values()))
    whole, less = (tasks.draw(one, 0, n_genes=20, most=120, without=w) for w in (None, (batch, kind)))
    gone = (whole.obs["batch"] == batch) & (whole.obs["cell_type"] == kind)
    assert gone.sum() > 0 and set(less.obs_names) == set(whole.obs_names[~gone])


# Arms.


def test_arms_have_as_many_settings_and_see_no_type(cells):
    assert {len(arms.GRID[arm]) for arm in arms.ARMS} == {2} and arms.RIVALS == rivals.METHODS
    other = cells.copy()
    other.obs["cell_type"], other.obs["known"] = cells.obs["cell_type"].to_numpy()[::-1], ""
    for arm in (*arms.LINEAR, *arms.NETWORKS):
        a, b = (arms.embed_all(some, 0, arm=arm, epochs=2) for some in (cells, other))
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x.Z, y.Z)
            assert len(x.Z) == cells.n_obs and x.cpu >= 0


def test_shifts_and_stretches_of_batches_are_taken_away():
    rng = np.random.default_rng(0)
    X, batch = rng.normal(size=(400, 30)), np.repeat(["a", "b"], 200)
    X[200:] = X[200:] * rng.uniform(0.5, 2, 30) + rng.normal(size=30)
    got = arms.combat(X, batch)
    gaps = [np.abs(some[200:].mean(0) - some[:200].mean(0)).mean() for some in (X, got)]
    spreads = [np.abs(np.log(some[200:].std(0) / some[:200].std(0))).mean() for some in (X, got)]
    assert gaps[1] < 0.1 * gaps[0] and spreads[1] < 0.2 * spreads[0]
    assert np.abs(arms.centred(X, batch)[200:].mean(0)).max() < 1e-9
    flat = X.copy()
    flat[:, 0] = 3.0
    assert (arms.combat(flat, batch)[:, 0] == 3).all(), "a gene that does not vary stays as it is"


def test_few_cells_are_shrunken_further():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(210, 50))
    batch = np.repeat(["a", "b"], [200, 10])
    moved = arms.combat(X, batch) - X
    means = X[batch == "b"].mean(0) - X.mean(0)
    assert 0 < -np.polyfit(means, moved[batch == "b"].mean(0), 1)[0] < 0.6, "chance differences are mostly left alone"


def test_wrong_partners_are_of_the_same_batch_and_never_its_own(cells):
    how = {"epochs": 1, "device": "cpu", "random_state": 0, "threshold": 0.6}
    batch, types = (cells.obs[name].to_numpy(str) for name in ("batch", "cell_type"))
    both = arms.Bermuda(**how), arms.WrongPartners(**how)
    mine, wrong = (model.fit(cells.X, batch=batch, clusters=types) for model in both)
    own, other = ({*map(tuple, model.pairs_.T.tolist())} for model in (mine, wrong))
    assert own and other and not own & other
    assert all(wrong.cluster_batch_[a] != wrong.cluster_batch_[b] for a, b in other)


def test_facts_count_pairs_and_those_of_one_type(cells):
    made = {arm: arms.embed_all(cells, 0, arm=arm, epochs=1)[0].facts for arm in (arms.TYPES, arms.WRONG, arms.WHOLE)}
    assert made[arms.TYPES]["clusters"] == 2 * cells.obs["cell_type"].nunique()
    assert made[arms.TYPES]["right"] == 1 and made[arms.WHOLE]["pairs"] == 1
    shuffled = arms.embed_all(cells, 0, arm=arms.SHUFFLED, epochs=1)[0].facts
    assert shuffled["pairs"] == 0 and np.isnan(shuffled["right"])


# Measures.


def test_names_are_carried_where_types_meet_and_not_where_they_are_exchanged():
    obs = pd.DataFrame({"batch": np.repeat(["a", "b"], 40), "cell_type": np.tile(np.repeat(["x", "y"], 20), 2)})
    obs["known"] = np.where(obs["batch"] == "a", obs["cell_type"], "")
    cells = ad.AnnData(np.zeros((80, 1), np.float32), obs.set_axis(map(str, obs.index)))
    Z = np.random.default_rng(0).normal(size=(80, 2)) + 20 * (obs["cell_type"] == "x").to_numpy()[:, None]
    assert measures.across(Z, cells) == 1
    turned = np.where((obs["batch"] == "b").to_numpy()[:, None], 20 - Z, Z)
    assert measures.across(turned, cells) == 0


def test_neighbours_are_kept_by_the_cells_themselves_and_not_by_noise(cells):
    own, batch = measures.own_neighbours(cells), cells.obs["batch"].to_numpy(str)
    noise = np.random.default_rng(0).normal(size=(cells.n_obs, 5))
    assert measures.kept(cells.X, batch, own) > 0.3 > measures.kept(noise, batch, own)


def test_lone_cells_by_hand():
    rng, far = np.random.default_rng(0), np.array([[50.0, 0]])
    kinds = np.repeat(["x", "y", "x"], 30)
    batch = np.repeat(["a", "a", "b"], 30)
    obs = pd.DataFrame({"batch": batch, "cell_type": kinds}, index=[str(i) for i in range(90)])
    cells = ad.AnnData(np.zeros((90, 1), np.float32), obs, uns={"without": ["b", "y"]})
    Z = rng.normal(size=(90, 2))
    apart, mixed = Z + far * (kinds == "y")[:, None], Z.copy()
    rows = [next(iter(measures.lone_rows([arms.Made(some, {}, 0.0, {})], cells, 0))) for some in (apart, mixed)]
    assert rows[0]["foreign"] == 0 and rows[0]["own"] == 1 and "nearest" not in rows[0]
    assert rows[1]["foreign"] > 0.2 and rows[1]["nearest"] == "x" and rows[1]["share"] > rows[1]["own"]


# The paper.


def test_printed_losses_imply_the_weight():
    assert paper.implied(1.5, 1.0, 0.5) == 1 and np.isnan(paper.implied(1, 1, 0))


@pytest.fixture(scope="module")
def losses():
    cells, _ = paper.gaussian(0, n_cells=160, n_genes=15)
    found = []
    for arm in paper.ARMS:
        for seed in (0, 1):
            made = paper.fit(cells, seed, arm=arm, epochs=12, threshold=0.5, n_clusters=4)
            found.append({"data": "d", "arm": arm, "seed": seed} | paper.rows(made, cells, seed))
    return pd.DataFrame(found)


def test_the_mean_of_the_epochs_implies_less_than_the_last(losses):
    means, last = (tables.implied_weight(losses, "d", paper.PUBLISHED_RUN, when) for when in ("mean", "last"))
    assert means.value < last.value == pytest.approx(1, abs=0.01)
    plain = losses[losses["arm"] == paper.UNCORRECTED]
    assert plain["divergence"].gt(0).all() and plain["total_mean"].isna().all()


# Tables.


def planted(values, column="accuracy", **more):
    """A row for each data set, two seeds and two settings; `values` says what each arm has."""
    rows = [
        {"data": data, "seed": s, "arm": arm, "setting": i, "choice": -i, column: value + 0.01 * s + 0.002 * k} | more
        for k, data in enumerate(SETS)
        for s in range(2)
        for arm, value in values.items()
        for i in range(2)
    ]
    return pd.DataFrame(rows)


def test_choices_and_differences_by_hand():
    table = planted({arms.BERMUDA: 0.5, arms.PLAIN: 0.2}, "ilisi")
    table.loc[table["setting"] == 1, "ilisi"] = 0.9
    assert tables.pairs_mix(table).value == pytest.approx(0.3) and tables.pairs_mix(table).n == 3
    table["choice"] = table["setting"]
    assert tables.pairs_mix(table).value == pytest.approx(0)
    assert (tables.first(table)["ilisi"] < 0.6).all()
    with pytest.raises(DataError, match="1 data sets have a value"):
        tables.over_sets(pd.Series({"one": 1.0, "two": np.nan}))


def test_where_lone_cells_go():
    rows = pd.DataFrame(
        {"data": ["d", "e"], "arm": ["m", "m"], "nearest": ["NK", np.nan], "share": [0.3, np.nan], "cpu": [60.0, 60.0]}
    )
    assert tables.goes_to(rows, "d", "m") == ("NK", 0.3) and tables.goes_to(rows, "e", "m") == ("none", 0.0)
    assert tables.minutes(rows, rows) == 4


# Each claim fails on data where it is false, by the page's own functions.


@pytest.fixture(scope="module")
def claims():
    front = notebooks.front_matter(next(p for p in notebooks.pages(["bermuda-study"], drafts=True)))
    return {claim["id"]: claim for claim in front["claims"]}


def fails(claim, found: Interval):
    return bool(claim_holds(claim, {claim["metric"]: {"value": found.value, "low": found.low, "high": found.high}}))


def judged(claims, name, found, bound, wrong):
    """Against the bound as it was written before the run, and against the page's claim where that is the same."""
    assert fails({"id": name, "metric": name, **bound}, found) is wrong
    for claim in claims.values():
        if claim["metric"] == name and {k: claim.get(k) for k in bound} == bound:
            assert fails(claim, found) is wrong


@pytest.mark.parametrize(("plain", "wrong"), [(0.45, True), (0.1, False)])
def test_pairs_that_mix_nothing_are_seen(claims, plain, wrong):
    found = tables.pairs_mix(planted({arms.BERMUDA: 0.5, arms.PLAIN: plain}, "ilisi"))
    judged(claims, "pairs_mix", found, {"above": 0.1}, wrong)


@pytest.mark.parametrize(("scaling", "wrong"), [(0.6, True), (0.8, False)])
def test_a_gain_over_scaling_is_seen(claims, scaling, wrong):
    found = tables.over_scaling(planted({arms.BERMUDA: 0.81, arms.SCALING: scaling}))
    judged(claims, "over_scaling", found, {"below": 0.05}, wrong)


@pytest.mark.parametrize(("other", "wrong"), [(0.8, True), (0.4, False)])
def test_wrong_partners_that_do_as_well_are_seen(claims, other, wrong):
    found = tables.wrong_partners_cost(planted({arms.BERMUDA: 0.8, arms.WRONG: other}))
    judged(claims, "wrong_partners_cost", found, {"above": 0.05}, wrong)


@pytest.mark.parametrize(("clusters", "wrong"), [(0.3, True), (0.1, False)])
def test_clusters_that_draw_lone_cells_in_are_seen(claims, clusters, wrong):
    found = tables.drawn_in(planted({arms.WHOLE: 0.3, arms.BERMUDA: clusters}, "foreign"))
    judged(claims, "drawn_in", found, {"above": 0.05}, wrong)


@pytest.mark.parametrize(("ratio", "wrong"), [(0.95, True), (0.5, False)])
def test_a_weight_that_does_not_rise_is_seen(claims, ratio, wrong):
    table = planted({paper.PUBLISHED_RUN: ratio}, "ratio_mean").assign(data="runs")
    judged(claims, "printed_mean", tables.implied_weight(table, "runs", paper.PUBLISHED_RUN), {"below": 0.8}, wrong)


@pytest.mark.parametrize(("before", "wrong"), [(0.4, True), (0.1, False)])
def test_lone_cells_that_were_foreign_before_are_seen(claims, before, wrong):
    table = planted({arms.BERMUDA: 0.4, arms.UNCORRECTED: before}, "foreign")
    assert fails(claims["lone"], tables.difference(table, arms.BERMUDA, arms.UNCORRECTED, "foreign")) is wrong
