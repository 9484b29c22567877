"""The estimator: its contract, the traps the method sets, and what it saves."""

import copy

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.base import clone

from shared.data import load
from shared.data.constraints import SettingError
from shared.data.errors import DataError, DataWarning
from shared.evaluate.splits import few_shot
from shared.methods.tmp import RELEASED, TMP
from shared.methods.tmp.network import LOSSES, PROTOTYPES
from shared.nn.episodes import unit_range
from shared.nn.sparse import Rows
from shared.preprocess import log_normalize


def profiles(kinds=6, per_kind=20, genes=40, noise=0.3, seed=0, centres=0):
    """Profiles in which each kind has a centre of its own; `centres` seeds those."""
    y = np.repeat(np.arange(kinds), per_kind)
    centre = np.random.default_rng(centres).normal(size=(kinds, genes))
    X = centre[y] + noise * np.random.default_rng((seed, 1)).normal(size=(len(y), genes))
    return X.astype(np.float32), np.array([f"type {c}" for c in y])


def table(X, y, column="cell_type"):
    names = [f"G{i}" for i in range(X.shape[1])]
    return ad.AnnData(X, obs=pd.DataFrame({column: y}, index=map(str, range(len(y)))), var=pd.DataFrame(index=names))


def small(**options):
    settings = {"episodes": 100, "fit_episodes": 60, "lr": 5e-3, "fit_lr": 5e-3, "device": "cpu", "random_state": 0}
    return TMP((24, 12), (10, 6), **settings | options)


@pytest.fixture(scope="module")
def bulk():
    X, y = profiles(kinds=12, centres=5)
    return table(X, y, "tissue")


@pytest.fixture(scope="module")
def cells():
    """Support and query cells of five types the bulk does not have."""
    (S, ys), (Q, yq) = profiles(5, 15, seed=1, centres=6), profiles(5, 30, seed=2, centres=6)
    return table(S, ys), table(Q, yq)


@pytest.fixture(scope="module")
def pretrained(bulk):
    return small().pretrain(bulk, "tissue")


@pytest.fixture(scope="module")
def fitted(pretrained, cells):
    return clone(pretrained).fit(cells[0], "cell_type")


def test_five_lines(bulk, cells):
    support, query = cells
    names = small().pretrain(bulk, "tissue").fit(support, "cell_type").predict(query)
    assert (names == query.obs["cell_type"].to_numpy()).mean() > 0.9


@pytest.mark.nightly
def test_five_lines_on_real_cells():
    """Cell lines to blood cells, run 1 to run 2: far above chance, whatever simpler methods reach."""
    bulk, blood = load("gdsc"), load("pbmc")
    genes = [g for g in blood.var_names if g in set(bulk.var_names)]
    bulk, blood = bulk[bulk.obs["subtype"].notna(), genes].copy(), blood[:, genes].copy()
    blood.X = log_normalize(blood.X)
    first = blood[blood.obs["run"] == "run1"]
    support = first[few_shot(first.obs["cell_type"], 15, 0, min_size=1)[0]].copy()
    known = blood.obs["cell_type"].isin(support.obs["cell_type"].unique())
    query = blood[(blood.obs["run"] == "run2") & known].copy()
    model = TMP(episodes=200, device="cpu", random_state=0).pretrain(bulk, "subtype").fit(support, "cell_type")
    assert (model.predict(query) == query.obs["cell_type"]).mean() > 0.5


def test_zero_episodes_only_average(pretrained, cells):
    model = clone(pretrained).set_params(fit_episodes=0).fit(cells[0], "cell_type")
    assert model.history_.rows == []
    state = model.network_.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in pretrained.pretrained_["state"].items())
    assert (model.predict(cells[1]) == cells[1].obs["cell_type"]).mean() > 0.6


def test_tuning_leaves_what_was_pretrained(pretrained, cells):
    before = copy.deepcopy(pretrained.pretrained_["state"])
    first = clone(pretrained).fit(cells[0], "cell_type")
    assert all(torch.equal(before[k], v) for k, v in pretrained.pretrained_["state"].items())
    second = clone(pretrained).fit(cells[0], "cell_type")
    assert np.array_equal(first.scores(cells[1]), second.scores(cells[1]))


