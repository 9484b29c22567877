"""What pre-training is worth to one labelled data set: an encoder, a seed, and baselines on the same cells.

Each function takes one encoder or its embedding, one data set and one seed. Arms that are compared get the same cells.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.stats import norm
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC

from shared.data import DataError
from shared.evaluate.intervals import Interval
from shared.evaluate.metrics import accuracy, ari, cohen_kappa, macro_ovr, trapezoid_auprc
from shared.methods.scpretrain import PseudoLabeller, ScPretrain, finetune, logged, paper_split
from shared.studies.harness import fit_arms


def scores(y_true, proba, classes) -> dict[str, float]:
    """Accuracy, Cohen's kappa, and the areas of :func:`shared.evaluate.macro_ovr`, of scores of each class."""
    called = np.asarray(classes)[np.argmax(proba, axis=1)]
    return {
        "accuracy": accuracy(y_true, called),
        "kappa": cohen_kappa(y_true, called),
        **macro_ovr(y_true, proba, classes),
    }


def obtainable(names, load) -> dict:
    """The official data sets that can be had here, by name; what is missing is printed with the reason.

    Parameters
    ----------
    names : sequence of str
        Of the catalogue.
    load : callable
        ``load(name, route="official")``.
    """
    found = {}
    for name in names:
        try:
            found[name] = load(name, route="official")
        except DataError as missing:
            print(f"{name} is left out: {missing}")
    return found


def correlation(r: float, n: int, level: float = 0.95) -> Interval:
    """Interval of a correlation of `n` pairs by Fisher's z; it needs four pairs, and fewer give -1 to 1."""
    if n < 4:
        return Interval(float(r), -1.0, 1.0, level, "too few pairs", n)
    half = norm.ppf((1 + level) / 2) / np.sqrt(n - 3)
    low, high = np.tanh(np.arctanh(r) - half), np.tanh(np.arctanh(r) + half)
    return Interval(float(r), float(low), float(high), level, "Fisher's z", n)


def own_genes(adata, n: int):
    """The data set with the `n` genes that most of its cells express, in the order they had."""
    seen = np.asarray((adata.layers["counts"] > 0).mean(0)).ravel()
    return adata[:, np.sort(np.argsort(-seen, kind="stable")[:n])].copy()


def agreement(counts, classes: Mapping, spaces: Mapping, seeds, cells_per_cluster: int = 100) -> pd.DataFrame:
    """What clusters agree with: their adjusted Rand index with every way to class the cells.

    Parameters
    ----------
    counts : CSR or ndarray
        Cells × genes.
    classes : dict of str to sequence of str
        Class of each cell, such as its type.
    spaces : dict of str to str
        What is clustered (:class:`shared.methods.scpretrain.PseudoLabeller`), and how the table calls it.
    seeds : sequence of int
        Of k-means.
    cells_per_cluster : int, default 100
        On average.

    Returns
    -------
    DataFrame
        ``space``, ``seed`` and a column for each of `classes`.
    """
    rows = []
    for space, name in spaces.items():
        for seed in seeds:
            labels = PseudoLabeller(space, (cells_per_cluster,), seed=seed).fit_predict(counts).labels[:, 0]
            found = {what: ari(y, labels.astype(str)) for what, y in classes.items()}
            rows.append({"space": name, "seed": seed, **found})
    return pd.DataFrame(rows)


def pretrain(corpora: Mapping, config: dict, seeds, workers: int = 1, **settings) -> dict:
    """An encoder of each corpus and seed: a dict of (name of the corpus, seed) to ScPretrain.

    `settings` go before those of `config`; with several `workers` they train in as many processes, and are the same.
    """
    arm = functools.partial(pretrain_one, **config | settings)
    done = fit_arms({"": arm}, corpora, seeds, workers=workers)
    return {(name, seed): model for (name, _, seed), model in done.items()}


def pretrain_one(corpus, seed: int, **config) -> ScPretrain:
    """An encoder pre-trained on the corpus."""
    return ScPretrain(**config, random_state=seed).pretrain(corpus)


