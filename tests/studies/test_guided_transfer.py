"""No mouse is trained and tested on, tables computed by hand, arms that are what they say, and claims that can fail."""

import functools
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "chapters"))

from chapter_rules import claim_holds

from book import notebooks
from shared.data.errors import DataError
from shared.evaluate import LeakError, check_disjoint
from shared.methods.guided_transfer import Guide
from shared.studies import guided_transfer as study
from shared.studies import run

audit, muscle, rivals = study.audit, study.muscle, study.rivals
TINY = {"dim": 8, "depth": 3, "width": 4, "length": 20}
COURSE = {"epochs": 4, "lr": 1e-2, "every": 2}
SMALL = {"widths": (16, 8), "transformer": {"dim": 8, "depth": 1, "heads": 2, "width": 4, "length": 12}}


@pytest.fixture(scope="module")
def samples():
    return audit.simulated()


# The audit.


def test_samples_are_those_of_flight_and_ground_and_mice_those_of_their_mission():
    obs = pd.DataFrame({"condition": ["flight", "ground", "basal"], "donor": ["M1", "M2", "M3"], "study": "OSD-1"})
    one = ad.AnnData(np.ones((3, 3), np.float32), obs=obs.set_index(pd.Index(list("abc"))))
    one.var_names = ["A", "B", "C"]
    two = one[:, ["C", "B"]].copy()
    got = audit.samples_of({"x": one, "y": two}, {"x": "first", "y": "second"})
    assert got.genes == ["B", "C"] and got.counts.shape == (4, 2)
    assert got.mouse.tolist() == ["first M1", "first M2", "second M1", "second M2"]
    assert audit.samples_of({"x": one}).mouse.tolist() == ["M1", "M2"]
    two.var_names = ["D", "E"]
    with pytest.raises(DataError, match="no gene in common"):
        audit.samples_of({"x": one, "y": two})


def test_what_the_catalogue_cannot_give_is_said():
    def load(name, route):
        if name == "osd-2":
            raise DataError("no network")
        return f"{name} by {route}"

    assert audit.gather(["osd-1", "osd-2"], load) == ({"osd-1": "osd-1 by official"}, {"osd-2": "no network"})


def test_values_by_hand():
    counts = np.array([[0.0, 1, 999_999]], np.float32)
    np.testing.assert_allclose(audit.values(counts), np.log2(1 + counts), rtol=1e-6)
    assert audit.values(counts, audit.TOKENS).tolist() == [[0, 0, 7]]


@pytest.mark.parametrize("model", audit.MODELS)
@pytest.mark.parametrize("centred", [False, True])
def test_few_coordinates_give_what_all_genes_give(samples, model, centred):
    X = audit.values(samples.counts)
    train, test = (np.flatnonzero(samples.study == s) for s in ("OSD-105", "OSD-99"))
    got = audit.predicted(X, samples, train, test, model, centred=centred, n_genes=50)
    genes = np.sort(np.argsort(-X[train].var(0), kind="stable")[:50])
    mine, theirs = (X[rows][:, genes].astype(float) for rows in (train, test))
    if centred:
        mine, theirs = mine - mine.mean(0), theirs - theirs.mean(0)
    whole = {"metric": "correlation"} if model in audit.CORRELATION else {}
    again = audit.clone(audit.MODELS[model]).set_params(**whole).fit(mine, samples.y[train])
    assert got.tolist() == again.predict(theirs).tolist()


def test_the_published_split_is_refused_and_a_split_by_mouse_is_not(samples):
    mice = {name: samples.mouse[samples.study == name] for name in audit.meetings(samples)}
    with pytest.raises(LeakError, match="6 animals are on both sides"):
        check_disjoint(mice["OSD-105"], mice["OSD-99"], what="animal")
    assert audit.meetings(samples).loc["OSD-105"].to_dict() == {"OSD-105": 12, "OSD-104": 12, "OSD-99": 6}
    check_disjoint(mice["OSD-105"], np.setdiff1d(mice["OSD-99"], mice["OSD-105"]), what="animal")


def test_new_mice_are_counted_apart(samples):
    rows = audit.as_published(samples, audit.CPM, "OSD-105", "OSD-99")
    assert len(rows) == 8 and all(row["n"] == 12 and row["n_new"] == 6 for row in rows)
    assert all(row["n_new"] == 0 for row in audit.as_published(samples, audit.CPM, "OSD-105", "OSD-104"))
    assert all(row["right_new"] <= min(6, row["right"]) for row in rows)


