"""Flight or ground: what plain classifiers read from three muscles of eighteen mice, and what twelve samples can prove.

Rows are muscle samples, columns genes. A mouse is an animal of a mission: the same mouse may have given several
muscles, so every split here is made, or checked, by mouse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

from shared.data.errors import DataError
from shared.evaluate.intervals import Interval, clopper_pearson, over_seeds
from shared.evaluate.splits import check_disjoint
from shared.methods.scbert.tokens import tokenize

CPM, TOKENS = "log2 CPM", "tokens of the code"
LOGISTIC, CENTROID, ONE, THREE = "logistic regression", "nearest centroid", "1-NN", "3-NN"
MODELS = {
    LOGISTIC: LogisticRegression(max_iter=2000),
    CENTROID: NearestCentroid(),
    ONE: KNeighborsClassifier(1),
    THREE: KNeighborsClassifier(3),
}
CORRELATION = ONE, THREE  # whose distances are between samples of mean 0 and length 1: nearest is most correlated
FLIGHT, GROUND = "flight", "ground"
# Missions of the catalogue's spaceflight sets: a mouse's number tells an animal within a mission only.
MISSIONS = dict.fromkeys(("osd-99", "osd-101", "osd-102", "osd-103", "osd-104", "osd-105"), "Rodent Research-1")
MISSIONS |= {"osd-47": "Rodent Research-1, CASIS", "osd-137": "Rodent Research-3", "osd-163": "Rodent Research-3"}


class Samples(NamedTuple):
    """Muscle samples.

    Attributes
    ----------
    counts : float32 ndarray, samples × genes
    y : ndarray of str
        ``"flight"`` or ``"ground"``.
    mouse, study : ndarray of str
        The animal, by mission and number; the data set.
    genes : list of str
    """

    counts: np.ndarray
    y: np.ndarray
    mouse: np.ndarray
    study: np.ndarray
    genes: list


def samples_of(sets: Mapping, missions: Mapping | None = None) -> Samples:
    """Flight and ground samples of some sets, on the genes that all of them list.

    Parameters
    ----------
    sets : mapping of str to AnnData
        Counts, with ``condition``, ``donor`` and ``study`` in ``obs``; samples of other conditions are left out.
    missions : mapping of str to str, optional
        The mission of each set, without which all are of one: mouse 23 of another mission is another mouse.

    Raises
    ------
    DataError
        If the sets have no gene in common.
    """
    genes = sorted(set.intersection(*(set(one.var_names) for one in sets.values())))
    if not genes:
        raise DataError(f"{', '.join(sets)} have no gene in common: bring them to one kind of names first")
    parts = []
    for name, one in sets.items():
        one = one[one.obs["condition"].isin([FLIGHT, GROUND]).to_numpy(), genes]
        X = one.X.toarray() if hasattr(one.X, "toarray") else np.asarray(one.X)
        mission = (missions or {}).get(name, "")
        mice = [f"{mission} {mouse}".strip() for mouse in one.obs["donor"].astype(str)]
        parts.append((X, one.obs["condition"].to_numpy(str), np.array(mice), one.obs["study"].to_numpy(str)))
    X, y, mouse, study = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Samples(X.astype(np.float32), y, mouse, study, genes)


def gather(names: Iterable[str], load: Callable) -> tuple[dict, dict]:
    """The sets of the catalogue that can be had here, by name, and why the others cannot.

    ``load(name, route="official")`` gives an AnnData, as :func:`shared.data.load` does; simulated ones are not taken.
    """
    sets, missing = {}, {}
    for name in names:
        try:
            sets[name] = load(name, route="official")
        except DataError as error:
            missing[name] = str(error)
    return sets, missing


def values(counts: np.ndarray, how: str = CPM) -> np.ndarray:
    """What a model reads: float32, samples × genes.

    ``CPM``: log2(1 + counts per million), as the paper tells it. ``TOKENS``: log2(1 + counts per ten thousand), cut to
    whole numbers up to seven, as its code has it.
    """
    if how == TOKENS:
        return tokenize(torch.from_numpy(counts), bins=7, target_sum=1e4).numpy().astype(np.float32)
    return np.log2(1 + counts / counts.sum(1, keepdims=True) * 1e6).astype(np.float32)


def most_variable(X: np.ndarray, n_genes: int | None) -> np.ndarray:
    """Places of the genes with the largest variance over some samples, in their order; None: of all."""
    return np.arange(X.shape[1]) if n_genes is None else np.sort(np.argsort(-X.var(0), kind="stable")[:n_genes])


def coordinates(X, study, train, test, *, centred=False, n_genes=None, correlation=False) -> np.ndarray:
    """Training samples, then test samples, in as many dimensions as there are samples: float64.

    Distances and products are those of all genes, so no model here can tell the difference, and fits are a hundred
    times quicker. Genes are chosen by training samples. With `centred` a training study is centred by its training
    samples, and a test study by all its samples: no label is used, but test samples are, so this is transductive.
    """
    rows = np.concatenate([train, test])
    Z, study = X[:, most_variable(X[train], n_genes)].astype(np.float64), np.asarray(study)
    out = Z[rows]
    if centred:
        for name in np.unique(study[rows]):
            known = train[study[train] == name]
            by = known if len(known) else np.flatnonzero(study == name)
            out[study[rows] == name] -= Z[by].mean(0)
    if correlation:
        out -= out.mean(1, keepdims=True)
        out /= np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)
    size, vectors = np.linalg.eigh(out @ out.T)
    some = size > 1e-9 * size[-1]  # after centring fewer dimensions than samples are left
    return vectors[:, some] * np.sqrt(size[some])


def predicted(X, samples: Samples, train, test, model: str, y=None, **how) -> np.ndarray:
    """What a model of :data:`MODELS` calls the test samples; `y` are other labels than the samples' own."""
    y = samples.y if y is None else y
    Z = coordinates(X, samples.study, train, test, correlation=model in CORRELATION, **how)
    return clone(MODELS[model]).fit(Z[: len(train)], y[train]).predict(Z[len(train) :])


