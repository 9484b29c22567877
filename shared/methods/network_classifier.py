"""A small fully connected network as a scikit-learn estimator, without pre-training: the top rung of the baselines.

Inputs are log-normalised expression, cells × genes, as an ndarray or a CSR matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch.nn.functional import cross_entropy

from shared.train import Config, TrainingError, fit, load_model, resolve_device, save_model


def network(n_genes: int, n_types: int, hidden: Sequence[int], dropout: float, batch_norm: bool) -> torch.nn.Sequential:
    """Linear layers with ReLU and dropout between them; the output is one number (logit) a type."""
    layers, width = [], n_genes
    for units in hidden:
        layers.append(torch.nn.Linear(width, units))
        layers += [torch.nn.BatchNorm1d(units)] if batch_norm else []
        layers += [torch.nn.ReLU(), torch.nn.Dropout(dropout)]
        width = units
    return torch.nn.Sequential(*layers, torch.nn.Linear(width, n_types))


def weighted_loss(model: torch.nn.Module, X: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Mean over the batch of each cell's weight times its cross-entropy; what :func:`shared.train.fit` minimises."""
    return (weight * cross_entropy(model(X), target, reduction="none")).mean()


class NetworkClassifier(ClassifierMixin, BaseEstimator):
    """A small fully connected network, without pre-training.

    Parameters
    ----------
    hidden : sequence of int
        Units of each hidden layer; empty for none, which is logistic regression.
    dropout : float
        Share of hidden units left out at each training step, 0 up to but not 1.
    batch_norm : bool
        Normalise each hidden unit over the batch.
    epochs, batch_size, lr, weight_decay, precision, device, progress
        See :class:`shared.train.Config`.
    patience : int or None
        Stop early after so many epochs without a lower loss on held-out training cells; None trains all epochs.
    validation : float
        Share of each type's training cells held out for early stopping. Types with too few cells to spare one give
        none; when no type has one to spare, all epochs are run.
    class_weight : "balanced", dict or None
        Weight of a cell in the loss: ``"balanced"`` gives each type the same total, a dict gives weights by type.
    random_state : int, RandomState or None
        Initial weights, held-out cells, order of the cells and dropout.

    Attributes
    ----------
    classes_ : ndarray
        The types, sorted.
    n_features_in_ : int
        Number of genes. ``feature_names_in_`` holds their names when `X` was a DataFrame.
    network_ : torch.nn.Sequential
        The trained network, on the CPU, in evaluation mode.
    history_ : shared.train.History
        Losses by epoch.

    Notes
    -----
    A CSR matrix is never made dense as a whole, only the cells of one batch.
    """

    def __init__(
        self,
        hidden=(128,),
        *,
        dropout=0.5,
        batch_norm=False,
        epochs=100,
        batch_size=64,
        lr=1e-3,
        weight_decay=1e-2,
        patience=10,
        validation=0.1,
        class_weight="balanced",
        precision="32",
        device="auto",
        progress=False,
        random_state=None,
    ):
        self.hidden = hidden
        self.dropout = dropout
        self.batch_norm = batch_norm
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.patience = patience
        self.validation = validation
        self.class_weight = class_weight
        self.precision = precision
        self.device = device
        self.progress = progress
        self.random_state = random_state

    def fit(self, X, y):
        """Train on cells.

        Parameters
        ----------
        X : float ndarray or CSR matrix, cells × genes
            Log-normalised expression.
        y : array of str or int, cells
            Types.

        Returns
        -------
        NetworkClassifier

        Raises
        ------
        ValueError
            If inputs are not finite, do not fit together, or hold one type only.
        shared.train.TrainingError
            If a setting cannot be used or training fails.
        """
        X, y = validate_data(self, X, y, accept_sparse="csr", dtype=np.float32)
        check_classification_targets(y)
        self.classes_, target = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y holds one class only ({self.classes_[0]}): a classifier needs two")
        if not 0 <= self.dropout < 1 or not 0 <= self.validation < 1:
            raise TrainingError(f"dropout={self.dropout} and validation={self.validation} must lie in [0, 1)")
        weight = compute_sample_weight(self.class_weight, y).astype(np.float32)
        rng = check_random_state(self.random_state)
        seed = int(rng.randint(2**31))
        kept, held = np.arange(len(target)), None
        if self.patience is not None:
            kept, held = _hold_out(target, self.validation, rng)
        judged = held is not None and len(held) > 0
        config = Config(
            **{k: getattr(self, k) for k in ("epochs", "batch_size", "lr", "weight_decay", "precision", "progress")},
            device=self.device,
            seed=seed,
            patience=self.patience if judged else None,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network_ = self._build()
        cells = (X[kept], target[kept], weight[kept]) if judged else (X, target, weight)
        val = (X[held], target[held], weight[held]) if judged else None
        self.history_ = fit(self.network_, weighted_loss, cells, val=val, config=config)
        self.network_.cpu()
        return self

    def predict_proba(self, X):
        """Probability of each type for each cell: float32 ndarray, cells × types, columns as in ``classes_``."""
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse="csr", dtype=np.float32, reset=False)
        place = resolve_device(self.device)
        model = self.network_.to(place).eval()
        proba = np.empty((X.shape[0], len(self.classes_)), np.float32)
        for start in range(0, X.shape[0], 1024):
            some = X[start : start + 1024]
            some = torch.from_numpy(np.ascontiguousarray(some.toarray() if sparse.issparse(some) else some))
            with torch.no_grad():
                proba[start : start + 1024] = model(some.to(place)).softmax(1).cpu().numpy()
        model.cpu()
        return proba

    def predict(self, X):
        """The most probable type of each cell."""
        best = self.predict_proba(X).argmax(1)
        return self.classes_[best]

    def save(self, folder: str | Path, genes: Sequence[str] | None = None) -> Path:
        """Save weights, settings and the ordered list of genes to `folder`.

        Parameters
        ----------
        folder : path
            Made when it is not there.
        genes : sequence of str, optional
            Names of the columns of `X`; may be left out when `X` was a DataFrame.

        Raises
        ------
        shared.train.TrainingError
            If the genes are not known, not as many as the network reads, or repeated.
        """
        check_is_fitted(self)
        genes = getattr(self, "feature_names_in_", None) if genes is None else list(genes)
        if genes is None or len(genes) != self.n_features_in_:
            found = "none" if genes is None else len(genes)
            raise TrainingError(f"the network reads {self.n_features_in_} genes, {found} were named: pass genes=")
        settings = self.get_params() | {"hidden": list(self.hidden)}
        if not isinstance(self.random_state, (int, type(None))):
            settings["random_state"] = None
        about = {"settings": settings, "classes": self.classes_.tolist(), "kind": self.classes_.dtype.kind}
        return save_model(folder, self.network_.state_dict(), about, genes)

    @classmethod
    def load(cls, folder: str | Path, genes: Sequence[str]) -> NetworkClassifier:
        """Load a saved network for data whose columns are `genes`.

        Raises
        ------
        shared.train.TrainingError
            If files are missing or damaged, or `genes` are not the saved ones in the saved order.
        """
        state, about = load_model(folder, genes)
        loaded = cls(**about["settings"])
        loaded.classes_ = np.array(about["classes"], dtype=object if about["kind"] == "O" else None)
        loaded.n_features_in_ = len(genes)
        loaded.network_ = loaded._build()
        loaded.network_.load_state_dict(state)
        loaded.network_.eval()
        return loaded

    def _build(self):
        return network(self.n_features_in_, len(self.classes_), self.hidden, self.dropout, self.batch_norm)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def _hold_out(target, share, rng):
    """Rows to train on and rows held out: of each type the given share, rounded down."""
    held = [
        rng.permutation(rows)[: int(share * len(rows))]
        for rows in (np.flatnonzero(target == kind) for kind in range(target.max() + 1))
    ]
    held = np.sort(np.concatenate(held))
    return np.setdiff1d(np.arange(len(target)), held), held
