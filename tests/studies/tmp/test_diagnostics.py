"""Statistics of a batch, embeddings, unknown classes and calibration, on simulated classes far apart."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from shared.data.errors import DataError
from shared.nn.heads import logistic, nearest_centroid
from shared.studies import tmp as study
from shared.studies.tmp import StudyConfig, new_networks
from shared.studies.tmp import diagnostics as module

CONFIG = StudyConfig(widths=(24, 12), relation=(12,), finetune_episodes=60, eval_episodes=8, n_query=4)
SEEDS = (0, 1)


def made_study(seed, n_classes=7, n_rows=30, n_genes=40, noise=0.15):
    rng = np.random.default_rng(5)
    X = np.repeat(rng.random((n_classes, n_genes)), n_rows, 0)
    X = X + noise * np.random.default_rng(seed).standard_normal(X.shape)
    return X.clip(0, 1).astype(np.float32), np.repeat([f"type {i}" for i in range(n_classes)], n_rows)


def test_a_batch_of_one_type_loses_by_its_own_statistics_and_by_no_other():
    few, test = made_study(0), made_study(1)
    nets = study.finetune(new_networks(40, "none", CONFIG, SEEDS), few, CONFIG, SEEDS, 0.005)
    table = study.batch_statistics({"net": nets}, test, CONFIG, SEEDS)
    at = table.pivot_table(index="statistics", columns="queries", values="accuracy")
    assert len(table) == 12 and (at["all"] > 0.6).all()
    assert (at["one class"].drop("batch") > at.loc["batch", "one class"] + 0.3).all()
    losses = study.one_type_loss(table)
    assert losses.mean() == pytest.approx(at.loc["running", "one class"] - at.loc["batch", "one class"])
    # The claim where it is false: labels that say nothing, so there is nothing to lose.
    few, test = ((X, np.random.default_rng(0).permutation(y)) for X, y in (few, test))
    nets = study.finetune(new_networks(40, "none", CONFIG, SEEDS), few, CONFIG, SEEDS, 0.005)
    assert study.one_type_loss(study.batch_statistics({"net": nets}, test, CONFIG, SEEDS)).mean() < 0.2


def test_correlations_are_those_of_features_and_leave_the_network_alone():
    (net,), X = new_networks(40, "none", CONFIG, [0]), made_study(0)[0]
    net.train()
    with torch.no_grad():
        Z = net.encoder(torch.from_numpy(X)).numpy()  # in training mode: by the rows' own statistics
    before = {name: value.clone() for name, value in net.state_dict().items()}
    Z = Z[:, Z.std(0) > 1e-6]
    pairs = np.corrcoef(Z.T)[np.triu_indices(Z.shape[1], 1)]
    assert study.feature_correlations([net], X) == [pytest.approx(pairs.mean(), abs=1e-4)]
    assert net.training and all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_an_unknown_class_is_not_in_the_training_cells(monkeypatch):
    seen, drawn, plain, curve = [], [], module.finetune, module.unknown_curve
    monkeypatch.setattr(
        module, "finetune", lambda nets, few, *rest: seen.append(set(few[1])) or plain(nets, few, *rest)
    )
    monkeypatch.setattr(module, "unknown_curve", lambda found, how: drawn.append(found) or curve(found, how))
    short = replace(CONFIG, finetune_episodes=10)
    found = study.open_set(
        made_study(0), made_study(1, noise=0.5), short, SEEDS, {"centroid": nearest_centroid}, n_new=2, n_way=5
    )
    assert list(found.columns) == ["fine-tuned without it", "centroid"] and list(found.index) == [0, 1]
    assert len(seen) == 2 and seen[0] != seen[1] and all(len(known) == 5 for known in seen)
    for known, result in zip([seen[0]] * 2 + [seen[1]] * 2, drawn, strict=True):
        assert not known & set(result.names[result.classes[:, -1]])
    X, y = made_study(1)
    with pytest.raises(DataError, match="none of the 24 episodes is kept: ask for more"):
        study.open_set(made_study(0), (X, np.char.add("another ", y)), replace(short, finetune_episodes=1), (0,), {})


def test_calibration_learns_its_temperature_elsewhere():
    few, test = made_study(0), made_study(1)
    found = study.calibration(logistic, "softmax", few, test, CONFIG, SEEDS)
    scaled, mine = (study.evaluate(logistic, some, CONFIG, [1], "inductive")[0] for some in (few, test))
    assert found.loc[1, "calibrated"] == mine.ece("softmax", scaled.temperature("softmax"), n_bins=10)
    assert found.loc[1, "uncalibrated"] == mine.ece("softmax", n_bins=10) != found.loc[1, "calibrated"]
