"""What pre-training adds, on simulated studies of one strong signal; and every claim of the study where it is false."""

import os
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch

from shared.data.errors import DataError
from shared.evaluate.intervals import Interval
from shared.studies import tmp as study
from shared.studies.tmp import Arm, Networks, StudyConfig

CONFIG = StudyConfig(
    widths=(24, 12), relation=(12,), pretrain_episodes=12, finetune_episodes=6, eval_episodes=8, n_query=4
)
SEEDS = (0, 1)


def made_study(seed, n_classes=7, n_rows=30, n_genes=40, prefix="type", noise=0.15, world=None):
    """Classes with means of their own over genes from 0 to 1; those of one `world` have the same means."""
    rng = np.random.default_rng(seed)
    means = (np.random.default_rng(world) if world is not None else rng).random((n_classes, n_genes))
    X = np.repeat(means, n_rows, 0) + noise * rng.standard_normal((n_classes * n_rows, n_genes))
    return X.clip(0, 1).astype(np.float32), np.repeat([f"{prefix} {i}" for i in range(n_classes)], n_rows)


def adata(X, y, genes, label="kind"):
    obs = pd.DataFrame({label: y}, index=map(str, range(len(y))))
    return anndata.AnnData(X, obs=obs, var=pd.DataFrame(index=genes))


@pytest.fixture(scope="module")
def world():
    """A source, two studies of a target, and every arm."""
    source, few, test = made_study(0, 9, prefix="line"), made_study(1, world=1), made_study(2, world=1)
    return source, few, test, study.transfer(source, few, test, CONFIG, SEEDS)


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


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
    with pytest.raises(DataError, match="0 genes are in all studies"):
        study.on_same_genes((one, "kind"), {"two": (adata(X, ["u"] * 20, list("EFGH")), "kind")})


def test_pairs_hold_out_classes_or_patients_and_nothing_of_them_is_in_the_source():
    genes = [f"G{i}" for i in range(40)]
    lines = adata(*made_study(0, 14, 11), genes, "subtype")
    lines = lines[:-5].copy()  # six of the last subtype are too few
    blood = adata(*made_study(1, 6), genes, "cell_type")
    blood.obs["run"] = np.where(np.arange(blood.n_obs) % 2, "run1", "run2")
    tumours = adata(*made_study(2, 6), genes)
    tumours.obs["patient"] = [f"P{i // 2}" for i in range(tumours.n_obs)]
    baron, xin = (adata(*made_study(s, k), genes, "cell_type") for s, k in ((3, 4), (4, 3)))
    found = study.pairs(lines, blood, {"tumours": tumours, "Baron": baron, "Xin": xin}, 30)
    assert list(found) == ["cell lines to blood", "tumours to blood", "tumours to islets"]
    first, second, third = found.values()
    assert len(set(first.held_out[1])) == 10 and not set(first.held_out[1]) & set(first.source[1])
    assert "type 13" not in {*first.held_out[1], *first.source[1]} and first.source[0].shape[1] == 30
    held_out = {bytes(row) for row in second.held_out[0]}
    assert len(second.held_out[1]) == 54 and not held_out & {bytes(row) for row in second.source[0]}
    assert set(third.few[1]) == set(third.test[1]) == {"type 0", "type 1", "type 2"}
    assert list(study.pairs(lines, blood, {}, 30)) == ["cell lines to blood"]


# Arms.


def test_every_arm_is_there_and_begins_where_it_says(world):
    source, _, _, found = world
    assert set(found.nets) == {Arm(c, i, r) for c in study.CLAMPS for i in study.INITS for r in (None, *study.RATES)}
    for arm, nets in found.nets.items():
        fresh = study.new_networks(40, arm.clamp, CONFIG, SEEDS)
        assert all(same(*pair) for pair in zip(nets, fresh, strict=True)) == (arm.init == "random" and arm.lr is None)
        weights = min(layer.weight.min() for net in nets for layer in net.encoder.linears)
        every = min(p.min() for net in nets for p in net.encoder.parameters())
        trained = arm.init != "random" or arm.lr is not None
        assert not trained or (weights >= 0, every >= 0) == (arm.clamp != "none", arm.clamp == "all"), arm
    alone = study.pretrain(source, "source", "none", CONFIG, [1])[0]
    stacked = found.nets[Arm("none", "source", None)][1]
    for a, b in zip(alone.parameters(), stacked.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-2, rtol=0)


def test_scrambled_sources_have_an_order_for_each_seed(monkeypatch):
    source, met = made_study(0, 6), []
    from shared.studies.tmp import arms

    monkeypatch.setattr(arms, "train", lambda nets, studies, *_: met.extend(X for X, _ in studies) or nets)
    study.pretrain(source, "source", "all", CONFIG, SEEDS)
    study.pretrain(source, "scrambled", "all", CONFIG, SEEDS)
    assert met[0] is source[0] and met[1] is source[0] and not np.array_equal(met[2], met[3])
    for X in met[2:]:
        np.testing.assert_array_equal(np.sort(X, 1), np.sort(source[0], 1))
        assert not np.array_equal(X, source[0])


