"""The questions of the scPretrain chapter: the same cells for every arm, and numbers that can be computed by hand."""

import functools

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import clone

from shared import evaluate
from shared.data import Corpus, DataError, simulate
from shared.experiments import scpretrain as borrowed
from shared.methods.scpretrain import ScPretrain, paper_split


@pytest.fixture(scope="module")
def sets():
    made = simulate.many(2, seed=1, n_cells=120, n_genes=60, labels=3, depth=300, effect=2.0)
    return {f"set {i}": adata for i, adata in enumerate(made)}


@pytest.fixture(scope="module")
def model(sets):
    corpus = Corpus(sets).without("set 0")
    small = {"cells_per_cluster": (30, 20, 60), "width": 8, "rounds": 1, "epochs": 2, "batches": 4}
    return ScPretrain(**small, lr=1e-2, fit_epochs=15, random_state=0).pretrain(corpus)


def test_scores_are_those_of_the_metrics():
    y, classes = np.array(["a", "b", "a", "b"]), np.array(["a", "b"])
    proba = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.3, 0.7]])
    got = borrowed.scores(y, proba, classes)
    assert got["accuracy"] == 0.75 and got["kappa"] == pytest.approx(0.5)
    assert got["auroc"] == evaluate.auroc(y, proba, classes) == 1


def test_own_genes_are_the_most_expressed_in_their_order():
    X = sparse.csr_matrix(np.array([[1, 0, 2, 0], [3, 0, 1, 1], [1, 5, 0, 0]], np.float32))
    adata = ad.AnnData(X, var=pd.DataFrame(index=list("abcd")), layers={"counts": X})
    assert list(borrowed.own_genes(adata, 2).var_names) == ["a", "c"]


def test_a_budget_holds_the_cells_of_the_smaller_ones_and_none_of_the_test():
    pool, test = borrowed.draw(100, 3)
    split = paper_split(100, 3)
    assert sorted(pool) == split.train.tolist() and list(test) == split.test.tolist()
    assert (borrowed.draw(100, 3)[0] == pool).all() and (borrowed.draw(100, 4)[0] != pool).any()


def test_wrong_genes_keep_the_weights_and_move_the_names(model):
    fake = borrowed.wrong_genes(model, 0)
    assert fake.pretrained_["weight"] is model.pretrained_["weight"]
    assert sorted(fake.pretrained_["genes"]) == sorted(model.pretrained_["genes"])
    assert list(fake.pretrained_["genes"]) != list(model.pretrained_["genes"])


def test_every_arm_of_a_curve_meets_the_same_cells(model, sets, monkeypatch):
    seen = []
    for name in ("on_network", "on_numbers"):
        real = getattr(borrowed, name)

        def spy(a, b, train, test, *rest, real=real, **more):
            seen.append((tuple(train), tuple(test)))
            return real(a, b, train, test, *rest, **more)

        monkeypatch.setattr(borrowed, name, spy)
    adata = sets["set 0"]
    arms = {"one": model, "none": borrowed.scratch(model)}
    rows = list(borrowed.label_curve(arms, {"numbers": model.transform(adata)}, adata, [12, 24], 0))
    assert [(r["labels"], r["model"]) for r in rows] == [(n, m) for n in (12, 24) for m in ("one", "none", "numbers")]
    assert len(set(seen)) == 2 and seen[0][0] == seen[3][0][:12]
    assert rows[0]["accuracy"] != rows[1]["accuracy"] or rows[0]["auroc"] != rows[1]["auroc"]


def test_the_published_protocol_has_two_arms_on_one_split(model, sets):
    found = borrowed.published_protocol(model, sets["set 0"], 0, 40)
    assert list(found) == ["pre-trained", "from scratch"] and found["pre-trained"] != found["from scratch"]
    assert found == borrowed.published_protocol(model, sets["set 0"], 0, 40)
    assert found != borrowed.published_protocol(model, sets["set 0"], 0, 40, logged=True, fit_epochs=2)
    assert not model.logged and model.fit_epochs == 15


