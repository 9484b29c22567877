"""Plain classifiers of cells: what every method of this book must beat, read from the simplest to the network.

Inputs are log-normalised expression, cells × genes, as an ndarray or a CSR matrix; whatever a model needs besides
(components, scaling) is a step of its pipeline, so nothing is ever fitted on test cells.

The settings were chosen by five-fold cross-validation inside one run of the bundled blood cells at a time, for the
balanced accuracy, and by log loss between equals. The other run was never looked at.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from functools import wraps

import numpy as np
import sklearn
import torch
from scipy import sparse
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics import pairwise_distances_argmin
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils.validation import check_is_fitted
from torch.nn.functional import cross_entropy

from shared.data.cells import array_of, column, dense_matrix, table_of_cells
from shared.data.constraints import Flag, Whole
from shared.data.errors import DataError
from shared.data.validate.structure import matrix_of
from shared.methods.base import Example, TransferEstimator, example_cells
from shared.methods.network_classifier import NetworkClassifier
from shared.methods.protocols import Classifier


def softmax_regression(X: np.ndarray, y: np.ndarray, C: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Multinomial logistic regression with an L2 penalty, written out.

    Minimises the sum of the cross-entropies plus ``(W ** 2).sum() / (2 * C)``, which is what scikit-learn's
    ``LogisticRegression(C=C)`` minimises, by L-BFGS on all cells at once. Each gene is centred first and the intercept
    put back after: the minimum is the same, and in single cells it is reached in half the steps or fewer, because
    every type's score no longer moves with the average cell.

    Parameters
    ----------
    X : float32 ndarray, cells × genes
        Log-normalised expression.
    y : ndarray of str or int, cells
        Types.
    C : float
        Inverse strength of the penalty.

    Returns
    -------
    names : ndarray, types
        The types, sorted.
    W : float32 ndarray, genes × types
    b : float32 ndarray, types
        ``names[(X @ W + b).argmax(1)]`` names new cells.
    """
    names, target = np.unique(y, return_inverse=True)
    cells, target = torch.as_tensor(X), torch.as_tensor(target)
    mean = cells.mean(0)
    centred = cells - mean
    W = torch.zeros(len(mean), len(names), requires_grad=True)  # genes × types
    b = torch.zeros(len(names), requires_grad=True)
    optimizer = torch.optim.LBFGS([W, b], max_iter=100, line_search_fn="strong_wolfe")

    def objective() -> torch.Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(centred @ W + b, target, reduction="sum") + (W**2).sum() / (2 * C)
        loss.backward()
        return loss

    optimizer.step(objective)
    W, b = W.detach(), b.detach() - mean @ W.detach()
    return names, W.numpy(), b.numpy()


def _softmax_regression(X, y, C=1.0):
    return _regressed(dense_matrix(X).astype(np.float32), array_of(y, "y"), C)


_regressed, softmax_regression = softmax_regression, wraps(softmax_regression)(_softmax_regression)  # as on the page


class _LoggedCells(TransferEstimator):
    """Values as they are, float64 or float32; counts are warned of."""

    expects = "log"
    dtype = (np.float64, np.float32)


class NearestCentroid(Classifier, _LoggedCells):
    """The type whose average cell is nearest.

    scikit-learn's own also measures the spread within types, and warns of every gene that has none, which in single
    cells is most of them. This one only averages; a test holds its predictions to those of the library.
    """

    @classmethod
    def example(cls):
        """A small problem to try it on."""
        return Example(cls(), example_cells())

    def fit(self, X, y="cell_type", *, genes=None):
        """Average the cells of each type: ``centroids_``, (n_types, n_genes)."""
        cells = self._read_labelled(X, y, genes=genes)
        rows = (cells.X[cells.codes == code] for code in range(cells.n_classes))
        self.centroids_ = np.stack([np.asarray(some.mean(0)).ravel() for some in rows])
        return self

    def predict(self, X, *, genes=None):
        """The type of the nearest average."""
        check_is_fitted(self, "centroids_")
        return self.classes_[pairwise_distances_argmin(self._read(X, genes=genes).X, self.centroids_)]


