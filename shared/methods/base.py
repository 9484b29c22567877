"""The kit: what every method of the book shares, written once. No torch and no Keras here.

A method is its network, its loss and its schedule. It says which settings it takes (``constraints``), which values it
expects (``expects``) and how it fits; reading, refusing, seeding, cloning, saving and scoring are here. The protocols
below :class:`TransferEstimator` say what a family of methods does; each lists the parts of the common contract
(``tests/methods/test_contract.py``) that do not bind it, with the reason.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from shared.data.cells import (
    NO_LABELS,
    Cells,
    column,
    column_names,
    difference,
    digest,
    read,
    refuse_logged,
    table_of_cells,
)
from shared.data.constraints import Constraint, FilePath, Flag, Maybe, Probability, Seed, check
from shared.data.errors import DataError, DataWarning
from shared.data.genes import names_of
from shared.train.saved import ModelError, load_model, pack, save_model, unpack

ALIGN = "align the data first with shared.preprocess.align_genes"
COUNTS = "read the counts (layers['counts'], where there is one), or set logged=True"
# Where a model was computed is no part of it; another machine has another device and other paths.
PLACES = {"device": "auto", "checkpoint": None, "progress": False}


@dataclass
class Example:
    """A small problem to try an estimator on, which takes a second or two.

    Attributes
    ----------
    model : TransferEstimator
        Not fitted, with few and quick epochs.
    cells : AnnData, cells × genes
        Simulated: ``obs["cell_type"]`` (three types), ``obs["measured"]`` (a number), ``obs["domain"]`` (1 or -1).
    y : str or None
        Column of ``obs`` that `fit` takes.
    fit : dict
        More arguments of `fit`.
    pretrain : tuple
        Arguments of `pretrain`; empty for methods without.
    checked : dict
        Settings to change for scikit-learn's own checks, whose tables have few columns and must be learned well.
    """

    model: TransferEstimator
    cells: object
    y: str | None = "cell_type"
    fit: dict = field(default_factory=dict)
    pretrain: tuple = ()
    checked: dict = field(default_factory=dict)


def example_cells(n: int = 60, n_genes: int = 24, *, counts: bool = False, seed: int = 0):
    """Simulated cells of three types for :class:`Example`: AnnData of logged expression, or of counts."""
    import anndata as ad
    import pandas as pd

    rng = np.random.default_rng(seed)
    kind = rng.permutation(n) % 3
    rate = np.full((3, n_genes), 0.7)
    for k in range(3):
        rate[k, k * 5 : k * 5 + 5] = 4
    X = rng.poisson(rate[kind]).astype(np.float32)
    obs = {"cell_type": np.array(["B", "NK", "T"])[kind], "measured": X[:, :5].sum(1) + rng.normal(size=n)}
    obs = pd.DataFrame(obs | {"domain": np.where(np.arange(n) % 3 < 2, 1, -1)}, index=[f"cell {i}" for i in range(n)])
    genes = pd.DataFrame(index=[f"G{i}" for i in range(n_genes)])
    return ad.AnnData(X if counts else np.log1p(X), obs=obs, var=genes)


class TransferEstimator(BaseEstimator):
    """What all methods share; a subclass declares its settings and fits.

    Attributes
    ----------
    constraints : dict of str to Constraint
        Settings and what they may be, beside those of the classes it extends; checked by :meth:`_read`.
    expects : {"log", "counts", "any"}
        Which values the method is made for. Others are warned of ("log") or refused ("counts").
    kept : tuple of str
        Fitted attributes that a clone keeps: what was pre-trained.
    nonnegative : bool
        Negative values are refused.
    accept_sparse, allow_nan, dtype
        See :func:`shared.data.cells.read`.
    exempt : dict of str to str
        Parts of the common contract that do not bind this class, and why.
    """

    constraints: ClassVar[dict[str, Constraint]] = {
        "random_state": Seed(),
        "progress": Flag(),
        "checkpoint": Maybe(FilePath()),
    }
    expects: ClassVar[str] = "log"
    nonnegative: ClassVar[bool] = False
    kept: ClassVar[tuple[str, ...]] = ()
    accept_sparse: ClassVar[bool] = True
    allow_nan: ClassVar[bool | str] = False
    dtype: ClassVar = np.float32
    exempt: ClassVar[dict[str, str]] = {}

    @classmethod
    def example(cls) -> Example:
        """A small problem to try this estimator on; the common contract is tested with it."""
        raise NotImplementedError(f"{cls.__name__} has no example: give it one, so that its contract can be tested")

    def __sklearn_clone__(self):
        """A clone keeps what was pre-trained, so that one pre-training serves many fits; a fit is forgotten."""
        fresh = super().__sklearn_clone__()
        for name in self.kept:
            if hasattr(self, name):
                setattr(fresh, name, getattr(self, name))
        return fresh

    # Reading.

    def _check_settings(self):
        """Refuse a setting that cannot be used; the nearest class that constrains it decides."""
        settings, constraints = self.get_params(deep=False), {}
        for kind in reversed(type(self).__mro__):
            constraints |= vars(kind).get("constraints", {})
        check(settings, {name: constraint for name, constraint in constraints.items() if name in settings})

    def _read(self, X, y=NO_LABELS, *, genes=None, reset=False, pretrains=False, **how) -> Cells:
        """Cells as this method takes them: settings, genes and scale of values are checked too.

        With `reset` the cells set the number and names of genes (`fit`); without, they are held to them (`predict`).
        `pretrains` says that the cells replace what was pre-trained.
        """
        self._check_settings()
        options = {"accept_sparse": self.accept_sparse, "allow_nan": self.allow_nan, "dtype": self.dtype}
        counts = self.expects == "counts" and not getattr(self, "logged", False)
        options["layer"] = "counts" if counts else None
        # Cells that are refused change nothing of what was fitted before.
        reader = object.__new__(type(self)) if reset else self
        try:
            cells = read(X, y, genes=genes, estimator=reader, reset=reset, **options | how)
        except ValueError as error:
            if "feature names should match" not in str(error):
                raise
            raise DataError(f"{error}\nThe model was fitted on other genes or on another order: {ALIGN}") from error
        pretrained = None if pretrains else self._pretraining()
        if pretrained is not None and (reset or not hasattr(self, "feature_names_in_")):
            self._same_genes(cells, pretrained, reset)
        values = cells.X.data if hasattr(cells.X, "indptr") else cells.X
        if self.nonnegative and values.size and values.min() < 0:
            what = "counts, or log(1 + count) with logged=True" if self.expects == "counts" else "values from 0 up"
            raise DataError(f"Negative values in data passed to {type(self).__name__}: {what} are needed, not z-scores")
        if self.expects == "counts":
            if counts and cells.layer == "X":
                refuse_logged(cells, COUNTS)
            elif cells.is_log is counts:
                said = "logged, and counts are expected" if counts else "counts, and logged=True says they are logged"
                warnings.warn(
                    f"these values look {'' if counts else 'like '}{said}: {COUNTS}", DataWarning, stacklevel=3
                )
        elif not reset:
            self._warn_of_scale(cells, getattr(self, "is_log_", None), "fitted")
        else:
            self._warn_of_scale(cells, pretrained and pretrained["is_log"], "pre-trained")
        if reset:
            self._forget()
            vars(self).update(vars(reader), is_log_=cells.is_log)
        return cells

    def _pretraining(self) -> dict | None:
        """What was pre-trained, where `fit` starts from it."""
        return getattr(self, "pretrained_", None)

    def _forget(self):
        """Drop what was fitted; what a clone keeps stays."""
        for name in self._fitted().keys() - set(self.kept):
            delattr(self, name)

    def _same_genes(self, cells, pretrained, reset=True):
        """Refuse genes that are not those of the pre-training in their order: the numbers would fit all the same."""
        theirs, n = pretrained["genes"], pretrained["n_genes"]
        if n != cells.n_genes or (None not in (theirs, cells.genes) and theirs != cells.genes):
            how = difference(theirs, cells.genes) if theirs and cells.genes else "another number"
            raise DataError(f"pre-trained on {n} genes, and these {cells.n_genes} are not the same ({how}): {ALIGN}")
        if theirs is not None and cells.genes is None and reset:
            warnings.warn(
                f"these {n} columns have no names and are taken to be the genes of the pre-training, in its order; "
                "pass an AnnData, a DataFrame or genes= to have them checked",
                DataWarning,
                stacklevel=4,
            )

    def _warn_of_scale(self, cells, theirs, when):
        """Warn where counts meet a model of logarithms, or the other way round; `theirs` says what it knows."""
        mine, kinds = cells.is_log, {True: "logged, or z-scores", False: "counts, or not logged"}
        if None not in (mine, theirs) and mine != theirs:
            said = f"these values look like {kinds[mine]}; those the model was {when} on look like {kinds[theirs]}: "
            warnings.warn(f"{said}bring both to one scale (shared.preprocess.log_normalize)", DataWarning, stacklevel=4)
        elif theirs is None and mine is False and self.expects == "log":
            said = f"these values look like counts, and {type(self).__name__} is made for logged expression"
            warnings.warn(f"{said}: shared.preprocess.log_normalize logs them", DataWarning, stacklevel=4)

    def _rng(self) -> np.random.RandomState:
        return check_random_state(self.random_state)

    def _seed(self) -> int:
        return int(self._rng().randint(2**31))

    # Saving.

    def _fitted(self) -> dict:
        return {k: v for k, v in vars(self).items() if k.endswith("_") and not k.startswith("_")}

    def save(self, folder: str | Path, genes: Sequence[str] | None = None) -> Path:
        """Save every fitted attribute, the settings and the ordered list of genes to `folder`.

        Parameters
        ----------
        folder : path
            Made when it is not there.
        genes : sequence of str, optional
            Names of the columns; may be left out where the model was fitted on named columns.

        Returns
        -------
        Path
            The folder: ``model.safetensors``, ``genes.txt``, ``config.json``.

        Raises
        ------
        shared.train.saved.ModelError
            If nothing was fitted, the genes are not known, not as many as the model reads, or repeated; or if the disk
            is full.
        """
        fitted, pretrained = self._fitted(), getattr(self, "pretrained_", None) or {}
        if not fitted:
            raise ModelError("nothing was fitted, so there is nothing to save: call fit first (or pretrain)")
        wanted = getattr(self, "n_features_in_", pretrained.get("n_genes"))
        known = getattr(self, "feature_names_in_", pretrained.get("genes"))
        genes = known if genes is None else names_of(genes)
        if genes is None or len(genes) != wanted:
            found = "none" if genes is None else len(genes)
            raise ModelError(f"the model reads {wanted} genes, {found} were named: pass genes=")
        if known is not None and list(known) != list(genes):
            raise ModelError(
                f"genes= are not those the model was fitted on ({difference(known, genes)}): leave them out"
            )
        genes, arrays, settings = list(genes), {}, self.get_params(deep=False)
        settings |= {k: v for k, v in PLACES.items() if k in settings}
        if isinstance(settings.get("random_state"), np.random.RandomState):
            settings["random_state"] = None  # a stream that goes on cannot be kept
        about = {"class": type(self).__name__, "settings": pack(settings, "settings", arrays)}
        about["fitted"] = {name: pack(value, name, arrays, genes) for name, value in fitted.items()}
        return save_model(folder, arrays, about, genes)

    @classmethod
    def load(cls, folder: str | Path, genes: Sequence[str] | None = None):
        """Load a saved model.

        Parameters
        ----------
        folder : path
            Written by :meth:`save`.
        genes : sequence of str, optional
            Columns of the data it is wanted for, refused unless they are the model's in the model's order. Without it
            the model's own list is taken, and named data are held to it later.

        Raises
        ------
        shared.train.saved.ModelError
            If files are missing or damaged, of an older layout or of another class, or `genes` are not the model's.
        """
        arrays, about, genes = load_model(folder, None if genes is None else names_of(genes))
        if about.get("class") != cls.__name__:
            raise ModelError(f"{folder} holds a {about.get('class')}: load it with that class")
        try:
            loaded = cls(**unpack(about["settings"], arrays))
            for name, value in about["fitted"].items():
                setattr(loaded, name, unpack(value, arrays, genes))
        except (KeyError, TypeError) as error:
            raise ModelError(
                f"{folder} is damaged, or of another version ({error!r}): fit and save it again"
            ) from error
        loaded._restore()
        return loaded

    def _restore(self):
        """Put together what was saved in parts; nothing by default."""

    def _checkpoint_of_fit(self, *cells: Cells, seed=None) -> Path | None:
        """Where `fit` keeps its progress: beside ``checkpoint``, under a name for these cells and settings.

        Many fits may share one ``checkpoint``: each finds its own progress, and removes it at the end. `seed` is what
        was drawn from ``random_state``; without a fixed one a fit starts anew.
        """
        base = getattr(self, "checkpoint", None)
        if base is None:
            return None
        arrays = {}
        settings = {k: repr(v) for k, v in self.get_params(deep=False).items() if k not in PLACES}
        settings |= {} if seed is None else {"random_state": seed}
        tables = [[c.X.indptr, c.X.indices, c.X.data] if hasattr(c.X, "indptr") else c.X for c in cells]
        labels = [(c.X.shape, c.y) if c.classes is None else (c.X.shape, c.classes.tolist(), c.codes) for c in cells]
        about = pack([settings, tables, labels, {k: getattr(self, k, None) for k in self.kept}], "", arrays)
        name = digest([json.dumps(about, sort_keys=True), *map(np.asarray, arrays.values())])[:12]
        return Path(base).with_name(f"{Path(base).stem}.fit-{name}.safetensors")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = self.accept_sparse
        tags.input_tags.allow_nan = self.allow_nan is True
        tags.input_tags.positive_only = self.nonnegative
        return tags


# Protocols: what a family of methods does.


class Transformer(TransformerMixin):
    """Gives each cell an embedding by ``transform``: float32, whatever comes in."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


