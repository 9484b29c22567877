"""The same cells for every arm, values computed by hand, and claims that planted data refute."""

import functools
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "chapters"))

from chapter_rules import claim_holds

from book import notebooks
from shared.data import gene_table
from shared.data.errors import DataError
from shared.preprocess import log_normalize
from shared.studies import compare, run
from shared.studies import scpretrain as study
from shared.studies.leave_one_out import choose, folds
from shared.studies.scpretrain import data_sets, left_out, variants

TINY = {
    "cells_per_cluster": (30, 15, 60), "width": 8, "hidden": 8, "rounds": 1, "epochs": 3, "batches": 3, "lr": 1e-2,
    "fit_epochs": 15, "device": "cpu",
}  # fmt: skip
LOO = functools.partial(study.pretrained, config=TINY, n_genes=50, n_components=5)


@pytest.fixture(scope="module")
def made():
    return study.simulated(4, seed=1, n_cells=80, n_genes=60, labels=3, depth=300, effect=2.0)


@pytest.fixture(scope="module")
def parts(made):
    sets, studies, _ = made
    return folds(sets, studies)


@pytest.fixture(scope="module")
def learned(parts):
    return LOO(parts["A"][0], 0)


def test_simulated_sets_have_studies_and_an_organism(made):
    sets, studies, hashes = made
    assert studies == {"set 1": "A", "set 2": "A", "set 3": "study 2", "set 4": "study 3"} and not hashes
    assert [one.uns["organism"] for one in sets.values()] == ["human"] * 3 + ["mouse"]


def test_files_become_sets_of_studies(tmp_path, monkeypatch):
    """Doublets leave, rare types lose their names, depth is that of all genes, other files are passed over."""
    rng = np.random.default_rng(0)
    X = sparse.csr_matrix(rng.poisson(1.0, (60, 3)).astype(np.float32))
    obs = pd.DataFrame(
        {"cell_type": ["a"] * 30 + ["b"] * 25 + ["c"] * 5, "batch": ["x", "y"] * 30}, map(str, range(60))
    )
    genes = pd.DataFrame(index=["ACTB", "CD3D", "LYZ"])
    blood = ad.AnnData(X, obs.assign(n_counts_all_genes=1000.0), genes)
    lines = ad.AnnData(X, obs.assign(demuxlet_cls=["DBL"] * 10 + ["SNG"] * 50, batch="x"), genes)
    three, five = "pbmc_10x_3tech_1200", "cell_lines_sc_mixology_5batches"
    for name, one in {three: blood, five: lines, "other": lines}.items():
        one.write_h5ad(tmp_path / f"{name}.h5ad")
    with pytest.raises(DataError, match=f"{five}, .* are in no folder"):
        study.of_files([tmp_path / f"{three}.h5ad"])
    monkeypatch.setattr(data_sets, "FILES", {name: data_sets.FILES[name] for name in (three, five, "pbmc")})
    sets, studies, hashes = study.of_files(sorted(tmp_path.iterdir()), most=25)
    assert studies == {
        "Tian cell lines, x": "Tian", "10x Genomics blood, x": "10x Genomics", "10x Genomics blood, y": "10x Genomics",
    }  # fmt: skip
    assert set(hashes) == {three, five} and all(len(h) == 64 for h in hashes.values())
    assert [one.n_obs for one in sets.values()] == [25, 25, 25]
    kept = sets["10x Genomics blood, x"].obs
    assert (kept["total"] == 1000).all() and "c" not in set(kept["cell_type"].dropna())
    own = sets["Tian cell lines, x"]
    assert (own.obs["total"] == np.asarray(own.X.sum(1)).ravel()).all()


def test_the_catalogue_is_asked_for_whole_sets(made, capsys):
    def load(name, route):
        if name not in ("kang", "baron"):
            raise DataError(f"{name} is not here")
        one = made[0]["set 1"].copy()
        one.var_names = gene_table("orthologs")["human"].iloc[:60]
        return one

    _, studies = study.of_catalogue(load)
    assert set(studies.values()) == {"Kang", "Baron"} and "Baron baron" in studies
    assert "muraro is left out: muraro is not here" in capsys.readouterr().out


def test_own_depth_is_used_and_genes_are_laid_in_order(made):
    one = made[0]["set 1"]
    np.testing.assert_allclose(left_out.normalized(one).toarray(), log_normalize(one.X).toarray(), rtol=1e-5)
    genes = [one.var_names[3], "none", one.var_names[0]]
    got = left_out.normalized(one, genes).toarray()
    assert (got[:, 1] == 0).all()
    np.testing.assert_allclose(got[:, [0, 2]], log_normalize(one.X).toarray()[:, [3, 0]], rtol=1e-5)
    deep = one.copy()
    deep.obs["total"] *= 2
    assert left_out.normalized(deep).sum() < left_out.normalized(one).sum()


