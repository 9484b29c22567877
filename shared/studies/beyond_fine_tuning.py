"""A search for settings that several processes share, and that goes on where it was stopped."""

from __future__ import annotations

import functools
import json
import os
import time
from pathlib import Path

import numpy as np

from shared.data.cells import array_of, dense_matrix
from shared.data.constraints import SettingError
from shared.data.parallel import each

PATIENCE = 60  # seconds that a process waits for the others


def open_study(folder: str | Path | None, seed: int = 0):
    """The Optuna study in `folder`: a journal, which any number of processes on this machine can add to.

    Without a folder it is a new one, held in memory.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = None
    if folder is not None:
        path = str(Path(folder) / "journal.log")
        # The default lock is a symbolic link, which Windows gives to administrators only.
        lock = JournalFileOpenLock(path) if os.name == "nt" else None
        storage = JournalStorage(JournalFileBackend(path, lock_obj=lock))
    return optuna.create_study(
        storage=storage,
        study_name="tuning",
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=5, constant_liar=True),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4),
        load_if_exists=True,
    )


def _objective(trial, X, y, settings):
    """Balanced accuracy over folds; after each fold the pruner may stop a trial that lags behind."""
    import optuna
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import StratifiedKFold

    from shared.methods.autoencoder_transfer import AutoencoderClassifier

    trial.set_user_attr("process", os.getpid())
    chosen = {
        "lr": trial.suggest_float("lr", 1e-5, 1e-1, log=True),
        "l2": trial.suggest_float("l2", 1e-5, 1e-1, log=True),
        "epochs": trial.suggest_int("epochs", 5, 20),
    }
    scores = []
    folds = StratifiedKFold(settings["folds"], shuffle=True, random_state=0)
    for i, (rows, rest) in enumerate(folds.split(X, y)):
        model = AutoencoderClassifier(**settings["model"], **chosen).fit(X[rows], y[rows])
        scores.append(balanced_accuracy_score(y[rest], model.predict(X[rest])))
        trial.report(float(np.mean(scores)), i)
        if i < settings["folds"] - 1 and trial.should_prune():
            raise optuna.TrialPruned
    return float(np.mean(scores))


def add_trials(study, X, y, settings) -> None:
    """Add trials to a study until it holds as many as were asked for."""
    from optuna.study import MaxTrialsCallback
    from optuna.trial import TrialState

    n, ended = settings["n_trials"], (TrialState.COMPLETE, TrialState.PRUNED)
    if len(study.get_trials(deepcopy=False, states=ended)) < n:
        study.optimize(lambda t: _objective(t, X, y, settings), callbacks=[MaxTrialsCallback(n, ended)])


def work(folder: str | Path, place: int = 0) -> None:
    """Add trials to the study in `folder`, on the data and with the settings that lie there: each process runs this."""
    folder = Path(folder)
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    with np.load(folder / "data.npz") as data:
        X, y = data["X"], data["y"]
    # One process gives the same trials each time; another, or one that resumes, must not repeat the first draws.
    done = len(open_study(folder).get_trials(deepcopy=False))
    add_trials(open_study(folder, settings["seed"] + 1000 * done + place), X, y, settings)


def _work_beside(folder, processes, place) -> None:
    """One of several processes: wait until all have loaded their libraries, then work.

    Libraries take seconds to load, and trials less: without this, one process would do all the work.
    """
    import shared.methods.autoencoder_transfer  # noqa: F401

    Path(folder, f"ready-{place}").touch()
    until = time.monotonic() + PATIENCE
    while len(list(Path(folder).glob("ready-*"))) < processes and time.monotonic() < until:
        time.sleep(0.05)
    work(folder, place)


def tune(
    folder: str | Path | None, X, y, n_trials: int, *, model=None, folds: int = 4, processes: int = 1, seed: int = 0
):
    """Tune learning rate, penalty and length of training of an ``AutoencoderClassifier`` that starts from scratch.

    Called again on one folder it goes on where it stopped, with trials that ran to their end or were pruned counted
    in `n_trials`; several processes add to one study.

    Parameters
    ----------
    folder : path or None
        Where the journal lies; made if missing. None keeps the study in memory: faster, and gone with this process.
    X, y : arrays
        Labelled training samples. Never the test samples: the best of many trials is best partly by luck.
    n_trials : int
        Trials in all.
    model : dict, optional
        Settings that stay fixed.
    folds, processes, seed : int
        Of the inner cross-validation; at work on the study; of the samplers.

    Returns
    -------
    optuna.Study

    Raises
    ------
    SettingError
        If several processes are to share a study without a folder.
    """
    X, y = dense_matrix(X).astype(np.float32), array_of(y, "y", str)
    settings = {"n_trials": int(n_trials), "model": model or {}, "folds": folds, "seed": seed}
    if folder is None:
        if processes > 1:
            raise SettingError(f"processes={processes} share a study through its folder: give one")
        study = open_study(None, seed)
        add_trials(study, X, y, settings)
        return study
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "data.npz", X=X, y=y)
    (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    study = open_study(folder, seed)  # made before the others look for it
    for sign in folder.glob("ready-*"):
        sign.unlink()
    if processes == 1:
        work(folder)
    else:
        places = {str(place): place for place in range(processes)}
        run = functools.partial(_work_beside, folder, processes)
        each(run, places, workers=processes, errors="raise", progress=False)
    return study
