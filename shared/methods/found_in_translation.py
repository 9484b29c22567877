"""FIT, *Found In Translation*: from effects on mouse genes to the effects to expect on human genes.

After Normand and others, *Found In Translation: a machine learning model for mouse-to-human inference* (Nature Methods,
2018). One small regression a gene, over pairs of studies of the same disease. A toy of the method: effect sizes come
ready, and one penalty serves all genes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.utils.validation import check_is_fitted

from shared.data.constraints import NotNegative, OneOf
from shared.data.errors import DataError
from shared.methods.base import Example, TransferEstimator, example_cells
from shared.methods.protocols import Translator


@dataclass(eq=False, repr=False)
class FIT(Translator, TransferEstimator):
    """A lasso for each gene, human effect against mouse effect, over paired studies.

    ``human = intercept + slope * mouse``; the penalty pulls the slope towards 1 (trust the mouse) or towards 0 (trust
    the mean human effect). With one predictor the lasso is the covariance, soft-thresholded, over the variance.

    Parameters
    ----------
    penalty : float
        scikit-learn's ``Lasso(alpha=penalty)``; 0 is least squares.
    towards : {"mouse", "mean"}
        Where an infinite penalty leads. The released predictor uses one stored slope as the intercept too, which no
        penalty explains; that is not followed here.

    Attributes
    ----------
    slope_, intercept_ : ndarray, genes
    """

    expects = "any"
    constraints = {"penalty": NotNegative(), "towards": OneOf("mouse", "mean")}

    penalty: float = 0.1
    towards: str = "mouse"

    @classmethod
    def example(cls):
        """A small problem to try it on: the rows of ``cells.T`` are genes, its columns studies."""
        return Example(cls(), example_cells(12), y=None)

    def fit(self, X, Y, *, genes=None):
        """Learn from effects of the same genes in paired studies, genes × studies: `X` of mouse, `Y` of human."""
        X, Y = self._read_rows(X, Y, genes=genes, reset=True)
        if X.shape[1] < 2:
            raise DataError("one pair of studies has no slope: give two or more")
        base = 1.0 if self.towards == "mouse" else 0.0
        x, rest = (T - T.mean(1, keepdims=True) for T in (X, Y - base * X))
        covariance, variance = (x * rest).mean(1), (x**2).mean(1)
        shrunk = np.sign(covariance) * np.maximum(np.abs(covariance) - self.penalty, 0)
        # The mean of equal numbers is rounded, so their variance may be tiny where it should be 0.
        varies = np.ptp(X, axis=1) > 0
        self.slope_ = base + np.where(varies, shrunk / np.where(varies, variance, 1), 0)
        self.intercept_ = Y.mean(1) - self.slope_ * X.mean(1)
        return self

    def predict(self, X, *, genes=None):
        """Human effects to expect for new mouse studies: ndarray, genes × studies."""
        check_is_fitted(self, "slope_")
        return self.intercept_[:, None] + self.slope_[:, None] * self._read_rows(X, genes=genes)[0]