def test_genes_of_a_fold_are_those_of_the_other_studies(learned, parts):
    others, _ = parts["A"]
    assert learned.genes == left_out.widespread(others, 50) and learned.axes.shape == (50, 5)
    assert [*learned.encoder.pretrained_["labels"][0]] == [*others]


def test_pretrained_encoders_are_kept(parts, tmp_path, learned):
    again = [LOO(parts["A"][0], 0, keep=tmp_path) for _ in range(2)]
    assert len(list(tmp_path.iterdir())) == 1 and again[1].cpu > 0
    for one in again:
        np.testing.assert_array_equal(one.encoder.pretrained_["weight"], learned.encoder.pretrained_["weight"])
        assert one.encoder.checkpoint is None


def test_every_arm_meets_the_same_cells_and_small_sets_say_so(learned, parts, monkeypatch):
    seen = set()

    def spy(real, *args, **settings):
        seen.add(tuple(map(tuple, args[2:4])))
        return real(*args, **settings)

    for name in ("tuned_by", "read_by"):
        monkeypatch.setattr(left_out, name, functools.partial(spy, getattr(left_out, name)))
    values = {arm: some[:1] for arm, some in study.tries().items()}
    rows = pd.DataFrame(study.set_rows(learned, parts["A"][1], 0, values=values, budgets=(12, 24, 900), n_own=50))
    assert sorted(len(train) for train, _ in seen) == [12, 24], "two budgets, and sets of one size"
    assert len({test for _, test in seen}) == 1
    short = rows[rows["labels"] == 900]
    assert (short["arm"] == "").all() and short["accuracy"].isna().all() and (short["n_pool"] == 48).all()
    assert rows.groupby(["set", "labels"]).size().tolist() == [7, 7, 1] * 2
    assert len({*study.tries().values()}) == 2 and {len(v) for v in study.tries().values()} == {3}, "as many for each"


def test_the_protocol_heads_and_clusters_are_measured(learned, parts):
    rows = pd.DataFrame(study.set_rows(learned, parts["A"][1], 0, values={}, budgets=(), n_own=50, splits=2))
    assert rows.groupby("what").size().to_dict() == {"clusters": 8, "heads": 12, "protocol": 8}
    assert set(rows["split"].dropna()) == {0, 1}
    assert rows.loc[rows["what"] == "clusters", "ari"].between(-1, 1).all()


def test_embeddings_use_no_label(learned, made):
    one = made[0]["set 1"].copy()
    before = left_out.embeddings(learned, one, 0)
    one.obs["cell_type"] = one.obs["cell_type"].to_numpy()[::-1]
    for name, Z in left_out.embeddings(learned, one, 0).items():
        np.testing.assert_array_equal(Z, before[name])


def test_a_mouse_set_can_be_left_out_of_a_corpus_and_zero_rows_change_nothing_known(parts):
    others, own = parts["study 2"]
    rows = pd.DataFrame(study.variant_rows(others, own, 0, config=TINY, n_genes=40, labels=20, n_own=50))
    assert set(rows["arm"]) == {variants.BASE, variants.HUMAN, variants.ZERO, *study.VARIANTS}
    model = LOO(others, 0).encoder
    more = variants.with_zero_rows(model, [*model.pretrained_["genes"][:2], "new"])
    assert more.pretrained_["genes"][-1] == "new" and len(more.pretrained_["weight"]) == 51
    assert not more.pretrained_["weight"][-1].any()
    np.testing.assert_array_equal(more.transform(own["set 3"]), model.transform(own["set 3"]))


def test_the_corpora_of_the_leak_are_of_equal_size(parts, monkeypatch):
    sizes = []

    class Spy(variants.ScPretrain):
        def pretrain(self, corpus):
            sizes.append({name: X.shape[0] for name, X in corpus.matrices.items()})
            return super().pretrain(corpus)

    monkeypatch.setattr(variants, "ScPretrain", Spy)
    rows = study.leak_rows(*parts["study 2"], 0, config=TINY, n_genes=40, labels=10, n_own=50)
    assert sizes[0] == sizes[1] == sizes[2] and "added" in sizes[0]
    assert [row["arm"] for row in rows[::2]] == [*variants.LEAKS]
    assert study.leak_rows(*parts["study 2"], 0, config=TINY, n_genes=40, labels=20, n_own=50) == []


def test_one_set_a_study_and_organism(made):
    sets, studies, _ = made
    found = study.one_a_study(sets, studies, 50)
    assert list(found) == ["set 1", "set 3", "set 4"] and {one.n_obs for one in found.values()} == {50}


