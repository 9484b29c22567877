"""Pre-training on pseudo-labels from many unlabelled data sets, then a small classifier for a new one.

After Zhang and others, *scPretrain: multi-task self-supervised learning for cell-type classification* (Bioinformatics,
2022). Each data set is clustered by k-means at three granularities, and one linear encoder (genes to 200 numbers)
learns to name the clusters of all of them, with a head of its own for each. Then the cells are clustered again, by
their 200 numbers, and so on. A new data set borrows the encoder's rows of the genes it shares.

Paper and code (the authors' of December 2021) differ in places. Each has an option here, and what the two do is said
there. Counts come in sparse and stay sparse; networks read log(1 + count), not scaled by depth, as in paper and code.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin, clone
from sklearn.decomposition import PCA
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted
from torch.nn.functional import cross_entropy

from shared.data.genes import gene_hash, names_of, once
from shared.methods.inputs import NO_LABELS, cells_of, columns_of
from shared.nn.pseudo_labels import CLUSTERERS, SPACES, CorpusError, PseudoLabeller, cluster_numbers, logged
from shared.nn.sparse import Rows, SparseLinear
from shared.train import (
    History,
    TrainingError,
    load_model,
    read_safetensors,
    replace_file,
    resolve_device,
    save_model,
)

CHOICES = {
    "heads": ("separate", "shared"),
    "start": ("random", "pca"),
    "init": ("default", "scaled"),
    "norm": ("none", "layer"),
    "space": SPACES[:-1],
    "clusterer": CLUSTERERS,
}
CHUNK = 4096  # cells turned into codes at a time


# The network.


class MultiTaskNet(torch.nn.Module):
    """One linear encoder, and a softmax for each data set and granularity.

    Parameters
    ----------
    n_genes, width : int
        The encoder; both sources have 200 and nothing but a sigmoid between it and the heads.
    ks : list of tuple of int
        Clusters of each data set at each granularity.
    squash : bool
        Pass the logits through a second sigmoid, as the code does and the paper does not. They then lie between 0 and
        1, no cluster of k can be given more than e / (e + k - 1), and the loss cannot fall below
        ln(1 + (k - 1) / e): it keeps pulling at cells that are long right.
    heads : {"separate", "shared"}
        With ``"shared"`` one softmax a granularity runs over the clusters of all data sets, so that the encoder is paid
        for telling data sets apart. Paper and code have separate heads.
    """

    def __init__(self, n_genes, width=200, ks=((10, 20, 6),), squash=False, heads="separate"):
        super().__init__()
        self.ks, self.squash, self.shared = [tuple(k) for k in ks], squash, heads == "shared"
        self.encoder = SparseLinear(n_genes, width)
        sizes = [sum(map(sum, self.ks))] if self.shared else [sum(k) for k in self.ks]
        self.heads = torch.nn.ModuleList(torch.nn.Linear(width, k) for k in sizes)
        totals = np.sum(self.ks, axis=0)
        offset = np.cumsum(self.ks, axis=0) - np.array(self.ks)
        self.totals = totals.tolist() if self.shared else None
        self.register_buffer("offset", torch.as_tensor(offset * self.shared), persistent=False)

    def forward(self, rows: Rows) -> list[tuple[torch.Tensor, ...]]:
        """Logits: for each data set (``rows.parts``) and granularity one tensor, cells × clusters."""
        codes = torch.sigmoid(self.encoder(rows)).split(rows.parts)
        logits = [self.heads[0 if self.shared else i](code) for i, code in enumerate(codes)]
        logits = [torch.sigmoid(out) for out in logits] if self.squash else logits
        return [out.split(self.totals or k, dim=1) for out, k in zip(logits, self.ks, strict=True)]

    def loss(self, rows: Rows, labels: Sequence[torch.Tensor]) -> torch.Tensor:
        """Sum over data sets and granularities of the mean cross-entropy of the set's cells: every set weighs alike.

        `labels` holds, for each data set, int64 cells × granularities.
        """
        total = 0.0
        for i, (parts, y) in enumerate(zip(self(rows), labels, strict=True)):
            for j, part in enumerate(parts):
                total = total + cross_entropy(part, y[:, j] + self.offset[i, j])
        return total


class CellTypeNet(torch.nn.Module):
    """The encoder with a small classifier: Linear, sigmoid, Linear to 100, sigmoid, Linear to the types.

    Parameters
    ----------
    n_genes, width, hidden, n_types : int
    norm : {"none", "layer"}
        Normalise the encoder's output before its sigmoid. Neither source does. Sums over a thousand genes move far in
        a few steps of size 0.002, and a sigmoid that is pinned to 0 or 1 learns no more.
    """

    def __init__(self, n_genes, width=200, hidden=100, n_types=2, norm="none"):
        super().__init__()
        self.encoder = SparseLinear(n_genes, width)
        self.norm = torch.nn.LayerNorm(width) if norm == "layer" else torch.nn.Identity()
        self.classify = torch.nn.Sequential(
            torch.nn.Sigmoid(), torch.nn.Linear(width, hidden), torch.nn.Sigmoid(), torch.nn.Linear(hidden, n_types)
        )

    def forward(self, rows: Rows) -> torch.Tensor:
        """Logits, cells × types."""
        return self.classify(self.norm(self.encoder(rows)))


def transplant(weight: np.ndarray, source: Sequence[str], target: np.ndarray, genes: Sequence[str]):
    """Copy the encoder's rows of shared genes into a weight for another list of genes.

    Parameters
    ----------
    weight : ndarray, genes of `source` × width
        Of the pre-trained encoder.
    source : sequence of str
        Its genes.
    target : ndarray, `genes` × width
        What genes without a counterpart keep: random numbers to train from, or zeros to leave them out.
    genes : sequence of str
        Genes of the data.

    Returns
    -------
    weight : ndarray, `genes` × width
        New memory. The authors' code trains the checkpoint's own bias in place, so its second data set borrows what
        the first one changed.
    shared : bool ndarray, `genes`
        Which rows were copied.

    Raises
    ------
    ValueError
        If no gene is shared or a list names a gene twice.
    """
    for names, what in ((source, "the pre-trained encoder"), (genes, "the data")):
        once(names, what)
    place = {gene: i for i, gene in enumerate(source)}
    where = np.array([place.get(gene, -1) for gene in genes])
    shared = where >= 0
    if not shared.any():
        raise ValueError(
            f"no gene is shared: the data have {genes[0]!r}, the encoder {source[0]!r}. Is it another species, or "
            "symbols against Ensembl identifiers? See shared.data.to_human and to_symbols"
        )
    out = np.array(target, np.float32)
    out[shared] = weight[where[shared]]
    return out, shared


# Training.


def batch_rows(sizes: Sequence[int], batch_sizes: Sequence[int], rng) -> Iterator[list[np.ndarray]]:
    """One epoch: at each step a batch of rows from every data set, until some data set has no more.

    Parameters
    ----------
    sizes, batch_sizes : sequence of int
        Cells of each data set, and of each of its batches. The last batch of a data set may be smaller.
    rng : numpy.random.Generator
        Draws the orders.
    """
    orders = [rng.permutation(n) for n in sizes]
    for step in range(min(-(-n // b) for n, b in zip(sizes, batch_sizes, strict=True))):
        yield [o[step * b : (step + 1) * b] for o, b in zip(orders, batch_sizes, strict=True)]


def descend(net, lr, epochs, patience, one_epoch: Callable[[torch.optim.Optimizer, int], dict], bar=None) -> History:
    """Adam, epoch by epoch, keeping the best weights; the loop of pre-training and of fine-tuning.

    Parameters
    ----------
    net : torch.nn.Module
        Left with its best weights.
    lr, epochs
        Step size, and epochs at most.
    one_epoch : callable
        Takes the steps and returns the epoch's numbers: ``loss``, and ``val_accuracy`` where there is something to
        judge by, which then decides.
    patience : int or None
        Stop after so many epochs without a new best.
    bar : tqdm.tqdm, optional
        Moved on after each epoch.

    Raises
    ------
    shared.train.TrainingError
        If the loss is not finite.
    """
    device = next(net.parameters()).device.type
    optimizer = torch.optim.Adam(net.parameters(), lr=lr, fused=device in ("cpu", "cuda"))
    history, best, state, began = History(stopped="epochs"), math.inf, None, time.perf_counter()
    for epoch in range(1, epochs + 1):
        row = {"epoch": epoch, **one_epoch(optimizer, epoch)}
        if not math.isfinite(row["loss"]):
            raise TrainingError(f"the loss is {row['loss']} in epoch {epoch}: look at the data, or lower lr={lr:g}")
        history.rows.append(row)
        value = -row["val_accuracy"] if "val_accuracy" in row else row["loss"]
        if value < best:
            best, history.best_epoch = value, epoch
            state = {k: v.detach().clone() for k, v in net.state_dict().items()} if patience else None
        if bar is not None:
            bar.set_postfix({k: f"{v:.4g}" for k, v in row.items() if k != "epoch"}, refresh=False)
            bar.update()
        if patience and epoch - history.best_epoch >= patience:
            history.stopped = "patience"
            break
    if state is not None:
        net.load_state_dict(state)
    history.seconds = time.perf_counter() - began
    return history


class Split(NamedTuple):
    """Rows of one labelled data set: int64 ndarrays ``train``, ``val`` and ``test``, which share no cell."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


