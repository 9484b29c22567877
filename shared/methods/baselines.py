"""Plain classifiers of cells: what every method of this book must beat, read from the simplest to the network.

Inputs are log-normalised expression, cells × genes, as an ndarray or a CSR matrix; whatever a model needs besides
(components, scaling) is a step of its pipeline, so nothing is ever fitted on test cells.

The settings were chosen by five-fold cross-validation inside one run of the bundled blood cells at a time, for the
balanced accuracy, and by log loss between equals. The other run was never looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import sklearn
import torch
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics import pairwise_distances_argmin
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import check_random_state
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch.nn.functional import cross_entropy

from shared.train import Config, TrainingError, fit, load_model, resolve_device, save_model


def softmax_regression(X: np.ndarray, y: np.ndarray, C: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Multinomial logistic regression with an L2 penalty, written out.

    Minimises the sum of the cross-entropies plus ``(W ** 2).sum() / (2 * C)``, which is what scikit-learn's
    ``LogisticRegression(C=C)`` minimises, by L-BFGS on all cells at once. Each gene is centred first and the intercept
    put back after: the minimum is the same, and in single cells it is reached in half the steps or fewer, because
    every type's score no longer moves with the average cell.

    Parameters
    ----------
    X : float32 ndarray, cells × genes
        Log-normalised expression.
    y : ndarray of str or int, cells
        Types.
    C : float
        Inverse strength of the penalty.

    Returns
    -------
    names : ndarray, types
        The types, sorted.
    W : float32 ndarray, genes × types
    b : float32 ndarray, types
        ``names[(X @ W + b).argmax(1)]`` names new cells.
    """
    names, target = np.unique(y, return_inverse=True)
    cells, target = torch.as_tensor(X), torch.as_tensor(target)
    mean = cells.mean(0)
    centred = cells - mean
    W = torch.zeros(len(mean), len(names), requires_grad=True)  # genes × types
    b = torch.zeros(len(names), requires_grad=True)
    optimizer = torch.optim.LBFGS([W, b], max_iter=100, line_search_fn="strong_wolfe")

    def objective() -> torch.Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(centred @ W + b, target, reduction="sum") + (W**2).sum() / (2 * C)
        loss.backward()
        return loss

    optimizer.step(objective)
    W, b = W.detach(), b.detach() - mean @ W.detach()
    return names, W.numpy(), b.numpy()


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
        return _takes_sparse(super().__sklearn_tags__())


def _hold_out(target, share, rng):
    """Rows to train on and rows held out: of each type the given share, rounded down."""
    held = [
        rng.permutation(rows)[: int(share * len(rows))]
        for rows in (np.flatnonzero(target == kind) for kind in range(target.max() + 1))
    ]
    held = np.sort(np.concatenate(held))
    return np.setdiff1d(np.arange(len(target)), held), held


class NearestCentroid(ClassifierMixin, BaseEstimator):
    """The type whose average cell is nearest.

    scikit-learn's own also measures the spread within types, and warns of every gene that has none, which in single
    cells is most of them. This one only averages; a test holds its answers to those of the library.
    """

    def fit(self, X, y):
        """Average the cells of each type."""
        X, y = validate_data(self, X, y, accept_sparse="csr", dtype=[np.float64, np.float32])
        check_classification_targets(y)
        self.classes_ = np.unique(y)
        if len(self.classes_) < 2:
            raise ValueError(f"y holds one class only ({self.classes_[0]}): a classifier needs two")
        self.centroids_ = np.stack([np.asarray(X[y == kind].mean(0)).ravel() for kind in self.classes_])
        return self

    def predict(self, X):
        """The type of the nearest average."""
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse="csr", dtype=[np.float64, np.float32], reset=False)
        return self.classes_[pairwise_distances_argmin(X, self.centroids_)]

    def __sklearn_tags__(self):
        return _takes_sparse(super().__sklearn_tags__())


class Components(TransformerMixin, BaseEstimator):
    """PCA with as many components as asked for, or as the cells allow, so that it also works on a handful of them."""

    def __init__(self, n_components=30, *, random_state=None):
        self.n_components = n_components
        self.random_state = random_state

    def fit(self, X, y=None):
        """Fit the components of `X`, cells × genes; a CSR matrix stays sparse."""
        X = validate_data(self, X, accept_sparse="csr", dtype=[np.float64, np.float32], ensure_min_samples=2)
        k = max(1, min(self.n_components, min(X.shape) - 1))
        # ARPACK is exact, so one set of cells gives one answer, sparse or dense.
        solver = "arpack" if k < min(X.shape) else "full"
        self.pca_ = PCA(k, svd_solver=solver, random_state=self.random_state).fit(X)
        return self

    def transform(self, X):
        """Coordinates of each cell: cells × components."""
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse="csr", dtype=[np.float64, np.float32], reset=False)
        return self.pca_.transform(X)

    def __sklearn_tags__(self):
        return _takes_sparse(super().__sklearn_tags__())


