"""The arms of the relation network's paper on simulated studies: one strong signal, so that a wrong wire is seen."""

import copy
import os
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch

from shared.data.constraints import SettingError
from shared.data.errors import DataError
from shared.evaluate.splits import few_shot
from shared.nn import meta
from shared.nn.blocks import EpisodeNorm, encoder
from shared.nn.episodes import EpisodeSampler
from shared.preprocess import log_normalize
from shared.studies import tmp as study
from shared.studies.tmp import ARMS, Arm, StudyConfig, comparisons
from shared.studies.tmp import arms as one_arm

CONFIG = StudyConfig(
    widths=(24, 12), relation=(12,), pretrain_episodes=30, finetune_episodes=20, eval_episodes=8, n_query=4
)
SEEDS = (0, 1)


def made_study(seed, n_classes=7, n_rows=30, n_genes=40, prefix="type", noise=0.15):
    """Classes with means of their own over genes from 0 to 1."""
    rng = np.random.default_rng(seed)
    means = rng.random((n_classes, n_genes))
    X = np.repeat(means, n_rows, 0) + noise * rng.standard_normal((n_classes * n_rows, n_genes))
    return X.clip(0, 1).astype(np.float32), np.repeat([f"{prefix} {i}" for i in range(n_classes)], n_rows)


@pytest.fixture(scope="module")
def world():
    """A source; one target of the same classes in two studies; networks pre-trained."""
    source, (X, y) = made_study(0, 9, prefix="line"), made_study(1)
    far = (1 - X[::-1].copy(), y[::-1].copy())  # another machine: what was high is low
    wanted = [("source", "all"), ("source", "none"), ("scrambled", "all")]
    pretrained, _ = study.pretrain(source, wanted, CONFIG, SEEDS)
    return source, {"a": (X, y), "b": far}, pretrained


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
    genes, (lines, labels), others = study.on_same_genes((one, "kind"), {"two": (two, "kind")}, 2)
    assert genes == ["D", "B"] and labels[:2].tolist() == ["x", "y"]
    np.testing.assert_allclose(lines, others["two"][0], atol=1e-6)  # a unit, and an offset, leave no trace
    assert lines.min() == 0 and lines.max() == 1


def test_studies_without_shared_genes_are_refused():
    one, two = (adata(np.eye(3, dtype=np.float32), list("xyz"), [f"{p}{i}" for i in range(3)]) for p in "AB")
    with pytest.raises(DataError, match="0 genes are in all studies"):
        study.on_same_genes((one, "kind"), {"two": (two, "kind")})


def test_whole_classes_are_held_out():
    y = np.repeat(list("abcdef"), 5)
    held_out = study.hold_out_classes(y, 2, seed=3)
    assert len(set(y[held_out])) == 2 and not set(y[held_out]) & set(y[~held_out])
    assert any((study.hold_out_classes(y, 2, seed=s) != held_out).any() for s in range(4))


# One arm.


def test_an_arm_starts_where_it_says(world):
    _, studies, pretrained = world
    X, y = studies["a"]
    assert same(study.initial_network(Arm(), pretrained, 40, CONFIG, 1), study.new_network(40, "all", CONFIG, 1))
    for arm in (Arm("source", "all"), Arm("source", "none"), Arm("scrambled", "all")):
        net = study.initial_network(arm, pretrained, 40, CONFIG, 1)
        assert same(net, pretrained[arm.init, arm.clamp, 1]) and net is not pretrained[arm.init, arm.clamp, 1]
        assert not same(net, study.new_network(40, arm.clamp, CONFIG, 1))
    before = copy.deepcopy(pretrained["source", "all", 0])
    moved = finetuned(Arm("source"), pretrained, (X, y), CONFIG, 0)
    assert not same(moved, before) and same(pretrained["source", "all", 0], before)
    assert same(finetuned(Arm("source", cells=0), pretrained, (X, y), CONFIG, 0), before)


def finetuned(arm, pretrained, data, config, seed, n_classes=None):
    (one,) = one_arm.Finetuning(arm, pretrained, config, n_classes).fit_seeds(data, [seed])
    return one.net


def test_pretrainings_are_used_in_turn_where_there_are_fewer_than_seeds(world):
    pretrained = world[2]
    assert same(study.initial_network(Arm("source"), pretrained, 40, CONFIG, 2), pretrained["source", "all", 0])
    assert same(study.initial_network(Arm("source"), pretrained, 40, CONFIG, 3), pretrained["source", "all", 1])
    with pytest.raises(DataError, match="nothing was pre-trained with init='source', clamp='weight'"):
        study.initial_network(Arm("source", "weight"), pretrained, 40, CONFIG, 0)


