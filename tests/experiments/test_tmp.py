"""The arms of the relation network's paper on simulated studies: one strong signal, so that a wrong wire is seen."""

import os
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch

from shared.data.constraints import SettingError
from shared.data.errors import DataError
from shared.experiments import arms as one_arm
from shared.experiments import tmp as bench
from shared.experiments.tmp import ARMS, Arm, Recipe
from shared.nn import meta
from shared.nn.blocks import EpisodeNorm, encoder
from shared.nn.episodes import EpisodeSampler, few_shot_split
from shared.preprocess import log_normalize

RECIPE = Recipe(widths=(24, 12), relation=(12,), rehearsal=30, tuning=20, exams=8, n_query=4)
SEEDS = (0, 1)


def study(seed, n_classes=7, n_rows=30, n_genes=40, prefix="type", noise=0.15):
    """Classes with means of their own over genes from 0 to 1."""
    rng = np.random.default_rng(seed)
    means = rng.random((n_classes, n_genes))
    X = np.repeat(means, n_rows, 0) + noise * rng.standard_normal((n_classes * n_rows, n_genes))
    return X.clip(0, 1).astype(np.float32), np.repeat([f"{prefix} {i}" for i in range(n_classes)], n_rows)


@pytest.fixture(scope="module")
def world():
    """A source; one target of the same classes in two studies; networks rehearsed."""
    source, (X, y) = study(0, 9, prefix="line"), study(1)
    far = (1 - X[::-1].copy(), y[::-1].copy())  # another machine: what was high is low
    wanted = [("source", "all"), ("source", "none"), ("scrambled", "all")]
    begun, _ = bench.rehearse(source, wanted, RECIPE, SEEDS)
    return source, {"a": (X, y), "b": far}, begun


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def adata(X, y, genes):
    return anndata.AnnData(
        X, obs=pd.DataFrame({"kind": y}, index=map(str, range(len(y)))), var=pd.DataFrame(index=genes)
    )


# Studies.


def test_studies_are_put_on_shared_genes_most_varied_of_the_source_first():
    rng = np.random.default_rng(0)
    X = (rng.random((20, 4)) * [1, 4, 2, 8]).astype(np.float32)
    one = adata(X, ["x", "y"] * 10, ["A", "B", "C", "D"])
    two = adata(X[:, [2, 3, 1]] * 5 + 3, ["u", "v"] * 10, ["C", "D", "B"])
    genes, (lines, labels), others = bench.on_same_genes((one, "kind"), {"two": (two, "kind")}, 2)
    assert genes == ["D", "B"] and labels[:2].tolist() == ["x", "y"]
    np.testing.assert_allclose(lines, others["two"][0], atol=1e-6)  # a unit, and an offset, leave no trace
    assert lines.min() == 0 and lines.max() == 1


def test_studies_without_shared_genes_are_refused():
    one, two = (adata(np.eye(3, dtype=np.float32), list("xyz"), [f"{p}{i}" for i in range(3)]) for p in "AB")
    with pytest.raises(DataError, match="0 genes are in all studies"):
        bench.on_same_genes((one, "kind"), {"two": (two, "kind")})


def test_whole_classes_are_put_aside():
    y = np.repeat(list("abcdef"), 5)
    aside = bench.put_aside(y, 2, seed=3)
    assert len(set(y[aside])) == 2 and not set(y[aside]) & set(y[~aside])
    assert any((bench.put_aside(y, 2, seed=s) != aside).any() for s in range(4))


# One arm.


def test_an_arm_starts_where_it_says(world):
    _, studies, begun = world
    X, y = studies["a"]
    assert same(bench.started(Arm(), begun, 40, RECIPE, 1), bench.network(40, "all", RECIPE, 1))
    for arm in (Arm("source", "all"), Arm("source", "none"), Arm("scrambled", "all")):
        net = bench.started(arm, begun, 40, RECIPE, 1)
        assert same(net, begun[arm.start, arm.clamp, 1]) and net is not begun[arm.start, arm.clamp, 1]
        assert not same(net, bench.network(40, arm.clamp, RECIPE, 1))
    before = copy_of(begun["source", "all", 0])
    moved = bench.tuned(Arm("source"), begun, (X, y), RECIPE, 0)
    assert not same(moved, before) and same(begun["source", "all", 0], before)
    assert same(bench.tuned(Arm("source", cells=0), begun, (X, y), RECIPE, 0), before)


