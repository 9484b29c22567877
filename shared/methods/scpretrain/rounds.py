"""Rounds of clustering and training, over many data sets at once: how a shared encoder learns from pseudo-labels.

A step takes a batch of every data set, so an epoch is as long as the shortest of them. A round clusters the cells, puts
new heads on the encoder and trains; the next one clusters what the encoder has made of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from scipy import sparse
from sklearn.decomposition import PCA

from shared.data.cells import Outline, digest
from shared.data.errors import DataError
from shared.data.genes.lists import gene_hash, names_of
from shared.methods.scpretrain.network import MultiTaskNet, cluster_step, encoder_of
from shared.methods.scpretrain.pseudo_labels import PseudoLabeller, PseudoLabels
from shared.methods.torch_method import seeded
from shared.nn.sparse import Rows, SparseLinear
from shared.train import Batches, History, TrainingError, resolve_device
from shared.train.batches import seed_of
from shared.train.checkpoint import plain, read_checkpoint, save_checkpoint
from shared.train.saved import CURE

CHUNK = 4096  # cells read at a time where a data set may be larger than memory


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


def first_weights(matrices: Sequence, n_genes: int, width: int, start: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The encoder before pre-training: float32 weight (n_genes, width) and bias (width,).

    With ``start="pca"`` the principal components of up to 1000 cells of each data set, as many as there are.
    """
    encoder = seeded(lambda: SparseLinear(n_genes, width), seed)
    weight, bias = encoder.weight.detach().numpy(), encoder.bias.detach().numpy()
    if start == "pca":
        rng = np.random.default_rng((seed, 3))
        some = [X[np.sort(rng.permutation(X.shape[0])[:1000])] for X in matrices]
        cells = sparse.vstack(some, format="csr")
        if not (cells.max(axis=0) != cells.min(axis=0)).nnz or n_genes < 2:
            said = f"{cells.shape[0]} cells of {n_genes} genes do not differ, so they have no components"
            raise DataError(f"{said}: take start='random' or more data")
        pca = PCA(min(width, min(cells.shape) - 1), svd_solver="arpack", random_state=seed).fit(cells)
        # One scale for all components: distances keep their proportions, and the sigmoid its range.
        axes = pca.components_.T / np.sqrt(pca.explained_variance_[0])
        weight[:, : axes.shape[1]], bias[: axes.shape[1]] = axes, -pca.mean_ @ axes
    return weight, bias


