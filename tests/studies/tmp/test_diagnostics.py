"""Embeddings, unknown classes and calibration, on simulated classes far apart."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from shared.data.errors import DataError
from shared.nn.heads import logistic, nearest_centroid
from shared.studies import tmp as study
from shared.studies.tmp import Arm, StudyConfig, new_network
from shared.studies.tmp import diagnostics as module

CONFIG = StudyConfig(widths=(24, 12), relation=(12,), finetune_episodes=20, eval_episodes=8, n_query=4)
SEEDS = (0, 1)


def made_study(seed, n_classes=7, n_rows=30, n_genes=40, noise=0.15):
    rng = np.random.default_rng(5)
    X = np.repeat(rng.random((n_classes, n_genes)), n_rows, 0)
    X = X + noise * np.random.default_rng(seed).standard_normal(X.shape)
    return X.clip(0, 1).astype(np.float32), np.repeat([f"type {i}" for i in range(n_classes)], n_rows)


def test_correlations_are_those_of_features_and_leaves_the_network_alone():
    net, X = new_network(40, "none", CONFIG, 0), made_study(0)[0]
    net.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = study.feature_correlations([net, new_network(40, "none", CONFIG, 1)], X)
    with torch.no_grad():
        Z = net.encoder(torch.from_numpy(X)).numpy()  # in training mode: by the rows' own statistics
    Z = Z[:, Z.std(0) > 1e-6]
    assert len(found) == 2 and len(found[0]) == Z.shape[1] * (Z.shape[1] - 1) / 2
    assert found[0][0] == pytest.approx(np.corrcoef(Z[:, 0], Z[:, 1])[0, 1], abs=1e-4)
    net.load_state_dict(before)
    again = study.feature_correlations([net], X)[0]
    assert net.training and all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    np.testing.assert_array_equal(again, found[0])


def test_an_unknown_class_is_not_in_the_training_cells(monkeypatch):
    seen, drawn, plain, curve = [], [], module.Finetuning.fit_seeds, module.unknown_curve
    spy = lambda arm, data, seeds: seen.append(set(data[1])) or plain(arm, data, seeds)  # noqa: E731
    monkeypatch.setattr(module.Finetuning, "fit_seeds", spy)
    monkeypatch.setattr(module, "unknown_curve", lambda found, how: drawn.append(found) or curve(found, how))
    others = {"centroid": nearest_centroid, "one a seed": [logistic, nearest_centroid]}
    table = study.open_set(
        Arm("random", "none"), made_study(0), made_study(1, noise=0.5), CONFIG, SEEDS, others, n_new=2, n_way=5
    )
    assert len(seen) == len(SEEDS) and seen[0] != seen[1]
    for seed, known in enumerate(seen):
        assert len(known) == 5
        for found in drawn[3 * seed : 3 * seed + 3]:
            assert not known & set(found.names[found.classes[:, -1]]) and len(found.classes) < 3 * CONFIG.eval_episodes
    assert table.groupby("model", sort=False).size().to_dict() == {
        "fine-tuned without it": 12, "centroid": 12, "one a seed": 12,
    }  # fmt: skip
    at = table.pivot(index=["seed", "false rejection"], columns="model", values="recall")
    assert (at["centroid"].groupby("seed").diff().dropna() >= 0).all()
    np.testing.assert_array_equal(at.loc[1, "one a seed"], at.loc[1, "centroid"])
    assert not np.array_equal(at.loc[0, "one a seed"], at.loc[0, "centroid"])


def test_studies_without_a_held_out_class_in_common_are_refused():
    X, y = made_study(1)
    short = replace(CONFIG, finetune_episodes=1)
    with pytest.raises(DataError, match="none of the 24 episodes is kept: ask for more"):
        study.open_set(Arm("random", "none"), made_study(0), (X, np.char.add("another ", y)), short, (0,))


def test_calibration_learns_its_temperature_elsewhere():
    train, test = made_study(0), made_study(1)
    nets = [new_network(40, "none", CONFIG, s) for s in SEEDS]
    models = {"net": (nets, "share"), "logistic": (logistic, "softmax")}
    errors, results = study.calibration(models, train, test, CONFIG, SEEDS)
    assert errors[["model", "seed"]].to_numpy().tolist() == [["net", 0], ["net", 1], ["logistic", 0], ["logistic", 1]]
    last = errors.iloc[-1]
    mine = study.evaluate(logistic, study.evaluation_sampler(test, CONFIG), CONFIG, 1, "inductive")
    temperature = study.evaluate(logistic, study.evaluation_sampler(train, CONFIG), CONFIG, 1, "inductive").temperature(
        "softmax"
    )
    assert last["temperature"] == temperature and last["calibrated"] == mine.ece("softmax", temperature, n_bins=10)
    assert last["uncalibrated"] == mine.ece("softmax", n_bins=10) != last["calibrated"]
    np.testing.assert_array_equal(results["logistic", 1].scores, mine.scores)
