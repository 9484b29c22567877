"""The estimator: pre-train on unlabelled cells, fine-tune on labelled ones, name types, score genes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from shared.data.constraints import Maybe, OneOf, Whole, require
from shared.methods.base import Example, example_cells
from shared.methods.network_classifier import stratified_split
from shared.methods.protocols import Classifier, Pretrained, Transformer
from shared.methods.scbert.batches import CellBatches
from shared.methods.scbert.finetuning import CHUNK, freeze, from_cells, from_prefixes, parted, worth_caching
from shared.methods.scbert.heads import PooledNet, classify_step
from shared.methods.scbert.network import pretrain_step
from shared.methods.scbert.pretraining import load_state, masked_scores, sample_of, token_counts
from shared.methods.scbert.scores import gene_scores
from shared.methods.scbert.settings import _Settings
from shared.methods.scbert.vectors import set_vectors
from shared.train import resolve_device


@dataclass(eq=False, repr=False)
class ScBERT(Pretrained, Classifier, Transformer, _Settings):
    """A transformer that reads a cell as a sequence of gene tokens.

    Parameters
    ----------
    bins, target_sum, binning, logged, length
        See :class:`shared.methods.scbert.tokens.Tokenizer`. scBERT has 5 bins of log2(1 + counts per 10,000) and the
        full list. Bulk samples, of which 10,000 counts leave nine zeros in ten tokens, take a million.
    attention, stabilizer, n_features, redraw
        ``"exact"``, or ``"favor"``: see :class:`shared.methods.scbert.network.FavorAttention`. Random features are
        drawn again after `redraw` batches of pre-training, as in the code, and stay in fine-tuning.
    dim, depth, heads, width : int
        Numbers of a token, blocks, heads of attention and their width; ``PUBLISHED`` has scBERT's settings.
    gene_vectors : {"coexpression", "gene2vec", "random", "none"}
        Where no vectors are given: :func:`shared.methods.scbert.vectors.coexpression_vectors` of the cells at hand;
        the published ones of human genes, for `dim` 200 (:func:`shared.methods.scbert.vectors.read_gene2vec`);
        Gaussian ones; or zeros, which leave genes nameless.
    mask : float
        Share of the expressed genes to predict, nine tenths of them hidden: see
        :func:`shared.methods.scbert.mask_tokens`.
    epochs, steps, lr, schedule, precision, checkpoint_seconds
        Of pre-training, with Adam: see :class:`shared.train.Config`. With `steps` an epoch, after which progress may be
        saved, is so many batches; without, a pass over the cells.
    batch_size, accumulate, clip_norm
        Of pre-training and of fine-tuning: see :class:`shared.train.Config`. The code takes 60 batches of 3 cells for
        one update.
    weigh : {"cells", "genes"}
        What counts alike in the loss of pre-training: a cell, or a masked gene, as in the code. Then deep cells count
        more, and processes cannot share a batch.
    head : {"genes", "mean", "last"}
        The published one, :class:`shared.methods.scbert.heads.CellTypeNet`; or a head on one embedding of the cell,
        :class:`shared.methods.scbert.heads.PooledNet`, which no list of genes is tied to.
    unfreeze : {"last", "second_to_last", "all", "head"}
        The block to fine-tune, beside the last norm and the head. The code takes the second to last and says no reason.
    fit_epochs, fit_lr, patience, stop_by, validation
        Of fine-tuning, with Adam: until `patience` epochs bring no better ``"loss"``, or ``"accuracy"`` as in the code,
        of a share of each type's cells.
    cache_gib : float
        Memory for what frozen blocks make of the cells, computed once and not in every epoch; 0: never.
    unknown : float or None
        Answer ``"unknown"`` where the best probability is below this; 0.5 in the code.
    device, devices, progress, checkpoint, random_state
        See :class:`shared.methods.torch_method.TorchMethod`.

    Attributes
    ----------
    pretrained_ : dict
        ``state`` (tensors by name), ``history``, ``counts`` (of up to 4,096 cells, as
        :func:`shared.methods.scbert.pretraining.token_counts` gives them), ``genes``, ``n_genes``, ``is_log``. A clone
        keeps it.
    network_ : torch.nn.Module
        Fine-tuned, on the CPU, in evaluation mode.
    classes_, history_, n_features_in_, feature_names_in_
    """

    expects, nonnegative = "counts", True

    @classmethod
    def example(cls):
        """A small problem to try it on."""
        small = {"dim": 16, "depth": 2, "heads": 2, "width": 8, "target_sum": 40, "epochs": 2}
        # Seed 0 starts with most numbers of the head below 0 and takes forty epochs; with seven others ten are enough.
        model = cls(**small, fit_epochs=10, batch_size=8, fit_lr=3e-3, patience=None, device="cpu", random_state=1)
        cells = [example_cells(counts=True, seed=seed) for seed in (0, 1)]
        return Example(model, cells[0], pretrain=(cells[1],), checked={"logged": True, "fit_epochs": 20})

    def pretrain(self, X, *, genes=None, vectors=None):
        """Learn to predict masked tokens.

        Parameters
        ----------
        X : AnnData, DataFrame, ndarray, sparse matrix or shared.data.Stream, cells × genes
            Counts; of an AnnData ``layers["counts"]`` is read where there is one. A stream is read piece by piece.
        genes : sequence of str, optional
            Names of the columns, where `X` has none.
        vectors : DataFrame of genes × dim, or ndarray of as many genes, optional
            Vectors of the genes, such as :func:`shared.methods.scbert.vectors.read_gene2vec` reads.

        Raises
        ------
        ValueError
            If a setting, a value or a vector cannot be used; or training fails, or the checkpoint is of another run.
        """
        stream = hasattr(X, "batches")
        if stream:
            sample = self._read(X.read(sample_of(X.shape[0])), genes=X.genes, reset=True, pretrains=True)
        else:
            cells = self._read(X, genes=genes, reset=True, pretrains=True)
            X, sample = cells.X, cells[sample_of(len(cells))]
        seed, tokenizer = self._seed(), self._tokenizer(sample.n_genes)
        tokenizer.warn_of_crowding(sample.X[sample_of(len(sample), 256)])
        net, place = self.new_network(sample, seed=seed), resolve_device(self.device)
        set_vectors(net.genes, sample, vectors, self.gene_vectors, seed)
        batches = CellBatches(
            X, tokenizer, self.batch_size, seed, place, steps=self.steps, mask=(self.mask, 0.9),
            redraw=self.redraw if self.attention == "favor" else None,
        )  # fmt: skip
        batches.rowwise, batches.loss = self.weigh == "cells" and not self.coupled, self.weigh
        history = self.train(
            net, partial(pretrain_step, weigh=self.weigh), batches, seed=seed, optimizer="adam", patience=None,
            checkpoint=self.checkpoint and Path(self.checkpoint),
        )  # fmt: skip
        counts = token_counts(tokenizer.tokens(sample.X), self.bins)
        return self._keep(sample, state=dict(net.state_dict()), history=history, counts=counts)

    def masked_scores(self, X, *, genes=None, seed=0) -> dict[str, float]:
        """How often masked tokens of other cells are predicted right: see :func:`shared.methods.scbert.masked_scores`.

        `X` and `genes` are as in :meth:`pretrain`; `seed` is of the masks. Every token that is asked for is hidden: the
        tenth that pre-training leaves could be copied.
        """
        (cells, net), how = self._of_pretraining(X, genes), {"mask": (self.mask, 1.0)}
        tokenizer, place = self._tokenizer(cells.n_genes), resolve_device(self.device)
        batches = CellBatches(cells.X, tokenizer, CHUNK, seed, place, **how)
        return masked_scores(net, batches, self.pretrained_["counts"])

    def _of_pretraining(self, X, genes):
        """Cells of the genes of the pre-training, and its network."""
        check_is_fitted(self, "pretrained_", msg="nothing was pre-trained or fitted: call pretrain or fit first")
        again = clone(self)
        cells = again._read(X, genes=genes, reset=True)
        return cells, load_state(again.new_network(cells, seed=0), self.pretrained_)

    def fit(self, X, y="cell_type", *, genes=None, vectors=None, held=None):
        """Train a head and a block, or what `unfreeze` says, to name the types of labelled cells.

        Parameters
        ----------
        X, genes, vectors
            As in :meth:`pretrain`, but for a stream. Vectors are those of the pre-training where there was one.
        y : array of str or int, cells; or str
            Types; of an AnnData also the name of a column of ``obs``.
        held : int array, optional
            Rows that are not learned from and stop the training, in place of a share `validation` of each type at
            random: so other methods can be given the same.

        Raises
        ------
        ValueError
            As `pretrain`; if there is one type only; if genes are not those of `pretrain` in their order; or if `held`
            names no row, or leaves a type without any.
        """
        cells, rng = self._read_labelled(X, y, genes=genes), self._rng()
        seed = int(rng.randint(2**31))
        self._tokenizer(cells.n_genes).warn_of_crowding(cells.X[sample_of(len(cells), 256)])
        net, place = self.new_network(cells, seed=seed), resolve_device(self.device)
        if hasattr(self, "pretrained_"):
            load_state(net.transformer, self.pretrained_)
        else:
            set_vectors(net.transformer.genes, cells, vectors, self.gene_vectors, seed)
        share = self.validation if self.patience else 0
        kept, held = stratified_split(cells.codes, share, rng) if held is None else parted(cells, held)
        progress = self._checkpoint_of_fit(cells, seed=[seed, *held.tolist()])
        n, caches = freeze(net, self.unfreeze), worth_caching(self, len(cells), net.transformer.n_genes)
        start = from_prefixes if caches else from_cells
        trained, batches, monitor = start(self, net, n, cells, kept, held, seed, place)
        self.history_ = self.train(
            trained, classify_step, batches, seed=seed, optimizer="adam", epochs=self.fit_epochs, lr=self.fit_lr,
            schedule="constant", patience=self.patience if len(held) else None,
            monitor=monitor if len(held) else None, checkpoint=progress,
        )  # fmt: skip
        self.network_ = net
        return self

    @property
    def _n_features_out(self):
        check_is_fitted(self, "network_" if not hasattr(self, "pretrained_") else "pretrained_")
        return self.dim

    def predict_proba(self, X, *, genes=None):
        """Probability of each type: float32 ndarray, cells × types, columns as in ``classes_``."""
        check_is_fitted(self, "network_")
        logits = self.forward(self.network_, self._read(X, genes=genes).X, CHUNK)
        return torch.from_numpy(logits).softmax(1).numpy()

    def transform(self, X, *, genes=None, pool="mean"):
        """Embeddings of cells: float32 ndarray, cells × dim; before `fit`, by the pre-trained network.

        `pool` is ``"mean"``, of all tokens, or ``"last"``: the token that is of no gene.
        """
        require(OneOf("mean", "last"), pool=pool)
        if hasattr(self, "network_"):
            cells, net = self._read(X, genes=genes), self.network_.transformer
        else:
            cells, net = self._of_pretraining(X, genes)
        return self.forward(PooledNet(net, pool), cells.X, CHUNK)

    def gene_scores(self, X, by="gradients", *, genes=None, steps=None):
        """How much each gene matters in each cell: float32 ndarray, cells × genes; 0 for genes outside the sequence.

        Parameters
        ----------
        X, genes
            As in :meth:`predict`.
        by : {"gradients", "attention"}
            Share in the logit of the type that is predicted, which may be negative; or attention that a gene receives,
            whatever for. See :mod:`shared.methods.scbert.scores`.
        steps : int, optional
            Of integrated gradients; without it each cell gets as many as its shares need to sum to the logit, up to
            4,096.

        Raises
        ------
        ValueError
            If they need more, or if `by` is neither.
        """
        check_is_fitted(self, "network_")
        require(OneOf("gradients", "attention"), by=by)
        require(Maybe(Whole(1)), steps=steps)
        return gene_scores(self, self._read(X, genes=genes).X, by, steps)