class Classifier(ClassifierMixin):
    """Names a class for each cell; says ``"unknown"`` where the best score is below the setting ``unknown``.

    A subclass has ``predict_proba``.
    """

    unknown = None  # a method that can reject declares the setting

    def _read_labelled(self, X, y, *, genes=None, **how) -> Cells:
        """Cells with labels, and ``classes_``; one class, and a threshold that cannot be used, are refused."""
        return self._set_classes(self._read(X, y, genes=genes, reset=True, **how))

    def _set_classes(self, cells) -> Cells:
        check_classification_targets(cells.y)
        self.classes_ = cells.classes
        if len(self.classes_) < 2:
            raise DataError(f"y holds one class only ({self.classes_[0]}): a classifier needs two")
        self._check_unknown()
        return cells

    def _check_unknown(self):
        """Refuse a threshold that no score is compared with, and a class that goes by the name of the others."""
        check({"unknown": self.unknown}, {"unknown": Maybe(Probability())})
        if self.unknown is not None and "unknown" in self.classes_.tolist():
            raise DataError(
                'a class is called "unknown", which is also the answer for cells that are like no class: rename it, '
                "drop its cells, or set unknown=None"
            )

    def _scores(self, X, genes) -> np.ndarray:
        """What classes are chosen and rejected by: (n_cells, n_classes), from 0 to 1."""
        return self.predict_proba(X, genes=genes)

    def predict(self, X, *, genes=None) -> np.ndarray:
        """The class with the best score; ``"unknown"`` where even that one is below `unknown`: (n_cells,)."""
        check_is_fitted(self, "classes_")
        self._check_unknown()
        scores = self._scores(X, genes)
        names = self.classes_[scores.argmax(1)]
        if self.unknown is None:
            return names
        names = names.astype(object)
        names[scores.max(1) < self.unknown] = "unknown"
        return names

    def score(self, X, y="cell_type", sample_weight=None) -> float:
        """Accuracy; of an AnnData `y` may name a column of ``obs``, as in `fit`."""
        return super().score(X, column(table_of_cells(X), y), sample_weight)


