"""One call, one table; a baseline that breaks keeps its row and stops no other."""

import sys
import time

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid

from shared import evaluate
from shared.evaluate import ladder

MODELS = {
    "majority": DummyClassifier(),
    "centroid": NearestCentroid(),
    "logistic": LogisticRegression(C=0.1),
    "forest": RandomForestClassifier(20, random_state=0),
}


class Breaks(ClassifierMixin, BaseEstimator):
    def fit(self, X, y):
        raise RuntimeError("no good")


def cells(shift=0.0, n=60, seed=0):
    """Two studies of three types; the second is moved by `shift` along every gene."""
    rng = np.random.default_rng(seed)
    y = np.repeat(["B", "NK", "T"], n)
    centres = 1.2 * np.random.default_rng(9).normal(size=(3, 30))
    X = centres[np.repeat([0, 1, 2], n)] + rng.normal(size=(3 * n, 30)) + shift
    return X.astype(np.float32), y


def test_one_row_a_rung_in_order_with_intervals():
    table = ladder(*cells(), *cells(seed=1), models=MODELS, n_boot=200)
    assert list(table.index) == list(MODELS)
    assert table.loc["majority", "balanced_accuracy"] == pytest.approx(1 / 3)
    for m in ("balanced_accuracy", "accuracy", "macro_f1", "cohen_kappa"):
        assert (table[f"{m}_low"] <= table[m]).all() and (table[m] <= table[f"{m}_high"]).all()
    assert table.loc["logistic", "balanced_accuracy"] > 0.9 and (table["seconds"] > 0).all()
    assert table["n_seeds"].to_dict() == {"majority": 1, "centroid": 1, "logistic": 1, "forest": 3}


def test_numbers_are_those_of_the_metrics():
    (X, y), (Z, t) = cells(), cells(seed=1)
    table = ladder(X, y, Z, t, models={"logistic": MODELS["logistic"]}, n_boot=10)
    called = MODELS["logistic"].fit(X, y).predict(Z)
    for m in ("balanced_accuracy", "accuracy", "macro_f1", "cohen_kappa"):
        assert table.loc["logistic", m] == pytest.approx(getattr(evaluate, m)(t, called))


def test_the_centred_rung_undoes_a_shift_and_is_marked():
    (X, y), (Z, t) = cells(), cells(shift=4.0, seed=1)
    table = ladder(X, y, Z, t, models=MODELS, study_train=["a"] * len(y), study_test=["b"] * len(t), n_boot=50)
    last = table.iloc[-1]
    assert last["balanced_accuracy"] > table.loc["logistic", "balanced_accuracy"] + 0.2
    assert table["sees_test_cells"].tolist() == [False] * 4 + [True]


def test_sparse_and_dense_climb_alike():
    (X, y), (Z, t) = cells(), cells(seed=1)
    X[X < 0], Z[Z < 0] = 0, 0
    models = {k: MODELS[k] for k in ("majority", "logistic")}
    dense = ladder(X, y, Z, t, models=models, n_boot=50)
    thin = ladder(sparse.csr_matrix(X), y, sparse.csr_matrix(Z), t, models=models, n_boot=50)
    assert dense["accuracy"].to_numpy() == pytest.approx(thin["accuracy"].to_numpy(), abs=0.01)


def test_a_broken_rung_keeps_its_row_and_the_others_go_on():
    with pytest.warns(RuntimeWarning, match="'new' failed: RuntimeError: no good"):
        table = ladder(*cells(), *cells(seed=1), models=MODELS, extra={"new": Breaks()}, n_boot=20)
    assert table.loc["new", "error"] == "RuntimeError: no good" and np.isnan(table.loc["new", "accuracy"])
    assert (table["error"].drop("new") == "").all() and table["accuracy"].drop("new").notna().all()


def test_a_rung_that_calls_nonsense_keeps_its_row():
    class Nonsense(ClassifierMixin, BaseEstimator):
        def fit(self, X, y):
            return self

        def predict(self, X):
            return np.zeros(len(X) - 1, dtype=int)

    with pytest.warns(RuntimeWarning, match="'new' failed: DataError: labels have shapes"):
        table = ladder(*cells(), *cells(seed=1), models=MODELS, extra={"new": Nonsense()}, n_boot=20)
    assert table.loc["new", "n_seeds"] == 0 and table["accuracy"].notna().sum() == 4


def test_centring_that_fails_costs_its_own_rung_only(monkeypatch):
    def no_room(X, study):
        raise MemoryError("dense copy")

    # By module: ``shared.evaluate.ladder`` as a name is the function.
    monkeypatch.setattr(sys.modules["shared.evaluate.ladder"], "center_by", no_room)
    (X, y), (Z, t) = cells(), cells(seed=1)
    with pytest.warns(RuntimeWarning, match="failed: MemoryError"):
        table = ladder(X, y, Z, t, models=MODELS, study_train=y, study_test=t, n_boot=20)
    assert table["error"].tolist() == [""] * 4 + ["MemoryError: dense copy"]
    assert table["sees_test_cells"].tolist() == [False] * 4 + [True]


