"""Harmony, Scanorama, scVI and scANVI on the tasks of this study, where they are installed.

None of them places a cell that was not there. So all cells of a draw are shown to them, test cells too, without types;
only scANVI is told those of the cells to learn from. Every other arm meets the test cells when all is fitted. A
logistic regression on their embedding, each column standardised, names the cells.
"""

from __future__ import annotations

import time

import anndata as ad
import numpy as np
from scipy import sparse

from shared.data.errors import DataError
from shared.evaluate.metrics import balanced_accuracy
from shared.studies import rivals
from shared.studies.domain_adaptation.arms import N_COMPONENTS, logistic
from shared.studies.domain_adaptation.tasks import UNKNOWN, Drawn, labelled
from shared.studies.rivals import HARMONY, SCANORAMA, SCANVI, SCVI, installed  # noqa: F401  the page asks for it

PENALTIES = 0.1, 1  # as the arms have that have a setting of their own
OWN = {
    HARMONY: [{"theta": 1.0}, {"theta": 2.0}],
    SCANORAMA: [{"knn": 10}, {"knn": 20}],
    SCVI: [{"n_components": 10}, {"n_components": 30}],
    SCANVI: [{"n_components": 10}, {"n_components": 30}],
}
OF_COUNTS = SCVI, SCANVI
SEEDS = {HARMONY: 5, SCANORAMA: 5, SCVI: 2, SCANVI: 2}  # at most: of the latter a fit takes long
MOST_IN_ONE = 50


def counts(X) -> sparse.csr_matrix:
    """Counts of cells whose ln(1 + counts per so many) are known, but for a factor that all counts of a cell share.

    A cell's least value is of a small number of counts: the first one from 1 that makes whole numbers of all others.

    Parameters
    ----------
    X : float32 ndarray, cells × genes
        Some genes of each cell may be enough.

    Returns
    -------
    float32 CSR, cells × genes

    Raises
    ------
    DataError
        If a cell has no such number: its values are not of counts.
    """
    values = np.expm1(np.asarray(X, np.float64))
    out = np.zeros(values.shape, np.float32)
    for i, row in enumerate(values):
        here = row > 0
        for least in range(1, MOST_IN_ONE + 1) if here.any() else ():
            found = least * row[here] / row[here].min()
            if np.abs(found - np.round(found)).max() < 0.02:
                out[i, here] = np.round(found)
                break
        else:
            if here.any():
                raise DataError(f"cell {i} holds no whole numbers of counts: give ln(1 + counts per 10,000)")
    return sparse.csr_matrix(out)


def embedded(one: Drawn, arm: str, own: dict, seed: int, max_epochs: int) -> list[np.ndarray]:
    """Embeddings of the cells to learn from, held-out ones, those to adapt to and test cells, standardised together."""
    parts = one.train, one.held, one.adapt, one.test
    sizes = [len(part.y) for part in parts]
    cells = ad.AnnData(np.vstack([part.X for part in parts]))
    cells.obs_names = cells.obs_names.astype(str)
    cells.obs["domain"] = np.repeat(["source", "source", "target", "target"], sizes)
    cells.obs["known"] = np.r_[one.train.y, np.full(sum(sizes[1:]), UNKNOWN)]
    how = {"n_components": N_COMPONENTS, "layer": None, "seed": seed} | own
    if arm in OF_COUNTS:
        cells.layers["counts"] = counts(cells.X)
        how |= {"layer": "counts", "max_epochs": max_epochs}
    if arm == SCANVI:
        how["labels"] = "known"
    Z = rivals.embed(cells, "domain", arm, **how)
    Z = (Z - Z.mean(0)) / np.maximum(Z.std(0), 1e-12)
    return np.split(Z, np.cumsum(sizes)[:-1])


def fit_all(one: Drawn, seed: int, *, arm: str, max_epochs: int = 100) -> list[dict]:
    """Accuracy of an arm at each of its four settings, and the error on held-out source cells that chooses of them.

    Parameters
    ----------
    one : Drawn
        With counts behind its values, for scVI and scANVI.
    seed : int
        Of the method.
    arm : {"Harmony", "Scanorama", "scVI", "scANVI"}
        Which method.
    max_epochs : int
        Of scVI and scANVI.

    Returns
    -------
    list of dict
        With the columns that the choices of the tables read.

    Raises
    ------
    DataError
        If values that must be of counts are not.
    ImportError
        If a package is not installed.
    """
    found = []
    for own in OWN[arm]:
        start = time.process_time()
        train, held, adapt, test = embedded(one, arm, own, seed, max_epochs)
        spent = time.process_time() - start
        known = one.adapt.y != UNKNOWN
        for C in PENALTIES:
            model = logistic(C).fit(train, one.train.y)
            row = {"what": "fit", "arm": arm, "setting": len(found), "cpu": spent}
            row["source"] = float((model.predict(held) != one.held.y).mean())
            row["accuracy"] = balanced_accuracy(one.test.y, model.predict(test))
            row["accuracy_known"] = balanced_accuracy(labelled(one.adapt).y, model.predict(adapt[known]))
            found.append(row)
    return found


def rows(found: list[dict], one: Drawn, seed: int) -> list[dict]:
    """What :func:`fit_all` gave, as :func:`shared.studies.run` takes a metric: test cells were in the fit."""
    return found