def test_an_arm_is_finetuned_on_its_own_cells_only(world, monkeypatch):
    _, studies, pretrained = world
    met = []
    monkeypatch.setattr(one_arm, "finetune", lambda nets, studies, *_: met.extend(studies) or nets)
    X, y = studies["a"]
    for cells, n_classes in ((15, None), (15, 5), (10, 6), (None, None)):
        finetuned(Arm(cells=cells), pretrained, studies["a"], CONFIG, 4, n_classes)
    for (mine, named), (cells, n) in zip(met, ((15, 7), (15, 5), (10, 6), (30, 7)), strict=True):
        assert np.unique(named, return_counts=True)[1].tolist() == [cells] * n
        assert {row.tobytes() for row in mine} <= {row.tobytes() for row in X}
    rows = np.sort(few_shot(y, 15, 4, min_size=1)[0])
    np.testing.assert_array_equal(met[0][0], X[rows])


def test_clamped_arms_stay_nonnegative_and_others_do_not(world):
    _, studies, pretrained = world
    nets, _ = study.finetune_arms(ARMS, pretrained, studies["a"], CONFIG, [0])
    for name, arm in ARMS.items():
        least = min(p.min() for p in nets[name, 0].encoder.parameters())
        assert (least >= 0) == (arm.clamp == "all"), name


def test_any_learner_can_be_an_arm(world):
    studies = world[1]
    arm = Arm(lambda s: meta.Prototypical(torch.manual_seed(s) and encoder((40, 16), norm="layer")))
    nets, _ = study.finetune_arms({"prototypes": arm}, {}, studies["a"], CONFIG, SEEDS)
    met = study.results(nets, study.evaluation_sampler(studies["a"], CONFIG), CONFIG, "inductive")
    assert len(met["prototypes"]) == 2 and met["prototypes"][0].accuracy.mean() > 0.9


def test_learners_of_any_kind_are_trained_in_turn(world):
    studies, arms = world[1], {"own": Arm(lambda s: study.new_network(40, "none", CONFIG, s + 9))}
    one, two = (study.finetune_arms(arms, {}, studies["a"], replace(CONFIG, at_once=n), SEEDS)[0] for n in (1, 2))
    assert all(same(one[key], two[key]) for key in one)


# Loops.


def test_scrambled_sources_have_an_order_for_each_seed_and_no_curve(monkeypatch):
    source, met = made_study(0, 6), []
    monkeypatch.setattr(one_arm, "finetune", lambda nets, studies, *_: met.extend(X for X, _ in studies) or nets)
    study.pretrain(source, [("source", "all"), ("scrambled", "all")], CONFIG, SEEDS)
    assert met[0] is source[0] and met[1] is source[0]
    assert not np.array_equal(met[2], met[3])
    for X in met[2:]:
        np.testing.assert_array_equal(np.sort(X, 1), np.sort(source[0], 1))
        assert not np.array_equal(X, source[0])


def test_pretraining_is_watched_on_held_out_classes():
    X, y = made_study(2, 12, n_rows=12, noise=0.05)
    held_out = study.hold_out_classes(y, 5)
    sampler = study.evaluation_sampler((X[held_out], y[held_out]), CONFIG, 4)
    wanted = [("source", "none"), ("scrambled", "none")]
    pretrained, curve = study.pretrain(
        (X[~held_out], y[~held_out]), wanted, replace(CONFIG, pretrain_episodes={"none": 60}), SEEDS, sampler
    )
    assert set(pretrained) == {(s, "none", i) for s in ("source", "scrambled") for i in SEEDS}
    assert curve.groupby("seed")["episodes"].apply(list).tolist() == [[20, 40, 60]] * 2
    assert set(curve["init"]) == {"source"}
    assert curve.query("episodes == 60")["accuracy"].mean() > 0.5  # guessing: 0.2
    last = study.evaluate(pretrained["source", "none", 1], sampler, CONFIG, 1).accuracy.mean()
    assert curve.query("episodes == 60 and seed == 1")["accuracy"].item() == last


