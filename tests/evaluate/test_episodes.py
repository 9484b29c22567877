"""Few-shot evaluation: values against a library, and controls that must bite."""

from dataclasses import FrozenInstanceError

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shared import evaluate
from shared.data.constraints import SettingError
from shared.data.errors import DataError
from shared.evaluate import few_shot_interval
from shared.evaluate.episodes import FewShot, _ari, few_shot_accuracy, unknown_curve
from shared.nn.episodes import encoder, use_statistics
from shared.nn.heads import nearest_centroid
from shared.nn.meta import ANIL, Frozen, Prototypical

from .few_shots import G, answers, sampler

# What a result says.


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 6), st.integers(1, 25), st.integers(0, 99))
def test_ari_of_many_episodes_is_that_of_each(ways, queries, seed):
    rng = np.random.default_rng(seed)
    target, called = rng.integers(ways, size=(2, 7, queries))
    called[0], called[1] = target[0], 0
    found = _ari(target, called, ways)
    np.testing.assert_allclose(found, [evaluate.ari(*pair) for pair in zip(target, called)], atol=1e-12)


def test_accuracy_recall_confusion_and_table_of_a_result_made_by_hand():
    scores = np.array([[[2, 1], [0, 1], [1, 1], [0, 3]], [[0, 1], [0, 1], [0, 1], [0, 1]]])
    result = answers([[0, 0, 1, 1]] * 2, scores, classes=[[2, 0], [1, 2]], names=np.array(["B", "NK", "T"]))
    assert result.accuracy.tolist() == [0.5, 0.5], "a tie goes to the first class"
    assert result.ari.tolist() == pytest.approx([evaluate.ari([0, 0, 1, 1], [0, 1, 0, 1]), 0])
    nan = np.nan
    np.testing.assert_array_equal(result.recall(), [[0.5, nan, 0.5], [nan, 0, 1]])
    expected = pd.DataFrame([[1, 0, 1], [0, 0, 2], [1, 0, 3]], index=["B", "NK", "T"], columns=["B", "NK", "T"])
    assert result.confusion().to_numpy().tolist() == expected.to_numpy().tolist()
    table = result.table()
    assert list(table) == ["accuracy", "ari", "classes"] and table["classes"].tolist() == [("T", "B"), ("NK", "T")]


def test_probabilities_and_calibration_are_those_of_the_metrics():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(50, 8, 4))
    result = answers(np.arange(4).repeat(2)[None].repeat(50, 0), logits)
    flat = logits.reshape(-1, 4).astype(np.float32).astype(float)
    proba = np.exp(flat) / np.exp(flat).sum(1, keepdims=True)
    np.testing.assert_allclose(result.probabilities().reshape(-1, 4), proba, rtol=1e-6)
    assert result.ece() == pytest.approx(evaluate.ece(result.target.ravel(), proba, range(4)))
    pd.testing.assert_frame_equal(result.reliability(), evaluate.reliability(result.target.ravel(), proba, range(4)))
    sigmoid = answers(result.target, 1 / (1 + np.exp(-logits)))
    shares = sigmoid.scores / sigmoid.scores.sum(2, keepdims=True)
    np.testing.assert_allclose(sigmoid.probabilities("share"), shares, rtol=1e-5)
    with pytest.raises(DataError, match="some scores are negative"):
        result.probabilities("share")
    with pytest.raises(SettingError, match="how='x'"):
        result.ece("x")
    with pytest.raises(SettingError, match="temperature=0"):
        result.probabilities(temperature=0)


def test_temperature_undoes_what_was_done_to_the_logits():
    rng = np.random.default_rng(1)
    logits = 2 * rng.normal(size=(1000, 4, 4))
    target = (logits + rng.gumbel(size=logits.shape)).argmax(2)  # logits that are true
    loud = answers(target, 5 * logits)
    assert loud.temperature() == pytest.approx(5, rel=0.1)
    assert loud.ece(temperature=loud.temperature()) < 0.03 < 0.1 < loud.ece()


# Asking.


def test_a_learner_is_asked_the_episodes_of_the_seed_whatever_the_batch():
    drawn, learner = sampler(), Frozen(torch.nn.Identity())
    first = few_shot_accuracy(learner, drawn, 40, seed=3)
    again = few_shot_accuracy(nearest_centroid, drawn, 40, seed=3, batch=7)
    np.testing.assert_array_equal(first.classes, again.classes)
    np.testing.assert_allclose(first.scores, again.scores, rtol=1e-4, atol=1e-4)
    assert first.scores.shape == (40, 20, 4) and not np.array_equal(
        first.classes, few_shot_accuracy(learner, drawn, 40).classes
    )
    support, query, classes = drawn.indices(40, np.random.default_rng(3))
    X, y = drawn.X.numpy(), np.repeat(np.arange(8), 30)
    for i in (0, 17):
        means = X[support[i]].mean(1)
        rows = query[i].ravel()
        called = classes[i][((X[rows, None] - means) ** 2).sum(2).argmin(1)]
        assert first.accuracy[i] == pytest.approx((called == y[rows]).mean())