def test_a_mouse_keeps_one_label_when_labels_are_dealt_out_anew(samples):
    rng = np.random.default_rng(0)
    for _ in range(5):
        y = audit.relabelled(samples, rng)
        assert pd.Series(y).groupby(samples.mouse).nunique().eq(1).all()
        for name in np.unique(samples.study):
            assert (y[samples.study == name] == "flight").sum() == 6
    assert any((audit.relabelled(samples, rng) != samples.y).any() for _ in range(3))


def test_permutation_p_is_small_where_flight_changes_genes_and_not_where_it_does_not():
    how = {"train": "OSD-105", "test": "OSD-99", "n": 40, "centred": True, "models": (audit.LOGISTIC,)}
    found = audit.permutation_test(audit.simulated(effect=1.5), audit.CPM, **how)
    assert found[audit.LOGISTIC]["p"] <= 2 / 41
    nothing = [
        audit.permutation_test(audit.simulated(seed=s, effect=0.0), audit.CPM, **how)[audit.LOGISTIC]["p"]
        for s in range(4)
    ]
    assert np.mean(nothing) > 0.1


def test_no_training_sample_is_of_the_test_mouse(samples, monkeypatch):
    seen, real = [], audit.predicted

    def spy(X, samples, train, test, *args, **how):
        seen.append((train, test))
        return real(X, samples, train, test, *args, **how)

    monkeypatch.setattr(audit, "predicted", spy)
    rows = pd.DataFrame(audit.by_mouse(samples, audit.other_muscles(samples), models=(audit.CENTROID,)))
    assert len(rows) == 36
    for train, test in seen:
        assert not {*samples.mouse[train]} & {*samples.mouse[test]}
        assert not {*samples.study[train]} & {*samples.study[test]}
    pairs = pd.DataFrame(audit.by_mouse(samples, audit.each_muscle(samples), models=(audit.CENTROID,)))
    assert len(pairs) == 3 * 36
    assert pairs.query("source == test")["n_train"].eq(11).all(), "one muscle, less the test mouse"
    assert sorted(pairs.query("source == 'OSD-105' and test == 'OSD-99'")["n_train"].unique()) == [11, 12]


def test_intervals_over_mice_by_hand():
    rows = pd.DataFrame({"mouse": ["a", "a", "b"], "right": [1, 0, 1]})
    assert audit.over_mice(rows).value == pytest.approx(0.75) and audit.over_mice(rows).n == 2
    with pytest.raises(DataError, match="over_mice"):
        audit.exact(rows)
    ten = audit.exact(pd.DataFrame({"mouse": range(12), "right": [1] * 10 + [0] * 2}))
    assert (ten.low, ten.high) == (pytest.approx(0.516, abs=1e-3), pytest.approx(0.979, abs=1e-3))


def test_changes_that_muscles_share_agree_and_a_turned_one_does_not():
    samples = audit.simulated(effect=2.0)
    turned = samples.counts.copy()
    one = samples.study == "OSD-104"
    level = turned[one].mean(0)
    turned[one] = np.maximum(2 * level - turned[one], 1)
    same = audit.changes_agree(samples, "OSD-105", "OSD-99", n=10, n_genes=100)
    other = audit.changes_agree(samples._replace(counts=turned), "OSD-105", "OSD-104", n=10, n_genes=100)
    assert same.value > 0.4 and other.value < -0.2


# The published experiment.


@pytest.fixture(scope="module")
def task(samples):
    return muscle.task_of(samples, muscle.simulated_corpus(samples), 30)


@pytest.fixture(scope="module")
def learned(task):
    return muscle.learn(task, 0, epochs=1, scouts=2, sizes=TINY, clusters=3, scout_epochs=2)


def test_files_are_needed_and_named(tmp_path):
    with pytest.raises(DataError, match="hsmm_myoblast_271 are in no folder"):
        muscle.corpus_of([tmp_path / "pbmc.h5ad"])


def test_no_test_sample_is_learned_from_nor_has_a_say_in_the_genes(samples, task):
    known = {tuple(row) for row in task.corpus.round(4)}
    held = task.X[samples.study != muscle.TRAIN]
    assert not known & {tuple(row) for row in held.round(4)} and len(task.corpus) == 60 + 12
    other = samples.counts.copy()
    other[samples.study != muscle.TRAIN] = other[samples.study != muscle.TRAIN][:, ::-1]
    again = muscle.task_of(samples._replace(counts=other), muscle.simulated_corpus(samples), 30)
    assert again.genes == task.genes and len(task.genes) == 30


