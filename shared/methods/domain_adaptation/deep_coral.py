"""Deep CORAL: match the covariances of source and target embeddings while the source's labels are learned.

After Sun and Saenko, *Deep CORAL: correlation alignment for deep domain adaptation* (ECCV workshops, 2016). Inputs are
logged expression, cells × genes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy

from shared.methods.domain_adaptation.network import DomainNetwork, EncoderHead
from shared.methods.torch_method import TorchMethod


def coral(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Squared Frobenius distance of two covariances over four times the squared width (equation 1)."""
    return (torch.cov(a.T) - torch.cov(b.T)).square().sum() / (4 * a.shape[1] ** 2)


def coral_step(net: EncoderHead, X, y, target_X, weight: float = 1.0) -> torch.Tensor:
    """Cross-entropy of a batch of source cells plus `weight` times :func:`coral` with target cells (equation 6)."""
    source, target = net.encode(X), net.encode(target_X)
    return cross_entropy(net.head(source), y) + weight * coral(source, target)


@dataclass(eq=False, repr=False)
class DeepCORAL(DomainNetwork, TorchMethod):
    """A classifier of source cells whose embeddings have the covariance of unlabelled target cells' embeddings.

    Parameters
    ----------
    hidden : sequence of int
        Units of the encoder's layers; the last is the width of the embedding.
    weight : float
        Of the CORAL loss beside the cross-entropy. In the paper it is set so that both end at about the same size.
    epochs, batch_size, lr, weight_decay, device, devices, progress
        See :class:`shared.train.Config`. A batch holds `batch_size` cells of each domain, two or more, and more than
        one of `devices` can share it only without target cells: a covariance is that of a whole batch.
    checkpoint : path, optional
        Where `fit` keeps its progress; a killed fit on the same cells goes on from there.
    random_state : int, RandomState or None
        Initial weights and order of the cells.

    Attributes
    ----------
    classes_, network_, history_
        As in :class:`shared.methods.network_classifier.NetworkClassifier`.
    """

    step = staticmethod(coral_step)
