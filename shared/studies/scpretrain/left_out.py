"""Labelled data sets, each left out in turn: what networks and regressions gain from all the others.

:func:`sweep` runs the arms on any data sets, by :func:`shared.studies.leave_one_out.leave_one_out`;
:func:`shared.studies.compare` says by how much they differ, as a mean over data sets. The rest makes data sets of
files.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.linear_model import LogisticRegression
from sklearn.utils.validation import check_is_fitted

from shared.data import Corpus, DataError, to_human, to_symbols
from shared.data.gene_kinds import gene_kind
from shared.data.stream import Stream
from shared.methods.scpretrain import ScPretrain, cluster_numbers, logged
from shared.studies.leave_one_out import leave_one_out


class _ByProbability(ClassifierMixin, BaseEstimator):
    """A classifier that calls the most probable type."""

    def predict(self, X, *, genes):
        """The most probable type of each cell."""
        return self.classes_[self.predict_proba(X, genes=genes).argmax(1)]


class OnEmbedding(_ByProbability):
    """Logistic regression on an encoder's embedding, or on log(1 + count) itself, as an arm of a sweep.

    The embedding is centred, and divided by one spread for all of them, as in
    :func:`shared.studies.scpretrain.class_scores`.

    Parameters
    ----------
    encoder : ScPretrain, optional
        Pre-trained. Without it the genes themselves are read.
    """

    def __init__(self, encoder=None):
        self.encoder = encoder

    def _embedding(self, X, genes):
        return logged(X) if self.encoder is None else self.encoder.transform(X, genes=genes)

    def fit(self, X, y, *, genes):
        """Fit to counts, cells × `genes`."""
        Z = self._embedding(X, genes)
        Z = Z.toarray() if sparse.issparse(Z) else Z
        mean, spread = Z.mean(0), Z.std()
        self.model_ = LogisticRegression(max_iter=1000).fit((Z - mean) / spread, y)
        # The same scores of values as they come, so that sparse ones can stay sparse.
        self.model_.coef_ = self.model_.coef_ / spread
        self.model_.intercept_ = self.model_.intercept_ - self.model_.coef_ @ mean
        self.classes_ = self.model_.classes_
        return self

    def predict_proba(self, X, *, genes):
        """Probability of each type."""
        check_is_fitted(self, "model_")
        return self.model_.predict_proba(self._embedding(X, genes))


class AllEpochs(_ByProbability):
    """A network fine-tuned on every labelled cell for all its epochs, as an arm of a sweep: nothing is kept to stop by.

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


def fold_arms(
    corpus, seed: int, *, config: dict, everything: Mapping | None = None, stop: bool = False, arms=None
) -> dict:
    """The arms of one fold, for :func:`shared.studies.leave_one_out.leave_one_out`.

    Parameters
    ----------
    corpus : Corpus
        Without the set that is left out.
    seed : int
        Of the encoders.
    config : dict
        Settings of :class:`shared.methods.scpretrain.ScPretrain`, those of fine-tuning included.
    everything : dict of int to ScPretrain, optional
        An encoder for each seed that has read the set as well: the arm ``"all in"``.
    stop : bool, default False
        Add the published protocol, in which a tenth of the cells says when fine-tuning stops: ``"..., stopped"``.
    arms : sequence of str, optional
        Only these of the arms below.

    Returns
    -------
    dict
        Networks: ``"from scratch"``, ``"raw clusters"`` and ``"component clusters"`` by what was clustered first, and
        ``"PCA start"``. Regressions: on the embedding by each encoder, and ``"genes, logistic"``.
    """

    def pretrained(**settings):
        return ScPretrain(**config | settings, random_state=seed).pretrain(corpus)

    encoders = {"raw clusters": pretrained(), "component clusters": pretrained(space="pca")}
    nets = {"from scratch": clone(encoders["raw clusters"]).set_params(use_pretrained=False), **encoders}
    stopped = {f"{name}, stopped": net for name, net in nets.items()} if stop else {}
    encoders |= {} if everything is None else {"all in": everything[seed]}
    encoders["PCA"] = pretrained(rounds=0, start="pca")
    nets |= {"PCA start" if name == "PCA" else name: net for name, net in encoders.items()}
    found = {name: AllEpochs(net) for name, net in nets.items()} | stopped
    found |= {f"{name}, logistic": OnEmbedding(one) for name, one in (encoders | {"genes": None}).items()}
    return found if arms is None else {name: found[name] for name in arms}


