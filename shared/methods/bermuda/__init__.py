"""BERMUDA: batches matched cluster by cluster in the code of an autoencoder.

After Wang and others, *BERMUDA: a novel deep transfer learning method for single-cell RNA sequencing batch correction
reveals hidden high-resolution cellular subtypes* (Genome Biology, 2019). Each batch is clustered
(:mod:`~shared.methods.bermuda.clusters`); a vote of neighbours says which clusters of two batches are alike
(:mod:`~shared.methods.bermuda.similarity`); an autoencoder is trained to reconstruct all cells and to give the clusters
of a pair one distribution (:mod:`~shared.methods.bermuda.network`). :class:`Bermuda` is all of it
(:mod:`~shared.methods.bermuda.estimator`).

Of the paper its text on data and results could be read, of its method what the authors' code (2019) does. Where that is
not the default here, the option ``original`` holds it, and what it does is said there. Scores of mixing come with the
metrics.
"""

from shared.methods.bermuda.clusters import find_clusters, neighbour_graph
from shared.methods.bermuda.estimator import PUBLISHED, Bermuda
from shared.methods.bermuda.network import (
    WIDTHS,
    Autoencoder,
    ClusterBatches,
    EpochReset,
    bermuda_step,
    oversampled,
)
from shared.methods.bermuda.scaling import batch_ranges, scaled
from shared.methods.bermuda.similarity import cluster_pairs, metaneighbor

__all__ = [
    "PUBLISHED",
    "WIDTHS",
    "Autoencoder",
    "Bermuda",
    "ClusterBatches",
    "EpochReset",
    "batch_ranges",
    "bermuda_step",
    "cluster_pairs",
    "find_clusters",
    "metaneighbor",
    "neighbour_graph",
    "oversampled",
    "scaled",
]