def test_asking_leaves_sampler_and_learner_as_they_were():
    drawn, twin = sampler(), sampler()
    learner = Prototypical(encoder((G, 8), "batch")).train()
    learner.encoder[1].eval()
    state = {k: v.clone() for k, v in learner.state_dict().items()}
    few_shot_accuracy(learner, drawn, 5)
    few_shot_accuracy(learner.scores, drawn, 5)
    assert learner.training and not learner.encoder[1].training and learner.encoder[1].at_test == "batch"
    assert all(torch.equal(v, state[k]) for k, v in learner.state_dict().items())
    np.testing.assert_array_equal(drawn.indices(3)[0], twin.indices(3)[0])


def test_rows_are_brought_to_where_the_learner_is():
    drawn, learner, went = sampler(), Prototypical(encoder((G, 8), norm="layer")), []
    drawn.to = lambda device: went.append(device) or drawn
    few_shot_accuracy(learner, drawn, 2)
    few_shot_accuracy(learner.scores, drawn, 2)
    assert went == [torch.device("cpu")] * 2
    few_shot_accuracy(nearest_centroid, drawn, 2)
    few_shot_accuracy(Frozen(torch.nn.Identity()), drawn, 2)
    assert len(went) <= 3 and set(went) == {torch.device("cpu")}, "a head works where the rows are"


def test_inductive_and_transductive_answers_differ_where_batch_norm_looks_around():
    torch.manual_seed(0)
    learner = Prototypical(encoder((G, 8), "batch"))
    learner(*sampler().batch(20)[:2])  # collects running statistics
    inductive, transductive = (few_shot_accuracy(learner, sampler(), 20, mode=m) for m in ("inductive", "transductive"))
    assert np.abs(inductive.scores - transductive.scores).max() > 0.1
    with pytest.raises(DataError, match="differ in mode"):
        few_shot_interval([inductive, transductive], "seeds")


def test_statistics_of_the_support_are_a_third_answer_and_no_query_sees_another():
    torch.manual_seed(0)
    learner = Prototypical(encoder((G, 8)))
    modes = ("inductive", "support", "transductive")
    found = {mode: few_shot_accuracy(learner, sampler(), 20, mode=mode) for mode in modes}
    for other in ("inductive", "transductive"):
        assert np.abs(found["support"].scores - found[other].scores).max() > 0.1
    shown, asked, _ = sampler().batch(3)
    use_statistics(learner.eval(), "support")
    with torch.no_grad():
        alone = torch.cat([learner.scores(shown, asked[:, i : i + 1]) for i in range(asked.shape[1])], 1)
        torch.testing.assert_close(alone, learner.scores(shown, asked), atol=1e-4, rtol=1e-4)
    few_shot_accuracy(learner, sampler(), 2)
    assert learner.encoder.norms[0].at_test == "support"  # left as it was found


def test_an_answer_that_leans_on_other_queries_is_not_called_inductive():
    def centred(support, query):
        return nearest_centroid(support - support.mean((1, 2), keepdim=True), query - query.mean(1, keepdim=True))

    with pytest.raises(DataError, match="depends on cells that are asked about: say mode='transductive'"):
        few_shot_accuracy(centred, sampler(), 5)
    assert few_shot_accuracy(centred, sampler(), 5, mode="transductive").mode == "transductive"


def test_label_shift_breaks_what_leans_on_equal_shares_only():
    def centred(support, query):
        return nearest_centroid(support - support.mean((1, 2), keepdim=True), query - query.mean(1, keepdim=True))

    drawn, found = sampler(apart=1.5), {}
    for name, learner, mode in (("fair", nearest_centroid, "inductive"), ("leaning", centred, "transductive")):
        for queries in ("all", "one class"):
            found[name, queries] = few_shot_accuracy(learner, drawn, 100, mode=mode, queries=queries)
    shifted = found["fair", "one class"]
    assert shifted.target.shape == (100, 5) and (shifted.target == shifted.target[:, :1]).all()
    assert len(np.unique(shifted.target[:, 0])) == 4
    means = {k: v.accuracy.mean() for k, v in found.items()}
    assert min(means["fair", "all"], means["fair", "one class"], means["leaning", "all"]) > 0.97
    assert means["leaning", "one class"] < 0.6
    assert np.isnan(shifted.ari).all()
    with pytest.raises(DataError, match="no ARI where all queries are of one class"):
        few_shot_interval(shifted, what="ari")