def meetings(samples: Samples) -> pd.DataFrame:
    """How many mice two studies share: studies × studies."""
    mice = {s: {*samples.mouse[samples.study == s]} for s in dict.fromkeys(samples.study.tolist())}
    return pd.DataFrame({a: {b: len(mice[a] & mice[b]) for b in mice} for a in mice})


def as_published(samples: Samples, how: str, train: str, test: str, **more) -> list[dict]:
    """Train on one study, test on another, mice as they come; a row a model, centred and not.

    Each row holds ``right`` and ``n``; and ``right_new`` and ``n_new``, of mice that the training study does not have.
    """
    X, rows = values(samples.counts, how), []
    known, asked = (np.flatnonzero(samples.study == s) for s in (train, test))
    new = ~np.isin(samples.mouse[asked], samples.mouse[known])
    for model in MODELS:
        for centred in (False, True):
            right = predicted(X, samples, known, asked, model, centred=centred, **more) == samples.y[asked]
            row = {"what": how, "train": train, "test": test, "arm": model, "centred": centred}
            row |= {"right": int(right.sum()), "n": len(right)}
            rows.append(row | {"right_new": int(right[new].sum()), "n_new": int(new.sum())})
    return rows


def relabelled(samples: Samples, rng) -> np.ndarray:
    """Labels dealt out anew among mice that gave the same muscles; a mouse's samples keep one label."""
    gave = pd.Series(samples.study).groupby(samples.mouse).agg(lambda s: tuple(sorted(s)))
    label = pd.Series(samples.y).groupby(samples.mouse).first()
    for some in gave.unique():
        mice = gave.index[gave == some]
        label[mice] = rng.permutation(label[mice].to_numpy())
    return label[samples.mouse].to_numpy()


def permutation_test(
    samples: Samples, how: str, train: str, test: str, n: int = 499, seed: int = 0, models=(LOGISTIC, THREE), **more
) -> dict:
    """p of as many right as there are, or more, had flight changed no gene; and 95 % of the chance numbers, a model.

    Labels are dealt out anew by mouse (:func:`relabelled`), and every model is fitted again. p is
    (1 + those as good) / (1 + `n`).
    """
    X, rng, found = values(samples.counts, how), np.random.default_rng(seed), {}
    known, asked = (np.flatnonzero(samples.study == s) for s in (train, test))
    labels = [samples.y, *(relabelled(samples, rng) for _ in range(n))]
    for model in models:
        Z = coordinates(X, samples.study, known, asked, correlation=model in CORRELATION, **more)
        mine, theirs = Z[: len(known)], Z[len(known) :]
        called = (clone(MODELS[model]).fit(mine, y[known]).predict(theirs) == y[asked] for y in labels)
        right = np.array([one.sum() for one in called])
        found[model] = {"p": float((right >= right[0]).mean()), "chance_high": float(np.quantile(right[1:], 0.975))}
    return found


def by_mouse(samples: Samples, sources: Callable, how: str = CPM, y=None, models=tuple(MODELS), **more) -> list[dict]:
    """Every sample in turn is the test, and no training sample is of its mouse: a row a sample, model and source.

    Parameters
    ----------
    samples : Samples
        With two muscles or more.
    sources : callable
        ``sources(study)`` names training sets of a test study: a dict of name to list of studies.
    how : str
        See :func:`values`.
    y : ndarray of str, optional
        Other labels than the samples' own.
    models : sequence of str
        Of :data:`MODELS`.
    more
        ``centred``, ``n_genes``: see :func:`coordinates`.

    Returns
    -------
    list of dict
        ``source``, ``test``, ``mouse``, ``arm``, ``right`` (0 or 1), ``n_train``.
    """
    X, rows, y = values(samples.counts, how), [], samples.y if y is None else y
    for i, (study, mouse) in enumerate(zip(samples.study, samples.mouse, strict=True)):
        for name, studies in sources(study).items():
            train = np.flatnonzero(np.isin(samples.study, studies) & (samples.mouse != mouse))
            if len(np.unique(y[train])) < 2:
                continue
            check_disjoint(samples.mouse[train], [mouse], what="animal")
            for model in models:
                called = predicted(X, samples, train, np.array([i]), model, y, **more)[0]
                row = {"source": name, "test": study, "mouse": mouse, "arm": model, "right": int(called == y[i])}
                rows.append(row | {"n_train": len(train)})
    return rows


