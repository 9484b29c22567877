"""Protocols of the kit: what a family of methods does, beside what every method shares. No torch and no Keras here.

A method extends :class:`shared.methods.base.TransferEstimator`, by way of a backend, and one protocol or more. Each
lists the parts of the common contract (``tests/methods/test_contract.py``) that do not bind it, with the reason.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from sklearn.base import ClassifierMixin, ClassNamePrefixFeaturesOutMixin, RegressorMixin, TransformerMixin
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from shared.data.cells import Cells, column, column_names, read, table_of_cells
from shared.data.constraints import Maybe, Probability, require
from shared.data.errors import DataError, warn


def _given(y):
    if y is None:
        raise DataError("score compares with y, and none was given: pass y, or the name of a column of adata.obs as y")
    return y


class Transformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin):
    """Gives each cell an embedding by ``transform``: float32, whatever comes in.

    Its columns have names (``get_feature_names_out``, ``set_output``): the class with a number.
    """

    @property
    def _n_features_out(self) -> int:
        # Of what was built, not of settings that may have changed since.
        return self.built_["settings"]["hidden"][-1]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


class Classifier(ClassifierMixin):
    """Names a class for each cell; says ``"unknown"`` where the best score is below the setting ``unknown``.

    A subclass has ``predict_proba``.
    """

    unknown = None  # a method that can reject declares the setting

    def _read_labelled(self, X, y, *, genes=None, **how) -> Cells:
        """Cells with labels, and ``classes_``; one class, and a threshold that cannot be used, are refused."""
        return self._set_classes(self._read(X, y, genes=genes, reset=True, **how))

    def _set_classes(self, cells) -> Cells:
        check_classification_targets(cells.y)
        self.classes_ = cells.classes
        if len(self.classes_) < 2:
            raise DataError(f"y holds one class only ({self.classes_[0]}): a classifier needs two")
        self._check_unknown()
        return cells

    def _check_unknown(self):
        """Refuse a threshold that no score is compared with, and a class that goes by the name of the others."""
        require(Maybe(Probability()), unknown=self.unknown)
        if self.unknown is not None and "unknown" in self.classes_.tolist():
            raise DataError(
                'a class is called "unknown", which is also the answer for cells that are like no class: rename it, '
                "drop its cells, or set unknown=None"
            )

    def _scores(self, X, genes) -> np.ndarray:
        """What classes are chosen and rejected by: (n_cells, n_classes), from 0 to 1."""
        return self.predict_proba(X, genes=genes)

    def _best(self, X, genes=None) -> tuple[np.ndarray, np.ndarray]:
        """The class with the best score, and whether even that one is below `unknown`: (n_cells,) each."""
        check_is_fitted(self, "classes_")
        self._check_unknown()
        scores = self._scores(X, genes)
        return self.classes_[scores.argmax(1)], scores.max(1) < (-np.inf if self.unknown is None else self.unknown)

    def predict(self, X, *, genes=None) -> np.ndarray:
        """The class with the best score; ``"unknown"`` where even that one is below `unknown`: (n_cells,)."""
        names, rejected = self._best(X, genes)
        if self.unknown is None:
            return names
        names = names.astype(object)
        names[rejected] = "unknown"
        return names

    def score(self, X, y="cell_type", sample_weight=None) -> float:
        """Accuracy, in which "unknown" is wrong; of an AnnData `y` may name a column of ``obs``, as in `fit`."""
        y = column(table_of_cells(X), _given(y))
        if self.unknown is None:
            return super().score(X, y, sample_weight)
        names, rejected = self._best(X)
        weight = np.ones(len(names)) if sample_weight is None else np.asarray(sample_weight)
        return float(accuracy_score(y, names, normalize=False, sample_weight=weight * ~rejected) / weight.sum())


class Regressor(RegressorMixin):
    """Predicts one or several numbers for each cell, each standardised while training."""

    def _read_numbers(self, X, y, *, genes=None, **how) -> tuple[Cells, np.ndarray]:
        """Cells with numbers, and these as float32 (n_cells, n_outputs) with mean 0 and deviation 1; NaN stays NaN."""
        cells = self._read(X, y, genes=genes, reset=True, numbers=True, **how)
        y = np.asarray(cells.y, np.float64).reshape(len(cells), -1)
        few = np.flatnonzero(np.isfinite(y).sum(0) < 2)
        if len(few) and len(cells) > 1:
            raise DataError(f"output {few[0]} has fewer than two measured values: leave it out")
        self.one_output_ = cells.y.ndim == 1
        self.y_mean_, spread = np.nanmean(y, 0), np.nanstd(y, 0)
        self.y_scale_ = np.where(spread > 0, spread, 1)
        return cells, ((y - self.y_mean_) / self.y_scale_).astype(np.float32)

    def _numbers(self, output: np.ndarray) -> np.ndarray:
        """Standardised output (n_cells, n_outputs) in the units and the shape of `y`."""
        y = output * self.y_scale_ + self.y_mean_
        return y[:, 0] if self.one_output_ else y

    def score(self, X, y=None, sample_weight=None) -> float:
        """R² over what was measured (NaN was not), averaged over outputs with two measured values or more.

        Of an AnnData `y` may name a column of ``obs``.
        """
        y = column(table_of_cells(X), _given(y), numbers=True)
        y, predicted = np.asarray(y, np.float64), self.predict(X)
        y, predicted = (part.reshape(len(part), -1) for part in (y, predicted))
        if y.shape != predicted.shape:
            raise DataError(f"y is {y.shape}, cells × outputs, and the prediction {predicted.shape}: give as many")
        weight = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight)
        pairs = [(a, b, ~np.isnan(a)) for a, b in zip(y.T, predicted.T, strict=True)]
        each = [r2_score(a[m], b[m], sample_weight=weight[m]) for a, b, m in pairs if m.sum() > 1]
        if not each:
            raise DataError("no output has two measured values, so there is nothing to score")
        return float(np.mean(each))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


class Pretrained:
    """Is pre-trained on other data first: ``pretrain(...)`` sets ``pretrained_``, which a clone keeps.

    ``pretrained_`` is a dict with ``genes`` (list of str or None), ``n_genes`` and what the method learned.
    """

    kept = ("pretrained_",)

    def _read_pretrained(self, X, *, genes=None) -> Cells:
        """Cells for what was pre-trained, before any fit: held to its genes, and nothing is set."""
        check_is_fitted(self, "pretrained_", msg="nothing was pre-trained or fitted: call pretrain or fit first")
        cells = read(X, genes=genes, accept_sparse=self.accept_sparse, dtype=self.dtype)
        self._same_genes(cells, self.pretrained_)
        self._warn_of_scale(cells, self.pretrained_["is_log"], "pre-trained")
        return cells

    def _keep(self, cells, **learned):
        """Set ``pretrained_``; whatever was learned before is forgotten."""
        is_log = getattr(self, "is_log_", None)
        self._forget(kept=())
        self.pretrained_ = {"genes": cells.genes, "n_genes": cells.n_genes, "is_log": is_log} | learned
        return self


class DomainAware:
    """Fits labelled source cells together with target cells: ``fit(X, y, sample_domain)``.

    ``sample_domain`` is positive for source and negative for target, as in skada; it can be passed through
    ``GridSearchCV.fit(X, y, sample_domain=...)``. Without it all cells are source.
    """

    def _read_domains(self, X, y, sample_domain=None, *, genes=None) -> tuple[Cells, Cells]:
        """Source with labels and ``classes_``, and target; labels of target cells are not looked at."""
        if sample_domain is None:
            source = self._read_labelled(X, y, genes=genes)
            return source, source[:0]
        both = self._read(X, genes=genes, reset=True, sample_domain=sample_domain)
        is_source, obs = both.sample_domain > 0, table_of_cells(X)
        if not is_source.any():
            raise DataError("no cell is of the source: sample_domain must be positive for the labelled cells")
        if obs is not None and isinstance(y, str):
            y = column(obs[is_source], y)
        elif np.shape(y)[:1] == (len(both),):
            y = np.asarray(y)[is_source]
        else:
            raise DataError(
                f"X has {len(both)} cells and y {np.shape(y)}: give one label a cell (any for target cells)"
            )
        source = both.source
        labels = read(np.zeros((len(source), 1), np.float32), y).y  # X was read above, and reading it again copies
        return self._set_classes(replace(source, y=labels)), both.target


class FewShotClassifier(Classifier):
    """Compares query cells with a few support cells of each class: ``fit(support, y)``, then ``predict(query)``.

    A subclass overrides :meth:`scores`; the classes may be others than those it was pre-trained on.
    """

    def predict_proba(self, X, *, genes=None) -> np.ndarray:
        """Scores divided by their sum over the classes: float32 (n_cells, n_classes). They are not calibrated."""
        scores = np.maximum(self.scores(X, genes=genes), np.finfo(np.float32).tiny)
        return scores / scores.sum(1, keepdims=True)

    def scores(self, X, *, genes=None) -> np.ndarray:
        """How alike each query and each class are: float32 (n_cells, n_classes), from 0 to 1."""
        raise NotImplementedError

    def _scores(self, X, genes):
        return self.scores(X, genes=genes)


class Basis(Transformer):
    """Learns gene weights, ``loadings_`` (n_genes, n_components), and projects other cells onto them by gene name."""

    exempt = {
        "gene order": "genes are matched by name, so another order gives the same projection",
        "check_dataframe_column_names_consistency": "other columns than those of the fit are left out, not refused",
    }

    @property
    def _n_features_out(self):
        return self.loadings_.shape[1]

    def project(self, X, *, genes=None) -> np.ndarray:
        """Weights of the components in each cell: (n_cells, n_components); genes are matched by name."""
        raise NotImplementedError

    def _by_name(self, X, genes=None):
        """Rows of the loadings and columns of `X` that belong to the same genes; all where a side has no names."""
        check_is_fitted(self, "loadings_")
        known, named = getattr(self, "feature_names_in_", None), genes is not None or column_names(X) is not None
        if known is None or not named:
            return self.loadings_, self._read(X, genes=genes).X
        cells = read(X, genes=genes, dtype=self.dtype)
        self._warn_of_scale(cells, self.is_log_, "fitted")
        shared, rows, columns = np.intersect1d(known, cells.genes, return_indices=True)
        if not len(shared):
            raise DataError(
                f"no gene is shared: the data have {cells.genes[0]!r}, the loadings {known[0]!r}. "
                "Is it another species, or symbols against Ensembl identifiers?"
            )
        if len(shared) < max(self.loadings_.shape[1], min(len(known), cells.n_genes) / 10):
            said = f"{len(shared)} of the {len(known)} genes of the loadings are among these {cells.n_genes}"
            warn(f"{said}: too few to tell the components apart; are the names of one kind?")
        return self.loadings_[rows], cells.X[:, columns]

    def transform(self, X, *, genes=None) -> np.ndarray:
        """The same as :meth:`project`."""
        return self.project(X, genes=genes)


class Generator:
    """Predicts the profiles that cells would have under another condition: ``generate(X, condition)``."""

    exempt = {"sklearn": "conditions stand where scikit-learn has labels, and profiles come out"}

    def generate(self, X, condition, *, genes=None) -> np.ndarray:
        """Profiles of the cells `X` under `condition`: float32 (n_cells, n_genes)."""
        raise NotImplementedError


class Translator:
    """Maps effects on genes, or gene sets, from one species or platform to another; rows are genes.

    ``fit(X, Y)`` takes the effects of the same genes in paired studies, genes × studies; ``predict(X)`` gives the
    effects to expect for new studies, genes × studies.
    """

    accept_sparse, dtype = False, np.float64
    exempt = {"sklearn": "rows are genes and columns are studies, of which a new table may have any number"}

    def _read_rows(self, X, Y=None, *, genes=None, reset=False) -> tuple[np.ndarray, ...]:
        """Effects as float64 arrays genes × studies; genes are named by the rows, studies by the columns."""
        tables = [T for T in (X, Y) if T is not None]
        if any(table_of_cells(T) is not None for T in tables):
            raise DataError("tables of effects are read here, genes × studies: pass adata.to_df().T")
        axes = [[part.tolist() for part in T.axes] if hasattr(T, "axes") else None for T in tables]
        if len(axes) == 2 and None not in axes and axes[0] != axes[1]:
            raise DataError("X and Y name other genes or studies, or in another order: give the same rows and columns")
        genes = column_names(X.T) if genes is None and hasattr(X, "axes") else genes
        found = [self._read(np.asarray(T).T, genes=genes, reset=reset).X.T for T in tables]
        if len({T.shape for T in found}) > 1:
            raise DataError(f"X is {found[0].shape} and Y {found[1].shape}: give the same genes in the same studies")
        return tuple(found)