def test_numbers_are_centred_and_scaled_by_the_training_cells_alone():
    rng = np.random.default_rng(0)
    Z, y = rng.normal(size=(40, 3)), np.repeat(["a", "b"], 20)
    Z[:20] += 2
    train, test = np.arange(0, 40, 2), np.arange(1, 40, 2)
    proba, classes = borrowed.graded(Z, y, train, test)
    moved = Z * 7 + 3
    np.testing.assert_allclose(borrowed.graded(moved, y, train, test)[0], proba, atol=1e-6)
    far = Z.copy()
    far[test[1:]] += 100
    np.testing.assert_allclose(borrowed.graded(far, y, train, test)[0][0], proba[0], atol=1e-6)
    assert list(classes) == ["a", "b"]
    assert borrowed.mean_accuracy(Z, y, 10, range(2)) > 0.8


def test_other_heads_are_graded_and_counted(sets):
    adata = sets["set 0"]
    y = adata.obs["cell_type"].to_numpy(str)
    pool, test = borrowed.draw(len(y), 0)
    Z = np.log1p(adata.X.toarray())
    found = borrowed.other_heads(Z, y, pool, test, 0)
    assert list(found) == ["random forest", "logistic", "SVM", "k-means"]
    assert found["logistic"] > 0.9 and -1 <= found["k-means"] <= 1


def test_straight_lines_promise_more_than_steps():
    y = np.array(["a"] * 2 + ["b"] * 8)
    proba = np.column_stack([np.linspace(0.9, 0.1, 10), np.linspace(0.1, 0.9, 10)])
    areas = borrowed.hard_areas(y, proba, np.array(["a", "b", "never"][:2]))
    # Five cells are called a, two of them rightly: recall 1 at precision 2/5; lines go from (0, 1) to it.
    assert areas.loc["a", "steps"] == pytest.approx(0.4)
    assert areas.loc["a", "straight"] == pytest.approx(0.7)
    assert areas.loc["a", "graded"] == 1


def test_a_correlation_has_the_interval_of_fishers_z():
    found = borrowed.correlation(0.301, 60)
    assert (round(found.low, 3), round(found.high, 3)) == (0.051, 0.516)
    assert (borrowed.correlation(0.9, 3).low, borrowed.correlation(0.9, 3).high) == (-1, 1)


def test_what_is_missing_is_said_and_the_rest_comes(capsys):
    def load(name, route):
        if name == "gone":
            raise DataError("no such file")
        return f"{name} by {route}"

    assert borrowed.obtainable(["here", "gone"], load) == {"here": "here by official"}
    assert capsys.readouterr().out == "gone is left out: no such file\n"


def test_a_rung_reads_logged_counts(model, sets):
    adata = sets["set 0"]
    y, X = adata.obs["cell_type"].to_numpy(str), adata.X.copy()
    X.data = np.log1p(X.data)
    rung = borrowed.as_rung(model, adata.var_names).fit(X[:60], y[:60])
    np.testing.assert_allclose(rung[0].transform(X), model.transform(adata), rtol=1e-5)
    assert rung.predict(X[60:]).shape == (60,)


# Many sets, each left out in turn.

TINY = {
    "cells_per_cluster": (30, 20, 60),
    "width": 8,
    "rounds": 1,
    "epochs": 2,
    "batches": 4,
    "lr": 1e-2,
    "fit_epochs": 5,
}
NETWORKS = ["from scratch", "raw clusters", "component clusters", "PCA start"]


def counted(adata):
    """Counts in a layer, `X` without meaning, types as words."""
    return ad.AnnData(adata.X * 0, adata.obs[["cell_type"]], adata.var[[]], layers={"counts": adata.X})


def test_a_regression_on_numbers_is_that_of_the_curves(model, sets):
    adata = sets["set 0"]
    y, (pool, test) = adata.obs["cell_type"].to_numpy(str), borrowed.draw(adata.n_obs, 0)
    genes, dense = list(adata.var_names), np.log1p(adata.X.toarray())
    for encoder, Z in ((model, model.transform(adata)), (None, dense)):
        arm = borrowed.OnNumbers(encoder).fit(adata.X[pool], y[pool], genes=genes)
        wanted, classes = borrowed.graded(Z, y, pool, test)
        np.testing.assert_allclose(arm.predict_proba(adata.X[test], genes=genes), wanted, atol=1e-4)
        assert list(arm.predict(adata.X[test], genes=genes)) == list(classes[wanted.argmax(1)])