def test_curves_pass_through_the_points_and_end_with_the_network(world):
    _, studies, pretrained = world
    sampler = study.evaluation_sampler(studies["b"], CONFIG)
    arms = {"scratch": Arm("random", "none"), "pre-trained": Arm("source", "none")}
    nets, curve = study.finetune_arms(arms, pretrained, studies["a"], CONFIG, SEEDS, sampler, points=(5, 10, 20))
    assert list(curve.columns) == ["arm", "seed", "episodes", "accuracy"] and len(curve) == 2 * 2 * 3
    assert sorted(set(curve["episodes"])) == [5, 10, 20]
    last = study.results(nets, sampler, CONFIG)
    for name in arms:
        at = curve[(curve["arm"] == name) & (curve["episodes"] == 20)]
        assert at["accuracy"].tolist() == [answer.accuracy.mean() for answer in last[name]]
    longer = replace(CONFIG, finetune_episodes=40)
    _, more = study.finetune_arms(arms, pretrained, studies["a"], longer, SEEDS, sampler, (5, 10, 20, 40))
    pd.testing.assert_frame_equal(more[more["episodes"] <= 20].reset_index(drop=True), curve)
    with pytest.raises(SettingError, match="not multiples"):
        study.finetune_arms(arms, pretrained, studies["a"], CONFIG, SEEDS, sampler, points=(10, 15))


def test_all_arms_of_a_seed_get_the_same_episodes_and_seeds_differ(world):
    studies = world[1]
    sampler = study.evaluation_sampler(studies["b"], CONFIG)
    met = study.heads(["nearest centroid", "logistic"], sampler, CONFIG, SEEDS)
    met |= study.results({("net", s): study.new_network(40, "none", CONFIG, s) for s in SEEDS}, sampler, CONFIG)
    for a in met.values():
        for i, one in enumerate(a):
            np.testing.assert_array_equal(one.classes, met["logistic"][i].classes)
    assert not np.array_equal(met["logistic"][0].classes, met["logistic"][1].classes)
    assert {a.mode for a in met["logistic"]} == {"inductive"} and {a.mode for a in met["net"]} == {"transductive"}


def test_weights_of_any_learner_depend_on_the_seed_alone():
    arm = Arm(lambda s: encoder((4, 3)))
    one = study.initial_network(arm, {}, 4, CONFIG, 0)
    torch.rand(5)
    assert same(one, study.initial_network(arm, {}, 4, CONFIG, 0))
    assert not same(one, study.initial_network(arm, {}, 4, CONFIG, 1))


def test_stacked_networks_find_what_networks_in_turn_find(world, monkeypatch):
    _, studies, pretrained = world
    sampler, arms = (
        study.evaluation_sampler(studies["b"], CONFIG),
        {k: ARMS[k] for k in ("from scratch, 15", "pre-trained, all cells")},
    )
    arms["any learner"] = Arm(lambda s: meta.Prototypical(encoder((40, 16), norm="layer")))
    sizes, plain, three = [], one_arm.RelationNets, (0, 1, 2)
    monkeypatch.setattr(one_arm, "RelationNets", lambda nets: sizes.append(len(nets)) or plain(nets))
    asked = [
        study.finetune_arms(arms, pretrained, studies["a"], replace(CONFIG, at_once=n), three, sampler, (10, 20))
        for n in (1, 2)
    ]
    assert sizes == [2, 2], "two of the three seeds, the third alone; no learner of another kind"
    (nets, curve), (others, other_curve) = asked
    assert list(nets) == list(others) and list(curve["seed"]) == list(other_curve["seed"])
    assert np.abs(curve["accuracy"] - other_curve["accuracy"]).max() < 0.05
    assert all(same(nets["any learner", s], others["any learner", s]) for s in three)
    for name in ("from scratch, 15", "pre-trained, all cells"):
        assert all(same(nets[name, s], others[name, s]) == (s == 2) for s in three)  # alone, the same bytes
        for one, other in zip(*(study.results(n, sampler, CONFIG)[name] for n in (nets, others)), strict=True):
            np.testing.assert_allclose(one.scores, other.scores, atol=0.05)


