"""The network of scJoint, its training step, and the batches of several data sets of two modalities."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from torch.nn.functional import cross_entropy

from shared.data.cells import digest
from shared.data.validate.structure import matrix_of
from shared.methods.scjoint.losses import centre_loss, reduction_loss, similarity_loss
from shared.nn.sparse import SparseLinear
from shared.train.batches import Batches, seed_of

SAMPLINGS = ("shuffled", "replacement", "balanced")


class JointNetwork(torch.nn.Module):
    """One linear layer from genes to an embedding, one from there to types, and a centre for each type.

    Parameters
    ----------
    n_genes, width, n_classes : int
        Inputs, features of the embedding, and types.
    trained : bool
        Train the centres too. They start as points from a standard normal distribution, and otherwise stay there.
    """

    def __init__(self, n_genes: int, width: int, n_classes: int, trained: bool = False):
        super().__init__()
        self.encode = SparseLinear(n_genes, width)  # torch.nn.Linear, faster for many genes
        self.head = torch.nn.Linear(width, n_classes)
        self.centres = torch.nn.Parameter(torch.randn(n_classes, width), requires_grad=trained)

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        """Logits: cells × types."""
        return self.head(self.encode(X))


def scjoint_step(net: JointNetwork, X, y, n_sources: int, top=0.8, centre=1.0, l1=0.1):
    """The loss of a batch and its parts; in stage 3 target cells have types too, the pseudo-labels.

    Parameters
    ----------
    net : JointNetwork
        In training.
    X : float32 tensor, data sets × cells × genes
        Source data sets first, then target data sets.
    y : int64 tensor, labelled data sets × cells
        Types of the source alone (stage 1) or of all data sets (stage 3), numbered from 0.
    n_sources : int
        How many of the data sets are source.
    top, centre, l1 : float
        Share of target cells that are pulled to a source cell; weights of the centre loss, and of the mean absolute
        value of each tensor of weights.

    Returns
    -------
    scalar tensor, dict of scalar tensors
    """
    E = net.encode(X)
    source, target = E[:n_sources], E[n_sources:]
    parts = {"reduction": reduction_loss(source), "types": types_loss(net, source, y[:n_sources])}
    if len(target):
        parts["reduction"] = parts["reduction"] + reduction_loss(target)
        parts["similarity"] = similarity_loss(source, target, top)
    if len(y) > n_sources:
        parts["types"] = parts["types"] + types_loss(net, target, y[n_sources:])
        pulls = [centre_loss(*side, net.centres) for side in ((source, y[:n_sources]), (target, y[n_sources:]))]
        parts["centre"] = centre * sum(pulls)
    layers = [*net.encode.parameters(), *net.head.parameters()]
    parts["l1"] = l1 * sum(weights.abs().mean() for weights in layers)
    return sum(parts.values()), {name: part.detach() for name, part in parts.items()}


def types_loss(net: JointNetwork, E: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the types of these embeddings, in the mean over all cells: a scalar."""
    return cross_entropy(net.head(E).flatten(0, 1), y.flatten())


class JointInput:
    """Cells as the network reads them: 1 where a gene is expressed, and some last columns as they are.

    In memory a gene takes one bit, so that cells of chromatin, which express a quarter of all genes, take a fifteenth
    of what their sparse matrix does; a batch is unpacked into one block of memory that all batches of an epoch share.

    Parameters
    ----------
    X : float32 ndarray or CSR matrix, cells × columns
    n_raw : int
        Last columns that are not binarised.
    cells : int array, optional
        Rows of `X` that are of this data set; all without it.
    """

    def __init__(self, X, n_raw: int = 0, cells=None):
        cells = np.arange(X.shape[0]) if cells is None else cells
        self.n, self.n_genes = len(cells), X.shape[1] - n_raw
        blocks = (_dense(X[cells[start : start + 256]]) for start in range(0, self.n, 256))
        pairs = [(np.packbits(b[:, : self.n_genes] > 0, axis=1), b[:, self.n_genes :].copy()) for b in blocks]
        self.bits, self.raw = (np.concatenate(part) for part in zip(*pairs, strict=True))

    def into(self, out: np.ndarray, rows: np.ndarray) -> None:
        """Write these cells into a float32 array, rows × columns."""
        out[:, : self.n_genes] = np.unpackbits(self.bits[rows], axis=1, count=self.n_genes)
        out[:, self.n_genes :] = self.raw[rows]


