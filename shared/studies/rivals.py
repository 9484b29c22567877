"""Methods of batch correction that other people wrote, as rivals in a study: Harmony, Scanorama, scVI and scANVI.

None of them is needed to read or build the book. Each is an extra of its own (``harmony``, ``scanorama``, ``scvi``),
and Harmony's package is under the GPL, so that nothing else here asks for it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import random
import warnings

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.decomposition import PCA

from shared.data.cells import dense_matrix
from shared.data.constraints import Maybe, OneOf, SettingError, Whole, require
from shared.data.errors import DataError
from shared.nn.features import scvi_codes
from shared.preprocess import log_normalize

HARMONY, SCANORAMA, SCVI, SCANVI = METHODS = "Harmony", "Scanorama", "scVI", "scANVI"
PACKAGES = {HARMONY: "harmonypy", SCANORAMA: "scanorama", SCVI: "scvi", SCANVI: "scvi"}
EXTRAS = {HARMONY: "harmony", SCANORAMA: "scanorama", SCVI: "scvi", SCANVI: "scvi"}
SETTINGS = {HARMONY: ("theta", "lamb", "sigma", "nclust"), SCANORAMA: ("knn", "sigma", "alpha")}
UNKNOWN = ""  # the type of a cell that nobody named


def installed() -> list[str]:
    """Those of :data:`METHODS` whose package is there."""
    return [method for method in METHODS if importlib.util.find_spec(PACKAGES[method])]


def embed(
    cells,
    batch: str,
    method: str,
    *,
    labels: str | None = None,
    layer: str | None = "counts",
    n_components: int = 30,
    max_epochs: int | None = None,
    seed: int = 0,
    **setting,
) -> np.ndarray:
    """All cells in one space in which a method has brought their batches together.

    Every method sees the cells of all batches, and none but scANVI their types. There is no place for cells that were
    not there: whoever compares with methods that are tested on new cells says so.

    Parameters
    ----------
    cells : AnnData, cells × genes
        Of genes that were chosen before: none of these methods chooses here. Not changed.
    batch : str
        Column of ``obs``.
    method : {"Harmony", "Scanorama", "scVI", "scANVI"}
        Harmony moves the first principal components of ln(1 + counts per 10,000 of these genes); Scanorama matches
        neighbours among cells of unit length in these; scVI and scANVI model counts.
    labels : str, optional
        Column of ``obs`` with types, for scANVI alone, which must have it; ``""`` or a missing value where none is
        known.
    layer : str or None
        Where the counts are; None for ``X``. Values that are no counts are taken as they are by Harmony and Scanorama,
        and refused by the others.
    n_components : int
        Numbers in an embedding; of Harmony and Scanorama at most as many as there are genes.
    max_epochs : int, optional
        Of scVI and scANVI; scvi-tools decides by the number of cells, which for few cells means 400. scANVI is trained
        as scVI first, and then for a tenth of these epochs (2 to 10 where scvi-tools decides) with types.
    seed : int
        Random states are put back afterwards.
    **setting
        Passed on: ``theta``, ``lamb``, ``sigma`` or ``nclust`` of Harmony, ``knn``, ``sigma`` or ``alpha`` of
        Scanorama.

    Returns
    -------
    float32 ndarray, cells × n_components

    Raises
    ------
    ImportError
        If the package of the method is not installed: the message names the extra.
    SettingError
        If a method or setting is not known.
    DataError
        If a column or layer is missing, or there is one batch.

    References
    ----------
    Korsunsky and others, *Fast, sensitive and accurate integration of single-cell data with Harmony* (2019). Hie and
    others, *Efficient integration of heterogeneous single-cell transcriptomes using Scanorama* (2019). Lopez and
    others, *Deep generative modeling for single-cell transcriptomics* (2018). Xu and others, *Probabilistic
    harmonization and annotation of single-cell transcriptomics data with deep generative models* (2021).
    """
    require(OneOf(*METHODS), method=method)
    require(Whole(1), n_components=n_components)
    require(Whole(0), seed=seed)
    require(Maybe(Whole(1)), max_epochs=max_epochs)
    known = SETTINGS.get(method, ())
    if strange := sorted({*setting} - {*known}):
        has = f"it has {', '.join(known)}" if known else "leave it out: what it has are n_components and max_epochs"
        raise SettingError(f"{method} has no setting {', '.join(strange)}; {has}")
    names = _column(cells, batch)
    if len(np.unique(names)) < 2:
        raise DataError(f"all cells are of one batch ({names[0]}): there is nothing to bring together")
    if method == SCANVI and labels is None:
        raise SettingError("scANVI learns from types: pass labels=, a column of obs")
    types = _column(cells, labels) if method == SCANVI else None
    if method in (SCVI, SCANVI):
        how = {"layer": layer, "batch_key": batch, "n_latent": n_components, "max_epochs": max_epochs, "seed": seed}
        return scvi_codes(cells, labels=types, accelerator="cpu", **how)
    by = _harmony if method == HARMONY else _scanorama
    X, before = _expression(cells, layer), (random.getstate(), np.random.get_state())  # noqa: NPY002
    try:
        return by(_imported(method), X, names, n_components, seed, setting)
    finally:  # Scanorama seeds the global random states, when it is imported and when it runs
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002


def _harmony(harmonypy, X, names, n_components, seed, setting):
    """Harmony on the first principal components."""
    k = min(n_components, len(X) - 1, X.shape[1])
    Z = PCA(k, svd_solver="full").fit_transform(X)
    about = pd.DataFrame({"batch": names})
    got = harmonypy.run_harmony(Z, about, "batch", verbose=False, random_state=seed, ncores=1, **setting)
    return np.ascontiguousarray(got.Z_corr, np.float32)


def _scanorama(scanorama, X, names, n_components, seed, setting):
    """Scanorama's own components, its neighbours found exactly."""
    batches, genes = np.unique(names), [str(i) for i in range(X.shape[1])]
    parts = [sparse.csr_matrix(X[names == name]) for name in batches]
    k = min(n_components, len(X) - 1, X.shape[1])
    how = {"dimred": k, "approx": False, "verbose": 0, "seed": seed}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        found, _ = scanorama.integrate(parts, [genes] * len(parts), **how, **setting)
    Z = np.empty((len(X), k), np.float32)
    for name, part in zip(batches, found, strict=True):
        Z[names == name] = part
    return Z


def _imported(method):
    """The package of Harmony or Scanorama."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(PACKAGES[method])
    except ImportError as error:
        extra = EXTRAS[method]
        raise ImportError(
            f"{method} needs {PACKAGES[method]}: pip install 'borrowed-strength[{extra}]', or in a checkout "
            f"pip install -e '.[{extra}]' -c constraints.txt"
        ) from error


def _column(cells, name):
    """A column of ``obs`` as text, missing values as :data:`UNKNOWN`."""
    if name not in cells.obs:
        raise DataError(f"obs has no column {name!r}: pass one of {list(cells.obs)}")
    return cells.obs[name].astype("string").fillna(UNKNOWN).to_numpy(str)


def _expression(cells, layer):
    """Cells × genes, dense: counts as ln(1 + counts per 10,000), other values as they are."""
    if layer is not None and layer not in cells.layers:
        raise DataError(f"there is no layer {layer!r}, only {list(cells.layers)}: pass layer=, or None for X")
    X = dense_matrix(cells.X if layer is None else cells.layers[layer], "the table of cells")
    whole = (X >= 0).all() and np.array_equal(X, np.round(X))
    return log_normalize(X) if whole else X
