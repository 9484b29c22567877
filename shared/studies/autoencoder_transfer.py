"""What the encoders of several sources are worth to one target with few labels."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.metrics import balanced_accuracy_score

from shared.data.cells import array_of, dense_matrix
from shared.data.constraints import Between, Maybe, OneOf, Whole, check
from shared.methods.autoencoder_transfer import AutoencoderClassifier


def compare_sources(sources, X, y, seeds, *, control=None, shots=1, n_test=300, model=None, frozen=None, full=None):
    """Fine-tune the encoder of each source on few labels of a target, and the same network from scratch.

    Every seed draws test samples, labels, first weights and the control's order of genes anew.

    Parameters
    ----------
    sources : mapping of name to array of shape (n_samples, n_genes)
        Unlabelled profiles, with the genes of `X` in their order.
    X, y : arrays
        The target and its classes. Samples outside the test set give the genes' centres, and some their labels.
    seeds : sequence of int
        One draw each.
    control : str, optional
        A source that is used a second time with its genes shuffled.
    shots : int
        Labels a class, fewer where the class has fewer.
    n_test : int
        Samples held out.
    model, frozen, full : dict, optional
        Settings of the ``AutoencoderClassifier``; of fine-tuning a source's frozen encoder; of training from scratch.

    Returns
    -------
    DataFrame
        Balanced accuracy: one row a seed, one column a source, its ``"..., shuffled"`` and ``"scratch"``.

    Raises
    ------
    SettingError
        If the target leaves nothing to learn from, or the control is no source.
    """
    X, y = dense_matrix(X).astype(np.float32), array_of(y, "y")
    known = {"n_test": Between(0, len(X)), "shots": Whole(1), "control": Maybe(OneOf(*sources))}
    check({"n_test": n_test, "shots": shots, "control": control}, known)
    rows = {}
    for seed in seeds:
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(X))
        test, pool = order[:n_test], order[n_test:]
        train = np.concatenate([pool[y[pool] == c][:shots] for c in np.unique(y)])
        arms = dict(sources) | {"scratch": None}
        if control is not None:
            arms[f"{control}, shuffled"] = np.asarray(sources[control])[:, rng.permutation(X.shape[1])]
        rows[seed] = {}
        for name, source in arms.items():
            learner = AutoencoderClassifier(**(model or {}) | {"random_state": seed})
            if source is not None:
                learner.pretrain(source)
            how = {"tuning": "full"} | (full or {}) if source is None else {"tuning": "frozen"} | (frozen or {})
            called = learner.adapt(X[pool]).set_params(**how).fit(X[train], y[train]).predict(X[test])
            rows[seed][name] = balanced_accuracy_score(y[test], called)
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("seed")
