"""The estimator: pre-train on a corpus, fine-tune on labelled cells, predict types or give embeddings."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import numpy as np
from scipy import sparse
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from shared.data.constraints import Flag, Maybe, OneOf, Positive, Share, Whole, Widths
from shared.data.corpus.corpus import Corpus
from shared.data.errors import DataError
from shared.methods.base import Example, example_cells
from shared.methods.protocols import Classifier, Pretrained, Transformer
from shared.methods.scpretrain.finetuning import (
    labelled_batches,
    pretrained_rows,
    row_numbers,
    set_encoder,
    validation_rows,
)
from shared.methods.scpretrain.network import CellTypeNet, celltype_step, encoder_of
from shared.methods.scpretrain.pseudo_labels import CLUSTERERS, SPACES, cluster_numbers, logged
from shared.methods.scpretrain.rounds import Pretraining, named
from shared.methods.torch_method import ONE_PROCESS, TorchMethod
from shared.nn.sparse import Rows
from shared.train import resolve_device


@dataclass(eq=False, repr=False)
class ScPretrain(Pretrained, Classifier, Transformer, TorchMethod):
    """Pre-train an encoder on pseudo-labels of unlabelled data sets; fine-tune it with a classifier on a labelled one.

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
        What the first round clusters (:class:`~shared.methods.scpretrain.PseudoLabeller`); later rounds cluster the
        encoder's output.
    clusterer, squash
        See :class:`~shared.methods.scpretrain.PseudoLabeller` and :class:`~shared.methods.scpretrain.MultiTaskNet`.
    heads : {"separate", "shared"}
        With ``"shared"`` one softmax a granularity runs over the clusters of all data sets, so that the encoder is paid
        for telling data sets apart. Paper and code have separate heads.
    start : {"random", "pca"}
        First weights of the encoder. ``"pca"`` takes the principal components of the cells to be pre-trained on, the
        fair baseline of a linear encoder; with ``rounds=0`` it stays at that. Both sources start at random.
    use_pretrained : bool
        Start from what was pre-trained; False leaves it out: the from-scratch arm.
    hidden : int
        Units of the classifier between encoder and types.
    fit_epochs, fit_patience, fit_lr, fit_batch_size
        Of fine-tuning, with Adam; it stops after `fit_patience` epochs without a higher accuracy on held-out cells.
    validation : float
        Share of the labelled cells held out for that, at random; the published split comes to one in seven. It may
        hold out every cell of a rare type; here one at least is left to learn from.
    init : {"default", "scaled"}
        First weights of genes the encoder did not bring. ``"default"`` is torch's, as in both sources. ``"scaled"``
        centres the encoder's output on the labelled cells and gives it unit variance.
    norm : {"none", "layer"}
        See :class:`~shared.methods.scpretrain.CellTypeNet`; used in fine-tuning only.
    logged : bool
        Inputs of `fit`, `predict` and `transform` are log(1 + count) already. Otherwise they are counts.
    device, devices, progress, checkpoint, random_state
        See :class:`~shared.methods.torch_method.TorchMethod`. ``devices`` is 1; :meth:`pretrain` writes `checkpoint`
        after each round and resumes from it, :meth:`fit` keeps its progress beside it.

    Attributes
    ----------
    pretrained_ : dict
        ``weight`` (float32, genes × width), ``bias``, ``genes``, ``n_genes``, ``is_log`` (False), ``history`` (one dict
        an epoch: round, epoch, loss), ``labels`` (one dict a round: data set to int32 cells × granularities),
        ``inertia`` and ``seconds`` (of training, one a round). Clones keep it.
    network_ : torch.nn.Module
        Fine-tuned, on the CPU, in evaluation mode.
    classes_, n_features_in_, feature_names_in_
    shared_ : bool ndarray
        Which of the genes given to `fit` the pre-trained encoder brought weights for.
    history_ : shared.train.History
        Of `fit`: ``loss``, and ``val_accuracy`` where cells were held out.

    Notes
    -----
    Genes that no cell of the corpus expresses are left out of pre-training. Their gradient is always 0, so Adam would
    not move them: the result is the same, and with the bundled blood cells almost half of the work is saved.
    """

    expects, nonnegative = "counts", True
    exempt = {"gene order of the pre-training": "genes are matched by name: any list will do that shares some"}
    constraints = {
        "rounds": Whole(0),
        **dict.fromkeys(("width", "epochs", "batches", "hidden", "fit_epochs", "fit_batch_size"), Whole(1)),
        **dict.fromkeys(("patience", "batch_size", "fit_patience"), Maybe(Whole(1))),
        **dict.fromkeys(("lr", "fit_lr"), Positive()),
        **dict.fromkeys(("squash", "use_pretrained", "logged"), Flag()),
        "cells_per_cluster": Widths(),
        "validation": Share(),
        "heads": OneOf("separate", "shared"),
        "start": OneOf("random", "pca"),
        "init": OneOf("default", "scaled"),
        "norm": OneOf("none", "layer"),
        "space": OneOf(*SPACES[:-1]),
        "clusterer": OneOf(*CLUSTERERS),
        "devices": ONE_PROCESS,
    }

    _: KW_ONLY
    width: int = 200
    rounds: int = 10
    epochs: int = 50
    patience: int | None = 5
    lr: float = 1e-4
    batches: int = 30
    batch_size: int | None = None
    cells_per_cluster: tuple = (100, 50, 200)
    space: str = "raw"
    clusterer: str = "kmeans"
    squash: bool = False
    heads: str = "separate"
    start: str = "random"
    use_pretrained: bool = True
    hidden: int = 100
    fit_epochs: int = 500
    fit_patience: int | None = 30
    fit_lr: float = 2e-3
    fit_batch_size: int = 5000
    validation: float = 1 / 7
    init: str = "default"
    norm: str = "none"
    logged: bool = False

    @classmethod
    def example(cls):
        """A small problem to try it on."""
        small = {"rounds": 1, "epochs": 2, "width": 8, "hidden": 8, "batches": 3, "cells_per_cluster": (20, 10)}
        model = cls(**small, lr=1e-2, fit_epochs=30, fit_lr=2e-2, device="cpu", random_state=0)
        # In the order of a corpus, whose genes are sorted: tables without names are taken to be in it.
        one, two, mine = (example_cells(counts=True, seed=seed) for seed in (1, 2, 0))
        mine, checked = mine[:, sorted(mine.var_names)].copy(), {"fit_epochs": 60, "validation": 0}
        return Example(model, mine, pretrain=({"one": one, "two": two},), checked=checked)

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
        shared.data.constraints.SettingError
            If a setting cannot be used.
        DataError
            If the corpus is empty, or a data set has too few cells.
        shared.train.TrainingError
            If the loss is not finite, or the checkpoint is of another run.
        """
        self._check_settings()
        resolve_device(self.device)
        corpus = Corpus(corpus) if isinstance(corpus, dict) else corpus
        if not all(hasattr(corpus, part) for part in ("genes", "matrices", "counts")):
            raise DataError(
                f"pre-training takes a corpus, not {type(corpus).__name__}: give a dict of names and AnnData or paths, "
                "or shared.data.Corpus of one"
            )
        if test is not None:
            corpus.check_absent(test)
        if not len(corpus.matrices):
            raise DataError("the corpus holds no data set: pre-training needs one or more")
        for name, X in corpus.matrices.items():
            with named(name):
                cluster_numbers(X.shape[0], self.cells_per_cluster)
        Pretraining(self, corpus, self._seed()).go(callback)
        return self

    def _pretraining(self):
        return super()._pretraining() if self.use_pretrained else None

    def _same_genes(self, cells, pretrained, reset=True):
        """Genes are matched by name; columns without names are taken to be the encoder's, if there are as many."""
        if cells.genes is None and cells.n_genes != pretrained["n_genes"]:
            raise DataError("a pre-trained encoder takes genes by name: pass an AnnData, a DataFrame or genes=")
        if cells.genes is None or not reset:
            super()._same_genes(cells, pretrained, reset)

    # Fine-tuning.

    def build(self, cells):
        """The network for these cells."""
        return CellTypeNet(cells.n_genes, self.width, self.hidden, cells.n_classes, self.norm)

    def rows(self, X, device):
        """Cells stay sparse."""
        return (Rows(X, device),)

    def fit(self, X, y="cell_type", *, genes=None, val=None):
        """Fine-tune the encoder with a classifier on labelled cells.

        Parameters
        ----------
        X : AnnData, DataFrame, ndarray or sparse matrix, cells × genes
            Counts, or log(1 + count) with ``logged=True``. All genes take part, those the encoder knows and those it
            does not. Of an AnnData ``layers["counts"]`` is read where there is one; an ``X`` that looks logged is
            refused.
        y : array of str or int, cells; or str
            Types; or, with an AnnData, the column of ``obs`` that holds them.
        genes : sequence of str, optional
            Names of the columns, where `X` does not have them. A pre-trained encoder needs names, or as many columns
            as it has genes.
        val : int or bool array, optional
            Rows to stop early by, in place of a random share.

        Raises
        ------
        ValueError
            If a setting cannot be used, or inputs hold NaN or negative numbers, do not fit together, hold one type
            only, or share no gene with the encoder.
        shared.train.TrainingError
            If training fails, or the checkpoint is of another run.
        """
        cells, seed = self._read_labelled(X, y, genes=genes), self._seed()
        X, target = self._expression(cells), cells.codes
        held = validation_rows(target, self.validation, seed) if val is None else row_numbers(val, len(cells))
        kept = np.setdiff1d(np.arange(len(cells)), held)
        if not len(kept):
            raise DataError("val holds every cell: leave some to train on")
        net = self.new_network(cells, seed=seed)
        self.shared_ = set_encoder(net, X[kept], self.init, self._pretraining(), cells.genes)
        batches, accuracy = labelled_batches(X, target, kept, held, self.fit_batch_size, seed, self.device)
        self.history_ = self.train(
            net, celltype_step, batches, seed=seed, monitor=accuracy, optimizer="adam",
            epochs=self.fit_epochs, lr=self.fit_lr, patience=self.fit_patience if len(held) else None,
            checkpoint=self._checkpoint_of_fit(cells, seed=[seed, *held.tolist()]),
        )  # fmt: skip
        self.network_ = net
        return self

    def _expression(self, cells):
        """log(1 + count) as float32 CSR."""
        return sparse.csr_matrix(cells.X) if self.logged else logged(cells.X)

    # Using what was learned.

    @property
    def _n_features_out(self):
        return len(self.network_.encoder.bias if hasattr(self, "network_") else self.pretrained_["bias"])

    def transform(self, X, *, genes=None):
        """The encoder's linear output: float32 ndarray, cells × width; of the fine-tuned encoder after `fit`.

        Before `fit` it is the pre-trained encoder, and any list of genes will do: it takes the genes it knows by name,
        and misses the others. ``clone(model)`` is a model before `fit`.
        """
        if hasattr(self, "network_"):
            return self.forward(self.network_.encoder, self._expression(self._read(X, genes=genes)))
        check_is_fitted(self, "pretrained_", msg="nothing was pre-trained or fitted: call pretrain or fit first")
        cells = clone(self).set_params(use_pretrained=True)._read(X, genes=genes, reset=True)
        bias = self.pretrained_["bias"]
        zeros = np.zeros((cells.n_genes, len(bias)), np.float32)
        weight, _ = pretrained_rows(self.pretrained_, cells.genes, zeros)
        return self.forward(encoder_of(weight, bias), self._expression(cells))

    def predict_proba(self, X, *, genes=None):
        """Probability of each type: float32 ndarray, cells × types, columns as in ``classes_``."""
        check_is_fitted(self, "network_")
        return self.probabilities(self.network_, self._expression(self._read(X, genes=genes)))
