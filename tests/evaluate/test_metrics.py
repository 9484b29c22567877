"""Metrics agree with scikit-learn, and their special cases are settled rather than warned about."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from shared import evaluate
from shared.data.constraints import SettingError
from shared.data.errors import DataError

CLASSES = np.array(["B", "NK", "T"])
LABELS = st.lists(st.sampled_from(CLASSES.tolist()), min_size=4, max_size=40).filter(lambda v: len(set(v)) > 1)


def soft(n, seed=0):
    rng = np.random.default_rng(seed)
    proba = rng.dirichlet(np.ones(3), n)
    y = np.array([CLASSES[rng.choice(3, p=p)] for p in proba])
    return y, proba


@settings(deadline=None)
@given(LABELS, st.randoms(use_true_random=False))
def test_hard_metrics_agree_with_scikit_learn_where_all_calls_are_known(labels, random):
    y = np.array(labels)
    called = np.array([random.choice(sorted(set(labels))) for _ in labels])
    assert evaluate.accuracy(y, called) == pytest.approx(sk.accuracy_score(y, called))
    assert evaluate.balanced_accuracy(y, called) == pytest.approx(sk.balanced_accuracy_score(y, called))
    assert evaluate.macro_f1(y, called) == pytest.approx(
        sk.f1_score(y, called, average="macro", labels=np.unique(y), zero_division=0)
    )
    assert evaluate.cohen_kappa(y, called) == pytest.approx(sk.cohen_kappa_score(y, called))


@settings(deadline=None)
@given(LABELS)
def test_perfect_and_relabelled(labels):
    y = np.array(labels)
    assert evaluate.accuracy(y, y) == evaluate.balanced_accuracy(y, y) == evaluate.macro_f1(y, y) == 1
    swap = {"B": "x", "NK": "y", "T": "z"}
    called = np.roll(y, 1)
    renamed = [np.array([swap[v] for v in part]) for part in (y, called)]
    assert evaluate.balanced_accuracy(*renamed) == evaluate.balanced_accuracy(y, called)
    assert evaluate.ari(y, called) == pytest.approx(evaluate.ari(*renamed))


def test_a_call_of_an_absent_class_is_a_miss_and_nothing_more():
    assert evaluate.balanced_accuracy(["B", "B", "T"], ["B", "NK", "T"]) == pytest.approx(0.75)
    assert evaluate.macro_f1(["B", "B", "T"], ["B", "NK", "T"]) == pytest.approx((2 / 3 + 1) / 2)


def test_one_class_on_both_sides():
    assert evaluate.cohen_kappa(["B", "B"], ["B", "B"]) == 0
    assert evaluate.balanced_accuracy(["B", "B"], ["B", "T"]) == 0.5


@pytest.mark.parametrize("name", ["auroc", "average_precision"])
def test_curves_agree_with_scikit_learn(name):
    y, proba = soft(300)
    ours = getattr(evaluate, name)(y, proba, CLASSES)
    onehot = (y[:, None] == CLASSES).astype(int)
    theirs = {"auroc": sk.roc_auc_score, "average_precision": sk.average_precision_score}[name](onehot, proba)
    assert ours == pytest.approx(theirs)
    each = getattr(evaluate, name)(y, proba, CLASSES, average=None)
    assert np.mean(list(each.values())) == pytest.approx(ours) and list(each) == CLASSES.tolist()


def test_a_class_absent_from_the_test_has_no_part_in_the_mean():
    y, proba = soft(200)
    keep = y != "NK"
    each = evaluate.auroc(y[keep], proba[keep], CLASSES, average=None)
    assert list(each) == ["B", "T"]
    assert evaluate.auroc(y[keep], proba[keep], CLASSES) == pytest.approx(np.mean(list(each.values())))


def test_a_class_the_model_never_saw_counts_as_one_it_cannot_find():
    """Two types told apart without fault and a third unknown: a mean over the known ones would call that perfect."""
    y, scores = np.array(list("aabbzz")), np.array([[9, 1], [8, 2], [1, 9], [2, 8], [5, 5], [5, 5]])
    assert evaluate.auroc(y, scores, ["a", "b"], average=None) == {"a": 1, "b": 1, "z": 0.5}
    assert evaluate.auroc(y, scores, ["a", "b"]) == pytest.approx(2.5 / 3)
    assert evaluate.auroc(y, scores, ["a", "b"], multi_class="ovo") == pytest.approx(5 / 6)
    assert evaluate.average_precision(y, scores, ["a", "b"], average=None)["z"] == pytest.approx(1 / 3)
    assert evaluate.balanced_accuracy(y, list("aabbab")) == pytest.approx(2 / 3)
    with pytest.raises(DataError, match="a class that the model knows; it knows x, y"):
        evaluate.auroc(y, scores, ["x", "y"])


def test_auroc_wants_an_order_not_probabilities():
    y, proba = soft(200)
    assert evaluate.auroc(y, proba * 7, CLASSES) == pytest.approx(evaluate.auroc(y, proba, CLASSES))


def test_average_over_pairs_agrees_with_scikit_learn():
    y, proba = soft(300)
    ours = evaluate.auroc(y, proba, CLASSES, multi_class="ovo")
    assert ours == pytest.approx(sk.roc_auc_score(y, proba, multi_class="ovo", labels=CLASSES))
    common = np.concatenate([np.flatnonzero(y != "B"), np.flatnonzero(y == "B").repeat(9)])
    assert evaluate.auroc(y[common], proba[common], CLASSES, multi_class="ovo") == pytest.approx(ours)
    assert evaluate.auroc(y[common], proba[common], CLASSES) != pytest.approx(evaluate.auroc(y, proba, CLASSES))
    with pytest.raises(SettingError, match="goes with multi_class='ovr'"):
        evaluate.auroc(y, proba, CLASSES, average=None, multi_class="ovo")
    with pytest.raises(SettingError, match="multi_class='raise'"):
        evaluate.auroc(y, proba, CLASSES, multi_class="raise")


def test_weights_are_numbers_of_cells():
    y, proba = soft(300)
    each = evaluate.auroc(y, proba, CLASSES, average=None)
    expected = sum(each[c] * (y == c).mean() for c in CLASSES)
    assert evaluate.auroc(y, proba, CLASSES, average="weighted") == pytest.approx(expected)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda v: v.astype(object),
        lambda v: pd.Series(v),
        lambda v: pd.Series(v, index=range(50, 50 + len(v)), dtype="category"),
        lambda v: pd.Series(v, dtype="string"),
        lambda v: v.tolist(),
        lambda v: v.astype(np.dtypes.StringDType()),
    ],
)
def test_the_container_of_labels_does_not_matter(wrap):
    y, proba = soft(60)
    called = CLASSES[proba.argmax(1)]
    for metric in (
        evaluate.accuracy,
        evaluate.balanced_accuracy,
        evaluate.macro_f1,
        evaluate.cohen_kappa,
        evaluate.nmi,
    ):
        assert metric(wrap(y), called) == metric(y, wrap(called)) == metric(y, called)
    assert evaluate.auroc(wrap(y), proba, wrap(CLASSES)) == evaluate.auroc(y, proba, CLASSES)
    assert evaluate.ece(wrap(y), proba, wrap(CLASSES)) == evaluate.ece(y, proba, CLASSES)


def test_whole_numbers_are_labels_however_they_are_stored():
    assert evaluate.accuracy([0, 1, 1], np.array([0.0, 1.0, 0.0])) == pytest.approx(2 / 3)
    assert evaluate.accuracy(np.array([True, False]), [1, 1]) == 0.5


@pytest.mark.parametrize("name", ["auroc", "average_precision", "macro_ovr", "ece"])
@pytest.mark.parametrize(
    ("classes", "says"),
    [
        ([0, 1, 2], "use one kind"),
        (["B", "B", "T"], "a label twice"),
        (None, "classes are needed"),
        (["B", "T"], "2 classes"),
    ],
)
def test_columns_need_labels_of_their_own(name, classes, says):
    with pytest.raises(DataError, match=says):
        getattr(evaluate, name)(*soft(50), classes)


@pytest.mark.parametrize("name", ["auroc", "average_precision", "macro_ovr", "ece"])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda y, p: (y, p.argmax(1)), "not hard labels"),
        (lambda y, p: (y, y), "not hard labels"),
        (lambda y, p: (y, p[:, 0] - p[:, 1]), r"np.column_stack\(\[-s, s\]\)"),
        (lambda y, p: (y, np.eye(3)[p.argmax(1)]), "hard labels"),
        (lambda y, p: (y, p[:, :2]), "3 classes"),
        (lambda y, p: (y, np.where(p > 0.9, np.nan, p)), "NaN or infinite"),
        (lambda y, p: (y[:0], p[:0]), "no cell"),
    ],
)
def test_what_is_no_score_is_refused(name, change, says):
    y, proba = change(*soft(100))
    with pytest.raises(DataError, match=says):
        getattr(evaluate, name)(y, proba, CLASSES)


def test_one_class_only_has_no_curve():
    _, proba = soft(20)
    with pytest.raises(DataError, match="two classes or more"):
        evaluate.auroc(np.repeat("B", 20), proba, CLASSES)
    with pytest.raises(SettingError, match="average='median' is not known"):
        evaluate.auroc(*soft(20), CLASSES, average="median")


def test_every_type_against_the_rest_is_three_areas_and_their_means():
    y, proba = soft(300)
    got, table = evaluate.macro_ovr(y, proba, CLASSES), evaluate.macro_ovr(y, proba, CLASSES, average=None)
    assert got["auroc"] == pytest.approx(evaluate.auroc(y, proba, CLASSES))
    assert got["average_precision"] == pytest.approx(evaluate.average_precision(y, proba, CLASSES))
    for i, kind in enumerate(CLASSES):
        precision, recall, _ = sk.precision_recall_curve(y == kind, proba[:, i])
        assert table["trapezoid"][kind] == pytest.approx(sk.auc(recall, precision))
    assert got["trapezoid"] == pytest.approx(table["trapezoid"].mean()) and got["n_types"] == 3
    assert table["cells"].to_dict() == {c: (y == c).sum() for c in CLASSES}


def test_which_types_a_mean_of_areas_runs_over():
    y, proba = soft(300)
    fewer = y != "NK"
    got = evaluate.macro_ovr(y[fewer], proba[fewer], CLASSES)
    assert got["n_types"] == 2 and np.isfinite(list(got.values())).all()
    some = evaluate.macro_ovr(y, proba[:, :2], CLASSES[:2], average=None)
    share = (y == "T").mean()
    assert some.loc["T", ["auroc", "average_precision", "trapezoid"]].tolist() == pytest.approx([0.5, share, share])
    known = evaluate.macro_ovr(y, proba[:, :2], CLASSES[:2], types="known")
    assert known["n_types"] == 2 and known["auroc"] == pytest.approx(some["auroc"][:2].mean())
    with pytest.raises(SettingError, match="types='all' is not known"):
        evaluate.macro_ovr(y, proba, CLASSES, types="all")
    with pytest.raises(SettingError, match="average='weighted' is not known"):
        evaluate.macro_ovr(y, proba, CLASSES, average="weighted")


def test_areas_of_hard_labels_are_refused_because_the_trapezoid_flatters_them():
    y, proba = soft(300)
    called = np.eye(3)[proba.argmax(1)]
    for hard in (called, proba.argmax(1), CLASSES[proba.argmax(1)]):
        with pytest.raises(DataError, match="hard labels"):
            evaluate.macro_ovr(y, hard, CLASSES)
    rng = np.random.default_rng(0)
    rare = rng.random(2000) < 0.05
    guess = (rng.random(2000) < 0.05).astype(float)
    steps = sk.average_precision_score(rare, guess)
    assert steps < 0.06 and evaluate.trapezoid_auprc(rare, guess) > 1.5 * steps  # both are blind guesses
    assert evaluate.trapezoid_auprc(rare, np.zeros(2000)) == pytest.approx((1 + rare.mean()) / 2)


def test_ece_against_an_oracle_written_out():
    y, proba = soft(500, seed=1)
    confidence, right = proba.max(1), CLASSES[proba.argmax(1)] == y
    expected = 0
    for i in range(15):
        inside = (confidence > i / 15) & (confidence <= (i + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    assert evaluate.ece(y, proba, CLASSES) == pytest.approx(expected)


def test_ece_of_cases_known_in_closed_form():
    sure = np.tile([0.8, 0.1, 0.1], (10, 1))
    assert evaluate.ece(["B"] * 8 + ["T"] * 2, sure, CLASSES) == pytest.approx(0)
    assert evaluate.ece(["T"] * 10, sure, CLASSES) == pytest.approx(0.8)
    assert evaluate.ece(["B"] * 10, sure, CLASSES) == pytest.approx(0.2)


def test_ece_shrinks_with_cells_when_the_model_is_calibrated():
    assert evaluate.ece(*soft(20_000), CLASSES) < 0.02 < evaluate.ece(*soft(60), CLASSES)


def test_a_confidence_on_an_edge_belongs_below_it():
    """0.7 times 10 is a little more than 7 in floating point; 0.7 still belongs to the bin from 0.6 to 0.7."""
    for tenth in range(5, 11):
        table = evaluate.reliability(["a"], [[tenth / 10, 1 - tenth / 10]], ["a", "b"], n_bins=10)
        assert table["count"].argmax() == tenth - 1


def test_reliability_table_adds_up():
    y, proba = soft(400)
    table = evaluate.reliability(y, proba, CLASSES, n_bins=10)
    assert table["count"].sum() == 400 and len(table) == 10
    assert table["accuracy"][table["count"] == 0].isna().all()
    share = (table["accuracy"] * table["count"]).sum() / 400
    assert share == pytest.approx(evaluate.accuracy(y, CLASSES[proba.argmax(1)]))
    assert (table["confidence"].dropna() <= table["high"][table["count"] > 0]).all()
    for wrong in (proba * 2, proba - 1 / 3, np.log(proba)):
        with pytest.raises(DataError, match="do not sum to one"):
            evaluate.reliability(y, wrong, CLASSES)
    with pytest.raises(SettingError, match="n_bins=0"):
        evaluate.ece(y, proba, CLASSES, n_bins=0)


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "macro_f1", "cohen_kappa"])
@pytest.mark.parametrize(
    ("y", "called", "says"),
    [
        (["B"], ["B", "T"], "shapes"),
        ([], [], "no cell"),
        (["B"], [1], "one kind"),
        (["B", None], ["B", "T"], "1 true labels are missing"),
        (np.array(["B", np.nan], dtype=object), ["B", "T"], "missing"),
        ([0, 1], [0.0, np.nan], "1 called labels are missing"),
        ([0, 1], [0.2, 0.9], "these are scores"),
        ([0, 1], [0.0, np.inf], "these are scores"),
        (np.array(["B", 1], dtype=object), ["B", "T"], "mix words and numbers"),
        (["B", "T"], np.eye(2), "one label a cell"),
        (np.array(["2020"], dtype="datetime64"), ["B"], "words or whole numbers"),
        (np.array([b"B"]), ["B"], "words or whole numbers"),
    ],
)
def test_labels_that_do_not_pair_are_refused(metric, y, called, says):
    with pytest.raises(DataError, match=says):
        getattr(evaluate, metric)(y, called)


def test_clusterings():
    y = np.repeat([0, 1, 2], 20)
    assert evaluate.ari(y, y) == evaluate.nmi(y, y) == 1
    assert abs(evaluate.ari(y, np.random.default_rng(0).permutation(y))) < 0.1
    X = np.random.default_rng(0).normal(size=(60, 4)) + 10 * y[:, None]
    assert evaluate.silhouette(X, y) > 0.6
    with pytest.raises(DataError, match="two groups"):
        evaluate.silhouette(X, np.zeros(60))
    with pytest.raises(DataError, match="one row a cell"):
        evaluate.silhouette(X, y[:-1])
    assert evaluate.ari(np.array(list("abc"))[y], y) == 1
    for metric in (evaluate.ari, evaluate.nmi):
        with pytest.raises(DataError, match="give both for each cell"):
            metric(y, y[:-1])


def test_score_gives_several_and_asks_for_what_it_needs():
    y, proba = soft(100)
    got = evaluate.score(y, proba=proba, classes=CLASSES, metrics=("accuracy", "auroc", "ece"))
    assert got["accuracy"] == evaluate.accuracy(y, CLASSES[proba.argmax(1)]) and len(got) == 3
    with pytest.raises(DataError, match="auroc needs proba"):
        evaluate.score(y, y_pred=y, metrics=("auroc",))
    assert evaluate.score(y, proba=np.eye(3)[proba.argmax(1)], classes=CLASSES)["accuracy"] == got["accuracy"]
    with pytest.raises(DataError, match="any metric needs y_pred, or proba"):
        evaluate.score(y)
    with pytest.raises(DataError, match="classes are needed"):
        evaluate.score(y, proba=proba)
    with pytest.raises(DataError, match="300 scores are NaN"):
        evaluate.score(y, proba=proba * np.nan, classes=CLASSES)
    with pytest.raises(SettingError, match="metric='f2' is not known"):
        evaluate.score(y, y_pred=y, metrics=("f2",))