class Pretraining:
    """The rounds of one pre-training; ``state`` is what the model keeps, and what a checkpoint holds.

    Parameters
    ----------
    model : ScPretrain
        Its settings are read. After each round its ``pretrained_`` is what there is so far.
    corpus : shared.data.Corpus
        Or anything with its ``genes``, ``matrices`` and ``counts``.
    seed : int
    """

    def __init__(self, model, corpus, seed: int):
        self.model, self.corpus, self.seed = model, corpus, seed
        self.matrices, self.genes = dict(corpus.matrices), names_of(corpus.genes)
        # Genes that no cell of the corpus expresses are left out: each gene's place among the others, or -1.
        seen = np.zeros(len(self.genes), bool)
        for X in self.matrices.values():
            for part in in_parts(X):
                seen[part.indices] = True
        self.kept, self.place = np.flatnonzero(seen), np.where(seen, seen.cumsum() - 1, -1).astype(np.int32)

    def go(self, callback=None):
        """Run the rounds that are still to be run; ``callback(number, model)`` after each."""
        model, path = self.model, None if self.model.checkpoint is None else Path(self.model.checkpoint)
        self.state = state = {"history": [], "labels": [], "inertia": [], "seconds": []}
        identity = {} if path is None else self.identity()
        if path is not None and path.exists():
            state |= self.restore(path, identity)
        else:
            sizes = len(self.genes), model.width
            state["weight"], state["bias"] = first_weights(self.matrices.values(), *sizes, model.start, self.seed)
        self.keep()
        for number in range(len(state["labels"]) + 1, model.rounds + 1):
            found = self.cluster(number)
            history = self.train(number, found)
            rows = [{"round": number, "epoch": r["epoch"], "loss": r["loss"] / len(found)} for r in history.rows]
            state["history"] += rows
            state["seconds"].append(history.seconds)
            state["labels"].append({name: one.labels.astype(np.int32) for name, one in found.items()})
            state["inertia"].append({name: one.inertia.tolist() for name, one in found.items()})
            self.keep()
            if path is not None:
                save_checkpoint(path, state, identity)
            if callback is not None:
                callback(number, model)

    def keep(self):
        """What there is so far, for the model to keep: later rounds do not change it."""
        learned = {k: list(v) if isinstance(v, list) else v for k, v in self.state.items()}
        self.model._keep(Outline(len(self.genes), self.genes), is_log=False, **learned)

    def cluster(self, number: int) -> dict[str, PseudoLabels]:
        """Pseudo-labels of every data set, by its name: of its counts in the first round, then of the embedding."""
        model, seed = self.model, seed_of(self.seed, 4, number)
        space = model.space if number == 1 else "embedding"
        labeller = PseudoLabeller(space, model.cells_per_cluster, model.clusterer, seed)
        # First clusters depend on the set alone: the folds of one corpus share them.
        known = getattr(self.corpus, "memo", {}) if number == 1 else {}
        keys = {name: (name, space, tuple(model.cells_per_cluster), model.clusterer, seed) for name in self.matrices}
        for name, key in keys.items():
            if key not in known:
                with named(name):
                    known[key] = labeller.fit_predict(self.counts(name) if number == 1 else self.embedding(name))
        return {name: known[key] for name, key in keys.items()}

    def counts(self, name: str):
        """The counts of a data set, in memory."""
        X = self.corpus.counts[name]
        return X if sparse.issparse(X) or isinstance(X, np.ndarray) else X[np.arange(X.shape[0])]

    def embedding(self, name: str) -> np.ndarray:
        """What the encoder makes of a data set: float32 (n_cells, width)."""
        encoder = encoder_of(self.state["weight"], self.state["bias"])
        return np.concatenate([self.model.forward(encoder, part) for part in in_parts(self.matrices[name])])

    def train(self, number: int, found: dict[str, PseudoLabels]) -> History:
        """One round: new heads, a new optimiser, the encoder as it is, which is changed in ``state``."""
        model, state, ks = self.model, self.state, [one.ks for one in found.values()]
        if model.heads == "shared":  # all data sets have one head, with room for the clusters of all
            ks = [tuple(np.sum(ks, axis=0).tolist())] * len(ks)
        net = seeded(lambda: MultiTaskNet(len(self.kept), model.width, ks, model.squash), seed_of(self.seed, 5, number))
        if model.heads == "shared":
            net.heads = torch.nn.ModuleList([net.heads[0]] * len(ks))
        net.encoder.load_state_dict(encoder_of(state["weight"][self.kept], state["bias"]).state_dict())
        batches = Batches(self.batches(number, found), label=f"pre-training, round {number} of {model.rounds}")
        history = model.train(
            net, cluster_step, batches, seed=self.seed, monitor=lambda net, row: row["loss"], optimizer="adam"
        )
        weight = state["weight"].copy()
        weight[self.kept] = net.encoder.weight.detach().numpy()
        state |= {"weight": weight, "bias": net.encoder.bias.detach().numpy().copy()}
        return history

    def batches(self, number: int, found: dict[str, PseudoLabels]):
        """A function of the epoch that yields, at each step, rows of every data set, and their pseudo-labels."""
        model, device = self.model, resolve_device(self.model.device)
        labels, ks = [torch.as_tensor(one.labels) for one in found.values()], [one.ks for one in found.values()]
        if model.heads == "shared":  # each data set's clusters are numbered on from those of the sets before
            labels = [y + torch.tensor(np.sum(ks[:i], axis=0), dtype=y.dtype) for i, y in enumerate(labels)]
        sets = list(self.matrices.values())
        on_disk = not all(map(sparse.issparse, sets))
        cells = sets if on_disk else [self.expressed(X) for X in sets]
        sizes = [model.batch_size or max(1, X.shape[0] // model.batches) for X in sets]

        def batches(epoch):
            rng = np.random.default_rng((self.seed, 6, number, epoch))
            if on_disk and model.batch_size is None and hasattr(self.corpus, "batches"):
                drawn = self.corpus.batches(model.batches, rng)  # reads files in blocks
            else:
                rows = batch_rows([X.shape[0] for X in sets], sizes, rng)
                drawn = (([X[r] for X, r in zip(cells, some, strict=True)], some) for some in rows)
            for parts, rows in drawn:
                parts = [self.expressed(X) for X in parts] if on_disk else parts
                yield Rows(parts, device), [y[r].to(device) for y, r in zip(labels, rows, strict=True)]

        return batches

    def expressed(self, X):
        """The genes of a matrix that are expressed somewhere in the corpus."""
        return sparse.csr_matrix((X.data, self.place[X.indices], X.indptr), shape=(X.shape[0], len(self.kept)))

    def identity(self) -> dict:
        """What must be equal for a checkpoint to be this run's; the number of rounds may grow."""
        names = "width epochs patience lr batches batch_size cells_per_cluster space clusterer squash heads start"
        settings = {name: getattr(self.model, name) for name in names.split()}
        sets = {name: digest_of(X) for name, X in self.matrices.items()}
        return plain({"seed": self.seed, "genes": gene_hash(self.genes), "sets": sets} | settings)

    def restore(self, path: Path, identity: dict) -> dict:
        """The state after the last round that was saved, after making sure that it is this run's."""
        state = read_checkpoint(path, identity)
        done, rounds = len(state["labels"]), self.model.rounds
        if done > rounds:
            raise TrainingError(f"{path} holds {done} rounds and rounds={rounds} asks for fewer: {CURE}")
        return state


def chunks(rows: np.ndarray) -> list[np.ndarray]:
    """`rows` in pieces of at most ``CHUNK``."""
    return [rows[i : i + CHUNK] for i in range(0, len(rows), CHUNK)]


def in_parts(X) -> Iterator[sparse.csr_matrix]:
    """The cells of a data set, which may lie on disk, some thousand at a time."""
    return (X[rows] for rows in chunks(np.arange(X.shape[0])))


def digest_of(X) -> str:
    """Tells one data set from another: its shape and every cell."""
    parts = (part for some in in_parts(X) for part in (np.diff(some.indptr), some.indices, some.data))
    parts = (np.asarray(part, np.float32 if part.dtype.kind == "f" else np.int64) for part in parts)
    return digest(chain([tuple(map(int, X.shape))], parts))


@contextlib.contextmanager
def named(name: str):
    """Errors within are about data set `name`, and say so."""
    try:
        yield
    except DataError as error:
        raise DataError(f"data set {name!r}: {error}") from error