def test_loops_do_not_mix_up_the_seeds_of_stacked_networks(world):
    source, studies, pretrained = world
    two, sampler = replace(CONFIG, at_once=2), study.evaluation_sampler(studies["b"], CONFIG)
    wanted = [("source", "none"), ("scrambled", "all")]
    again, seen = study.pretrain(source, wanted, two, SEEDS, sampler)
    _, expected = study.pretrain(source, wanted, CONFIG, SEEDS, sampler)
    keys = ["init", "clamp", "seed", "episodes"]
    pd.testing.assert_frame_equal(seen[keys], expected[keys])
    assert np.abs(seen["accuracy"] - expected["accuracy"]).max() < 0.1
    for key, net in again.items():
        first, same_first = net.encoder.linears[0].weight, pretrained[key].encoder.linears[0].weight
        torch.testing.assert_close(first, same_first, atol=1e-2, rtol=0)
        assert not torch.allclose(first, pretrained[(*key[:2], 1 - key[2])].encoder.linears[0].weight, atol=1e-2)
    ways = {"pre-trained": ARMS["pre-trained, 15"], "scratch": Arm()}
    one, both = (
        study.types_by_cells(ways, [(3, 10), (5, 10)], pretrained, studies["a"], sampler, r, SEEDS)
        for r in (CONFIG, two)
    )
    pd.testing.assert_frame_equal(one, both, atol=0.06)
    alone, beside = (study.cross_studies(ways, pretrained, studies, r, SEEDS, ["a"]) for r in (CONFIG, two))
    for key, found in alone.items():
        for a, b in zip(found, beside[key], strict=True):
            np.testing.assert_array_equal(a.classes, b.classes)
            np.testing.assert_allclose(a.scores, b.scores, atol=0.1)


@pytest.mark.slow
def test_parallel_processes_find_what_one_finds(world):
    source, studies, pretrained = world
    two, sampler = replace(CONFIG, workers=2), study.evaluation_sampler(studies["b"], CONFIG)
    learner = Arm(lambda s: study.new_network(40, "none", CONFIG, s + 9))  # typed where it is used, as in a notebook
    arms = {"pre-trained, 15": ARMS["pre-trained, 15"], "typed": learner}
    asked = [study.finetune_arms(arms, pretrained, studies["a"], r, SEEDS, sampler, (10, 20)) for r in (CONFIG, two)]
    (nets, curve), (others, other_curve) = asked
    assert list(nets) == list(others) and all(same(nets[k], others[k]) for k in nets)
    pd.testing.assert_frame_equal(curve, other_curve)
    again, seen = study.pretrain(source, [("scrambled", "all"), ("source", "none")], two, SEEDS, sampler)
    assert all(same(net, pretrained[key]) for key, net in again.items()) and len(seen) == 3 * len(SEEDS)
    ways = {"pre-trained": ARMS["pre-trained, 15"]}
    one, both = (
        study.types_by_cells(ways, [(3, 10)], pretrained, studies["a"], sampler, r, SEEDS) for r in (CONFIG, two)
    )
    pd.testing.assert_frame_equal(one, both)
    pair = [study.finetune_arms(ARMS, pretrained, studies["a"], replace(r, at_once=2), SEEDS)[0] for r in (CONFIG, two)]
    assert all(same(pair[0][k], pair[1][k]) for k in pair[0])


def test_types_and_cells_are_those_asked_for(world, monkeypatch):
    studies, met, plain = world[1], [], study.finetune

    def spy(nets, studies, *rest):
        met.extend((len(set(y)), len(y)) for _, y in studies)
        return plain(nets, studies, *rest)

    monkeypatch.setattr(one_arm, "finetune", spy)
    sampler, sizes = study.evaluation_sampler(studies["b"], CONFIG), [(5, 15), (7, 15), (5, 20)]
    table = study.types_by_cells({"scratch": Arm()}, sizes, {}, studies["a"], sampler, CONFIG, SEEDS)
    assert met == [(5, 75), (5, 75), (7, 105), (7, 105), (5, 100), (5, 100)]
    assert table[["types", "cells", "seed"]].to_numpy().tolist()[2:5] == [[7, 15, 0], [7, 15, 1], [5, 20, 0]]
    assert table["accuracy"].between(0, 1).all()


def test_every_study_is_trained_on_and_the_others_are_tested(world):
    _, studies, pretrained = world
    three = studies | {"c": made_study(3)}
    arms = {"unconstrained": Arm("source", "none")}
    met = study.cross_studies(arms, pretrained, three, CONFIG, SEEDS)
    assert set(met) == {("unconstrained", a, b) for a in "abc" for b in "abc" if a != b}
    assert all(len(found) == 2 for found in met.values())
    alone = finetuned(arms["unconstrained"], pretrained, three["b"], CONFIG, 1)
    expected = study.evaluate(alone, study.evaluation_sampler(three["c"], CONFIG), CONFIG, 1)
    np.testing.assert_array_equal(met["unconstrained", "b", "c"][1].scores, expected.scores)
    assert set(study.cross_studies(arms, pretrained, three, CONFIG, SEEDS, ["b"])) == {
        ("unconstrained", "b", "a"),
        ("unconstrained", "b", "c"),
    }