def test_the_callers_generators_are_left_alone(cells):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    small().fit(cells[0], "cell_type")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("proto", PROTOTYPES)
@pytest.mark.parametrize("loss", LOSSES)
def test_prediction_is_what_the_network_scores(cells, proto, loss):
    """With five cells a class the estimator's averages are one episode's prototypes."""
    X, y = profiles(4, 5, seed=1, centres=6)
    model = small(proto=proto, loss=loss, fit_episodes=5).fit(X, y)
    Q = unit_range(profiles(4, 3, seed=2, centres=6)[0])
    support = torch.from_numpy(unit_range(X)).view(1, 4, 5, 40)
    wanted = model.network_.scores(support, torch.from_numpy(Q)[None])[0].detach()
    np.testing.assert_allclose(model.scores(Q), wanted, atol=1e-5)
    assert (model.predict(Q) == model.classes_[wanted.argmax(1)]).all()
    proba = model.predict_proba(Q)
    np.testing.assert_allclose(proba.sum(1), 1, atol=1e-5)
    assert proba.dtype == np.float32 and (proba.argmax(1) == wanted.numpy().argmax(1)).all()


def test_a_large_sparse_table_stays_sparse(monkeypatch):
    X, y = profiles(4)
    X = sparse.csr_matrix(np.maximum(X, 0))
    wanted = small().fit(X, y).scores(X)
    monkeypatch.setattr("shared.methods.tmp.estimator.DENSE", 10)
    assert np.array_equal(small().fit(X, y).scores(X), wanted)


@pytest.mark.parametrize("options", [{}, RELEASED, {"norm": "layer"}], ids=["default", "released", "layer"])
def test_sparse_cells_train_as_dense_ones_do(options, monkeypatch):
    """A wide network takes the entries of CSR alone; the default widths take the dense table, to the same bytes."""
    X, y = profiles(6, genes=200)
    X = np.maximum(X - 1.5, 0)
    model, (S, ys) = small(episodes=10, fit_episodes=10, stop_at=None, **options), (X[:100:2], y[:100:2])
    used, of = [], Rows.of
    monkeypatch.setattr(Rows, "of", lambda x: used.append(len(x)) or of(x))
    fitted = [clone(model).pretrain(as_is(X), y).fit(as_is(S), ys) for as_is in (np.asarray, sparse.csr_matrix)]
    assert not used and sparse.csr_matrix(X).nnz < 0.1 * X.size
    assert np.array_equal(*(m.scores(X) for m in fitted))
    monkeypatch.setattr("shared.nn.sparse.CACHE", 1000)
    sparsely = clone(model).pretrain(sparse.csr_matrix(X), y).fit(sparse.csr_matrix(S), ys)
    assert len(used) == 20
    losses = [[r["loss"] for r in m.pretrained_["history"].rows + m.history_.rows] for m in (sparsely, fitted[0])]
    np.testing.assert_allclose(*losses, atol=1e-5)
    # The gradient of a bias before a batch norm is rounding alone, which Adam makes a whole step of. Within a batch it
    # cancels; the running mean comes after it.
    np.testing.assert_allclose(sparsely.scores(X), fitted[0].scores(X), atol=1e-5 if options else 0.02)
    assert {k: v.shape for k, v in sparsely.pretrained_["state"].items()} == {
        k: v.shape for k, v in fitted[0].pretrained_["state"].items()
    }


def test_depth_is_of_no_consequence(fitted, cells):
    X, genes = cells[1].X, cells[1].var_names
    np.testing.assert_allclose(fitted.scores(X * 20000, genes=genes), fitted.scores(X, genes=genes), atol=1e-4)
    raw = small(scale=False).fit(*profiles(4))
    assert not np.allclose(raw.scores(X * 3), raw.scores(X), atol=1e-2)


def test_few_cells_make_smaller_episodes():
    X, y = profiles(5, 15)
    keep = np.r_[0:2, 15:19, 30:45, 45:60, 60:61]  # 2, 4, 15, 15 and 1 cells
    model = small().fit(X[keep], y[keep])
    assert model.classes_.tolist() == [f"type {i}" for i in range(5)] and model.predict(X).shape == y.shape
    with pytest.warns(DataWarning, match="too few cells for an episode"):  # averages only
        lone = small().fit(X[[0, 15, 30]], y[[0, 15, 30]])
    assert lone.history_.rows == [] and lone.predict(X[:3]).shape == (3,)


