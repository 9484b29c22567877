"""A search that two processes share, and that goes on where it stopped."""

import importlib

import numpy as np
import pytest

pytest.importorskip("keras", reason="install the extra: pip install 'borrowed-strength[keras]'")

from shared.studies import beyond_fine_tuning as search


@pytest.fixture(scope="module")
def made():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 80)
    X = rng.normal(size=(240, 12)).astype(np.float32)
    X[:, 0] += 4 * (y == 1)
    X[:, 6] += 4 * (y == 2)
    return X, np.array(["a", "b", "c"])[y]


@pytest.mark.nightly
def test_two_processes_share_a_study_and_resume(tmp_path, made):
    pytest.importorskip("optuna", reason="install the extra: pip install 'borrowed-strength[tune]'")
    from optuna.trial import TrialState

    X, y = made
    settings = {"model": {"hidden": [8], "code": 4, "random_state": 0}, "folds": 3}
    study = search.tune(tmp_path, X, y, 24, processes=2, **settings)
    ended = [t for t in study.trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    assert 24 <= len(ended) <= 25  # both may be at work on a last one
    assert len({t.user_attrs["process"] for t in ended}) == 2, "the second process added nothing"
    assert any(t.state == TrialState.PRUNED for t in ended)
    assert all(len(t.intermediate_values) < 3 for t in ended if t.state == TrialState.PRUNED)
    before = len(ended)
    again = search.tune(tmp_path, X, y, before + 2, **settings)
    assert [t.params for t in again.trials[:before]] == [t.params for t in study.trials[:before]]
    assert len(again.trials) == before + 2
    assert search.tune(tmp_path, X, y, before, **settings).best_value >= study.best_value


def test_a_study_in_memory_has_the_trials_of_one_in_a_folder(tmp_path, made):
    pytest.importorskip("optuna", reason="install the extra: pip install 'borrowed-strength[tune]'")
    settings = {"model": {"hidden": [8], "code": 4, "random_state": 0}, "folds": 3, "seed": 5}
    kept, gone = (search.tune(place, *made, 6, **settings) for place in (tmp_path, None))
    assert [(t.params, t.intermediate_values) for t in kept.trials] == [
        (t.params, t.intermediate_values) for t in gone.trials
    ]
    with pytest.raises(ValueError, match="share a study through its folder"):
        search.tune(None, *made, 6, processes=2)


@pytest.mark.nightly
def test_a_process_that_fails_is_heard(tmp_path, made):
    pytest.importorskip("optuna")
    with pytest.raises(TypeError, match="unexpected keyword argument 'none_such'"):
        search.tune(tmp_path, *made, 2, processes=2, model={"none_such": 1})


def test_importing_needs_no_optuna():
    assert "optuna" not in dir(importlib.import_module("shared.studies.beyond_fine_tuning"))
