"""Normalising, choosing genes, centring, aligning: sparse equals dense, nothing changes in place, scanpy agrees."""

import itertools
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse
from sklearn.pipeline import make_pipeline

from shared import preprocess
from shared.data import Corpus, check, from_arrays, load
from shared.data.constraints import SettingError
from shared.data.errors import DataError, DataWarning
from shared.data.genes.translate import merge_duplicates
from shared.methods.expression_data import pseudobulk
from shared.preprocess import LogNormalize, VariableGenes, align_genes, center_by, log_normalize

COUNTS = hnp.arrays(np.float32, st.tuples(st.integers(2, 12), st.integers(2, 9)), elements=st.integers(0, 500)).map(
    lambda x: x + np.eye(*x.shape, dtype=np.float32) + (np.arange(x.shape[1]) == 0)
)


@pytest.fixture(scope="module")
def pbmc():
    return load("pbmc")


@pytest.fixture(scope="module")
def logged(pbmc):
    return log_normalize(pbmc.X)


def dense(X):
    return X.toarray() if sparse.issparse(X) else X


@given(COUNTS)
def test_log_normalize_undone_gives_the_target_sum(X):
    before = X.copy()
    got = log_normalize(X)
    assert got.dtype == np.float32 and np.allclose(np.expm1(got.astype(float)).sum(1), 1e4, rtol=1e-4)
    assert (before == X).all()
    assert np.array_equal(dense(log_normalize(sparse.csr_matrix(X))), got)


@given(COUNTS, st.randoms(use_true_random=False))
def test_log_normalize_treats_each_cell_by_itself(X, random):
    order = list(range(len(X)))
    random.shuffle(order)
    assert np.array_equal(log_normalize(X[order]), log_normalize(X)[order])
    assert np.array_equal(log_normalize(X[:1]), log_normalize(X)[:1])


def test_an_entry_stored_in_two_parts_counts_once():
    parts = sparse.csr_matrix((np.array([1, 2, 5], np.float32), np.array([0, 0, 1]), np.array([0, 3])), shape=(1, 2))
    assert np.array_equal(log_normalize(parts).toarray(), log_normalize(parts.toarray()))
    assert parts.nnz == 3


@settings(deadline=None)
@given(COUNTS, st.sampled_from(["seurat", "variance"]), st.randoms(use_true_random=False))
def test_order_of_cells_does_not_matter(X, flavor, random):
    X, order = log_normalize(X), list(range(len(X)))
    random.shuffle(order)
    groups = np.arange(len(X)) % 2
    before = X.copy()
    scores = [VariableGenes(3, flavor).fit(x).scores_ for x in (X, X[order])]
    assert np.allclose(*scores, rtol=1e-6, atol=1e-7, equal_nan=True)
    assert np.allclose(center_by(X[order], groups[order]), center_by(X, groups)[order], atol=1e-5)
    assert np.array_equal(X, before)


@pytest.mark.parametrize(
    "X",
    [
        [[0.7, 0.7], [1.4, 0.7], [0.7, 1.4]],  # means that differ in the last digit only
        [[0.7, 2.8], [1.4, 0.7], [2.8, 1.4]],  # dispersions that do
    ],
)
def test_genes_with_the_same_values_score_the_same_in_any_order_of_cells(X):
    for order in itertools.permutations(X):
        first, second = VariableGenes(1).fit(np.array(order, np.float32)).scores_
        assert np.isclose(first, second, equal_nan=True)


def test_log_normalize_agrees_with_scanpy(pbmc, logged):
    import scanpy as sc

    reference = ad.AnnData(pbmc.X.copy())
    sc.pp.normalize_total(reference, target_sum=1e4)
    sc.pp.log1p(reference)
    assert abs(reference.X - logged).max() < 1e-5


@pytest.mark.parametrize("flavor_n", [500, 2000])
def test_variable_genes_agree_with_scanpy(logged, flavor_n):
    import scanpy as sc

    reference = ad.AnnData(logged.copy())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sc.pp.highly_variable_genes(reference, n_top_genes=flavor_n, flavor="seurat")
    ours = VariableGenes(flavor_n).fit(logged).get_support()
    assert ours.sum() == flavor_n
    assert (ours == reference.var["highly_variable"].to_numpy()).mean() > 0.999


@settings(deadline=None)
@given(COUNTS, st.sampled_from(["seurat", "variance"]))
def test_variable_genes_same_for_sparse_and_dense(X, flavor):
    X = log_normalize(X)
    from_dense, from_sparse = (VariableGenes(3, flavor).fit(kind(X)) for kind in (np.asarray, sparse.csr_matrix))
    assert np.allclose(from_dense.scores_, from_sparse.scores_, rtol=1e-6, atol=1e-9, equal_nan=True)
    assert from_dense.get_support().sum() == min(3, X.shape[1])