class Regressor(RegressorMixin):
    """Predicts one or several numbers for each cell, each standardised while training."""

    def _read_numbers(self, X, y, *, genes=None, **how) -> tuple[Cells, np.ndarray]:
        """Cells with numbers, and these as float32 (n_cells, n_outputs) with mean 0 and deviation 1; NaN stays NaN."""
        cells = self._read(X, y, genes=genes, reset=True, numbers=True, **how)
        y = np.asarray(cells.y, np.float64).reshape(len(cells), -1)
        few = np.flatnonzero(np.isfinite(y).sum(0) < 2)
        if len(few) and len(cells) > 1:
            raise DataError(f"output {few[0]} has fewer than two measured values: leave it out")
        self.one_output_ = cells.y.ndim == 1
        self.y_mean_, spread = np.nanmean(y, 0), np.nanstd(y, 0)
        self.y_scale_ = np.where(spread > 0, spread, 1)
        return cells, ((y - self.y_mean_) / self.y_scale_).astype(np.float32)

    def _numbers(self, output: np.ndarray) -> np.ndarray:
        """Standardised output (n_cells, n_outputs) in the units and the shape of `y`."""
        y = output * self.y_scale_ + self.y_mean_
        return y[:, 0] if self.one_output_ else y

    def score(self, X, y, sample_weight=None) -> float:
        """R²; of an AnnData `y` may name a column of ``obs``, as in `fit`."""
        return super().score(X, column(table_of_cells(X), y, numbers=True), sample_weight)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


