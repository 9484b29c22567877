"""Centring: each domain minus its own mean, gene by gene. The first thing to try, and the baseline of all others.

Inputs are logged expression, cells × genes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.base import OneToOneFeatureMixin

from shared.data.constraints import Flag
from shared.methods.base import TransferEstimator
from shared.methods.domain_adaptation.adapter import DomainAdapter


@dataclass(eq=False, repr=False)
class CenterDomains(OneToOneFeatureMixin, DomainAdapter, TransferEstimator):
    """Subtract from the cells of each domain their mean, and divide them by their deviation if asked.

    What is subtracted was learned by `fit`, so a single new cell can be moved. :func:`shared.preprocess.center_by` does
    the same to cells that are all at hand.

    Parameters
    ----------
    scale : bool
        Also divide each gene by its standard deviation in the domain; genes that do not vary there are left at zero.

    Attributes
    ----------
    means_, scales_ : float64 ndarray, 2 × genes
        Of the source, then of the target.
    """

    constraints = {"scale": Flag()}

    scale: bool = False

    def learn(self, source, target):
        """Mean and deviation of each gene in each domain."""
        self.means_ = np.stack([source.mean(0), target.mean(0)])
        spread = np.stack([source.std(0), target.std(0)])
        self.scales_ = np.where(self.scale & (spread > 1e-6), spread, 1.0)

    def move_source(self, X):
        """Cells of the source around zero."""
        return (X - self.means_[0]) / self.scales_[0]

    def move_target(self, X):
        """Cells of the target around zero."""
        return (X - self.means_[1]) / self.scales_[1]
