"""What the deep methods share: their network, training without adaptation, and one estimator around a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from itertools import pairwise

import torch
from sklearn.utils.validation import check_is_fitted
from torch.nn.functional import cross_entropy

from shared.data.constraints import NotNegative, Whole, Widths
from shared.data.errors import DataError
from shared.methods.base import Example, example_cells
from shared.methods.protocols import Classifier, DomainAware, Transformer
from shared.train import resolve_device
from shared.train.domains import DomainBatches


class EncoderHead(torch.nn.Module):
    """Linear layers with ReLU from genes to an embedding (``encode``), and a linear layer from there to classes."""

    def __init__(self, n_genes: int, hidden: Sequence[int], n_classes: int):
        super().__init__()
        widths = [n_genes, *hidden]
        layers = [torch.nn.Linear(a, b) for a, b in pairwise(widths)]
        self.encode = torch.nn.Sequential(*(part for layer in layers for part in (layer, torch.nn.ReLU())))
        self.head = torch.nn.Linear(widths[-1], n_classes)

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        """Logits: cells × classes."""
        return self.head(self.encode(X))


def source_step(net: EncoderHead, X, y) -> torch.Tensor:
    """Cross-entropy of a batch of source cells: the same network without adaptation."""
    return cross_entropy(net(X), y)


@dataclass(eq=False, repr=False)
class DomainNetwork(DomainAware, Classifier, Transformer):
    """An :class:`EncoderHead` that learns from labelled source cells and unlabelled target cells.

    A method gives its training step, ``step(net, X, y, target_X, weight=...)``.
    """

    constraints = {"hidden": Widths(), "weight": NotNegative(), "batch_size": Whole(2)}

    hidden: Sequence[int] = (64, 32)
    _: KW_ONLY
    weight: float = 1.0
    epochs: int = 30
    batch_size: int = 64
    lr: float = 1e-3
    weight_decay: float = 0.0

    @classmethod
    def example(cls):
        """A small problem to try it on."""
        cells, model = example_cells(), cls((16,), lr=1e-2, epochs=8, batch_size=16, device="cpu", random_state=0)
        return Example(model, cells, fit={"sample_domain": cells.obs["domain"].to_numpy()}, checked={"epochs": 40})

    def build(self, cells):
        """The network for these cells."""
        return EncoderHead(cells.n_genes, self.hidden, cells.n_classes)

    def adapting(self, source, target, seed) -> tuple:
        """The step and the batches of a fit with target cells, for :func:`shared.train.fit`."""
        sides = (source.X, source.codes), (target.X,)
        batches = DomainBatches(*sides, self.batch_size, seed, resolve_device(self.device))
        return partial(self.step, weight=self.weight), batches

    def fit(self, X, y="cell_type", sample_domain=None, *, genes=None):
        """Train on labelled source cells and unlabelled target cells.

        Parameters
        ----------
        X : AnnData, DataFrame, ndarray or sparse matrix, cells × genes
            Cells of both domains, logged expression.
        y : array of str or int, cells; or str
            Types; those of target cells are not looked at. Of an AnnData also the name of a column of ``obs``.
        sample_domain : int array, cells; or str, optional
            Positive for source, negative for target. Without it all cells are source, and nothing is adapted.
        genes : sequence of str, optional
            Names of the columns, where `X` has none.

        Raises
        ------
        ValueError
            If a setting, label or domain cannot be used, or the source holds one type only.
        shared.train.TrainingError
            If training fails.
        """
        source, target = self._read_domains(X, y, sample_domain, genes=genes)
        if len(target) == 1:
            raise DataError("one target cell has no covariance: give two or more, or leave sample_domain out")
        seed, step, batches = self._seed(), source_step, (source.X, source.codes)
        if len(target):
            step, batches = self.adapting(source, target, seed)
        net, progress = self.new_network(source, seed=seed), self._checkpoint_of_fit(source, target, seed=seed)
        self.history_, self.network_ = self.train(net, step, batches, seed=seed, checkpoint=progress), net
        return self

    def predict_proba(self, X, *, genes=None):
        """Probability of each type: float32 ndarray, cells × types, columns as in ``classes_``."""
        check_is_fitted(self, "network_")
        return self.probabilities(self.network_, self._read(X, genes=genes).X)

    def transform(self, X, *, genes=None):
        """Embeddings: float32 ndarray, cells × ``hidden[-1]``."""
        check_is_fitted(self, "network_")
        return self.forward(self.network_.encode, self._read(X, genes=genes).X)
