"""The simulator: what it says it drew is in the data, wrong options are named, and it resembles real counts."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from shared import data
from shared.data import simulate
from shared.data.constraints import SettingError
from shared.data.errors import DataError
from shared.preprocess import log_normalize

MAKERS = {
    "cells": lambda **k: simulate.cells(60, 80, labels=3, n_batches=2, location=0.2, **k),
    "bulk": lambda **k: simulate.bulk(30, 40, labels=3, **k),
    "multiome": lambda **k: simulate.multiome(40, 50, 120, **k),
    "gaussian": lambda **k: simulate.gaussian(40, 30, **k),
    "modalities": lambda **k: simulate.modalities(40, 30, 50, **k),
}


@pytest.mark.parametrize("name", MAKERS)
def test_one_seed_same_data_and_always_called_simulated(name, tmp_path):
    one, two, other = MAKERS[name](seed=3), MAKERS[name](seed=3), MAKERS[name](seed=4)
    dense = [x.X.toarray() if sparse.issparse(x.X) else x.X for x in (one, two, other)]
    assert (dense[0] == dense[1]).all() and not (dense[0] == dense[2]).all()
    assert one.uns["simulated"] is True and one.uns["truth"] and one.X.dtype == np.float32
    one.write_h5ad(tmp_path / "x.h5ad")
    again = ad.read_h5ad(tmp_path / "x.h5ad")
    assert again.uns["simulated"] and again.shape == one.shape
    if one.uns["units"] == "counts":
        assert (dense[0] == dense[0].round()).all() and dense[0].min() == 0


def test_the_variance_is_the_stated_one():
    adata = simulate.cells(20_000, 60, labels=1, depth=3000, depth_sd=0, dispersion=0.5, seed=1)
    X = adata.X.toarray().astype(float)
    mean, variance = X.mean(0), X.var(0)
    high = mean > 2
    assert high.sum() > 20
    found = (variance[high] - mean[high]) / mean[high] ** 2
    assert np.median(found) == pytest.approx(0.5, abs=0.05)
    poisson = simulate.cells(20_000, 60, labels=1, depth=3000, depth_sd=0, dispersion=0, seed=1).X.toarray()
    assert np.median(poisson.var(0)[high] / poisson.mean(0)[high]) == pytest.approx(1, abs=0.05)


def test_the_means_are_the_rates():
    adata = simulate.cells(8000, 50, labels=2, depth=5000, depth_sd=0, dispersion=0.1, seed=2)
    truth = adata.uns["truth"]
    for t, name in enumerate(truth["names"]):
        rate = np.exp(truth["base"] + truth["types"][t])
        expected = 5000 * rate / rate.sum()
        found = np.asarray(adata.X[(adata.obs["cell_type"] == name).to_numpy()].mean(0)).ravel()
        high = expected > 5
        assert np.allclose(found[high], expected[high], rtol=0.06)


def test_depth():
    adata = simulate.cells(4000, 300, depth=1500, depth_sd=0.6, seed=0)
    depth = adata.obs["depth"].to_numpy()
    assert np.median(depth) == pytest.approx(1500, rel=0.05) and np.log(depth).std() == pytest.approx(0.6, abs=0.03)
    counted = np.asarray(adata.X.sum(1)).ravel()
    assert np.corrcoef(np.log(depth), np.log(counted))[0, 1] > 0.95


def test_no_batch_effect_unless_asked():
    def told(**effect):
        adata = simulate.cells(600, 300, labels=2, n_batches=2, depth=3000, seed=5, **effect)
        X = log_normalize(adata.X).toarray()
        half = np.arange(600) < 300
        batch = adata.obs["batch"].astype(str).to_numpy()
        return LogisticRegression(C=0.01, max_iter=500).fit(X[half], batch[half]).score(X[~half], batch[~half])

    assert told() < 0.6
    for effect in ("location", "gene_specific"):
        assert told(**{effect: 0.5}) > 0.9


def test_a_batch_can_stretch_the_types_apart():
    adata = simulate.cells(3000, 200, labels=2, n_batches=2, depth=5000, scale=0.5, seed=2)
    X, kind, batch = log_normalize(adata.X).toarray(), adata.obs["cell_type"], adata.obs["batch"]
    apart = [
        np.linalg.norm(np.subtract(*(X[((batch == b) & (kind == t)).to_numpy()].mean(0) for t in kind.cat.categories)))
        for b in ("batch1", "batch2")
    ]
    stretch = 1 + adata.uns["truth"]["stretch"]
    assert (
        apart[0] / apart[1] == pytest.approx(stretch[0] / stretch[1], rel=0.15) and abs(stretch[0] - stretch[1]) > 0.1
    )


def test_composition_and_confounding_are_what_was_asked():
    def table(**options):
        adata = simulate.cells(6000, 5, labels=4, n_batches=2, seed=1, **options)
        import pandas as pd

        return pd.crosstab(adata.obs["batch"], adata.obs["cell_type"], normalize="index").to_numpy()

    assert np.abs(table() - 0.25).max() < 0.03
    assert np.abs(table(composition=1.0)[0] - table(composition=1.0)[1]).max() > 0.1
    tied = table(confounding=1.0)
    assert ((tied > 0).sum(0) == 1).all(), "a type stands in both batches"
    half = table(confounding=0.5)
    assert (half > 0.05).all() and np.abs(half[0] - half[1]).max() > 0.1


def test_types_can_be_found_and_named():
    adata = simulate.cells(400, 500, labels=["T", "B"], seed=0)
    assert set(adata.obs["cell_type"]) == {"T", "B"} and adata.var_names[0] == "SIM00001"
    X, y = log_normalize(adata.X).toarray(), adata.obs["cell_type"].astype(str).to_numpy()
    assert LogisticRegression(C=0.1, max_iter=500).fit(X[:200], y[:200]).score(X[200:], y[200:]) > 0.95


def test_a_corpus_shares_its_programmes():
    sets = list(simulate.many(4, n_cells=50, n_genes=60, labels=3, location=0.1, seed=2))
    assert len(sets) == 4 and len({a.obs["batch"].iloc[0] for a in sets}) == 4
    assert all((a.uns["truth"]["types"] == sets[0].uns["truth"]["types"]).all() for a in sets)
    assert (sets[0].X != sets[1].X).nnz > 0
    assert len(set(sets[0].obs_names) | set(sets[1].obs_names)) == 100


def test_bulk_mixtures_and_units():
    log = simulate.bulk(80, 100, labels=3, purity=0.7, seed=1)
    tpm = simulate.bulk(80, 100, labels=3, purity=0.7, units="tpm", seed=1)
    counts = simulate.bulk(80, 100, labels=3, purity=0.7, units="counts", seed=1)
    assert np.allclose(tpm.X.sum(1), 1e6, rtol=1e-4) and np.allclose(log.X, np.log2(1 + tpm.X), atol=1e-3)
    assert np.allclose(counts.X / counts.uns["truth"]["lengths"], 0) is False
    rate = counts.X / counts.uns["truth"]["lengths"]
    assert np.allclose(1e6 * rate / rate.sum(1, keepdims=True), tpm.X, rtol=1e-3, atol=1e-2)
    mixture = log.obsm["mixture"]
    own = [mixture[i, log.uns["truth"]["names"].index(t)] for i, t in enumerate(log.obs["cell_type"])]
    assert np.allclose(mixture.sum(1), 1) and min(own) >= 0.7


def test_peaks_follow_their_genes():
    adata = simulate.multiome(3000, 40, 200, labels=3, open_share=0.2, seed=1)
    atac, links = adata.obsm["atac"], adata.uns["truth"]["links"]
    assert set(np.unique(atac.data)) == {1.0} and (np.bincount(links[links >= 0]) == 2).all()
    truth = adata.uns["truth"]
    kind = np.array([truth["names"].index(t) for t in adata.obs["cell_type"]])
    opened = np.stack([np.asarray(atac[kind == t].mean(0)).ravel() for t in range(3)])
    tied = links >= 0
    follows = np.corrcoef(
        (opened - opened.mean(0))[:, tied].ravel(),
        (truth["types"] - truth["types"].mean(0))[:, links[tied]].ravel(),
    )[0, 1]
    assert follows > 0.7 and np.abs((opened - opened.mean(0))[:, ~tied]).max() < 0.1


# Beside real counts.


@pytest.fixture(scope="module")
def blood():
    real = data.load("pbmc")
    return real[:, np.asarray(real.X.sum(0)).ravel() > 0].copy()


def test_it_resembles_real_counts_and_a_bad_simulator_does_not(blood):
    found = simulate.compare(blood, simulate.like(blood, seed=1))
    assert (found["distance"] < [0.15, 0.05, 0.005, 0.03, 0.05]).all(), found
    mean = np.asarray(blood.X.mean(0)).ravel()
    counts = np.random.default_rng(0).poisson(np.tile(mean, (blood.n_obs, 1))).astype(np.float32)
    naive = ad.AnnData(sparse.csr_matrix(counts), obs=blood.obs[[]], var=blood.var[[]])
    bad = simulate.compare(blood, naive)
    for what in ("variance", "zeros", "depth", "correlation"):
        assert bad.loc[what, "distance"] > 2 * found.loc[what, "distance"] and bad.loc[what, "distance"] > 0.025


def test_like_takes_any_number_of_cells(blood):
    few = simulate.like(blood, 40, seed=2)
    assert few.shape == (40, blood.n_vars) and list(few.var_names) == list(blood.var_names)
    assert set(few.obs["cell_type"]) <= set(blood.obs["cell_type"])


# What is refused.


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: simulate.gaussian(0), "n_cells=0 is not a whole number"),
        (lambda: simulate.gaussian(5, 5, shift=-1), "shift=-1"),
        (lambda: simulate.modalities(0), "n_rna=0"),
        (lambda: simulate.modalities(5, 5, 5, swapped=2), "swapped=2"),
        (lambda: simulate.modalities(5, 5, 5, noise=1), "noise=1"),
        (lambda: simulate.modalities(5, 5, 5, missing=["no such type"]), "name types of proportions"),
        (lambda: simulate.modalities(5, 5, 5, proportions={"a": 1, "b": 1}, missing=["b"]), "keep two"),
        (lambda: simulate.modalities(5, 5, 5, proportions={"a": 1, "b": -1}), "proportions of b"),
        (lambda: simulate.cells(0), "n_cells=0 is not a whole number"),
        (lambda: simulate.cells(5, 5, depth=-1), "depth=-1 is not a positive number"),
        (lambda: simulate.cells(5, 5, dispersion=float("nan")), "dispersion=nan"),
        (lambda: simulate.cells(5, 5, confounding=1.5), "confounding=1.5 is not a number from 0 to 1"),
        (lambda: simulate.cells(5, 5, labels=["a", "a"]), "different names"),
        (lambda: simulate.cells(5, 5, labels=0), "give different names, at least one"),
        (lambda: simulate.cells(5, 5, programmes=simulate.cells(5, 6).uns["truth"]), "asked are 6 × 5"),
        (lambda: simulate.bulk(5, 5, units="rpkm"), "units='rpkm' is not known"),
        (lambda: simulate.like(ad.AnnData(np.full((3, 2), 0.5, np.float32))), "looks logged already"),
        (lambda: simulate.like(ad.AnnData(np.full((3, 2), 30.5, np.float32))), "needs counts"),
        (lambda: simulate.like(ad.AnnData(np.zeros((3, 2), np.float32))), "3 cells have no count"),
        (lambda: simulate.compare(simulate.cells(5, 5), simulate.cells(5, 6)), "different genes"),
        (lambda: list(simulate.many(0)), "n_sets=0"),
        (lambda: simulate.cells(5, 5, labels="ab"), "labels should be a list of names, not str"),
        (lambda: simulate.cells(5, 5, programmes={"base": np.ones(5)}), "programmes lack types"),
        (lambda: simulate.cells(5, 5, seed=-1), "seed=-1 is not a whole number"),
        (lambda: simulate.bulk(5, 5, seed=1.5), "seed=1.5"),
        (lambda: list(simulate.many(1, seed="x")), "seed='x'"),
        (lambda: simulate.like(simulate.cells(5, 5), seed=None), "seed=None"),
        (lambda: simulate.like(None), "the counts is no matrix"),
        (lambda: simulate.domains(simulate.cells(9, 5), seed=-1), "seed=-1"),
    ],
)
def test_impossible_options_are_named(call, says):
    with pytest.raises((DataError, SettingError), match=says):
        call()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 40), g=st.integers(1, 30), labels=st.integers(1, 5), n_batches=st.integers(1, 4),
    dispersion=st.sampled_from([0, 1e-9, 0.3, 5]), depth=st.sampled_from([1, 50, 1e4]),
    confounding=st.floats(0, 1), composition=st.floats(0, 1), seed=st.integers(0, 99),
)  # fmt: skip
def test_any_possible_options_give_counts(n, g, **options):
    adata = simulate.cells(n, g, **options)
    X = adata.X.toarray()
    assert X.shape == (n, g) and np.isfinite(X).all() and X.min() >= 0 and (X.round() == X).all()
    assert np.allclose(adata.uns["truth"]["proportions"].sum(1), 1)


def test_gaussian_batches_are_projections_of_a_plane_and_a_shift():
    adata = simulate.gaussian(3000, 20, n_batches=3, seed=1)
    truth, batch = adata.uns["truth"], adata.obs["batch"].cat.codes.to_numpy()
    rest = adata.X - adata.obsm["plane"] @ truth["projection"] - truth["shift"][batch]
    assert abs(rest.mean()) < 0.02 and rest.std() == pytest.approx(1, abs=0.02), "noise of deviation 1"
    assert (truth["shift"][0] == 0).all() and (truth["shift"][1:] != 0).all()
    found = pd.crosstab(adata.obs["batch"], adata.obs["cell_type"], normalize="index")[list(simulate.NAMES[:4])]
    assert np.allclose(found, truth["proportions"], atol=0.04)
    means = adata.to_df().assign(x=adata.obsm["plane"][:, 0]).groupby(adata.obs["cell_type"], observed=True)["x"].mean()
    assert np.allclose(means[list(simulate.NAMES[:4])], [0, 5, 5, 0], atol=0.1)


def frequencies(adata, kind, name):
    rows = (adata.obs["modality"] == kind) & (adata.obs["cell_type"] == name)
    return np.asarray(adata.X[rows.to_numpy()].mean(0)).ravel()


def test_modalities_share_programmes_but_for_the_swapped_genes():
    """How often a gene is on in one type more than in another goes along in both modalities, unless it is swapped."""
    adata = simulate.modalities(4000, 4000, 600, proportions={"a": 1, "b": 1}, swapped=0.3, seed=1)
    truth, gap = adata.uns["truth"], {}
    for kind in ("rna", "atac"):
        gap[kind] = frequencies(adata, kind, "a") - frequencies(adata, kind, "b")
    assert truth["swapped"].sum() == 180
    together = {
        s: np.corrcoef(gap["rna"][truth["swapped"] == s], gap["atac"][truth["swapped"] == s])[0, 1] for s in (0, 1)
    }
    assert together[0] > 0.5 and abs(together[1]) < 0.2
    assert np.allclose(truth["programmes"][1][:, ~truth["swapped"]], 0.5 * truth["programmes"][0][:, ~truth["swapped"]])
    density = {kind: adata.X[(adata.obs["modality"] == kind).to_numpy()].mean() for kind in ("rna", "atac")}
    assert density["rna"] == pytest.approx(0.15, abs=0.03) and density["atac"] == pytest.approx(0.25, abs=0.04)


def test_the_dials_of_modalities():
    few = {"n_rna": 600, "n_atac": 600, "n_genes": 200, "seed": 1}
    is_atac = np.arange(1200) >= 600
    plain, deep = simulate.modalities(**few), simulate.modalities(**few, depth=1.0)
    assert deep.X[is_atac].mean() > plain.X[is_atac].mean() + 0.05 and (deep.X[~is_atac] != plain.X[~is_atac]).nnz == 0
    lacking = simulate.modalities(**few, missing=["B cells"]).obs
    seen = {kind: set(lacking["cell_type"][lacking["modality"] == kind]) for kind in ("rna", "atac")}
    assert "B cells" in seen["atac"] - seen["rna"]
    weak = simulate.modalities(**few, noise=0.9).uns["truth"]["programmes"]
    assert np.abs(weak[1]).sum() == pytest.approx(0.1 * np.abs(weak[0]).sum())
    assert (simulate.modalities(**few).obs["domain"] == np.where(is_atac, -1, 1)).all()


# Two domains.


@pytest.fixture(scope="module")
def types():
    adata = simulate.cells(4000, 60, labels=3, effect=2.0, seed=0)
    adata.X = log_normalize(adata.X)
    return adata


def test_without_a_dial_domains_are_drawn_by_lot(types):
    cells = simulate.domains(types, seed=1)
    assert set(cells.obs["domain"]) == {1, -1} and not cells.obs["log_odds"].any()
    assert (cells.obs["domain"] == 1).mean() == pytest.approx(0.5, abs=0.03)
    assert cells.obs["cell_type"].tolist() == types.obs["cell_type"].tolist() and "domain" not in types.obs
    again, other = simulate.domains(types, seed=1), simulate.domains(types, seed=2)
    assert again.obs.equals(cells.obs) and not other.obs.equals(cells.obs)
    assert cells.uns["shift"] == {"covariate": 0.0, "prior": 0.0, "concept": 0.0}


def test_covariate_shift_changes_what_is_seen_and_not_what_it_means(types):
    """Among cells of one expression, types are as frequent in both domains; how frequent cells are is as was said."""
    along = np.asarray(types.X[:, 0].todense()).ravel() + np.random.default_rng(0).normal(size=types.n_obs)
    cells = simulate.domains(types, covariate=1.5, along=along, seed=1)
    z, target = (along - along.mean()) / along.std(), (cells.obs["domain"] < 0).to_numpy()
    kind = cells.obs["cell_type"].to_numpy()
    bins = np.digitize(z, np.quantile(z, np.linspace(0, 1, 11)[1:-1]))
    apart = [
        abs((kind[(bins == b) & target] == "Alpha").mean() - (kind[(bins == b) & ~target] == "Alpha").mean())
        for b in range(10)
    ]
    assert np.mean(apart) < 0.08 and z[target].mean() - z[~target].mean() > 0.8
    assert np.allclose(cells.obs["log_odds"], 1.5 * z)
    fitted = LogisticRegression(C=1e6).fit(z[:, None], target)
    assert fitted.coef_[0, 0] == pytest.approx(1.5, abs=0.15)
    first = simulate.domains(types, covariate=2.0, seed=1).obs["log_odds"].to_numpy()
    assert first.mean() == pytest.approx(0, abs=1e-6) and first.std() == pytest.approx(2)


def test_label_shift_changes_shares_and_not_the_cells_of_a_type(types):
    cells = simulate.domains(types, prior=1.5, seed=1)
    target = (cells.obs["domain"] < 0).to_numpy()
    shares = cells.obs.groupby("cell_type", observed=True)["domain"].apply(lambda d: (d < 0).mean())
    chance = 1 / (1 + np.exp(-1.5))
    assert shares.tolist() == pytest.approx([chance, 1 - chance, chance], abs=0.03)
    X, kind = types.X.toarray(), cells.obs["cell_type"].to_numpy()
    for name in np.unique(kind):
        a, b = X[(kind == name) & target], X[(kind == name) & ~target]
        away = (a.mean(0) - b.mean(0)) / np.sqrt(a.var(0) / len(a) + b.var(0) / len(b) + 1e-12)
        assert np.abs(away).max() < 4.5, "of 60 genes"


def test_concept_shift_changes_names_and_no_cell(types):
    plain, cells, some = (simulate.domains(types, concept=c, seed=1) for c in (0.0, 1.0, 0.5))
    assert plain.obs["domain"].equals(cells.obs["domain"]) and (plain.X != cells.X).nnz == 0
    target, before = (cells.obs["domain"] < 0).to_numpy(), plain.obs["cell_type"].to_numpy()
    swapped = pd.Series(before).replace({"Alpha": "Beta", "Beta": "Alpha"}).to_numpy()
    assert np.array_equal(cells.obs["cell_type"].to_numpy(), np.where(target, swapped, before))
    two = target & (before != "Gamma")
    assert (some.obs["cell_type"].to_numpy() != before)[two].mean() == pytest.approx(0.5, abs=0.05)


def test_domains_that_cannot_be_drawn_are_refused(types):
    for wrong in ({"covariate": -1}, {"prior": np.inf}, {"concept": 1.2}):
        with pytest.raises(SettingError, match=next(iter(wrong))):
            simulate.domains(types, **wrong)
    with pytest.raises(DataError, match="label="):
        simulate.domains(types, "no such column")
    with pytest.raises(DataError, match="1 types cannot shift"):
        simulate.domains(types[types.obs["cell_type"] == "Alpha"])
    for along in (np.ones(4000), np.arange(5.0), np.full(4000, np.nan)):
        with pytest.raises(DataError, match="a finite number a cell"):
            simulate.domains(types, covariate=1, along=along)
