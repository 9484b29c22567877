"""Batches of Gaussian clusters in a plane, projected to genes: the smallest problem of matching clusters."""

import anndata as ad
import numpy as np

from shared.data.constraints import NotNegative, Whole, require
from shared.data.simulate.model import NAMES, as_adata, gene_names

MEANS = np.array([[0.0, 5.0], [5.0, 5.0], [5.0, 0.0], [0.0, 0.0]])
SPREADS = np.array([0.8, 0.1, 0.4, 0.2])


def gaussian(
    n_cells: int = 2000, n_genes: int = 100, *, n_batches: int = 2, shift: float = 1.0, seed: int = 0
) -> ad.AnnData:
    """Four types as Gaussian clouds in a plane, seen through a random projection, with a shift of each gene a batch.

    Values are log-like numbers, not counts, and not drawn from the model of the other simulations.

    Parameters
    ----------
    n_cells : int
        Of each batch.
    n_genes : int
        Directions of the projection, each with noise of deviation 1.
    n_batches : int
        Batches; the shares of the types are drawn anew for each.
    shift : float
        Deviation of the batches' shifts, of which the first batch has none.
    seed : int
        Of everything.

    Returns
    -------
    AnnData
        ``obs``: ``cell_type`` and ``batch``. ``obsm["plane"]``: where a cell lies in the plane. ``uns["truth"]``:
        ``projection`` (2 × genes), ``shift`` (batches × genes) and ``proportions`` (batches × types).

    References
    ----------
    Wang and others (Genome Biology, 2019), whose first simulation has two batches of 2,000 cells and 100 genes.
    """
    require(Whole(1), n_cells=n_cells, n_genes=n_genes, n_batches=n_batches)
    require(NotNegative(), shift=shift)
    rng = np.random.default_rng(seed)
    projection, moved = rng.normal(size=(2, n_genes)), shift * rng.normal(size=(n_batches, n_genes))
    moved[0] = 0
    shares = rng.dirichlet(np.full(4, 2.0), n_batches)
    kind = np.concatenate([rng.choice(4, n_cells, p=share) for share in shares])
    batch = np.repeat(np.arange(n_batches), n_cells)
    plane = MEANS[kind] + SPREADS[kind, None] * rng.normal(size=(len(kind), 2))
    X = plane @ projection + rng.normal(size=(len(kind), n_genes)) + moved[batch]
    truth = {"projection": projection, "shift": moved, "proportions": shares}
    obs = {"cell_type": np.array(NAMES[:4])[kind], "batch": batch}
    adata = as_adata(X.astype(np.float32), obs, truth, gene_names(n_genes), "log")
    adata.obsm["plane"] = plane
    return adata
