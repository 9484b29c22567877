"""An autoencoder learns one collection of expression profiles; its encoder then serves another, smaller one.

Pre-train on the source without labels, keep the encoder, put a head on it, and tune on the target's few labels: the
head alone, all layers, one layer after another, or all with smaller steps near the genes. Written in Keras 3, so the
same module runs on TensorFlow (the default), torch and JAX: set ``KERAS_BACKEND`` before the first import.

Inputs are samples × genes, logged. What an estimator remembers are plain arrays, so it can be cloned, sent to another
process and saved without a framework's own format.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from shared.methods.inputs import columns_of, rows_of
from shared.methods.saved_encoder import load_encoder, save_encoder
from shared.nn.autoencoders import TUNING, compiled_autoencoder, compiled_encoder, stages
from shared.nn.autoencoders import autoencoder as autoencoder
from shared.nn.autoencoders import variational_autoencoder as variational_autoencoder
from shared.nn.keras_net import Scale, initial, keras, restart, run, train

SCALING = {"standard": "linear", "centre": "linear", "unit": "sigmoid", None: "linear"}
_BUSY = threading.RLock()  # networks of one shape are built once and lent out, one user at a time


class _Transfer(TransformerMixin, BaseEstimator):
    """Pre-training, tuning, saving: what the classifier and the regressor share."""

    def __init__(
        self,
        hidden=(1024,),
        code=256,
        *,
        tuning="full",
        scaling="standard",
        output="auto",
        per_study=True,
        noise=0.0,
        variational=False,
        beta=1.0,
        pretrain_epochs=50,
        pretrain_batch_size=128,
        pretrain_lr=1e-3,
        epochs=30,
        batch_size=32,
        lr=1e-3,
        l2=1e-4,
        decay=2.6,
        jit="auto",
        progress=False,
        random_state=None,
    ):
        self.hidden = hidden
        self.code = code
        self.tuning = tuning
        self.scaling = scaling
        self.output = output
        self.per_study = per_study
        self.noise = noise
        self.variational = variational
        self.beta = beta
        self.pretrain_epochs = pretrain_epochs
        self.pretrain_batch_size = pretrain_batch_size
        self.pretrain_lr = pretrain_lr
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.l2 = l2
        self.decay = decay
        self.jit = jit
        self.progress = progress
        self.random_state = random_state

    def __sklearn_clone__(self):
        """A clone keeps what was pre-trained, so that a learning curve pre-trains once; tuning starts again."""
        fresh = type(self)(**self.get_params(deep=False))
        for name in ("pretrained_", "scale_", "adapted_", "n_features_in_", "feature_names_in_"):
            if hasattr(self, name) and (hasattr(self, "pretrained_") or name == "adapted_"):
                setattr(fresh, name, getattr(self, name))
        return fresh

    def pretrain(self, X):
        """Learn to rebuild source profiles; no labels.

        Parameters
        ----------
        X : array, CSR, DataFrame or AnnData of shape (n_samples, n_genes), or a list of such
            One matrix a study, all with the same genes in the same order. With ``per_study`` each is scaled by its
            own genes' centre and spread, otherwise all together.

        Returns
        -------
        self
            ``pretrained_``: weights of the autoencoder and ``losses``, one an epoch.

        Raises
        ------
        ValueError
            If a setting cannot be used, or matrices do not fit together or hold NaN.
        FloatingPointError
            If the loss is no longer finite.
        """
        self._check()
        studies = list(X) if isinstance(X, (list, tuple)) else [X]
        if not studies:
            raise ValueError("pretrain needs at least one matrix of samples × genes")
        names = [n for n in map(columns_of, studies) if n is not None]
        if any(n != names[0] for n in names):
            raise ValueError("the studies name different genes, or in another order: align them first (align_genes)")
        studies = [rows_of(type(self)(), S, reset=True) for S in studies]
        if len({S.shape[1] for S in studies}) > 1:
            shown = ", ".join(str(S.shape[1]) for S in studies)
            raise ValueError(f"the studies have {shown} genes: align them to one list first (align_genes)")
        together = (sparse.vstack if any(map(sparse.issparse, studies)) else np.vstack)(studies)
        together = together.tocsr() if sparse.issparse(together) else together
        self.scale_ = Scale(together, self.scaling)
        scales = [Scale(S, self.scaling) if self.per_study else self.scale_ for S in studies]
        together = np.vstack([scale(S) for scale, S in zip(scales, studies, strict=True)])
        self.n_features_in_ = together.shape[1]
        vars(self).pop("feature_names_in_", None)
        if names:
            self.feature_names_in_ = np.asarray(names[0], dtype=object)
        rng = check_random_state(self.random_state)
        with _BUSY:
            net = self._autoencoder()[0]
            first = initial([w.shape for w in net.get_weights()], rng)
            restart(net, first, self.pretrain_lr, int(rng.randint(2**31)))
            epochs, size = self.pretrain_epochs, self.pretrain_batch_size
            losses = train(net, together, None, None, epochs, size, rng, self.progress, "source")
            weights = net.get_weights()
        self.pretrained_ = {"weights": weights, "losses": losses}
        return self

    def adapt(self, X):
        """Take each gene's centre and spread from unlabelled target samples, instead of from those given to `fit`.

        It changes nothing where ``per_study=False`` meets a pre-trained encoder: there the source's scale stays.
        Returns self.
        """
        X = rows_of(self if hasattr(self, "pretrained_") else type(self)(), X, reset=not hasattr(self, "pretrained_"))
        if self.per_study or not hasattr(self, "pretrained_"):
            self.adapted_ = Scale(X, self.scaling)
        return self

    def transform(self, X):
        """Codes, float32 (n_samples, code): of the tuned encoder after `fit`, of the pre-trained one before."""
        X = self._scaled(X)
        weights = getattr(self, "encoder_weights_", None) or self.pretrained_["weights"][: 2 * len(self.hidden) + 2]
        return self._codes(X, weights)

    def reconstruct(self, X):
        """What the pre-trained autoencoder makes of samples, in scaled units: float32 (n_samples, n_genes)."""
        if not hasattr(self, "pretrained_"):
            raise ValueError("nothing was pre-trained, so nothing can be rebuilt: call pretrain first")
        X = self._scaled(X)
        with _BUSY:
            whole = self._autoencoder()[1]
            whole.set_weights(self.pretrained_["weights"])
            return run(whole, X)

    def reconstruction_error(self, X):
        """Mean squared error of each sample over its genes, in scaled units: float32 (n_samples,)."""
        return ((self.reconstruct(X) - self._scaled(X)) ** 2).mean(1)

    def explained(self, X):
        """Share of the samples' variance, gene by gene around their means, that the pre-trained autoencoder rebuilds.

        It needs no label, so it can be asked of a target before any is spent. One is perfect; nought is what the means
        alone would do, and a source that does not fit can fall below.
        """
        scaled = self._scaled(X)
        lost = ((self.reconstruct(X) - scaled) ** 2).sum()
        return float(1 - lost / ((scaled - scaled.mean(0)) ** 2).sum())

    def _fit(self, X, target, weight, task, outputs):
        """Tune on labelled samples: sets ``encoder_weights_``, ``head_weights_``, ``losses_``."""
        self._check()
        rng = check_random_state(self.random_state)
        widths = (X.shape[1], *self.hidden, self.code)
        shapes = [s for a, b in itertools.pairwise(widths) for s in ((a, b), (b,))]
        if hasattr(self, "pretrained_"):
            encoder = self.pretrained_["weights"][: len(shapes)]
            if [w.shape for w in encoder] != shapes:
                raise ValueError("hidden or code was changed after pretrain: pre-train again")
        else:
            encoder = initial(shapes, rng)
        own = self.per_study or not hasattr(self, "pretrained_")
        self.tuned_scale_ = getattr(self, "adapted_", None) or (Scale(X, self.scaling) if own else self.scale_)
        X, head = self.tuned_scale_(X), initial([(self.code, outputs), (outputs,)], rng)
        seed, l2 = int(rng.randint(2**31)), np.float32(self.l2)
        with _BUSY:
            if self.tuning == "frozen":
                self.encoder_weights_ = [w.copy() for w in encoder]
                X = self._codes(X, encoder)
                net = compiled_encoder(self.code, (), 0, False, outputs, task, self._compiled(self.code))
                restart(net, [*head, l2], self.lr, seed)
            else:
                net = self._network(outputs, task)
                restart(net, [*encoder, *head, l2], self.lr, seed)
            self.losses_ = []
            for factors, epochs in stages(self.tuning, len(self.hidden), self.epochs, self.decay):
                net.optimizer.set_factors(factors)
                self.losses_ += train(net, X, target, weight, epochs, self.batch_size, rng, self.progress)
            *tuned, W, b, _ = net.get_weights()
        self.head_weights_ = [W, b]
        if tuned:
            self.encoder_weights_ = tuned
        self.n_features_in_ = widths[0]
        return self

    def _output(self, X):
        """The head's numbers, float32 (n_samples, outputs)."""
        check_is_fitted(self, "head_weights_")
        W, b = self.head_weights_
        return self.transform(X) @ W + b

    def _scaled(self, X):
        check_is_fitted(self, "n_features_in_")
        X = rows_of(self, X, reset=False)
        scale = getattr(self, "tuned_scale_", None) or getattr(self, "adapted_", None) or self.scale_
        return scale(X)

    def _codes(self, X, weights):
        """The encoder in numpy: a few products, and no network to build."""
        for i in range(0, len(weights), 2):
            X = X @ weights[i] + weights[i + 1]
            if i < len(weights) - 2 or not self.variational:
                X = np.maximum(X, 0)
        return X

    def _network(self, outputs, task):
        n, hidden = self.n_features_in_, tuple(self.hidden)
        return compiled_encoder(n, hidden, self.code, self.variational, outputs, task, self._compiled(n))

    def _autoencoder(self):
        output = SCALING[self.scaling] if self.output == "auto" else self.output
        n, hidden = self.n_features_in_, tuple(self.hidden)
        key = (n, hidden, self.code, output, self.noise, self.variational, self.beta)
        return compiled_autoencoder(*key, self._compiled(n))

    def _compiled(self, n_inputs):
        """Compiling costs seconds and saves milliseconds a step: worth it for wide networks, and never on torch."""
        if self.jit != "auto":
            return bool(self.jit)
        return n_inputs * max((*self.hidden, 1)) > 1e6 and keras.backend.backend() != "torch"

    def _check(self):
        if self.tuning not in TUNING:
            raise ValueError(f"tuning={self.tuning!r} is not known: choose {', '.join(TUNING)}")
        if self.scaling not in SCALING:
            raise ValueError(f"scaling={self.scaling!r} is not known: choose 'standard', 'centre', 'unit' or None")
        if self.output not in ("auto", "linear", "sigmoid"):
            raise ValueError(f"output={self.output!r} is not known: choose 'auto', 'linear' or 'sigmoid'")
        for name in ("code", "pretrain_epochs", "pretrain_batch_size", "epochs", "batch_size"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
                raise ValueError(f"{name}={value!r} is not a whole number from 1 up")
        if not 0 <= self.noise < 1:
            raise ValueError(f"noise={self.noise!r} is the share of inputs blanked: from 0 up to, but not, 1")

    def save(self, folder: str | Path, genes: Sequence[str] | None = None) -> Path:
        """Save weights (safetensors), settings and the ordered list of genes to `folder`.

        Raises
        ------
        shared.train.TrainingError
            If the genes are not known, or not as many as the network reads.
        """
        check_is_fitted(self, "n_features_in_")
        return save_encoder(self, folder, genes)

    @classmethod
    def load(cls, folder: str | Path, genes: Sequence[str]):
        """Load a saved model for data whose columns are `genes`; another list or order raises ``TrainingError``."""
        return load_encoder(cls, folder, genes)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


class AutoencoderClassifier(ClassifierMixin, _Transfer):
    """Classify samples with an encoder pre-trained on others; without `pretrain`, with the same network from scratch.

    Each class has the same total weight in the loss.

    Parameters
    ----------
    hidden, code : sequence of int, int
        Units between genes and code, and of the code.
    tuning : {"frozen", "full", "gradual", "discriminative"}
        What moves on the target: the head alone; all layers; the head, then one layer more at a time from the top;
        all layers, each layer below the head with steps smaller by another factor `decay`.
    scaling : {"standard", "centre", "unit", None}
        Genes to mean 0 and deviation 1, to mean 0, to 0..1, or as they are. Dividing by the deviation makes the noise
        of a gene that hardly varies as loud as any signal.
    output : {"auto", "linear", "sigmoid"}
        Of the decoder; ``"auto"`` takes sigmoid for unit scaling, else linear.
    per_study : bool
        Scale each pre-training study, and the target, by its own genes' centre and spread. False: one scale for all,
        that of the source.
    noise : float
        Share of inputs blanked while pre-training (a denoising autoencoder); 0 for none.
    variational : bool
        Draw the code from a normal distribution; the divergence weighs `beta` over the number of genes.
    pretrain_epochs, pretrain_batch_size, pretrain_lr
        Adam on the mean squared error.
    epochs, batch_size, lr
        Adam on the target's labels. Gradual unfreezing shares `epochs` among its stages.
    l2 : float
        Penalty on the head's weights.
    decay : float
        Ratio of the steps of two neighbouring layers in discriminative tuning (2.6 in Howard and Ruder 2018).
    jit : "auto" or bool
        Compile the step (XLA). Auto does for wide networks, except on torch.
    progress : bool
        Show bars.
    random_state : int, RandomState or None
        Initial weights, order of samples, noise.

    Attributes
    ----------
    classes_ : ndarray
        The classes, sorted.
    pretrained_ : dict
        Weights of the autoencoder and its losses.
    encoder_weights_, head_weights_ : list of ndarray
        After `fit`.
    losses_ : list of float
        One an epoch of tuning.
    """

    def fit(self, X, y):
        """Tune on labelled target samples.

        Parameters
        ----------
        X : array, CSR, DataFrame or AnnData of shape (n_samples, n_genes)
            The genes of the pre-training, in the same order.
        y : array of str or int of shape (n_samples,), or str
            Classes; of an AnnData also the name of a column of ``obs``.

        Raises
        ------
        ValueError
            If a setting cannot be used, inputs hold NaN or other genes, or `y` has one class only.
        """
        X, y = rows_of(self, X, y, reset=not hasattr(self, "pretrained_"))
        check_classification_targets(y)
        self.classes_, target = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y holds one class only ({self.classes_[0]}): a classifier needs two")
        weight = compute_sample_weight("balanced", y).astype(np.float32)
        if len(self.classes_) == 2:
            return self._fit(X, target.astype(np.float32)[:, None], weight, "binary", 1)
        return self._fit(X, target.astype(np.int32), weight, "classes", len(self.classes_))

    def decision_function(self, X):
        """Logits: (n_samples,) for two classes, else (n_samples, n_classes)."""
        logits = self._output(X)
        return logits[:, 0] if logits.shape[1] == 1 else logits

    def predict_proba(self, X):
        """Probabilities, float32 (n_samples, n_classes), columns as in ``classes_``."""
        logits = self._output(X)
        if logits.shape[1] == 1:
            logits = np.hstack([np.zeros_like(logits), logits])
        logits = np.exp(logits - logits.max(1, keepdims=True))
        return logits / logits.sum(1, keepdims=True)

    def predict(self, X):
        """The most probable class of each sample."""
        best = self.predict_proba(X).argmax(1)
        return self.classes_[best]

    def _told(self):
        return {"classes_": self.classes_.tolist()} if hasattr(self, "classes_") else {}


class AutoencoderRegressor(RegressorMixin, _Transfer):
    """As :class:`AutoencoderClassifier`, for numbers: one or several columns, each standardised while training."""

    def fit(self, X, y):
        """Tune on target samples with measured `y`, (n_samples,) or (n_samples, n_columns)."""
        reset = not hasattr(self, "pretrained_")
        X, y = rows_of(self, X, y, reset=reset, multi_output=True, y_numeric=True)
        y = np.asarray(y, np.float32)
        self.one_column_ = y.ndim == 1
        y = y.reshape(len(y), -1)
        self.y_mean_, spread = y.mean(0), y.std(0)
        self.y_spread_ = np.where(spread > 0, spread, 1).astype(np.float32)
        return self._fit(X, (y - self.y_mean_) / self.y_spread_, None, "numbers", y.shape[1])

    def predict(self, X):
        """Predicted numbers, float64, of the shape `y` had."""
        y = self._output(X) * self.y_spread_.astype(float) + self.y_mean_
        return y[:, 0] if self.one_column_ else y

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _told(self):
        if not hasattr(self, "y_mean_"):
            return {}
        return {
            "y_mean_": self.y_mean_.tolist(),
            "y_spread_": self.y_spread_.tolist(),
            "one_column_": bool(self.one_column_),
        }