def copy_of(net):
    import copy

    return copy.deepcopy(net)


def test_rehearsals_are_used_in_turn_where_there_are_fewer_than_seeds(world):
    begun = world[2]
    assert same(bench.started(Arm("source"), begun, 40, RECIPE, 2), begun["source", "all", 0])
    assert same(bench.started(Arm("source"), begun, 40, RECIPE, 3), begun["source", "all", 1])
    with pytest.raises(DataError, match="nothing was rehearsed on 'source' with clamp='weight'"):
        bench.started(Arm("source", "weight"), begun, 40, RECIPE, 0)


def test_an_arm_is_tuned_on_its_own_cells_only(world, monkeypatch):
    _, studies, begun = world
    met = []
    monkeypatch.setattr(one_arm, "practise", lambda net, X, y, *_: met.append((X, y)) or net)
    X, y = studies["a"]
    for cells, n_classes in ((15, None), (15, 5), (10, 6), (None, None)):
        bench.tuned(Arm(cells=cells), begun, studies["a"], RECIPE, 4, n_classes)
    for (mine, named), (cells, n) in zip(met, ((15, 7), (15, 5), (10, 6), (30, 7)), strict=True):
        assert np.unique(named, return_counts=True)[1].tolist() == [cells] * n
        assert {row.tobytes() for row in mine} <= {row.tobytes() for row in X}
    rows = few_shot_split(y, 15, seed=4)[0]
    np.testing.assert_array_equal(met[0][0], X[rows])


def test_clamped_arms_stay_clamped_and_free_ones_do_not(world):
    _, studies, begun = world
    nets, _ = bench.tune_arms(ARMS, begun, studies["a"], RECIPE, [0])
    for name, arm in ARMS.items():
        least = min(p.min() for p in nets[name, 0].encoder.parameters())
        assert (least >= 0) == (arm.clamp == "all"), name


def test_any_learner_can_be_an_arm(world):
    studies = world[1]
    arm = Arm(lambda s: meta.Prototypical(torch.manual_seed(s) and encoder((40, 16), norm="layer")))
    nets, _ = bench.tune_arms({"prototypes": arm}, {}, studies["a"], RECIPE, SEEDS)
    met = bench.answers(nets, bench.exam_on(studies["a"], RECIPE), RECIPE, "inductive")
    assert len(met["prototypes"]) == 2 and met["prototypes"][0].accuracy.mean() > 0.9


# Loops.


def test_scrambled_sources_have_an_order_for_each_seed_and_no_curve(monkeypatch):
    source, met = study(0, 6), []
    monkeypatch.setattr(one_arm, "practise", lambda net, X, *_: met.append(X) or net)
    bench.rehearse(source, [("source", "all"), ("scrambled", "all")], RECIPE, SEEDS)
    assert met[0] is source[0] and met[1] is source[0]
    assert not np.array_equal(met[2], met[3])
    for X in met[2:]:
        np.testing.assert_array_equal(np.sort(X, 1), np.sort(source[0], 1))
        assert not np.array_equal(X, source[0])


def test_rehearsal_is_watched_on_classes_it_never_met():
    X, y = study(2, 12, n_rows=12, noise=0.05)
    aside = bench.put_aside(y, 5)
    exam = bench.exam_on((X[aside], y[aside]), RECIPE, 4)
    wanted = [("source", "none"), ("scrambled", "none")]
    begun, curve = bench.rehearse((X[~aside], y[~aside]), wanted, RECIPE.but(rehearsal={"none": 60}), SEEDS, exam)
    assert set(begun) == {(s, "none", i) for s in ("source", "scrambled") for i in SEEDS}
    assert curve.groupby("seed")["episodes"].apply(list).tolist() == [[20, 40, 60]] * 2
    assert set(curve["start"]) == {"source"}
    assert curve.query("episodes == 60")["accuracy"].mean() > 0.5  # guessing: 0.2
    last = bench.examine(begun["source", "none", 1], exam, RECIPE, 1).accuracy.mean()
    assert curve.query("episodes == 60 and seed == 1")["accuracy"].item() == last


