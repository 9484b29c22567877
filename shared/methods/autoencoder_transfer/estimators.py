"""Pre-training an autoencoder and fine-tuning its encoder, as a classifier and a regressor.

Inputs are samples × genes, logged.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import numpy as np
from scipy import sparse
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.validation import check_is_fitted

from shared.data.cells import digest, read
from shared.data.constraints import Flag, NotNegative, OneOf, Positive, SettingError, Share, Whole, Widths
from shared.data.errors import DataError
from shared.methods.autoencoder_transfer.networks import TUNING, compiled_autoencoder, compiled_encoder, stages
from shared.methods.base import Example, example_cells
from shared.methods.keras_method import KerasMethod, softmax
from shared.methods.protocols import Classifier, Pretrained, Regressor, Transformer
from shared.nn.keras_net import Scale, initial, keras

SCALING = {"standard": "linear", "centre": "linear", "unit": "sigmoid", None: "linear"}


@dataclass(eq=False, repr=False)
class _AutoencoderTransfer(Pretrained, Transformer, KerasMethod):
    """Pre-training and fine-tuning: what the classifier and the regressor share."""

    constraints = KerasMethod.constraints | {
        "hidden": Widths(0),
        "tuning": OneOf(*TUNING),
        "scaling": OneOf(*SCALING),
        "output": OneOf("auto", "linear", "sigmoid"),
        **dict.fromkeys(("code", "pretrain_epochs", "pretrain_batch_size"), Whole(1)),
        **dict.fromkeys(("pretrain_lr", "decay"), Positive()),
        **dict.fromkeys(("beta", "l2"), NotNegative()),
        **dict.fromkeys(("per_study", "variational"), Flag()),
        "noise": Share(),
        "jit": OneOf("auto", True, False),
    }
    kept = ("pretrained_", "adapted_")

    hidden: Sequence[int] = (1024,)
    code: int = 256
    _: KW_ONLY
    tuning: str = "full"
    scaling: str | None = "standard"
    output: str = "auto"
    per_study: bool = True
    noise: float = 0.0
    variational: bool = False
    beta: float = 1.0
    pretrain_epochs: int = 50
    pretrain_batch_size: int = 128
    pretrain_lr: float = 1e-3
    l2: float = 1e-4
    decay: float = 2.6
    jit: str | bool = "auto"

    @classmethod
    def example(cls):
        """A small problem to try it on."""
        model = cls((16,), 8, pretrain_epochs=4, epochs=20, lr=1e-2, random_state=0)
        y = "measured" if issubclass(cls, Regressor) else "cell_type"
        return Example(model, example_cells(), y, pretrain=(example_cells(seed=1),), checked={"epochs": 60})

    # Networks.

    def autoencoder(self) -> dict:
        """What :func:`compiled_autoencoder` makes the network from that is pre-trained."""
        output = SCALING[self.scaling] if self.output == "auto" else self.output
        layers = {"hidden": tuple(self.hidden), "code": self.code, "output": output}
        return layers | {"noise": self.noise, "variational": self.variational, "beta": self.beta}

    def build(self, cells):
        """The encoder with a head; the head alone, on codes, where the encoder is frozen."""
        sizes = (self.code, (), 0) if self.tuning == "frozen" else (cells.n_genes, tuple(self.hidden), self.code)
        return compiled_encoder(*sizes, self.variational, *self.head(cells), self._compiled(sizes[0]))

    def head(self, cells):
        """Number of outputs, and which loss."""
        raise NotImplementedError

    def _compiled(self, n_inputs):
        """Compiling costs seconds and saves milliseconds a step: worth it for wide networks, and never on torch."""
        if self.jit != "auto":
            return bool(self.jit)
        return n_inputs * max((*self.hidden, 1)) > 1e6 and keras.backend.backend() != "torch"

    # Pre-training and fine-tuning.

    def pretrain(self, X, *, genes=None):
        """Learn to rebuild source profiles; no labels.

        Parameters
        ----------
        X : array, CSR, DataFrame or AnnData of shape (n_samples, n_genes), or a list of such
            One matrix a study, all with the same genes in the same order. With ``per_study`` each is scaled by its
            own genes' centre and spread, otherwise all together.
        genes : sequence of str, optional
            Names of the columns, where `X` has none.

        Returns
        -------
        self
            ``pretrained_``: ``genes``, ``n_genes``, ``is_log``; ``weights`` of the autoencoder, ``losses``, one an
            epoch, and ``scale``, that of all studies together.

        Raises
        ------
        ValueError
            If a setting cannot be used, or matrices do not fit together or hold NaN.
        FloatingPointError
            If the loss is no longer finite.
        """
        studies, like = [], None
        for study in X if isinstance(X, (list, tuple)) else [X]:
            cells = self._read(study, genes=genes, like=like, reset=True, pretrains=True)
            studies.append(cells.X.toarray() if sparse.issparse(cells.X) else cells.X)
            like = cells if like is None or like.genes is None else like
        if not studies:
            raise DataError("pretrain needs at least one matrix of samples × genes")
        scale, rng = Scale.fit(np.vstack(studies), self.scaling), self._rng()
        rows = np.vstack([(Scale.fit(S, self.scaling) if self.per_study else scale)(S) for S in studies])
        network = self.autoencoder()
        net, _ = compiled_autoencoder(like.n_genes, **network, jit=self._compiled(like.n_genes))
        losses, weights = self.train(
            net, self.new_weights(net, rng), [(rows, None, None, self.pretrain_epochs)], rng,
            lr=self.pretrain_lr, batch_size=self.pretrain_batch_size, said="source",
            checkpoint=self.checkpoint, run_of=(network, self.pretrain_epochs, rows),
        )  # fmt: skip
        return self._keep(like, weights=weights, losses=losses, scale=scale, network=network)

    def adapt(self, X, *, genes=None):
        """Take each gene's centre and spread from unlabelled target samples, instead of from those given to `fit`.

        It changes nothing where ``per_study=False`` meets a pre-trained encoder: there the source's scale stays. The
        next `fit` must read the same genes; the next `pretrain` forgets it. Returns self.
        """
        self._check_settings()
        self._check_unchanged()
        pretrained = hasattr(self, "pretrained_")
        cells = self._read_pretrained(X, genes=genes) if pretrained else read(X, genes=genes)
        if self.per_study or not pretrained:
            known = {"genes": cells.genes, "n_genes": cells.n_genes, "is_log": cells.is_log}
            self.adapted_ = known | {"scale": Scale.fit(cells.X, self.scaling)}
        return self

    def _check_unchanged(self):
        """Refuse settings that no longer describe what was pre-trained."""
        known = getattr(self, "pretrained_", None)
        mine = (tuple(self.hidden), self.code, self.variational, self.scaling)
        if known and mine != (*(known["network"][k] for k in ("hidden", "code", "variational")), known["scale"].kind):
            raise SettingError(
                "hidden, code, variational or scaling was changed after pretrain: set it back, or pre-train again"
            )

    def _fit(self, cells, target, weight):
        """Fine-tune on labelled samples: sets ``encoder_weights_``, ``head_weights_``, ``losses_``."""
        self._check_unchanged()
        rng, source = self._rng(), getattr(self, "pretrained_", None)
        shapes = [s for a, b in itertools.pairwise((cells.n_genes, *self.hidden, self.code)) for s in ((a, b), (b,))]
        encoder = source["weights"][: len(shapes)] if source else initial(shapes, rng)
        outputs = self.head(cells)[0]
        head = [*initial([(self.code, outputs), (outputs,)], rng), np.float32(self.l2)]
        scale = source["scale"] if source and not self.per_study else Scale.fit(cells.X, self.scaling)
        if hasattr(self, "adapted_"):
            self._same_genes(cells, self.adapted_, reset=False, when="adapted")
            if self.adapted_["scale"].kind != self.scaling:
                raise SettingError(f"scaling={self.scaling!r} was set after adapt: adapt again")
            scale = self.adapted_["scale"]
        X, net, frozen = scale(cells.X), self.build(cells), self.tuning == "frozen"
        X, start = (_codes(X, encoder, self.variational), head) if frozen else (X, [*encoder, *head])

        def schedule():
            for factors, epochs in stages(self.tuning, len(self.hidden), self.epochs, self.decay):
                net.optimizer.set_factors(factors)
                yield X, target, weight, epochs

        self.losses_, (*tuned, W, b, _) = self.train(
            net, start, schedule(), rng, checkpoint=self._checkpoint_of_fit(cells, seed=digest(start))
        )
        self.encoder_weights_, self.head_weights_ = tuned or [w.copy() for w in encoder], [W, b]
        self.tuned_scale_, self.linear_code_ = scale, self.variational
        return self

    # What it knows.

    @property
    def _n_features_out(self):
        fitted = hasattr(self, "encoder_weights_")
        return len(self.encoder_weights_[-1]) if fitted else self.pretrained_["network"]["code"]

    def transform(self, X, *, genes=None):
        """Codes, float32 (n_samples, code): of the fine-tuned encoder after `fit`, of the pre-trained one before."""
        X = self._scaled(X, genes)
        if hasattr(self, "encoder_weights_"):
            return _codes(X, self.encoder_weights_, self.linear_code_)
        network = self.pretrained_["network"]
        return _codes(X, self.pretrained_["weights"][: 2 * len(network["hidden"]) + 2], network["variational"])

    def reconstruct(self, X, *, genes=None):
        """What the pre-trained autoencoder makes of samples, in scaled units: float32 (n_samples, n_genes)."""
        check_is_fitted(self, "pretrained_", msg="nothing was pre-trained to rebuild profiles: call pretrain first")
        X, network, n_genes = self._scaled(X, genes), self.pretrained_["network"], self.pretrained_["n_genes"]
        whole = compiled_autoencoder(n_genes, **network, jit=self._compiled(n_genes))[1]
        return self.forward(whole, self.pretrained_["weights"], X)

    def reconstruction_error(self, X, *, genes=None):
        """Mean squared error of each sample over its genes, in scaled units: float32 (n_samples,)."""
        return ((self.reconstruct(X, genes=genes) - self._scaled(X, genes)) ** 2).mean(1)

    def explained(self, X, *, genes=None):
        """Share of the samples' variance, gene by gene around their means, that the pre-trained autoencoder rebuilds.

        It needs no label, so it can be computed for a target before any is spent. One is perfect; zero is what the
        means alone would do, and a source that does not fit can fall below.
        """
        scaled = self._scaled(X, genes)
        lost = ((self.reconstruct(X, genes=genes) - scaled) ** 2).sum()
        return float(1 - lost / ((scaled - scaled.mean(0)) ** 2).sum())

    def _output(self, X, genes):
        """The head's numbers, float32 (n_samples, outputs)."""
        check_is_fitted(self, "head_weights_")
        W, b = self.head_weights_
        return np.asarray(self.transform(X, genes=genes)) @ W + b

    def _scaled(self, X, genes):
        """Samples as the encoder takes them, held to the genes of `fit`, or before it of `pretrain`."""
        if hasattr(self, "tuned_scale_"):
            return self.tuned_scale_(self._read(X, genes=genes).X)
        cells = self._read_pretrained(X, genes=genes)
        return getattr(self, "adapted_", self.pretrained_)["scale"](cells.X)