class Pretrained:
    """Is pre-trained on other data first: ``pretrain(...)`` sets ``pretrained_``, which a clone keeps.

    ``pretrained_`` is a dict with ``genes`` (list of str or None), ``n_genes`` and what the method learned.
    """

    kept = ("pretrained_",)

    def _read_pretrained(self, X, *, genes=None) -> Cells:
        """Cells for what was pre-trained, before any fit: held to its genes, and nothing is set."""
        check_is_fitted(self, "pretrained_", msg="nothing was pre-trained or fitted: call pretrain or fit first")
        cells = read(X, genes=genes, accept_sparse=self.accept_sparse, dtype=self.dtype)
        self._same_genes(cells, self.pretrained_)
        self._warn_of_scale(cells, self.pretrained_["is_log"], "pre-trained")
        return cells

    def _keep(self, cells, **learned):
        """Set ``pretrained_``; whatever was fitted before is forgotten, and what a clone keeps is kept."""
        is_log = getattr(self, "is_log_", None)
        self._forget()
        self.pretrained_ = {"genes": cells.genes, "n_genes": cells.n_genes, "is_log": is_log} | learned
        return self


class DomainAware:
    """Fits labelled source cells together with target cells: ``fit(X, y, sample_domain)``.

    ``sample_domain`` is positive for source and negative for target, as in skada; it can be passed through
    ``GridSearchCV.fit(X, y, sample_domain=...)``. Without it all cells are source.
    """

    def _read_domains(self, X, y, sample_domain=None, *, genes=None) -> tuple[Cells, Cells]:
        """Source with labels and ``classes_``, and target; labels of target cells are not looked at."""
        if sample_domain is None:
            source = self._read_labelled(X, y, genes=genes)
            return source, source[:0]
        both = self._read(X, genes=genes, reset=True, sample_domain=sample_domain)
        is_source, obs = both.sample_domain > 0, table_of_cells(X)
        if not is_source.any():
            raise DataError("no cell is of the source: sample_domain must be positive for the labelled cells")
        if obs is not None and isinstance(y, str):
            y = column(obs[is_source], y)
        elif np.shape(y)[:1] == (len(both),):
            y = np.asarray(y)[is_source]
        else:
            raise DataError(
                f"X has {len(both)} cells and y {np.shape(y)}: give one label a cell (any for target cells)"
            )
        return self._set_classes(read(both.X[is_source], y, genes=both.genes, dtype=self.dtype)), both.target


