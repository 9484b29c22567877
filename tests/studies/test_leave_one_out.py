"""The sweep: nobody learns from what is tested on, arms meet the same cells, and an interrupted run goes on."""

import functools
import os
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import LinearSVC

from shared import data
from shared.data import Corpus, DataError, simulate
from shared.data.constraints import SettingError
from shared.data.parallel import SweepWarning
from shared.evaluate import paired_test
from shared.preprocess import log_normalize
from shared.studies.leave_one_out import leave_one_out

HERE = {"workers": 0, "progress": False}
CELLS = {"n_cells": 90, "n_genes": 150, "labels": 3, "depth": 300}


def logistic():
    return make_pipeline(FunctionTransformer(log_normalize), LogisticRegression(C=0.1, max_iter=1000))


def arms(folder, corpus, seed):
    """Two arms; leaves a mark of what the corpus held."""
    mark = Path(folder) / f"{len(list(Path(folder).iterdir()))}-{os.getpid()}-{seed}"
    mark.write_text(",".join(corpus))
    assert len(corpus.matrices) == len(next(iter(corpus.batches(4, 0))).cells)
    return {"logistic": logistic(), "majority": DummyClassifier(strategy="most_frequent")}


def marks(folder):
    return sorted(p.read_text() for p in Path(folder).iterdir())


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """Three sets, a shuffled copy of the first under another name, and one without labels."""
    folder = tmp_path_factory.mktemp("sets")
    sets = dict(zip(["a", "b", "c", "bare"], simulate.many(4, seed=3, **CELLS)))
    rng = np.random.default_rng(0)
    sets["published again"] = sets["a"][rng.permutation(90), rng.permutation(150)].copy()
    sets["published again"].obs_names = [f"x{i}" for i in range(90)]
    del sets["bare"].obs["cell_type"]
    for name, adata in sets.items():
        adata.write_h5ad(folder / f"{name}.h5ad")
    return {name: folder / f"{name}.h5ad" for name in sets}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "marks").mkdir()
    return tmp_path / "marks"


def plain(table):
    return table.drop(columns=["seconds", "make_seconds"])


def test_nothing_is_learned_from_the_set_that_is_left_out(paths, folder):
    table = leave_one_out(functools.partial(arms, folder), paths, splits=2, **HERE)
    assert marks(folder) == ["a,b,bare,published again", "a,c,bare,published again", "b,c,bare", "b,c,bare"]
    assert table.attrs == {
        "unit": "held_out",
        "left_out": {"a": ["published again"], "b": [], "c": [], "published again": ["a"]},
        "failed": {},
    }
    assert list(table["held_out"].unique()) == ["a", "b", "c", "published again"], "bare is only learned from"
    assert len(table) == 4 * 2 * 2 and (table["n_train"] == 63).all() and (table["n_test"] == 27).all()
    mean = table.groupby("arm")[["accuracy", "auroc", "cohen_kappa"]].mean()
    assert mean.loc["logistic", "accuracy"] > 0.9 > 0.6 > mean.loc["majority", "accuracy"]
    assert mean.loc["majority", "cohen_kappa"] == 0 and mean.loc["logistic", "auroc"] > 0.97
    hard = table[table["arm"] == "majority"]
    assert (hard["auroc"].isna()).all(), "hard labels have no curve"
    assert (table["n_types"].dropna() == 3).all() and (table["seconds"] > 0).all()
    test = paired_test(*(table[table["arm"] == arm]["accuracy"].to_numpy() for arm in ("logistic", "majority")))
    assert test.p < 0.05


@pytest.mark.nightly
def test_two_processes_find_what_one_finds(paths, folder, tmp_path):
    make = functools.partial(arms, folder)
    here = leave_one_out(make, paths, hold_out=["a", "c"], splits=1, seeds=(0, 4), **HERE)
    how = {"hold_out": ["a", "c"], "splits": 1, "seeds": (0, 4), "out": tmp_path / "out", "progress": False}
    there = leave_one_out(make, paths, workers=2, **how)
    pd.testing.assert_frame_equal(plain(here), plain(there))
    assert there.attrs == here.attrs and set(there["seed"]) == {0, 4}
    processes = {p.name.split("-")[1] for p in folder.iterdir()} - {str(os.getpid())}
    assert len(processes) == 2, "both workers had folds"
    assert len(list((tmp_path / "out").iterdir())) == 4


class Stopped(KeyboardInterrupt):
    pass


def stops(folder, corpus, seed):
    """The third call is interrupted, once."""
    found = arms(folder, corpus, seed)
    if len(marks(folder)) == 3:
        raise Stopped
    return found


