"""Transformers that bring two domains together, and a classifier behind one of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.linear_model import LogisticRegression
from sklearn.utils.validation import check_is_fitted

from shared.data.cells import dense_matrix
from shared.data.constraints import Constraint, Maybe
from shared.data.errors import DataError
from shared.methods.base import Example, TransferEstimator, example_cells
from shared.methods.protocols import Classifier, DomainAware, Transformer


class DomainAdapter(DomainAware, Transformer):
    """Learns from cells of two domains, and moves cells by the domain they are of.

    A method gives :meth:`learn`, and :meth:`move_source` or :meth:`move_target`, on dense float64 matrices. Cells of
    several positive domains are one source, and those of several negative ones one target. Without target cells it
    learns nothing, and nothing is moved.
    """

    def learn(self, source: np.ndarray, target: np.ndarray) -> None:
        """Set what is learned from the cells of each domain, cells × genes."""
        raise NotImplementedError

    def move_source(self, X: np.ndarray) -> np.ndarray:
        """Cells of the source, in the space that the domains share."""
        return X

    def move_target(self, X: np.ndarray) -> np.ndarray:
        """Cells of the target, in that space."""
        return X

    def fit(self, X, y=None, sample_domain=None, *, genes=None):
        """Learn from cells of both domains.

        Parameters
        ----------
        X : AnnData, DataFrame, ndarray or sparse matrix, cells × genes
            Logged expression, or components of it.
        y : object, optional
            Not used.
        sample_domain : int array, cells; or str, optional
            Positive for source, negative for target. Without it all cells are source, and nothing is moved.
        genes : sequence of str, optional
            Names of the columns, where `X` has none.

        Raises
        ------
        ValueError
            If a setting or a domain cannot be used, or a domain has one cell only.
        """
        cells = self._read(X, genes=genes, reset=True, sample_domain=sample_domain)
        self.adapts_ = sample_domain is not None and bool((cells.sample_domain < 0).any())
        if sample_domain is not None and not (cells.sample_domain > 0).any():
            raise DataError("no cell is of the source: sample_domain must be positive for the labelled cells")
        if self.adapts_:
            source, target = dense_matrix(cells.source.X), dense_matrix(cells.target.X)
            if min(len(source), len(target)) < 2:
                raise DataError("one cell says nothing of its domain: give two or more of each, or no sample_domain")
            self.learn(source, target)
        return self

    def transform(self, X, sample_domain=None, *, genes=None):
        """Cells in the space that the domains share: float32 ndarray, cells × genes or components.

        Parameters
        ----------
        X : AnnData, DataFrame, ndarray or sparse matrix, cells × genes
            The genes of the fit, in its order.
        sample_domain : int array, cells; or str, optional
            Positive for source, negative for target. Without it all cells are of the target.
        genes : sequence of str, optional
            Names of the columns, where `X` has none.
        """
        check_is_fitted(self, "adapts_")
        cells = self._read(X, genes=genes, sample_domain=sample_domain)
        if not self.adapts_:
            return dense_matrix(cells.X).astype(np.float32)
        if sample_domain is None:
            return self.move_target(dense_matrix(cells.X)).astype(np.float32)
        is_source = cells.sample_domain > 0
        out = np.empty((len(cells), self._n_features_out), np.float32)
        for rows, move in ((is_source, self.move_source), (~is_source, self.move_target)):
            if rows.any():
                out[rows] = move(dense_matrix(cells.X[rows]))
        return out

    def fit_transform(self, X, y=None, sample_domain=None, *, genes=None):
        """:meth:`fit`, then :meth:`transform` of the same cells, each by its own domain."""
        return self.fit(X, y, sample_domain, genes=genes).transform(X, sample_domain, genes=genes)

    @property
    def _n_features_out(self):
        return self.n_features_in_

    @classmethod
    def example(cls):
        """A small problem to try it on."""
        cells = example_cells()
        return Example(cls(), cells, y=None, fit={"sample_domain": cells.obs["domain"].to_numpy()})


ADAPTER = Constraint(lambda v: isinstance(v, DomainAdapter), "is no adapter: give CORAL(), or another DomainAdapter")
CLASSIFIER = Constraint(
    lambda v: isinstance(v, BaseEstimator) and hasattr(v, "fit") and hasattr(v, "predict_proba"),
    "is no classifier with predict_proba: give LogisticRegression(), or another",
)


@dataclass(eq=False, repr=False)
class AdaptedClassifier(DomainAware, Classifier, TransferEstimator):
    """A classifier of moved source cells, which names moved target cells.

    In a plain pipeline the classifier would be fitted on target cells too, with labels that it must not see. Here it
    sees source cells only. ``score``, and so a search, takes every cell for one of the target and uses the labels it is
    given: choose by :func:`~shared.methods.domain_adaptation.target_risks` where the target has none.

    Parameters
    ----------
    adapter : DomainAdapter
        For example :class:`~shared.methods.domain_adaptation.CORAL`; cloned, and fitted on the cells of both domains.
    classifier : scikit-learn classifier, optional
        Cloned, and fitted on the source cells that the adapter has moved. None: logistic regression.

    Attributes
    ----------
    classes_ : ndarray
        The types, sorted.
    adapter_, classifier_
        The fitted clones.
    """

    constraints = {"adapter": ADAPTER, "classifier": Maybe(CLASSIFIER)}
    exempt = {
        "clone": "holds other estimators, and a clone holds clones of them",
        "save": "a classifier of scikit-learn has no file of its own: save the adapter, and fit the classifier again",
    }

    adapter: DomainAdapter
    classifier: BaseEstimator | None = None

    @classmethod
    def example(cls):
        """A small problem to try it on."""
        from shared.methods.domain_adaptation.centring import CenterDomains

        cells = example_cells()
        return Example(cls(CenterDomains()), cells, fit={"sample_domain": cells.obs["domain"].to_numpy()})

    def fit(self, X, y="cell_type", sample_domain=None, *, genes=None):
        """Fit the adapter on all cells and the classifier on those of the source.

        Parameters
        ----------
        X : AnnData, DataFrame, ndarray or sparse matrix, cells × genes
            Cells of both domains, logged expression or components of it.
        y : array of str or int, cells; or str
            Types; those of target cells are not looked at. Of an AnnData also the name of a column of ``obs``.
        sample_domain : int array, cells; or str, optional
            Positive for source, negative for target. Without it all cells are source, and nothing is moved.
        genes : sequence of str, optional
            Names of the columns, where `X` has none.

        Raises
        ------
        ValueError
            If a setting, label or domain cannot be used, or the source holds one type only.
        """
        source, _ = self._read_domains(X, y, sample_domain, genes=genes)
        self.adapter_ = clone(self.adapter).fit(X, None, sample_domain, genes=genes)
        moved = dense_matrix(source.X)
        if self.adapter_.adapts_:
            moved = self.adapter_.move_source(moved)
        last = LogisticRegression(max_iter=1000) if self.classifier is None else clone(self.classifier)
        self.classifier_ = last.fit(moved.astype(np.float32), source.y)
        return self

    def predict_proba(self, X, sample_domain=None, *, genes=None):
        """Probability of each type: ndarray, cells × types; without `sample_domain` all cells are of the target."""
        check_is_fitted(self, "classifier_")
        self._read(X, genes=genes)
        return self.classifier_.predict_proba(self.adapter_.transform(X, sample_domain, genes=genes))
