"""Deep MMD: bring source and target embeddings to one distribution by their maximum mean discrepancy.

After Long, Cao, Wang and Jordan, *Learning transferable features with deep adaptation networks* (ICML 2015), whose
method is called DAN. Inputs are logged expression, cells × genes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy

from shared.methods.domain_adaptation.network import DomainNetwork, EncoderHead
from shared.methods.torch_method import TorchMethod
from shared.nn.losses import mmd2


def mmd_step(net: EncoderHead, X, y, target_X, weight: float = 1.0) -> torch.Tensor:
    """Cross-entropy of a batch of source cells plus `weight` times the squared MMD of both embeddings (equation 4)."""
    source, target = net.encode(X), net.encode(target_X)
    return cross_entropy(net.head(source), y) + weight * mmd2(source, target)


@dataclass(eq=False, repr=False)
class DeepMMD(DomainNetwork, TorchMethod):
    """A classifier of source cells whose embeddings are distributed like those of unlabelled target cells.

    The paper matches three layers, learns the weights of the kernels, and estimates the MMD in linear time without
    bias. Here one layer is matched, the embedding; kernels of five widths weigh alike, and all pairs of a batch count.

    Parameters
    ----------
    hidden : sequence of int
        Units of the encoder's layers; the last is the width of the embedding.
    weight : float
        Of the squared MMD (:func:`shared.nn.losses.mmd2`, kernels around the median distance of the batch) beside the
        cross-entropy.
    epochs, batch_size, lr, weight_decay, device, devices, progress
        See :class:`shared.train.Config`. A batch holds `batch_size` cells of each domain, two or more, and more than
        one of `devices` can share it only without target cells.
    checkpoint : path, optional
        Where `fit` keeps its progress; a killed fit on the same cells goes on from there.
    random_state : int, RandomState or None
        Initial weights and order of the cells.

    Attributes
    ----------
    classes_, network_, history_
        As in :class:`shared.methods.network_classifier.NetworkClassifier`.
    """

    step = staticmethod(mmd_step)