def test_prototypes_do_not_depend_on_how_many_cells_a_class_has():
    X, y = profiles(4, 15)
    for proto in PROTOTYPES:
        model = small(proto=proto, fit_episodes=0).fit(X, y)
        twice = small(proto=proto, fit_episodes=0).fit(np.r_[X, X[:15]], np.r_[y, y[:15]])
        np.testing.assert_allclose(model.scores(X), twice.scores(X), atol=1e-5)


def test_batch_statistics_take_all_queries_at_once(cells):
    model = small(norm="batch").fit(*profiles(5, 15, seed=1, centres=6))
    X = cells[1].X
    assert not np.allclose(model.scores(X[:30]), model.scores(X)[:30], atol=1e-2)
    with pytest.raises(DataError, match="one row has no variance"):
        model.predict(X[:1])


def test_running_statistics_answer_each_cell_by_itself(fitted, cells):
    alone = np.concatenate([fitted.scores(cells[1][i]) for i in range(7)])
    np.testing.assert_allclose(alone, fitted.scores(cells[1])[:7], atol=1e-5)


def test_unknown_is_said_below_the_threshold(fitted, cells):
    scores, model = fitted.scores(cells[1]).max(1), copy.copy(fitted)
    names = fitted.predict(cells[1])
    for threshold in (0.0, float(np.median(scores)), 1):
        said = model.set_params(unknown=threshold).predict(cells[1])
        assert np.array_equal(said == "unknown", scores < threshold)
        assert (said[scores >= threshold] == names[scores >= threshold]).all()
    unseen = profiles(3, 20, centres=77)[0]
    genes = cells[1].var_names
    known, unknown = (np.median(fitted.scores(X, genes=genes).max(1)) for X in (cells[1].X, unseen))
    assert unknown < known
    numbers = small(unknown=1.0, fit_episodes=0).fit(profiles(3)[0], np.repeat([4, 5, 6], 20))
    assert set(numbers.predict(unseen)) == {"unknown"}


def test_features(pretrained, fitted, cells):
    before, after = pretrained.transform(cells[1]), fitted.transform(cells[1])
    assert before.shape == after.shape == (150, 12) and before.dtype == np.float32
    assert (before >= 0).all() and not np.allclose(before, after)


def test_the_published_settings_run(bulk, cells):
    model = small(**RELEASED, step_order="original").pretrain(bulk, "tissue").fit(cells[0], "cell_type")
    assert all((p >= 0).all() for p in model.network_.encoder.parameters())
    assert model.network_.encoder.norms[0].at_test == "batch" and len(set(model.predict(cells[1]))) > 1


def killed_at(episode):
    """A callback that ends the process's work as ``kill`` would: nothing after it is run."""

    def kill(_, row):
        if row["episode"] == episode:
            raise KeyboardInterrupt

    return kill


# Genes.


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a: a[:, ::-1], "in another order"),
        (lambda a: a[:, :-1], "1 are missing and 0 are new"),
        (
            lambda a: ad.AnnData(a.X, obs=a.obs, var=pd.DataFrame(index=[f"H{i}" for i in range(40)])),
            "40 are missing and 40 are new",
        ),
    ],
)
def test_f_permuted_genes_are_refused(pretrained, fitted, cells, change, said):
    support, query = (change(part).copy() for part in cells)
    with pytest.raises(ValueError, match=f"pre-trained on 40 genes.*{said}.*align_genes"):
        clone(pretrained).fit(support, "cell_type")
    with pytest.raises(ValueError, match=r"(?s)feature names should match.*fitted on other genes.*align_genes"):
        fitted.predict(query)
    with pytest.raises(ValueError, match=said):
        pretrained.transform(query)


def test_f_permuted_genes_would_not_have_been_noticed(pretrained, cells):
    """Why they are refused: an array fits in any order, and the answer is merely worse."""
    support, query = cells
    order = np.random.default_rng(0).permutation(40)
    straight, scrambled = (
        np.mean(
            clone(pretrained)
            .set_params(fit_episodes=0)
            .fit(support.X[:, o], support.obs.cell_type, genes=support.var_names)
            .predict(query.X[:, o], genes=query.var_names)
            == query.obs.cell_type
        )
        for o in (np.arange(40), order)
    )
    assert 0.2 < scrambled < straight


UNNAMED = "these 40 columns have no names and are taken to be the genes of the pre-training"


# Saving.


