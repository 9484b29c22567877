"""Two encoders without a gene in common: what matching of distributions cannot know.

Source and target are measured by other genes, each has its own encoder, and only the distributions of the embeddings
are held together. Any assignment of clusters to clusters that keeps the shares matches them, the wrong one as well as
the right one, and the initial weights decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from shared.data.cells import read
from shared.methods.domain_adaptation.network import EncoderHead
from shared.methods.torch_method import seeded
from shared.nn.losses import mmd2
from shared.train import Config, fit, resolve_device
from shared.train.domains import DomainBatches


class SeparateEncoders(torch.nn.Module):
    """An encoder of the source's genes with a head, and an encoder of the target's genes into the same space."""

    def __init__(self, n_source_genes: int, n_target_genes: int, hidden: Sequence[int], n_classes: int):
        super().__init__()
        self.source = EncoderHead(n_source_genes, hidden, n_classes)
        self.encode_target = EncoderHead(n_target_genes, hidden, n_classes).encode

    def forward(self, target_X: torch.Tensor) -> torch.Tensor:
        """Logits of target cells, by the head that the source trained: cells × classes."""
        return self.source.head(self.encode_target(target_X))


def separate_step(net: SeparateEncoders, X, y, target_X, weight: float = 1.0) -> torch.Tensor:
    """Cross-entropy of source cells plus `weight` times the squared MMD with embeddings of the other encoder."""
    source, target = net.source.encode(X), net.encode_target(target_X)
    return cross_entropy(net.source.head(source), y) + weight * mmd2(source, target)


def separate_encoders(
    X, y, target_X, *, hidden: Sequence[int] = (16,), weight: float = 1.0, epochs: int = 60, batch_size: int = 64,
    lr: float = 1e-2, device: str = "auto", seed: int = 0,
) -> np.ndarray:  # fmt: skip
    """Train both encoders, and name the target's cells.

    Parameters
    ----------
    X : AnnData, DataFrame, ndarray or sparse matrix, source cells × genes
        Logged expression.
    y : array of str or int, source cells; or str
        Types; of an AnnData also the name of a column of ``obs``.
    target_X : AnnData, DataFrame, ndarray or sparse matrix, target cells × other genes
        Logged expression.
    hidden, weight, epochs, batch_size, lr, device
        As for :class:`~shared.methods.domain_adaptation.DeepMMD`.
    seed : int
        Initial weights and order of the cells.

    Returns
    -------
    float32 ndarray, target cells × classes
        Probabilities; the classes are those of `y`, sorted.

    Raises
    ------
    shared.data.errors.DataError
        If labels or cells cannot be read.
    shared.data.constraints.SettingError
        If a setting of the training cannot be used.
    """
    source, target, place = read(X, y), read(target_X), resolve_device(device)
    config = Config(epochs=epochs, batch_size=batch_size, lr=lr, device=device, seed=seed)
    net = seeded(lambda: SeparateEncoders(source.n_genes, target.n_genes, hidden, source.n_classes), seed)
    batches = DomainBatches((source.X, source.codes), (target.X,), batch_size, seed, place)
    fit(net, partial(separate_step, weight=weight), batches, config)
    cells = target.X.toarray() if hasattr(target.X, "toarray") else target.X
    with torch.inference_mode():
        return net(torch.from_numpy(cells).to(place)).softmax(1).cpu().numpy()