def binarized(X: np.ndarray, n_raw: int) -> np.ndarray:
    """Float32 ndarray, cells × columns, of 1 where a gene is expressed; the last `n_raw` columns stay."""
    X = matrix_of(X)
    X = X.toarray() if sparse.issparse(X) else np.array(X)
    genes = X[:, : X.shape[1] - n_raw]
    genes[:] = genes > 0
    return X


def _dense(X):
    return X.toarray() if sparse.issparse(X) else X


class JointBatches(Batches):
    """As many cells of each data set in every batch, for as long as the target cells of all data sets last.

    Parameters
    ----------
    inputs : list of JointInput
        Data sets, those of the source first.
    labels : list of int64 ndarray
        Types of the first data sets, cells each: of the source (stage 1) or of all (stage 3).
    n_sources : int
        How many are source.
    batch_size : int
        Cells of each data set in a batch.
    seed : int
        Of the draws; each data set and epoch has its own.
    device : str or torch.device
        Where batches arrive.
    sampling : {"shuffled", "replacement", "balanced"}
        Shuffle a data set and begin again when all its cells were drawn; draw each cell from all of them, as published;
        or draw so that the types of a labelled data set come equally often.
    """

    cure = "lower lr and retrain_lr, or set clip_norm"

    def __init__(self, inputs, labels, n_sources, batch_size, seed, device="cpu", sampling="shuffled"):
        self.inputs, self.labels, self.n_sources = inputs, labels, n_sources
        self.batch_size, self.seed, self.device, self.sampling = batch_size, seed, torch.device(device), sampling
        counted = inputs[n_sources:] or inputs
        self.steps = max(1, sum(part.n for part in counted) // batch_size)
        self.columns = inputs[0].n_genes + inputs[0].raw.shape[1]
        self.entries = len(inputs) * batch_size * self.columns

    def __call__(self, epoch):
        rngs = [np.random.default_rng(seed_of(self.seed, epoch, i)) for i in range(len(self.inputs))]
        orders = [self.order(i, rng) for i, rng in enumerate(rngs)]
        block = torch.empty(len(self.inputs), self.batch_size, self.columns)
        for step in range(self.steps):
            rows = [order[step * self.batch_size :][: self.batch_size] for order in orders]
            for part, out, own in zip(self.inputs, block.numpy(), rows, strict=True):
                part.into(out, own)
            y = torch.from_numpy(np.stack([y[own] for y, own in zip(self.labels, rows)]))
            yield block.to(self.device), y.to(self.device), self.n_sources

    def order(self, i: int, rng) -> np.ndarray:
        """Cells of data set `i` in the order in which an epoch draws them: steps × ``batch_size`` of them."""
        n, wanted = self.inputs[i].n, self.steps * self.batch_size
        if self.sampling == "shuffled":
            return np.concatenate([rng.permutation(n) for _ in range(-(-wanted // n))])[:wanted]
        if self.sampling == "replacement" or i >= len(self.labels):
            return rng.integers(0, n, wanted)
        types, places = np.unique(self.labels[i], return_inverse=True)
        weight = 1 / np.bincount(places)[places] / len(types)
        return rng.choice(n, wanted, p=weight / weight.sum())

    def about(self):
        some = [part for one in self.inputs for part in (one.bits, one.raw)]
        return {"data": digest([*some, *self.labels]), "sources": self.n_sources, "sampling": self.sampling}