def test_variable_genes_learn_from_training_cells_only(logged):
    X = logged[:300].toarray()
    fitted = VariableGenes(100).fit(X)
    X[200:] = 0
    assert (VariableGenes(100).fit(X[:200]).get_support() != fitted.get_support()).any()
    assert fitted.transform(X[:5]).shape == (5, 100)


def test_pipeline_from_counts_to_genes(pbmc):
    steps = make_pipeline(LogNormalize(), VariableGenes(50))
    kept = steps.fit_transform(pbmc.X[:200])
    assert kept.shape == (200, 50) and kept.dtype == np.float32
    assert steps.transform(pbmc.X[200:210]).shape == (10, 50)


@pytest.mark.parametrize(
    ("X", "says"),
    [
        ([[1, -1], [1, 1]], "negative"),
        ([[1, np.nan], [1, 1]], "1 values that are NaN"),
        ([[1, np.inf], [1, 1]], "NaN or infinite"),
        ([[0, 0], [1, 1]], "1 cells have no count"),
        ([[0.5, 1.7], [2.2, 0]], "looks logged already"),
        ([1, 2, 3], r"shape \(3,\): give cells in rows"),
    ],
)
def test_what_is_no_count_matrix_is_refused(X, says):
    with pytest.raises(DataError, match=says):
        log_normalize(np.array(X, dtype=np.float32))


def test_expected_counts_with_fractions_are_accepted():
    assert np.isfinite(log_normalize(np.array([[100.5, 3], [2, 7]]))).all()


def test_normalising_twice_is_noticed(logged):
    with pytest.raises(DataError, match="looks logged already"):
        log_normalize(logged)


@pytest.mark.parametrize(
    ("step", "says"),
    [
        (lambda a: log_normalize(a, 1e300), r"target_sum=1e\+300 is not a number between"),
        (lambda a: align_genes(a, ["g1"], fill=float("nan")), "fill=nan is not a number"),
        (lambda a: align_genes(a, ["g1"], fill="a"), "fill='a'"),
        (lambda a: preprocess.quality_control(a, max_mito=20), "max_mito=20 is not a number from 0 to 1"),
        (lambda a: preprocess.quality_control(a, min_genes=0.05), "min_genes=0.05 is not a whole number"),
        (lambda a: preprocess.quality_control(a, mito_prefix=""), "mito_prefix='' begins no name"),
        (lambda a: center_by(a, ["a"] * 20, scale="no"), "scale='no' is neither True nor False"),
    ],
)
def test_settings_that_would_do_something_else_are_refused(step, says):
    with pytest.raises((SettingError, DataError), match=says):
        step(counted())


@pytest.mark.parametrize(("bad", "says"), [({"flavor": "spicy"}, "spicy"), ({"n_top": 0}, "n_top=0")])
def test_variable_genes_refuse_bad_settings(logged, bad, says):
    with pytest.raises(SettingError, match=says):
        VariableGenes(**bad).fit(logged[:20])


@settings(deadline=None)
@given(COUNTS, st.booleans(), st.data())
def test_centring_leaves_every_group_with_zero_means(X, scale, data):
    groups = np.array(data.draw(st.lists(st.sampled_from("ab"), min_size=len(X), max_size=len(X))))
    before = X.copy()
    got = center_by(X, groups, scale=scale)
    assert (before == X).all() and got.dtype == np.float32
    for group in set(groups):
        assert np.allclose(got[groups == group].mean(0), 0, atol=1e-3)
    assert np.allclose(center_by(sparse.csr_matrix(X), groups, scale=scale), got, atol=1e-5)


def test_centring_removes_a_shift_and_scaling_a_stretch():
    rng = np.random.default_rng(0)
    base = rng.normal(size=(50, 4)).astype(np.float32)
    X, groups = np.vstack([base, 3 * base + 5]), np.repeat([0, 1], 50)
    got = center_by(X, groups, scale=True)
    assert np.allclose(got[:50], got[50:], atol=1e-4) and np.allclose(got.std(0), 1, atol=1e-3)
    assert not np.allclose(center_by(X, groups)[:50], center_by(X, groups)[50:], atol=0.1)
    with pytest.raises(DataError, match="one group a cell"):
        center_by(X, groups[:-1])
    with pytest.raises(DataError, match="1 cells have no group"):
        center_by(X, [None, *groups[1:].tolist()])