def test_an_interrupted_run_goes_on(paths, folder, tmp_path):
    make, how = functools.partial(stops, folder), {"splits": 1, "out": tmp_path / "out", **HERE}
    with pytest.raises(Stopped):
        leave_one_out(make, paths, **how)
    assert len(marks(folder)) == 3 and len(list((tmp_path / "out").iterdir())) == 2
    table = leave_one_out(make, paths, **how)
    assert len(marks(folder)) == 3 + 2, "the third and the fourth"
    whole = leave_one_out(functools.partial(arms, folder), paths, splits=1, **HERE)
    pd.testing.assert_frame_equal(plain(table), plain(whole))
    before = len(marks(folder))
    again = leave_one_out(make, paths, **how)
    assert len(marks(folder)) == before
    pd.testing.assert_frame_equal(again, table)


@pytest.mark.parametrize("what", ["data", "labels", "splits", "limits", "genes", "version", "make", "nothing"])
def test_results_of_something_else_are_not_taken(paths, folder, tmp_path, what):
    mine = {}
    for name in ("a", "b", "c"):
        mine[name] = tmp_path / f"{name}.h5ad"
        mine[name].write_bytes(paths[name].read_bytes())
    make, how = functools.partial(arms, folder), {"splits": 1, "out": tmp_path / "out", **HERE}
    leave_one_out(make, mine, **how)
    adata = ad.read_h5ad(mine["b"])
    if what == "data":
        adata.layers.get("counts", adata.X).data[0] += 1
    elif what == "labels":
        adata.obs["cell_type"] = adata.obs["cell_type"].to_numpy()[::-1]
    elif what == "make":
        make = functools.partial(stops, folder)
    mine["b"].unlink()
    adata.write_h5ad(mine["b"])
    more = {"splits": {"splits": 2}, "limits": {"limits": 20}, "version": {"version": "2"}}.get(what, {})
    more = {"genes": "union" if adata.n_vars < 150 else list(adata.var_names[:99])} if what == "genes" else more
    leave_one_out(make, mine, **how | more)
    assert len(marks(folder)) == (3 if what == "nothing" else 6)


GIVEN = []


class Told(ClassifierMixin, BaseEstimator):
    """Remembers what it was given; calls the commonest type."""

    def __init__(self, random_state=None):
        self.random_state = random_state

    def fit(self, X, y, genes=None, val=None):
        self.classes_, n = np.unique(y, return_counts=True)
        self.called_ = self.classes_[n.argmax()]
        GIVEN.append((X, np.asarray(y), genes, val, self.random_state))
        return self

    def predict(self, X, genes=None):
        GIVEN.append((X, None, genes, None, None))
        return np.repeat(self.called_, X.shape[0])


def told(corpus, seed):
    return Told()


def test_arms_are_told_genes_and_the_rows_to_stop_by(paths):
    GIVEN.clear()
    adata = ad.read_h5ad(paths["b"])
    some, limits = list(adata.var_names[:100]), [10, 20, 30]
    table = leave_one_out(told, paths, hold_out="b", splits=2, limits=(30, 10, 20), genes=some, **HERE)
    assert table[["split", "limit", "arm"]].to_numpy().tolist() == [[s, n, "Told"] for s in (0, 1) for n in limits]
    assert table["n_train"].tolist() == [13, 26, 39] * 2 and (table["n_test"] == 51).all()
    assert table[["auroc", "trapezoid"]].isna().all(axis=None), "no scores, no curve"
    frame = adata.to_df()
    lookup = {tuple(row): i for i, row in enumerate(frame[sorted(frame)].to_numpy())}
    rows = [[lookup[tuple(x)] for x in X.toarray()] for X, *_ in GIVEN]
    y = adata.obs["cell_type"].astype(str).to_numpy()
    for i in (0, 6):
        labelled, tested = rows[i : i + 6 : 2], rows[i + 1 : i + 6 : 2]
        assert tested[0] == tested[1] == tested[2] and set(labelled[2]) | set(tested[0]) == set(range(90))
        to_stop_by = []
        for j, (_, given_y, genes, val, seed) in enumerate(GIVEN[i : i + 6 : 2]):
            assert (given_y == y[labelled[j]]).all() and seed == i // 6 and len(val) == 3 * (j + 1)
            assert genes == sorted(frame), "all genes of the set, not the corpus's"
            to_stop_by.append({labelled[j][v] for v in val})
        trained = [set(a) - b for a, b in zip(labelled, to_stop_by)]
        for parts in (trained, to_stop_by):
            assert parts[0] < parts[1] < parts[2], "the smaller lie in the larger"
    assert rows[1] != rows[7], "each split has its own test cells"


def unseen(corpus, seed):
    return {"svm": make_pipeline(FunctionTransformer(log_normalize), LinearSVC()), "logistic": logistic()}


def test_cells_without_a_label_take_no_part(paths, tmp_path):
    adata = ad.read_h5ad(paths["b"])
    adata.obs["kind"] = adata.obs["cell_type"].astype(object).where(np.arange(90) % 3 > 0)
    adata.obs["kind"] = adata.obs["kind"].astype("category")
    adata.write_h5ad(tmp_path / "b.h5ad")
    mine = {"a": paths["a"], "b": tmp_path / "b.h5ad"}
    table = leave_one_out(unseen, mine, label="kind", splits=1, **HERE)
    assert list(table["held_out"]) == ["b", "b"] and (table["n_train"] + table["n_test"] == 60).all()
    assert table["auroc"].notna().all(), "a decision function will do"