def test_permuted_genes_change_an_encoder_and_not_a_distance():
    drawn = sampler()
    torch.manual_seed(0)
    plain, permuted = (few_shot_accuracy(nearest_centroid, drawn, 20, permute_genes=s) for s in (None, 0))
    np.testing.assert_allclose(plain.scores, permuted.scores, rtol=1e-4, atol=1e-4)
    learner = Prototypical(encoder((G, 8), "layer"))
    scores = [few_shot_accuracy(learner, drawn, 20, permute_genes=s).scores for s in (None, 0, 0, 1)]
    np.testing.assert_array_equal(scores[1], scores[2])
    assert np.abs(scores[0] - scores[1]).max() > 0.1 < np.abs(scores[1] - scores[3]).max()


def test_learners_that_step_are_asked_without_gradients():
    result = few_shot_accuracy(ANIL(encoder((G, 8), "layer"), n_way=4), sampler(apart=2), 20)
    assert result.accuracy.mean() > 0.5


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n_episodes": 0}, "n_episodes=0"),
        ({"batch": 1.5}, "batch=1.5"),
        ({"mode": "eval"}, "mode='eval' is not known: choose inductive, support, transductive"),
        ({"queries": "some"}, "queries='some'"),
        ({"unknown": -1}, "unknown=-1"),
        ({"unknown": 3}, "unknown=3 of 4 classes leaves fewer than two"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(options, said):
    with pytest.raises(SettingError, match=said):
        few_shot_accuracy(nearest_centroid, sampler(), **options)


def test_scores_that_cannot_be_used_are_refused():
    with pytest.raises(DataError, match=r"shape \(5, 4, 20\)"):
        few_shot_accuracy(lambda s, q: nearest_centroid(s, q).mT, sampler(), 5)
    with pytest.raises(DataError, match="NaN or infinite"):
        few_shot_accuracy(lambda s, q: nearest_centroid(s, q) * float("nan"), sampler(), 5, mode="transductive")


# Unknown classes.


def test_the_unknown_curve_is_counted_by_hand():
    scores = [[[5, 0], [0, 4], [1, 0], [0, 2], [3, 0], [0.5, 0]]]
    result = answers([[0, 0, 1, 1, -1, -1]], scores, unknown=1)
    assert result.accuracy.tolist() == [0.5], "of the queries of known classes"
    curve = unknown_curve(result, how=None)
    assert curve["threshold"].tolist() == [0.5, 1, 2, 3, 4, 5]
    assert curve["named"].tolist() == [1, 1, 0.75, 0.5, 0.5, 0.25]
    assert curve["refused"].tolist() == [0, 0.5, 0.5, 0.5, 1, 1]
    assert curve["accuracy"].tolist() == pytest.approx([0.5, 0.5, 2 / 3, 0.5, 0.5, 1])
    assert curve.attrs["auroc"] == pytest.approx((4 + 2) / 8)


def test_some_of_the_episodes_are_kept():
    classes, target = np.array([[0, 1], [1, 2], [2, 0]]), np.array([[0, 1], [0, 1], [0, 1]])
    scores = np.array([[[1, 0], [1, 0]], [[1, 0], [0, 1]], [[0, 1], [1, 0]]], np.float32)
    result = FewShot(np.array(["a", "b", "c"]), classes, target, scores, "support")
    some = result.only(np.array([True, False, True]))
    assert some.classes.tolist() == [[0, 1], [2, 0]] and some.accuracy.tolist() == [0.5, 0] and some.mode == "support"
    assert result.only([1]).accuracy.tolist() == [1]
    with pytest.raises(DataError, match="none of the 3 episodes is kept"):
        result.only(np.zeros(3, bool))


def test_unknown_classes_have_no_support_and_a_distance_tells_them():
    drawn = sampler(apart=3)
    result = few_shot_accuracy(nearest_centroid, drawn, 100, unknown=1)
    assert result.scores.shape == (100, 20, 3) and result.recall().notna().sum(1).eq(3).all()
    assert (result.target[:, 15:] == -1).all() and (result.target[:, :15] >= 0).all()
    assert result.accuracy.mean() > 0.97 and (few_shot_interval(result).value == result.accuracy.mean())
    assert result.confusion().to_numpy().sum() == 100 * 15
    curve = unknown_curve(result, how=None)
    assert curve.attrs["auroc"] > 0.97
    assert curve["threshold"].is_monotonic_increasing and curve["refused"].is_monotonic_increasing
    assert curve["named"].is_monotonic_decreasing and len(curve) <= 200
    assert unknown_curve(result, temperature=20.0)["threshold"].between(0, 1).all()
    with pytest.raises(DataError, match="no query is of an unknown class"):
        unknown_curve(few_shot_accuracy(nearest_centroid, drawn, 5))


def test_answers_cannot_be_changed_afterwards():
    with pytest.raises(FrozenInstanceError):
        answers([[0, 1]], np.eye(2)[None]).mode = "transductive"


def test_recall_is_over_the_queries_of_the_class_itself():
    result = answers([[0, 0, 1, 1]], [[[1, 0], [1, 0], [1, 0], [0, 1]]])
    assert result.recall().to_numpy().tolist() == [[1, 0.5]]