def sweep(
    sets,
    config: dict,
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
    """Leave each labelled data set out in turn and compare the arms of :func:`fold_arms` on it.

    Parameters
    ----------
    sets : mapping of str to AnnData or path
        Counts, with types where there are some; a set without types is only learned from. One with too few cells for
        the configuration's clusters is left out, and a line says so.
    config : dict
        As in :func:`fold_arms`.
    genes
        Of the encoders: ``"common"``, ``"union"`` or a list, as :func:`widespread` gives.
    limits, seeds, splits
        As in :func:`shared.studies.leave_one_out.leave_one_out`. Unless told otherwise each seed has an encoder and a
        division of its own.
    all_in : bool, default False
        Add the arm whose encoder has read every set.
    stop, arms
        As in :func:`fold_arms`.
    out : path, optional
        Folder that lets an interrupted sweep go on.
    **more
        ``label``, ``hold_out``, ``workers``, ``client``, ``progress`` of the same.

    Returns
    -------
    DataFrame
        As that function's.
    """
    sets = _large_enough(sets, config.get("cells_per_cluster", ScPretrain().cells_per_cluster))
    with tempfile.TemporaryDirectory() as folder:
        paths = {}
        for i, (name, one) in enumerate(sets.items()):
            paths[name] = one if isinstance(one, (str, os.PathLike)) else Path(folder, f"{i}.h5ad")
            if paths[name] is not one:
                one.write_h5ad(paths[name])
        everything = None
        if all_in:
            corpus = Corpus(paths, genes=genes).load()
            everything = {int(s): ScPretrain(**config, random_state=int(s)).pretrain(corpus) for s in seeds}
        make = functools.partial(fold_arms, config=config, everything=everything, stop=stop, arms=arms)
        about = json.dumps(
            {"config": config, "all in": all_in, "stop": stop, "arms": arms}, sort_keys=True, default=repr
        )
        version = hashlib.sha256(about.encode()).hexdigest()
        return leave_one_out(
            make, paths, genes=genes, limits=limits, seeds=seeds, splits=splits, out=out, version=version, **more
        )


def _large_enough(sets, cells_per_cluster):
    """The sets with cells enough for a cluster of each size: one without would end every fold that learns from it."""
    cluster_numbers(2**40, cells_per_cluster)  # which refuses sizes that are none
    kept = {}
    for name, one in sets.items():
        try:
            cluster_numbers(_n_cells(name, one), cells_per_cluster)
        except DataError as problem:
            print(f"{name} is left out: {problem}")
        else:
            kept[name] = one
    return kept


def _n_cells(name, one):
    if hasattr(one, "n_obs"):
        return one.n_obs
    if not Path(one).exists():
        raise FileNotFoundError(f"{name!r}: there is no file {one}")
    with Stream(one) as stream:
        return len(stream)


def widespread(sets: Mapping, n: int) -> list[str]:
    """The `n` genes that most cells express, as a mean over the data sets (AnnData); labels are not looked at.

    A data set that does not list a gene counts as one in which no cell expresses it.
    """
    seen = pd.concat([pd.Series(np.asarray((_counts(a) > 0).mean(0)).ravel(), a.var_names) for a in sets.values()])
    seen = seen.groupby(level=0).sum()
    return sorted(seen.sort_values(ascending=False, kind="stable").index[:n])


def _counts(adata):
    return adata.layers.get("counts", adata.X)


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
        parts = {path.stem: slice(None)}
        if path.stem in (split_by or {}):
            groups = adata.obs.groupby(split_by[path.stem], observed=True).indices
            parts = {f"{path.stem}, {value}": rows for value, rows in groups.items()}
        found |= {name: _rare_unnamed(adata[rows].copy(), label) for name, rows in parts.items()}
    return found


def _rare_unnamed(adata, label):
    if label in adata.obs:
        y = adata.obs[label].astype(object)
        adata.obs[label] = pd.Categorical(y.where(y.map(y.value_counts()) >= 10))
    return adata