def test_learning_rates_are_selected_on_held_out_classes_and_kind_by_kind(monkeypatch):
    X, y = made_study(5, 12, n_rows=16, noise=0.05)
    held_out, met, plain = study.hold_out_classes(y, 5), [], study.finetune
    known = X[~held_out], y[~held_out]
    kinds = [("source", "none"), ("scrambled", "none")]
    pretrained, _ = study.pretrain(known, kinds, replace(CONFIG, pretrain_episodes=60), SEEDS)

    def spy(nets, studies, config, *rest):
        met.extend((set(y), config.lr) for _, y in studies)
        return plain(nets, studies, config, *rest)

    monkeypatch.setattr(one_arm, "finetune", spy)
    arms = {
        "scratch": Arm("random", "none"),
        "pre-trained": Arm("source", "none", None),
        "nonsense": Arm("scrambled", "none"),
    }
    found, table = study.select_lr(
        arms, [1e-7, 1e-2], (X, y), held_out, pretrained, replace(CONFIG, finetune_episodes=40), SEEDS, 6
    )
    assert found["scratch"] == Arm("random", "none", 15, 1e-2) and table["random", "none"][1e-2] > 0.5
    assert found["pre-trained"].cells is None and found["pre-trained"].lr == table["source", "none"].idxmax()
    assert found["nonsense"].lr == found["pre-trained"].lr and ("scrambled", "none") not in table
    assert {("from scratch", "unconstrained"), ("pre-trained", "unconstrained")} <= set(
        table.rename(columns=study.WORDS)
    )
    assert all(len(classes) == 6 and not classes & set(y[held_out]) for classes, _ in met)
    assert [lr for _, lr in met] == [1e-7, 1e-7, 1e-2, 1e-2] * 2
    finetuned(found["scratch"], {}, known, replace(CONFIG, lr=1), 0)
    assert met[-1][1] == 1e-2  # the arm's own learning rate goes before the study's


def test_label_shift_hurts_batch_statistics_and_no_other(world):
    _, studies, pretrained = world
    rule, arm = replace(CONFIG, finetune_episodes=60), Arm("source", "none")
    nets = {("unconstrained", s): finetuned(arm, pretrained, studies["a"], rule, s) for s in SEEDS}
    table = study.label_shift(nets, studies["a"], (0.2, 1.0), CONFIG, size=20)
    at = table.pivot_table(index="statistics", columns="share", values="accuracy")
    assert (at[0.2] > 0.7).all()
    assert at.loc["batch", 1.0] < at.loc["batch", 0.2] - 0.3
    assert at.loc["support", 1.0] > at.loc["batch", 1.0] + 0.3 and at.loc["running", 1.0] > at.loc["batch", 1.0] + 0.3
    assert all(m.at_test == "running" for net in nets.values() for m in net.modules() if isinstance(m, EpisodeNorm))


def test_a_shifted_batch_holds_the_share_that_was_asked(world):
    studies, seen = world[1], []

    class Watch(torch.nn.Module):
        def scores(self, shown, asked):
            seen.append(asked.shape[1])
            return -torch.cdist(asked, shown.mean(2))

    whole = comparisons._label_shift(Watch(), studies["a"], 0.2, "running", CONFIG, 0, size=20)
    assert set(seen) == {20} and whole > 0.9


# The whole.


def test_transfer_runs_the_papers_arms_and_two_heads(world):
    source, studies, _ = world
    met = study.transfer(
        source,
        studies["a"],
        studies["a"],
        replace(CONFIG, pretrain_episodes=12, finetune_episodes=12),
        SEEDS,
        n_held_out=2,
    )
    assert list(met) == [*ARMS, "nearest centroid", "logistic"]
    table = study.intervals(met)
    assert list(table.columns) == ["accuracy", "accuracy_low", "accuracy_high"]
    assert table.loc["nearest centroid", "accuracy"] > 0.95
    assert ((table["accuracy_low"] <= table["accuracy"]) & (table["accuracy"] <= table["accuracy_high"])).all()
    gain = study.intervals(met, against="from scratch, 15")
    assert "from scratch, 15" not in gain.index
    expected = table.loc["logistic", "accuracy"] - table.loc["from scratch, 15", "accuracy"]
    assert gain.loc["logistic", "accuracy"] == pytest.approx(expected)