def frame(X, genes):
    return ad.AnnData(X, var=pd.DataFrame(index=list(genes)))


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix])
@pytest.mark.parametrize("fill", [0.0, -1.0])
def test_align_puts_genes_in_order_and_reports_the_loss(kind, fill):
    X = np.arange(6, dtype=np.float32).reshape(2, 3)
    got, report = align_genes(frame(kind(X), "abc"), ["c", "x", "a"], fill=fill)
    assert list(got.var_names) == ["c", "x", "a"]
    assert np.array_equal(dense(got.X), [[2, fill, 0], [5, fill, 3]])
    assert report.kept == 2 and report.names["missing, filled"] == ("x",)
    assert report.names["not in the list, dropped"] == ("b",)
    assert str(report) == "2 kept; 1 missing, filled; 1 not in the list, dropped"


@given(st.permutations(list("abcdef")), st.permutations(list("abcdef")))
def test_align_there_and_back_changes_nothing(first, second):
    X = sparse.random(5, 6, 0.5, format="csr", dtype=np.float32, random_state=0)
    there, _ = align_genes(frame(X, first), second)
    back, report = align_genes(there, first)
    assert (back.X != X).nnz == 0 and str(report) == "6 kept; nothing lost"


def test_align_refuses_other_species_and_duplicates():
    with pytest.raises(DataError, match="Is it another species"):
        align_genes(frame(np.ones((2, 2)), ["Cd3e", "Gnly"]), ["CD3E", "GNLY"])
    with pytest.raises(DataError, match="reference list names genes twice"):
        align_genes(frame(np.ones((2, 1)), "a"), ["a", "a"])


@pytest.mark.parametrize(
    ("genes", "says"),
    [
        ([], "the reference list names no gene"),
        ("ab", "the reference list should be a list of names, not str"),
        (3, "should be a list of names, not int"),
        ({"a", "b"}, "should be a list of names, not set"),
        (["a", None], "holds 1 missing name"),
    ],
)
def test_align_refuses_what_is_no_list_of_genes(genes, says):
    with pytest.raises(DataError, match=says):
        align_genes(frame(np.ones((2, 2)), "ab"), genes)


def test_align_refuses_data_without_genes():
    with pytest.raises(DataError, match="the data names no gene"):
        align_genes(frame(np.ones((2, 0)), []), ["a"])


@pytest.mark.parametrize("step", [lambda X: align_genes(X, ["a"]), preprocess.quality_control, preprocess.combat])
def test_an_array_in_place_of_anndata_is_named(step):
    with pytest.raises(DataError, match=r"AnnData is needed, not ndarray: shared\.data\.from_arrays makes one"):
        step(np.ones((2, 2)))


def test_quality_control_drops_what_it_says(pbmc):
    kept, report = preprocess.quality_control(pbmc, min_genes=500, min_cells=5, max_mito=0.1)
    assert kept.n_obs == report.kept < pbmc.n_obs
    assert kept.obs["n_genes"].min() >= 500 and kept.obs["mito"].max() <= 0.1
    assert ((kept.X > 0).sum(0) >= 5).all()
    assert sum(report.lost.values()) == pbmc.n_obs - kept.n_obs + pbmc.n_vars - kept.n_vars
    assert "n_genes" not in pbmc.obs


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"min_genes": 10**6}, "min_genes=1000000"),
        ({"max_mito": 0}, "max_mito=0"),
        ({"min_cells": 10**6}, "min_cells"),
    ],
)
def test_quality_control_that_keeps_nothing_names_the_limit(pbmc, limits, says):
    with pytest.raises(DataError, match=says):
        preprocess.quality_control(pbmc, **limits)


def test_combat_brings_batch_means_together(logged):
    adata = ad.AnnData(
        logged[:120, :400].toarray(), obs=pd.DataFrame({"batch": ["a", "b"] * 60}).set_index(np.arange(120).astype(str))
    )
    adata.X[1::2] += 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        got = preprocess.combat(adata)
    assert got.X.dtype == np.float32
    assert np.abs(got.X[::2].mean(0) - got.X[1::2].mean(0)).mean() < 0.1
    assert np.abs(adata.X[::2].mean(0) - adata.X[1::2].mean(0)).mean() > 0.8


@pytest.mark.parametrize(("column", "says"), [("nothing", "no column"), ("one", "two batches or more")])
def test_combat_refuses_what_it_cannot_correct(column, says):
    adata = ad.AnnData(np.ones((4, 3)), obs=pd.DataFrame({"one": ["a"] * 4}, index=list("wxyz")))
    with pytest.raises(DataError, match=says):
        preprocess.combat(adata, column)


# What says how values are scaled travels with them.


def counted(n=20, genes=30):
    return from_arrays(
        np.random.default_rng(0).poisson(3, (n, genes)).astype("float32"), [f"g{i}" for i in range(genes)]
    )