def test_blocks_that_are_frozen_are_computed_once_and_change_nothing(learned):
    after, n = muscle.network(learned, True, 0)
    assert n == 1 and {k.split(".")[3] for k in muscle.trained(after) if "blocks" in k} == {"1"}, "second to last of 3"
    x, genes = muscle.first_blocks(after, n, learned.task.X)
    tokens = muscle.Tokenizer(30, 7, logged=True)(learned.task.X)
    with torch.inference_mode():
        torch.testing.assert_close(after.net(*tokens), after(x, genes))
    scratch, _ = muscle.network(learned, False, 0)
    assert torch.equal(scratch.net.transformer.genes.weight, after.net.transformer.genes.weight)
    mine, theirs = (dict(one.net.transformer.named_parameters())["norm.weight"] for one in (scratch, after))
    assert not torch.equal(mine, theirs)


def test_guides_are_of_the_encoder_and_a_shuffled_one_holds_the_same_numbers(learned):
    assert all(name.startswith("net.transformer") for name in learned.guide)
    plans = {arm: muscle.strategy_of(learned, arm, 0) for arm in muscle.ARMS}
    assert plans[muscle.GRADIENT].mode == "gradient" and plans[muscle.UPDATE].mode == "update"
    for name, g in plans[muscle.SHUFFLED].guide.items():
        assert torch.equal(g.flatten().sort()[0], learned.guide[name].flatten().sort()[0])


def test_an_epoch_is_chosen_by_the_other_muscle():
    right = np.array([[1, 0], [1, 1], [0, 0], [1, 1], [1, 0]])
    assert muscle.chosen_epoch(right) == 3 and muscle.chosen_epoch(right, last=False) == 1


@pytest.fixture(scope="module")
def table(task):
    learn = functools.partial(muscle.learn, epochs=1, scouts=2, sizes=TINY, clusters=3, scout_epochs=2)
    measure = functools.partial(muscle.all_rows, **COURSE)
    return run({"": learn}, {"muscle": functools.partial(muscle.parted, task)}, (0,), measure, unit="seed")


def test_every_protocol_tests_what_it_says(table):
    one = study.part(table, "table 1")
    assert {*one["arm"]} == {*muscle.ARMS} and one["n"].eq(12).all() and one["n_new"].eq(6).all()
    assert (one["right_best"] >= one["right"]).all() and (one["right_new"] <= 6).all()
    assert one.set_index("arm").loc[muscle.PRETRAINED, "cosine"] == pytest.approx(1, abs=1e-5)
    assert study.part(table, "two shots")["n"].eq(10).all()
    mixed = study.part(table, "mixed")
    assert mixed.query("split == 'mice'")["met"].eq(0).all() and mixed["n"].eq(12).all()
    assert mixed.query("split == 'samples'")["met"].gt(0).all()
    assert study.part(table, "learned")["cpu_scouts"].gt(0).all()


# The rivals.


@pytest.fixture(scope="module")
def blood():
    return rivals.simulated()


def test_the_bundled_blood_is_split_by_its_runs():
    rng = np.random.default_rng(0)
    one = ad.AnnData(rng.poisson(3.0, (60, 30)).astype(np.float32))
    one.obs["run"] = ["run1", "run2"] * 30
    one.obs["cell_type"] = ["a", "a", "b", "b"] * 14 + ["c"] * 4
    got = rivals.blood_of(one, 10)
    assert got.X.shape == (28, 10) and got.X_test.shape == (28, 10) and {*got.y} == {"a", "b"}, "c has two cells"


@pytest.mark.parametrize("name", rivals.MODULES)
def test_every_rival_trains_every_module_with_as_many_tries(blood, name, monkeypatch):
    tried, real = [], rivals.candidates

    def spy(strategy, budget, lrs):
        found = real(strategy, budget, lrs)
        tried.append(len(found))
        return found[:1]

    monkeypatch.setattr(rivals, "candidates", spy)
    learned = rivals.learn(blood, 0, name=name, epochs=2, scouts=2, scout_epochs=2, n_clusters=4, sizes=SMALL)
    assert {*learned.guide} and all(not k.startswith("classify") for k in learned.guide)
    rows = pd.DataFrame(rivals.all_rows(learned, None, 0, epochs=2, budget=8))
    assert tried == [8] * len(rivals.ARMS) and [*rows["arm"][1:]] == [*rivals.ARMS]
    assert rows["accuracy"].dropna().between(0, 1).all() and rows["cpu_scouts"][0] > 0


def test_labels_to_choose_by_are_none_that_were_trained_on(blood):
    train, judge = rivals.draw(blood.y, 5, 3, 0)
    assert not {*train} & {*judge} and len(train) == 20 and len(judge) == 12
    assert {*rivals.draw(blood.y, 5, 3, 1)[0]} != {*train}


