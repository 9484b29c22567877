"""The estimator: a joint embedding, types by vote, and training again on the types that were voted."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from functools import partial

import numpy as np
from sklearn.utils.validation import check_is_fitted

from shared.data.cells import column, table_of_cells
from shared.data.constraints import Flag, Maybe, NotNegative, OneOf, Positive, Probability, Whole
from shared.data.errors import DataError
from shared.methods.base import Example, example_cells
from shared.methods.protocols import Classifier, DomainAware, Transformer
from shared.methods.scjoint.network import SAMPLINGS, JointBatches, JointInput, JointNetwork, binarized, scjoint_step
from shared.methods.scjoint.voting import (
    nearest_labelled,
    published_confidence,
    published_reference,
    unit_length,
    vote_shares,
)
from shared.methods.torch_method import ONE_PROCESS, TorchMethod
from shared.train import resolve_device
from shared.train.batches import seed_of

PUBLISHED = {"original": True, "sampling": "replacement", "clip_norm": None}


@dataclass(eq=False, repr=False)
class ScJoint(DomainAware, Classifier, Transformer, TorchMethod):
    """Types of labelled cells of one modality for cells of another, on one list of genes.

    Target cells take part in the training, without labels: what is predicted for them is transductive. A type that the
    source lacks is given another's name, unless `unknown` rejects it.

    Parameters
    ----------
    width : int
        Features of the embedding.
    n_proteins : int
        Last columns, which are read as they are. Of all others only whether a gene is expressed is read.
    binarize : bool
        False: read every column as it is, for proteins alone.
    top : float
        Share of the target cells of a batch that are pulled to their nearest source cell.
    centre : float
        Weight of the pull to the centres in stage 3. The published runs take 1, and 20 for many data sets.
    centres : {"fixed", "trained"}
        Centres of the types are random points. In the published code they stay where they are, for no optimiser has
        them.
    init : {"random", "stage1"}
        What stage 3 starts from. The published code trains from scratch, though it has a function to go on.
    k : int
        Neighbours that vote.
    unknown : float or None
        Answer ``"unknown"`` where the best share of the votes is below this.
    sampling : {"shuffled", "replacement", "balanced"}
        See :class:`~shared.methods.scjoint.JointBatches`; types are not weighed otherwise.
    l1 : float
        Weight of the mean absolute value of each tensor of weights.
    original : bool
        As the published code: not all of 40,000 labelled cells or more vote (:func:`published_reference`), and
        :meth:`confidence` is :func:`published_confidence`. The settings that go with it are in
        :data:`~shared.methods.scjoint.PUBLISHED`.
    epochs, retrain_epochs : int
        Of stage 1 and of stage 3. With ``retrain_epochs=0`` the first vote stays.
    batch_size : int
        Cells of each data set in a batch. An epoch has as many batches as fit into the target cells.
    lr, retrain_lr : float
        Of stage 1 and of stage 3.
    lr_step : int, optional
        Epochs after which a learning rate is divided by 10.
    clip_norm : float or None
        Largest norm of the gradient. Embeddings have no bound, and without it stage 3 may diverge.
    device, devices, progress
        See :class:`shared.train.Config`; the optimiser is SGD with momentum 0.9.
    checkpoint : path, optional
        Where `fit` keeps its progress; a killed fit on the same cells goes on from there. If it was killed in the
        second training, the first one is done again.
    random_state : int, RandomState or None
        Initial weights, centres and draws of cells.

    Attributes
    ----------
    classes_ : ndarray
        The types, sorted.
    reference_, reference_labels_ : float32 ndarray, cells × ``width``; int64 ndarray, cells
        Embeddings and types of the labelled cells that vote.
    pseudo_labels_, pseudo_shares_ : ndarray, target cells; float32 ndarray, target cells × types
        Types after stage 1 by vote, in the order of the target cells, and the shares they had.
    network_, history_
        As in :class:`shared.methods.network_classifier.NetworkClassifier`; the history, of the last stage, holds the
        parts of the loss.
    first_history_ : shared.train.History
        Of stage 1.

    References
    ----------
    Lin and others, *scJoint integrates atlas-scale single-cell RNA-seq and ATAC-seq data using transfer learning*
    (Nature Biotechnology, 2022).
    """

    expects = "any"
    constraints = {
        **dict.fromkeys(("width", "k"), Whole(1)) | dict.fromkeys(("n_proteins", "retrain_epochs"), Whole()),
        **dict.fromkeys(("binarize", "original"), Flag()) | dict.fromkeys(("centre", "l1"), NotNegative()),
        **{"centres": OneOf("fixed", "trained"), "init": OneOf("random", "stage1"), "sampling": OneOf(*SAMPLINGS)},
        **{"top": Probability(), "unknown": Maybe(Probability()), "batch_size": Whole(2), "devices": ONE_PROCESS},
        **{"retrain_lr": Positive(), "lr_step": Maybe(Whole(1))},
    }

    width: int = 64
    _: KW_ONLY
    n_proteins: int = 0
    binarize: bool = True
    top: float = 0.8
    centre: float = 1.0
    centres: str = "fixed"
    init: str = "random"
    k: int = 30
    unknown: float | None = None
    sampling: str = "shuffled"
    l1: float = 0.1
    original: bool = False
    epochs: int = 20
    retrain_epochs: int = 20
    batch_size: int = 256
    lr: float = 1e-2
    retrain_lr: float = 1e-2
    lr_step: int | None = 20
    clip_norm: float | None = 10.0

    @classmethod
    def example(cls):
        """A small problem to try it on."""
        cells = example_cells()
        model = cls(8, k=5, epochs=20, retrain_epochs=10, batch_size=16, device="cpu", random_state=0)
        checked = {"binarize": False, "epochs": 60, "retrain_epochs": 0}
        return Example(model, cells, fit={"sample_domain": cells.obs["domain"].to_numpy()}, checked=checked)

    @property
    def _n_features_out(self):
        return self.built_["settings"]["width"]

    def build(self, cells):
        """The network for these cells."""
        return JointNetwork(cells.n_genes, self.width, cells.n_classes, self.centres == "trained")

    def fit(self, X, y="cell_type", sample_domain=None, *, genes=None):
        """Train on labelled source cells and unlabelled target cells, vote, and train on the votes.

        Parameters
        ----------
        X : AnnData, DataFrame, ndarray or sparse matrix, cells × genes
            Expression of source cells and gene activity of target cells, counts or logarithms.
        y : array of str or int, cells; or str
            Types; those of target cells are not looked at. Of an AnnData also the name of a column of ``obs``.
        sample_domain : int array, cells; or str, optional
            Positive for source, negative for target; cells with one number are one data set, so that 1, 2, -1 are two
            of RNA and one of ATAC. Without it all cells are one source, and there is no stage 3.
        genes : sequence of str, optional
            Names of the columns, where `X` has none.

        Raises
        ------
        ValueError
            If a setting, label or domain cannot be used, or the source holds one type only.
        shared.train.TrainingError
            If training fails.
        """
        source, target = self._read_domains(X, y, sample_domain, genes=genes)
        of_source, of_target = self._data_sets(X, sample_domain, len(source))
        n_raw, seed = self._n_raw(source.n_genes), self._seed()
        inputs = [JointInput(source.X, n_raw, rows) for rows in of_source]
        inputs += [JointInput(target.X, n_raw, rows) for rows in of_target]
        if min(part.n for part in inputs) < 2:
            raise DataError("a data set of one cell has no covariance: give two cells or more of each sample_domain")
        labels = [source.codes[rows] for rows in of_source]
        how = {"n_sources": len(of_source), "batch_size": self.batch_size, "device": resolve_device(self.device)}
        how |= {"sampling": self.sampling}
        progress = self._checkpoint_of_fit(source, target, seed=seed)
        net = self.new_network(source, seed=seed)
        batches = JointBatches(inputs, labels, seed=seed, **how)
        self.history_ = self.first_history_ = self._trained(net, batches, seed, progress)
        self._set_reference(net, source)
        self.network_ = net
        if not len(target):
            return self
        self.pseudo_shares_ = self._shares(target.X)
        voted = self.pseudo_shares_.argmax(1)
        self.pseudo_labels_ = self.classes_[voted]
        if self.retrain_epochs:
            labels += [voted[rows] for rows in of_target]
            again = seed_of(seed, 3)
            if self.init == "random":
                net = self.new_network(source, seed=again)
            batches = JointBatches(inputs, labels, seed=again, **how)
            progress = progress and progress.with_name(f"{progress.stem}.again{progress.suffix}")
            more = {"epochs": self.retrain_epochs, "lr": self.retrain_lr}
            self.history_, self.network_ = self._trained(net, batches, again, progress, **more), net
            self._set_reference(net, source)
        return self

    def transform(self, X, *, genes=None):
        """Embeddings of unit length: float32 ndarray, cells × ``width``."""
        check_is_fitted(self, "network_")
        return self._embedding(self.network_, self._read(X, genes=genes).X)

    def predict_proba(self, X, *, genes=None):
        """Share of each type among the `k` nearest labelled cells: float32 ndarray, cells × types, rows sum to 1.

        A labelled cell of the fit is one of its own neighbours.
        """
        check_is_fitted(self, "network_")
        return self._shares(self._read(X, genes=genes).X)

    def head_proba(self, X, *, genes=None):
        """Probability of each type by the network's last layer: float32 ndarray, cells × types.

        After stage 3 it is nearly what was voted after stage 1, which it was trained to say.
        """
        check_is_fitted(self, "network_")
        return self.probabilities(self.network_, self._read(X, genes=genes).X)

    def confidence(self, X, *, genes=None):
        """Share of the votes for the type that is predicted, (n_cells,), from 0 to 1; see `original` for another."""
        check_is_fitted(self, "network_")
        X = self._read(X, genes=genes).X
        shares = self._shares(X)
        if not self.original:
            return shares.max(1)
        near = nearest_labelled(self.reference_, self._embedding(self.network_, X), self.k)
        return published_confidence(self.reference_labels_, shares.argmax(1), *near)

    def forward(self, net, X, size=512):
        """As in :class:`~shared.methods.torch_method.TorchMethod`, fewer cells at a time: they become dense."""
        return super().forward(net, X, size)

    def rows(self, X, device):
        """Some cells as the network reads them."""
        return super().rows(binarized(X, self._n_raw(X.shape[1])), device)

    def _n_raw(self, n_genes):
        if self.n_proteins > n_genes:
            raise DataError(f"n_proteins={self.n_proteins} and X has {n_genes} columns: they are the last of these")
        return self.n_proteins if self.binarize else n_genes

    def _data_sets(self, X, sample_domain, n):
        """Rows of each data set among the source cells, and among the target cells."""
        if sample_domain is None:
            return [np.arange(n)], []
        obs = table_of_cells(X)
        domain = np.asarray(column(obs, sample_domain) if isinstance(sample_domain, str) else sample_domain)
        sides = domain[domain > 0], domain[domain < 0]
        return [[np.flatnonzero(side == d) for d in np.unique(side)] for side in sides]

    def _trained(self, net, batches, seed, progress, **settings):
        step = partial(scjoint_step, top=self.top, centre=self.centre, l1=self.l1)
        how = {"optimizer": "sgd", "lr_gamma": 0.1, "checkpoint": progress}
        return self.train(net, step, batches, seed=seed, **how | settings)

    def _embedding(self, net, X):
        return unit_length(self.forward(net.encode, X))

    def _set_reference(self, net, source):
        rows = published_reference(len(source)) if self.original else slice(None)
        self.reference_, self.reference_labels_ = self._embedding(net, source.X)[rows], source.codes[rows]

    def _shares(self, X):
        shares = vote_shares(self.reference_, self.reference_labels_, self._embedding(self.network_, X), self.k)
        return np.pad(shares, ((0, 0), (0, len(self.classes_) - shares.shape[1])))