STEPS = {
    "log_normalize": lambda a: log_normalize(a),
    "log_normalize, aligned": lambda a: align_genes(log_normalize(a), a.var_names[:9])[0],
    "log_normalize, subset": lambda a: log_normalize(a)[:, :9].copy(),
    "quality_control, log_normalize": lambda a: log_normalize(preprocess.quality_control(a, 0, 0, 1)[0]),
    "X replaced": lambda a: replaced(a),
    "X replaced, aligned": lambda a: align_genes(replaced(a), a.var_names[:9])[0],
    "X replaced, subset": lambda a: replaced(a)[:, :9].copy(),
}


def replaced(adata):
    adata.X = log_normalize(adata.X)  # uns["units"] still says counts
    return adata


@pytest.mark.parametrize("steps", STEPS)
def test_what_was_logged_says_so_loads_again_and_is_not_logged_or_summed(steps, tmp_path):
    made = STEPS[steps](counted())
    made.write_h5ad(tmp_path / "made.h5ad")
    back = load(tmp_path / "made.h5ad")
    assert back.uns["units"] == "log" and check(made).looks == "logged" and not check(made, need="log").errors
    assert np.array_equal(dense(back.X), dense(made.X))
    for adata in (made, back):
        adata = adata.copy()
        with pytest.raises(DataError, match="logged already"):
            log_normalize(adata)
        with pytest.raises(DataError, match="logged already"):
            preprocess.quality_control(adata)
        with pytest.raises(DataError, match="logged"):
            pseudobulk(ad.AnnData(adata.X), ["a"] * adata.n_obs)
        adata.var_names = ["a", *["b"] * (adata.n_vars - 1)]
        with pytest.raises(DataError, match="cannot be summed"):
            merge_duplicates(adata)
        adata.layers.clear()
        adata.var_names = [f"g{i}" for i in range(adata.n_vars)]
        with pytest.raises(DataError, match="looks logged already"):
            Corpus({"a": adata})


def test_a_scale_that_changes_is_written_down():
    logs = log_normalize(counted())
    assert logs.uns["units"] == "log" and (logs.layers["counts"] == counted().X).all()
    assert "logged" in logs.uns["notes"][-1]
    assert center_by(logs, ["a", "b"] * 10).uns["units"] == "z"
    logs.obs["batch"] = ["a", "b"] * 10
    assert preprocess.combat(logs).uns["units"] == "log"
    assert center_by(logs, "batch").X.mean() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix])
def test_variable_genes_say_when_values_are_no_logarithms(kind):
    with pytest.warns(DataWarning, match="look like counts, and flavor='seurat'"):
        VariableGenes(3).fit(kind(counted().X))
    VariableGenes(3, flavor="variance").fit(kind(counted().X))
    with pytest.raises(DataError, match="are no logarithms"), pytest.warns(DataWarning, match="look like counts"):
        VariableGenes(3).fit(kind(counted().X * 1000))
    with pytest.warns(DataWarning, match="centred values"):
        VariableGenes(3).fit(center_by(log_normalize(counted().X), ["a"] * 20))


def test_genes_of_another_order_are_refused_by_variable_genes():
    logs = log_normalize(counted())
    steps = make_pipeline(VariableGenes(5)).fit(logs)
    assert steps.transform(logs).shape == (20, 5) == steps.transform(logs.to_df()).shape
    for other in (logs[:, ::-1].copy(), logs.to_df().iloc[:, ::-1]):
        with pytest.raises(ValueError, match="feature names"):
            steps.transform(other)
    assert steps.inverse_transform(steps.transform(logs)).shape == (20, 30)


def test_mitochondrial_genes_by_another_name_are_told():
    adata = counted()
    with pytest.warns(DataWarning, match="no gene name begins with 'MT-'"):
        preprocess.quality_control(adata, 0, 0)
    adata.var_names = ["mt-Nd1", *adata.var_names[1:]]
    with pytest.warns(DataWarning, match="mito_prefix='mt-'"):
        preprocess.quality_control(adata, 0, 0)
    adata.X[3] = 0
    assert preprocess.quality_control(adata, 0, 0, mito_prefix="mt-")[1].lost["cells without any count"] == 1


def test_a_table_in_its_file_goes_through_every_step(tmp_path):
    adata = counted()
    adata.obs["batch"] = ["a", "b"] * 10
    adata.write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    assert log_normalize(backed).uns["units"] == "log" and log_normalize(backed.X).shape == (20, 30)
    assert align_genes(backed, adata.var_names[:3])[0].shape == (20, 3)
    assert preprocess.quality_control(backed, 0, 0, 1)[0].shape == (20, 30)
    assert center_by(backed, "batch").uns["units"] == "z"
    backed.file.close()


def test_a_cell_without_a_batch_is_told():
    adata = log_normalize(counted())
    adata.obs["batch"] = pd.Categorical(["a"] * 10 + ["b"] * 9 + [None])
    with pytest.raises(DataError, match=r"no label for 1 cells"):
        preprocess.combat(adata)
