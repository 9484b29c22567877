"""Networks under examination, on simulated classes far apart."""

import numpy as np
import pytest
import torch

from shared.data.errors import DataError
from shared.experiments import judging
from shared.experiments.arms import Arm, Recipe, exam_on, examine, network
from shared.nn.heads import logistic, nearest_centroid

RECIPE = Recipe(widths=(24, 12), relation=(12,), tuning=20, exams=8, n_query=4)
SEEDS = (0, 1)


def study(seed, n_classes=7, n_rows=30, n_genes=40, noise=0.15):
    rng = np.random.default_rng(5)
    X = np.repeat(rng.random((n_classes, n_genes)), n_rows, 0)
    X = X + noise * np.random.default_rng(seed).standard_normal(X.shape)
    return X.clip(0, 1).astype(np.float32), np.repeat([f"type {i}" for i in range(n_classes)], n_rows)


def test_likeness_is_the_correlation_of_features_and_leaves_the_network_alone():
    net, X = network(40, "none", RECIPE, 0), study(0)[0]
    net.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = judging.likeness([net, network(40, "none", RECIPE, 1)], X)
    with torch.no_grad():
        Z = net.encoder(torch.from_numpy(X)).numpy()  # in training mode: by the rows' own statistics
    Z = Z[:, Z.std(0) > 1e-6]
    assert len(found) == 2 and len(found[0]) == Z.shape[1] * (Z.shape[1] - 1) / 2
    assert found[0][0] == pytest.approx(np.corrcoef(Z[:, 0], Z[:, 1])[0, 1], abs=1e-4)
    net.load_state_dict(before)
    again = judging.likeness([net], X)[0]
    assert net.training and all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    np.testing.assert_array_equal(again, found[0])


def test_a_stranger_was_never_met_in_tuning(monkeypatch):
    tuned_on, asked, plain, curve = [], [], judging.tuned, judging.unknown_curve
    monkeypatch.setattr(
        judging,
        "tuned",
        lambda arm, begun, data, *rest: tuned_on.append(set(data[1])) or plain(arm, begun, data, *rest),
    )
    monkeypatch.setattr(judging, "unknown_curve", lambda found, how: asked.append(found) or curve(found, how))
    others = {"centroid": nearest_centroid, "one a seed": [logistic, nearest_centroid]}
    table = judging.strangers(Arm("", "none"), study(0), study(1, noise=0.5), RECIPE, SEEDS, others, n_new=2, n_way=5)
    assert len(tuned_on) == len(SEEDS) and tuned_on[0] != tuned_on[1]
    for seed, known in enumerate(tuned_on):
        assert len(known) == 5
        for found in asked[3 * seed : 3 * seed + 3]:
            assert not known & set(found.names[found.classes[:, -1]]) and len(found.classes) < 3 * RECIPE.exams
    assert table.groupby("model", sort=False).size().to_dict() == {
        "tuned without it": 12, "centroid": 12, "one a seed": 12,
    }  # fmt: skip
    at = table.pivot(index=["seed", "price"], columns="model", values="caught")
    assert (at["centroid"].groupby("seed").diff().dropna() >= 0).all()
    np.testing.assert_array_equal(at.loc[1, "one a seed"], at.loc[1, "centroid"])
    assert not np.array_equal(at.loc[0, "one a seed"], at.loc[0, "centroid"])


def test_studies_without_a_stranger_in_common_are_refused():
    X, y = study(1)
    with pytest.raises(DataError, match="none of the 24 episodes is kept: ask for more"):
        judging.strangers(Arm("", "none"), study(0), (X, np.char.add("another ", y)), RECIPE.but(tuning=1), (0,))


def test_calibration_learns_its_temperature_elsewhere():
    here, there = study(0), study(1)
    nets = [network(40, "none", RECIPE, s) for s in SEEDS]
    judges = {"net": (nets, "share"), "logistic": (logistic, "softmax")}
    errors, answers = judging.calibration(judges, here, there, RECIPE, SEEDS)
    assert errors[["judge", "seed"]].to_numpy().tolist() == [["net", 0], ["net", 1], ["logistic", 0], ["logistic", 1]]
    last = errors.iloc[-1]
    mine = examine(logistic, exam_on(there, RECIPE), RECIPE, 1, "inductive")
    heat = examine(logistic, exam_on(here, RECIPE), RECIPE, 1, "inductive").temperature("softmax")
    assert last["temperature"] == heat and last["warmed"] == mine.ece("softmax", heat, n_bins=10)
    assert last["plain"] == mine.ece("softmax", n_bins=10) != last["warmed"]
    np.testing.assert_array_equal(answers["logistic", 1].scores, mine.scores)