def test_curves_pass_through_the_points_and_end_with_the_network(world):
    _, studies, begun = world
    exam = bench.exam_on(studies["b"], RECIPE)
    arms = {"scratch": Arm("", "none"), "rehearsed": Arm("source", "none")}
    nets, curve = bench.tune_arms(arms, begun, studies["a"], RECIPE, SEEDS, exam, points=(5, 10, 20))
    assert list(curve.columns) == ["arm", "seed", "episodes", "accuracy"] and len(curve) == 2 * 2 * 3
    assert sorted(set(curve["episodes"])) == [5, 10, 20]
    last = bench.answers(nets, exam, RECIPE)
    for name in arms:
        at = curve[(curve["arm"] == name) & (curve["episodes"] == 20)]
        assert at["accuracy"].tolist() == [answer.accuracy.mean() for answer in last[name]]
    _, more = bench.tune_arms(arms, begun, studies["a"], RECIPE.but(tuning=40), SEEDS, exam, (5, 10, 20, 40))
    pd.testing.assert_frame_equal(more[more["episodes"] <= 20].reset_index(drop=True), curve)
    with pytest.raises(SettingError, match="not multiples"):
        bench.tune_arms(arms, begun, studies["a"], RECIPE, SEEDS, exam, points=(10, 15))


def test_all_arms_of_a_seed_meet_the_same_examination_and_seeds_differ(world):
    studies = world[1]
    exam = bench.exam_on(studies["b"], RECIPE)
    met = bench.heads(["nearest centroid", "logistic"], exam, RECIPE, SEEDS)
    met |= bench.answers({("net", s): bench.network(40, "none", RECIPE, s) for s in SEEDS}, exam, RECIPE)
    for a in met.values():
        for i, one in enumerate(a):
            np.testing.assert_array_equal(one.classes, met["logistic"][i].classes)
    assert not np.array_equal(met["logistic"][0].classes, met["logistic"][1].classes)
    assert {a.mode for a in met["logistic"]} == {"inductive"} and {a.mode for a in met["net"]} == {"transductive"}


def test_weights_of_any_learner_hang_on_the_seed_alone():
    arm = Arm(lambda s: encoder((4, 3)))
    one = bench.started(arm, {}, 4, RECIPE, 0)
    torch.rand(5)
    assert same(one, bench.started(arm, {}, 4, RECIPE, 0))
    assert not same(one, bench.started(arm, {}, 4, RECIPE, 1))


def test_seeds_trained_as_one_find_what_they_find_in_turn(world, monkeypatch):
    _, studies, begun = world
    exam, arms = bench.exam_on(studies["b"], RECIPE), {k: ARMS[k] for k in ("from scratch, 15", "rehearsed, all cells")}
    arms["any learner"] = Arm(lambda s: meta.Prototypical(encoder((40, 16), norm="layer")))
    teams, plain, three = [], one_arm.RelationNets, (0, 1, 2)
    monkeypatch.setattr(one_arm, "RelationNets", lambda nets: teams.append(len(nets)) or plain(nets))
    asked = [bench.tune_arms(arms, begun, studies["a"], RECIPE.but(together=n), three, exam, (10, 20)) for n in (1, 2)]
    assert teams == [2, 2], "two of the three seeds, the third alone; no learner of another kind"
    (nets, curve), (others, other_curve) = asked
    assert list(nets) == list(others) and list(curve["seed"]) == list(other_curve["seed"])
    assert np.abs(curve["accuracy"] - other_curve["accuracy"]).max() < 0.05
    assert all(same(nets["any learner", s], others["any learner", s]) for s in three)
    for name in ("from scratch, 15", "rehearsed, all cells"):
        assert all(same(nets[name, s], others[name, s]) == (s == 2) for s in three)  # alone, the same bytes
        for one, other in zip(*(bench.answers(n, exam, RECIPE)[name] for n in (nets, others)), strict=True):
            np.testing.assert_allclose(one.scores, other.scores, atol=0.05)