@dataclass(eq=False, repr=False)
class Components(ClassNamePrefixFeaturesOutMixin, TransformerMixin, _LoggedCells):
    """PCA with as many components as asked for, or as the cells allow, so that it also works on a handful of them."""

    constraints = {"n_components": Whole(1)}

    n_components: int = 30
    _: KW_ONLY
    random_state: int | None = None

    @property
    def _n_features_out(self):
        return len(self.components_)

    @classmethod
    def example(cls):
        """A small problem to try it on."""
        return Example(cls(3, random_state=0), example_cells(), y=None)

    def fit(self, X, y=None, *, genes=None):
        """Fit the components of `X`, cells × genes: ``components_`` (n_components, n_genes) and ``mean_``."""
        X = self._read(X, genes=genes, reset=True).X
        if X.shape[0] < 2:
            raise DataError(f"n_samples={X.shape[0]} cell has no components: give two cells or more")
        k = max(1, min(self.n_components, min(X.shape) - 1))
        # ARPACK is exact, so one set of cells gives one answer, sparse or dense.
        solver = "arpack" if k < min(X.shape) else "full"
        pca = PCA(k, svd_solver=solver, random_state=self.random_state).fit(X)
        self.components_, self.mean_ = np.ascontiguousarray(pca.components_), pca.mean_
        return self

    def transform(self, X, *, genes=None):
        """Coordinates of each cell: cells × components."""
        check_is_fitted(self, "components_")
        return self._read(X, genes=genes).X @ self.components_.T - self.mean_ @ self.components_.T


@dataclass(eq=False, repr=False)
class Neighbors(Classifier, _LoggedCells):
    """k nearest neighbours by angle, the nearer counting more; `k` is cut to the number of training cells."""

    constraints = {"k": Whole(1)}

    k: int = 10

    @classmethod
    def example(cls):
        """A small problem to try it on."""
        return Example(cls(5), example_cells())

    def fit(self, X, y="cell_type", *, genes=None):
        """Remember the cells and their types: ``cells_`` and ``codes_``, places in ``classes_``."""
        cells = self._read_labelled(X, y, genes=genes)
        self.cells_, self.codes_ = cells.X, cells.codes
        return self

    def predict_proba(self, X, *, genes=None):
        """Weighted share of each type among the neighbours: (n_cells, n_types)."""
        check_is_fitted(self, "cells_")
        knn = KNeighborsClassifier(min(self.k, len(self.codes_)), metric="cosine", weights="distance")
        return knn.fit(self.cells_, self.codes_).predict_proba(self._read(X, genes=genes).X)


@dataclass(eq=False, repr=False)
class SparseCells(TransformerMixin, _LoggedCells):
    """Pass cells on as CSR where that is worth it, and hold later cells to the genes of the first ones.

    As the first step of a pipeline it gives what follows an AnnData's matrix, and refuses columns in another order.
    With `as_given` a matrix keeps the form that it has.
    """

    constraints = {"as_given": Flag()}

    as_given: bool = False

    @classmethod
    def example(cls):
        """A small problem to try it on."""
        return Example(cls(), example_cells(), y=None)

    def fit(self, X, y=None, *, genes=None):
        """Remember the genes of `X`, cells × genes."""
        self._read(X, genes=genes, reset=True)
        return self

    def transform(self, X, *, genes=None):
        """`X` by :func:`sparse_if_mostly_zero`."""
        check_is_fitted(self, "n_features_in_")
        X = self._read(X, genes=genes).X
        return X if self.as_given else sparse_if_mostly_zero(X)


def sparse_if_mostly_zero(X):
    """`X` as CSR when fewer than three entries in ten are not zero; centred or scaled expression stays dense."""
    X = matrix_of(X)
    if sparse.issparse(X):
        return X.tocsr()
    return sparse.csr_matrix(X) if np.count_nonzero(X) < 0.3 * X.size else X


class CellPipeline(Pipeline):
    """A pipeline whose labels may be named by a column of ``obs``, as for every estimator here."""

    def fit(self, X, y="cell_type", **params):
        """Fit all steps; of an AnnData `y` may name a column of ``obs``."""
        return super().fit(X, column(table_of_cells(X), y), **params)

    def score(self, X, y="cell_type", **params):
        """Accuracy; of an AnnData `y` may name a column of ``obs``."""
        return super().score(X, column(table_of_cells(X), y), **params)


