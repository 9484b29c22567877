"""Components, encoded rows, and codes of scVI where it is installed."""

import importlib.util
import random
import sys

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.decomposition import PCA

from shared.data.errors import DataError
from shared.nn.episodes import EpisodeSampler, encode, encoder, use_statistics
from shared.nn.features import components, encoded, scvi_codes
from shared.nn.heads import ridge


def counts(cells=60, genes=40, seed=0):
    """Counts of three types with ten genes of their own, as AnnData in two batches."""
    rng = np.random.default_rng(seed)
    kind = np.arange(cells) % 3
    rate = np.full((3, genes), 0.3)
    for i in range(3):
        rate[i, 10 * i : 10 * i + 10] = 5
    layers = {"counts": sparse.csr_matrix(rng.poisson(rate[kind]).astype(np.float32))}
    obs = pd.DataFrame({"cell_type": kind.astype(str), "run": np.where(np.arange(cells) < cells // 2, "a", "b")})
    obs.index = obs.index.astype(str)
    return anndata.AnnData(np.zeros((cells, genes), np.float32), obs, layers=layers)


# Components.


def test_components_are_scikit_learns_and_are_fitted_on_the_first_table_alone():
    rng = np.random.default_rng(0)
    first, other = rng.normal(size=(30, 12)).astype(np.float32), rng.normal(2, 3, size=(9, 12)).astype(np.float32)
    a, b = components(first, other, n_components=4)
    pca = PCA(4, svd_solver="full").fit(first)
    assert a.dtype == b.dtype == np.float32 and a.shape == (30, 4)
    for found, X in ((a, first), (b, other)):
        np.testing.assert_allclose(np.abs(found), np.abs(pca.transform(X)), atol=1e-4)


def test_components_of_sparse_and_dense_and_of_a_small_table():
    X = counts().layers["counts"]
    for one, other in zip(
        components(X, X[:5], n_components=3), components(X.toarray(), X[:5].toarray(), n_components=3)
    ):
        np.testing.assert_allclose(np.abs(one), np.abs(other), atol=1e-3)
    assert components(X[:4], X)[1].shape == (60, 3), "as many as four cells allow"
    assert components(X)[0].tobytes() == components(X)[0].tobytes()


def test_tables_that_cannot_have_components_are_refused():
    with pytest.raises(DataError, match=r"shapes \(5, 4\), \(5, 3\)"):
        components(np.ones((5, 4)), np.ones((5, 3)))
    with pytest.raises(DataError, match="two cells and two genes"):
        components(np.ones((1, 4)))


# Encoders.


@pytest.mark.parametrize("norm", ["layer", "running"])
def test_encoded_rows_are_what_the_learner_would_see(norm):
    X, y = counts().layers["counts"], np.arange(60) % 3
    torch.manual_seed(0)
    net = encoder((40, 8, 4), norm)
    net(torch.randn(50, 40))
    features = encoded(net, X, batch_size=7)
    assert features.shape == (60, 4) and features.dtype == torch.float32 and net.training
    for table in (X.toarray(), torch.from_numpy(X.toarray())):
        torch.testing.assert_close(encoded(net, table), features, rtol=1e-4, atol=1e-5)
    sizes = {"n_way": 3, "k_shot": 2, "n_query": 3, "seed": 1}
    raw, coded = EpisodeSampler(X, y, **sizes).batch(2), EpisodeSampler(features, y, **sizes).batch(2)
    net.eval()
    with torch.no_grad():
        exact = ridge(*encode(net, raw.support, raw.query))
    torch.testing.assert_close(ridge(coded.support, coded.query), exact, rtol=1e-3, atol=1e-4)


def test_rows_that_lean_on_their_neighbours_are_refused():
    X, net = np.random.default_rng(0).normal(size=(50, 40)).astype(np.float32), encoder((40, 8, 4), "batch")
    with pytest.raises(DataError, match=r"rows beside it.*running"):
        encoded(net, X)
    assert encoded(use_statistics(net, "running"), X).shape == (50, 4)


# scVI.


def test_without_scvi_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "scvi", None)
    with pytest.raises(ImportError, match=r"borrowed-strength\[scvi\]"):
        scvi_codes(counts())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"layer": "raw"}, r"no layer 'raw', only \['counts'\]"),
        ({"batch_key": "lane"}, "no column 'lane'"),
        ({"batch_key": "run", "fit_on": np.arange(20)}, "batches b are not among the fitted cells"),
        ({"fit_on": np.zeros(60, bool)}, "names 0 cells"),
    ],
)
def test_what_scvi_cannot_take_is_refused_before_it_is_imported(monkeypatch, options, said):
    monkeypatch.setitem(sys.modules, "scvi", None)
    with pytest.raises(DataError, match=said):
        scvi_codes(counts(), **options)


@pytest.mark.parametrize("bad", [-1, 0.5, np.nan])
def test_what_is_no_count_is_refused(bad):
    adata = counts()
    adata.layers["counts"].data[3] = bad
    with pytest.raises(DataError, match="pass the raw counts"):
        scvi_codes(adata)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("scvi") is None, reason="scvi-tools is not installed (extra scvi)")
def test_scvi_codes_tell_types_apart_repeat_and_leave_random_numbers_alone():
    adata = counts(120)
    source = (adata.obs["run"] == "a").to_numpy()
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    expected = random.random(), np.random.rand(), torch.rand(1)  # noqa: NPY002
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    options = {"fit_on": source, "max_epochs": 30, "n_latent": 5, "accelerator": "cpu"}
    codes = scvi_codes(adata, **options)
    assert (random.random(), np.random.rand(), torch.rand(1)) == expected  # noqa: NPY002
    assert codes.shape == (120, 5) and codes.dtype == np.float32
    assert codes.tobytes() == scvi_codes(adata, **options).tobytes()
    assert codes.tobytes() != scvi_codes(adata, **options | {"seed": 1}).tobytes()
    assert list(adata.obs) == ["cell_type", "run"] and not adata.uns, "the caller's data are left alone"
    batch = EpisodeSampler(codes, adata.obs["cell_type"], n_way=3, k_shot=5, n_query=10).batch(20)
    assert (ridge(batch.support, batch.query).argmax(2) == batch.target).float().mean() > 0.8