def test_loops_do_not_mix_up_seeds_that_are_trained_as_one(world):
    source, studies, begun = world
    two, exam = RECIPE.but(together=2), bench.exam_on(studies["b"], RECIPE)
    wanted = [("source", "none"), ("scrambled", "all")]
    again, seen = bench.rehearse(source, wanted, two, SEEDS, exam)
    _, expected = bench.rehearse(source, wanted, RECIPE, SEEDS, exam)
    keys = ["start", "clamp", "seed", "episodes"]
    pd.testing.assert_frame_equal(seen[keys], expected[keys])
    assert np.abs(seen["accuracy"] - expected["accuracy"]).max() < 0.1
    for key, net in again.items():
        first, same_first = net.encoder.linears[0].weight, begun[key].encoder.linears[0].weight
        torch.testing.assert_close(first, same_first, atol=1e-2, rtol=0)
        assert not torch.allclose(first, begun[(*key[:2], 1 - key[2])].encoder.linears[0].weight, atol=1e-2)
    ways = {"rehearsed": ARMS["rehearsed, 15"], "scratch": Arm()}
    one, both = (bench.grid(ways, [(3, 10), (5, 10)], begun, studies["a"], exam, r, SEEDS) for r in (RECIPE, two))
    pd.testing.assert_frame_equal(one, both, atol=0.06)
    alone, beside = (bench.cross(ways, begun, studies, r, SEEDS, ["a"]) for r in (RECIPE, two))
    for key, found in alone.items():
        for a, b in zip(found, beside[key], strict=True):
            np.testing.assert_array_equal(a.classes, b.classes)
            np.testing.assert_allclose(a.scores, b.scores, atol=0.1)


@pytest.mark.slow
def test_processes_side_by_side_find_what_one_finds(world):
    source, studies, begun = world
    two, exam = RECIPE.but(workers=2), bench.exam_on(studies["b"], RECIPE)
    learner = Arm(lambda s: bench.network(40, "none", RECIPE, s + 9))  # typed where it is used, as in a notebook
    arms = {"rehearsed, 15": ARMS["rehearsed, 15"], "typed": learner}
    asked = [bench.tune_arms(arms, begun, studies["a"], r, SEEDS, exam, (10, 20)) for r in (RECIPE, two)]
    (nets, curve), (others, other_curve) = asked
    assert list(nets) == list(others) and all(same(nets[k], others[k]) for k in nets)
    pd.testing.assert_frame_equal(curve, other_curve)
    again, seen = bench.rehearse(source, [("scrambled", "all"), ("source", "none")], two, SEEDS, exam)
    assert all(same(net, begun[key]) for key, net in again.items()) and len(seen) == 3 * len(SEEDS)
    ways = {"rehearsed": ARMS["rehearsed, 15"]}
    one, both = (bench.grid(ways, [(3, 10)], begun, studies["a"], exam, r, SEEDS) for r in (RECIPE, two))
    pd.testing.assert_frame_equal(one, both)
    pair = [bench.tune_arms(ARMS, begun, studies["a"], r.but(together=2), SEEDS)[0] for r in (RECIPE, two)]
    assert all(same(pair[0][k], pair[1][k]) for k in pair[0])


