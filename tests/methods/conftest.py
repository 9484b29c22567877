"""Cells that the classifiers' tests share."""

import numpy as np
import pytest


def made(per_type=15, genes=300, kinds=4, seed=0, names=("B cells", "CD4 T", "Monocytes", "NK")):
    """Log-like expression, nine entries in ten zero, in which each type has genes of its own."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(kinds), per_type)
    rate = np.full((kinds, genes), 0.1)
    for kind in range(kinds):
        rate[kind, kind * 10 : kind * 10 + 10] = 1.5
    counts = rng.poisson(rate[y])
    order = rng.permutation(len(y))
    return np.log1p(counts).astype(np.float32)[order], np.array(names)[y][order]


@pytest.fixture(scope="session")
def blood():
    """A function that makes such cells."""
    return made