def test_two_types_are_scored_by_a_decision_function(paths, tmp_path):
    adata = ad.read_h5ad(paths["b"])
    adata = adata[(adata.obs["cell_type"] != adata.obs["cell_type"].iloc[0]).to_numpy()].copy()
    adata.write_h5ad(tmp_path / "b.h5ad")
    table = leave_one_out(unseen, {"a": paths["a"], "b": tmp_path / "b.h5ad"}, hold_out=["b"], splits=1, **HERE)
    assert (table["auroc"] > 0.95).all() and (table["n_types"] == 2).all()


def test_mouse_cells_are_tested_under_human_names(tmp_path):
    pairs = data.gene_table("orthologs")
    pairs = pairs[pairs["mouse"].str.upper() == pairs["human"]].iloc[:150]
    sets = simulate.many(3, seed=1, **CELLS)
    paths = {}
    for name, adata in zip(("mouse", "human", "man"), sets):
        adata.var_names = list(pairs["mouse" if name == "mouse" else "human"])
        adata.write_h5ad(tmp_path / f"{name}.h5ad")
        paths[name] = tmp_path / f"{name}.h5ad"
    GIVEN.clear()
    table = leave_one_out(told, paths, hold_out="mouse", splits=1, to_human=True, **HERE)
    assert len(table) == 1 and GIVEN[0][2] == sorted(pairs["human"])


def small(corpus, seed):
    from shared.methods.scpretrain import ScPretrain

    model = ScPretrain(
        rounds=1, epochs=3, width=16, hidden=8, batches=4, cells_per_cluster=(20, 10, 40), fit_epochs=60, fit_lr=1e-2,
        lr=1e-2, random_state=seed, device="cpu",
    ).pretrain(corpus)  # fmt: skip
    return {"pretrained": model, "scratch": clone(model).set_params(use_pretrained=False)}


@pytest.mark.parametrize("in_memory", [True, False])
def test_an_encoder_that_was_pretrained_is_swept(paths, in_memory):
    table = leave_one_out(small, paths, hold_out=["a"], splits=1, in_memory=in_memory, **HERE)
    assert list(table["arm"]) == ["pretrained", "scratch"] and (table["make_seconds"] > 0).all()
    assert table["accuracy"].nunique() == 2 or table["auroc"].nunique() == 2, "two arms, not one twice"


def moody(corpus, seed):
    if "b" not in corpus:
        raise ValueError("too few cells for my taste")
    return logistic()


def test_a_fold_that_fails_is_told_and_the_others_stay(paths):
    with pytest.warns(SweepWarning, match=r"1 item of 4 failed \(b, seed 0\)"):
        table = leave_one_out(moody, paths, splits=1, **HERE)
    assert list(table["held_out"]) == ["a", "c", "published again"] and list(table["arm"].unique()) == ["Pipeline"]
    assert table.attrs["failed"] == {"b, seed 0": "ValueError: too few cells for my taste"}
    with pytest.warns(SweepWarning):
        table = leave_one_out(moody, paths, hold_out="b", splits=1, **HERE)
    assert table.empty and "accuracy" in table


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"paths": ["a.h5ad"]}, "dict of names"),
        ({"paths": {"a": ad.AnnData(np.ones((2, 2)))}}, "write_h5ad"),
        ({"hold_out": ["a", "d"]}, "no data set d"),
        ({"hold_out": ["bare"]}, "bare has no column 'cell_type' of two types"),
        ({"label": "kind"}, "no column 'kind' of two types"),
        ({"label": "depth"}, "'depth' holds numbers, not types"),
        ({"keep": ["a", "published again"]}, "without a, published again nothing is left"),
    ],
    ids=lambda v: next(iter(v)) if isinstance(v, dict) else "",
)
def test_what_is_refused(paths, options, says):
    keep = options.pop("keep", None)
    chosen = options.pop("paths", {n: paths[n] for n in keep} if keep else paths)
    with pytest.raises(DataError, match=says):
        leave_one_out(unseen, chosen, **HERE | options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"make": 3}, "make=3 is no function"),
        ({"splits": 0}, "splits=0 is not a whole number from 1 up, nor 'seed'"),
        ({"splits": "seeds"}, "splits='seeds'"),
        ({"limits": (5, 0)}, r"limits=\[5, 0\]"),
        ({"limits": True}, r"limits=\[True\]"),
        ({"limits": ()}, "give one or more"),
        ({"seeds": ()}, "at least one seed"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(paths, options, says):
    with pytest.raises(SettingError, match=says):
        leave_one_out(**{"make": unseen, "paths": paths} | HERE | options)


def test_the_corpus_is_let_go(paths):
    from shared.studies.leave_one_out import _KEPT

    leave_one_out(unseen, {n: paths[n] for n in "ab"}, splits=1, **HERE)
    assert not _KEPT and Corpus(paths).hashes["a"] == Corpus(paths).hashes["published again"]