def test_types_and_cells_are_tuned_as_asked(world, monkeypatch):
    studies, met, plain = world[1], [], bench.practise
    monkeypatch.setattr(
        one_arm, "practise", lambda net, X, y, *rest: met.append((len(set(y)), len(y))) or plain(net, X, y, *rest)
    )
    exam, sizes = bench.exam_on(studies["b"], RECIPE), [(5, 15), (7, 15), (5, 20)]
    table = bench.grid({"scratch": Arm()}, sizes, {}, studies["a"], exam, RECIPE, SEEDS)
    assert met == [(5, 75), (5, 75), (7, 105), (7, 105), (5, 100), (5, 100)]
    assert table[["types", "cells", "seed"]].to_numpy().tolist()[2:5] == [[7, 15, 0], [7, 15, 1], [5, 20, 0]]
    assert table["accuracy"].between(0, 1).all()


def test_every_study_is_tuned_on_and_the_others_examined(world):
    _, studies, begun = world
    three = studies | {"c": study(3)}
    arms = {"free": Arm("source", "none")}
    met = bench.cross(arms, begun, three, RECIPE, SEEDS)
    assert set(met) == {("free", a, b) for a in "abc" for b in "abc" if a != b}
    assert all(len(found) == 2 for found in met.values())
    alone = bench.tuned(arms["free"], begun, three["b"], RECIPE, 1)
    expected = bench.examine(alone, bench.exam_on(three["c"], RECIPE), RECIPE, 1)
    np.testing.assert_array_equal(met["free", "b", "c"][1].scores, expected.scores)
    assert set(bench.cross(arms, begun, three, RECIPE, SEEDS, ["b"])) == {("free", "b", "a"), ("free", "b", "c")}


def test_rates_are_chosen_on_classes_that_are_not_tuned_on_and_kind_by_kind(monkeypatch):
    X, y = study(5, 12, n_rows=16, noise=0.05)
    aside, met, plain = bench.put_aside(y, 5), [], bench.practise
    known = X[~aside], y[~aside]
    kinds = [("source", "none"), ("scrambled", "none")]
    begun, _ = bench.rehearse(known, kinds, RECIPE.but(rehearsal=60), SEEDS)
    monkeypatch.setattr(
        one_arm,
        "practise",
        lambda net, X, y, rule, *rest: met.append((set(y), rule.lr)) or plain(net, X, y, rule, *rest),
    )
    arms = {"scratch": Arm("", "none"), "lent": Arm("source", "none", None), "nonsense": Arm("scrambled", "none")}
    found, table = bench.with_rates(arms, [1e-7, 1e-2], (X, y), aside, begun, RECIPE.but(tuning=40), SEEDS, 6)
    assert found["scratch"] == Arm("", "none", 15, 1e-2) and table["", "none"][1e-2] > 0.5
    assert found["lent"].cells is None and found["lent"].lr == table["source", "none"].idxmax()
    assert found["nonsense"].lr == found["lent"].lr and ("scrambled", "none") not in table
    assert {("from scratch", "free"), ("rehearsed", "free")} <= set(table.rename(columns=bench.KINDS))
    assert all(len(classes) == 6 and not classes & set(y[aside]) for classes, _ in met)
    assert [lr for _, lr in met] == [1e-7, 1e-7, 1e-2, 1e-2] * 2
    bench.tuned(found["scratch"], {}, known, RECIPE.but(lr=1), 0)
    assert met[-1][1] == 1e-2  # the arm's own rate goes before the recipe's


def test_a_crowd_of_one_type_hurts_batch_statistics_and_no_other(world):
    _, studies, begun = world
    rule, arm = RECIPE.but(tuning=60), Arm("source", "none")
    nets = {("free", s): bench.tuned(arm, begun, studies["a"], rule, s) for s in SEEDS}
    table = bench.crowds(nets, studies["a"], (0.2, 1.0), RECIPE, size=20)
    at = table.pivot_table(index="statistics", columns="share", values="accuracy")
    assert (at[0.2] > 0.7).all()
    assert at.loc["batch", 1.0] < at.loc["batch", 0.2] - 0.3
    assert at.loc["support", 1.0] > at.loc["batch", 1.0] + 0.3 and at.loc["running", 1.0] > at.loc["batch", 1.0] + 0.3
    assert all(m.at_test == "running" for net in nets.values() for m in net.modules() if isinstance(m, EpisodeNorm))


