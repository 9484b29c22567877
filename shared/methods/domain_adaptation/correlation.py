"""CORAL: give the source cells the covariance of the target cells.

After Sun, Feng and Saenko, *Return of frustratingly easy domain adaptation* (AAAI 2016). Inputs are logged expression,
cells × genes, or components of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.base import OneToOneFeatureMixin
from sklearn.covariance import ledoit_wolf

from shared.data.cells import dense_matrix
from shared.data.constraints import Constraint, Flag, Positive
from shared.methods.base import TransferEstimator
from shared.methods.domain_adaptation.adapter import DomainAdapter

REG = Constraint(lambda v: (isinstance(v, str) and v == "auto") or Positive().accepts(v), "is neither auto nor above 0")


def covariance(X: np.ndarray, reg: float | str) -> np.ndarray:
    """Covariance of the columns of `X`, cells × genes, made invertible as :class:`CORAL` says: genes × genes."""
    X = dense_matrix(X)
    if reg == "auto":
        spread = np.where(X.std(0) > 0, X.std(0), 1)
        return spread[:, None] * ledoit_wolf((X - X.mean(0)) / spread)[0] * spread
    return np.atleast_2d(np.cov(X.T)) + reg * np.eye(X.shape[1])


def power(C: np.ndarray, exponent: float) -> np.ndarray:
    """A power of a symmetric matrix without negative eigenvalues, of which the smallest are lifted to rounding."""
    values, vectors = np.linalg.eigh(C)
    return (vectors * np.maximum(values, np.finfo(float).eps * max(values[-1], 1e-300)) ** exponent) @ vectors.T


def recoloring(source: np.ndarray, target: np.ndarray, reg: float | str = "auto") -> np.ndarray:
    """The matrix that whitens source cells and gives them the target's covariance (algorithm 1): genes × genes."""
    return power(covariance(source, reg), -0.5) @ power(covariance(target, reg), 0.5)


@dataclass(eq=False, repr=False)
class CORAL(OneToOneFeatureMixin, DomainAdapter, TransferEstimator):
    """Move source cells so that their mean and covariance are those of the target; target cells stay.

    Parameters
    ----------
    reg : float or "auto"
        With more genes than cells a covariance has no inverse. A number is added to every variance: the paper adds 1,
        where genes have variance 1. ``"auto"`` shrinks the correlations of each domain by the rule of Ledoit and Wolf,
        as skada does, whatever the scale of the genes.
    center : bool
        Match the means too. The paper centres both domains beforehand; without either, means stay apart.

    Attributes
    ----------
    recoloring_ : float64 ndarray, genes × genes
        Multiplies source cells from the right.
    means_ : float64 ndarray, 2 × genes
        Of the source, then of the target.
    """

    constraints = {"reg": REG, "center": Flag()}

    reg: float | str = "auto"
    center: bool = True

    def learn(self, source, target):
        """The matrix, and the means of both domains."""
        self.recoloring_ = recoloring(source, target, self.reg)
        self.means_ = np.stack([source.mean(0), target.mean(0)])

    def move_source(self, X):
        """Cells of the source as if they were of the target."""
        if not self.center:
            return X @ self.recoloring_
        return (X - self.means_[0]) @ self.recoloring_ + self.means_[1]
