"""Counts, zeros, shares of variance, designs and correction, each against an oracle."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import sparse

from shared.methods import expression_data as ed


def two_by_two(n=40, genes=30, batch_shift=1.0, label_shift=1.0, seed=0):
    """Balanced: every batch holds every label equally often; half the genes answer to each."""
    rng = np.random.default_rng(seed)
    batch, label = np.repeat(["a", "b"], n // 2), np.tile(["x", "y"], n // 2)
    X = rng.normal(size=(n, genes))
    X[:, : genes // 2] += batch_shift * (batch == "b")[:, None]
    X[:, genes // 2 :] += label_shift * (label == "y")[:, None]
    return X, batch, label


# --- scaling ---------------------------------------------------------------------------------------------------------


def test_cpm_undoes_depth_and_tpm_length_too():
    molecules = np.array([[10, 20, 30.0]])
    lengths = np.array([500, 1000, 4000])
    reads = molecules * lengths
    assert_allclose(ed.cpm(reads * 7), ed.cpm(reads))
    assert_allclose(ed.tpm(reads * 7, lengths), molecules / 60 * 1e6)
    assert not np.allclose(ed.cpm(reads), molecules / 60 * 1e6)
    assert_allclose(ed.cpm(reads, 1e4).sum(), 1e4)


# --- zeros -----------------------------------------------------------------------------------------------------------


def drawn(n=600, genes=50, phi=0.0, seed=0):
    """Counts of cells with very different depths, Poisson or negative binomial."""
    rng = np.random.default_rng(seed)
    depth, share = rng.lognormal(6, 0.6, n), rng.dirichlet(np.ones(genes))
    mean = np.outer(depth, share)
    rate = mean * (rng.gamma(1 / phi, phi, mean.shape) if phi else 1)
    return rng.poisson(rate).astype(np.float32)


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix])
def test_zeros_of_counting_are_expected(kind):
    counts = drawn()
    absent = (counts == 0).mean(0)
    assert abs((absent - ed.expected_zeros(kind(counts))).mean()) < 0.005
    assert ed.dispersion(kind(counts)).mean() < 0.02


def test_dispersion_is_found_and_explains_the_zeros():
    counts = drawn(n=4000, phi=0.8)
    spread = ed.dispersion(counts)
    mean = counts.mean(0)
    assert abs(np.median(spread[mean > 1]) - 0.8) < 0.12
    absent = (counts == 0).mean(0)
    assert (absent - ed.expected_zeros(counts)).mean() > 0.03
    assert abs((absent - ed.expected_zeros(counts, spread)).mean()) < 0.01


def test_expected_zeros_are_the_textbook_formulas():
    counts = np.array([[3, 1, 0], [0, 6, 2.0]])
    mean = np.outer([4, 8], counts.sum(0) / 12)
    assert_allclose(ed.expected_zeros(counts), np.exp(-mean).mean(0), atol=1e-9)
    assert_allclose(ed.expected_zeros(counts, 0.5), ((1 + 0.5 * mean) ** -2).mean(0), atol=1e-12)


def test_zero_table_leaves_out_what_is_never_seen():
    counts = drawn(genes=20)
    counts[:, 4] = 0
    table = ed.zero_table(sparse.csr_matrix(counts))
    assert 4 not in table.index and len(table) == ((counts > 0).any(0)).sum()
    assert_allclose(table["observed"], (counts[:, table.index] == 0).mean(0), atol=1e-12)
    assert (table["negative binomial"] >= table["Poisson"] - 1e-9).all()


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        (np.array([[1.0, -1]]), "negative"),
        (np.array([[0.0, 0], [1, 2]]), "1 cells have no count"),
        (np.array([[np.nan, 1]]), "NaN"),
        (np.ones(3), "shape"),
        (np.ones((0, 3)), "shape"),
    ],
)
def test_bad_counts_are_refused_with_the_cure(counts, words):
    for reads in (ed.expected_zeros, ed.dispersion, ed.zero_table):
        with pytest.raises(ed.DataError, match=words):
            reads(counts)


def test_a_negative_dispersion_is_refused():
    with pytest.raises(ed.DataError, match="dispersion"):
        ed.expected_zeros(np.ones((2, 2)), -0.1)


# --- whose variance --------------------------------------------------------------------------------------------------


def test_explained_is_the_ratio_of_sums_of_squares():
    X, batch, label = two_by_two()
    table = pd.DataFrame(X - X.mean(0))
    between = (table.groupby(batch).transform("mean") ** 2).to_numpy().sum()
    assert_allclose(ed.explained(X, batch), between / (table.to_numpy() ** 2).sum())
    cells = pd.get_dummies(pd.DataFrame({"b": batch, "l": label}), drop_first=True).assign(one=1).to_numpy(float)
    rest = X - cells @ np.linalg.lstsq(cells, X, rcond=None)[0]
    assert_allclose(ed.explained(X, batch, label), 1 - (rest**2).sum() / ((X - X.mean(0)) ** 2).sum())


def test_a_balanced_design_shares_nothing_and_a_confounded_one_everything():
    X, batch, label = two_by_two()
    part = ed.batch_share(X, batch, label)
    assert_allclose(part.sum(), 1)
    assert abs(part["shared"]) < 1e-12 and part["batch"] > 0.03 and part["label"] > 0.03
    same = ed.batch_share(X, batch, np.where(batch == "a", "x", "y"))
    assert abs(same["batch"]) < 1e-12 and abs(same["label"]) < 1e-12
    assert_allclose(same["shared"], ed.explained(X, batch))


def test_random_batches_explain_what_chance_does():
    X, batch, label = two_by_two(n=200)
    shuffled = np.random.default_rng(1).permutation(batch)
    assert ed.batch_share(X, shuffled, label)["batch"] < 3 / 200


def test_batch_share_takes_sparse_and_components():
    X, batch, label = two_by_two()
    X = np.maximum(X, 0)
    pd.testing.assert_series_equal(ed.batch_share(sparse.csr_matrix(X), batch, label), ed.batch_share(X, batch, label))
    few = ed.batch_share(X, batch, label, components=3)
    assert few["rest"] < ed.batch_share(X, batch, label)["rest"]


def test_batch_share_refuses_what_has_no_answer():
    X, batch, label = two_by_two()
    with pytest.raises(ed.DataError, match="no gene varies"):
        ed.batch_share(np.ones_like(X), batch, label)
    with pytest.raises(ed.DataError, match="1 cells have no batch"):
        ed.batch_share(X, [None, *batch[1:]], label)
    with pytest.raises(ed.DataError, match="give one label a cell"):
        ed.batch_share(X, batch, label[1:])


# --- designs ---------------------------------------------------------------------------------------------------------


def test_cramers_v_is_scipys():
    from scipy.stats.contingency import association

    rng = np.random.default_rng(2)
    batch, label = rng.integers(0, 3, 90).astype(str), rng.integers(0, 4, 90).astype(str)
    found = ed.confounding(batch, label)
    assert_allclose(found.cramers_v, association(found.table, method="cramer"))


def test_a_chain_of_batches_makes_contrasts_estimable():
    """x and z never meet, but y meets both; w stands alone."""
    batch, label = list("112233"), list("xyyzww")
    found = ed.confounding(batch, label)
    assert found.contrasts.loc[("x", "z"), "direct"] == 0 and found.contrasts.loc[("x", "z"), "estimable"]
    assert found.contrasts.loc[("x", "y"), "direct"] == 1
    assert not found.contrasts.loc[("w", "x"), "estimable"]
    assert found.informative == 4 and found.summary()["contrasts estimable"] == "3 of 6"
    assert "3 of 6 contrasts" in str(found)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=25))
def test_estimable_is_what_linear_algebra_says(pairs):
    batch, label = (np.array(v).astype(str) for v in zip(*pairs, strict=True))
    found = ed.confounding(batch, label)
    names = found.table.columns
    design = np.hstack([batch[:, None] == found.table.index.to_numpy(), label[:, None] == names.to_numpy()]).astype(
        float
    )
    for (a, b), row in found.contrasts.iterrows():
        contrast = np.zeros(design.shape[1])
        contrast[len(found.table) + names.get_loc(a)], contrast[len(found.table) + names.get_loc(b)] = 1, -1
        within = np.linalg.matrix_rank(np.vstack([design, contrast])) == np.linalg.matrix_rank(design)
        assert row["estimable"] == within
    assert -1e-9 <= found.cramers_v <= 1 + 1e-9


def test_one_label_has_no_contrast():
    found = ed.confounding(["1", "2"], ["x", "x"])
    assert found.cramers_v == 0 and len(found.contrasts) == 0 and found.informative == 0
    with pytest.raises(ed.DataError, match="no cells"):
        ed.confounding([], [])


# --- correction ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protect", [False, True])
def test_correct_is_scanpys_combat(protect):
    sc = pytest.importorskip("scanpy")
    import anndata as ad

    X, batch, label = two_by_two(n=60)
    X *= np.linspace(0.5, 2, X.shape[1])
    obs = pd.DataFrame({"batch": pd.Categorical(batch), "y": (label == "y").astype(float)}, index=map(str, range(60)))
    theirs = sc.pp.combat(
        ad.AnnData(X.copy(), obs=obs), key="batch", inplace=False, covariates=["y"] if protect else None
    )
    assert_allclose(ed.correct(X, batch, keep=label if protect else None), theirs, atol=2e-3)


def test_correction_takes_the_batch_and_leaves_the_label_when_balanced():
    X, batch, label = two_by_two(n=200, batch_shift=3)
    part = ed.batch_share(ed.correct(X, batch), batch, label)
    assert part["batch"] < 0.002 and part["label"] > 0.08


def test_without_shrinking_every_gene_gets_its_own_mean_and_spread():
    X, batch, _ = two_by_two(n=60, batch_shift=2)
    X[batch == "b"] *= 3
    out = ed.correct(X, batch, shrink=False)
    first, second = out[batch == "a"], out[batch == "b"]
    assert_allclose(first.mean(0), second.mean(0), atol=1e-9)
    assert_allclose(first.std(0), second.std(0), rtol=1e-6)


def test_keeping_labels_that_mean_nothing_invents_a_difference():
    from scipy.stats import ttest_ind

    batch = np.repeat(["a", "b", "c"], [20, 18, 6])
    label = np.r_[["x"] * 18, ["y"] * 2, ["x"] * 2, ["y"] * 16, ["y"] * 6]

    def false(keep):
        found = []
        for s in range(10):
            noise = ed.correct(np.random.default_rng(s).normal(size=(44, 300)), batch, keep=keep)
            found.append((ttest_ind(noise[label == "x"], noise[label == "y"]).pvalue < 0.05).mean())
        return np.mean(found)

    assert false(label) > 0.15
    assert false(None) < 0.06


def test_a_confounded_protection_and_a_lone_cell_are_refused():
    X, batch, _ = two_by_two()
    with pytest.raises(ed.DataError, match="cannot be told from batches"):
        ed.correct(X, batch, keep=np.where(batch == "a", "x", "y"))
    with pytest.raises(ed.DataError, match="two batches or more"):
        ed.correct(X, ["a"] * 39 + ["b"])
    with pytest.raises(ed.DataError, match="two batches or more"):
        ed.correct(X, ["a"] * 40)


def test_a_constant_gene_and_the_input_stay_as_they_are():
    X, batch, _ = two_by_two()
    X[:, 3] = 2.5
    before = X.copy()
    out = ed.correct(X, batch)
    assert_allclose(out[:, 3], 2.5)
    assert np.isfinite(out).all() and (before == X).all()


# --- bulk and names --------------------------------------------------------------------------------------------------


def test_pseudobulk_sums_by_group():
    counts, group = drawn(n=30, genes=7), np.array(list("abc") * 10)
    made = ed.pseudobulk(sparse.csr_matrix(counts), group)
    assert list(made.index) == ["a", "b", "c"]
    assert_allclose(made.loc["b"], counts[group == "b"].sum(0))
    assert_allclose(made, ed.pseudobulk(counts, group))


def test_surviving_counts_genes_and_weight_one_step_after_the_other():
    left = ed.surviving(["A", "B", "C", "D"], {"one": {"A", "B", "C"}, "two": ["A", "D"]}, [1, 2, 0, 5])
    assert_allclose(left.loc["one", ["genes", "weight"]].astype(float), [2 / 3, 3 / 8])
    assert_allclose(left.loc["two", ["genes", "weight"]].astype(float), [1 / 3, 1 / 8])
    assert left.loc["two", "n"] == 1
    assert ed.surviving(["A", "B"], {"one": ["B"]}).loc["one", "genes"] == 0.5
    for weight in ([1], [0, 0], [1, -1], [1, np.nan]):
        with pytest.raises(ed.DataError, match="weight"):
            ed.surviving(["A", "B"], {"one": ["A"]}, weight)