class FewShotClassifier(Classifier):
    """Compares query cells with a few support cells of each class: ``fit(support, y)``, then ``predict(query)``.

    A subclass overrides :meth:`scores`; the classes may be others than those it was pre-trained on.
    """

    def predict_proba(self, X, *, genes=None) -> np.ndarray:
        """Scores divided by their sum over the classes: float32 (n_cells, n_classes). They are not calibrated."""
        scores = np.maximum(self.scores(X, genes=genes), np.finfo(np.float32).tiny)
        return scores / scores.sum(1, keepdims=True)

    def scores(self, X, *, genes=None) -> np.ndarray:
        """How alike each query and each class are: float32 (n_cells, n_classes), from 0 to 1."""
        raise NotImplementedError

    def _scores(self, X, genes):
        return self.scores(X, genes=genes)


class Basis(Transformer):
    """Learns gene weights, ``loadings_`` (n_genes, n_components), and projects other cells onto them by gene name."""

    exempt = {
        "gene order": "genes are matched by name, so another order gives the same projection",
        "check_dataframe_column_names_consistency": "other columns than those of the fit are left out, not refused",
    }

    def project(self, X, *, genes=None) -> np.ndarray:
        """Weights of the components in each cell: (n_cells, n_components); genes are matched by name."""
        raise NotImplementedError

    def _by_name(self, X, genes=None):
        """Rows of the loadings and columns of `X` that belong to the same genes; all where a side has no names."""
        check_is_fitted(self, "loadings_")
        known, named = getattr(self, "feature_names_in_", None), genes is not None or column_names(X) is not None
        if known is None or not named:
            return self.loadings_, self._read(X, genes=genes).X
        cells = read(X, genes=genes, dtype=self.dtype)
        self._warn_of_scale(cells, self.is_log_, "fitted")
        shared, rows, columns = np.intersect1d(known, cells.genes, return_indices=True)
        if not len(shared):
            raise DataError(
                f"no gene is shared: the data have {cells.genes[0]!r}, the loadings {known[0]!r}. "
                "Is it another species, or symbols against Ensembl identifiers?"
            )
        if len(shared) < max(self.loadings_.shape[1], min(len(known), cells.n_genes) / 10):
            said = f"{len(shared)} of the {len(known)} genes of the loadings are among these {cells.n_genes}"
            warnings.warn(
                f"{said}: too few to tell the components apart; are the names of one kind?", DataWarning, stacklevel=4
            )
        return self.loadings_[rows], cells.X[:, columns]

    def transform(self, X, *, genes=None) -> np.ndarray:
        """The same as :meth:`project`."""
        return self.project(X, genes=genes)


