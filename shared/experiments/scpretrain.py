"""What was borrowed, asked in one way: an encoder, a labelled data set, a seed, and rivals on the same cells.

The chapter on scPretrain is made of these questions. Each function takes one encoder or its numbers, one data set and
one seed. Arms that are compared get the same cells.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.stats import norm
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.cluster import KMeans
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC
from sklearn.utils.validation import check_is_fitted

from shared.data import DataError, to_human, to_symbols
from shared.data.gene_kinds import gene_kind
from shared.data.store import mirror_folders
from shared.evaluate.intervals import Interval, over_seeds
from shared.evaluate.leave_one_out import leave_one_out
from shared.evaluate.metrics import accuracy, ari, cohen_kappa, macro_ovr, trapezoid_auprc

if TYPE_CHECKING:
    from shared.methods.scpretrain import ScPretrain


def scores(y_true, proba, classes) -> dict[str, float]:
    """Accuracy, Cohen's kappa, and the areas of :func:`shared.evaluate.macro_ovr`, of graded scores."""
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


def draw(n_cells: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Cells to label, in a random order, and cells to test on: the first n of the former are a budget of n."""
    from shared.methods.scpretrain import paper_split

    split = paper_split(n_cells, seed)
    return np.random.default_rng(seed).permutation(split.train), split.test


def wrong_genes(model: ScPretrain, seed: int) -> ScPretrain:
    """The same pre-trained weights under the names of other genes: a control with all structure and no meaning."""
    fake, own = clone(model), model.pretrained_
    order = np.random.default_rng(seed).permutation(len(own["genes"]))
    fake.pretrained_ = own | {"genes": [own["genes"][i] for i in order]}
    return fake


def scratch(model: ScPretrain) -> ScPretrain:
    """The same network with nothing borrowed."""
    return clone(model).set_params(borrow=False)


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
    from shared.methods.scpretrain import finetune

    arms = {"pre-trained": {}, "from scratch": {"borrow": False}}
    arms = {name: settings | arm | {"random_state": seed} for name, arm in arms.items()}
    fitted, split = finetune(model, adata, label, split_seed=seed, limit=limit, arms=arms)
    test = adata[split.test]
    truth = test.obs[label].to_numpy(str)
    return {name: scores(truth, one.predict_proba(test), one.classes_) for name, one in fitted.items()}


def on_network(model: ScPretrain, adata, train, test, *, seed: int, label: str = "cell_type", **settings) -> dict:
    """Scores of the network tuned on cells `train`, for all its epochs, on cells `test`.

    `settings` go to the model: ``borrow=False`` leaves out what was pre-trained.
    """
    fixed = {"validation": 0, "fit_patience": None, "random_state": seed}
    one = clone(model).set_params(**fixed | settings).fit(adata[train], label)
    return scores(adata.obs[label].to_numpy(str)[test], one.predict_proba(adata[test]), one.classes_)


def graded(Z, y, train, test, model=None) -> tuple[np.ndarray, np.ndarray]:
    """Graded scores of cells `test` and their classes, by a classifier on numbers `Z`.

    The numbers are centred, and divided by one spread for all of them, both taken from the cells `train`; directions
    keep their proportions. Without `model` it is logistic regression with the library's penalty.
    """
    Z = (Z - Z[train].mean(0)) / Z[train].std()
    one = LogisticRegression(max_iter=1000) if model is None else clone(model)
    one.fit(Z[train], y[train])
    return (one.predict_proba if hasattr(one, "predict_proba") else one.decision_function)(Z[test]), one.classes_


def mean_accuracy(Z, y, n: int, seeds) -> float:
    """Accuracy of logistic regression on numbers `Z` with `n` labels, as a mean over draws of cells."""
    drawn = (draw(len(y), seed) for seed in seeds)
    return float(np.mean([_called_right(y[test], *graded(Z, y, pool[:n], test)) for pool, test in drawn]))


def _called_right(y_true, proba, classes):
    return accuracy(y_true, classes[np.argmax(proba, axis=1)])


def on_numbers(Z, y, train, test, model=None) -> dict[str, float]:
    """Scores of a classifier on numbers `Z` (:func:`graded`)."""
    return scores(y[test], *graded(Z, y, train, test, model))


def label_curve(networks, numbers, adata, budgets, seed: int, label: str = "cell_type", **settings):
    """Scores of every arm at every number of labels; all arms get the same cells.

    Parameters
    ----------
    networks : dict of str to ScPretrain
        Arms to be tuned (:func:`on_network`); one with ``borrow=False`` starts from scratch.
    numbers : dict of str to ndarray, cells × anything
        Arms to be read by logistic regression (:func:`on_numbers`).
    adata : AnnData
        The labelled data set.
    budgets : sequence of int
        Numbers of labels; each budget holds the cells of the smaller ones.
    seed : int
        Of cells and first weights.
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
    for n in budgets:
        for name, model in networks.items():
            got = on_network(model, adata, pool[:n], test, seed=seed, label=label, **settings)
            yield {"labels": n, "model": name, **got}
        for name, Z in numbers.items():
            yield {"labels": n, "model": name, **on_numbers(Z, y, pool[:n], test)}


def as_rung(model: ScPretrain, genes):
    """Logistic regression on the numbers of a pre-trained encoder, for log(1 + count) of `genes`."""
    reader = clone(model).set_params(logged=True)
    read = FunctionTransformer(reader.transform, kw_args={"genes": list(genes)}, accept_sparse=True)
    return make_pipeline(read, StandardScaler(), LogisticRegression(max_iter=1000))


def other_heads(Z, y, train, test, seed: int) -> dict[str, float]:
    """AUROC of the paper's three other classifiers on numbers `Z`, and ARI of k-means told the number of types."""
    heads = {
        "random forest": RandomForestClassifier(10, max_depth=5, random_state=seed),
        "logistic": LogisticRegression(max_iter=1000),
        "SVM": SVC(kernel="linear", decision_function_shape="ovr"),
    }
    found = {name: on_numbers(Z, y, train, test, head)["auroc"] for name, head in heads.items()}
    clusters = KMeans(len(set(y)), n_init=3, random_state=seed).fit_predict(Z)
    return found | {"k-means": ari(y, clusters.astype(str))}


def hard_areas(y_true, proba, classes) -> pd.DataFrame:
    """What hard labels do to areas under precision and recall, type by type.

    Returns
    -------
    DataFrame
        ``graded``: average precision of the scores; ``straight``: area under straight lines through the one point that
        a hard label is; ``steps``: average precision of hard labels.
    """
    hard = np.eye(len(classes))[np.argmax(proba, axis=1)]
    rows = {}
    for k, kind in enumerate(classes):
        is_kind = np.asarray(y_true) == kind
        if is_kind.any():
            rows[kind] = {
                "graded": average_precision_score(is_kind, proba[:, k]),
                "straight": trapezoid_auprc(is_kind, hard[:, k]),
                "steps": average_precision_score(is_kind, hard[:, k]),
            }
    return pd.DataFrame.from_dict(rows, orient="index")


# Many sets, each left out in turn.


class OnNumbers(ClassifierMixin, BaseEstimator):
    """Logistic regression on an encoder's numbers, or on log(1 + count) itself, as an arm of a sweep.

    The numbers are centred, and divided by one spread for all of them, as :func:`graded` does.

    Parameters
    ----------
    encoder : ScPretrain, optional
        Pre-trained. Without it the genes themselves are read.
    """

    def __init__(self, encoder=None):
        self.encoder = encoder

    def _numbers(self, X, genes):
        from shared.nn.pseudo_labels import logged

        return logged(X) if self.encoder is None else self.encoder.transform(X, genes=genes)

    def fit(self, X, y, *, genes):
        """Fit to counts, cells × `genes`."""
        Z = self._numbers(X, genes)
        Z = Z.toarray() if sparse.issparse(Z) else Z
        mean, spread = Z.mean(0), Z.std()
        self.model_ = LogisticRegression(max_iter=1000).fit((Z - mean) / spread, y)
        # The same scores of numbers as they come, so that sparse ones can stay sparse.
        self.model_.coef_ = self.model_.coef_ / spread
        self.model_.intercept_ = self.model_.intercept_ - self.model_.coef_ @ mean
        self.classes_ = self.model_.classes_
        return self

    def predict_proba(self, X, *, genes):
        """Probability of each type."""
        check_is_fitted(self, "model_")
        return self.model_.predict_proba(self._numbers(X, genes))

    def predict(self, X, *, genes):
        """The most probable type of each cell."""
        return self.classes_[self.predict_proba(X, genes=genes).argmax(1)]


class AllEpochs(ClassifierMixin, BaseEstimator):
    """A network tuned on every labelled cell for all its epochs, as an arm of a sweep: nothing is kept to stop by.

    Parameters
    ----------
    model : ScPretrain
    """

    def __init__(self, model):
        self.model = model

    def fit(self, X, y, *, genes):
        """Fit to counts, cells × `genes`."""
        self.model_ = clone(self.model).set_params(validation=0, fit_patience=None).fit(X, y, genes=genes)
        self.classes_ = self.model_.classes_
        return self

    def predict_proba(self, X, *, genes):
        """Probability of each type."""
        check_is_fitted(self, "model_")
        return self.model_.predict_proba(X, genes=genes)

    def predict(self, X, *, genes):
        """The most probable type of each cell."""
        return self.classes_[self.predict_proba(X, genes=genes).argmax(1)]


def borrowers(
    corpus, seed: int, *, recipe: dict, everything: Mapping | None = None, stop: bool = False, arms=None
) -> dict:
    """The arms of one fold, for :func:`shared.evaluate.leave_one_out`.

    Parameters
    ----------
    corpus : Corpus
        Without the set that is left out.
    seed : int
        Of the encoders.
    recipe : dict
        Settings of :class:`shared.methods.scpretrain.ScPretrain`, those of tuning included.
    everything : dict of int to ScPretrain, optional
        An encoder for each seed that has read the set as well: the arm ``"all in"``.
    stop : bool, default False
        Add the published protocol, in which a tenth of the cells says when tuning stops: ``"..., stopped"``.
    arms : sequence of str, optional
        Only these of the arms below.

    Returns
    -------
    dict
        Networks: ``"from scratch"``, ``"raw clusters"`` and ``"component clusters"`` by what was clustered first, and
        ``"PCA start"``. Regressions: on the numbers of each encoder, and ``"genes, logistic"``.
    """
    from shared.methods.scpretrain import ScPretrain

    def lender(**settings):
        return ScPretrain(**recipe | settings, random_state=seed).pretrain(corpus)

    lent = {"raw clusters": lender(), "component clusters": lender(space="pca")}
    nets = {"from scratch": scratch(lent["raw clusters"]), **lent}
    stopped = {f"{name}, stopped": net for name, net in nets.items()} if stop else {}
    lent |= {} if everything is None else {"all in": everything[seed]}
    lent["PCA"] = lender(rounds=0, start="pca")
    nets |= {"PCA start" if name == "PCA" else name: net for name, net in lent.items()}
    found = {name: AllEpochs(net) for name, net in nets.items()} | stopped
    found |= {f"{name}, logistic": OnNumbers(one) for name, one in lent.items()} | {"genes, logistic": OnNumbers()}
    return found if arms is None else {name: found[name] for name in arms}


def sweep(
    sets,
    recipe: dict,
    *,
    genes,
    limits=(150,),
    seeds=range(5),
    splits="seed",
    all_in: bool = False,
    stop: bool = False,
    arms=None,
    out=None,
    **more,
) -> pd.DataFrame:
    """Leave each labelled data set out in turn and compare the arms of :func:`borrowers` on it.

    Parameters
    ----------
    sets : mapping of str to AnnData or path
        Counts, with types where there are some; a set without types is only learned from.
    recipe : dict
        As in :func:`borrowers`.
    genes
        Of the encoders: ``"common"``, ``"union"`` or a list, as :func:`widespread` gives.
    limits, seeds, splits
        As in :func:`shared.evaluate.leave_one_out`. Unless told otherwise each seed has an encoder and a division of
        its own.
    all_in : bool, default False
        Add the arm whose encoder has read every set.
    stop, arms
        As in :func:`borrowers`.
    out : path, optional
        Folder that lets an interrupted sweep go on.
    **more
        Of :func:`shared.evaluate.leave_one_out`: ``label``, ``hold_out``, ``workers``, ``client``, ``progress``.

    Returns
    -------
    DataFrame
        As that function's.
    """
    from shared.data import Corpus
    from shared.methods.scpretrain import ScPretrain

    with tempfile.TemporaryDirectory() as folder:
        paths = {}
        for i, (name, one) in enumerate(sets.items()):
            paths[name] = one if isinstance(one, (str, os.PathLike)) else Path(folder, f"{i}.h5ad")
            if paths[name] is not one:
                one.write_h5ad(paths[name])
        everything = None
        if all_in:
            corpus = Corpus(paths, genes=genes).load()
            everything = {int(s): ScPretrain(**recipe, random_state=int(s)).pretrain(corpus) for s in seeds}
        make = functools.partial(borrowers, recipe=recipe, everything=everything, stop=stop, arms=arms)
        about = json.dumps(
            {"recipe": recipe, "all in": all_in, "stop": stop, "arms": arms}, sort_keys=True, default=repr
        )
        version = hashlib.sha256(about.encode()).hexdigest()
        return leave_one_out(
            make, paths, genes=genes, limits=limits, seeds=seeds, splits=splits, out=out, version=version, **more
        )


def versus(table: pd.DataFrame, rival: str, metric: str = "accuracy", groups: Mapping | None = None) -> pd.DataFrame:
    """What each arm of a sweep is ahead of a rival, as a mean over data sets.

    Parameters
    ----------
    table : DataFrame
        Of :func:`sweep`, one limit.
    rival : str
        The arm to subtract.
    metric : str, default "accuracy"
        A column of the table.
    groups : mapping of str to str, optional
        Study of each data set: sets of one study then count as one.

    Returns
    -------
    DataFrame
        For each arm ``ahead`` with ``low`` and ``high`` (Student's t over data sets, or over studies), ``wins`` and
        ``sets`` (how many there are).
    """
    mean = table.pivot_table(index="held_out", columns="arm", values=metric)
    ahead = mean.drop(columns=rival).sub(mean[rival], axis=0)
    ahead = ahead if groups is None else ahead.groupby(lambda name: groups.get(name, name)).mean()
    rows = {}
    for arm, values in ahead.items():
        values = values.dropna()
        got = over_seeds(values) if len(values) > 1 else Interval(float(values.mean()), np.nan, np.nan, 0.95, "", 1)
        rows[arm] = {"ahead": got.value, "low": got.low, "high": got.high}
        rows[arm] |= {"wins": int((values > 0).sum()), "sets": len(values)}
    return pd.DataFrame.from_dict(rows, orient="index")


def stability(table: pd.DataFrame, arm: str, rival: str, metric: str = "average_precision") -> Interval:
    """Correlation, over data sets, of the rival's variance between splits with what the arm gains on it.

    Section 3.6 of the paper says that borrowed weights help most where random ones end elsewhere each time.
    """
    one = table.pivot_table(index=["held_out", "split"], columns="arm", values=metric)
    unstable = one[rival].groupby("held_out").var()
    helped = (one[arm] - one[rival]).groupby("held_out").mean()
    both = pd.concat([unstable, helped], axis=1).dropna()
    return correlation(np.corrcoef(both.to_numpy().T)[0, 1], len(both))


def widespread(sets: Mapping, n: int) -> list[str]:
    """The `n` genes that most cells express, as a mean over the data sets (AnnData); labels are not looked at.

    A data set that does not list a gene counts as one in which no cell expresses it.
    """
    seen = pd.concat([pd.Series(np.asarray((_counts(a) > 0).mean(0)).ravel(), a.var_names) for a in sets.values()])
    seen = seen.groupby(level=0).sum()
    return sorted(seen.sort_values(ascending=False, kind="stable").index[:n])


def _counts(adata):
    return adata.layers.get("counts", adata.X)


def in_mirror(pattern: str) -> list[Path]:
    """Files of the folders in ``BORROWED_MIRROR`` whose names fit; where there are none, a line says what to do."""
    found = sorted(path for folder in mirror_folders() for path in folder.rglob(pattern))
    if not found:
        print(f"no file {pattern} was found: put some into a folder and name it in BORROWED_MIRROR")
    return found


def labelled_sets(files, label: str = "cell_type", split_by: Mapping | None = None) -> dict:
    """Data sets of ``.h5ad`` files under human gene symbols, by name; what cannot be used is said in a line.

    Parameters
    ----------
    files : sequence of path
        Counts, in ``layers["counts"]`` or ``X``.
    label : str, default "cell_type"
        Column of ``obs`` with the types. Types of fewer than ten cells lose their name, and are only learned from.
    split_by : mapping of str to str, optional
        For a file's name (without ``.h5ad``), the column of ``obs`` that makes several data sets of it.
    """
    import anndata as ad

    found = {}
    for path in map(Path, files):
        try:
            adata = ad.read_h5ad(path)
            adata.X = sparse.csr_matrix(_counts(adata), dtype=np.float32)
            if adata.X.min() < 0 or adata.uns.get("units") == "log":
                raise DataError("it holds no counts")
            adata = ad.AnnData(adata.X, adata.obs, adata.var[[]])
            adata = to_human(adata)[0] if gene_kind(adata.var_names).organism == "mouse" else to_symbols(adata)[0]
        except (DataError, OSError, TypeError) as problem:
            print(f"{path.name} is left out: {problem}")
            continue
        adata.layers["counts"] = adata.X
        by = (split_by or {}).get(path.stem)
        parts = {path.stem: slice(None)}
        if by is not None:
            parts = {
                f"{path.stem}, {value}": rows for value, rows in adata.obs.groupby(by, observed=True).indices.items()
            }
        found |= {name: _rare_unnamed(adata[rows].copy(), label) for name, rows in parts.items()}
    return found


def _rare_unnamed(adata, label):
    if label in adata.obs:
        y = adata.obs[label].astype(object)
        adata.obs[label] = pd.Categorical(y.where(y.map(y.value_counts()) >= 10))
    return adata
