"""Pre-training on pseudo-labels from many unlabelled data sets, then a small classifier for a new one.

After Zhang and others, *scPretrain: multi-task self-supervised learning for cell-type classification* (Bioinformatics,
2022). Each data set is clustered by k-means at three granularities, and one linear encoder (genes to 200 numbers)
learns to name the clusters of all of them, with a head of its own for each. Then the cells are clustered again, by
their 200 numbers, and so on. A new data set borrows the encoder's rows of the genes it shares.

Paper and code (the authors' of December 2021) differ in places. Each has an option here, and what the two do is said
there. Counts come in sparse and stay sparse; networks read log(1 + count), not scaled by depth, as in paper and code.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin, clone
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from shared.data.errors import DataError
from shared.methods.inputs import NO_LABELS, cells_of, columns_of, refuse_logged, warn_few_shared
from shared.nn.pseudo_labels import CLUSTERERS, SPACES, PseudoLabeller, cluster_numbers, logged  # noqa: F401
from shared.nn.shared_encoder import CellTypeNet, MultiTaskNet, built, encoder_of, in_chunks, transplant  # noqa: F401
from shared.train import TrainingError, resolve_device
from shared.train.borrower import load_borrower, save_borrower
from shared.train.rounds import Pretraining, as_corpus, batch_rows, named  # noqa: F401
from shared.train.settings import check_settings
from shared.train.tuning import Split, finetune, paper_split, tune  # noqa: F401

CHOICES = {
    "heads": ("separate", "shared"),
    "start": ("random", "pca"),
    "init": ("default", "scaled"),
    "norm": ("none", "layer"),
    "space": SPACES[:-1],
    "clusterer": CLUSTERERS,
}
LEAST = {"rounds": 0} | dict.fromkeys(("width", "epochs", "batches", "hidden", "fit_epochs", "fit_batch_size"), 1)
OPTIONAL = ("patience", "batch_size", "fit_patience")


class ScPretrain(ClassifierMixin, TransformerMixin, BaseEstimator):
    """Pre-train an encoder on pseudo-labels of unlabelled data sets; tune it with a classifier on a labelled one.

    Parameters
    ----------
    width : int
        Outputs of the encoder.
    rounds : int
        Clusterings, each followed by training; 0 leaves the encoder as it starts. The paper has ten; the code runs one
        a call and has no loop.
    epochs, patience, lr
        Of each round, with Adam, new heads and a new optimiser. It stops after `patience` epochs without a lower loss.
    batches : int
        Batches each data set is cut into, so that one of 15,000 cells has batches of 500. That is what 30 means in the
        code. In the paper 30 is the size of a batch: see `batch_size`.
    batch_size : int, optional
        Cells of a batch of every data set, in place of `batches`. An epoch ends with the shortest data set, so most
        cells of the longer ones are not seen in it.
    cells_per_cluster : sequence of int
        One number for each granularity. Paper and code have three; ``(100,)`` is one partition.
    space : {"raw", "log1p", "normalized", "pca"}
        What the first round clusters (:class:`~shared.nn.pseudo_labels.PseudoLabeller`); later rounds cluster the
        encoder's output.
    clusterer, squash, heads
        See :class:`~shared.nn.pseudo_labels.PseudoLabeller` and :class:`~shared.nn.shared_encoder.MultiTaskNet`.
    start : {"random", "pca"}
        First weights of the encoder. ``"pca"`` takes the principal components of the cells to be pre-trained on, the
        fair rival of a linear encoder; with ``rounds=0`` it stays at that. Both sources start at random.
    borrow : bool
        False leaves out what was pre-trained: the from-scratch arm.
    hidden : int
        Units of the classifier between encoder and types.
    fit_epochs, fit_patience, fit_lr, fit_batch_size
        Of tuning, with Adam; it stops after `fit_patience` epochs without a higher accuracy on held-out cells.
    validation : float
        Share of the labelled cells held out for that, at random; the published split comes to one in seven. It may
        hold out every cell of a rare type; here one at least is left to learn from.
    init : {"default", "scaled"}
        First weights of genes the encoder did not bring. ``"default"`` is torch's, as in both sources. ``"scaled"``
        centres the encoder's output on the labelled cells and gives it unit variance.
    norm : {"none", "layer"}
        See :class:`~shared.nn.shared_encoder.CellTypeNet`; used in tuning only.
    logged : bool
        Inputs of `fit`, `predict` and `transform` are log(1 + count) already. Otherwise they are counts.
    device : str
        See :func:`shared.train.resolve_device`.
    progress : bool
        Show a bar.
    checkpoint : path, optional
        File that :meth:`pretrain` writes after each round and resumes from.
    random_state : int, RandomState or None

    Attributes
    ----------
    pretrained_ : dict
        ``weight`` (float32 genes × width), ``bias``, ``genes``, ``history`` (one dict an epoch: round, epoch, loss),
        ``labels`` (one dict a round: data set to int32 cells × granularities), ``inertia``
        and ``seconds`` (of training, one a round). Clones keep it.
    network_ : CellTypeNet
        Tuned, on the CPU.
    classes_, n_features_in_
    genes_in_ : list of str or None
        Names of the columns given to `fit`.
    shared_ : bool ndarray
        Which of them the pre-trained encoder brought weights for.
    fit_history_ : shared.train.History

    Notes
    -----
    Genes that no cell of the corpus expresses are left out of pre-training. Their gradient is always 0, so Adam would
    not move them: the result is the same, and with the bundled blood cells almost half of the work is saved.
    """

    def __init__(
        self,
        *,
        width=200,
        rounds=10,
        epochs=50,
        patience=5,
        lr=1e-4,
        batches=30,
        batch_size=None,
        cells_per_cluster=(100, 50, 200),
        space="raw",
        clusterer="kmeans",
        squash=False,
        heads="separate",
        start="random",
        borrow=True,
        hidden=100,
        fit_epochs=500,
        fit_patience=30,
        fit_lr=2e-3,
        fit_batch_size=5000,
        validation=1 / 7,
        init="default",
        norm="none",
        logged=False,
        device="auto",
        progress=False,
        checkpoint=None,
        random_state=None,
    ):
        self.width = width
        self.rounds = rounds
        self.epochs = epochs
        self.patience = patience
        self.lr = lr
        self.batches = batches
        self.batch_size = batch_size
        self.cells_per_cluster = cells_per_cluster
        self.space = space
        self.clusterer = clusterer
        self.squash = squash
        self.heads = heads
        self.start = start
        self.borrow = borrow
        self.hidden = hidden
        self.fit_epochs = fit_epochs
        self.fit_patience = fit_patience
        self.fit_lr = fit_lr
        self.fit_batch_size = fit_batch_size
        self.validation = validation
        self.init = init
        self.norm = norm
        self.logged = logged
        self.device = device
        self.progress = progress
        self.checkpoint = checkpoint
        self.random_state = random_state

    def __sklearn_clone__(self):
        """A clone keeps what was pre-trained, so that one encoder serves many data sets; tuning starts again."""
        fresh = type(self)(**self.get_params(deep=False))
        if hasattr(self, "pretrained_"):
            fresh.pretrained_ = self.pretrained_
        return fresh

    # Pre-training.

    def pretrain(self, corpus, *, test=None, callback=None):
        """Cluster and train, round by round.

        Parameters
        ----------
        corpus : shared.data.Corpus, or dict of str to AnnData or path
            A dict is made a corpus of the genes that all its data sets have. Of a corpus are read ``genes``, and
            ``matrices`` (log1p) and ``counts`` by name: CSR, or anything with ``shape`` that gives CSR for an array of
            rows, as a corpus on disk does.
        test : AnnData, optional
            Refuse to go on if this data set is in the corpus, under whatever name.
        callback : callable, optional
            ``callback(round, self)`` after each round, with ``pretrained_`` as it is then.

        Returns
        -------
        self

        Raises
        ------
        DataError
            If the corpus is empty, or a data set has too few cells.
        shared.train.TrainingError
            If a setting cannot be used, the loss is not finite, or the checkpoint is of another run.
        """
        self._check()
        corpus = as_corpus(corpus)
        if test is not None:
            corpus.check_absent(test)
        if not len(corpus.matrices):
            raise DataError("the corpus holds no data set: pre-training needs one or more")
        for name, X in corpus.matrices.items():
            with named(name):
                cluster_numbers(X.shape[0], self.cells_per_cluster)
        run = Pretraining(self, corpus, self._seed(), resolve_device(self.device))
        run.go(callback)
        return self

    # Tuning.

    def fit(self, X, y="cell_type", *, genes=None, val=None):
        """Tune the encoder with a classifier on labelled cells.

        Parameters
        ----------
        X : AnnData, DataFrame, ndarray or CSR, cells × genes
            Counts, or log(1 + count) with ``logged=True``. All genes take part, those the encoder knows and those it
            does not. Of an AnnData ``layers["counts"]`` is read where there is one; an ``X`` that looks logged is
            refused.
        y : array of str or int, cells; or str
            Types; or, with an AnnData, the column of ``obs`` that holds them.
        genes : sequence of str, optional
            Names of the columns, where `X` does not have them. A pre-trained encoder needs names.
        val : int array, optional
            Rows to stop early by, in place of a random share.

        Raises
        ------
        ValueError
            If inputs hold NaN or negative numbers, do not fit together, hold one type only, or share no gene with the
            encoder.
        """
        self._check()
        X, y, names = self._read(X, genes, y)
        check_classification_targets(y)
        self.classes_, target = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y holds one class only ({self.classes_[0]}): a classifier needs two")
        self.genes_in_, seed = names, self._seed()
        order = np.random.default_rng((seed, 1)).permutation(len(target))
        if val is None:
            held = order[: int(self.validation * len(target))]
            # Of a type that would be held out whole, one cell stays: none of its kind could be learned otherwise.
            lost = np.setdiff1d(target[held], np.delete(target, held))
            held = np.setdiff1d(held, [held[np.argmax(target[held] == kind)] for kind in lost])
        else:
            held = np.asarray(val)
        kept = np.setdiff1d(np.arange(len(target)), held)
        if not len(kept):
            raise ValueError("val holds every cell: leave some to train on")
        net = self._assemble(X[kept], seed).to(resolve_device(self.device))
        self.fit_history_ = tune(
            net,
            X,
            target,
            kept,
            np.sort(held),
            seed,
            lr=self.fit_lr,
            epochs=self.fit_epochs,
            patience=self.fit_patience,
            batch_size=self.fit_batch_size,
            progress=self.progress,
        )
        self.network_ = net.cpu().eval()
        return self

    def _network(self, seed=0):
        sizes = self.n_features_in_, self.width, self.hidden, len(self.classes_)
        return built(lambda: CellTypeNet(*sizes, self.norm), seed)

    def _assemble(self, X, seed):
        """The network before tuning: at random, then the rows that were pre-trained."""
        net = self._network(seed)
        weight, bias = net.encoder.weight.detach().numpy(), net.encoder.bias.detach().numpy()
        if self.init == "scaled":
            mean = np.asarray(X.mean(0)).ravel()
            spread = max(float(X.multiply(X).sum() / X.shape[0] - mean @ mean), 1e-12)
            weight *= np.sqrt(3 * X.shape[1] / spread)  # uniform within ±bound has variance bound² / 3
            bias[:] = -mean @ weight
        self.shared_ = np.zeros(X.shape[1], bool)
        if self._lent():
            p = self.pretrained_
            weight[:], self.shared_ = transplant(p["weight"], p["genes"], weight, self.genes_in_)
            warn_few_shared(int(self.shared_.sum()), len(p["genes"]), X.shape[1])
            bias[:] = p["bias"]
        return net

    # Using what was learned.

    def transform(self, X, *, genes=None):
        """The encoder's linear output: float32 ndarray, cells × width; of the tuned encoder after `fit`.

        Before `fit` it is the pre-trained encoder, and any list of genes will do: it takes the genes it knows by name,
        and misses the others. ``clone(model)`` is a model before `fit`.
        """
        if hasattr(self, "network_"):
            X, _, _ = self._read(X, genes, reset=False)
            return in_chunks(self.network_.encoder, X, resolve_device(self.device))
        check_is_fitted(self, "pretrained_", msg="nothing was pre-trained or fitted: call pretrain or fit first")
        p = self.pretrained_
        X, _, names = self._read(X, p["genes"] if genes is None and not columns_of(X) else genes, reset=None)
        zeros = np.zeros((X.shape[1], len(p["bias"])), np.float32)
        weight, shared = transplant(p["weight"], p["genes"], zeros, names)
        warn_few_shared(int(shared.sum()), len(p["genes"]), X.shape[1])
        return in_chunks(encoder_of(weight, p["bias"]), X, resolve_device(self.device))

    def predict_proba(self, X, *, genes=None):
        """Probability of each type: float32 ndarray, cells × types, columns as in ``classes_``."""
        check_is_fitted(self, "network_")
        X, _, _ = self._read(X, genes, reset=False)
        logits = in_chunks(self.network_, X, resolve_device(self.device))
        return torch.from_numpy(logits).softmax(1).numpy()

    def predict(self, X, *, genes=None):
        """The most probable type of each cell."""
        best = self.predict_proba(X, genes=genes).argmax(1)
        return self.classes_[best]

    # Saving.

    def save(self, folder: str | Path, genes: Sequence[str] | None = None) -> Path:
        """Save the pre-trained encoder to ``folder/encoder`` and the tuned network to ``folder/classifier``.

        Parameters
        ----------
        folder : path
            Made when it is not there.
        genes : sequence of str, optional
            Names of the columns given to `fit`, where `fit` was not told them.

        Raises
        ------
        shared.train.TrainingError
            If there is nothing to save, or the genes are not known.
        """
        return save_borrower(self, folder, genes)

    @classmethod
    def load(cls, folder: str | Path, genes: Sequence[str] | None = None) -> ScPretrain:
        """Load what :meth:`save` wrote.

        Parameters
        ----------
        folder : path
            A saved model.
        genes : sequence of str, optional
            Columns of the data for the tuned network, which reads these genes in this order and no others. Without it
            the encoder alone is loaded; that takes genes by name and fits any list.

        Raises
        ------
        shared.train.TrainingError
            If files are missing or damaged, or `genes` are not those the network was tuned on.
        """
        return load_borrower(cls, folder, genes)

    # What the methods share.

    def _seed(self):
        return int(check_random_state(self.random_state).randint(2**31))

    def _lent(self):
        """Whether there is a pre-trained encoder to borrow from."""
        return self.borrow and hasattr(self, "pretrained_")

    def _check(self):
        check_settings(self, CHOICES, LEAST, OPTIONAL, positive=("lr", "fit_lr"))
        if not 0 <= self.validation < 1:
            raise TrainingError(f"validation={self.validation!r} must lie in [0, 1)")
        if hasattr(self, "pretrained_") and self.borrow and len(self.pretrained_["bias"]) != self.width:
            was = len(self.pretrained_["bias"])
            raise TrainingError(f"the encoder was pre-trained with width={was}: set that, or pre-train again")

    def _read(self, X, genes, y=NO_LABELS, reset=True):
        """Cells as log1p CSR, labels, and names of genes or None; `reset` None is for the pre-trained encoder alone."""
        reader, fitted = clone(self, safe=False) if reset is None else self, getattr(self, "genes_in_", None)
        adata = X if hasattr(X, "obs") else None
        X, y, names = cells_of(reader, X, y, genes, reset=reset is not False, matrix=self._matrix)
        X = sparse.csr_matrix(X)
        if len(X.data) and X.data.min() < 0:
            raise ValueError(
                "Negative values in data passed to ScPretrain: counts are needed, or log(1 + count) with logged=True"
            )
        if adata is not None and not self.logged and "counts" not in adata.layers:
            refuse_logged(X, adata.uns.get("units"))
        if reset is not False and names is None and self._lent():
            raise ValueError("a pre-trained encoder takes genes by name: pass an AnnData, a DataFrame or genes=")
        if reset is False and names is not None and fitted is not None and names != fitted:
            raise TrainingError(
                f"the network was tuned on {len(fitted)} genes, and these are others or in another order: "
                "align the data first with shared.preprocess.align_genes"
            )
        return X if self.logged else logged(X), y, names

    def _matrix(self, adata):
        """What is read of an AnnData: the counts where there is a layer of them."""
        if not self.logged and "counts" in adata.layers:
            return adata.layers["counts"]
        if not self.logged and adata.uns.get("units") == "log":
            raise ValueError("the AnnData says that X is logged and has no layer 'counts': set logged=True")
        return adata.X

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.positive_only = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags
