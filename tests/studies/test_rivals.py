"""Harmony, Scanorama, scVI and scANVI as rivals: one function, messages that name the extra, and that they mix."""

import importlib.util
import random
import re
import sys

import numpy as np
import pytest

from shared.data import simulate
from shared.data.constraints import SettingError
from shared.data.errors import DataError
from shared.evaluate import lisi
from shared.studies import rivals

NEEDS = {
    method: pytest.mark.skipif(
        importlib.util.find_spec(package) is None, reason=f"install the extra {rivals.EXTRAS[method]}"
    )
    for method, package in rivals.PACKAGES.items()
}
EACH = [pytest.param(method, marks=[NEEDS[method], pytest.mark.slow]) for method in rivals.METHODS]


@pytest.fixture(scope="module")
def cells():
    """Two batches of four types; the types of the second are not told."""
    made = simulate.cells(240, 80, labels=4, n_batches=2, location=0.3, effect=1.5, depth=2000, seed=1)
    first = made.obs["batch"] == made.obs["batch"].iloc[0]
    made.obs["known"] = made.obs["cell_type"].astype(str).where(first)
    return made


def embedded(cells, method, **how):
    more = {"labels": "known"} if method == rivals.SCANVI else {}
    more |= {"max_epochs": 60} if rivals.PACKAGES[method] == "scvi" else {}
    return rivals.embed(cells, "batch", method, n_components=8, **more | how)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", EACH)
def test_a_rival_mixes_batches_keeps_types_repeats_and_leaves_random_numbers_alone(cells, method):
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    before = random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    Z = embedded(cells, method)
    assert random.getstate() == before[0] and np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert Z.shape == (240, 8) and Z.dtype == np.float32 and np.isfinite(Z).all()
    assert np.array_equal(Z, embedded(cells, method))
    raw = rivals._expression(cells, "counts")
    batch, types = cells.obs["batch"].to_numpy(str), cells.obs["cell_type"].to_numpy(str)
    assert np.median(lisi(Z, batch)) > np.median(lisi(raw, batch)), "batches lie in each other more than they did"
    assert np.median(lisi(Z, types)) < 1.5, "types lie apart"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", EACH)
def test_cells_may_come_in_any_order(cells, method):
    """Rows come back where they were, though Scanorama reads one batch after another."""
    order = np.random.default_rng(0).permutation(cells.n_obs)
    Z, other = embedded(cells, method), embedded(cells[order].copy(), method)
    batch, types = cells.obs["batch"].to_numpy(str), cells.obs["cell_type"].to_numpy(str)
    for name in np.unique(batch):
        for kind in np.unique(types):
            mine = (batch == name) & (types == kind)
            apart = [np.linalg.norm(A.mean(0) - A[m].mean(0)) for A, m in ((Z, mine), (other, mine[order]))]
            assert apart[0] == pytest.approx(apart[1], rel=0.5)


@pytest.mark.parametrize("method", rivals.METHODS)
def test_without_its_package_the_message_names_the_extra(cells, monkeypatch, method):
    monkeypatch.setitem(sys.modules, rivals.PACKAGES[method], None)
    with pytest.raises(ImportError, match=re.escape(f"borrowed-strength[{rivals.EXTRAS[method]}]")):
        embedded(cells, method)


@pytest.mark.parametrize(
    ("method", "how", "error", "said"),
    [
        ("Seurat", {}, SettingError, "method='Seurat'"),
        ("Harmony", {"knn": 3}, SettingError, "Harmony has no setting knn; it has theta, lamb, sigma, nclust"),
        ("scVI", {"theta": 3}, SettingError, "scVI has no setting theta; leave it out"),
        ("scANVI", {}, SettingError, "pass labels="),
        ("scANVI", {"labels": "type"}, DataError, "no column 'type'"),
        ("scANVI", {"labels": "nobody"}, DataError, "fewer than two"),
        ("Harmony", {"layer": "raw"}, DataError, "no layer 'raw'"),
        ("Scanorama", {"n_components": 0}, SettingError, "n_components=0"),
    ],
)
def test_what_no_rival_can_take_is_refused_first(cells, monkeypatch, method, how, error, said):
    for package in rivals.PACKAGES.values():
        monkeypatch.setitem(sys.modules, package, None)
    cells = cells.copy()
    cells.obs["nobody"] = ""
    with pytest.raises(error, match=re.escape(said)):
        rivals.embed(cells, "batch", method, **how)


def test_one_batch_is_refused(cells):
    cells = cells[cells.obs["batch"] == cells.obs["batch"].iloc[0]].copy()
    with pytest.raises(DataError, match="all cells are of one batch"):
        rivals.embed(cells, "batch", "Harmony")


def test_values_that_are_no_counts_are_taken_as_they_are(cells):
    logged = rivals._expression(cells, "counts")
    cells = cells.copy()
    cells.layers["logged"] = logged
    assert np.array_equal(rivals._expression(cells, "logged"), logged)
    assert np.allclose(np.expm1(logged).sum(1), 1e4, rtol=1e-4)
