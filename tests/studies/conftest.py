"""Two simulated data sets and an encoder of the second, for the tests of studies with encoders."""

import pytest

from shared.data import Corpus, simulate
from shared.methods.scpretrain import ScPretrain


@pytest.fixture(scope="module")
def sets():
    made = simulate.many(2, seed=1, n_cells=120, n_genes=60, labels=3, depth=300, effect=2.0)
    return {f"set {i}": adata for i, adata in enumerate(made)}


@pytest.fixture(scope="module")
def model(sets):
    corpus = Corpus(sets).without("set 0")
    small = {"cells_per_cluster": (30, 20, 60), "width": 8, "rounds": 1, "epochs": 2, "batches": 4}
    return ScPretrain(**small, lr=1e-2, fit_epochs=15, random_state=0).pretrain(corpus)
