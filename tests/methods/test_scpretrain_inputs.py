"""scPretrain given what people have: logged tables, other types, empty cells, rare types, genes it does not know."""

from types import SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from shared.methods.scpretrain import ScPretrain
from shared.nn.pseudo_labels import logged
from shared.train import TrainingError

GENES = [f"G{i}" for i in range(40)]


def cells(n=90, seed=0, kinds=3):
    """Counts with some genes of each type's own, and types."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, kinds, n)
    rate = np.full((kinds, len(GENES)), 0.3)
    for kind in range(kinds):
        rate[kind, kind * 8 : kind * 8 + 6] = 4
    return sparse.csr_matrix(rng.poisson(rate[y]).astype(np.float32)), np.array(list("abcd"))[y]


def annotated(n=90, seed=0, genes=GENES):
    X, y = cells(n, seed)
    return ad.AnnData(X, obs=pd.DataFrame({"cell_type": y}, [f"c{i}" for i in range(n)]), var=pd.DataFrame(index=genes))


def corpus(**counts):
    counts = counts or {"one": cells(90, 1)[0], "two": cells(80, 2)[0]}
    return SimpleNamespace(genes=GENES, counts=counts, matrices={k: logged(v) for k, v in counts.items()})


def small(**options):
    settings = {"rounds": 1, "epochs": 2, "width": 8, "hidden": 8, "batches": 3, "cells_per_cluster": (30, 20)}
    settings |= {"lr": 1e-2, "fit_epochs": 10, "fit_lr": 1e-2, "random_state": 0, "device": "cpu"}
    return ScPretrain(**settings | options)


@pytest.fixture(scope="module")
def lender():
    return small().pretrain(corpus())


# A checkpoint.


def test_any_cell_that_was_replaced_makes_another_pretraining(tmp_path):
    path, (X, _) = tmp_path / "run.safetensors", cells(1000)
    small(checkpoint=path).pretrain(corpus(one=X))
    small(checkpoint=path, rounds=2).pretrain(corpus(one=X))
    other = X.copy()
    other[502, 3] += 1
    with pytest.raises(TrainingError, match="differs in sets"):
        small(checkpoint=path, rounds=2).pretrain(corpus(one=other))
