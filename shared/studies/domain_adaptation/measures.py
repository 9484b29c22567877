"""What is measured of a fitted model: target accuracy, risks that need no target label, alignment, terms of a bound.

Accuracies are balanced, on target cells that nothing learned from. Errors in the terms of the bound are plain shares of
wrong cells, as in the theorem.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from shared.evaluate.metrics import balanced_accuracy
from shared.methods.domain_adaptation import target_risks
from shared.nn.losses import mmd2
from shared.studies.domain_adaptation.arms import (
    ADVERSARIAL,
    BASELINE,
    DEEP_CORAL,
    DEEP_MMD,
    GRID,
    LABELS,
    LOGISTIC,
    NETWORK,
    RECOLORING,
    Fitted,
    Tries,
    few_labels,
    fit,
)
from shared.studies.domain_adaptation.tasks import UNKNOWN, Drawn, labelled

N_COMPONENTS = 32  # of what is measured: as many as an embedding has
RISKS = "source", "importance_weighted", "deep_embedded_validation", "entropy"
ALIGNMENT = "mmd", "distance"  # of models that bring domains together, also taken for risks
LEVELS = {"1 to 1": 1.0, "1 to 3": 3.0, "1 to 9": 9.0, "left out": np.inf}
SHIFTED = 16  # cells of a type among those to adapt to, or the type is not in the dial
CONTROLS = LOGISTIC, NETWORK, RECOLORING, DEEP_CORAL, DEEP_MMD, ADVERSARIAL  # met with the target's genes shuffled


def discriminant() -> LinearDiscriminantAnalysis:
    """A linear classifier with a rule for its own penalty, so that nothing is tuned."""
    return LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")


def reduced(source: np.ndarray, target: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Both in their first common components, float64, so that wide and narrow spaces are measured alike."""
    both = np.vstack([source, target]).astype(np.float64)
    if both.shape[1] > N_COMPONENTS:
        k = min(N_COMPONENTS, len(both) - 1)
        both = PCA(k, svd_solver="arpack", random_state=seed).fit_transform(both)
    return both[: len(source)], both[len(source) :]


def proxy_distance(source: np.ndarray, target: np.ndarray, seed: int = 0) -> float:
    """The proxy A-distance, ``2 (1 - 2 e)``, from 0 to 2 (Ben-David and others 2010).

    `e` is the mean error on both domains of a linear discriminant that tells them apart, on cells that it has not
    seen, by two-fold cross-validation: 0 where it guesses, 2 where it is always right.
    """
    X, domain = np.vstack([source, target]), np.repeat([0, 1], [len(source), len(target)])
    folds = StratifiedKFold(2, shuffle=True, random_state=seed)
    told = discriminant().set_params(priors=[0.5, 0.5])
    found = cross_val_predict(told, X + 1e-9 * np.random.default_rng(seed).normal(size=X.shape), domain, cv=folds)
    error = 1 - balanced_accuracy(domain.astype(str), found.astype(str))
    return float(np.clip(2 * (1 - 2 * error), 0, 2))


def discrepancy(source: np.ndarray, target: np.ndarray) -> float:
    """Squared MMD without bias; kernels lie around the median distance, so that the scale of a space does not count."""
    a, b = (torch.from_numpy(np.ascontiguousarray(Z)) for Z in (source, target))
    return float(mmd2(a, b, unbiased=True))


def joint_error(train, held, names) -> float:
    """Errors in source and target of one linear discriminant that was fitted to labels of both, added (lambda).

    Parameters
    ----------
    train, held : pairs of ndarray
        Cells of the source and of the target, to fit and to test.
    names : pair of pairs of ndarray of str
        Their types, in the same order.
    """
    model = discriminant().fit(np.vstack(train), np.concatenate(names[0]))
    return float(sum((model.predict(X) != y).mean() for X, y in zip(held, names[1], strict=True)))


def alignment(model: Fitted, one: Drawn, seed: int = 0) -> dict[str, float]:
    """How near held-out source cells and test cells lie to each other: ``mmd`` and ``distance``."""
    source, target = reduced(model.embed(one.held.X, True), model.embed(one.test.X, False), seed)
    return {"mmd": discrepancy(source, target), "distance": proxy_distance(source, target, seed)}


def terms(model: Fitted, one: Drawn, seed: int = 0) -> dict[str, float]:
    """The terms of the bound of Ben-David and others (2010, theorem 2) that need more than :func:`alignment`.

    ``error``, of test cells, and ``joint``, of the space that the model made: see :func:`joint_error`.
    """
    known = labelled(one.adapt)
    source, target = (
        [model.embed(part.X, is_source) for part in parts]
        for is_source, parts in ((True, (one.train, one.held)), (False, (known, one.test)))
    )
    S, T = reduced(np.vstack(source), np.vstack(target), seed)
    train, held = (S[: len(source[0])], T[: len(target[0])]), (S[len(source[0]) :], T[len(target[0]) :])
    names = (one.train.y, known.y), (one.held.y, one.test.y)
    wrong = float((model.predict(one.test.X) != one.test.y).mean())
    return {"error": wrong, "joint": joint_error(train, held, names)}


