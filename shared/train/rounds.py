"""Rounds of clustering and training, over many data sets at once: how a shared encoder learns from pseudo-labels.

A step takes a batch of every data set, so an epoch is as long as the shortest of them. A round clusters the cells, puts
new heads on the encoder and trains; the next one clusters what the encoder has made of them.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy import sparse
from sklearn.decomposition import PCA

from shared.data.errors import DataError
from shared.data.genes import gene_hash, names_of
from shared.nn.pseudo_labels import PseudoLabeller
from shared.nn.shared_encoder import MultiTaskNet, built, chunks, encoder_of, in_chunks
from shared.nn.sparse import Rows, SparseLinear
from shared.train.batches import Batches
from shared.train.checkpoint import CURE, plain, read_checkpoint, save_checkpoint
from shared.train.loop import fit
from shared.train.settings import Config, TrainingError

STACKED = 2e7  # entries: up to here a corpus in memory is laid under one another, and a step takes its rows at once


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
    for i in range(min(-(-n // b) for n, b in zip(sizes, batch_sizes, strict=True))):
        yield [o[i * b : (i + 1) * b] for o, b in zip(orders, batch_sizes, strict=True)]


class Pretraining:
    """The rounds of one pre-training: its state is what a checkpoint holds.

    Parameters
    ----------
    model : shared.methods.scpretrain.ScPretrain
        Its settings are read. After each round its ``pretrained_`` is what there is so far.
    corpus : shared.data.Corpus
        Or anything with its ``genes``, ``matrices`` and ``counts``.
    seed : int
    device : torch.device
    """

    def __init__(self, model, corpus, seed, device):
        self.model, self.seed, self.device = model, seed, device
        self.corpus, self.matrices, self.counts = corpus, dict(corpus.matrices), corpus.counts
        self.genes = names_of(corpus.genes)
        self.path = None if model.checkpoint is None else Path(model.checkpoint)
        self.digests: dict[str, str] = {}  # of the data sets, worked out once and only for a checkpoint
        self.state = {"genes": self.genes, "history": [], "labels": [], "inertia": [], "seconds": []}

    def go(self, callback=None):
        """Run the rounds that are still to be run; ``callback(number, model)`` after each."""
        model, state = self.model, self.state
        if self.path is not None and self.path.exists():
            self.restore()
        else:
            state["weight"], state["bias"] = self.first()
        model.pretrained_ = self.shown()
        kept = np.flatnonzero(self.expressed())
        for number in range(len(state["labels"]) + 1, model.rounds + 1):
            found = self.label(number)
            history = self.train(number, found, kept)
            state["seconds"].append(history.seconds)
            state["history"] += [{"round": number, "epoch": r["epoch"], "loss": r["loss"]} for r in history.rows]
            state["labels"].append({name: one.labels.astype(np.int32) for name, one in found.items()})
            state["inertia"].append({name: one.inertia.tolist() for name, one in found.items()})
            model.pretrained_ = self.shown()
            if self.path is not None:
                self.save()
            if callback is not None:
                callback(number, model)

    def shown(self):
        """What there is so far, for the model to keep: later rounds do not change it."""
        return {k: list(v) if isinstance(v, list) else v for k, v in self.state.items()}

    def first(self):
        """The encoder's first weights."""
        model = self.model
        encoder = built(lambda: SparseLinear(len(self.genes), model.width), self.seed)
        weight, bias = encoder.weight.detach().numpy(), encoder.bias.detach().numpy()
        if model.start == "pca":
            rng = np.random.default_rng((self.seed, 3))
            some = [X[np.sort(rng.permutation(X.shape[0])[:1000])] for X in self.matrices.values()]
            cells = sparse.vstack(some, format="csr")
            if not (cells.max(axis=0) != cells.min(axis=0)).nnz or cells.shape[1] < 2:
                said = f"{cells.shape[0]} cells of {cells.shape[1]} genes"
                raise DataError(f"{said} do not differ, so they have no components: take start='random' or more data")
            pca = PCA(min(model.width, min(cells.shape) - 1), svd_solver="arpack", random_state=self.seed).fit(cells)
            # One scale for all components: distances keep their proportions, and the sigmoid its range.
            axes = pca.components_.T / np.sqrt(pca.explained_variance_[0])
            weight[:, : axes.shape[1]], bias[: axes.shape[1]] = axes, -pca.mean_ @ axes
        return weight, bias

    def expressed(self):
        """bool ndarray, genes: whether some cell expresses the gene."""
        seen = np.zeros(len(self.genes), bool)
        for X in self.matrices.values():
            for part in [X] if sparse.issparse(X) else (X[rows] for rows in chunks(np.arange(X.shape[0]))):
                seen[part.indices] = True
        return seen

    def label(self, number):
        """Pseudo-labels of every data set: dict of name to PseudoLabels."""
        model, seed = self.model, int(np.random.SeedSequence((self.seed, 4, number)).generate_state(1)[0])
        space = model.space if number == 1 else "embedding"
        labeller = PseudoLabeller(space, model.cells_per_cluster, model.clusterer, seed)
        encoder = encoder_of(self.state["weight"], self.state["bias"])
        # First clusters hang on the set alone: the folds of one corpus share them.
        known = getattr(self.corpus, "memo", {}) if number == 1 else {}
        found = {}
        for name, X in self.matrices.items():
            key = name, space, tuple(model.cells_per_cluster), model.clusterer, seed
            if key not in known:
                with named(name):
                    cells = in_chunks(encoder, X, self.device) if number > 1 else _whole(self.counts[name])
                    known[key] = labeller.fit_predict(cells)
            found[name] = known[key]
        return found

    def steps(self, rng, whole=None):
        """One epoch: at each step a batch of every data set, and which rows these are."""
        model, cells = self.model, list(self.matrices.values())
        if whole is None and model.batch_size is None and hasattr(self.corpus, "batches"):
            yield from self.corpus.batches(model.batches, rng)  # reads files in blocks
            return
        sizes = [X.shape[0] for X in cells]
        first = np.cumsum([0, *sizes[:-1]])
        for rows in batch_rows(sizes, [model.batch_size or max(1, n // model.batches) for n in sizes], rng):
            if whole is None:
                yield [X[r] for X, r in zip(cells, rows, strict=True)], rows
            else:
                yield whole[np.concatenate([r + at for r, at in zip(rows, first, strict=True)])], rows

    def stacked(self, columns, n_columns):
        """All cells under one another, over the genes that are kept, where they are few enough to hold them twice."""
        cells = list(self.matrices.values())
        if not all(map(sparse.issparse, cells)) or sum(X.nnz for X in cells) > STACKED:
            return None
        X = sparse.vstack(cells, format="csr")
        return sparse.csr_matrix((X.data, columns[X.indices], X.indptr), shape=(X.shape[0], n_columns))

    def train(self, number, found, kept):
        """One round: new heads, a new optimiser, the encoder as it is. Changes ``state["weight"]`` and ``["bias"]``."""
        model, state, device = self.model, self.state, self.device
        names = list(self.matrices)
        ks = [found[n].ks for n in names]
        make = lambda: MultiTaskNet(len(kept), model.width, ks, model.squash, model.heads)  # noqa: E731
        net = built(make, int(np.random.SeedSequence((self.seed, 5, number)).generate_state(1)[0]))
        with torch.no_grad():
            net.encoder.weight.copy_(torch.from_numpy(state["weight"][kept]))
            net.encoder.bias.copy_(torch.from_numpy(state["bias"]))
        columns = np.full(len(self.genes), -1, np.int32)
        columns[kept] = np.arange(len(kept), dtype=np.int32)
        labels = [torch.as_tensor(found[n].labels) for n in names]
        whole = self.stacked(columns, len(kept))
        places = (columns, len(kept)) if whole is None else ()

        def batches(epoch):
            for cells, rows in self.steps(np.random.default_rng((self.seed, 6, number, epoch)), whole):
                batch = Rows(cells, device, *places)
                batch.parts = [len(r) for r in rows]
                yield batch, [y[r].to(device) for y, r in zip(labels, rows, strict=True)]

        def monitor(_, row):
            row["loss"] /= len(names)  # of one data set
            return row["loss"]

        settings = {name: getattr(model, name) for name in ("epochs", "lr", "patience", "progress")}
        config = Config(optimizer="adam", seed=self.seed, device=str(device), **settings)
        batches = Batches(batches, label=f"pre-training, round {number} of {model.rounds}")
        history = fit(net, MultiTaskNet.loss, batches, config, monitor=monitor)
        state["weight"], state["bias"] = state["weight"].copy(), net.encoder.bias.detach().cpu().numpy().copy()
        state["weight"][kept] = net.encoder.weight.detach().cpu().numpy()
        return history

    def identity(self):
        """What must be equal for a checkpoint to be this run's; the number of rounds may grow."""
        names = "width epochs patience lr batches batch_size cells_per_cluster space clusterer squash heads start"
        settings = {name: getattr(self.model, name) for name in names.split()}
        self.digests = self.digests or {name: digest_of(X) for name, X in self.matrices.items()}
        return plain({"seed": self.seed, "genes": gene_hash(self.genes), "sets": self.digests} | settings)

    def save(self):
        """Write the encoder, and the labels and numbers of every round so far."""
        tensors = {f"encoder/{k}": torch.from_numpy(self.state[k]) for k in ("weight", "bias")}
        for number, found in enumerate(self.state["labels"]):
            tensors |= {f"labels/{number}/{name}": torch.from_numpy(y) for name, y in found.items()}
        about = {k: self.state[k] for k in ("history", "inertia", "seconds")}
        save_checkpoint(self.path, tensors, self.identity(), **about)

    def restore(self):
        """Go on from the last round that was saved, after making sure that it is this run's."""
        parts, about = read_checkpoint(self.path, self.identity())
        labels, rounds = [{} for _ in about["inertia"]], self.model.rounds
        if len(labels) > rounds:
            raise TrainingError(f"{self.path} holds {len(labels)} rounds and rounds={rounds} asks for fewer: {CURE}")
        for key, value in parts.get("labels", {}).items():
            number, _, name = key.partition("/")
            labels[int(number)][name] = value.numpy()
        self.state |= {"labels": labels, **{k: about[k] for k in ("history", "inertia", "seconds")}}
        self.state |= {k: v.numpy() for k, v in parts["encoder"].items()}


def as_corpus(given):
    """`given`, or the corpus of a dict of data sets; anything else is refused."""
    if isinstance(given, Mapping):
        from shared.data.corpus import Corpus

        return Corpus(given)
    if not all(hasattr(given, part) for part in ("genes", "matrices", "counts")):
        raise DataError(
            f"pre-training takes a corpus, not {type(given).__name__}: give a dict of names and AnnData or paths, or "
            "shared.data.Corpus of one"
        )
    return given


def _whole(X):
    """One data set in memory; that of a corpus on disk is read."""
    return X if sparse.issparse(X) or isinstance(X, np.ndarray) else X[np.arange(X.shape[0])]


def digest_of(X):
    """Tells one data set from another: its shape and every cell."""
    seen = hashlib.sha256(repr(tuple(map(int, X.shape))).encode())
    for rows in chunks(np.arange(X.shape[0])):
        some = X[rows]
        for part in (np.diff(some.indptr), some.indices, some.data):
            seen.update(np.ascontiguousarray(part, np.float32 if part.dtype.kind == "f" else np.int64))
    return seen.hexdigest()


@contextlib.contextmanager
def named(name):
    """Errors within are about data set `name`, and say so."""
    try:
        yield
    except DataError as error:
        raise DataError(f"data set {name!r}: {error}") from error
