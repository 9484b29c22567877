"""A network that learns to compare profiles on bulk tissue, and compares single cells after a little tuning.

After Park, Hauschild and Heider, *Transfer learning compensates limited data, batch effects and technological
heterogeneity in single-cell sequencing* (NAR Genomics and Bioinformatics, 2021). An encoder turns a profile into
features; the features of a class's few support cells are averaged; a second network, the relation network, looks at an
average and a query side by side and says how alike they are. Both learn from episodes (:mod:`shared.nn.episodes`): on
bulk samples first, then on a few cells of each type.

Paper and code (the authors', 2021 to 2024) differ in places. Each has an option here; the docstrings say what the two
do and why the default is what it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted
from torch.nn.functional import one_hot

from shared.data.genes import names_of
from shared.methods.inputs import NO_LABELS, are_linear, cells_of, warn_mixed
from shared.methods.relation_net import RelationNet
from shared.nn.episodes import EpisodeSampler, episode_sizes, few_shot_split, unit_range  # noqa: F401
from shared.train import TrainingError, load_model, resolve_device, save_model
from shared.train.episodes import MetaConfig, MetaHistory, meta_train

DENSE = 2**28  # a sparse table with fewer entries (1 GiB) is made dense once, not row by row in every episode

# The network as the authors' code runs it; `RelationNet(dims, **RELEASED)` and `TMP(**RELEASED, ...)` take it whole.
RELEASED = {"norm": "batch", "clamp": "all", "proto": "mean", "loss": "mse_mean"}


class TMP(TransformerMixin, ClassifierMixin, BaseEstimator):
    """Meta-train on a large collection, tune on a few cells of each type, and name new cells.

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
    meta_batch, step_order, log_every, precision, compile, device, progress, checkpoint
        See :class:`MetaConfig`; the checkpoint is of `pretrain`.
    norm, clamp, proto, loss
        See :class:`shared.methods.relation_net.RelationNet`.
    scale : bool
        Scale each cell to [0, 1] by its own range first, as the code does (:func:`shared.nn.episodes.unit_range`).
    unknown : float or None
        Answer ``"unknown"`` where the best score is below this. A score is the network's sigmoid, trained to be 1 for
        the right class and 0 for others; with ``loss="ce"`` it is a probability. None: always name a class.
    random_state : int, RandomState or None
        First weights, classes and rows of all episodes.

    Attributes
    ----------
    classes_ : ndarray
        Classes, sorted.
    learner_ : RelationNet
        After `fit`: the tuned network, on the CPU, in evaluation mode.
    fit_history_ : MetaHistory
        Of `fit`; of `pretrain` it is ``pretrained_["history"]``.
    pretrained_ : dict
        ``state``, ``dims``, ``genes``, ``history``, and ``linear``, whether it read counts or the like. A clone shares
        it, so that one pre-training serves many `fit`.
    n_features_in_ : int
        Number of genes; ``genes_in_`` are their names or None.

    Notes
    -----
    Bundled cell lines (32 subtypes) to bundled blood cells, 15 of each of 9 types of run 1, named in run 2; 1,847
    genes, 600 episodes on the lines, three seeds: accuracy 0.75, without `pretrain` 0.74, with ``RELEASED`` and the
    original order 0.31 and 0.27, zero-shot 0.27; nearest centroid on the same scaled cells 0.84. Threshold 0.5, with
    platelets left out of the support: 23 to 56 in 100 of them were unknown, and 6 or 7 in 100 of the other cells.
    """

    def __init__(
        self,
        widths=(256, 128, 64),
        relation=(64, 32),
        *,
        n_way=5,
        k_shot=5,
        n_query=10,
        episodes=2000,
        lr=5e-4,
        lr_step=None,
        fit_episodes=500,
        fit_lr=5e-4,
        fit_lr_step=None,
        stop_at=0.99,
        meta_batch=1,
        step_order="standard",
        log_every=100,
        norm="running",
        clamp="none",
        proto="mean",
        loss="mse_mean",
        scale=True,
        unknown=None,
        precision="32",
        compile=False,
        device="auto",
        progress=False,
        checkpoint=None,
        random_state=None,
    ):
        self.widths = widths
        self.relation = relation
        self.n_way = n_way
        self.k_shot = k_shot
        self.n_query = n_query
        self.episodes = episodes
        self.lr = lr
        self.lr_step = lr_step
        self.fit_episodes = fit_episodes
        self.fit_lr = fit_lr
        self.fit_lr_step = fit_lr_step
        self.stop_at = stop_at
        self.meta_batch = meta_batch
        self.step_order = step_order
        self.log_every = log_every
        self.norm = norm
        self.clamp = clamp
        self.proto = proto
        self.loss = loss
        self.scale = scale
        self.unknown = unknown
        self.precision = precision
        self.compile = compile
        self.device = device
        self.progress = progress
        self.checkpoint = checkpoint
        self.random_state = random_state

    def __sklearn_clone__(self):
        fresh = type(self)(**self.get_params(deep=False))
        if hasattr(self, "pretrained_"):
            fresh.pretrained_ = self.pretrained_
        return fresh

    def pretrain(self, X, y="cell_type", *, genes=None, callbacks=()):
        """Learn to compare, by episodes of a large collection.

        Parameters
        ----------
        X : AnnData, DataFrame, ndarray or CSR, samples × genes
            Log expression or z-scores; of an AnnData ``X`` is read. Where counts meet a network of logarithms, a
            :class:`shared.data.DataWarning` says so.
        y : array of str or int, samples; or str
            Labels; or, with an AnnData, the column of ``obs`` that holds them.
        genes : sequence of str, optional
            Names of the columns, where `X` does not have them.
        callbacks : sequence of callable
            See :func:`meta_train`.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If inputs hold NaN or infinities or do not fit together, or too few classes have rows enough for an episode.
        shared.train.TrainingError
            If a setting cannot be used, the loss is not finite, or the checkpoint is of another run.
        """
        X, y, names = self._read(X, y, genes, anew=True)
        seed = self._seed()
        learner = self._build(X.shape[1], seed)
        sampler = EpisodeSampler(X, y, self.n_way, self.k_shot, self.n_query)
        settings = self._settings(
            episodes=self.episodes, lr=self.lr, lr_step=self.lr_step, checkpoint=self.checkpoint, seed=seed
        )
        history = meta_train(learner, sampler, settings, callbacks)
        state = {k: v.cpu() for k, v in learner.state_dict().items()}
        self.pretrained_ = {"state": state, "dims": self._dims(X.shape[1]), "genes": names, "history": history}
        self.pretrained_["linear"] = self.linear_in_
        return self

    def fit(self, X, y="cell_type", *, genes=None, callbacks=()):
        """Tune on a few cells of each class, and remember them to compare with.

        Parameters are those of :meth:`pretrain`. Without `pretrain` the network starts from random weights.

        Raises
        ------
        ValueError
            As `pretrain`; if there is one class only; or if genes are not those of `pretrain` in their order.
        """
        X, y, names = self._read(X, y, genes)
        self.classes_, code = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y holds one class only ({self.classes_[0]}): a classifier needs two")
        self._check_unknown()
        if hasattr(self, "pretrained_"):
            self._same_genes(self.pretrained_["genes"], X, names, "pre-trained")
        seed, self.genes_in_ = self._seed(), names
        self.learner_ = self._build(X.shape[1], seed, getattr(self, "pretrained_", None))
        sizes = episode_sizes(np.bincount(code), self.n_way, self.k_shot, self.n_query)
        self.fit_history_ = MetaHistory()
        if self.fit_episodes and sizes is not None:
            settings = self._settings(
                episodes=self.fit_episodes, lr=self.fit_lr, lr_step=self.fit_lr_step, stop_at=self.stop_at, seed=seed
            )
            self.fit_history_ = meta_train(self.learner_, EpisodeSampler(X, code, *sizes), settings, callbacks)
        self.learner_.cpu().eval()
        self._remember(torch.from_numpy(self._encode(self.learner_, X)), torch.as_tensor(code))
        return self

    def _check_unknown(self):
        """Refuse a threshold that no score is compared with, and a class that goes by the name of the others."""
        threshold = self.unknown
        if threshold is None:
            return
        number = isinstance(threshold, (int, float, np.number)) and not isinstance(threshold, bool)
        if not number or not 0 <= threshold <= 1:
            raise TrainingError(f"unknown={threshold!r} is no threshold for scores: give a number from 0 to 1, or None")
        if "unknown" in self.classes_.tolist():
            raise ValueError(
                'a class is called "unknown", which is also the answer for cells that are like no class: rename it, '
                "drop its cells, or set unknown=None"
            )

    def _remember(self, features, code):
        """What queries are compared with: an average for each class, or each cell with ``proto="pairwise"``."""
        members = one_hot(code, len(self.classes_)).double()
        members /= members.sum(0)
        if self.proto == "pairwise":
            self.prototypes_, self.members_ = features, members
        else:
            # A sum of as many as an episode has: classes given more cells would else be scored on another scale.
            self.prototypes_ = members.T.float() @ features * (self.k_shot if self.proto == "sum" else 1)
            self.members_ = None

    def transform(self, X, *, genes=None):
        """The encoder's features: float32 ndarray, cells × ``widths[-1]``; before `fit`, of the pre-trained encoder."""
        if hasattr(self, "learner_"):
            return self._encode(self.learner_, self._read(X, genes=genes)[0])
        check_is_fitted(self, "pretrained_", msg="nothing was pre-trained or fitted: call pretrain or fit first")
        X, _, names = self._read(X, genes=genes, reset=True)
        self._same_genes(self.pretrained_["genes"], X, names, "pre-trained")
        return self._encode(self._build(X.shape[1], 0, self.pretrained_).eval(), X)

    def relation_scores(self, X, *, genes=None):
        """How alike each cell and each class are, from 0 to 1: float32 ndarray, cells × classes."""
        check_is_fitted(self, "learner_")
        features = self._encode(self.learner_, self._read(X, genes=genes)[0])
        scores = []
        with torch.inference_mode():
            for some in torch.from_numpy(features).split(len(features) if self.norm == "batch" else 4096):
                # In float64 the sigmoid of a cell does not depend, in the last digit, on where in the table it stands.
                logits = self.learner_.compare(self.prototypes_[None], some[None]).double()
                scores.append(self.learner_.score(logits, self.members_)[0].float())
        return torch.cat(scores).numpy()

    def predict_proba(self, X, *, genes=None):
        """Scores divided by their sum over the classes: float32 ndarray, cells × classes, columns as in ``classes_``.

        They order the classes and are not calibrated: sigmoids of separate comparisons were never asked to add up to 1.
        """
        scores = self.relation_scores(X, genes=genes)
        scores = np.maximum(scores, np.finfo(np.float32).tiny)
        return scores / scores.sum(1, keepdims=True)

    def predict(self, X, *, genes=None):
        """The most alike class of each cell; ``"unknown"`` where even that one's score is below `unknown`."""
        scores = self.relation_scores(X, genes=genes)
        self._check_unknown()
        names = self.classes_[scores.argmax(1)]
        if self.unknown is None:
            return names
        names = names.astype(object)
        names[scores.max(1) < self.unknown] = "unknown"
        return names

    def save(self, folder: str | Path, genes: Sequence[str] | None = None) -> Path:
        """Save what was pre-trained and fitted, the settings and the ordered list of genes to `folder`.

        Raises
        ------
        shared.train.TrainingError
            If the genes are not known, not as many as the network reads, or repeated.
        """
        fitted, lent = hasattr(self, "learner_"), getattr(self, "pretrained_", None)
        if not fitted and lent is None:
            check_is_fitted(self, "learner_", msg="nothing was pre-trained or fitted: call pretrain or fit first")
        known = self.genes_in_ if fitted else lent["genes"]
        genes = known if genes is None else names_of(genes)
        wanted = self.n_features_in_ if fitted else lent["dims"][0]
        if genes is None or len(genes) != wanted:
            found = "none" if genes is None else len(genes)
            raise TrainingError(f"the network reads {wanted} genes, {found} were named: pass genes=")
        settings = self.get_params() | {
            "widths": list(self.widths),
            "relation": list(self.relation),
            "checkpoint": None,
        }
        if not isinstance(self.random_state, (int, type(None))):
            settings["random_state"] = None
        about, state = {"settings": settings, "named": known is not None}, {}
        if lent is not None:
            state |= {f"pretrained/{k}": v for k, v in lent["state"].items()}
            about["pretrained_linear"] = lent.get("linear")
        if fitted:
            about |= {"classes": self.classes_.tolist(), "kind": self.classes_.dtype.kind}
            about["linear"] = self.linear_in_
            state |= {f"learner/{k}": v for k, v in self.learner_.state_dict().items()}
            state |= {"prototypes": self.prototypes_} | ({} if self.members_ is None else {"members": self.members_})
        return save_model(folder, state, about, genes)

    @classmethod
    def load(cls, folder: str | Path, genes: Sequence[str]) -> TMP:
        """Load a saved model for data whose columns are `genes`.

        Raises
        ------
        shared.train.TrainingError
            If files are missing or damaged, or `genes` are not the saved ones in the saved order.
        """
        genes = names_of(genes)
        tensors, about = load_model(folder, genes)
        loaded, parts = cls(**about["settings"]), {"pretrained": {}, "learner": {}}
        for name, value in tensors.items():
            part, _, rest = name.partition("/")
            parts.setdefault(part, {})[rest] = value
        named = genes if about["named"] else None
        lent = {
            "state": parts["pretrained"],
            "dims": loaded._dims(len(genes)),
            "genes": named,
            "history": MetaHistory(),
            "linear": about.get("pretrained_linear"),
        }
        if parts["pretrained"]:
            loaded.pretrained_ = lent
        if parts["learner"]:
            loaded.classes_ = np.array(about["classes"], dtype=object if about["kind"] == "O" else None)
            loaded.n_features_in_, loaded.genes_in_, loaded.linear_in_ = len(genes), named, about.get("linear")
            loaded.learner_ = loaded._build(len(genes), 0, lent | {"state": parts["learner"]}).eval()
            # Copies, in memory aligned as torch likes it: products in unaligned memory differ in the last digit.
            loaded.prototypes_ = tensors["prototypes"].clone()
            loaded.members_ = tensors["members"].clone() if "members" in tensors else None
        return loaded

    # What the methods above share.

    def _dims(self, n_genes):
        return [n_genes, *(int(w) for w in self.widths)]

    def _build(self, n_genes, seed, lent=None):
        """A network from random weights, or with those that were pre-trained."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = RelationNet(self._dims(n_genes), self.relation, self.norm, self.clamp, self.proto, self.loss)
        if lent is not None:
            try:
                net.load_state_dict(lent["state"])
            except RuntimeError as error:
                raise TrainingError(
                    f"pre-trained was a network of {lent['dims']} with other settings than this one of "
                    f"{self._dims(n_genes)}: set widths, relation and norm back, or pretrain again"
                ) from error
        return net

    def _settings(self, **own):
        same = ("meta_batch", "step_order", "log_every", "precision", "compile", "device", "progress")
        return MetaConfig(**{name: getattr(self, name) for name in same} | own)

    def _seed(self):
        return int(check_random_state(self.random_state).randint(2**31))

    def _encode(self, learner, X):
        """Features, some thousand cells at a time; with batch statistics all at once, since they are one batch."""
        place, out = resolve_device(self.device), []
        learner.to(place)
        size = X.shape[0] if self.norm == "batch" else 4096
        with torch.inference_mode():
            for start in range(0, X.shape[0], size):
                some = X[start : start + size]
                some = torch.from_numpy(some.toarray() if sparse.issparse(some) else some).to(place)
                out.append(learner.encoder(some).cpu())
        learner.cpu()
        return torch.cat(out).numpy()

    def _read(self, X, y=NO_LABELS, genes=None, reset=None, anew=False):
        """Cells as the network takes them, labels, and names of genes or None; labels are what resets."""
        labelled = not (isinstance(y, str) and y == NO_LABELS)
        reset = labelled if reset is None else reset
        X, y, names = cells_of(self, X, y, genes, reset=reset, what="rows")
        if labelled:
            check_classification_targets(y)
        if not reset and names is not None:
            self._same_genes(self.genes_in_ or names, X, names, "tuned")
        self._same_scale(are_linear(X), labelled, reset, anew)
        X = unit_range(X) if self.scale else X
        if sparse.issparse(X) and np.prod(X.shape, dtype=float) < DENSE:
            X = X.toarray()
        return X if sparse.issparse(X) else np.ascontiguousarray(X), y, names

    def _same_genes(self, theirs, X, mine, what):
        """Refuse genes that are not the network's in its order: the numbers would fit, and mean something else."""
        n_theirs = self.pretrained_["dims"][0] if what == "pre-trained" else len(theirs)
        if theirs is not None and mine is None:
            raise ValueError(f"the network was {what} on named genes: pass an AnnData, a DataFrame or genes=")
        if n_theirs != X.shape[1] or (theirs is not None and theirs != mine):
            how = "others" if theirs is None or set(theirs) != set(mine) else "in another order"
            raise ValueError(
                f"the network was {what} on {n_theirs} genes, and these {X.shape[1]} are {how}: "
                "align the data first with shared.preprocess.align_genes"
            )

    def _same_scale(self, linear, labelled, reset, anew):
        """Warn where counts meet a network of logarithms, or logarithms one of counts."""
        if reset and not anew and hasattr(self, "pretrained_"):
            warn_mixed(linear, self.pretrained_.get("linear"), "pre-trained")
        elif not reset:
            warn_mixed(linear, self.linear_in_, "tuned")
        if labelled:
            self.linear_in_ = linear

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags
