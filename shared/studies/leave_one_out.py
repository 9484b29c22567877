"""Leave one data set out: pre-train on all others, fine-tune and test on the one that was never seen.

Each fold runs in a process of its own, on this machine or on a Dask cluster, and rebuilds the corpus from the files. A
data set that shares cells with the one that is left out goes with it, whatever its name, and the table says which.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.base import clone

from shared.data.constraints import Constraint, Whole, Widths, check
from shared.data.corpus import SHARE, Corpus
from shared.data.errors import DataError
from shared.data.genes import gene_hash, shown
from shared.data.parallel import function_name
from shared.data.stream import Stream
from shared.evaluate.ladder import SEEDS, seeded_parts
from shared.evaluate.metrics import HARD, macro_ovr, score
from shared.studies.harness import run

SOFT = ("auroc", "average_precision", "trapezoid", "n_types")
COLUMNS = ("held_out", "seed", "split", "limit", "arm", *HARD, *SOFT, "n_train", "n_test", "seconds", "make_seconds")
SETTINGS = {
    "make": Constraint(callable, "is no function: give one of a corpus and a seed"),
    "limits": Widths()._replace(said="are no numbers of cells: give one or more, each a whole number from 1 up"),
    "seeds": SEEDS,
    "splits": Constraint(lambda v: v == "seed" or Whole(1).accepts(v), f"{Whole(1).said}, nor 'seed'"),
}


def leave_one_out(
    make: Callable,
    paths: Mapping,
    *,
    label: str = "cell_type",
    hold_out=None,
    splits: int | str = 5,
    limits=(1000,),
    seeds=(0,),
    genes="common",
    to_human: bool = False,
    share: float = SHARE,
    in_memory: bool = True,
    client=None,
    workers: int | None = None,
    out=None,
    version: str = "1",
    progress: bool = True,
) -> pd.DataFrame:
    """Run a method on every data set in turn, with the others to learn from.

    Parameters
    ----------
    make : function
        ``make(corpus, seed)`` gives an unfitted estimator, or a dict of them by name, the *arms* to be compared. It
        gets the corpus without the set that is left out, and pre-trains if it likes. It runs in a worker process, which
        has to be able to import it, or gets a copy where it was typed in a notebook. Arms get counts: CSR, cells ×
        genes of the set that is left out. One whose ``fit`` takes ``genes`` is told the names of the columns, and one
        that takes ``val`` which rows to stop by; the others train on those rows too.
    paths : mapping of str to path
        ``.h5ad`` files of counts.
    label : str, default "cell_type"
        Column of ``obs`` with the types. Cells without one take no part in tuning and testing.
    hold_out : sequence of str, optional
        Sets to leave out, one after another. Without it all that have two types or more; the others are only learned
        from.
    splits : int or "seed", default 5
        How often the cells of the set that is left out are divided, by
        :func:`shared.methods.scpretrain.paper_split`. All arms get the same cells; the number of the split seeds them.
        With ``"seed"`` each seed has one division, of its own number.
    limits : sequence of int, default (1000,)
        Cells to tune on, at most. Of several, the smaller lie in the larger, and all are tested on the same cells.
    seeds : sequence of int, default (0,)
        ``make`` is called with each.
    genes, to_human
        As in :class:`shared.data.Corpus`; one list of genes for all folds.
    share : float, default 0.05
        A set goes with the one that is left out if they share at least so many of the smaller one's cells.
    in_memory : bool, default True
        Each process holds the corpus; False reads it from the files.
    client, workers, out, progress
        As in :func:`shared.data.parallel.each`: a cluster by address, processes of this machine, the folder that lets
        an interrupted run go on, and a bar.
    version : str, default "1"
        Of what `make` does: change it when you change that. Data and settings are told apart by themselves.

    Returns
    -------
    DataFrame
        One row for each set, seed, split, limit and arm: ``held_out, seed, split, limit, arm``; ``accuracy,
        balanced_accuracy, macro_f1, cohen_kappa``; ``auroc, average_precision, trapezoid, n_types`` of
        :func:`shared.evaluate.macro_ovr`, NaN for an arm that gives no scores; ``n_train`` (with those to stop by),
        ``n_test``, ``seconds`` (to fit and call), ``make_seconds``. ``attrs["left_out"]`` says for each set which went
        with it, ``attrs["failed"]`` what went wrong for folds that have no rows.

    Raises
    ------
    DataError
        If files cannot be used, no set has labels, a name is not known, or a fold would have nothing to learn from.
    SettingError
        If `make`, `limits`, `seeds` or `splits` cannot be used.

    Examples
    --------
    >>> def make(corpus, seed):  # doctest: +SKIP
    ...     model = ScPretrain(random_state=seed).pretrain(corpus)
    ...     return {"pretrained": model, "scratch": clone(model).set_params(use_pretrained=False)}
    >>> table = leave_one_out(make, files, out="sweep", client=Client("tcp://10.0.0.1:8786"))  # doctest: +SKIP
    """
    limits = [limits] if isinstance(limits, (int, np.integer)) else list(limits)
    check({"make": make, "limits": limits, "seeds": seeds, "splits": splits}, SETTINGS)
    files = _files(paths)
    corpus = Corpus(files, genes=genes, to_human=to_human)
    names = _to_hold_out(corpus, files, label, hold_out)
    left_out = _left_out(corpus, names, share)
    plan = {
        "files": files,
        "genes": list(corpus.genes),
        "to_human": to_human,
        "in_memory": in_memory,
        "label": label,
        "splits": splits,
        "limits": sorted(map(int, limits)),
    }
    plan["about"] = _about(make, plan, corpus, [label, version])
    sets = {name: (left_out[name], None) for name in names}
    arm, metric = functools.partial(_make, make, plan), functools.partial(_scored, plan)
    arm.about = metric.about = plan["about"]  # which does not depend on where the files lie
    how = {"client": client, "workers": workers, "threads": 1, "out": out, "progress": progress}
    found = run({"": arm}, sets, seeds, metric, **how)
    _KEPT.clear()
    table = (
        found.rename(columns={"data": "held_out"}).reindex(columns=COLUMNS).astype(dict.fromkeys((*HARD, *SOFT), float))
    )
    table.attrs = {"unit": "held_out", "left_out": {name: gone[1:] for name, gone in left_out.items()}}
    table.attrs["failed"] = found.attrs["failed"]
    return table


def _files(paths):
    if not isinstance(paths, Mapping) or not all(isinstance(p, (str, os.PathLike)) for p in paths.values()):
        raise DataError(
            "paths should be a dict of names and .h5ad files, which every worker can open: write an AnnData with "
            "adata.write_h5ad(path)"
        )
    # A worker may run in another folder.
    return {name: str(Path(path).resolve()) for name, path in paths.items()}


def _labels(path, label):
    """Type of each cell as words, None where there is none; None for a file without the column."""
    with Stream(path) as stream:
        obs = stream.obs
    if label not in obs:
        return None
    if pd.api.types.is_float_dtype(obs[label]) and obs[label].notna().any():
        raise DataError(f"{Path(path).name}: {label!r} holds numbers, not types: name another column by label=")
    return np.array([None if missing else str(y) for y, missing in zip(obs[label], obs[label].isna())], dtype=object)


def _to_hold_out(corpus, files, label, hold_out):
    names = list(corpus) if hold_out is None else [hold_out] if isinstance(hold_out, str) else list(hold_out)
    corpus.select(names)
    labels = {name: _labels(files[name], label) for name in names}
    lacking = [name for name, y in labels.items() if y is None or len({*y} - {None}) < 2]
    if lacking and (hold_out is not None or len(lacking) == len(names)):
        raise DataError(f"{shown(lacking)} has no column {label!r} of two types or more: name another by label=")
    return [name for name in names if name not in lacking]


def _left_out(corpus, names, share):
    """For each of `names` all that goes with it, itself first."""
    gone = {name: [name] for name in names}
    same = corpus.overlaps()
    for first, second in same.loc[same["share"] >= share, ["first", "second"]].itertuples(index=False):
        for one, other in ((first, second), (second, first)):
            if one in gone:
                gone[one].append(other)
    for with_it in gone.values():
        if len(with_it) == len(corpus):
            raise DataError(f"without {shown(with_it)} nothing is left to learn from: add a data set of other cells")
    return gone


def _about(make, plan, corpus, more):
    """What a fold's result depends on, as a hash: results of another make, data or setting are not taken for these."""
    labels = {name: _labels(path, plan["label"]) for name, path in plan["files"].items()}
    labels = {name: None if y is None else y.tolist() for name, y in labels.items()}
    about = [function_name(make), corpus.hashes, gene_hash(corpus.genes), labels]
    about += [plan["to_human"], plan["splits"], plan["limits"], *more]
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