def measured(arm_values):
    """A table of gains that are known: set, split, arm, auprc."""
    rows = [
        {"set": s, "split": k, "arm": arm, "auprc": v}
        for s, arms in arm_values.items()
        for arm, some in arms.items()
        for k, v in enumerate(some)
    ]
    return pd.DataFrame(rows)


def test_verdicts_and_stability_by_hand():
    table = measured({
        "up": {"net": [0.9, 0.91, 0.9], "scratch": [0.5, 0.52, 0.5]},
        "down": {"net": [0.5, 0.5, 0.5], "scratch": [0.6, 0.61, 0.6]},
        "even": {"net": [0.5, 0.7, 0.6], "scratch": [0.6, 0.6, 0.6]},
        "same": {"net": [0.5, 0.6, 0.7], "scratch": [0.5, 0.6, 0.7]},
    })  # fmt: skip
    assert study.verdicts(table, "net", "scratch", "auprc") == {"better": 1, "comparable": 2, "worse": 1}
    assert study.verdicts(table, "scratch", "net", "auprc") == {"better": 1, "comparable": 2, "worse": 1}
    wide = table.pivot_table(index=["set", "split"], columns="arm", values="auprc")
    spread = wide["scratch"].groupby("set").var()
    gain = (wide["net"] - wide["scratch"]).groupby("set").mean()
    got = study.stability(table, "net", "scratch")
    assert got.value == pytest.approx(np.corrcoef(spread, gain)[0, 1]) and got.low < got.value < got.high


# Each claim fails on data where it is false, by the page's own functions.


@pytest.fixture(scope="module")
def claims():
    front = notebooks.front_matter(next(p for p in notebooks.pages(["scpretrain-study"], drafts=True)))
    return {claim["id"]: claim for claim in front["claims"]}


def fails(claim, found):
    entry = {"value": found.value, "low": found.low, "high": found.high}
    return bool(claim_holds(claim, {claim["metric"]: entry}))


@pytest.fixture(scope="module")
def told(made, parts):
    """Rows of folds whose encoders and components were told the types of the set that is left out: three directions."""
    rows, few = [], {arm: some[-1:] for arm, some in study.tries().items()}
    for name, (others, own) in parts.items():
        fold = LOO(others, 0)
        for key, adata in own.items():
            weak = adata.copy()
            mixed = np.random.default_rng(0).permuted(weak.X.toarray(), axis=0)
            weak.X = sparse.csr_matrix(np.where(np.arange(60) % 6 > 0, mixed, weak.X.toarray()))
            Z, y = left_out.normalized(weak, fold.genes).toarray(), weak.obs["cell_type"].to_numpy(str)
            axes = np.stack([Z[y == kind].mean(0) - Z.mean(0) for kind in np.unique(y)], 1)
            weight, one = np.zeros((50, 8), np.float32), fold.encoder
            weight[:, :3] = 3 * axes
            one.pretrained_ = one.pretrained_ | {"weight": weight, "bias": np.zeros(8, np.float32)}
            known = left_out.Learned(one, fold.genes, axes)
            made_rows = study.set_rows(known, {key: weak}, 0, values=few, budgets=(25,), n_own=60, splits=1)
            rows += [{"data": name, **row} for row in made_rows]
    return pd.DataFrame(rows)


def test_own_components_lose_to_encoders_that_were_told_the_types(told, made, claims):
    budget, clusters = (told[told["what"] == what] for what in ("budget", "clusters"))
    own = "own components, logistic"
    assert fails(claims["own"], study.gain(budget, made[1], own, "pre-trained"))
    assert fails(claims["need"], study.gain(budget, made[1], "corpus components, logistic", own))
    assert fails(claims["clusters"], study.gain(clusters, made[1], "own components", "pre-trained", "ari"))


def test_a_study_runs_from_folds_to_gains(made, parts):
    """Tuned by the other studies, measured, and compared over studies: as the page does it."""
    studies = made[1]
    values = {arm: study.tries()[arm][:2] for arm in ("from scratch", "genes, logistic")}
    tried = run(
        {"": LOO}, parts, [0], functools.partial(study.set_rows, values=values, budgets=(12,), n_own=50), unit="set"
    )
    tuned = choose(tried)
    assert set(tuned) == set(studies.values())
    rows = functools.partial(study.set_rows, values=tuned, studies=studies, budgets=(12, 900), n_own=50)
    table = run({"": LOO}, parts, [0], rows, unit="set")
    assert (
        not table.attrs["failed"]
        and table["value"].dropna().isin([*values["from scratch"], *values["genes, logistic"]]).all()
    )
    got = study.gain(table, studies, "genes, logistic", "from scratch")
    same = compare(table[table["arm"] != ""], "from scratch", "accuracy", groups=studies).loc["genes, logistic"]
    assert (got.value, got.low, got.n) == pytest.approx((same["difference"], same["low"], 3))
