"""CDAN: adversarial alignment in which the discriminator sees what a cell is called beside its embedding.

After Long, Cao, Wang and Jordan, *Conditional adversarial domain adaptation* (NeurIPS 2018). Inputs are logged
expression, cells × genes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy

from shared.methods.domain_adaptation.dann import DANN, AdversarialNetwork
from shared.nn.losses import domain_loss


def multilinear(embedding: torch.Tensor, probability: torch.Tensor) -> torch.Tensor:
    """Products of every feature with every probability: rows × (features · classes) (section 3.2)."""
    return (embedding[:, :, None] * probability[:, None, :]).flatten(1)


def cdan_step(net: AdversarialNetwork, X, y, target_X, strength: float = 1.0) -> torch.Tensor:
    """Cross-entropy of source cells plus that of the domains, told from :func:`multilinear` (section 3)."""
    source, target = net.encode(X), net.encode(target_X)
    joint = [multilinear(z, net.head(z).softmax(1)) for z in (source, target)]
    return cross_entropy(net.head(source), y) + domain_loss(net.discriminator, *joint, strength)


@dataclass(eq=False, repr=False)
class CDAN(DANN):
    """:class:`DANN` whose discriminator reads the embedding and the predicted probabilities together.

    Embeddings are matched within what the head calls a class, so a wrong head has wrong classes matched. The paper
    draws random products where there are more than 4,096, and has a variant that weighs cells by their certainty
    (CDAN+E); neither is here.

    Parameters
    ----------
    hidden, width, weight, optimizer, epochs, batch_size, lr, weight_decay, device, devices, progress, checkpoint
        As in :class:`DANN`.
    random_state
        As in :class:`DANN`.

    Attributes
    ----------
    classes_, network_, history_
        As in :class:`shared.methods.network_classifier.NetworkClassifier`.
    """

    step = staticmethod(cdan_step)

    def n_inputs(self, cells) -> int:
        """Features that the discriminator reads: products of the embedding with each class."""
        return self.hidden[-1] * cells.n_classes
