"""Every study left out in turn: networks and regressions, each with the same labelled cells of sets they never saw.

:func:`pretrained` makes what one fold learns from the other studies, and :func:`set_rows` measures every arm on the
sets of the study that was left out; :func:`shared.studies.run` takes them as arm and metric.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse, stats
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

from shared.data import Corpus
from shared.evaluate.intervals import Interval, over_seeds
from shared.evaluate.metrics import accuracy, ari, cohen_kappa, macro_ovr
from shared.methods.scpretrain import ScPretrain, finetune, logged, paper_split

NETWORKS = ("from scratch", "pre-trained", "shuffled genes")
READ = ("pre-trained", "corpus components", "own components", "genes")
# Three values for every arm: the learning rate of fine-tuning, and the C of logistic regression on vectors whose mean
# squared length is one.
RATES, PENALTIES = (1e-3, 3e-3, 1e-2), (10.0, 100.0, 1000.0)
PROTOCOL = {"fit_epochs": 500, "fit_patience": 30, "fit_lr": 2e-3}  # of fine-tuning, in the paper and its code


class Learned(NamedTuple):
    """What a fold learned from the other studies.

    Attributes
    ----------
    encoder : ScPretrain
        Pre-trained.
    genes : list of str
        Genes of the encoder and the components.
    axes : float32 ndarray, genes × components
        Principal components of the other studies' cells.
    cpu : float
        Seconds of processor time that both took.
    """

    encoder: ScPretrain
    genes: list
    axes: np.ndarray
    cpu: float = 0.0


def pretrained(
    others: Mapping,
    seed: int,
    *,
    config: dict,
    n_genes: int,
    most: int | None = None,
    keep=None,
    n_components: int = 50,
) -> Learned:
    """An encoder and principal components of the other studies' cells.

    Parameters
    ----------
    others : mapping of str to AnnData
        As :func:`shared.studies.scpretrain.of_files` makes them.
    seed : int
        Of first weights, k-means and components.
    config : dict
        Settings of ScPretrain.
    n_genes : int
        The genes that most of these cells express; those of the set that is left out have no say.
    most : int, optional
        Cells of each set to learn from, drawn at random.
    keep : path, optional
        A folder for encoders, which are then pre-trained once.
    n_components : int, default 50
        At most.
    """
    start, rng = time.process_time(), np.random.default_rng((seed, 3))
    others = {n: one[np.sort(rng.permutation(one.n_obs)[:most])].copy() for n, one in others.items()}
    genes = widespread(others, n_genes)
    about = repr([*others, len(genes), most, seed, sorted(config.items())]).encode()
    path = None if keep is None else Path(keep, hashlib.sha256(about).hexdigest()[:20])
    model = ScPretrain(**config, random_state=seed, checkpoint=path).pretrain(Corpus(others, genes=genes))
    parts = [normalized(one, genes).toarray() for one in others.values()]
    X = np.concatenate([X - X.mean(0) for X in parts])  # a set's own mean is no difference between its cells
    pca = PCA(min(n_components, min(X.shape) - 1), svd_solver="randomized", random_state=seed).fit(X)
    axes = pca.components_.T.astype(np.float32)
    return Learned(model.set_params(checkpoint=None), genes, axes, time.process_time() - start)


def widespread(sets: Mapping, n: int) -> list[str]:
    """The `n` genes that most cells express, as a mean over sets; a set that does not list a gene has none of it."""
    seen = pd.concat([pd.Series(np.asarray((a.X > 0).mean(0)).ravel(), a.var_names) for a in sets.values()])
    return sorted(seen.groupby(level=0).sum().sort_values(ascending=False, kind="stable").index[:n])


def own_genes(adata, n: int):
    """The set with the `n` genes that most of its cells express, labels unseen, in the order they had."""
    seen = np.asarray((adata.X > 0).mean(0)).ravel()
    return adata[:, np.sort(np.argsort(-seen, kind="stable")[:n])].copy()


def normalized(adata, genes=None) -> sparse.csr_matrix:
    """log(1 + 10,000 × share of a cell's total), of all its genes or of a list; genes a set lacks are zero."""
    X = sparse.diags_array(1e4 / np.maximum(adata.obs["total"].to_numpy(), 1)) @ adata.X
    X = sparse.csr_matrix(X, dtype=np.float32)
    if genes is not None:
        place = pd.Series(range(len(genes)), genes).reindex(adata.var_names)
        here = np.flatnonzero(place.notna())
        to = sparse.csr_matrix(
            (np.ones(len(here), np.float32), (here, place.iloc[here].astype(int))), (adata.n_vars, len(genes))
        )
        X = X @ to
    X.data = np.log1p(X.data)
    return X


def embeddings(learned: Learned, adata, seed: int) -> dict[str, np.ndarray]:
    """What regressions read of every cell of a set, by the names of :data:`READ`; no label is used.

    Own components are the standard pipeline's: all genes of the set, scaled to one total, logged, as many components of
    its own cells as there are of the other studies'. All else comes from the other studies.
    """
    found = {"pre-trained": learned.encoder.transform(adata)}
    X = normalized(adata, learned.genes)
    found["corpus components"] = np.asarray(X @ learned.axes - X.mean(0) @ learned.axes)
    own = normalized(adata)
    k = min(learned.axes.shape[1], min(own.shape) - 1)
    found["own components"] = PCA(k, svd_solver="arpack", random_state=seed).fit_transform(own)
    return found


def draw(n_cells: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Cells to label, in a random order, and cells to test on: the first n of the former are a budget of n."""
    split = paper_split(n_cells, seed)
    return np.random.default_rng(seed).permutation(split.train), split.test


def scores(y, proba, classes) -> dict[str, float]:
    """Accuracy, Cohen's kappa, and the areas of :func:`shared.evaluate.macro_ovr` over the types of the test cells."""
    called = np.asarray(classes)[np.argmax(proba, axis=1)]
    areas = macro_ovr(y, proba, classes)
    found = {"accuracy": accuracy(y, called), "kappa": cohen_kappa(y, called)}
    return found | {"auprc": areas["average_precision"], "auroc": areas["auroc"], "trapezoid": areas["trapezoid"]}


def read_by(Z, y, train, test, model) -> dict[str, float]:
    """Scores of a classifier on vectors `Z`, centred and divided by one length, both from the cells `train`."""
    Z = Z - Z[train].mean(0)
    Z = Z / np.sqrt((Z[train] ** 2).sum(1).mean())
    one = clone(model).fit(Z[train], y[train])
    proba = one.predict_proba(Z[test]) if hasattr(one, "predict_proba") else one.decision_function(Z[test])
    proba = np.column_stack([-proba, proba]) if proba.ndim == 1 else proba
    return scores(y[test], proba, one.classes_)


def tuned_by(model: ScPretrain, adata, train, test, seed: int, **settings) -> dict[str, float]:
    """Scores of the network fine-tuned on cells `train` for all its epochs, none held out to stop by."""
    fixed = {"validation": 0, "fit_patience": None, "random_state": seed}
    one = clone(model).set_params(**fixed | settings).fit(adata[train], "cell_type")
    return scores(adata.obs["cell_type"].to_numpy(str)[test], one.predict_proba(adata[test]), one.classes_)


def shuffled(model: ScPretrain, seed: int) -> ScPretrain:
    """The pre-trained weights under the names of other genes.

    The same as to pre-train on cells whose genes were renamed at random, alike in all sets: the network has all the
    structure there is, and nothing that it can know of the next set.
    """
    fake, own = clone(model), model.pretrained_
    order = np.random.default_rng(seed).permutation(len(own["genes"]))
    fake.pretrained_ = own | {"genes": [own["genes"][i] for i in order]}
    return fake


def arms_of(learned: Learned, seed: int) -> dict[str, ScPretrain]:
    """The networks by the names of :data:`NETWORKS`: one architecture, three kinds of first weights."""
    model = learned.encoder
    scratch = clone(model).set_params(use_pretrained=False)
    return dict(zip(NETWORKS, (scratch, model, shuffled(model, seed)), strict=True))


def tries() -> dict[str, tuple]:
    """The values that are tried for every arm, as many for each."""
    return dict.fromkeys(NETWORKS, RATES) | {f"{name}, logistic": PENALTIES for name in READ}


def set_rows(learned: Learned, own: Mapping, seed: int, *, values, budgets, n_own=2000, studies=None, splits=0, umap=0):
    """Every arm on every set of the study that was left out, at every budget, each value that is asked for.

    Parameters
    ----------
    learned : Learned
        Of the other studies.
    own : mapping of str to AnnData
        The sets of this one.
    seed : int
        Of splits, first weights and k-means.
    values : mapping
        Of arm to the values to try; or of study to such a mapping, as :func:`shared.studies.leave_one_out.choose` gives
        it, with one value for each arm.
    budgets : sequence of int
        Numbers of labelled cells. A set too small for one has a row that says so, without scores.
    n_own : int, default 2000
        Genes that networks, and regression on genes, read of each set: those most of its cells express.
    studies : mapping of str to str, optional
        The study of each set, where `values` has one for each study.
    splits : int, default 0
        How often to run the published protocol, each time with other cells, and with it conventional classifiers and
        clustering.
    umap : int, default 0
        Cluster after UMAP as well, if the seed is below this.

    Returns
    -------
    list of dict
        ``what`` ("budget", "protocol", "heads" or "clusters"), ``set``, ``labels``, ``arm``, ``value``, ``split``,
        scores, and ``cpu`` (:func:`timed`).
    """
    rows, start = [], time.process_time() - learned.cpu
    for name, adata in own.items():
        mine = values if studies is None else {arm: (v,) for arm, v in values[studies[name]].items()}
        known = adata.obs["cell_type"].notna().to_numpy()
        few = own_genes(adata, n_own)[known].copy()
        y = few.obs["cell_type"].to_numpy(str)
        Z = {one: part[known] for one, part in embeddings(learned, adata, seed).items()}
        Z["genes"] = normalized(few).toarray()
        nets = arms_of(learned, seed)
        found = list(_budgets(nets, Z, few, y, seed, mine, budgets))
        if splits:
            found += _protocol(nets, few, y, range(seed * splits, (seed + 1) * splits))
            found += _heads(Z, y, seed) + _clusters(Z, few, y, seed, seed < umap)
        rows += [{"set": name, **row} for row in found]
    return timed(rows, start)


def timed(rows: list[dict], start: float) -> list[dict]:
    """Rows with ``cpu``, the seconds of processor time since `start`, all of it in the first."""
    spent = time.process_time() - start
    return [{"cpu": 0.0 if i else spent, **row} for i, row in enumerate(rows)]


def _budgets(nets, Z, adata, y, seed, values, budgets):
    pool, test = draw(len(y), seed)
    for n in budgets:
        about = {"what": "budget", "labels": n}
        if n > len(pool):
            yield about | {"arm": "", "n_pool": len(pool)}
            continue
        for arm, some in values.items():
            for value in some:
                if arm in nets:
                    got = tuned_by(nets[arm], adata, pool[:n], test, seed, fit_lr=value)
                else:
                    model = LogisticRegression(C=value, max_iter=1000)
                    got = read_by(Z[arm.removesuffix(", logistic")], y, pool[:n], test, model)
                yield about | {"arm": arm, "value": value, **got}


def _protocol(nets, adata, y, splits):
    """Pre-trained and from scratch, both with the paper's settings and early stopping, on the same cells."""
    rows = []
    for split in splits:
        arms = {"pre-trained": PROTOCOL, "from scratch": PROTOCOL | {"use_pretrained": False}}
        arms = {name: settings | {"random_state": split} for name, settings in arms.items()}
        fitted, cells = finetune(nets["pre-trained"], adata, "cell_type", split_seed=split, arms=arms)
        for arm, model in fitted.items():
            got = scores(y[cells.test], model.predict_proba(adata[cells.test]), model.classes_)
            rows.append({"what": "protocol", "labels": len(cells.train), "split": split, "arm": arm, **got})
    return rows


def _heads(Z, y, seed):
    """The paper's three other classifiers, on graded scores, with the split of the protocol."""
    heads = {
        "random forest": RandomForestClassifier(10, max_depth=5, random_state=seed),
        "logistic regression": LogisticRegression(C=100, max_iter=1000),
        "linear SVM": SVC(C=100, kernel="linear", decision_function_shape="ovr"),
    }
    pool, test = draw(len(y), seed)
    return [
        {"what": "heads", "labels": len(pool), "arm": f"{name}, {head}", **read_by(Z[name], y, pool, test, model)}
        for name in ("pre-trained", "own components")
        for head, model in heads.items()
    ]


def _clusters(Z, adata, y, seed, umap):
    """Adjusted Rand index of k-means, told the number of types, with the types."""
    points = {name: Z[name] for name in ("pre-trained", "corpus components", "own components")}
    points["log counts"] = logged(adata.X).toarray()
    if umap:
        try:
            from umap import UMAP
        except ImportError:
            print("UMAP is left out: umap-learn is not installed")
        else:
            points["UMAP"] = UMAP(n_components=2, random_state=seed, n_jobs=1).fit_transform(points["log counts"])
    k = len(set(y))
    found = {n: KMeans(k, n_init=3, random_state=seed).fit_predict(P).astype(str) for n, P in points.items()}
    return [{"what": "clusters", "arm": name, "ari": ari(y, labels)} for name, labels in found.items()]


def by_set(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Mean of a metric over seeds and splits, sets × arms, without rows of sets that were too small."""
    return table[table[metric].notna()].pivot_table(index="set", columns="arm", values=metric, sort=False)


def gain(table: pd.DataFrame, studies: Mapping, arm: str, baseline: str, metric: str = "accuracy") -> Interval:
    """Mean difference of two arms, with a 95 % t interval over studies: the sets of one study count as one."""
    mean = by_set(table, metric)
    return over_seeds((mean[arm] - mean[baseline]).groupby(studies).mean().dropna())


def verdicts(table: pd.DataFrame, arm: str, baseline: str, metric: str, level: float = 0.05) -> dict[str, int]:
    """On how many sets an arm is significantly better, worse, or neither, by a paired t test over the splits of each.

    Parameters
    ----------
    table : DataFrame
        Columns ``set``, ``split``, ``arm`` and `metric`.
    arm, baseline, metric : str
        What is compared with what, and by which column.
    level : float, default 0.05
        Two-sided: without any difference, half of it comes out better by chance.
    """
    wide = table.pivot_table(index=["set", "split"], columns="arm", values=metric)
    found = {"better": 0, "comparable": 0, "worse": 0}
    for _, gains in (wide[arm] - wide[baseline]).groupby("set"):
        spread = gains.std(ddof=1)
        p = stats.ttest_1samp(gains, 0).pvalue if spread > 0 else float(gains.iloc[0] == 0)
        found["comparable" if p >= level else "better" if gains.mean() > 0 else "worse"] += 1
    return found


def stability(table: pd.DataFrame, arm: str, baseline: str, metric: str = "auprc") -> Interval:
    """Correlation, over sets, of the baseline's variance between splits with what the arm gains (section 3.6).

    With an interval by Fisher's z; fewer than four sets give -1 to 1.
    """
    wide = table.pivot_table(index=["set", "split"], columns="arm", values=metric)
    both = pd.concat(
        [wide[baseline].groupby("set").var(), (wide[arm] - wide[baseline]).groupby("set").mean()], axis=1
    ).dropna()
    r, n = float(np.corrcoef(both.to_numpy().T)[0, 1]), len(both)
    if n < 4:
        return Interval(r, -1.0, 1.0, 0.95, "too few sets", n)
    half = stats.norm.ppf(0.975) / np.sqrt(n - 3)
    return Interval(r, *(float(np.tanh(np.arctanh(r) + s * half)) for s in (-1, 1)), 0.95, "Fisher's z", n)