# One fold, in a worker.

_KEPT: dict = {}


def _corpus(plan):
    """The corpus of this process: read at its first fold, and used by the others."""
    key = plan["about"], plan["in_memory"], *plan["files"].values()
    if key not in _KEPT:
        _KEPT.clear()
        corpus = Corpus(plan["files"], genes=plan["genes"], to_human=plan["to_human"])
        _KEPT[key] = corpus.load() if plan["in_memory"] else corpus
    return _KEPT[key]


def _make(make, plan, left_out, seed):
    """The arms of one set and seed, the seconds it took to make them, and which set is left out."""
    corpus = _corpus(plan)
    rest = corpus.select([n for n in corpus if n not in left_out])
    start = time.perf_counter()
    arms = make(rest, seed)
    seconds = time.perf_counter() - start
    return arms if isinstance(arms, Mapping) else {type(arms).__name__: arms}, seconds, left_out[0]


def _scored(plan, made, _, seed):
    """Rows of one set and seed."""
    from shared.methods.scpretrain import paper_split

    arms, make_seconds, name = made
    X, y, names = _held_out(plan, name)
    rows = []
    for number in [seed] if plan["splits"] == "seed" else range(plan["splits"]):
        split = paper_split(len(y), number, plan["limits"][-1])
        for limit in plan["limits"]:
            train, val = _first(split, limit, number)
            for arm, model in arms.items():
                found = _fitted_and_scored(model, X, y, names, train, val, split.test, number)
                rows.append({"split": number, "limit": limit, "arm": arm} | found | {"make_seconds": make_seconds})
    return rows


