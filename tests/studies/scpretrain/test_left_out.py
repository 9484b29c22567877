"""Sets left out in turn: every arm on the same cells, no encoder that has read them, files under one kind of names."""

import functools

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import clone

from shared.data import Corpus, simulate
from shared.methods.scpretrain import ScPretrain
from shared.studies import scpretrain as study
from shared.studies.scpretrain import left_out

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


def test_a_regression_on_an_embedding_is_that_of_the_curves(model, sets):
    adata = sets["set 0"]
    y, (pool, test) = adata.obs["cell_type"].to_numpy(str), study.draw(adata.n_obs, 0)
    genes, dense = list(adata.var_names), np.log1p(adata.X.toarray())
    for encoder, Z in ((model, model.transform(adata)), (None, dense)):
        arm = left_out.OnEmbedding(encoder).fit(adata.X[pool], y[pool], genes=genes)
        wanted, classes = study.class_scores(Z, y, pool, test)
        np.testing.assert_allclose(arm.predict_proba(adata.X[test], genes=genes), wanted, atol=1e-4)
        assert list(arm.predict(adata.X[test], genes=genes)) == list(classes[wanted.argmax(1)])


def test_all_epochs_keeps_nothing_to_stop_by(model, sets):
    adata = sets["set 0"]
    genes, y = list(adata.var_names), adata.obs["cell_type"].to_numpy(str)
    arm = left_out.AllEpochs(model.set_params(fit_patience=1)).fit(adata.X[:30], y[:30], genes=genes)
    rows = arm.model_.history_.rows
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
        left_out.sweep(data, TINY, all_in=True, stop=True, out=path.parent, **how),
        data,
        how,
        path,
    )


def test_a_sweep_gives_every_arm_the_same_cells_of_every_set(swept):
    table = swept[0]
    encoders = ["raw clusters", "component clusters", "all in"]
    wanted = {*NETWORKS, "all in", "genes, logistic", *(f"{name}, logistic" for name in (*encoders, "PCA"))}
    wanted |= {f"{name}, stopped" for name in NETWORKS[:3]}
    assert set(table["arm"]) == wanted
    assert set(table["held_out"]) == {"set 0", "set 1", "third"}
    assert (table["split"] == table["seed"]).all() and set(table["seed"]) == {0, 1}
    assert (table.groupby(["held_out", "seed"])[["n_train", "n_test"]].std() == 0).all(axis=None)
    apart = table.pivot_table(index=["held_out", "seed"], columns="arm", values="auroc")
    assert all((apart[a] != apart[b]).any() for a, b in zip(apart, list(apart)[1:]))


def test_a_set_left_out_alone_gives_what_it_gives_in_company(swept):
    """So a sweep may be cut into parts that run in parallel."""
    table, data, how, _ = swept
    how = how | {"hold_out": ["set 1"], "seeds": [1]}
    alone = left_out.sweep(data, TINY, all_in=True, stop=True, **how)
    rows = table[(table["held_out"] == "set 1") & (table["seed"] == 1)].reset_index(drop=True)
    timed = ["seconds", "make_seconds"]
    pd.testing.assert_frame_equal(alone.drop(columns=timed), rows.drop(columns=timed), check_exact=True)


def test_a_sweep_goes_on_where_it_stopped_and_sees_another_config(swept, monkeypatch):
    table, data, how, path = swept
    made, real = [], left_out.fold_arms

    @functools.wraps(real)
    def spy(*args, **more):
        made.append(1)
        return real(*args, **more)

    monkeypatch.setattr(left_out, "fold_arms", spy)
    again = left_out.sweep(data, TINY, all_in=True, stop=True, out=path.parent, **how)
    pd.testing.assert_frame_equal(again, table)
    assert not made
    how = how | {"hold_out": ["third"], "seeds": [0], "out": path.parent}
    other = left_out.sweep(data, TINY | {"fit_epochs": 2}, all_in=True, stop=True, **how)
    assert made == [1]
    assert set(left_out.sweep(data, TINY | {"fit_epochs": 2}, **how)["arm"]) < set(other["arm"])