def test_an_arm_is_finetuned_on_its_own_cells_and_a_frozen_encoder_stays(world, monkeypatch):
    from shared.studies.tmp import arms

    _, (X, y), _, found = world
    nets, met, plain = found.nets[Arm("all", "source", None)], [], arms.train
    frozen = study.finetune(nets, (X, y), CONFIG, SEEDS, 0.02, frozen=True)
    for one, other in zip(frozen, nets, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.encoder.parameters(), other.encoder.parameters(), strict=True))
        assert not torch.equal(one.last.weight, other.last.weight)
    monkeypatch.setattr(arms, "train", lambda nets, studies, *a, **k: met.extend(studies) or plain(nets, studies, *a))
    short = replace(CONFIG, finetune_episodes=0)
    for how in ({}, {"cells": 10, "n_classes": 5}, {"cells": None}):
        study.finetune(nets, (X, y), short, [4], 0.02, **how)
    for (mine, named), (cells, n) in zip(met, ((15, 7), (10, 5), (30, 7)), strict=True):
        assert np.unique(named, return_counts=True)[1].tolist() == [cells] * n
        assert {row.tobytes() for row in mine} <= {row.tobytes() for row in X}


def test_all_arms_of_a_seed_get_the_same_episodes_and_heads_too(world):
    _, few, test, found = world
    every = list(found.results.values()) + list(study.heads(few, test, CONFIG, SEEDS).values())
    for some in every:
        for one, first in zip(some, every[0], strict=True):
            np.testing.assert_array_equal(one.classes, first.classes)
            np.testing.assert_array_equal(one.target, first.target)
    assert not np.array_equal(every[0][0].classes, every[0][1].classes)


def test_a_head_with_more_labels_uses_them_and_centres_each_study():
    few, test = made_study(1, world=1, noise=0.6), made_study(2, world=1, noise=0.6)
    shifted = few[0] + np.random.default_rng(0).random(40).astype(np.float32), few[1]  # another machine
    found = study.heads(shifted, test, CONFIG, range(4))
    mean = {name: np.mean([one.accuracy for one in some]) for name, some in found.items()}
    assert mean["logistic, 15 more"] > mean["logistic"] + 0.05
    other = study.heads((few[0][few[1] != "type 0"], few[1][few[1] != "type 0"]), test, CONFIG, SEEDS)
    assert len(other["logistic, 15 more"]) == 2  # a class that one study lacks has its support alone


def test_types_and_cells_are_of_the_same_classes(world, monkeypatch):
    _, few, test, found = world
    from shared.studies.tmp import arms

    met, plain = [], arms.train
    monkeypatch.setattr(
        arms, "train", lambda nets, studies, *a, **k: met.extend(y for _, y in studies) or plain(nets, studies, *a, **k)
    )
    table = study.sizes(study.untuned(found), few, test, CONFIG, SEEDS, [(5, 15), (7, 15), (5, 25)])
    assert len(table) == 3 * 2 * 3 * 2 and {len(set(y)) for y in met} == {5, 7}
    assert set(met[0]) == set(met[-2]) and len(met[0]) == 75 and len(met[-2]) == 125
    got = study.of_each(table[table["init"] == "source"])
    at = table[table["init"] == "source"].groupby(["classes", "cells"])["accuracy"].mean()
    assert got["classes"].value == pytest.approx(at[7, 15] - at[5, 15])
    assert got["cells"].value == pytest.approx(at[5, 25] - at[5, 15])
    assert got["classes_cells"].value == pytest.approx(at[7, 15] - at[5, 25])


def test_three_types_are_enough_for_three_ways():
    few = made_study(6, 3)
    found = study.transfer(few, few, few, replace(CONFIG, pretrain_episodes=3, finetune_episodes=3), SEEDS, ["none"])
    assert found.results[Arm("none")][0].scores.shape == (8, 30, 3)
    assert study.interval(found.results[Arm("none")]).n == 2  # no class can be left out: over seeds


# Each claim, where it is false.


def planted(source, few, test, config=CONFIG, clamps=("all", "none")):
    return {"pair": study.transfer(source, few, test, config, SEEDS, clamps)}


def test_no_gain_is_claimed_where_there_is_none():
    """Labels of the target that say nothing: no pre-training, real or scrambled, can add accuracy."""
    few, test = made_study(1, world=1), made_study(2, world=1)
    few, test = ((X, np.random.default_rng(0).permutation(y)) for X, y in (few, test))
    got = study.summary(planted(made_study(0, 9), few, test, clamps=["all"]))
    assert got["least_gain"] < 0 and got["least_gain_scrambled"] < 0