def paper_split(n: int, split_seed: int, limit: int = 1000) -> Split:
    """The published split: at random 60 % to train, 10 % to stop by, each at most `limit` cells; the rest is the test.

    The authors' code draws it anew, without a seed, for each arm, so its two arms train and test on different cells.
    Here one `split_seed` gives one split.

    Raises
    ------
    ValueError
        If there are too few cells for all three parts.
    """
    train, val = min(int(0.6 * n), limit), min(int(0.1 * n), limit)
    if val < 1 or n - train - val < 1:
        raise ValueError(f"{n} cells cannot be split into 60 % to train, 10 % to stop by and a test: use 10 or more")
    order = np.random.default_rng(split_seed).permutation(n)
    return Split(np.sort(order[:train]), np.sort(order[train : train + val]), np.sort(order[train + val :]))


def finetune(model, X, y="cell_type", *, split_seed, genes=None, limit=1000, arms=None):
    """Train several arms on the same cells.

    Parameters
    ----------
    model : ScPretrain
        Pre-trained. It is cloned for each arm and not changed.
    X, y, genes
        As in :meth:`ScPretrain.fit`.
    split_seed : int
        Of :func:`paper_split`; the arms share it.
    limit : int
        Cells to train on, at most, and as many to stop by.
    arms : mapping of str to dict, optional
        Settings of each arm. ``{"pretrained": {}, "scratch": {"borrow": False}}`` without it.

    Returns
    -------
    arms : dict of str to ScPretrain
        Fitted; ask each for ``predict_proba`` of the test cells.
    split : Split
    """
    arms = {"pretrained": {}, "scratch": {"borrow": False}} if arms is None else arms
    split = paper_split(X.shape[0], split_seed, limit)
    labelled = np.sort(np.concatenate([split.train, split.val]))
    val = np.searchsorted(labelled, split.val)
    y = y if isinstance(y, str) else np.asarray(y)[labelled]
    X = X.iloc[labelled] if hasattr(X, "iloc") else X[labelled]
    fitted = {
        name: clone(model).set_params(**settings).fit(X, y, genes=genes, val=val) for name, settings in arms.items()
    }
    return fitted, split


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
        What the first round clusters (:class:`PseudoLabeller`); later rounds cluster the encoder's output.
    clusterer, squash, heads
        See :class:`PseudoLabeller` and :class:`MultiTaskNet`.
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
        Share of the labelled cells held out for that, at random; the published split comes to one in seven.
    init : {"default", "scaled"}
        First weights of genes the encoder did not bring. ``"default"`` is torch's, as in both sources. ``"scaled"``
        centres the encoder's output on the labelled cells and gives it unit variance.
    norm : {"none", "layer"}
        See :class:`CellTypeNet`; used in tuning only.
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
        corpus : shared.data.Corpus
            Its ``genes``, and ``matrices`` (log1p) and ``counts`` by name: CSR, or anything with ``shape`` that gives
            CSR for an array of rows, as a corpus on disk does.
        test : AnnData, optional
            Refuse to go on if this data set is in the corpus, under whatever name.
        callback : callable, optional
            ``callback(round, self)`` after each round, with ``pretrained_`` as it is then.

        Returns
        -------
        self

        Raises
        ------
        CorpusError
            If the corpus is empty, or a data set has too few cells.
        shared.train.TrainingError
            If a setting cannot be used, the loss is not finite, or the checkpoint is of another run.
        """
        self._check()
        if test is not None:
            corpus.check_absent(test)
        if not len(corpus.matrices):
            raise CorpusError("the corpus holds no data set: pre-training needs one or more")
        for name, X in corpus.matrices.items():
            with _about(name):
                cluster_numbers(X.shape[0], self.cells_per_cluster)
        run = _Pretraining(self, corpus, self._seed(), resolve_device(self.device))
        run.go(callback)
        return self

    # Tuning.

    def fit(self, X, y="cell_type", *, genes=None, val=None):
        """Tune the encoder with a classifier on labelled cells.

        Parameters
        ----------
        X : AnnData, DataFrame, ndarray or CSR, cells × genes
            Counts, or log(1 + count) with ``logged=True``. All genes take part, those the encoder knows and those it
            does not. Of an AnnData ``layers["counts"]`` is read where there is one.
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
        held = order[: int(self.validation * len(target))] if val is None else np.asarray(val)
        kept = np.setdiff1d(np.arange(len(target)), held)
        if not len(kept):
            raise ValueError("val holds every cell: leave some to train on")
        net = self._assemble(X[kept], seed).to(resolve_device(self.device))
        self.fit_history_ = self._tune(net, X, target, kept, np.sort(held), seed)
        self.network_ = net.cpu().eval()
        return self

    def _network(self, seed=0):
        sizes = self.n_features_in_, self.width, self.hidden, len(self.classes_)
        return _built(lambda: CellTypeNet(*sizes, self.norm), seed)

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
            bias[:] = p["bias"]
        return net

    def _tune(self, net, X, target, kept, held, seed):
        device = next(net.parameters()).device
        y = torch.as_tensor(target)
        pieces = -(-len(kept) // self.fit_batch_size)
        whole = [(Rows(X[kept], device), y[kept].to(device))] if pieces == 1 else None
        judge = [(Rows(X[r], device), target[r]) for r in _chunks(held)]

        def one_epoch(optimizer, epoch):
            net.train()
            order = np.random.default_rng((seed, 2, epoch)).permutation(kept)
            total = 0.0
            for rows, types in whole or ((Rows(X[r], device), y[r].to(device)) for r in np.array_split(order, pieces)):
                optimizer.zero_grad()
                loss = cross_entropy(net(rows), types)
                loss.backward()
                optimizer.step()
                total += float(loss.detach()) * len(rows)
            row = {"loss": total / len(kept)}
            if judge:
                net.eval()
                with torch.no_grad():
                    right = sum((net(rows).argmax(1).cpu().numpy() == types).sum() for rows, types in judge)
                row["val_accuracy"] = float(right) / len(held)
            return row

        with _bar(self.progress, self.fit_epochs, "tuning") as bar:
            return descend(net, self.fit_lr, self.fit_epochs, self.fit_patience if judge else None, one_epoch, bar)

    # Using what was learned.

    def transform(self, X, *, genes=None):
        """The encoder's linear output: float32 ndarray, cells × width; of the tuned encoder after `fit`.

        Before `fit` it is the pre-trained encoder, and any list of genes will do: it takes the genes it knows by name,
        and misses the others. ``clone(model)`` is a model before `fit`.
        """
        if hasattr(self, "network_"):
            X, _, _ = self._read(X, genes, reset=False)
            return self._run(self.network_.encoder, X)
        check_is_fitted(self, "pretrained_", msg="nothing was pre-trained or fitted: call pretrain or fit first")
        p = self.pretrained_
        X, _, names = self._read(X, p["genes"] if genes is None and not columns_of(X) else genes, reset=None)
        zeros = np.zeros((X.shape[1], len(p["bias"])), np.float32)
        return self._run(_encoder(transplant(p["weight"], p["genes"], zeros, names)[0], p["bias"]), X)

    def predict_proba(self, X, *, genes=None):
        """Probability of each type: float32 ndarray, cells × types, columns as in ``classes_``."""
        check_is_fitted(self, "network_")
        X, _, _ = self._read(X, genes, reset=False)
        logits = self._run(self.network_, X)
        return torch.from_numpy(logits).softmax(1).numpy()

    def predict(self, X, *, genes=None):
        """The most probable type of each cell."""
        best = self.predict_proba(X, genes=genes).argmax(1)
        return self.classes_[best]

    def _run(self, net, X):
        device = resolve_device(self.device)
        net.to(device)
        with torch.no_grad():
            parts = [net(Rows(X[r], device)).cpu().numpy() for r in _chunks(np.arange(X.shape[0]))]
        net.cpu()
        return np.concatenate(parts)

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
        folder, settings = Path(folder), self.get_params() | {"device": "auto", "checkpoint": None}
        if not isinstance(self.random_state, (int, type(None))):
            settings["random_state"] = None
        settings = json.loads(json.dumps(settings, default=list))
        if hasattr(self, "pretrained_"):
            p = self.pretrained_
            state = {k: torch.from_numpy(p[k]) for k in ("weight", "bias")}
            save_model(folder / "encoder", state, {"settings": settings, "history": p["history"]}, p["genes"])
        if hasattr(self, "network_"):
            names = self.genes_in_ if genes is None else names_of(genes)
            if names is None or len(names) != self.n_features_in_:
                found = "none" if names is None else len(names)
                raise TrainingError(f"the network reads {self.n_features_in_} genes, {found} were named: pass genes=")
            about = {"settings": settings, "classes": self.classes_.tolist(), "kind": self.classes_.dtype.kind}
            about["shared"] = np.flatnonzero(self.shared_).tolist()
            save_model(folder / "classifier", self.network_.state_dict(), about, names)
        if not hasattr(self, "pretrained_") and not hasattr(self, "network_"):
            raise TrainingError("there is nothing to save: call pretrain or fit first")
        return folder

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
        folder, model = Path(folder), None
        if (folder / "encoder").is_dir():
            path = folder / "encoder" / "genes.txt"
            own = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
            state, about = load_model(folder / "encoder", own)
            model = cls._set_up(about["settings"])
            model.pretrained_ = {k: v.numpy() for k, v in state.items()}
            model.pretrained_ |= {"genes": own, "history": about["history"], "labels": [], "inertia": [], "seconds": []}
        if genes is not None or model is None:
            genes = names_of(genes or [])
            state, about = load_model(folder / "classifier", genes)
            model = model or cls._set_up(about["settings"])
            model.classes_ = np.array(about["classes"], dtype=object if about["kind"] == "O" else None)
            model.n_features_in_, model.genes_in_ = len(genes), genes
            model.shared_ = np.isin(np.arange(len(genes)), about["shared"])
            model.network_ = model._network().eval()
            model.network_.load_state_dict(state)
        return model

    @classmethod
    def _set_up(cls, settings):
        return cls(**settings | {"cells_per_cluster": tuple(settings["cells_per_cluster"])})

    # What the methods share.

    def _seed(self):
        return int(check_random_state(self.random_state).randint(2**31))

    def _lent(self):
        """Whether there is a pre-trained encoder to borrow from."""
        return self.borrow and hasattr(self, "pretrained_")

    def _check(self):
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise TrainingError(f"{name}={getattr(self, name)!r} is not known: choose {', '.join(known)}")
        least = {"rounds": 0} | dict.fromkeys(("width", "epochs", "batches", "hidden", "fit_epochs"), 1)
        least |= dict.fromkeys(("fit_batch_size", "patience", "batch_size", "fit_patience"), 1)
        for name, low in least.items():
            value = getattr(self, name)
            if value is None and name in ("patience", "batch_size", "fit_patience"):
                continue
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < low:
                raise TrainingError(f"{name}={value!r} is not a whole number from {low} up")
        for name in ("lr", "fit_lr"):
            if not 0 < getattr(self, name) < math.inf:
                raise TrainingError(f"{name}={getattr(self, name)!r} is not a positive number")
        if not 0 <= self.validation < 1:
            raise TrainingError(f"validation={self.validation!r} must lie in [0, 1)")
        if hasattr(self, "pretrained_") and self.borrow and len(self.pretrained_["bias"]) != self.width:
            was = len(self.pretrained_["bias"])
            raise TrainingError(f"the encoder was pre-trained with width={was}: set that, or pre-train again")

    def _read(self, X, genes, y=NO_LABELS, reset=True):
        """Cells as log1p CSR, labels, and names of genes or None; `reset` None is for the pre-trained encoder alone."""
        reader, fitted = clone(self, safe=False) if reset is None else self, getattr(self, "genes_in_", None)
        X, y, names = cells_of(reader, X, y, genes, reset=reset is not False, matrix=self._matrix)
        X = sparse.csr_matrix(X)
        if len(X.data) and X.data.min() < 0:
            raise ValueError(
                "Negative values in data passed to ScPretrain: counts are needed, or log(1 + count) with logged=True"
            )
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


class _Pretraining:
    """The rounds of one pre-training: its state is what a checkpoint holds."""

    def __init__(self, model, corpus, seed, device):
        self.model, self.seed, self.device = model, seed, device
        self.corpus, self.matrices, self.counts = corpus, dict(corpus.matrices), corpus.counts
        self.genes = names_of(corpus.genes)
        self.path = None if model.checkpoint is None else Path(model.checkpoint)
        self.state = {"genes": self.genes, "history": [], "labels": [], "inertia": [], "seconds": []}

    def go(self, callback):
        model, state = self.model, self.state
        if self.path is None or not self.path.exists() or not self.restore():
            state["weight"], state["bias"] = self.first()
        model.pretrained_ = self.shown()
        kept = np.flatnonzero(self.expressed())
        with _bar(model.progress, model.rounds * model.epochs, "pre-training") as bar:
            if bar is not None:
                bar.update(len(state["labels"]) * model.epochs)
            for number in range(len(state["labels"]) + 1, model.rounds + 1):
                found = self.label(number)
                history = self.train(number, found, kept, bar)
                state["seconds"].append(history.seconds)
                state["history"] += [{"round": number, **row} for row in history.rows]
                state["labels"].append({name: one.labels.astype(np.int32) for name, one in found.items()})
                state["inertia"].append({name: one.inertia.tolist() for name, one in found.items()})
                model.pretrained_ = self.shown()
                if self.path is not None:
                    self.save()
                if bar is not None:
                    bar.update(model.epochs - len(history.rows))
                if callback is not None:
                    callback(number, model)

    def shown(self):
        """What there is so far, for the model to keep: later rounds do not change it."""
        return {k: list(v) if isinstance(v, list) else v for k, v in self.state.items()}

    def first(self):
        """The encoder's first weights."""
        model = self.model
        encoder = _built(lambda: SparseLinear(len(self.genes), model.width), self.seed)
        weight, bias = encoder.weight.detach().numpy(), encoder.bias.detach().numpy()
        if model.start == "pca":
            rng = np.random.default_rng((self.seed, 3))
            some = [X[np.sort(rng.permutation(X.shape[0])[:1000])] for X in self.matrices.values()]
            cells = sparse.vstack(some, format="csr")
            pca = PCA(min(model.width, min(cells.shape) - 1), svd_solver="arpack", random_state=self.seed).fit(cells)
            # One scale for all components: distances keep their proportions, and the sigmoid its range.
            axes = pca.components_.T / np.sqrt(pca.explained_variance_[0])
            weight[:, : axes.shape[1]], bias[: axes.shape[1]] = axes, -pca.mean_ @ axes
        return weight, bias

    def expressed(self):
        """bool ndarray, genes: whether some cell expresses the gene."""
        seen = np.zeros(len(self.genes), bool)
        for X in self.matrices.values():
            for part in [X] if sparse.issparse(X) else (X[rows] for rows in _chunks(np.arange(X.shape[0]))):
                seen[part.indices] = True
        return seen

    def label(self, number):
        """Pseudo-labels of every data set: dict of name to PseudoLabels."""
        model, seed = self.model, int(np.random.SeedSequence((self.seed, 4, number)).generate_state(1)[0])
        space = model.space if number == 1 else "embedding"
        labeller = PseudoLabeller(space, model.cells_per_cluster, model.clusterer, seed)
        encoder = _encoder(self.state["weight"], self.state["bias"])
        found = {}
        for name, X in self.matrices.items():
            with _about(name):
                cells = model._run(encoder, X) if number > 1 else _whole(self.counts[name])
                found[name] = labeller.fit_predict(cells)
        return found

    def steps(self, rng):
        """One epoch: at each step a batch of every data set, and which rows these are."""
        model, cells = self.model, list(self.matrices.values())
        if model.batch_size is None and hasattr(self.corpus, "batches"):
            yield from self.corpus.batches(model.batches, rng)  # reads files in blocks
            return
        sizes = [X.shape[0] for X in cells]
        for rows in batch_rows(sizes, [model.batch_size or max(1, n // model.batches) for n in sizes], rng):
            yield [X[r] for X, r in zip(cells, rows, strict=True)], rows

    def train(self, number, found, kept, bar):
        """One round: new heads, a new optimiser, the encoder as it is. Changes ``state["weight"]`` and ``["bias"]``."""
        model, state, device = self.model, self.state, self.device
        names = list(self.matrices)
        ks = [found[n].ks for n in names]
        make = lambda: MultiTaskNet(len(kept), model.width, ks, model.squash, model.heads)  # noqa: E731
        net = _built(make, int(np.random.SeedSequence((self.seed, 5, number)).generate_state(1)[0]))
        with torch.no_grad():
            net.encoder.weight.copy_(torch.from_numpy(state["weight"][kept]))
            net.encoder.bias.copy_(torch.from_numpy(state["bias"]))
        net.to(device)
        columns = np.full(len(self.genes), -1, np.int32)
        columns[kept] = np.arange(len(kept), dtype=np.int32)
        labels = [torch.as_tensor(found[n].labels) for n in names]

        def one_epoch(optimizer, epoch):
            total, steps = torch.zeros((), device=device), 0
            for cells, rows in self.steps(np.random.default_rng((self.seed, 6, number, epoch))):
                batch = Rows(cells, device, columns, len(kept))
                loss = net.loss(batch, [y[r].to(device) for y, r in zip(labels, rows, strict=True)])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total, steps = total + loss.detach(), steps + 1
            return {"loss": float(total) / steps / len(names)}

        if bar is not None:
            bar.set_description(f"round {number} of {model.rounds}")
        history = descend(net, model.lr, model.epochs, model.patience, one_epoch, bar)
        state["weight"], state["bias"] = state["weight"].copy(), net.encoder.bias.detach().cpu().numpy().copy()
        state["weight"][kept] = net.encoder.weight.detach().cpu().numpy()
        return history

    def identity(self):
        """What must be equal for a checkpoint to be this run's; the number of rounds may grow."""
        names = "width epochs patience lr batches batch_size cells_per_cluster space clusterer squash heads start"
        settings = {name: getattr(self.model, name) for name in names.split()}
        sets = {name: _digest(X) for name, X in self.matrices.items()}
        about = {"seed": self.seed, "genes": gene_hash(self.genes), "sets": sets} | settings
        return json.loads(json.dumps(about, default=list))

    def save(self):
        from safetensors.torch import save

        tensors = {k: torch.from_numpy(self.state[k]) for k in ("weight", "bias")}
        for number, found in enumerate(self.state["labels"]):
            tensors |= {f"labels/{number}/{name}": torch.from_numpy(y) for name, y in found.items()}
        about = {"identity": self.identity(), **{k: self.state[k] for k in ("history", "inertia", "seconds")}}
        replace_file(self.path, save(tensors, {"about": json.dumps(about)}))

    def restore(self):
        tensors, about = read_safetensors(self.path)
        mine, other = self.identity(), about.get("identity", {})
        differ = [k for k in mine if mine[k] != other.get(k)]
        if differ:
            raise TrainingError(
                f"{self.path} is a checkpoint of another pre-training, which differs in {', '.join(differ)}: "
                "delete the file to start anew, or choose another path"
            )
        labels = [{} for _ in about["inertia"]]
        if len(labels) > self.model.rounds:
            raise TrainingError(
                f"{self.path} holds {len(labels)} rounds and rounds={self.model.rounds} asks for fewer: "
                "choose another path"
            )
        for key, value in tensors.items():
            part, _, rest = key.partition("/")
            if part == "labels":
                number, _, name = rest.partition("/")
                labels[int(number)][name] = value.numpy()
        self.state |= {"labels": labels, **{k: about[k] for k in ("history", "inertia", "seconds")}}
        self.state |= {k: tensors[k].numpy() for k in ("weight", "bias")}
        return True


def _built(make, seed):
    """A network whose first weights hang on `seed` alone; the caller's generator goes on as if nothing happened."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def _encoder(weight, bias):
    layer = _built(lambda: SparseLinear(*weight.shape), 0)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        layer.bias.copy_(torch.from_numpy(bias))
    return layer


def _chunks(rows):
    return [rows[i : i + CHUNK] for i in range(0, len(rows), CHUNK)]


def _whole(X):
    """One data set in memory; that of a corpus on disk is read."""
    return X if sparse.issparse(X) or isinstance(X, np.ndarray) else X[np.arange(X.shape[0])]


def _digest(X):
    """Tells one data set from another: its shape and up to 256 rows, evenly spaced."""
    seen = hashlib.sha256(repr(tuple(map(int, X.shape))).encode())
    some = X[np.unique(np.linspace(0, X.shape[0] - 1, 256).astype(np.int64))]
    for part in (some.indptr, some.indices, some.data):
        seen.update(np.ascontiguousarray(part, np.float32 if part.dtype.kind == "f" else np.int64).tobytes())
    return seen.hexdigest()


@contextlib.contextmanager
def _about(name):
    """Errors of one data set name it."""
    try:
        yield
    except CorpusError as error:
        raise CorpusError(f"data set {name!r}: {error}") from error


@contextlib.contextmanager
def _bar(progress, total, what):
    if not progress:
        yield None
        return
    from tqdm import tqdm

    with tqdm(total=total, unit="epoch", desc=what) as bar:
        yield bar