def test_a_class_that_training_lacks_is_missed():
    (X, y), (Z, t) = cells(), cells(seed=1)
    keep = y != "T"
    table = ladder(X[keep], y[keep], Z, t, models=MODELS, n_boot=50)
    assert table["balanced_accuracy"].max() <= 2 / 3 and (table["error"] == "").all()


def test_tables_and_columns_are_taken_as_they_come():
    (X, y), (Z, t) = cells(), cells(seed=1)
    models = {k: MODELS[k] for k in ("majority", "logistic")}
    plain = ladder(X, y, Z, t, models=models, n_boot=50).drop(columns="seconds")
    frames = ladder(
        pd.DataFrame(X), pd.Series(y, dtype="category"), Z.tolist(), t.astype(object), models=models, n_boot=50
    )
    # The list is float64, so the last digits of a fit may differ.
    pd.testing.assert_frame_equal(plain, frames.drop(columns="seconds"), atol=0.01)
    coo = ladder(sparse.coo_matrix(X), y, sparse.csc_matrix(Z), t, models=models, n_boot=50)
    assert coo["accuracy"].to_numpy() == pytest.approx(plain["accuracy"].to_numpy(), abs=0.01)


def test_pooling_over_seeds_widens_the_interval_by_what_seeds_differ():
    class Moody(ClassifierMixin, BaseEstimator):
        """Right in nine of ten cells with seed 0, in five of ten with seed 1."""

        def __init__(self, random_state=0):
            self.random_state = random_state

        def fit(self, X, y):
            return self

        def predict(self, X):
            right = np.arange(len(X)) % 10 < (9, 5)[self.random_state]
            return np.where(right, np.repeat(["B", "NK", "T"], 60), "none")

    table = ladder(*cells(), *cells(seed=1), models={"moody": Moody()}, seeds=(0, 1), n_boot=1000)
    row = table.loc["moody"]
    assert row["accuracy"] == pytest.approx(0.7) and row["n_seeds"] == 2
    assert row["accuracy_low"] < 0.5 and row["accuracy_high"] > 0.9


def test_the_same_call_gives_the_same_table():
    one, two = (ladder(*cells(), *cells(seed=1), models=MODELS, n_boot=50).drop(columns="seconds") for _ in range(2))
    pd.testing.assert_frame_equal(one, two)


