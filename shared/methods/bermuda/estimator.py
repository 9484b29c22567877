"""The estimator: scaling by batch, clusters, their similarity, pairs, and the autoencoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial

import numpy as np
from sklearn.utils.validation import check_is_fitted

from shared.data.cells import column, label_array, table_of_cells
from shared.data.constraints import Constraint, Flag, Maybe, NotNegative, OneOf, Positive, Probability, Whole, Widths
from shared.data.errors import DataError, warn
from shared.methods.base import Example, example_cells
from shared.methods.bermuda.clusters import CLUSTERINGS, find_clusters
from shared.methods.bermuda.network import WIDTHS, Autoencoder, ClusterBatches, EpochReset, bermuda_step
from shared.methods.bermuda.scaling import batch_ranges, scaled
from shared.methods.bermuda.similarity import batches_of, cluster_pairs, metaneighbor
from shared.methods.protocols import Transformer
from shared.methods.torch_method import ONE_PROCESS, TorchMethod
from shared.train import resolve_device

PUBLISHED = {"original": True, "weight": 1.0, "weight_decay": 5e-5, "epochs": 2000, "lr_step": 200}
DEVIATIONS = Constraint(
    lambda v: isinstance(v, (list, tuple, np.ndarray)) and len(v) > 0 and all(map(Positive().accepts, v)),
    "are no widths of kernels: give one positive number or more",
)


@dataclass(eq=False, repr=False)
class Bermuda(Transformer, TorchMethod):
    """An embedding in which clusters that are alike in two batches have one distribution.

    A type that one batch lacks has no partner there and is not matched; what keeps it apart is that it must be told
    from others to be reconstructed. Nothing else pushes clusters apart. Each gene is scaled from 0 to 1 within each
    batch, which by itself takes away what shifts or stretches a gene in a whole batch.

    Parameters
    ----------
    hidden : sequence of int
        Units of the encoder's layers; the last is the code. The paper's are (200, 20), and (20, 2) for a picture.
    threshold : float
        Least similarity of two clusters that are matched; the published runs take 0.90 for pancreas and 0.85 for blood.
    mutual : bool
        Match two clusters only where each is the other's best, so that two types are not joined in a chain.
    clustering : {"louvain", "leiden"}
        See :func:`~shared.methods.bermuda.find_clusters`. Louvain is the default, for Leiden's code is under the GPL.
    resolution : float
        The higher, the more clusters; the paper's 0.6 belongs to another graph of neighbours.
    weight : float
        Of the discrepancy beside the reconstruction, both as means. The published sums over 21 clusters, 11 pairs and
        five kernels weigh like 2.6.
    widths : sequence of float, optional
        Standard deviations of the kernels in the discrepancy, in the units of the code, which the network may shrink.
        None: multiples of the median distance between the cells of matched clusters, so that shrinking gains nothing.
    original : bool
        As the published code: sums in the loss, pairs that count alike, cells drawn as
        :class:`~shared.methods.bermuda.ClusterBatches` says under `homes`, Adam's moments forgotten after each epoch,
        and ranked correlations in the similarity. By default pairs weigh by their similarity, which differs little
        above the threshold. The settings that go with it are in :data:`~shared.methods.bermuda.PUBLISHED`.
    epochs : int
        At most; in one, the largest cluster is seen once, so that the fewer cells there are, the fewer steps it has.
        The weight rises over them, from 0. The published runs take 2000.
    lr_step : int, optional
        Epochs after which the learning rate is halved; the default and the published 200 are a tenth of all epochs.
    patience : int, optional
        Stop when the loss at the full weight has not fallen by a thousandth in so many epochs; no label is looked at.
    batch_size : int
        Cells of each cluster in a batch.
    lr, weight_decay, device, devices, progress
        See :class:`shared.train.Config`; the optimiser is Adam. The published decay of 5e-5 stands beside a sum over
        clusters.
    checkpoint : path, optional
        Where `fit` keeps its progress; a killed fit on the same cells goes on from there.
    random_state : int, RandomState or None
        Clusters, initial weights and order of the cells.

    Attributes
    ----------
    batches_ : ndarray of str, batches
        Their names, sorted.
    clusters_ : ndarray of int64, cells
        The cluster of each cell of the fit; no two batches share one.
    cluster_batch_ : ndarray of int64, clusters
        The batch of each, as a place in ``batches_``.
    similarity_ : ndarray of float64, clusters × clusters
        See :func:`~shared.methods.bermuda.metaneighbor`.
    pairs_ : ndarray of int64, 2 × pairs
        Clusters that were matched.
    scale_ : dict of str to ndarray, batches × genes
        ``low`` and ``high`` of each gene in each batch.
    network_, history_
        As in :class:`shared.methods.network_classifier.NetworkClassifier`; the history holds both parts of the loss,
        means over an epoch.

    References
    ----------
    Wang and others, *BERMUDA: a novel deep transfer learning method for single-cell RNA sequencing batch correction
    reveals hidden high-resolution cellular subtypes* (Genome Biology, 2019).
    """

    constraints = {
        **dict.fromkeys(("mutual", "original"), Flag()) | dict.fromkeys(("lr_step", "patience"), Maybe(Whole(1))),
        **{"hidden": Widths(), "threshold": Probability(), "clustering": OneOf(*CLUSTERINGS), "batch_size": Whole(2)},
        **{"resolution": Positive(), "weight": NotNegative(), "widths": Maybe(DEVIATIONS), "devices": ONE_PROCESS},
    }

    hidden: Sequence[int] = (200, 20)
    _: KW_ONLY
    threshold: float = 0.85
    mutual: bool = False
    clustering: str = "louvain"
    resolution: float = 0.6
    weight: float = 2.5
    widths: Sequence[float] | None = WIDTHS
    original: bool = False
    epochs: int = 500
    lr_step: int | None = 50
    patience: int | None = None
    batch_size: int = 50
    lr: float = 1e-3
    weight_decay: float = 0.0

    @classmethod
    def example(cls):
        """A small problem to try it on."""
        cells, model = example_cells(), cls((16, 4), epochs=8, batch_size=8, lr=1e-2, device="cpu", random_state=0)
        return Example(model, cells, y=None, fit={"batch": cells.obs["domain"].to_numpy()})

    def build(self, cells):
        """The network for these cells."""
        return Autoencoder(cells.n_genes, self.hidden)

    def fit(self, X, y=None, batch=None, *, clusters=None, genes=None):
        """Cluster each batch, match clusters across batches, and train the autoencoder.

        Parameters
        ----------
        X : AnnData, DataFrame, ndarray or sparse matrix, cells × genes
            Logged expression of variable genes, all batches one below another.
        y : object, optional
            Not used.
        batch : array of str or int, cells; or str
            Batches, any number of them. Of an AnnData also the name of a column of ``obs``. Without it all cells are of
            one batch, and nothing is matched.
        clusters : array of str or int, cells; or str, optional
            Clusters or types, in place of those that are found; a name counts within its batch only.
        genes : sequence of str, optional
            Names of the columns, where `X` has none.

        Raises
        ------
        ValueError
            If a setting, batch or cluster cannot be used.
        ImportError
            If Leiden is asked for and not installed.
        shared.train.TrainingError
            If training fails.
        """
        obs = table_of_cells(X)
        names = [column(obs, part) if isinstance(part, str) else part for part in (batch, clusters)]
        cells = self._read(X, genes=genes, reset=True)
        batch = np.full(len(cells), "all") if batch is None else label_array(names[0], len(cells), "batch")
        seed = self._seed()
        self.batches_, of_cell = np.unique(batch, return_inverse=True)
        self.clusters_ = self._clusters(cells.X, of_cell, names[1], seed)
        self.cluster_batch_, _ = batches_of(self.clusters_, of_cell, len(cells))
        self.similarity_ = metaneighbor(cells.X, self.clusters_, of_cell, ranked=self.original)
        self.pairs_ = cluster_pairs(self.similarity_, self.cluster_batch_, self.threshold, self.mutual)
        if not self.pairs_.size:
            why = "all cells are of one batch: pass batch=" if len(self.batches_) == 1 else self._unlike()
            warn(f"no cluster is matched, so that only the scaling brings batches together: {why}")
        self.scale_ = batch_ranges(cells.X, of_cell)
        batches = self._batches(cells.X, of_cell, seed)
        net = self.new_network(cells, seed=seed)
        step = partial(bermuda_step, widths=self.widths, summed=self.original)
        progress = self._checkpoint_of_fit(replace(cells, y=self.clusters_), replace(cells, y=of_cell), seed=seed)
        how = {"optimizer": "adam", "min_delta": 1e-3, "checkpoint": progress}
        how |= {"monitor": self._objective, "on_optimizer": EpochReset(batches) if self.original else None}
        self.history_, self.network_ = self.train(net, step, batches, seed=seed, **how), net
        return self

    def transform(self, X, batch=None, *, genes=None):
        """Codes, float32 ndarray, cells × ``hidden[-1]``. Neither they nor what they decode to is corrected expression.

        Parameters
        ----------
        X : AnnData, DataFrame, ndarray or sparse matrix, cells × genes
            The genes of the fit, in its order.
        batch : array of str or int, cells; or str
            The batch of each cell, one of the fit, whose ranges scale it. Without it the ranges of all batches together
            do, which is right for the cells of the fit only where there was one batch; others are warned of.
        genes : sequence of str, optional
            Names of the columns, where `X` has none.

        Raises
        ------
        ValueError
            If the genes are not those of the fit, or a batch was not there.
        """
        check_is_fitted(self, "network_")
        obs, known = table_of_cells(X), self.batches_.tolist()
        batch = column(obs, batch) if isinstance(batch, str) else batch
        cells = self._read(X, genes=genes)
        low, high = self.scale_["low"], self.scale_["high"]
        if batch is None:
            if len(known) > 1:
                warn("cells are scaled by the ranges of all batches together: pass batch= to scale each by its own")
            low, high, of_cell = low.min(0)[None], high.max(0)[None], np.zeros(len(cells), np.int64)
        else:
            names, of_cell = np.unique(label_array(batch, len(cells), "batch"), return_inverse=True)
            new = [name for name in names if name not in known]
            if new:
                raise DataError(
                    f"batch {str(new[0])!r} was not fitted (there were {', '.join(known[:5])}): fit with its cells"
                )
            of_cell = np.array([known.index(name) for name in names])[of_cell]
        chunks = (slice(start, start + 4096) for start in range(0, len(cells), 4096))
        parts = [self.forward(self.network_.encode, scaled(cells.X[s], of_cell[s], low, high)) for s in chunks]
        return np.concatenate(parts)

    def fit_transform(self, X, y=None, batch=None, *, clusters=None, genes=None):
        """:meth:`fit`, then :meth:`transform` of the same cells, each by its own batch."""
        return self.fit(X, y, batch, clusters=clusters, genes=genes).transform(X, batch, genes=genes)

    def _clusters(self, X, of_cell, names, seed):
        """Clusters that were given or are found, numbered through all batches."""
        if names is not None:
            pairs = np.char.add(np.char.mod("%08d ", of_cell), label_array(names, len(of_cell), "cluster"))
            return np.unique(pairs, return_inverse=True)[1].astype(np.int64)
        labels, first = np.empty(len(of_cell), np.int64), 0
        for b in range(of_cell.max() + 1):
            rows = of_cell == b
            labels[rows] = first + find_clusters(X[rows], self.resolution, self.clustering, seed)
            first = labels[rows].max() + 1
        return labels

    def _batches(self, X, of_cell, seed):
        sizes = np.bincount(self.clusters_)
        largest = [sizes[self.cluster_batch_ == b].max() for b in range(len(self.batches_))]
        if self.original and min(largest) < self.batch_size:
            name, n = self.batches_[np.argmin(largest)], min(largest)
            raise DataError(
                f"the largest cluster of batch {str(name)!r} has {n} cells, fewer than batch_size={self.batch_size}: "
                "original=True then has no batch of it; lower batch_size, or set original=False"
            )
        X = scaled(X, of_cell, self.scale_["low"], self.scale_["high"])
        alike = np.ones(self.pairs_.shape[1]) if self.original else self.similarity_[tuple(self.pairs_)]
        how = {"epochs": self.epochs, "weight": self.weight, "homes": self.cluster_batch_ if self.original else None}
        place = resolve_device(self.device)
        return ClusterBatches(X, self.clusters_, self.pairs_, alike, self.batch_size, seed, place, **how)

    def _objective(self, net, row):
        """What `patience` goes by: the logarithm of the epoch's loss at the full weight."""
        return math.log(max(row["reconstruction"] + self.weight * row["transfer"], 1e-12))

    def _unlike(self):
        best = self.similarity_.max(initial=0)
        return f"the most alike reach {best:.2f}, below threshold={self.threshold:g}: lower it, or look at the clusters"
