"""The losses of scJoint: embeddings that use all their features, a near cell of known type, and a point for each type.

Embeddings come as data sets × cells × features: as many cells of each data set, which so weigh alike whatever their
sizes.
"""

from __future__ import annotations

import torch
from torch.nn.functional import normalize

EPS = 1e-6  # least spread and distance that a gradient is taken of


def reduction_loss(E: torch.Tensor) -> torch.Tensor:
    """Features that vary, do not vary together, and stay small, in the mean over data sets: a scalar (the NNDR loss).

    Three terms for each data set: covariances above the diagonal, in absolute value, summed and divided by the *square*
    of the number of features; one over the mean absolute deviation from the mean; and the mean absolute value. The
    second by itself makes embeddings grow without end, and the third stops it.

    Parameters
    ----------
    E : float32 tensor, data sets × cells × features
        Two cells or more of each data set. Where they do not vary, the second term is capped at a million.
    """
    centred = E - E.mean(1, keepdim=True)
    covariance = centred.mT @ centred / (E.shape[1] - 1)
    together = covariance.triu(1).abs().mean((1, 2))
    spread = centred.abs().mean((1, 2)).clamp_min(EPS)
    return (together + 1 / spread + E.abs().mean((1, 2))).mean()


def similarity_loss(source: torch.Tensor, target: torch.Tensor, top: float = 0.8) -> torch.Tensor:
    """Minus the mean cosine of target cells with their nearest source cell: a scalar from -1 to 1.

    Only the `top` share of the target cells of each data set counts, those with the highest cosine, rounded down: the
    others may be of a type that the source lacks.

    Parameters
    ----------
    source, target : float32 tensor, data sets × cells × features
        Embeddings; any source cell in the batch may be the nearest.
    top : float
        Above 0, up to 1.
    """
    cosine = normalize(target, dim=2) @ normalize(source.flatten(0, 1), dim=1).T
    nearest = cosine.max(2).values
    return -nearest.topk(max(1, int(target.shape[1] * top)), dim=1).values.mean()


def centre_loss(E: torch.Tensor, y: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Distance of each cell from the centre of its type, in the mean, over the number of types: a scalar.

    The published code divides by the number of types, since it takes the mean over a table of cells × types in which
    all other places are zero. The gradient is 0, not NaN, where a cell lies on its centre.

    Parameters
    ----------
    E : float32 tensor, ... × features
        Embeddings.
    y : int64 tensor, ...
        Types, from 0 up to the number of centres; another number is an IndexError, not a cell without a pull.
    centres : float32 tensor, types × features
        Fixed, or trained with the network.
    """
    apart = (E - centres[y]).square().sum(-1).clamp_min(EPS**2).sqrt()
    return apart.mean() / len(centres)
