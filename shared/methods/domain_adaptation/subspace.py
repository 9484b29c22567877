"""Subspace alignment: turn the principal axes of the source into those of the target.

After Fernando, Habrard, Sebban and Tuytelaars, *Unsupervised visual domain adaptation using subspace alignment* (ICCV
2013). Inputs are logged expression, cells × genes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import PCA

from shared.data.cells import dense_matrix
from shared.data.constraints import Whole
from shared.methods.base import TransferEstimator
from shared.methods.domain_adaptation.adapter import DomainAdapter


def axes(X: np.ndarray, k: int) -> np.ndarray:
    """The first `k` principal axes of the cells `X`, cells × genes: genes × components."""
    X = dense_matrix(X)
    solver = "arpack" if k < min(X.shape) else "full"  # both are exact: one set of cells gives one answer
    return PCA(k, svd_solver=solver, random_state=0).fit(X).components_.T


@dataclass(eq=False, repr=False)
class SubspaceAlignment(DomainAdapter, TransferEstimator):
    """Components of each domain, centred by its own mean, with the source's turned onto the target's.

    Target cells become ``X P_t`` and source cells ``X P_s (P_s' P_t)``, where the columns of ``P`` are principal axes.

    Parameters
    ----------
    n_components : int
        Axes of each domain; cut to what the smaller domain has.

    Attributes
    ----------
    source_axes_, target_axes_ : float64 ndarray, genes × components
        Principal axes, those of the source after they were turned.
    means_ : float64 ndarray, 2 × genes
        Of the source, then of the target.
    cosines_ : float64 ndarray, components
        Of the principal angles between both subspaces, largest first: 1 where they share a direction.
    """

    constraints = {"n_components": Whole(1)}

    n_components: int = 20

    def learn(self, source, target):
        """Axes of both domains, and the matrix that turns one into the other, ``P_s' P_t``."""
        k = min(self.n_components, *source.shape, *target.shape)
        P_s, P_t = (axes(X, k) for X in (source, target))
        turn = P_s.T @ P_t
        self.source_axes_, self.target_axes_ = P_s @ turn, np.ascontiguousarray(P_t)
        self.cosines_ = np.linalg.svd(turn, compute_uv=False)
        self.means_ = np.stack([source.mean(0), target.mean(0)])

    def move_source(self, X):
        """Coordinates of source cells along the target's axes."""
        return (X - self.means_[0]) @ self.source_axes_

    def move_target(self, X):
        """Coordinates of target cells along the target's axes."""
        return (X - self.means_[1]) @ self.target_axes_

    @property
    def _n_features_out(self):
        return self.target_axes_.shape[1] if self.adapts_ else self.n_features_in_