def test_the_order_of_genes_and_an_unconstrained_gain_are_seen_where_they_are_real():
    """A source of the target's own types: it teaches them, in the order of the target's genes alone."""
    source, few, test = (made_study(s, world=1, noise=0.3) for s in (0, 1, 2))
    noise = np.random.default_rng(3).random((3, len(source[0]), 60)).astype(np.float32)  # genes that say nothing
    source, few, test = ((np.hstack([X, n]), y) for (X, y), n in zip((source, few, test), noise, strict=True))
    config = replace(CONFIG, pretrain_episodes=60, pretrain_lr=0.02, finetune_episodes=1)
    got = study.summary(planted(source, few, test, config))
    assert got["order_gain"].value > 0.15 and got["unconstrained_gain"].value > 0.05


def test_averages_lose_where_a_few_genes_tell_and_many_are_loud():
    """What the page claims of nearest centroid, on genes of which most say nothing, and say it loudly."""
    studies = [made_study(s, n_genes=12, world=1, noise=0.1) for s in (0, 1, 2)]
    loud = 4 * np.random.default_rng(3).standard_normal((3, len(studies[0][0]), 40)).astype(np.float32)
    studies = [(np.hstack([X, n]), y) for (X, y), n in zip(studies, loud, strict=True)]
    config = replace(CONFIG, pretrain_episodes=120, pretrain_lr=0.02)
    real = study.transfer(*studies, config, SEEDS, ["none"], rates=[0.002]).results[Arm("none", "source", 0.002)]
    centroid = study.heads(*studies[1:], config, SEEDS)["nearest centroid"]
    assert study.interval(centroid, real).low < 0


def test_the_summary_is_of_the_worst_and_of_the_mean(world):
    found = world[3]
    got, rows = study.summary({"a": found, "b": found}), study.differences(found.results)
    assert got["least_gain"] == min(rows["all", lr]["real_scratch"].low for lr in study.RATES)
    assert got["order_gain"].value == pytest.approx(
        np.mean([rows["all", lr]["real_scrambled"].value for lr in study.RATES])
    )
    only = Networks(found.nets, {a: r for a, r in found.results.items() if a.clamp != "none"})
    assert "unconstrained_gain" not in study.summary({"a": only})
    wide = study.pooled([Interval(0.1, 0.0, 0.2), Interval(0.3, 0.0, 0.6)])
    assert (wide.value, wide.low, wide.high) == (pytest.approx(0.2), 0.0, pytest.approx(0.4))


def test_the_spread_is_a_ratio_of_standard_deviations():
    class Result:
        def __init__(self, value):
            self.accuracy = np.array([value])

    values = np.random.default_rng(0).standard_normal(10)
    some = {
        Arm("all", init, lr): [Result(0.5 + scale * v) for v in values]
        for lr in study.RATES
        for init, scale in (("random", 0.06), ("source", 0.02))
    }
    got = study.spread({"a": some})
    assert got.value == pytest.approx(3) and got.low == pytest.approx(3) and got.n == 10
    some[Arm("all", "source", 0.02)] = [Result(0.5 + 0.02 * v) for v in values[::-1] ** 3]
    assert study.spread({"a": some}).low < study.spread({"a": some}).value


def test_a_study_without_its_files_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("BORROWED_MIRROR", str(tmp_path))
    with pytest.raises(DataError, match=r"tcga_11cancers_paired_1204.h5ad.*not in the folders of BORROWED_MIRROR"):
        study.mirrored()


# Real files.


@pytest.mark.slow
def test_tumours_and_islets_are_read_from_the_mirror(root, monkeypatch):
    folder = Path(os.environ.get("BORROWED_FIXTURES") or root.parent / "shared" / "data")
    if not folder.exists():
        pytest.skip("the real files are not here: set BORROWED_FIXTURES to their folder")
    monkeypatch.setenv("BORROWED_MIRROR", str(folder / "h5ad"))
    others = study.mirrored()
    assert list(others) == list(study.FILES) and others["tumours"].X.min() == -2
    blood = others["Xin"].copy()  # any target with two runs
    blood.obs["run"] = np.where(np.arange(blood.n_obs) % 2, "run1", "run2")
    lines = anndata.AnnData(others["tumours"].X, others["tumours"].obs.assign(subtype=others["tumours"].obs["kind"]))
    lines.var_names = others["tumours"].var_names
    found = study.pairs(lines, blood, others)
    pair = found["tumours to islets"]
    assert len(set(pair.source[1])) == 22 and set(pair.test[1]) == {"alpha", "beta", "delta"}
    assert 150 < pair.test[0].shape[1] < 600
    config = StudyConfig(eval_episodes=20)
    heads = study.heads(pair.few, pair.test, config, SEEDS)
    assert study.interval(heads["nearest centroid"]).value > 0.9
