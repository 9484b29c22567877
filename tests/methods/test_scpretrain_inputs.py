"""scPretrain given what people have: logged tables, other types, empty cells, rare types, genes it does not know."""

from types import SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import clone

from shared.methods.scpretrain import ScPretrain
from shared.nn.pseudo_labels import logged
from shared.preprocess import log_normalize
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


# Logged values.


def scanpys(adata):
    """As scanpy leaves data: log1p of CP10k in `X`, the counts gone."""
    found = adata.copy()
    found.X, found.uns["log1p"] = log_normalize(found.X), {"base": None}
    return found


@pytest.mark.parametrize("dense", [False, True])
def test_logged_values_are_not_logged_again(lender, dense):
    mine = scanpys(annotated())
    mine.X = mine.X.toarray() if dense else mine.X
    for use in (clone(lender).fit, lender.transform, clone(lender).fit(annotated()).predict):
        with pytest.raises(ValueError, match=r"may hold counts or logarithms.*layers\['counts'\].*logged=True"):
            use(mine)
    mine.layers["counts"] = annotated().X
    assert np.array_equal(lender.transform(mine), lender.transform(annotated()))
    del mine.layers["counts"]
    clone(lender).set_params(logged=True).fit(mine)


def test_logged_values_that_say_they_are_counts_are_seen_by_their_totals(lender):
    mine = scanpys(annotated())
    mine.uns["units"] = "counts"
    with pytest.raises(ValueError, match="says 'counts' and X looks scaled to one total and logged"):
        lender.transform(mine)


def test_fractions_that_are_counts_pass_when_they_say_so(lender):
    mine = annotated()
    mine.X = mine.X * np.float32(0.9)
    with pytest.raises(ValueError, match=r"if these are counts, say so by adata.uns\['units'\] = 'counts'"):
        lender.transform(mine)
    mine.uns["units"] = "counts"
    assert lender.transform(mine).shape == (90, 8)
    mine = annotated()
    mine.X = mine.X * np.float32(20.5)
    lender.transform(mine), lender.transform(annotated()[:1])
