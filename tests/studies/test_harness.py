"""The harness: every arm meets the same rows, a stopped study goes on, budgets are equal, the unit is named."""

import functools

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from shared.data.constraints import SettingError
from shared.data.errors import DataError
from shared.data.parallel import SweepWarning
from shared.evaluate import over_seeds
from shared.methods.base import example_cells
from shared.methods.baselines import ladder_models
from shared.methods.network_classifier import NetworkClassifier
from shared.studies import compare, fit_arms, run, search

ARMS = {"logistic": LogisticRegression(), "majority": DummyClassifier()}


def drawn(seed, n=60):
    """Two classes that one gene tells apart: a training and a test part."""
    rng = np.random.default_rng(seed)
    y = np.repeat(["B", "T"], n // 2)
    X = rng.normal(size=(n, 5)) + 3 * (y == "T")[:, None] * [1, 0, 0, 0, 0]
    rows = rng.permutation(n)
    return tuple((X[part], y[part]) for part in (rows[: n // 2], rows[n // 2 :]))


def dummy(train, seed, strategy):
    """Calls every cell of one class: the commoner, or the other."""
    common = "B" if (train[1] == "B").mean() > 0.5 else "T"
    return DummyClassifier(
        strategy="constant", constant=common if strategy == "most_frequent" else "BT".replace(common, "")
    ).fit(*train)


class Stacked:
    """An arm that trains several seeds together."""

    def __init__(self):
        self.calls = []

    def fit_seeds(self, train, seeds):
        self.calls.append(list(seeds))
        return [f"{train} {seed}" for seed in seeds]


def test_every_arm_meets_the_same_rows_of_every_data_set_and_seed():
    met = []

    def arm(train, seed):
        met.append(train[0].tobytes())
        return LogisticRegression().fit(*train)

    table = run({"one": arm, "other": arm}, {"a": drawn(0), "drawn": drawn}, [3, 4], "accuracy")
    assert list(zip(table["data"], table["arm"], table["seed"], strict=True)) == [
        (d, a, s) for d in ("a", "drawn") for a in ("one", "other") for s in (3, 4)
    ]
    assert met[:4] == [drawn(0)[0][0].tobytes()] * 4 and met[4:6] == met[6:] and met[4] != met[5]
    assert table["value"].between(0.8, 1).all() and table.attrs == {"unit": "data", "failed": {}}


def test_estimators_are_cloned_and_their_random_parts_set():
    forest = RandomForestClassifier(3)
    models = fit_arms({"forest": forest}, {"a": drawn(0)[0]}, [5, 6])
    assert [m.random_state for m in models.values()] == [5, 6] and not hasattr(forest, "classes_")
    assert list(models) == [("a", "forest", 5), ("a", "forest", 6)]


def test_a_metric_gives_a_number_columns_or_rows():
    data = {"a": drawn(0)}
    assert list(run(ARMS, data, [0], ["accuracy", "macro_f1"]).columns) == [
        "data",
        "arm",
        "seed",
        "accuracy",
        "macro_f1",
    ]
    assert run(ARMS, data, [0], lambda model, test, seed: len(test[1]) + seed)["value"].tolist() == [30, 30]
    rows = run(ARMS, data, [0], lambda *_: [{"labels": 5, "value": 1}, {"labels": 9, "value": 2}], unit="labels")
    assert rows["labels"].tolist() == [5, 9, 5, 9] and rows.attrs["unit"] == "labels"


def test_estimators_that_read_anndata_get_it():
    cells = example_cells()
    arms = {"network": NetworkClassifier((8,), epochs=20, lr=1e-2, device="cpu")}
    table = run(arms, {"cells": ((cells[:40], "cell_type"), (cells[40:], "cell_type"))}, [0, 1], "balanced_accuracy")
    assert (table["value"] > 0.6).all()


def test_the_ladder_of_baselines_is_a_set_of_arms():
    table = run(
        ladder_models() | {"mine": LogisticRegression(C=10)}, {"a": drawn(0), "b": drawn(1)}, [0], "balanced_accuracy"
    )
    found = compare(table, "majority class")
    assert "mine" in found.index and found.loc["mine", "difference"] > 0.3 and (found["n"] == 2).all()


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.nightly)])
def test_seeds_are_trained_together_where_an_arm_can(workers):
    arm = Stacked()
    models = fit_arms({"s": arm}, {"a": "cells"}, range(5), at_once=2, workers=workers)
    assert list(models.values()) == [f"cells {s}" for s in range(5)]
    assert arm.calls == ([[0, 1], [2, 3], [4]] if workers == 1 else [])


@pytest.mark.nightly
def test_processes_find_what_a_loop_finds():
    arms = {"forest": RandomForestClassifier(3), "typed": lambda train, seed: LogisticRegression().fit(*train)}
    one, two = (run(arms, {"a": drawn}, range(3), "accuracy", workers=n) for n in (1, 2))
    pd.testing.assert_frame_equal(one, two)


def test_a_stopped_study_goes_on_and_another_one_is_not_taken_for_it(tmp_path):
    calls = []

    def metric(model, test, seed):
        calls.append(seed)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return float((model.predict(test[0]) == test[1]).mean())

    asked = ARMS, {"a": drawn(0)}, [0, 1], metric
    with pytest.raises(KeyboardInterrupt):
        run(*asked, out=tmp_path)
    table = run(*asked, out=tmp_path)
    assert calls == [0, 1, 0, 0, 1]
    pd.testing.assert_frame_equal(run(*asked, out=tmp_path), table)
    assert len(calls) == 5
    run({"logistic": LogisticRegression(C=9)}, *asked[1:], out=tmp_path)
    run(asked[0], {"a": drawn(1)}, *asked[2:], out=tmp_path)
    assert len(calls) == 5 + 2 + 4


def test_results_of_another_metric_or_argument_are_not_taken_and_a_study_may_grow(tmp_path):
    data = {"a": drawn(0)}
    arms, calls = {"strategy": functools.partial(dummy, strategy="most_frequent")}, []
    first = run(arms, data, [0], "accuracy", out=tmp_path)
    assert run(arms, data, [0], ["accuracy", "macro_f1"], out=tmp_path)["macro_f1"].notna().all()
    other = run({"strategy": functools.partial(dummy, strategy="last")}, data, [0], "accuracy", out=tmp_path)
    assert first["value"].item() + other["value"].item() == pytest.approx(1)

    def counted(model, test, seed):
        calls.append(seed)
        return 1.0

    run(ARMS, data, [0], counted, out=tmp_path)
    run(ARMS | {"more": LogisticRegression(C=2)}, data | {"b": drawn(1)}, [0, 1], counted, out=tmp_path)
    assert len(calls) == 2 + (3 * 2 * 2 - 2), "what was finished ran again"


def test_data_that_were_used_are_the_same_data_and_changed_ones_are_not(tmp_path):
    adata, fits = example_cells(counts=True), []

    def arm(train, seed):
        fits.append(seed)
        return DummyClassifier().fit(train[0].X, train[0].obs["cell_type"])

    def study(adata):
        run({"arm": arm}, {"a": ((adata, "cell_type"), None)}, [0], lambda *_: 1.0, out=tmp_path)
        return len(fits)

    adata.X = sparse.csr_matrix(adata.X)
    assert study(adata) == 1
    adata.X.has_canonical_format, adata.obs["cell_type"].unique(), adata.var_names.get_loc(adata.var_names[2])
    assert study(adata) == study(adata.copy()) == study(adata[:]) == 1
    changes = []
    for number in range(5):
        other = adata.copy()
        if number == 0:
            other.X[0, 0] += 1
        elif number == 1:
            other.obs["cell_type"] = other.obs["cell_type"].to_numpy()[::-1]
        elif number == 2:
            other.var_names = other.var_names[::-1]
        elif number == 3:
            other.layers["more"] = other.X
        else:
            other.uns["units"] = "log"
        changes.append(study(other))
    assert changes == [2, 3, 4, 5, 6]


def test_a_cell_that_fails_is_told_and_the_others_stay():
    def arm(train, seed):
        if seed:
            raise ValueError("no such gene")
        return LogisticRegression().fit(*train)

    with pytest.warns(SweepWarning, match="1 item of 2 failed"):
        table = run({"arm": arm}, {"a": drawn(0)}, [0, 1], "accuracy")
    assert table["seed"].tolist() == [0] and table.attrs["failed"] == {"a, arm, seed 1": "ValueError: no such gene"}
    with pytest.raises(ValueError, match="no such gene"):
        fit_arms({"arm": arm}, {"a": drawn(0)[0]}, [0, 1])


def test_where_all_fail_the_errors_are_told_and_not_the_unit():
    with pytest.warns(SweepWarning):
        table = run({"arm": lambda train, seed: 1 / 0}, {"a": drawn(0)}, [0], "accuracy", unit="donor")
    assert table.empty and "ZeroDivisionError" in table.attrs["failed"]["a, arm, seed 0"]


def test_search_gives_every_arm_the_same_grid_and_names_an_edge():
    data = {"a": drawn(0)}
    score = {0.1: 1, 1.0: 3, 10.0: 2}
    arms = {"one": LogisticRegression(), "other": LogisticRegression()}
    best, table = search(arms, {"C": score}, data, [0, 1], lambda model, *_: score[model.C])
    assert [m.C for m in best.values()] == [1, 1] and arms["one"].C == 1
    assert table.to_dict() == dict.fromkeys(arms, score) and table.index.name == "C"
    with pytest.warns(UserWarning, match="the best C of one, other is at the edge of the grid: widen it"):
        best, _ = search(arms, {"C": score}, data, [0], lambda model, *_: -model.C)
    assert best["one"].C == 0.1


def test_differences_are_means_over_units_or_over_groups_of_them():
    rows = [("a", 0.5, 0.6), ("b", 0.5, 0.8), ("c", 0.5, 0.4)]
    table = pd.DataFrame([(s, k, v) for s, x, y in rows for k, v in (("old", x), ("new", y))])
    table.columns = ["donor", "arm", "accuracy"]
    got = compare(table, "old", "accuracy", "donor").loc["new"]
    wanted = over_seeds([0.1, 0.3, -0.1])
    assert got[["difference", "low", "high"]].tolist() == pytest.approx([wanted.value, wanted.low, wanted.high])
    assert got["wins"] == 2 and got["n"] == 3
    got = compare(table, "old", "accuracy", "donor", {"a": "one", "b": "one"}).loc["new"]
    assert got["difference"] == pytest.approx(0.05) and got["n"] == 2 and got["wins"] == 1
    alone = compare(table[table["donor"] == "a"], "old", "accuracy", "donor").loc["new"]
    assert alone["difference"] == pytest.approx(0.1) and np.isnan(alone["low"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"arms": {}}, "0 arms and 1 data sets"),
        ({"data": {}}, "2 arms and 0 data sets"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [1, 1]}, "one name"),
        ({"at_once": 0}, "at_once=0"),
        ({"unit": "donor"}, "unit='donor' is no column"),
        ({"client": object(), "workers": 2}, "leave out workers="),
    ],
)
def test_what_cannot_be_run_is_refused(change, said):
    asked = {"arms": ARMS, "data": {"a": drawn(0)}, "seeds": [0], "metric": "accuracy"}
    with pytest.raises((SettingError, DataError), match=said):
        run(**asked | change)
    with pytest.raises(SettingError, match="search compares one number"):
        search(ARMS, {"random_state": [0]}, asked["data"], [0], ["accuracy", "macro_f1"])


def test_a_baseline_or_a_column_that_is_not_there():
    table = run(ARMS, {"a": drawn(0)}, [0], "accuracy")
    with pytest.raises(DataError, match="no arm is called 'none': choose of logistic, majority"):
        compare(table, "none")
    with pytest.raises(DataError, match="no column donor"):
        compare(table, "majority", unit="donor")