class Neighbors(ClassifierMixin, BaseEstimator):
    """k nearest neighbours by angle, the nearer counting more; `k` is cut to the number of training cells."""

    def __init__(self, k=10):
        self.k = k

    def fit(self, X, y):
        """Remember the cells `X` and their types `y`."""
        X, y = validate_data(self, X, y)
        self.knn_ = KNeighborsClassifier(min(self.k, len(y)), metric="cosine", weights="distance").fit(X, y)
        self.classes_ = self.knn_.classes_
        return self

    def predict_proba(self, X):
        """Weighted share of each type among the neighbours."""
        check_is_fitted(self)
        return self.knn_.predict_proba(validate_data(self, X, reset=False))

    def predict(self, X):
        """The type with the largest share."""
        best = self.predict_proba(X).argmax(1)
        return self.classes_[best]


def _takes_sparse(tags):
    tags.input_tags.sparse = True
    return tags


def sparse_if_mostly_zero(X):
    """`X` as CSR when fewer than three entries in ten are not zero; centred or scaled expression stays dense."""
    if sparse.issparse(X):
        return X.tocsr()
    X = np.asarray(X)
    return sparse.csr_matrix(X) if np.count_nonzero(X) < 0.3 * X.size else X


def _on_sparse(*steps):
    """A pipeline that makes use of zeros: five times faster where nine entries in ten are zero."""
    return make_pipeline(FunctionTransformer(sparse_if_mostly_zero, accept_sparse=True), *steps)


def _penalised(l1_ratio, **options):
    """Logistic regression with an L1 or mixed penalty, said as this version of scikit-learn wants it said."""
    if tuple(int(n) for n in sklearn.__version__.split(".")[:2]) < (1, 8):
        options["penalty"] = "l1" if l1_ratio == 1 else "elasticnet"
    if l1_ratio < 1 or "penalty" not in options:
        options["l1_ratio"] = l1_ratio
    return LogisticRegression(**options)


def models(random_state: int | None = 0) -> dict[str, BaseEstimator]:
    """The usual seven classifiers, each with the steps it needs, not yet fitted.

    Parameters
    ----------
    random_state : int or None
        Seed of the models that draw random numbers.

    Returns
    -------
    dict of str to estimator
        ``ridge``, ``lasso``, ``elastic net``, ``logistic``, ``random forest``, ``gradient boosting``, ``network``. All
        but ridge have ``predict_proba``.

    Notes
    -----
    What was chosen, and by how much, in cross-validation inside run 1 and inside run 2 (without looking across):

    * Weighting the types equally helped wherever a model lets it: in run 2, where one type has eleven cells, by 0.02
      (ridge) to 0.06 (elastic net). Lasso fits one type against the rest, gained nothing, and has better
      probabilities without.
    * Scaling each gene to unit variance cost ridge and logistic regression 0.02 to 0.07. Nothing is scaled.
    * ridge: penalty 300 of 10 to 1000. logistic: C 0.3 of 0.003 to 3. lasso: C 0.3 of 0.1 to 3, by liblinear's
      coordinate descent. elastic net: half of the penalty each, C 0.1 of 0.1 to 1, by SAGA with a loose tolerance.
    * random forest: leaves of three cells or more, and three genes in a hundred looked at a split instead of one.
    * gradient boosting: on 20 components, which did as well as 50; each round grows one tree a type, too many to search
      all genes. Small trees and a slow rate cost no accuracy and give better probabilities.
    * network: 128 hidden units (64 and 256 did no better), half of them dropped; all genes, which beat 50 components.
    """
    seeded = {"random_state": random_state}
    return {
        "ridge": RidgeClassifier(alpha=300, class_weight="balanced"),
        "lasso": _on_sparse(OneVsRestClassifier(_penalised(1, C=0.3, solver="liblinear", **seeded))),
        "elastic net": _on_sparse(
            _penalised(0.5, C=0.1, solver="saga", tol=1e-2, max_iter=1000, class_weight="balanced", **seeded)
        ),
        "logistic": _on_sparse(LogisticRegression(C=0.3, max_iter=1000, class_weight="balanced")),
        "random forest": RandomForestClassifier(
            200, max_features=0.03, min_samples_leaf=3, class_weight="balanced", **seeded
        ),
        "gradient boosting": _on_sparse(
            Components(20, **seeded),
            HistGradientBoostingClassifier(
                learning_rate=0.05,
                max_leaf_nodes=6,
                min_samples_leaf=5,
                max_features=0.3,
                l2_regularization=5,
                early_stopping=False,
                **seeded,
            ),
        ),
        "network": _on_sparse(NetworkClassifier(**seeded)),
    }


def rungs(random_state: int | None = 0) -> dict[str, BaseEstimator]:
    """The ladder of baselines, lowest rung first, not yet fitted.

    ``logistic`` and ``network`` are those of :func:`models`, under the same names, so ``rungs() | models()`` holds each
    once. The rung that centres each study needs the test cells too, and belongs to ``shared.evaluate.ladder``.

    Parameters
    ----------
    random_state : int or None
        Seed of the rungs that draw random numbers.

    Returns
    -------
    dict of str to estimator
        ``majority class``, ``nearest centroid``, ``PCA + k-NN``, ``logistic`` (L2, all genes), ``network`` (without
        pre-training).
    """
    candidates = models(random_state)
    return {
        "majority class": DummyClassifier(strategy="most_frequent"),
        "nearest centroid": NearestCentroid(),
        "PCA + k-NN": _on_sparse(Components(30, random_state=random_state), Neighbors(10)),
        "logistic": candidates["logistic"],
        "network": candidates["network"],
    }