def test_all_epochs_keeps_nothing_to_stop_by(model, sets):
    adata = sets["set 0"]
    genes, y = list(adata.var_names), adata.obs["cell_type"].to_numpy(str)
    arm = borrowed.AllEpochs(model.set_params(fit_patience=1)).fit(adata.X[:30], y[:30], genes=genes)
    rows = arm.model_.fit_history_.rows
    assert len(rows) == model.fit_epochs and "val_accuracy" not in rows[0]
    assert arm.predict_proba(adata.X[30:], genes=genes).shape == (90, 3)
    assert not hasattr(model, "network_"), "the encoder it was given stays as it is"


@pytest.fixture(scope="module")
def swept(sets, tmp_path_factory):
    third = next(iter(simulate.many(1, seed=9, n_cells=100, n_genes=60, labels=3, depth=300, effect=2.0)))
    path = tmp_path_factory.mktemp("sets") / "third.h5ad"
    third.write_h5ad(path)
    data = {name: counted(one) for name, one in sets.items()} | {"third": path}
    how = {"genes": "common", "limits": [20], "seeds": [0, 1], "workers": 0, "progress": False}
    return (
        borrowed.sweep(data, TINY, all_in=True, stop=True, out=path.parent, **how),
        data,
        how,
        path,
    )


def test_a_sweep_gives_every_arm_the_same_cells_of_every_set(swept):
    table = swept[0]
    lent = ["raw clusters", "component clusters", "all in"]
    wanted = {*NETWORKS, "all in", "genes, logistic", *(f"{name}, logistic" for name in (*lent, "PCA"))}
    wanted |= {f"{name}, stopped" for name in NETWORKS[:3]}
    assert set(table["arm"]) == wanted
    assert set(table["held_out"]) == {"set 0", "set 1", "third"}
    assert (table["split"] == table["seed"]).all() and set(table["seed"]) == {0, 1}
    assert (table.groupby(["held_out", "seed"])[["n_train", "n_test"]].std() == 0).all(axis=None)
    apart = table.pivot_table(index=["held_out", "seed"], columns="arm", values="auroc")
    assert all((apart[a] != apart[b]).any() for a, b in zip(apart, list(apart)[1:]))


def test_a_sweep_goes_on_where_it_stopped_and_sees_another_recipe(swept, monkeypatch):
    table, data, how, path = swept
    made, real = [], borrowed.borrowers

    @functools.wraps(real)
    def spy(*args, **more):
        made.append(1)
        return real(*args, **more)

    monkeypatch.setattr(borrowed, "borrowers", spy)
    again = borrowed.sweep(data, TINY, all_in=True, stop=True, out=path.parent, **how)
    pd.testing.assert_frame_equal(again, table)
    assert not made
    how = how | {"hold_out": ["third"], "seeds": [0], "out": path.parent}
    other = borrowed.sweep(data, TINY | {"fit_epochs": 2}, all_in=True, stop=True, **how)
    assert made == [1]
    assert set(borrowed.sweep(data, TINY | {"fit_epochs": 2}, **how)["arm"]) < set(other["arm"])


def test_every_seed_has_an_encoder_of_its_own(model, sets):
    corpus, other = Corpus(sets).without("set 0"), clone(model)
    arms = borrowed.borrowers(corpus, 1, recipe=TINY, everything={0: model, 1: other}, stop=True)
    assert arms["all in"].model is other and arms["all in, logistic"].encoder is other
    assert arms["raw clusters"].model.random_state == 1 and arms["component clusters"].model.space == "pca"
    assert not arms["from scratch"].model.borrow and arms["raw clusters, stopped"] is arms["raw clusters"].model
    start = arms["PCA start"].model
    assert start is arms["PCA, logistic"].encoder and (start.rounds, start.start) == (0, "pca")


