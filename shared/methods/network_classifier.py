"""A small fully connected network as an estimator, without pre-training: the strongest of the baselines.

Inputs are log-normalised expression, cells × genes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import numpy as np
import torch
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.validation import check_is_fitted
from torch.nn.functional import cross_entropy

from shared.data.constraints import Constraint, Flag, Maybe, Share, Whole, Widths
from shared.methods.base import Example, example_cells
from shared.methods.protocols import Classifier
from shared.methods.torch_method import TorchMethod


def dense_network(
    n_genes: int, n_types: int, hidden: Sequence[int], dropout: float, batch_norm: bool
) -> torch.nn.Sequential:
    """Linear layers with ReLU and dropout between them; the output is one number (logit) a type."""
    layers, width = [], n_genes
    for units in hidden:
        layers.append(torch.nn.Linear(width, units))
        layers += [torch.nn.BatchNorm1d(units)] if batch_norm else []
        layers += [torch.nn.ReLU(), torch.nn.Dropout(dropout)]
        width = units
    return torch.nn.Sequential(*layers, torch.nn.Linear(width, n_types))


def weighted_step(net: torch.nn.Module, X: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Mean over the batch of each cell's weight times its cross-entropy; what :func:`shared.train.fit` minimises."""
    return (weight * cross_entropy(net(X), target, reduction="none")).mean()


@dataclass(eq=False, repr=False)
class NetworkClassifier(Classifier, TorchMethod):
    """A small fully connected network, without pre-training.

    Parameters
    ----------
    hidden : sequence of int
        Units of each hidden layer; empty for none, which is logistic regression.
    dropout : float
        Share of hidden units left out at each update, 0 up to but not 1.
    batch_norm : bool
        Normalise each hidden unit over the batch.
    epochs, batch_size, lr, weight_decay, precision, device, devices, progress
        See :class:`shared.train.Config`.
    patience : int or None
        Stop early after so many epochs without a lower loss on held-out training cells; None trains all epochs.
    validation : float
        Share of each type's training cells held out for early stopping. Types with too few cells to spare one give
        none; when no type has one to spare, all epochs are run.
    class_weight : "balanced", dict or None
        Weight of a cell in the loss: ``"balanced"`` gives each type the same total, a dict gives weights by type.
    checkpoint : path, optional
        Where `fit` keeps its progress; a killed fit on the same cells goes on from there.
    random_state : int, RandomState or None
        Initial weights, held-out cells, order of the cells and dropout.

    Attributes
    ----------
    classes_ : ndarray
        The types, sorted.
    n_features_in_ : int
        Number of genes; ``feature_names_in_`` holds their names where they were given.
    network_ : torch.nn.Sequential
        The trained network, on the CPU, in evaluation mode.
    history_ : shared.train.History
        Losses by epoch.

    Notes
    -----
    A sparse matrix is never made dense as a whole, only the cells of one batch.
    """

    constraints = {
        "hidden": Widths(0),
        "dropout": Share(),
        "batch_norm": Flag(),
        "validation": Share(),
        "patience": Maybe(Whole(1)),
        "class_weight": Constraint(
            lambda v: v in (None, "balanced") or isinstance(v, dict), "is not balanced or a dict"
        ),
    }

    hidden: Sequence[int] = (128,)
    _: KW_ONLY
    dropout: float = 0.5
    batch_norm: bool = False
    epochs: int = 100
    batch_size: int = 64
    lr: float = 1e-3
    weight_decay: float = 1e-2
    patience: int | None = 10
    validation: float = 0.1
    class_weight: str | dict | None = "balanced"
    precision: str = "32"

    @classmethod
    def example(cls):
        """A small problem to try it on."""
        model = cls(epochs=10, lr=1e-2, device="cpu", random_state=0)
        return Example(model, example_cells(), checked={"epochs": 25, "patience": None})

    def build(self, cells):
        """The network for these cells."""
        return dense_network(cells.n_genes, cells.n_classes, self.hidden, self.dropout, self.batch_norm)

    def fit(self, X, y="cell_type", *, genes=None):
        """Train on cells.

        Parameters
        ----------
        X : AnnData, DataFrame, ndarray or sparse matrix, cells × genes
            Log-normalised expression.
        y : array of str or int, cells; or str
            Types; of an AnnData also the name of a column of ``obs``.
        genes : sequence of str, optional
            Names of the columns, where `X` has none.

        Returns
        -------
        NetworkClassifier

        Raises
        ------
        ValueError
            If a setting cannot be used, or inputs are not finite, do not fit together, or hold one type only.
        shared.train.TrainingError
            If training fails.
        """
        cells, rng = self._read_labelled(X, y, genes=genes), self._rng()
        seed = int(rng.randint(2**31))
        target, weight = cells.codes, compute_sample_weight(self.class_weight, cells.y).astype(np.float32)
        kept, held = np.arange(len(cells)), np.arange(0)
        if self.patience is not None:
            kept, held = stratified_split(target, self.validation, rng)
        batch, val = ((cells.X[rows], target[rows], weight[rows]) for rows in (kept, held))
        net = self.new_network(cells, seed=seed)
        self.history_ = self.train(
            net, weighted_step, batch, seed=seed,
            val=val if len(held) else None,
            patience=self.patience if len(held) else None,
            checkpoint=self._checkpoint_of_fit(cells, seed=seed),
        )  # fmt: skip
        self.network_ = net
        return self

    def predict_proba(self, X, *, genes=None):
        """Probability of each type for each cell: float32 ndarray, cells × types, columns as in ``classes_``."""
        check_is_fitted(self, "network_")
        return self.probabilities(self.network_, self._read(X, genes=genes).X)


def stratified_split(target, share, rng):
    """Rows to train on and rows held out: of each type the given share, rounded down."""
    held = [
        rng.permutation(rows)[: int(share * len(rows))]
        for rows in (np.flatnonzero(target == kind) for kind in range(target.max() + 1))
    ]
    held = np.sort(np.concatenate(held))
    return np.setdiff1d(np.arange(len(target)), held), held
