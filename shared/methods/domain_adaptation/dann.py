"""DANN: an encoder learns the source's labels, and to leave a discriminator of the two domains nothing to go by.

After Ganin and others, *Domain-adversarial training of neural networks* (JMLR 2016). Inputs are logged expression,
cells × genes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import torch
from torch.nn.functional import cross_entropy

from shared.data.constraints import Whole
from shared.methods.domain_adaptation.network import DomainNetwork, EncoderHead
from shared.methods.torch_method import TorchMethod
from shared.nn.losses import domain_loss, ramp
from shared.train import resolve_device
from shared.train.domains import DomainBatches


class AdversarialNetwork(EncoderHead):
    """An encoder with a head, and a discriminator of domains with one hidden layer.

    Parameters
    ----------
    n_genes, hidden, n_classes
        Of the encoder and its head, whose initial weights are those of the network without a discriminator.
    n_inputs, width : int
        Features that the discriminator reads, and its hidden units.
    """

    def __init__(self, n_genes: int, hidden: Sequence[int], n_classes: int, n_inputs: int, width: int):
        super().__init__(n_genes, hidden, n_classes)
        first, last = torch.nn.Linear(n_inputs, width), torch.nn.Linear(width, 1)
        self.discriminator = torch.nn.Sequential(first, torch.nn.ReLU(), last)


def dann_step(net: AdversarialNetwork, X, y, target_X, strength: float = 1.0) -> torch.Tensor:
    """Cross-entropy of source cells plus that of the domains, reversed for the encoder (equations 9 and 18)."""
    source, target = net.encode(X), net.encode(target_X)
    return cross_entropy(net.head(source), y) + domain_loss(net.discriminator, source, target, strength)


class RampedBatches(DomainBatches):
    """Batches of two domains, each with the strength of the reversed gradient at its place in the training.

    Parameters
    ----------
    source, target, batch_size, seed, device
        As in :class:`shared.train.DomainBatches`; a batch is the columns of both and a float.
    epochs : int
        Of the whole training.
    weight : float
        Of the reversed gradient at its end, nearly.
    """

    def __init__(self, source, target, batch_size: int, seed: int, device="cpu", *, epochs: int, weight: float = 1.0):
        super().__init__(source, target, batch_size, seed, device)
        self.epochs, self.weight = epochs, weight

    def __call__(self, epoch):
        before = (epoch - 1) * self.steps
        for i, batch in enumerate(super().__call__(epoch), before):
            yield *batch, self.weight * ramp(i / (self.epochs * self.steps))


@dataclass(eq=False, repr=False)
class DANN(DomainNetwork, TorchMethod):
    """A classifier of source cells whose embeddings a discriminator cannot tell from those of target cells.

    Parameters
    ----------
    hidden : sequence of int
        Units of the encoder's layers; the last is the width of the embedding.
    width : int
        Hidden units of the discriminator.
    weight : float
        Of the reversed gradient at the end of training; it grows from 0 by :func:`shared.nn.losses.ramp`. The
        discriminator's own gradient is not weighed, as in the paper's experiments. The paper ends at 1; embeddings of
        cells have no bound here, and grow under a strong adversary, more so with Adam.
    optimizer : {"sgd", "adamw", "adam"}
        The paper's is SGD with momentum; its falling learning rate is not here.
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

    constraints = {"width": Whole(1)}
    step = staticmethod(dann_step)

    _: KW_ONLY
    width: int = 32
    weight: float = 0.1
    optimizer: str = "sgd"
    lr: float = 1e-2

    def n_inputs(self, cells) -> int:
        """Features that the discriminator reads."""
        return self.hidden[-1]

    def build(self, cells):
        """The network for these cells."""
        return AdversarialNetwork(cells.n_genes, self.hidden, cells.n_classes, self.n_inputs(cells), self.width)

    def adapting(self, source, target, seed):
        """The step and the batches of a fit with target cells: each batch with the strength of its moment."""
        sides, place = ((source.X, source.codes), (target.X,)), resolve_device(self.device)
        batches = RampedBatches(*sides, self.batch_size, seed, place, epochs=self.epochs, weight=self.weight)
        return self.step, batches
