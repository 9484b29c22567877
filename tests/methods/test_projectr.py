"""projectR: projections against least squares, and weights that are known."""

import numpy as np
import pandas as pd
import pytest

from shared.data.errors import DataError
from shared.methods.projectr import ProjectR


@pytest.fixture
def mixtures():
    """Cells that are mixtures of three patterns over twelve genes, and the patterns."""
    rng = np.random.default_rng(0)
    patterns = np.kron(np.eye(3), np.ones(4)) * rng.uniform(1, 2, 12)  # patterns × genes, no gene in two
    weights = rng.gamma(0.5, size=(40, 3))  # some cells hold one pattern only, so the factorisation is unique
    return pd.DataFrame(weights @ patterns, columns=[f"G{i}" for i in range(12)]), weights


def test_a_projection_is_least_squares_without_an_intercept(mixtures):
    X, _ = mixtures
    model = ProjectR(3, random_state=0).fit(X)
    new = X.sample(frac=1, random_state=1) + 0.3
    wanted = [np.linalg.lstsq(model.loadings_, cell, rcond=None)[0] for cell in new.to_numpy(np.float32)]
    np.testing.assert_allclose(model.project(new), wanted, rtol=1e-4, atol=1e-5)
    assert (model.loadings_ >= 0).all() and model.loadings_.shape == (12, 3)


def test_known_weights_are_found_from_half_of_the_genes(mixtures):
    X, weights = mixtures
    half = X.iloc[:, ::2].rename(columns=str)
    found = ProjectR(3, tol=1e-6, max_iter=20000, random_state=0).fit(X).project(half.iloc[:, ::-1])
    best = np.abs(np.corrcoef(found.T, weights.T)[:3, 3:]).max(0)
    assert (best > 0.99).all()


def test_data_that_share_no_gene_are_refused(mixtures):
    model = ProjectR(3, random_state=0).fit(mixtures[0])
    with pytest.raises(DataError, match="no gene is shared: the data have 'X1'"):
        model.project(pd.DataFrame(np.ones((2, 1)), columns=["X1"]))
    with pytest.raises(DataError, match="Negative values in data passed to ProjectR"):
        ProjectR(3).fit(-mixtures[0])