# Tables.


def test_means_and_ratios_by_hand():
    rows = pd.DataFrame({
        "arm": [rivals.UPDATE, rivals.FULL, rivals.SHUFFLED] * 4,
        "seed": [0] * 6 + [1] * 6, "data": (["x"] * 3 + ["y"] * 3) * 2,
        "accuracy": [0.8, 0.7, 0.6, 0.6, 0.7, 0.6, 0.9, 0.7, 0.8, 0.7, 0.7, 0.8], "cpu": [1.0, 2.0, 1.0] * 4,
    })  # fmt: skip
    assert study.lead(rows).value == pytest.approx(0.05) and study.lead(rows).n == 2  # 0.0 and 0.1
    assert study.which_weights(rows).value == pytest.approx(0.05)  # 0.1 and 0.0
    assert study.level(rows, "accuracy", rivals.FULL).value == pytest.approx(0.7)
    about = pd.DataFrame({"seed": [0, 0, 1, 1], "data": ["x", "y"] * 2, "cpu_scouts": [2.0, 32.0] * 2})
    assert study.cost_ratio(about, rows).value == pytest.approx(4)
    right = pd.DataFrame({"arm": [muscle.PRETRAINED, muscle.SCRATCH] * 2, "seed": [0, 0, 1, 1], "right": [6, 3, 9, 6]})
    assert study.pretraining_adds(right.assign(n=12)).value == pytest.approx(0.25)
    assert study.share(right.assign(n=12), muscle.PRETRAINED).value == pytest.approx(7.5 / 12)
    spent = pd.DataFrame({"cpu_scouts": [30.0, np.nan], "cpu": [np.nan, 30.0]})
    assert study.minutes(spent, pd.DataFrame({"cpu_tries": [60.0]})) == pytest.approx(2)


# Each claim fails on data where it is false, by the page's own functions.


@pytest.fixture(scope="module")
def claims():
    front = notebooks.front_matter(next(p for p in notebooks.pages(["guided-transfer-study"], drafts=True)))
    return {claim["id"]: claim for claim in front["claims"]}


def fails(claim, found):
    return bool(claim_holds(claim, {claim["metric"]: {"value": found.value, "low": found.low, "high": found.high}}))


def test_where_flight_changes_nothing_new_mice_are_not_told_apart(claims):
    nothing = audit.simulated(effect=0.0)
    rows = audit.by_mouse(nothing, audit.other_muscles(nothing), centred=True, models=(audit.LOGISTIC,))
    assert fails(claims["mice"], audit.over_mice(pd.DataFrame(rows)))
    something = audit.simulated(effect=1.5)
    rows = audit.by_mouse(something, audit.other_muscles(something), centred=True, models=(audit.LOGISTIC,))
    assert not fails(claims["mice"], audit.over_mice(pd.DataFrame(rows)))


def test_a_guide_that_is_at_work_turns_the_way(claims, learned, monkeypatch):
    """Half of the weights at rest, which the published rule would have done if it were none under Adam."""
    rng = torch.Generator().manual_seed(0)
    half = Guide({k: (torch.rand(g.shape, generator=rng) < 0.3).float() for k, g in learned.guide.items()})
    one = learned._replace(guide=half)
    rows = pd.concat(
        [
            pd.DataFrame(muscle.table_1(one, s, (muscle.PRETRAINED, muscle.UPDATE), **COURSE)).assign(seed=s)
            for s in (0, 1)
        ]
    )
    assert fails(claims["adam"], study.direction(rows, muscle.UPDATE))


def planted(update, full, shuffled):
    arms = {rivals.UPDATE: update, rivals.FULL: full, rivals.SHUFFLED: shuffled}
    rows = [{"arm": a, "seed": s, "data": "x", "accuracy": v + 0.01 * s} for a, v in arms.items() for s in range(3)]
    return pd.DataFrame(rows)


def test_a_guide_that_knows_which_weights_is_seen(claims):
    rows = planted(0.9, 0.7, 0.6)
    assert fails(claims["which"], study.which_weights(rows)) and fails(claims["lead"], study.lead(rows))


def test_cheap_scouts_are_seen(claims):
    about = pd.DataFrame({"seed": [0, 1], "data": "x", "cpu_scouts": [1.0, 1.1]})
    fits_ = pd.DataFrame({"arm": rivals.FULL, "seed": [0, 1], "data": "x", "cpu": [1.0, 1.0]})
    assert fails(claims["cost"], study.cost_ratio(about, fits_))
