"""Pre-training, fine-tuning and prediction with a relation network."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, fields

import numpy as np
import torch
from scipy import sparse
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted
from torch.nn.functional import one_hot

from shared.data.constraints import Between, Constraint, Flag, Maybe, Positive, SettingError, Whole, Widths
from shared.data.errors import warn
from shared.methods.base import Example, example_cells
from shared.methods.protocols import FewShotClassifier, Pretrained, Transformer
from shared.methods.tmp.network import CHOICES, RelationNet
from shared.methods.torch_method import ONE_PROCESS, TorchMethod
from shared.nn.blocks import sparse_first
from shared.nn.episodes import EpisodeSampler, episode_sizes, unit_range
from shared.nn.sparse import few_entries
from shared.train import History, resolve_device
from shared.train.episodes import MetaConfig, meta_train

DENSE = 2**28  # a sparse table with fewer entries (1 GiB) is made dense once, not row by row in every episode


@dataclass(eq=False, repr=False)
class TMP(Pretrained, FewShotClassifier, Transformer, TorchMethod):
    """Meta-train on a large collection, fine-tune on a few cells of each type, and name new cells.

    Five lines, with AnnData of the same genes in the same order::

        model = TMP(random_state=0)
        model.pretrain(bulk, "tissue")
        model.fit(support)  # obs["cell_type"]
        names = model.predict(query)
        names = model.set_params(unknown=0.5).predict(query)  # or "unknown"

    Parameters
    ----------
    widths, relation : sequence of int
        Of the encoder and the relation network; (4000, 2000, 1000) and (500, 100) in paper and code.
    n_way, k_shot, n_query : int
        Classes, support rows and query rows of an episode; 5, 5 and 10 in the paper. `fit` draws smaller episodes where
        the cells do not suffice, see :func:`shared.nn.episodes.episode_sizes`.
    episodes, lr, lr_step : int, float, int or None
        Of `pretrain`: 300,000 episodes at 5e-4, halved every 100,000, in paper and code.
    fit_episodes, fit_lr, fit_lr_step : int, float, int or None
        Of `fit`: up to 100,000 at 1e-4 in the paper; 50,000, halved every 10,000, in the code, which has 5e-4 for TCGA.
        In 500 episodes 1e-4 cannot leave what was pre-trained, however far from it the cells are; 5e-4 can. With no
        episodes the network stays as it was, and the cells given are only averaged.
    stop_at : float or None
        `fit` stops at this training accuracy; 0.99 in paper and code, measured every 2,500 episodes (`log_every`).
    meta_batch, step_order, log_every, precision, compile, device, devices, progress
        See :class:`shared.train.episodes.MetaConfig`.
    norm, clamp, proto, loss
        See :class:`shared.methods.tmp.network.RelationNet`.
    scale : bool
        Scale each cell to [0, 1] by its own range first, as the code does (:func:`shared.nn.episodes.unit_range`).
    unknown : float or None
        Answer ``"unknown"`` where the best score is below this. A score is the network's sigmoid, trained to be 1 for
        the right class and 0 for others; with ``loss="ce"`` it is a probability. None: always name a class.
    checkpoint : path, optional
        Where `pretrain` keeps its progress; a killed run goes on from there. `fit` keeps its own beside it and removes
        it at the end.
    random_state : int, RandomState or None
        Initial weights, classes and rows of all episodes.

    Attributes
    ----------
    classes_ : ndarray
        Classes, sorted.
    network_ : RelationNet
        After `fit`: the fine-tuned network, on the CPU, in evaluation mode.
    prototypes_ : float32 tensor, prototypes × ``widths[-1]``
        What queries are compared with: an average for each class, or each cell with ``proto="pairwise"``.
    members_ : float64 tensor, prototypes × classes; or None
        Weight of each cell in its class's score with ``proto="pairwise"``.
    history_ : shared.train.History
        Of `fit`; of `pretrain` it is ``pretrained_["history"]``.
    pretrained_ : dict
        ``state`` (tensors by name), ``history``, ``width``, ``genes`` (names or None), ``n_genes``, and ``is_log``,
        whether it read logarithms or the like. A clone shares it, so that one pre-training serves many `fit`.
    n_features_in_ : int
        Number of genes; ``feature_names_in_`` holds their names where they were given.

    Notes
    -----
    A wide encoder is trained on CSR of few entries by these alone (:func:`shared.nn.sparse.few_entries`): 18,000 genes
    into 4,000 units, for one. The numbers are those of a dense table up to rounding.

    Bundled cell lines (32 subtypes) to bundled blood cells, 15 of each of 9 types of run 1, named in run 2; 1,847
    genes, 600 episodes on the lines, three seeds: accuracy 0.75, without `pretrain` 0.74, with ``RELEASED`` and the
    original order 0.31 and 0.27, zero-shot 0.27; nearest centroid on the same scaled cells 0.84. Threshold 0.5, with
    platelets left out of the support: 23 to 56 in 100 of them were unknown, and 6 or 7 in 100 of the other cells.
    """

    constraints = CHOICES | {
        "widths": Widths(),
        "relation": Widths(),
        **dict.fromkeys(("n_way", "k_shot", "n_query", "meta_batch", "log_every"), Whole(1)),
        **dict.fromkeys(("episodes", "fit_episodes"), Whole(0)),
        **dict.fromkeys(("lr", "fit_lr"), Positive()),
        **dict.fromkeys(("lr_step", "fit_lr_step"), Maybe(Whole(1))),
        "scale": Flag(),
        "stop_at": Maybe(Between(-1, 2)),
        "compile": Constraint(lambda v: isinstance(v, (bool, str)), "is neither True, False nor the name of a mode"),
        "devices": ONE_PROCESS,
    }

    widths: Sequence[int] = (256, 128, 64)
    relation: Sequence[int] = (64, 32)
    _: KW_ONLY
    n_way: int = 5
    k_shot: int = 5
    n_query: int = 10
    episodes: int = 2000
    lr: float = 5e-4
    lr_step: int | None = None
    fit_episodes: int = 500
    fit_lr: float = 5e-4
    fit_lr_step: int | None = None
    stop_at: float | None = 0.99
    meta_batch: int = 1
    step_order: str = "standard"
    log_every: int = 100
    norm: str = "running"
    clamp: str = "none"
    proto: str = "mean"
    loss: str = "mse_mean"
    scale: bool = True
    unknown: float | None = None
    precision: str = "32"
    compile: bool | str = False

    @classmethod
    def example(cls):
        """A small problem to try it on."""
        settings = {"n_way": 3, "n_query": 5, "episodes": 20, "fit_episodes": 30, "log_every": 10}
        model = cls((16,), (8,), fit_lr=2e-2, device="cpu", random_state=0, **settings)
        return Example(model, example_cells(), pretrain=(example_cells(seed=1), "cell_type"), checked={"scale": False})

    def build(self, cells):
        """The network for these cells."""
        dims = (cells.n_genes, *self.widths)
        return RelationNet(dims, self.relation, self.norm, self.clamp, self.proto, self.loss)

    def pretrain(self, X, y="cell_type", *, genes=None, callbacks=()):
        """Learn to compare, by episodes of a large collection.

        Parameters
        ----------
        X : AnnData, DataFrame, ndarray or sparse matrix, samples × genes
            Log expression or z-scores; of an AnnData ``X`` is read. Where counts meet a network of logarithms, a
            :class:`shared.data.errors.DataWarning` says so.
        y : array of str or int, samples; or str
            Labels; of an AnnData also the name of a column of ``obs``.
        genes : sequence of str, optional
            Names of the columns, where `X` has none.
        callbacks : sequence of callable
            See :func:`shared.train.episodes.meta_train`.

        Returns
        -------
        TMP

        Raises
        ------
        ValueError
            If a setting cannot be used, inputs hold NaN or infinities or do not fit together, or too few classes have
            rows enough for an episode.
        shared.train.TrainingError
            If the loss is not finite, or the checkpoint is of another run.
        """
        cells = self._read(X, y, genes=genes, reset=True, pretrains=True)
        check_classification_targets(cells.y)
        seed = self._seed()
        net = self.new_network(cells, seed=seed)
        sizes = self.n_way, self.k_shot, self.n_query
        history = self._meta_train(net, self._scaled(cells), cells.y, sizes, callbacks, seed=seed, stop_at=None)
        return self._keep(cells, state=dict(net.state_dict()), history=history, width=self.widths[-1])

    def fit(self, X, y="cell_type", *, genes=None, callbacks=()):
        """Fine-tune on a few cells of each class, and remember them to compare with.

        Parameters are those of :meth:`pretrain`. Without `pretrain` the network starts from random weights.

        Raises
        ------
        ValueError
            As `pretrain`; if there is one class only; or if genes are not those of `pretrain` in their order.
        """
        cells = self._read_labelled(X, y, genes=genes)
        seed, X = self._seed(), self._scaled(cells)
        net, self.history_ = self._initial(cells, seed), History()
        sizes = episode_sizes(np.bincount(cells.codes), self.n_way, self.k_shot, self.n_query)
        if self.fit_episodes and sizes is not None:
            checkpoint = self._checkpoint_of_fit(cells, seed=seed)
            self.history_ = self._meta_train(
                net, X, cells.codes, sizes, callbacks, seed=seed, checkpoint=checkpoint,
                episodes=self.fit_episodes, lr=self.fit_lr, lr_step=self.fit_lr_step,
            )  # fmt: skip
            if checkpoint is not None:
                checkpoint.unlink(missing_ok=True)
        elif self.fit_episodes:
            said = "the classes have too few cells for an episode, so the network stays as it is and cells are averaged"
            warn(f"{said}: give two cells or more of two classes")
        self._remember(torch.from_numpy(self._encode(net, X)), torch.as_tensor(cells.codes))
        self.network_ = net
        return self

    def _meta_train(self, net, X, y, sizes, callbacks, **settings):
        """Train in place by episodes, with this estimator's settings of the same names unless others are given."""
        own = {field.name: getattr(self, field.name) for field in fields(MetaConfig) if hasattr(self, field.name)}
        plain = resolve_device(self.device).type == "cpu" and self.precision == "32" and not self.compile
        small = sparse.issparse(X) and np.prod(X.shape, dtype=float) < DENSE
        sampler = EpisodeSampler(X.toarray() if small else X, y, *sizes)
        with sparse_first(net.encoder, plain and few_entries(X, self.widths[0])):
            history = meta_train(net, sampler, MetaConfig(**own | settings), callbacks)
            net.cpu()
        return history

    def _initial(self, cells, seed):
        """A network with the weights that were pre-trained; random ones where nothing was."""
        net = self.new_network(cells, seed=seed)
        if hasattr(self, "pretrained_"):
            try:
                net.load_state_dict(self.pretrained_["state"])
            except RuntimeError as error:
                raise SettingError(
                    f"pre-trained was a network with other settings than widths={self.widths!r}, "
                    f"relation={self.relation!r} and norm={self.norm!r}: set them back, or pretrain again"
                ) from error
        return net.eval()

    def _scaled(self, cells):
        return unit_range(cells.X) if self.scale else cells.X

    def _remember(self, features, codes):
        """What queries are compared with: an average for each class, or each cell with ``proto="pairwise"``."""
        members = one_hot(codes, len(self.classes_)).double()
        members /= members.sum(0)
        if self.proto == "pairwise":
            self.prototypes_, self.members_ = features, members
        else:
            # A sum of as many as an episode has: classes given more cells would else be scored on another scale.
            self.prototypes_ = members.T.float() @ features * (self.k_shot if self.proto == "sum" else 1)
            self.members_ = None

    def _chunk(self, n):
        """Rows at a time: with batch statistics all at once, since they are one batch."""
        return n if self.norm == "batch" else 4096

    def _encode(self, net, X):
        return self.forward(net.encoder, X, self._chunk(X.shape[0]))

    @property
    def _n_features_out(self):
        return self.prototypes_.shape[1] if hasattr(self, "network_") else self.pretrained_["width"]

    def transform(self, X, *, genes=None):
        """Embedding of each cell: float32 ndarray, cells × ``widths[-1]``; before `fit`, by the pre-trained encoder."""
        if hasattr(self, "network_"):
            return self._encode(self.network_, self._scaled(self._read(X, genes=genes)))
        cells = self._read_pretrained(X, genes=genes)
        return self._encode(copy.copy(self)._initial(cells, seed=0), self._scaled(cells))

    def scores(self, X, *, genes=None):
        """How alike each cell and each class are, from 0 to 1: float32 ndarray, cells × classes."""
        check_is_fitted(self, "network_")
        features, scores = torch.from_numpy(np.array(self.transform(X, genes=genes), order="C")), []
        with torch.inference_mode():
            for some in features.split(self._chunk(len(features))):
                # In float64 the sigmoid of a cell does not depend, in the last digit, on where in the table it stands.
                logits = self.network_.compare(self.prototypes_[None], some[None]).double()
                scores.append(self.network_.score(logits, self.members_)[0].float())
        return torch.cat(scores).numpy()
