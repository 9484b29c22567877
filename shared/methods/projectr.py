"""projectR: learn gene weights in one data set, and ask how much of each another data set holds.

After Stein-O'Brien and others, *Decomposing cell identity for transfer learning across cellular measurements,
platforms, tissues, and species* (Cell Systems, 2019). Genes are matched by name.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import numpy as np
from scipy import sparse
from sklearn.decomposition import NMF

from shared.data.constraints import Positive, Whole
from shared.methods.base import Example, TransferEstimator, example_cells
from shared.methods.protocols import Basis


@dataclass(eq=False, repr=False)
class ProjectR(Basis, TransferEstimator):
    """Non-negative patterns of the source, and their weights in other cells by least squares.

    For a target cell ``d`` and loadings ``A`` of the shared genes, the weights ``p`` minimise ``||d - A p||²``: no
    intercept, no centring and no sign constraint, as in the package for matrix loadings. The paper's patterns come from
    CoGAPS, a Bayesian factorisation; here from scikit-learn's NMF.

    Parameters
    ----------
    n_components : int
        Patterns.
    max_iter : int
        Of the factorisation, at most.
    tol : float
        The factorisation stops at a smaller relative change.
    random_state : int, RandomState or None
        Start of the factorisation.

    Attributes
    ----------
    loadings_ : ndarray, genes × patterns
        Weight of each gene in each pattern, from 0 up.
    n_iter_ : int
        Iterations of the factorisation.
    """

    nonnegative = True
    constraints = {"n_components": Whole(1), "max_iter": Whole(1), "tol": Positive()}

    n_components: int = 8
    _: KW_ONLY
    max_iter: int = 1000
    tol: float = 1e-4
    random_state: int | None = None

    @classmethod
    def example(cls):
        """A small problem to try it on."""
        return Example(cls(3, tol=1e-2, random_state=0), example_cells(), y=None)

    def fit(self, X, y=None, *, genes=None):
        """Learn the patterns of logged expression, cells × genes, none negative; `y` is not used."""
        X = self._read(X, genes=genes, reset=True).X
        k = min(self.n_components, *X.shape)
        nmf = NMF(k, init="nndsvda", max_iter=self.max_iter, tol=self.tol, random_state=self.random_state).fit(X)
        self.loadings_, self.n_iter_ = nmf.components_.T, nmf.n_iter_
        return self

    def project(self, X, *, genes=None):
        """Weights of the patterns: ndarray, cells × patterns. Genes that the patterns do not know are left out.

        Raises
        ------
        shared.data.errors.DataError
            If no gene is shared; or, where a side has no names, the numbers of genes differ.
        """
        A, D = self._by_name(X, genes)
        D = D.toarray() if sparse.issparse(D) else D
        return np.linalg.lstsq(A, D.T, rcond=None)[0].T