def test_a_crowd_holds_the_share_that_was_asked(world):
    studies, seen = world[1], []

    class Watch(torch.nn.Module):
        def scores(self, shown, asked):
            seen.append(asked.shape[1])
            return -torch.cdist(asked, shown.mean(2))

    whole = bench.crowd(Watch(), studies["a"], 0.2, "running", RECIPE, 0, size=20)
    assert set(seen) == {20} and whole > 0.9


# The whole.


def test_transfer_runs_the_papers_arms_and_two_heads(world):
    source, studies, _ = world
    met = bench.transfer(source, studies["a"], studies["a"], RECIPE.but(rehearsal=12, tuning=12), SEEDS, aside=2)
    assert list(met) == [*ARMS, "nearest centroid", "logistic"]
    table = bench.intervals(met)
    assert list(table.columns) == ["accuracy", "accuracy_low", "accuracy_high"]
    assert table.loc["nearest centroid", "accuracy"] > 0.95
    assert ((table["accuracy_low"] <= table["accuracy"]) & (table["accuracy"] <= table["accuracy_high"])).all()
    gain = bench.intervals(met, against="from scratch, 15")
    assert "from scratch, 15" not in gain.index
    expected = table.loc["logistic", "accuracy"] - table.loc["from scratch, 15", "accuracy"]
    assert gain.loc["logistic", "accuracy"] == pytest.approx(expected)


def test_three_types_are_enough_for_three_ways(world):
    source, rule = world[0], RECIPE.but(n_way=3, k_shot=3, rehearsal=6, tuning=6)
    few = study(6, 3)
    met = bench.transfer(source, few, few, rule, SEEDS, {"scratch": Arm("", "none", 8)})
    assert met["scratch"][0].scores.shape == (8, 30, 3)
    assert bench.intervals(met).notna().all().all()  # no class can be left out: over seeds
    assert isinstance(bench.exam_on(few, rule), EpisodeSampler)


# Official shapes, without the files.