def draw(n_cells: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Cells to label, in a random order, and cells to test on: the first n of the former are a budget of n."""
    split = paper_split(n_cells, seed)
    return np.random.default_rng(seed).permutation(split.train), split.test


def wrong_genes(model: ScPretrain, seed: int) -> ScPretrain:
    """The same pre-trained weights under the names of other genes: a control with all structure and no meaning."""
    fake, own = clone(model), model.pretrained_
    order = np.random.default_rng(seed).permutation(len(own["genes"]))
    fake.pretrained_ = own | {"genes": [own["genes"][i] for i in order]}
    return fake


def scratch(model: ScPretrain, **settings) -> ScPretrain:
    """The same network without what was pre-trained, and with other settings where some are given."""
    return clone(model).set_params(use_pretrained=False, **settings)


def embeddings(encoders: Mapping, adata) -> dict:
    """What regressions read of a data set: the embedding by each encoder, and log(1 + count) of its own genes.

    The names say how they are read: ``"..., logistic"`` for each of `encoders`, and ``"genes, logistic"``.
    """
    found = {f"{name}, logistic": model.transform(adata) for name, model in encoders.items()}
    return found | {"genes, logistic": logged(adata.layers["counts"]).toarray()}


def published_protocol(
    model: ScPretrain, adata, seed: int, limit: int, label: str = "cell_type", **settings
) -> dict[str, dict]:
    """Scores of the pre-trained and the from-scratch network on one split, with early stopping as published.

    Parameters
    ----------
    model : ScPretrain
        Pre-trained; not changed.
    adata : AnnData
        The labelled data set.
    seed : int
        Of the split and of first weights.
    limit : int
        Labelled cells at most.
    label : str
        Column of ``obs``.
    **settings
        Of both networks.
    """
    settings = settings | {"random_state": seed}
    arms = {"pre-trained": settings, "from scratch": settings | {"use_pretrained": False}}
    fitted, split = finetune(model, adata, label, split_seed=seed, limit=limit, arms=arms)
    test = adata[split.test]
    truth = test.obs[label].to_numpy(str)
    return {name: scores(truth, one.predict_proba(test), one.classes_) for name, one in fitted.items()}


def network_scores(model: ScPretrain, adata, train, test, *, seed: int, label: str = "cell_type", **settings) -> dict:
    """Scores of the network fine-tuned on cells `train`, for all its epochs, on cells `test`.

    `settings` go to the model: ``use_pretrained=False`` leaves out what was pre-trained.
    """
    fixed = {"validation": 0, "fit_patience": None, "random_state": seed}
    one = clone(model).set_params(**fixed | settings).fit(adata[train], label)
    return scores(adata.obs[label].to_numpy(str)[test], one.predict_proba(adata[test]), one.classes_)


def class_scores(Z, y, train, test, model=None) -> tuple[np.ndarray, np.ndarray]:
    """Scores of each class for cells `test`, and the classes, by a classifier on embeddings `Z`.

    The embeddings are centred, and divided by one spread for all of them, both taken from the cells `train`; directions
    keep their proportions. Without `model` it is logistic regression with the library's penalty.
    """
    Z = (Z - Z[train].mean(0)) / Z[train].std()
    one = LogisticRegression(max_iter=1000) if model is None else clone(model)
    one.fit(Z[train], y[train])
    return (one.predict_proba if hasattr(one, "predict_proba") else one.decision_function)(Z[test]), one.classes_


def mean_accuracy(Z, y, n: int, seeds) -> float:
    """Accuracy of logistic regression on embeddings `Z` with `n` labels, as a mean over draws of cells."""
    found = []
    for pool, test in (draw(len(y), seed) for seed in seeds):
        proba, classes = class_scores(Z, y, pool[:n], test)
        found.append(accuracy(y[test], classes[np.argmax(proba, axis=1)]))
    return float(np.mean(found))


def embedding_scores(Z, y, train, test, model=None) -> dict[str, float]:
    """Scores of a classifier on embeddings `Z` (:func:`class_scores`)."""
    return scores(y[test], *class_scores(Z, y, train, test, model))


def label_curve(networks, embeddings, adata, budgets, seed: int, once=None, label: str = "cell_type", **settings):
    """Scores of every arm at every number of labels; all arms get the same cells.

    Parameters
    ----------
    networks : dict of str to ScPretrain
        Arms to be fine-tuned (:func:`network_scores`); one with ``use_pretrained=False`` starts from scratch.
    embeddings : dict of str to ndarray, cells × features
        Arms to be read by logistic regression (:func:`embedding_scores`).
    adata : AnnData
        The labelled data set.
    budgets : sequence of int
        Numbers of labels; each budget holds the cells of the smaller ones.
    seed : int
        Of cells and first weights.
    once : dict of str to ScPretrain, optional
        More networks, at the first budget only.
    label : str
        Column of ``obs``.
    **settings
        Of the networks.

    Yields
    ------
    dict
        ``labels``, ``model`` and the scores.
    """
    y, (pool, test) = adata.obs[label].to_numpy(str), draw(adata.n_obs, seed)
    for i, n in enumerate(budgets):
        for name, model in {**networks, **({} if i else once or {})}.items():
            got = network_scores(model, adata, pool[:n], test, seed=seed, label=label, **settings)
            yield {"labels": n, "model": name, **got}
        for name, Z in embeddings.items():
            yield {"labels": n, "model": name, **embedding_scores(Z, y, pool[:n], test)}


def as_baseline(model: ScPretrain, genes):
    """Logistic regression on the embedding by a pre-trained encoder, for log(1 + count) of `genes`."""
    reader = clone(model).set_params(logged=True)
    read = FunctionTransformer(reader.transform, kw_args={"genes": list(genes)}, accept_sparse=True)
    return make_pipeline(read, StandardScaler(), LogisticRegression(max_iter=1000))


def other_heads(Z, y, train, test, seed: int) -> dict[str, float]:
    """AUROC of the paper's three other classifiers on embeddings `Z`, and ARI of k-means told the number of types."""
    heads = {
        "random forest": RandomForestClassifier(10, max_depth=5, random_state=seed),
        "logistic": LogisticRegression(max_iter=1000),
        "SVM": SVC(kernel="linear", decision_function_shape="ovr"),
    }
    found = {name: embedding_scores(Z, y, train, test, head)["auroc"] for name, head in heads.items()}
    clusters = KMeans(len(set(y)), n_init=3, random_state=seed).fit_predict(Z)
    return found | {"k-means": ari(y, clusters.astype(str))}


def hard_label_areas(y_true, proba, classes) -> pd.DataFrame:
    """What hard labels do to areas under precision and recall, type by type.

    Returns
    -------
    DataFrame
        ``scores``: average precision of the scores; ``trapezoid``: area under straight lines
        through the one point that a hard label is; ``steps``: average precision of hard labels.
    """
    hard = np.eye(len(classes))[np.argmax(proba, axis=1)]
    rows = {}
    for k, kind in enumerate(classes):
        is_kind = np.asarray(y_true) == kind
        if is_kind.any():
            rows[kind] = {
                "scores": average_precision_score(is_kind, proba[:, k]),
                "trapezoid": trapezoid_auprc(is_kind, hard[:, k]),
                "steps": average_precision_score(is_kind, hard[:, k]),
            }
    return pd.DataFrame.from_dict(rows, orient="index")


def stability(table: pd.DataFrame, arm: str, baseline: str, metric: str = "average_precision") -> Interval:
    """Correlation, over data sets, of the baseline's variance between splits with what the arm gains on it.

    Section 3.6 of the paper says that pre-trained weights help most where random ones end elsewhere each time.
    """
    one = table.pivot_table(index=["held_out", "split"], columns="arm", values=metric)
    unstable = one[baseline].groupby("held_out").var()
    helped = (one[arm] - one[baseline]).groupby("held_out").mean()
    both = pd.concat([unstable, helped], axis=1).dropna()
    return correlation(np.corrcoef(both.to_numpy().T)[0, 1], len(both))