class Generator:
    """Predicts the profiles that cells would have under another condition: ``generate(X, condition)``."""

    exempt = {"sklearn": "conditions stand where scikit-learn has labels, and profiles come out"}

    def generate(self, X, condition, *, genes=None) -> np.ndarray:
        """Profiles of the cells `X` under `condition`: float32 (n_cells, n_genes)."""
        raise NotImplementedError


class Translator:
    """Maps effects on genes, or gene sets, from one species or platform to another; rows are genes.

    ``fit(X, Y)`` takes the effects of the same genes in paired studies, genes × studies; ``predict(X)`` gives the
    effects to expect for new studies, genes × studies.
    """

    accept_sparse, dtype = False, np.float64
    exempt = {"sklearn": "rows are genes and columns are studies, of which a new table may have any number"}

    def _read_rows(self, X, Y=None, *, genes=None, reset=False) -> tuple[np.ndarray, ...]:
        """Effects as float64 arrays genes × studies; genes are named by the rows, studies by the columns."""
        tables = [T for T in (X, Y) if T is not None]
        if any(table_of_cells(T) is not None for T in tables):
            raise DataError("tables of effects are read here, genes × studies: pass adata.to_df().T")
        axes = [[part.tolist() for part in T.axes] if hasattr(T, "axes") else None for T in tables]
        if len(axes) == 2 and None not in axes and axes[0] != axes[1]:
            raise DataError("X and Y name other genes or studies, or in another order: give the same rows and columns")
        genes = column_names(X.T) if genes is None and hasattr(X, "axes") else genes
        found = [self._read(np.asarray(T).T, genes=genes, reset=reset).X.T for T in tables]
        if len({T.shape for T in found}) > 1:
            raise DataError(f"X is {found[0].shape} and Y {found[1].shape}: give the same genes in the same studies")
        return tuple(found)