def test_every_seed_has_an_encoder_of_its_own(model, sets):
    corpus, other = Corpus(sets).without("set 0"), clone(model)
    arms = left_out.fold_arms(corpus, 1, config=TINY, everything={0: model, 1: other}, stop=True)
    assert arms["all in"].model is other and arms["all in, logistic"].encoder is other
    assert arms["raw clusters"].model.random_state == 1 and arms["component clusters"].model.space == "pca"
    assert not arms["from scratch"].model.use_pretrained and arms["raw clusters, stopped"] is arms["raw clusters"].model
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
    table = left_out.sweep(sets, TINY, arms=some, **how)
    assert seen == [["set 1"]] * 3 and list(table["arm"]) == some


def test_widespread_genes_are_those_of_most_cells_of_most_sets():
    def made(X, names):
        return ad.AnnData(sparse.csr_matrix(np.array(X, np.float32)), var=pd.DataFrame(index=names))

    sets = {"one": made([[1, 0, 5], [2, 0, 0]], list("ABC")), "two": made([[1, 1], [0, 1], [0, 1]], list("BD"))}
    assert left_out.widespread(sets, 2) == ["A", "D"] and left_out.widespread(sets, 3) == ["A", "C", "D"]


def test_files_become_sets_under_human_names(tmp_path, capsys, sets):
    mouse = sets["set 0"][:, :4].copy()
    mouse.var_names = ["Cd3e", "Actb", "Cd8a", "Cd19"]
    mouse.obs["half"] = np.repeat(["left", "right"], 60)
    mouse.obs["cell_type"] = ["rare"] * 5 + ["one"] * 55 + ["two"] * 60
    mouse.write_h5ad(tmp_path / "labelled-mouse.h5ad")
    logged = sets["set 1"].copy()
    logged.X = logged.X * -1
    logged.write_h5ad(tmp_path / "labelled-logged.h5ad")
    found = left_out.labelled_sets(sorted(tmp_path.glob("*.h5ad")), split_by={"labelled-mouse": "half"})
    assert list(found) == ["labelled-mouse, left", "labelled-mouse, right"]
    assert "labelled-logged.h5ad is left out" in capsys.readouterr().out
    left = found["labelled-mouse, left"]
    assert set(left.var_names) == {"CD3E", "ACTB", "CD8A", "CD19"} and left.n_obs == 60
    assert left.obs["cell_type"].isna().sum() == 5 and (left.layers["counts"] != left.X).nnz == 0


def test_a_set_too_small_for_the_clusters_is_left_out_of_every_fold(sets, tmp_path, capsys):
    few, none = (next(iter(simulate.many(1, seed=3, n_cells=30, n_genes=60, labels=3)))[:n].copy() for n in (25, 0))
    few.write_h5ad(tmp_path / "few.h5ad")
    none.write_h5ad(tmp_path / "none.h5ad")
    data = sets | {
        "few": few,
        "few on disk": tmp_path / "few.h5ad",
        "none": none,
        "none on disk": tmp_path / "none.h5ad",
    }
    how = {"genes": "common", "limits": [20], "seeds": [0], "workers": 0, "progress": False}
    table = left_out.sweep(data, TINY, arms=["genes, logistic"], **how)
    assert set(table["held_out"]) == set(sets) and not table.attrs["failed"]
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(" is left out: ")[0] for line in said] == ["few", "few on disk", "none", "none on disk"]
    assert "25 cells make no cluster of 30" in said[0] and said[0][3:] == said[1][11:]
    with pytest.raises(FileNotFoundError, match="'gone': there is no file"):
        left_out.sweep(sets | {"gone": tmp_path / "gone.h5ad"}, TINY, **how)
    with pytest.raises(ValueError, match="whole numbers from 1 up"):
        left_out.sweep(sets, TINY | {"cells_per_cluster": (0,)}, **how)