def test_the_encoder_of_a_fold_has_not_read_the_set(sets, monkeypatch):
    seen = []
    real = ScPretrain.pretrain
    monkeypatch.setattr(
        ScPretrain, "pretrain", lambda self, corpus, **k: seen.append(list(corpus)) or real(self, corpus)
    )
    how = {"genes": "common", "limits": [20], "seeds": [0], "hold_out": ["set 0"], "workers": 0, "progress": False}
    some = ["genes, logistic", "raw clusters"]
    table = borrowed.sweep(sets, TINY, arms=some, **how)
    assert seen == [["set 1"]] * 3 and list(table["arm"]) == some


def test_what_an_arm_is_ahead_is_a_mean_over_sets_or_studies():
    rows = [("a", 0.5, 0.6), ("b", 0.5, 0.8), ("c", 0.5, 0.4)]
    table = pd.DataFrame(
        [(s, k, v) for s, x, y in rows for k, v in (("old", x), ("new", y))], columns=["held_out", "arm", "accuracy"]
    )
    got = borrowed.versus(table, "old").loc["new"]
    wanted = evaluate.over_seeds([0.1, 0.3, -0.1])
    assert got[["ahead", "low", "high"]].tolist() == pytest.approx([wanted.value, wanted.low, wanted.high])
    assert got["wins"] == 2 and got["sets"] == 3
    got = borrowed.versus(table, "old", groups={"a": "one", "b": "one"}).loc["new"]
    assert got["ahead"] == pytest.approx(0.05) and got["sets"] == 2 and got["wins"] == 1


def test_stability_is_a_correlation_over_sets():
    # From scratch the sets vary by 0, 2 and 4 units between two splits; the gains are 1, 2 and 3 units.
    rows = [(f"set {k}", split, "old", 0.5 + split * 0.02 * k**0.5) for k in range(3) for split in range(2)]
    rows += [(name, split, "new", value + 0.01 * (int(name[-1]) + 1)) for name, split, _, value in rows]
    table = pd.DataFrame(rows, columns=["held_out", "split", "arm", "average_precision"])
    assert borrowed.stability(table, "new", "old").value == pytest.approx(1)
    table.loc[table["arm"] == "new", "average_precision"] *= -1
    assert borrowed.stability(table, "new", "old").value < 0.9


def test_widespread_genes_are_those_of_most_cells_of_most_sets():
    def made(X, names):
        return ad.AnnData(sparse.csr_matrix(np.array(X, np.float32)), var=pd.DataFrame(index=names))

    sets = {"one": made([[1, 0, 5], [2, 0, 0]], list("ABC")), "two": made([[1, 1], [0, 1], [0, 1]], list("BD"))}
    assert borrowed.widespread(sets, 2) == ["A", "D"] and borrowed.widespread(sets, 3) == ["A", "C", "D"]


def test_files_of_the_mirror_become_sets_under_human_names(tmp_path, monkeypatch, capsys, sets):
    monkeypatch.setenv("BORROWED_MIRROR", str(tmp_path))
    assert borrowed.in_mirror("labelled-*.h5ad") == []
    assert capsys.readouterr().out.count("\n") == 1
    mouse = sets["set 0"][:, :4].copy()
    mouse.var_names = ["Cd3e", "Actb", "Cd8a", "Cd19"]
    mouse.obs["half"] = np.repeat(["left", "right"], 60)
    mouse.obs["cell_type"] = ["rare"] * 5 + ["one"] * 55 + ["two"] * 60
    mouse.write_h5ad(tmp_path / "labelled-mouse.h5ad")
    logged = sets["set 1"].copy()
    logged.X = logged.X * -1
    logged.write_h5ad(tmp_path / "labelled-logged.h5ad")
    found = borrowed.labelled_sets(borrowed.in_mirror("labelled-*.h5ad"), split_by={"labelled-mouse": "half"})
    assert list(found) == ["labelled-mouse, left", "labelled-mouse, right"]
    assert "labelled-logged.h5ad is left out" in capsys.readouterr().out
    left = found["labelled-mouse, left"]
    assert set(left.var_names) == {"CD3E", "ACTB", "CD8A", "CD19"} and left.n_obs == 60
    assert left.obs["cell_type"].isna().sum() == 5 and (left.layers["counts"] != left.X).nnz == 0