def scores(model: Fitted, one: Drawn, features) -> dict[str, float]:
    """Accuracy on test cells, that on the labelled cells to adapt to, and the risks that need no target label.

    `features` are of held-out source cells and cells to adapt to: what the density ratio reads.
    """
    known = labelled(one.adapt)
    X, y = np.vstack([one.held.X, one.adapt.X]), np.r_[one.held.y, np.full(len(one.adapt.y), "?")]
    domain = np.repeat([1, -1], [len(one.held.y), len(one.adapt.y)])
    return {
        "accuracy": balanced_accuracy(one.test.y, model.predict(one.test.X)),
        "accuracy_known": balanced_accuracy(known.y, model.predict(known.X)),
        **target_risks(model, X, y, domain, features=features),
    }


def components(one: Drawn, seed: int = 0) -> np.ndarray:
    """First components of held-out source cells, then of cells to adapt to: the same for every model of a draw."""
    return np.vstack(reduced(one.held.X, one.adapt.X, seed))


def shifted(one: Drawn, level: float, seed: int) -> Drawn | None:
    """The same draw with half of the types rare among the target cells to adapt to, at odds of one to `level`.

    Which half is drawn by the seed. The number of cells to adapt to is the same at all levels. The source has the same
    types as before, in the shares it had; test cells are those of these types. None where fewer than three types have
    :data:`SHIFTED` cells.
    """
    kinds, n = np.unique(one.adapt.y[one.adapt.y != UNKNOWN], return_counts=True)
    kinds, least = kinds[n >= SHIFTED], min(n[n >= SHIFTED], default=0)
    if len(kinds) < 3:
        return None
    rng = np.random.default_rng((seed, 4))
    kinds = rng.permutation(kinds)
    rare, common = kinds[: len(kinds) // 2], kinds[len(kinds) // 2 :]
    whole, part = len(rare) * least, 1 / level  # as many cells as the common half can give at every level
    each = whole / (len(common) + len(rare) * part)
    rows = []
    for kind in kinds:
        share = each * part if kind in rare else each
        rows.append(rng.permutation(np.flatnonzero(one.adapt.y == kind))[: round(share)])
    inside = [part_.at(np.flatnonzero(np.isin(part_.y, kinds))) for part_ in (one.train, one.held, one.test)]
    return one._replace(train=inside[0], held=inside[1], adapt=one.adapt.at(np.concatenate(rows)), test=inside[2])


def dial_rows(arm: str, setting: dict, one: Drawn, seed: int, **how) -> list[dict]:
    """Accuracy on test cells of all types, at every level of label shift among the cells to adapt to."""
    rows = []
    for name, level in LEVELS.items():
        drawn = shifted(one, level, seed)
        if drawn is None:
            return []
        if arm in BASELINE or not rows:  # without adaptation all levels are one
            found = balanced_accuracy(drawn.test.y, fit(arm, setting, drawn, seed, **how).predict(drawn.test.X))
        rows.append({"what": "dial", "arm": arm, "level": name, "accuracy": found, "n": len(drawn.adapt.y)})
    return rows


def shuffled(one: Drawn, seed: int) -> Drawn:
    """The target's genes in another order, the same for all its cells: nothing in them can be recognised."""
    order = np.random.default_rng((seed, 5)).permutation(one.test.X.shape[1])
    return one._replace(**{k: getattr(one, k)._replace(X=getattr(one, k).X[:, order]) for k in ("adapt", "test")})


def control_rows(arm: str, setting: dict, one: Drawn, seed: int, **how) -> list[dict]:
    """Alignment and accuracy where the target's genes are shuffled."""
    other = shuffled(one, seed)
    model = fit(arm, setting, other, seed, **how)
    found = {"accuracy": balanced_accuracy(other.test.y, model.predict(other.test.X))}
    return [{"what": "control", "arm": arm, **found, **alignment(model, other, seed)}]


def label_rows(one: Drawn, seed: int) -> list[dict]:
    """What few labelled target cells give without a source."""
    found = {name: few_labels(one, n, seed).predict(one.test.X) for name, n in LABELS.items()}
    return [{"what": "labels", "arm": name, "accuracy": balanced_accuracy(one.test.y, y)} for name, y in found.items()]


def all_rows(tries: Tries, one: Drawn, seed: int, *, dial=(), control=()) -> list[dict]:
    """All that is measured of an arm, as :func:`shared.studies.run` takes a metric.

    Parameters
    ----------
    tries : Tries
        Of one arm.
    one : Drawn
        What it was fitted to.
    seed : int
        Of what is measured.
    dial, control : sequence of str
        Tasks to meet with a label shift, and with shuffled genes, at the setting that held-out source cells choose.
    """
    features, rows = components(one, seed), []
    for i, (model, cpu) in enumerate(zip(tries.fitted, tries.cpu, strict=True)):
        start = time.process_time()
        row = {"what": "fit", "arm": tries.arm, "setting": i, "cpu": cpu}
        row |= scores(model, one, features) | alignment(model, one, seed) | terms(model, one, seed)
        rows.append(row | {"cpu_measures": time.process_time() - start})
    chosen = GRID[tries.arm][int(np.argmin([row["source"] for row in rows]))]
    start = time.process_time()
    if one.name in dial:
        rows += dial_rows(tries.arm, chosen, one, seed, **tries.how)
    if one.name in control and tries.arm in CONTROLS:
        rows += control_rows(tries.arm, chosen, one, seed, **tries.how)
    if tries.arm == LOGISTIC:
        rows += label_rows(one, seed)
    return [{"cpu_further": time.process_time() - start} | row if not i else row for i, row in enumerate(rows)]