@pytest.fixture(scope="module")
def official():
    """A loader whose data sets have the official ones' columns, names of genes and labels, and simulated values."""
    symbols = [f"G{i}" for i in range(40)]
    tissues, tumours = study(0, 8, prefix="tissue"), study(2, 7, prefix="cancer")
    gtex = adata(np.expm1(4 * tissues[0]), tissues[1], [f"ENSG{i}.1" for i in range(40)])
    gtex.obs["tissue"], gtex.var["symbol"] = gtex.obs.pop("kind"), [*symbols[:38], "G38", "G38"]
    parts = []
    for i, tech in enumerate(("inDrop1", "inDrop2", "celseq2", "smartseq2", "smarter", "fluidigmc1")):
        X, y = study(20 + i // 2, 4 if tech == "smarter" else 6, prefix="type")
        part = adata(np.floor(50 * X), y, symbols)
        part.obs["batch"], part.obs_names = tech, [f"{tech} {j}" for j in range(len(y))]
        parts.append(part)
    joined = anndata.concat(parts)
    joined.obs["cell_type"] = joined.obs.pop("kind")
    wang = adata(np.floor(50 * study(30, 5)[0]), study(30, 5)[1], symbols)
    wang.obs["cell_type"] = wang.obs.pop("kind")
    tcga = adata(3 * tumours[0], tumours[1], symbols)
    tcga.obs["cancer"] = tcga.obs.pop("kind")
    tcga.obs["sample_type"] = np.where(np.arange(tcga.n_obs) % 15 == 0, "Solid Tissue Normal", "Primary Tumor")
    asked = {"gtex-v8": gtex, "pancreas": joined, "wang": wang, "tcga": tcga}

    def load(name, route):
        assert route == "official"
        return asked[name].copy()

    return load


def test_the_papers_studies_are_read_from_official_files(official):
    source, label, studies = bench.published(official)
    assert list(studies) == ["Baron", "Muraro", "Segerstolpe", "Xin", "Wang", "TCGA"] and label == "tissue"
    assert source.shape == (240, 38)  # a symbol that stands twice is nobody's
    assert set(studies["Baron"][0].obs["batch"]) == {"inDrop1", "inDrop2"}
    assert set(studies["Xin"][0].obs["batch"]) == {"smarter"}
    assert not studies["TCGA"][0].obs["sample_type"].str.contains("Normal").any()
    genes, lines, cells = bench.on_same_genes((source, label), studies, 100)
    assert sorted(genes) == sorted(f"G{i}" for i in range(38)) and lines[0].shape == (240, 38)
    assert all(X.shape[1] == 38 and X.min() == 0 and X.max() == 1 for X, _ in cells.values())


def test_the_full_protocol_runs_on_official_shapes(official):
    """What the chapter runs at full: every study of the pancreas in turn, and tissues with tumours both ways."""
    rule = RECIPE.but(rehearsal=9, tuning=6, exams=4)
    source, label, studies = bench.published(official)
    _, lines, cells = bench.on_same_genes((source, label), studies, 100)
    tumours = cells.pop("TCGA")
    begun, _ = bench.rehearse(lines, [("source", "all")], rule, SEEDS)
    arms = {"rehearsed": Arm("source"), "from scratch": Arm()}
    met = bench.cross(arms, begun, cells, rule, SEEDS)
    assert len(met) == 2 * 5 * 4 and met["rehearsed", "Baron", "Xin"][0].scores.shape == (
        4,
        40,
        4,
    )  # four types, four ways
    table = bench.tissues_and_tumours(lines, tumours, rule, SEEDS, [(5, 15), (7, 15), (5, 20)], (3, 6))
    counts = table.groupby("experiment", sort=False).size()
    assert counts.to_dict() == {"untuned": 4, "sizes": 12, "curve": 8}
    assert set(table[table["experiment"] == "untuned"]["arm"]) == {"tissues to tumours", "tumours to tissues"}
    curve = table[table["experiment"] == "curve"]
    assert set(zip(curve["classes"], curve["samples"], strict=True)) == {(7, 15)} and set(curve["episodes"]) == {3, 6}


# Real files.


@pytest.fixture
def fixtures(root):
    """A function from a path below the folder of real files to where it lies; skips when it is not there."""
    folder = Path(os.environ.get("BORROWED_FIXTURES") or root.parent / "shared" / "data")

    def find(name):
        if not (folder / name).exists():
            pytest.skip(f"the real file {name} is not here: set BORROWED_FIXTURES to its folder")
        return folder / name

    return find


@pytest.mark.slow
def test_islets_of_two_studies_after_eleven_cancers(fixtures):
    """Real tumours to real islets: five cells of a type name another laboratory's, and the clamp costs accuracy."""
    tumours, baron, xin = (
        anndata.read_h5ad(fixtures(f"h5ad/{name}.h5ad"))
        for name in ("tcga_11cancers_paired_1204", "pancreas_baron_human_mouse_350", "pancreas_xin_674x1075")
    )
    tumours.X = tumours.X.clip(-2)
    baron = baron[baron.obs["species"] == "human"].copy()
    baron.X = log_normalize(baron.X)
    both = set(baron.obs["cell_type"]) & set(xin.obs["cell_type"])
    islets = {n: (a[a.obs["cell_type"].isin(both)], "cell_type") for n, a in (("Baron", baron), ("Xin", xin))}
    genes, lines, cells = bench.on_same_genes((tumours, "cancer"), islets, 600)
    assert both == {"alpha", "beta", "delta"} and 150 < len(genes) < 600
    rule = Recipe(rehearsal=120, tuning=60, exams=20, lr=5e-3)
    some = {k: ARMS[k] for k in ("from scratch, 15", "free, from scratch, 15")}
    table = bench.intervals(bench.transfer(lines, cells["Baron"], cells["Xin"], rule, SEEDS, some))["accuracy"]
    assert table["nearest centroid"] > 0.9 and table["free, from scratch, 15"] > table["from scratch, 15"] + 0.1
