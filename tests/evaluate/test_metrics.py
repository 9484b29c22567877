"""Metrics agree with scikit-learn, and their special cases are settled rather than warned about."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from shared import evaluate
from shared.evaluate import MetricError

CLASSES = np.array(["B", "NK", "T"])
LABELS = st.lists(st.sampled_from(CLASSES.tolist()), min_size=4, max_size=40).filter(lambda v: len(set(v)) > 1)


def soft(n, seed=0):
    rng = np.random.default_rng(seed)
    proba = rng.dirichlet(np.ones(3), n)
    y = np.array([CLASSES[rng.choice(3, p=p)] for p in proba])
    return y, proba


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


def test_auroc_leaves_out_a_class_that_is_absent_and_counts_strangers_as_rest():
    y, proba = soft(200)
    two = np.where(y == "NK", "stranger", y)
    each = evaluate.auroc(two, proba, CLASSES, average=None)
    assert list(each) == ["B", "T"]
    assert evaluate.auroc(y, proba * 7, CLASSES) == pytest.approx(evaluate.auroc(y, proba, CLASSES))


@pytest.mark.parametrize("name", ["auroc", "average_precision", "ece"])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda y, p: (y, p.argmax(1)), "not hard labels"),
        (lambda y, p: (y, np.eye(3)[p.argmax(1)]), "hard labels"),
        (lambda y, p: (y, p[:, :2]), "3 classes"),
        (lambda y, p: (y, np.where(p > 0.9, np.nan, p)), "NaN or infinite"),
        (lambda y, p: (y[:0], p[:0]), "no cell"),
    ],
)
def test_what_is_no_score_is_refused(name, change, says):
    y, proba = change(*soft(100))
    with pytest.raises(MetricError, match=says):
        getattr(evaluate, name)(y, proba, CLASSES)


def test_one_class_only_has_no_curve():
    _, proba = soft(20)
    with pytest.raises(MetricError, match="two classes or more"):
        evaluate.auroc(np.repeat("B", 20), proba, CLASSES)
    with pytest.raises(MetricError, match="median"):
        evaluate.auroc(*soft(20), CLASSES, average="median")


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


def test_reliability_table_adds_up():
    y, proba = soft(400)
    table = evaluate.reliability(y, proba, CLASSES, n_bins=10)
    assert table["count"].sum() == 400 and len(table) == 10
    assert table["accuracy"][table["count"] == 0].isna().all()
    share = (table["accuracy"] * table["count"]).sum() / 400
    assert share == pytest.approx(evaluate.accuracy(y, CLASSES[proba.argmax(1)]))
    with pytest.raises(MetricError, match="do not sum to one"):
        evaluate.reliability(y, proba * 2, CLASSES)


@pytest.mark.parametrize(
    ("y", "called", "says"),
    [(["B"], ["B", "T"], "shapes"), ([], [], "no cell"), (["B"], [1], "one kind")],
)
def test_labels_that_do_not_pair_are_refused(y, called, says):
    with pytest.raises(MetricError, match=says):
        evaluate.accuracy(y, called)


def test_clusterings():
    y = np.repeat([0, 1, 2], 20)
    assert evaluate.ari(y, y) == evaluate.nmi(y, y) == 1
    assert abs(evaluate.ari(y, np.random.default_rng(0).permutation(y))) < 0.1
    X = np.random.default_rng(0).normal(size=(60, 4)) + 10 * y[:, None]
    assert evaluate.silhouette(X, y) > 0.6
    with pytest.raises(MetricError, match="two groups"):
        evaluate.silhouette(X, np.zeros(60))


def test_score_gives_several_and_asks_for_what_it_needs():
    y, proba = soft(100)
    got = evaluate.score(y, proba=proba, classes=CLASSES, metrics=("accuracy", "auroc", "ece"))
    assert got["accuracy"] == evaluate.accuracy(y, CLASSES[proba.argmax(1)]) and len(got) == 3
    with pytest.raises(MetricError, match="auroc needs proba"):
        evaluate.score(y, y_pred=y, metrics=("auroc",))
    with pytest.raises(MetricError, match="'f2' is not known"):
        evaluate.score(y, y_pred=y, metrics=("f2",))
