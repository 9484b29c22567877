"""Optimal transport: move each source cell to the mean of the target cells that it is sent to at the least cost.

After Courty, Flamary, Tuia and Rakotomamonjy, *Optimal transport for domain adaptation* (IEEE TPAMI 2017). Inputs are
logged expression, cells × genes, better components of it: among thousands of genes all distances are alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.optimize import linprog
from scipy.spatial.distance import cdist
from sklearn.base import OneToOneFeatureMixin
from sklearn.metrics import pairwise_distances_argmin

from shared.data.constraints import Constraint, Maybe, is_number
from shared.data.errors import DataError, warn
from shared.methods.base import TransferEstimator
from shared.methods.domain_adaptation.adapter import DomainAdapter

REG = Constraint(lambda v: is_number(v) and 2e-3 <= v < np.inf, "is not a number from 0.002 up: less underflows")
LARGEST = 250_000  # variables of a linear programme: 500 × 500 cells, seconds


def cost_matrix(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Squared distances over their largest: source cells × target cells, from 0 to 1."""
    cost = cdist(source, target, "sqeuclidean")
    return cost / max(cost.max(), np.finfo(float).tiny)


def sinkhorn(cost: np.ndarray, reg: float, max_iter: int = 10_000, tol: float = 1e-6) -> np.ndarray:
    """The entropic plan between uniform weights: of those with the right sums, the least ``<P, cost> - reg · H(P)``.

    Rows and columns of ``exp(-cost / reg)`` are scaled in turn, until the columns' sums are off by less than `tol`.

    Parameters
    ----------
    cost : float64 ndarray, n × m
        From 0 to 1.
    reg : float
        Weight of the entropy ``H``; the larger, the more target cells share a source cell.
    max_iter : int
        Turns, at most; a warning says that they did not do.
    tol : float
        Largest error of a sum, relative to the sum.

    Returns
    -------
    float64 ndarray, n × m
        Rows sum to ``1 / n``, columns to ``1 / m``.

    References
    ----------
    Cuturi, *Sinkhorn distances* (NeurIPS 2013), algorithm 1.
    """
    (n, m), K = cost.shape, np.exp(-cost / reg)
    v = np.full(m, 1 / m)
    for _ in range(max_iter):
        u = 1 / (n * (K @ v))
        sums = K.T @ u
        if np.abs(m * v * sums - 1).max() < tol:
            break
        v = 1 / (m * sums)
    else:
        warn(f"the plan is not exact after max_iter={max_iter} turns: set a larger reg")
        u = 1 / (n * (K @ v))
    return u[:, None] * K * v


def exact_plan(cost: np.ndarray) -> np.ndarray:
    """The plan between uniform weights of the least cost, by linear programming: float64 ndarray, n × m.

    Raises
    ------
    DataError
        If there are more than 250,000 pairs of cells.
    """
    n, m = cost.shape
    if n * m > LARGEST:
        raise DataError(f"{n} source and {m} target cells are too many for an exact plan: set reg=0.05, or take fewer")
    rows, columns = sparse.kron(sparse.eye(n), np.ones(m)), sparse.kron(np.ones(n), sparse.eye(m))
    sums = np.r_[np.full(n, 1 / n), np.full(m, 1 / m)]
    found = linprog(cost.ravel(), A_eq=sparse.vstack([rows, columns], "csr"), b_eq=sums, method="highs")
    return found.x.reshape(n, m)


@dataclass(eq=False, repr=False)
class TransportMap(OneToOneFeatureMixin, DomainAdapter, TransferEstimator):
    """Move source cells to where their mass goes among the target cells; target cells stay.

    A source cell becomes the mean of target cells, weighed by its row of the plan: the paper's barycentric mapping. A
    source cell that was not in the fit moves as the nearest one that was. The paper's terms for the source's labels are
    not here.

    Parameters
    ----------
    reg : float or None
        Weight of the entropy, where the largest cost is 1 (:func:`sinkhorn`). None: the exact plan, of few cells.

    Attributes
    ----------
    plan_ : float64 ndarray, source cells × target cells
        Mass that goes from one to the other; sums to 1.
    source_, moved_ : float64 ndarray, source cells × genes
        Source cells of the fit, before and after.
    """

    constraints = {"reg": Maybe(REG)}

    reg: float | None = 0.05

    def learn(self, source, target):
        """The plan, and where it takes the source cells."""
        cost = cost_matrix(source, target)
        self.plan_ = exact_plan(cost) if self.reg is None else sinkhorn(cost, self.reg)
        self.source_, self.moved_ = source, self.plan_ @ target / self.plan_.sum(1, keepdims=True)

    def move_source(self, X):
        """Source cells where the plan takes them, new ones beside the nearest."""
        near = pairwise_distances_argmin(X, self.source_)
        return X + (self.moved_ - self.source_)[near]