def _held_out(plan, name):
    """Counts over all genes of the set that is left out, its types, and the names of its genes."""
    path = plan["files"][name]
    alone = Corpus({name: path}, to_human=plan["to_human"])
    labels = _labels(path, plan["label"])
    known = np.flatnonzero([y is not None for y in labels])
    return alone.counts[name][known], labels[known].astype(str), list(alone.genes)


def _first(split, limit, number):
    """The first `limit` cells to train on in an order of their own, and as many to stop by as that is worth."""
    rng = np.random.default_rng((number, 1))
    train, val = (rng.permutation(part) for part in (split.train, split.val))
    n = min(limit, len(train))
    return np.sort(train[:n]), np.sort(val[: max(1, round(len(val) * n / len(train)))])


def _fitted_and_scored(model, X, y, genes, train, val, test, number):
    fresh = clone(model)
    fresh.set_params(**dict.fromkeys(seeded_parts(fresh), number))
    labelled = np.sort(np.concatenate([train, val]))
    more = {"genes": genes, "val": np.searchsorted(labelled, val)}
    start = time.perf_counter()
    fresh.fit(X[labelled], y[labelled], **_taken(fresh.fit, more))
    called = fresh.predict(X[test], **_taken(fresh.predict, {"genes": genes}))
    row = {"n_train": len(labelled), "n_test": len(test), "seconds": time.perf_counter() - start}
    row |= score(y[test], y_pred=called, metrics=HARD) | dict.fromkeys(SOFT, np.nan)
    soft = _scores(fresh, X[test], genes)
    with contextlib.suppress(DataError):
        row |= {} if soft is None else macro_ovr(y[test], soft, fresh.classes_)
    return row


def _taken(function, offered):
    """What of `offered` a method has a parameter for."""
    return {k: v for k, v in offered.items() if k in inspect.signature(function).parameters}


def _scores(model, X, genes):
    ask = getattr(model, "predict_proba", getattr(model, "decision_function", None))
    if ask is None:
        return None
    found = np.asarray(ask(X, **_taken(ask, {"genes": genes})))
    return found if found.ndim == 2 else np.column_stack([-found, found])