def _piped(*steps, as_given=False):
    """Steps behind :class:`SparseCells`; zeros make some five times faster where nine entries in ten are zero."""
    return CellPipeline(make_pipeline(SparseCells(as_given), *steps).steps)


def _penalised(l1_ratio, **options):
    """Logistic regression with an L1 or mixed penalty, said as this version of scikit-learn wants it said."""
    if tuple(int(n) for n in sklearn.__version__.split(".")[:2]) < (1, 8):
        options["penalty"] = "l1" if l1_ratio == 1 else "elasticnet"
    if l1_ratio < 1 or "penalty" not in options:
        options["l1_ratio"] = l1_ratio
    return LogisticRegression(**options)


def models(random_state: int | None = 0) -> dict[str, BaseEstimator]:
    """The usual seven classifiers, each with the steps it needs, not yet fitted.

    Parameters
    ----------
    random_state : int or None
        Seed of the models that draw random numbers.

    Returns
    -------
    dict of str to estimator
        ``ridge``, ``lasso``, ``elastic net``, ``logistic``, ``random forest``, ``gradient boosting``, ``network``. All
        but ridge have ``predict_proba``.

    Notes
    -----
    What was chosen, and by how much, in cross-validation inside run 1 and inside run 2 (without looking across):

    * Weighting the types equally helped wherever a model lets it: in run 2, where one type has eleven cells, by 0.02
      (ridge) to 0.06 (elastic net). Lasso fits one type against the rest, gained nothing, and has better
      probabilities without.
    * Scaling each gene to unit variance cost ridge and logistic regression 0.02 to 0.07. Nothing is scaled.
    * ridge: penalty 300 of 10 to 1000. logistic: C 0.3 of 0.003 to 3. lasso: C 0.3 of 0.1 to 3, by liblinear's
      coordinate descent. elastic net: half of the penalty each, C 0.1 of 0.1 to 1, by SAGA with a loose tolerance.
    * random forest: leaves of three cells or more, and three genes in a hundred looked at a split instead of one.
    * gradient boosting: on 20 components, which did as well as 50; each round grows one tree a type, too many to search
      all genes. Small trees and a slow rate cost no accuracy and give better probabilities.
    * network: 128 hidden units (64 and 256 did no better), half of them dropped; all genes, which beat 50 components.
    """
    seeded = {"random_state": random_state}
    return {
        "ridge": _piped(RidgeClassifier(alpha=300, class_weight="balanced"), as_given=True),
        "lasso": _piped(OneVsRestClassifier(_penalised(1, C=0.3, solver="liblinear", **seeded))),
        "elastic net": _piped(
            _penalised(0.5, C=0.1, solver="saga", tol=1e-2, max_iter=1000, class_weight="balanced", **seeded)
        ),
        "logistic": _piped(LogisticRegression(C=0.3, max_iter=1000, class_weight="balanced")),
        "random forest": _piped(
            RandomForestClassifier(200, max_features=0.03, min_samples_leaf=3, class_weight="balanced", **seeded),
            as_given=True,
        ),
        "gradient boosting": _piped(
            Components(20, **seeded),
            HistGradientBoostingClassifier(
                learning_rate=0.05,
                max_leaf_nodes=6,
                min_samples_leaf=5,
                max_features=0.3,
                l2_regularization=5,
                early_stopping=False,
                **seeded,
            ),
        ),
        "network": _piped(NetworkClassifier(**seeded)),
    }


def ladder_models(random_state: int | None = 0) -> dict[str, BaseEstimator]:
    """The ladder of baselines, simplest first, not yet fitted.

    ``logistic`` and ``network`` are those of :func:`models`, under the same names, so ``ladder_models() | models()``
    holds each once. Centring each study needs the test cells too, so no baseline here does it.

    Parameters
    ----------
    random_state : int or None
        Seed of the baselines that draw random numbers.

    Returns
    -------
    dict of str to estimator
        ``majority class``, ``nearest centroid``, ``PCA + k-NN``, ``logistic`` (L2, all genes), ``network`` (without
        pre-training).
    """
    candidates = models(random_state)
    return {
        "majority class": _piped(DummyClassifier(strategy="most_frequent"), as_given=True),
        "nearest centroid": NearestCentroid(),
        "PCA + k-NN": _piped(Components(30, random_state=random_state), Neighbors(10)),
        "logistic": candidates["logistic"],
        "network": candidates["network"],
    }
