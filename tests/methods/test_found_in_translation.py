"""FIT: its slopes against scikit-learn's lasso, and where the penalty leads."""

import numpy as np
import pytest
from sklearn.linear_model import Lasso

from shared.data.errors import DataError
from shared.methods.found_in_translation import FIT


@pytest.fixture
def studies():
    """Effects of 30 genes in 12 paired studies; every third gene means nothing in the human."""
    rng = np.random.default_rng(0)
    mouse = rng.normal(size=(30, 12))
    keeps = (np.arange(30) % 3 > 0)[:, None]
    return mouse, np.where(keeps, mouse, 0) + 0.3 * rng.normal(size=(30, 12))


@pytest.mark.parametrize("towards", ["mouse", "mean"])
@pytest.mark.parametrize("penalty", [0.05, 0.3])
def test_each_gene_is_a_lasso_of_scikit_learn(studies, towards, penalty):
    mouse, human = studies
    model, base = FIT(penalty, towards).fit(mouse, human), 1.0 if towards == "mouse" else 0.0
    for g in range(30):
        theirs = Lasso(alpha=penalty, tol=1e-10).fit(mouse[g, :, None], human[g] - base * mouse[g])
        assert model.slope_[g] == pytest.approx(theirs.coef_[0] + base, abs=1e-5)
        assert model.intercept_[g] == pytest.approx(theirs.intercept_, abs=1e-5)


def test_the_penalty_leads_to_the_mouse_or_to_the_mean(studies):
    mouse, human = studies
    new = np.ones((30, 2))
    trust = FIT(1e6, "mouse").fit(mouse, human).predict(new)
    np.testing.assert_allclose(trust[:, 0], 1 + (human - mouse).mean(1), atol=1e-5)
    mean = FIT(1e6, "mean").fit(mouse, human).predict(new)
    np.testing.assert_allclose(mean, np.repeat(human.mean(1)[:, None], 2, 1), atol=1e-5)


def test_it_learns_which_genes_to_trust(studies):
    mouse, human = studies
    slope = FIT(0.05).fit(mouse, human).slope_
    assert slope[np.arange(30) % 3 > 0].mean() > 0.8 > 0.4 > slope[::3].mean()


def test_a_gene_that_does_not_vary_has_no_slope_of_its_own():
    human = np.random.default_rng(7).normal(size=(1, 7)) + 3
    for value in (0.1, 1 / 3, 1e6):
        for towards, slope in (("mouse", 1.0), ("mean", 0.0)):
            assert FIT(0.0, towards).fit(np.full((1, 7), value), human).slope_ == [slope]


def test_tables_that_are_no_pairs_are_refused(studies):
    mouse, human = studies
    with pytest.raises(DataError, match="give the same genes in the same studies"):
        FIT().fit(mouse, human[:, :5])
    with pytest.raises(DataError, match="one pair of studies has no slope"):
        FIT().fit(mouse[:, :1], human[:, :1])