def test_three_types_are_enough_for_three_ways(world):
    source, rule = world[0], replace(CONFIG, n_way=3, k_shot=3, pretrain_episodes=6, finetune_episodes=6)
    few = made_study(6, 3)
    met = study.transfer(source, few, few, rule, SEEDS, {"scratch": Arm("random", "none", 8)})
    assert met["scratch"][0].scores.shape == (8, 30, 3)
    assert study.intervals(met).notna().all().all()  # no class can be left out: over seeds
    assert isinstance(study.evaluation_sampler(few, rule), EpisodeSampler)


# Official shapes, without the files.


@pytest.fixture(scope="module")
def official():
    """A loader whose data sets have the official ones' columns, names of genes and labels, and simulated values."""
    symbols = [f"G{i}" for i in range(40)]
    tissues, tumours = made_study(0, 8, prefix="tissue"), made_study(2, 7, prefix="cancer")
    gtex = adata(np.expm1(4 * tissues[0]), tissues[1], [f"ENSG{i}.1" for i in range(40)])
    gtex.obs["tissue"], gtex.var["symbol"] = gtex.obs.pop("kind"), [*symbols[:38], "G38", "G38"]
    parts = []
    for i, tech in enumerate(("inDrop1", "inDrop2", "celseq2", "smartseq2", "smarter", "fluidigmc1")):
        X, y = made_study(20 + i // 2, 4 if tech == "smarter" else 6, prefix="type")
        part = adata(np.floor(50 * X), y, symbols)
        part.obs["batch"], part.obs_names = tech, [f"{tech} {j}" for j in range(len(y))]
        parts.append(part)
    joined = anndata.concat(parts)
    joined.obs["cell_type"] = joined.obs.pop("kind")
    wang = adata(np.floor(50 * made_study(30, 5)[0]), made_study(30, 5)[1], symbols)
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
    source, label, studies = study.published(official)
    assert list(studies) == ["Baron", "Muraro", "Segerstolpe", "Xin", "Wang", "TCGA"] and label == "tissue"
    assert source.shape == (240, 38)  # a symbol that stands twice is nobody's
    assert set(studies["Baron"][0].obs["batch"]) == {"inDrop1", "inDrop2"}
    assert set(studies["Xin"][0].obs["batch"]) == {"smarter"}
    assert not studies["TCGA"][0].obs["sample_type"].str.contains("Normal").any()
    genes, lines, cells = study.on_same_genes((source, label), studies, 100)
    assert sorted(genes) == sorted(f"G{i}" for i in range(38)) and lines[0].shape == (240, 38)
    assert all(X.shape[1] == 38 and X.min() == 0 and X.max() == 1 for X, _ in cells.values())


def test_the_full_protocol_runs_on_official_shapes(official):
    """What the chapter runs at full: every study of the pancreas in turn, and tissues with tumours both ways."""
    rule = replace(CONFIG, pretrain_episodes=9, finetune_episodes=6, eval_episodes=4)
    source, label, studies = study.published(official)
    _, lines, cells = study.on_same_genes((source, label), studies, 100)
    tumours = cells.pop("TCGA")
    pretrained, _ = study.pretrain(lines, [("source", "all")], rule, SEEDS)
    arms = {"pre-trained": Arm("source"), "from scratch": Arm()}
    met = study.cross_studies(arms, pretrained, cells, rule, SEEDS)
    assert len(met) == 2 * 5 * 4 and met["pre-trained", "Baron", "Xin"][0].scores.shape == (
        4,
        40,
        4,
    )  # four types, four ways
    table = study.tissues_and_tumours(lines, tumours, rule, SEEDS, [(5, 15), (7, 15), (5, 20)], (3, 6))
    counts = table.groupby("experiment", sort=False).size()
    assert counts.to_dict() == {"pre-trained only": 4, "sizes": 12, "curve": 8}
    assert set(table[table["experiment"] == "pre-trained only"]["arm"]) == {"tissues to tumours", "tumours to tissues"}
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
    genes, lines, cells = study.on_same_genes((tumours, "cancer"), islets, 600)
    assert both == {"alpha", "beta", "delta"} and 150 < len(genes) < 600
    rule = StudyConfig(pretrain_episodes=120, finetune_episodes=60, eval_episodes=20, lr=5e-3)
    some = {k: ARMS[k] for k in ("from scratch, 15", "unconstrained, from scratch, 15")}
    table = study.intervals(study.transfer(lines, cells["Baron"], cells["Xin"], rule, SEEDS, some))["accuracy"]
    assert (
        table["nearest centroid"] > 0.9 and table["unconstrained, from scratch, 15"] > table["from scratch, 15"] + 0.1
    )