@pytest.mark.parametrize("proto", PROTOTYPES)
def test_a_saved_model_comes_back(pretrained, cells, tmp_path, proto):
    model = clone(pretrained).set_params(proto=proto, unknown=0.3).fit(cells[0], "cell_type")
    genes = list(cells[0].var_names)
    back = TMP.load(model.save(tmp_path / "model"), genes)
    assert np.array_equal(back.scores(cells[1]), model.scores(cells[1]))
    assert np.array_equal(back.predict(cells[1]), model.predict(cells[1])) and back.unknown == 0.3
    # What was pre-trained came along, and can be tuned again to the same bytes.
    again = clone(back).fit(cells[0], "cell_type")
    assert np.array_equal(again.scores(cells[1]), model.scores(cells[1]))


@pytest.mark.parametrize("labels", [str, int, object])
def test_labels_come_back_as_they_were(labels, tmp_path):
    X, y = profiles(3)
    y = np.array([int(name[-1]) for name in y]) if labels is int else y.astype(labels)
    model = small(fit_episodes=0).fit(X, y)
    back = TMP.load(model.save(tmp_path, [f"G{i}" for i in range(40)]), [f"G{i}" for i in range(40)])
    assert back.classes_.dtype == model.classes_.dtype and (back.predict(X) == model.predict(X)).all()


# What cannot be.


def spoilt(value):
    X, y = profiles(3)
    X[0, 0] = value
    return X, y


@pytest.mark.parametrize("stage", ["pretrain", "fit"])
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: spoilt(np.nan), "NaN"),
        (lambda: spoilt(np.inf), "infinity"),
        (lambda: (profiles(3)[0], profiles(3)[1][:-1]), "inconsistent numbers"),
        (lambda: (profiles(3)[0][:, 0], profiles(3)[1]), "2D"),
        (lambda: (profiles(3)[0], np.random.default_rng(0).random(60)), "continuous"),
        (lambda: (profiles(3)[0], "cell_type"), "names a column of obs, and X is no AnnData"),
        (lambda: (table(*profiles(3)), "type"), "obs has no column 'type'"),
    ],
)
def test_bad_tables_are_refused(stage, make, said):
    X, y = make()
    with pytest.raises(ValueError, match=said):
        getattr(small(n_way=2), stage)(X, y)


def test_too_little_to_learn_from():
    X, y = profiles(3, 5)
    with pytest.raises(ValueError, match="one class only"):
        small().fit(X[:5], y[:5])
    with pytest.raises(DataError, match="0 of 3 classes have the 15 rows"):
        small().pretrain(X, y)
    with pytest.raises(SettingError, match="other settings"):
        model = small(episodes=2, n_way=3, k_shot=2, n_query=2).pretrain(X, y)
        model.set_params(widths=(8, 4)).fit(X, y)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_an_accelerator_gives_the_cpus_answers(bulk, cells):
    here, there = (small(device=d).pretrain(bulk, "tissue").fit(cells[0], "cell_type") for d in ("cpu", "cuda"))
    assert (here.predict(cells[1]) == there.predict(cells[1])).mean() > 0.95


# Values of two kinds.


def counts_of(adata):
    return ad.AnnData(np.round(100 * adata.X - 100 * adata.X.min()), obs=adata.obs, var=adata.var)


def test_one_kind_of_values_is_not_warned_of(bulk, cells):
    support, query = map(counts_of, cells)
    with pytest.warns(DataWarning, match="like counts"):
        model = small(episodes=2, fit_episodes=2).pretrain(counts_of(bulk), "tissue")
    model.fit(support, "cell_type")
    model.predict(query)
    model.predict(query.X * 0, genes=query.var_names)
    model.predict(query.X * np.float32(31.5), genes=query.var_names)
    model.pretrain(bulk, "tissue").fit(cells[0], "cell_type").predict(
        sparse.csr_matrix(cells[1].X), genes=query.var_names
    )


# Labels and thresholds.


def test_types_are_looked_for_under_cell_type(bulk, cells):
    support, query = cells
    other = bulk.copy()
    other.obs = other.obs.rename(columns={"tissue": "cell_type"})
    names = small().pretrain(other).fit(support).predict(query)
    assert (names == small().pretrain(bulk, "tissue").fit(support, "cell_type").predict(query)).all()
    with pytest.raises(ValueError, match="obs has no column 'cell_type'; it has tissue: name another"):
        small().pretrain(bulk)
