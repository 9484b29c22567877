"""BERMUDA's network, loss and batches: an autoencoder, and the discrepancy of the clusters that were matched."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch.nn.functional import mse_loss

from shared.data.cells import digest
from shared.nn.losses import paired_mmd2, ramp
from shared.train.batches import Batches, seed_of

WIDTHS = (1.0, 2.0, 4.0, 8.0, 16.0)  # of the kernels, in the units of the code


class Autoencoder(torch.nn.Module):
    """Genes to a code (``encode``) and back (``decode``), with ReLU between layers and after the last.

    Parameters
    ----------
    n_genes : int
        Scaled from 0 to 1.
    hidden : sequence of int
        Units of the encoder's layers; the last is the code, which is linear. The decoder has them in reverse.
    """

    def __init__(self, n_genes: int, hidden: Sequence[int] = (200, 20)):
        super().__init__()
        widths = [n_genes, *hidden]
        down = [torch.nn.Linear(a, b) for a, b in pairwise(widths)]
        up = [torch.nn.Linear(a, b) for a, b in pairwise(widths[::-1])]
        for layer in (*down, *up):
            torch.nn.init.xavier_uniform_(layer.weight)
            torch.nn.init.constant_(layer.bias, 0.01)
        between = [part for layer in down for part in (layer, torch.nn.ReLU())]
        self.encode = torch.nn.Sequential(*between[:-1])
        self.decode = torch.nn.Sequential(*(part for layer in up for part in (layer, torch.nn.ReLU())))

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        """Reconstruction: as many cells and genes."""
        return self.decode(self.encode(X))


def bermuda_step(net: Autoencoder, X, pairs, similarity, weight: float = 1.0, widths=WIDTHS, summed: bool = False):
    """Reconstruction error of every cluster, plus `weight` times the squared MMD of the pairs.

    Parameters
    ----------
    net : Autoencoder
        Both halves are used.
    X : tensor, clusters × cells × genes
        As many cells of each cluster.
    pairs : int64 tensor, 2 × pairs
        Clusters that are matched.
    similarity : tensor, pairs
        How much each pair counts.
    weight : float
        Of the discrepancy beside the reconstruction.
    widths : sequence of float, optional
        Of the kernels, whose mean is taken; see :func:`shared.nn.losses.paired_mmd2`.
    summed : bool
        Add up clusters, pairs and kernels, as the published loss does; means are taken otherwise, which do not grow
        with the number of clusters.

    Returns
    -------
    scalar tensor, and a dict of its two parts
    """
    code = net.encode(X)
    reconstruction = mse_loss(net.decode(code), X)
    transfer = similarity * paired_mmd2(code, pairs, widths)
    if summed:
        reconstruction, transfer = len(X) * reconstruction, len(widths or WIDTHS) * transfer.sum()
    else:
        transfer = transfer.sum() / similarity.sum().clamp_min(1e-12)  # no pair, no discrepancy
    return reconstruction + weight * transfer, {"reconstruction": reconstruction, "transfer": transfer}


class ClusterBatches(Batches):
    """As many cells of each cluster in every batch, with the pairs and the weight of the discrepancy in that epoch.

    An epoch ends when the largest cluster was seen whole. Smaller ones are shuffled and drawn again as often as needed,
    and no cell comes again before all others of its cluster have come.

    Parameters
    ----------
    X : ndarray, cells × genes
        float32, scaled from 0 to 1.
    clusters : int array, cells
        From 0 up without gaps.
    pairs : int array, 2 × pairs
    similarity : array, pairs
        As :func:`bermuda_step` takes them.
    batch_size : int
        Cells of each cluster in a batch.
    seed : int
        Order of the cells.
    device : str or torch.device
        Where the batches arrive.
    epochs : int
        Of the whole training, over which the weight rises (:func:`shared.nn.losses.ramp`).
    weight : float
        Of the discrepancy at its end, nearly.
    homes : int array, clusters, optional
        The batch of each cluster: draw as the published code does. Each cluster is brought to the size of the largest
        in its batch by drawing cells again, once for the whole training. An epoch has as many batches as whole ones fit
        into the largest, what is left over is not seen in it, and its first batch comes from a shuffle of its own. The
        learning rate falls an epoch earlier, for epochs are counted from 1 there.
    """

    def __init__(
        self, X, clusters, pairs, similarity, batch_size, seed, device="cpu", *, epochs, weight=1.0, homes=None
    ):
        place = {"device": device}
        self.X, self.pairs = torch.as_tensor(X, **place), torch.as_tensor(np.asarray(pairs), **place)
        self.similarity = torch.as_tensor(np.asarray(similarity, np.float32), **place)
        self.batch_size, self.seed, self.epochs, self.weight = batch_size, seed, epochs, weight
        self.cells, self.published = [np.flatnonzero(clusters == c) for c in range(clusters.max() + 1)], False
        if homes is not None:
            self.cells, self.published = oversampled(self.cells, homes), True
        largest = max(map(len, self.cells))
        self.steps = largest // batch_size if self.published else -(-largest // batch_size)
        self.entries, self.epoch = len(self.cells) * batch_size * X.shape[1], 0

    def __call__(self, epoch):
        self.epoch, rng = epoch, np.random.default_rng(seed_of(self.seed, epoch))
        order = torch.from_numpy(np.stack([self.order(cells, rng) for cells in self.cells])).to(self.X.device)
        weight = self.weight * ramp(epoch / self.epochs)
        for rows in order.split(self.batch_size, 1):
            yield self.X[rows], self.pairs, self.similarity, weight

    def order(self, cells, rng) -> np.ndarray:
        """The cells of one cluster in the order in which an epoch draws them: steps × ``batch_size`` of them."""
        wanted, whole = self.steps * self.batch_size, len(cells)
        if self.published:
            whole -= whole % self.batch_size
        passes = rng.permuted(np.tile(cells, (-(-wanted // whole) + self.published, 1)), axis=1)[:, :whole]
        first = passes[0, : self.batch_size * self.published]
        return np.concatenate([first, passes[int(self.published) :].ravel()])[:wanted]

    def decayed(self, epoch, i=0):
        return epoch - 1 + self.published

    def about(self):
        rows = np.unique(np.linspace(0, len(self.X) - 1, 256).astype(np.int64))
        some = [self.X[torch.from_numpy(rows)].cpu().numpy(), self.pairs.cpu().numpy(), self.similarity.cpu().numpy()]
        return {"data": digest([*some, *self.cells])}


def oversampled(cells: list[np.ndarray], homes, seed: int = 0) -> list[np.ndarray]:
    """The cells of each cluster, and some of them again, as many as the largest cluster of its batch has.

    Parameters
    ----------
    cells : list of int array
        Rows of the cells of each cluster.
    homes : int array, clusters
        The batch of each cluster.
    seed : int
        Of the draw.
    """
    rng, sizes = np.random.default_rng(seed), np.array([len(own) for own in cells])
    largest = [sizes[homes == home].max() for home in homes]
    return [np.append(own, rng.choice(own, n - len(own))) for own, n in zip(cells, largest, strict=True)]


class EpochReset:
    """Adam forgets its moments before the first step of each epoch, as in code that makes an optimiser for each epoch.

    Parameters
    ----------
    batches : ClusterBatches
        Which knows the epoch.
    """

    def __init__(self, batches: ClusterBatches):
        self.batches, self.epoch = batches, 0

    def __call__(self, optimizer, net):
        optimizer.register_step_pre_hook(self.forget)

    def forget(self, optimizer, args, kwargs):
        """Before a step: drop the state of the epoch before."""
        if self.epoch != self.batches.epoch:
            self.epoch = self.batches.epoch
            optimizer.state.clear()

    def about(self) -> dict:
        """What tells its checkpoints from others."""
        return {"moments": "of one epoch"}