def other_muscles(samples: Samples) -> Callable:
    """Sources for :func:`by_mouse`: all studies but the test study."""
    names = dict.fromkeys(samples.study.tolist())
    return lambda test: {"other muscles": [s for s in names if s != test]}


def each_muscle(samples: Samples) -> Callable:
    """Sources for :func:`by_mouse`: each study alone, the test study too."""
    return lambda test: {s: [s] for s in dict.fromkeys(samples.study.tolist())}


def over_mice(rows: pd.DataFrame) -> Interval:
    """Share of right samples, each mouse's own mean counted once: with Student's t over mice."""
    return over_seeds(rows.groupby("mouse")["right"].mean())


def exact(rows: pd.DataFrame) -> Interval:
    """Share of right samples of one muscle, one a mouse, with the exact binomial interval."""
    if rows["mouse"].duplicated().any():
        raise DataError("a mouse has two rows, so they are not independent: take over_mice of rows, or one test muscle")
    return clopper_pearson(int(rows["right"].sum()), len(rows))


def chance_of_muscles(samples: Samples, model: str, n: int = 99, seed: int = 0, **more) -> float:
    """p of :func:`by_mouse` on the other muscles, labels dealt out anew by mouse."""
    rng, found = np.random.default_rng(seed), []
    for y in (samples.y, *(relabelled(samples, rng) for _ in range(n))):
        rows = pd.DataFrame(by_mouse(samples, other_muscles(samples), y=y, models=(model,), **more))
        found.append(over_mice(rows).value)
    return float((np.array(found) >= found[0] - 1e-12).mean())


def changes_agree(samples: Samples, a: str, b: str, n: int = 50, seed: int = 0, n_genes: int = 1500) -> Interval:
    """Correlation over genes of what flight changes in two muscles, each measured on other mice: mean, and middle 95 %.

    Mice are cut at random into two halves of each condition, `n` times; muscle `a` is read from one half, `b` from the
    other. So an animal's own oddities, which its muscles share, do not count as agreement. Genes are the most variable
    of all samples of both muscles, each muscle centred. The range is over the cuts, which share mice: it is no
    confidence interval.
    """
    X, rng, found = values(samples.counts), np.random.default_rng(seed), []
    mine = [X[samples.study == s] - X[samples.study == s].mean(0) for s in (a, b)]
    genes = most_variable(np.concatenate(mine), n_genes)
    for _ in range(n):
        half = set()
        for condition in (FLIGHT, GROUND):
            mice = np.unique(samples.mouse[samples.y == condition])
            half |= {*rng.permutation(mice)[: len(mice) // 2]}
        first = np.isin(samples.mouse, sorted(half))
        change = []
        for study, inside in ((a, first), (b, ~first)):
            some = [(samples.study == study) & inside & (samples.y == c) for c in (FLIGHT, GROUND)]
            if not all(one.any() for one in some):
                break
            change.append(X[some[0]][:, genes].mean(0) - X[some[1]][:, genes].mean(0))
        else:
            found.append(np.corrcoef(*change)[0, 1])
    return Interval(float(np.mean(found)), *np.quantile(found, [0.025, 0.975]).tolist(), 0.95, "halves of mice", n)


def simulated_level(rng, n_genes: int) -> np.ndarray:
    """Expected counts of three tissues × genes, the last gene as high in all as others are together in a real one."""
    level = rng.gamma(1.0, 40.0, (3, n_genes))
    level[:, -1] = 1e6
    return level


def simulated(seed: int = 0, effect: float = 1.0, n_genes: int = 200) -> Samples:
    """Samples in the same design, of counts without any biology but a changed tenth of the genes: for tests.

    Twelve mice gave the first two muscles, and six of these with six more the third.
    """
    rng = np.random.default_rng(seed)
    mice = {"OSD-105": range(12), "OSD-104": range(12), "OSD-99": [0, 1, 2, 9, 10, 11, 12, 13, 14, 15, 16, 17]}
    level, parts = simulated_level(rng, n_genes), []
    flies = lambda m: m in {0, 1, 2, 3, 4, 5, 12, 13, 14}  # noqa: E731
    own = rng.normal(0, 0.1, (18, n_genes)) * (np.arange(n_genes) < n_genes - 1)
    changed = np.where(np.arange(n_genes) % 10 == 0, effect, 0.0)
    for i, (study, some) in enumerate(mice.items()):
        for m in some:
            rate = level[i] * np.exp(own[m] + changed * flies(m))
            parts.append((rng.poisson(rate), FLIGHT if flies(m) else GROUND, f"M{m}", study))
    X, y, mouse, study = (np.array(column) for column in zip(*parts, strict=True))
    return Samples(X.astype(np.float32), y, mouse, study, [f"Gene{i}" for i in range(n_genes)])