def _codes(X, weights, linear):
    """The encoder in numpy: a few products, and no network to build."""
    for i in range(0, len(weights), 2):
        X = X @ weights[i] + weights[i + 1]
        if i < len(weights) - 2 or not linear:
            X = np.maximum(X, 0)
    return X


class AutoencoderClassifier(Classifier, _AutoencoderTransfer):
    """Classify samples with an encoder pre-trained on others; without `pretrain`, with the same network from scratch.

    Each class has the same total weight in the loss.

    Parameters
    ----------
    hidden, code : sequence of int, int
        Units between genes and code, and of the code.
    tuning : {"frozen", "full", "gradual", "discriminative"}
        What moves on the target: the head alone; all layers; the head, then one layer more at a time from the top;
        all layers, each layer below the head with a learning rate smaller by another factor `decay`.
    scaling : {"standard", "centre", "unit", None}
        Genes to mean 0 and deviation 1, to mean 0, to 0..1, or as they are. Dividing by the deviation makes the noise
        of a gene that hardly varies as loud as any signal.
    output : {"auto", "linear", "sigmoid"}
        Of the decoder; ``"auto"`` takes sigmoid for unit scaling, else linear.
    per_study : bool
        Scale each pre-training study, and the target, by its own genes' centre and spread. False: one scale for all,
        that of the source.
    noise : float
        Share of inputs set to zero while pre-training (a denoising autoencoder); 0 for none.
    variational : bool
        Draw the code from a normal distribution; the divergence weighs `beta` over the number of genes.
    pretrain_epochs, pretrain_batch_size, pretrain_lr
        Adam on the mean squared error.
    epochs, batch_size, lr
        Adam on the target's labels. Gradual unfreezing shares `epochs` among its stages.
    l2 : float
        Penalty on the head's weights.
    decay : float
        Ratio of the learning rates of two neighbouring layers in discriminative fine-tuning (2.6 in Howard and Ruder
        2018).
    jit : "auto" or bool
        Compile the step (XLA). Auto does for wide networks, except on torch.
    progress : bool
        Show bars.
    checkpoint : path, optional
        Where `pretrain` keeps its progress and its result: a killed run goes on from there, a finished one is read. A
        killed `fit` goes on from a file beside it.
    random_state : int, RandomState or None
        Initial weights, order of samples, noise.

    Attributes
    ----------
    classes_ : ndarray
        The classes, sorted.
    pretrained_ : dict
        See :meth:`pretrain`.
    encoder_weights_, head_weights_ : list of ndarray
        After `fit`.
    tuned_scale_ : shared.nn.keras_net.Scale
        Of the target.
    losses_ : list of float
        One an epoch of fine-tuning.
    """

    def head(self, cells):
        """One logit for two classes, else one for each."""
        return (1, "binary") if cells.n_classes == 2 else (cells.n_classes, "classes")

    def fit(self, X, y="cell_type", *, genes=None):
        """Fine-tune on labelled target samples.

        Parameters
        ----------
        X : array, CSR, DataFrame or AnnData of shape (n_samples, n_genes)
            The genes of the pre-training, in the same order.
        y : array of str or int of shape (n_samples,), or str
            Classes; of an AnnData also the name of a column of ``obs``.
        genes : sequence of str, optional
            Names of the columns, where `X` has none.

        Raises
        ------
        ValueError
            If a setting cannot be used, inputs hold NaN or other genes, or `y` has one class only.
        FloatingPointError
            If the loss is no longer finite.
        """
        cells = self._read_labelled(X, y, genes=genes)
        weight = compute_sample_weight("balanced", cells.y).astype(np.float32)
        two = cells.n_classes == 2
        return self._fit(
            cells, cells.codes.astype(np.float32)[:, None] if two else cells.codes.astype(np.int32), weight
        )

    def decision_function(self, X, *, genes=None):
        """Logits: (n_samples,) for two classes, else (n_samples, n_classes)."""
        logits = self._output(X, genes)
        return logits[:, 0] if logits.shape[1] == 1 else logits

    def predict_proba(self, X, *, genes=None):
        """Probabilities, float32 (n_samples, n_classes), columns as in ``classes_``."""
        return softmax(self._output(X, genes))


class AutoencoderRegressor(Regressor, _AutoencoderTransfer):
    """As :class:`AutoencoderClassifier`, for numbers: one or several columns, each standardised while training."""

    def head(self, cells):
        """One number for each output."""
        return cells.n_outputs, "numbers"

    def fit(self, X, y, *, genes=None):
        """Fine-tune on target samples with measured `y`, (n_samples,) or (n_samples, n_outputs)."""
        cells, target = self._read_numbers(X, y, genes=genes)
        return self._fit(cells, target, None)

    def predict(self, X, *, genes=None):
        """Predicted numbers, float64, of the shape `y` had."""
        return self._numbers(self._output(X, genes))
