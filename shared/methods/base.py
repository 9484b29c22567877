"""The kit: what every method of the book shares, written once. No torch and no Keras here.

A method is its network, its loss and its schedule. It says which settings it takes (``constraints``), which values it
expects (``expects``) and how it fits; reading, refusing, seeding, cloning and saving are here. What a family of methods
does, such as naming classes, is in :mod:`shared.methods.protocols`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state

from shared.data.cells import (
    NO_LABELS,
    Cells,
    difference,
    digest,
    read,
)
from shared.data.constraints import Constraint, FilePath, Flag, Maybe, Seed, check
from shared.data.errors import DataError, warn
from shared.data.genes.lists import names_of
from shared.train.saved import ModelError, load_model, pack, save_model, unpack

ALIGN = "align the data first with shared.preprocess.align_genes"
COUNTS = "read the counts (layers['counts'], where there is one), or set logged=True"
# Where a model was computed is no part of it; another machine has another device and other paths.
PLACES = {"device": "auto", "devices": 1, "checkpoint": None, "progress": False}


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
        if self.nonnegative and cells.X.min() < 0:
            what = "counts, or log(1 + count) with logged=True" if self.expects == "counts" else "values from 0 up"
            raise DataError(f"Negative values in data passed to {type(self).__name__}: {what} are needed, not z-scores")
        if self.expects == "counts":
            if counts and cells.layer == "X":
                cells.refuse_logs(COUNTS)
            elif cells.is_log is counts:
                said = "logged, and counts are expected" if counts else "counts, and logged=True says they are logged"
                warn(f"these values look {'' if counts else 'like '}{said}: {COUNTS}")
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

    def _forget(self, kept=None):
        """Drop what was fitted; what a clone keeps stays."""
        for name in self._fitted().keys() - set(self.kept if kept is None else kept):
            delattr(self, name)

    def _same_genes(self, cells, pretrained, reset=True, when="pre-trained"):
        """Refuse genes that are not those of the pre-training in their order: the numbers would fit all the same."""
        theirs, n = pretrained["genes"], pretrained["n_genes"]
        if n != cells.n_genes or (None not in (theirs, cells.genes) and theirs != cells.genes):
            how = difference(theirs, cells.genes) if theirs and cells.genes else "another number"
            raise DataError(f"{when} on {n} genes, and these {cells.n_genes} are not the same ({how}): {ALIGN}")
        if theirs is not None and cells.genes is None and reset:
            warn(
                f"these {n} columns have no names and are taken to be the genes of the pre-training, in its order; "
                "pass an AnnData, a DataFrame or genes= to have them checked"
            )

    def _warn_of_scale(self, cells, theirs, when):
        """Warn where counts meet a model of logarithms, or the other way round; `theirs` says what it knows."""
        mine, kinds = cells.is_log, {True: "logged, or z-scores", False: "counts, or not logged"}
        if None not in (mine, theirs) and mine != theirs:
            said = f"these values look like {kinds[mine]}; those the model was {when} on look like {kinds[theirs]}: "
            warn(f"{said}bring both to one scale (shared.preprocess.log_normalize)")
        elif theirs is None and mine is False and self.expects == "log":
            said = f"these values look like counts, and {type(self).__name__} is made for logged expression"
            warn(f"{said}: shared.preprocess.log_normalize logs them")

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
