"""Types by vote: each cell takes the type that most of its nearest labelled cells have."""

from __future__ import annotations

import numpy as np
from sklearn.neighbors import NearestNeighbors

from shared.data.cells import array_of, finite_matrix
from shared.data.constraints import Whole, require
from shared.data.errors import DataError

LARGEST = 20_000  # labelled cells from which the published code begins to leave some out


def unit_length(X) -> np.ndarray:
    """Rows divided by their Euclidean length, float32 ndarray; a row of zeros stays."""
    X = finite_matrix(X, dtype=np.float32)
    X = X.toarray() if hasattr(X, "toarray") else X
    length = np.linalg.norm(X, axis=1, keepdims=True)
    return X / np.where(length > 0, length, 1)


def nearest_labelled(reference, X, k: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """The `k` cells of `reference` with the highest cosine: places and cosines, (n_cells, k) each, nearest first.

    Parameters
    ----------
    reference, X : ndarray or sparse matrix, cells × features
        Labelled cells and those that ask; embeddings, or expression as it is.
    k : int
        Fewer where `reference` has fewer.

    Raises
    ------
    DataError
        If features differ in number.
    """
    require(Whole(1), k=k)
    reference, X = unit_length(reference), unit_length(X)
    if reference.shape[1] != X.shape[1]:
        raise DataError(f"reference has {reference.shape[1]} features and X {X.shape[1]}: give the same ones")
    near = NearestNeighbors(n_neighbors=min(k, len(reference)), algorithm="brute").fit(reference)
    distance, places = near.kneighbors(X)
    return places, 1 - np.square(distance) / 2


def vote_shares(reference, labels, X, k: int = 30) -> np.ndarray:
    """Share of each type among the `k` nearest labelled cells: float32 (n_cells, n_types), rows sum to 1.

    On expression as it is, without any training, this is the baseline of scJoint.

    Parameters
    ----------
    reference, X, k
        As in :func:`nearest_labelled`.
    labels : int array, cells
        Types of `reference`, numbered from 0.

    Raises
    ------
    DataError
        If `labels` are not whole numbers from 0 up, one for each cell of `reference`.
    """
    labels = array_of(labels, "labels")
    if labels.shape != (np.shape(reference)[0],) or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise DataError(f"labels {labels.shape} must be whole numbers from 0 up, one a cell of reference")
    places, _ = nearest_labelled(reference, X, k)
    votes = labels[places]
    shares = [(votes == kind).mean(1) for kind in range(labels.max() + 1)]
    return np.stack(shares, 1).astype(np.float32)


def published_confidence(labels, predicted, places, cosine) -> np.ndarray:
    """What the published code calls the probability of a transferred type: float64 (n_cells,), positive or negative.

    Each neighbour is to count for the predicted type or against it. The code compares the predicted type with the place
    of the largest number in the neighbour's type, which is one number, so that the place is 0: all neighbours count for
    the first type, and against any other. The sign says whether a cell was called the first type, and nothing else.
    Here a neighbour weighs as its cosine, from 0 up.

    Parameters
    ----------
    labels : int array, labelled cells
        Their types.
    predicted : int array, cells
        The types they were given.
    places, cosine : arrays, cells × k
        From :func:`nearest_labelled`.
    """
    place_of_largest = np.array([np.argmax(label) for label in array_of(labels, "labels")])
    agrees = place_of_largest[places] == array_of(predicted, "predicted")[:, None]
    return (np.where(agrees, 1, -1) * np.maximum(cosine, 0)).sum(1)


def published_reference(n: int) -> np.ndarray:
    """Rows of the labelled cells that the published code keeps: every so many, int64.

    The stride is n / 20,000 without its fraction, so that between 20,000 and 39,999 cells stay, by their order.
    """
    return np.arange(0, n, max(1, n // LARGEST))