def test_models_are_not_changed():
    model = LogisticRegression(C=0.1)
    ladder(*cells(), *cells(seed=1), models={"logistic": model}, n_boot=10)
    assert not hasattr(model, "coef_")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda X, y, Z, t: ((X, y[:-1], Z, t), {}), "training cells: .*inconsistent numbers of samples"),
        (lambda X, y, Z, t: ((X, y, Z[:, :-1], t), {}), "test cells: these are not the 30 genes of before"),
        (lambda X, y, Z, t: ((X, y, Z, t), {"metrics": ("auroc",)}), "auroc"),
        (lambda X, y, Z, t: ((X, y, Z, t), {"seeds": ()}), "at least one seed"),
        (lambda X, y, Z, t: ((X, y, Z, t), {"n_boot": 2}), "n_boot=2 is not a whole number from 3 up"),
        (lambda X, y, Z, t: ((X, y, Z, t), {"study_test": t}), "study of one side only"),
        (lambda X, y, Z, t: ((X, y, Z, t), {"study_train": y, "study_test": t[1:]}), r"study_test has shape \(179,\)"),
        (
            lambda X, y, Z, t: ((X, y, Z, t), {"extra": {"logistic": Breaks()}}),
            "two baselines have the name 'logistic'",
        ),
        (lambda X, y, Z, t: ((X, y, Z, np.arange(len(t))), {}), "one kind of label"),
        (
            lambda X, y, Z, t: ((X, np.where(y == "B", None, y), Z, t), {}),
            "training cells: y has no label for 60 of 180",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(change, says):
    args, options = change(*cells(), *cells(seed=1))
    with pytest.raises(ValueError, match=says):
        ladder(*args, models=MODELS, **options)


def test_annotated_cells_are_read_and_their_genes_compared():
    sides = []
    for seed in (0, 1):
        X, y = cells(seed=seed)
        obs = pd.DataFrame({"kind": y}, index=[f"c{i}" for i in range(len(y))])
        sides.append(ad.AnnData(X, obs=obs, var=pd.DataFrame(index=[f"G{i}" for i in range(X.shape[1])])))
    train, test = sides
    table = ladder(train, "kind", test, "kind", models=MODELS, n_boot=50).drop(columns="seconds")
    plain = ladder(*cells(), *cells(seed=1), models=MODELS, n_boot=50).drop(columns="seconds")
    pd.testing.assert_frame_equal(table, plain)
    with pytest.raises(ValueError, match=r"test cells: .*another order"):
        ladder(train, "kind", test[:, ::-1], "kind", models=MODELS)


def test_default_rungs_are_the_book_s():
    from shared.methods.baselines import ladder_models

    table = ladder(*cells(n=40), *cells(n=40, seed=1), n_boot=20, seeds=(0,))
    assert list(table.index) == list(ladder_models(random_state=0)) and (table["error"] == "").all()


def test_a_hundred_thousand_cells_bootstrap_in_a_moment():
    rng = np.random.default_rng(0)
    y = rng.choice(list("abcdefghijk"), 100_000)
    from shared.evaluate.intervals import confusion_bootstrap, from_confusion

    start = time.perf_counter()
    drawn, _, own = confusion_bootstrap(y, rng.permutation(y), 1000, rng)
    from_confusion(drawn, own)
    assert time.perf_counter() - start < 2


def test_a_ladder_reads_as_values_with_intervals():
    (X, y), (Z, t) = cells(), cells(seed=1)
    table = ladder(X, y, Z, t, models={"centroid": NearestCentroid()}, n_boot=50)
    shown, entry = evaluate.readable(table, ["accuracy"]), evaluate.at(table, "centroid", "accuracy")
    assert shown.loc["centroid", "accuracy"] == f"{entry:.2f}" and list(shown) == ["accuracy"]
    assert entry.low <= entry.value == table.loc["centroid", "accuracy"] <= entry.high
    with pytest.raises(KeyError, match="no baseline 'forest'; there are centroid"):
        evaluate.at(table, "forest")
    seen = ladder(X, y, Z, t, models=MODELS, study_train=y, study_test=t, n_boot=10)
    assert evaluate.readable(seen)["sees test cells"].tolist() == ["", "", "", "", "yes"]


def test_learning_curve_is_recall_by_type():
    (X, y), (Z, t) = cells(), cells(seed=1)
    X, Z = X[:, :4], Z[:, :4]  # too few genes for two cells a type to be enough
    models = {"centroid": NearestCentroid(), "majority": DummyClassifier()}
    curve = evaluate.learning_curve(models, X, y, Z, t, sizes=[2, 500], seeds=[0, 1])
    assert len(curve) == 2 * 2 * 2 * 3
    whole = curve[(curve["k"] == 500) & (curve["model"] == "centroid")].groupby("seed")["recall"].mean()
    called = NearestCentroid().fit(X, y).predict(Z)
    assert whole.to_numpy() == pytest.approx([evaluate.balanced_accuracy(t, called)] * 2)
    few = curve[(curve["k"] == 2) & (curve["model"] == "centroid")].groupby("seed")["recall"].mean()
    assert few.mean() < whole.mean()
    assert (curve[curve["model"] == "majority"].groupby(["k", "seed"])["recall"].mean() == 1 / 3).all()


def test_seconds_of_the_rungs_are_part_of_those_of_the_call():
    start = time.perf_counter()
    table = ladder(*cells(), *cells(seed=1), models=MODELS, n_boot=50)
    assert 0 < table["seconds"].sum() < time.perf_counter() - start


def test_a_printed_ladder_fits_a_screen_and_keeps_its_numbers():
    (X, y), (Z, t) = cells(), cells(seed=1)
    with pytest.warns(RuntimeWarning, match="no good"):
        table = ladder(X, y, Z, t, models=MODELS, extra={"new": Breaks()}, study_train=y, study_test=t, n_boot=20)
    lines = str(table).splitlines()
    assert max(map(len, lines)) <= 80 and len(lines) == 8 and "failed" in lines[-2] and "logistic" in lines[4]
    html = table._repr_html_()
    assert "balanced accuracy" in html and "seconds" not in html and {"seconds", "cohen_kappa_low"} <= {*table.columns}
    assert "macro f1" in html and str(table[["seconds"]]).splitlines()[0].split() == ["seconds"]
    one = ladder(X, y, Z, t, models={"centroid": NearestCentroid()}, metrics=("accuracy",), n_boot=10)
    assert str(one).split()[:2] == ["accuracy", "baseline"]
    assert "0.9" in str(one) or "1.00 [" in str(one)
    assert "seconds" in pd.DataFrame(one).to_string()


def test_a_bar_stands_on_a_terminal_only(capfd, monkeypatch):
    (X, y), (Z, t) = cells(), cells(seed=1)
    bar, shown = sys.modules["shared.evaluate.ladder"].tqdm, []
    monkeypatch.setattr(
        sys.modules["shared.evaluate.ladder"], "tqdm", lambda *a, **how: (shown.append(how), bar(*a, **how))[1]
    )
    for progress in (True, False):
        ladder(X, y, Z, t, models={"centroid": NearestCentroid()}, n_boot=10, progress=progress)
    assert [how["disable"] for how in shown] == [None, True] and shown[0]["delay"] >= 1
    assert capfd.readouterr() == ("", "")


def test_the_nearest_name_is_offered():
    (X, y), (Z, t) = cells(), cells(seed=1)
    with pytest.raises(
        ValueError, match=r"metrics=\('acuracy',\) are not known: choose of .*; did you mean 'accuracy'\?"
    ):
        ladder(X, y, Z, t, models=MODELS, metrics=("acuracy",))
    table = ladder(X, y, Z, t, models={"centroid": NearestCentroid()}, n_boot=10)
    with pytest.raises(KeyError, match="did you mean 'centroid'"):
        evaluate.at(table, "Centroids")
