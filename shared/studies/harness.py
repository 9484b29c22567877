"""One harness for every study: arms, data sets and seeds in, one tidy table out.

An *arm* is a way to make a model: a scikit-learn estimator, or a function of the training part and the seed. Every arm
meets every data set with every seed, and all arms of one data set and seed meet the same rows::

    arms = ladder_models() | {"mine": NetworkClassifier()}
    table = run(arms, {"blood": (train, test)}, seeds=range(5), metric="balanced_accuracy", out="blood")
    compare(table, "logistic")
"""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Callable, Iterable, Mapping

import joblib
import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.base import clone

from shared.data.constraints import SettingError, Whole, nearest, require
from shared.data.errors import DataError, warn
from shared.data.parallel import Failure, each, function_name
from shared.evaluate.intervals import Interval, over_seeds
from shared.evaluate.ladder import SEEDS, seeded_parts
from shared.evaluate.metrics import score


def run(arms: Mapping, data: Mapping, seeds, metric, *, unit: str = "data", version: str = "1", **how) -> pd.DataFrame:
    """Every arm on every data set with every seed.

    Parameters
    ----------
    arms : dict of name to estimator or callable
        An estimator is cloned, its random parts set to the seed, and fitted to ``(X, y)``. Otherwise
        ``arm(train, seed)`` gives a model; one with ``fit_seeds(train, seeds)``, a list of models, is given `at_once`
        seeds together. Equal budgets are the caller's to keep: :func:`search` gives each arm the same grid.
    data : dict of name to (train, test) or callable
        Any two parts; or a function of the seed that draws them. Estimators take ``train = (X, y)``, of an AnnData
        ``(adata, "cell_type")``.
    seeds : iterable of int
        Of first weights and draws.
    metric : str, sequence of str, or callable
        Metrics of :func:`shared.evaluate.score` by name; or ``metric(model, test, seed)``, which gives a number, a dict
        of numbers, or a list of dicts, a row each.
    unit : str
        The column that the next study would vary, over which :func:`compare` takes its intervals: ``"data"``,
        ``"seed"``, or a column of the metric's rows such as ``"donor"``.
    version : str
        With `out`: change it when a function among `arms`, `data` or `metric` does something else. Data, settings of
        estimators, and names and arguments of functions are told apart by themselves, cell by cell.
    **how
        ``workers``, ``client``, ``out``, ``progress``, ``errors`` and ``threads`` of :func:`shared.data.parallel.each`,
        and ``at_once``, seeds that an arm with ``fit_seeds`` trains together (1).

    Returns
    -------
    DataFrame
        ``data``, ``arm``, ``seed``, and ``value`` or the columns of the metric. ``attrs["unit"]`` names the unit,
        ``attrs["failed"]`` what went wrong for cells that have no rows.

    Raises
    ------
    SettingError
        If there are no arms, data sets or seeds, or `unit` is no column.
    DataError
        As :func:`shared.data.parallel.each` does.
    """
    cells, failed = _cells(arms, data, seeds, metric, version=version, **how)
    rows = [{"data": d, "arm": a, "seed": s, **row} for (d, a, s), found in cells.items() for row in found]
    table = pd.DataFrame(rows, columns=None if rows else ["data", "arm", "seed", "value"])
    if rows and unit not in table:
        known = f"choose of {', '.join(table.columns)}{nearest(unit, table.columns)}"
        raise SettingError(f"unit={unit!r} is no column of the table: {known}")
    table.attrs |= {"unit": unit, "failed": failed}
    return table


def fit_arms(arms: Mapping, data: Mapping, seeds, **how) -> dict:
    """The models themselves: a dict of (data, arm, seed) to model.

    `arms` and `data` are as :func:`run` takes them, but each data set is the training part alone. `how` is the same
    without ``out``: a model is kept by its own ``save``. The first error is raised.
    """
    parts = {name: functools.partial(_drawn, part) if callable(part) else (part, None) for name, part in data.items()}
    return _cells(arms, parts, seeds, None, **{"errors": "raise"} | how)[0]


def _drawn(part, seed):
    return part(seed), None


def _told(thing):
    """What is hashed of a thing: of data their content, which use does not change as it may change how they are
    stored; of a function its name, for its code cannot be; or what it says ``about`` itself.
    """
    if isinstance(getattr(thing, "about", None), str):
        return thing.about
    if isinstance(thing, functools.partial):
        return [_told(part) for part in (thing.func, *thing.args)], {k: _told(v) for k, v in thing.keywords.items()}
    if hasattr(thing, "var_names") and hasattr(thing, "layers"):  # an AnnData, or a part of one
        tables = [_told(part) for part in (thing.X, thing.obs, thing.var, dict(thing.layers), dict(thing.obsm))]
        return ["AnnData", *tables, thing.uns.get("units")]
    if sparse.issparse(thing):
        X = sparse.csr_matrix(thing, copy=True)
        X.sum_duplicates()
        return ["CSR", X.shape, X.data, X.indices.astype(np.int64), X.indptr.astype(np.int64)]
    if isinstance(thing, (pd.DataFrame, pd.Series)):
        return ["table", list(getattr(thing, "columns", ())), pd.util.hash_pandas_object(thing).to_numpy()]
    if isinstance(thing, np.ndarray):
        return np.asarray(thing)
    if type(thing) in (tuple, list):
        return type(thing)(map(_told, thing))
    if type(thing) is dict:
        return {k: _told(v) for k, v in thing.items()}
    return function_name(thing) if callable(thing) and not hasattr(thing, "get_params") else thing


def _by_name(names, model, test, seed):
    X, y = test
    y = X.obs[y].to_numpy() if isinstance(y, str) else y
    several = [names] if isinstance(names, str) else list(names)
    found = score(y, y_pred=model.predict(X), metrics=several)
    return found[names] if isinstance(names, str) else found


def _cells(arms, data, seeds, metric, *, at_once=1, workers=1, client=None, out=None, version="1", **how):
    """What every (data, arm, seed) gives, in this order, and the errors of those that failed."""
    seeds = list(seeds)
    require(SEEDS, seeds=seeds)
    require(Whole(1), at_once=at_once)
    if not arms or not data:
        raise SettingError(f"there are {len(arms)} arms and {len(data)} data sets: give one or more of each")
    # Each thing is hashed once, and each cell by itself: what is finished stays when a study grows.
    hashed = (lambda thing: None) if out is None else (lambda thing: joblib.hash(_told(thing)))
    of_data, of_arms = ({name: hashed(thing) for name, thing in some.items()} for some in (data, arms))
    of_all = hashed(metric), version
    jobs, versions = {}, {}
    for (d, part), (a, arm) in itertools.product(data.items(), arms.items()):
        size = at_once if hasattr(arm, "fit_seeds") and not callable(part) else 1
        for some in (seeds[i : i + size] for i in range(0, len(seeds), size)):
            jobs[d, a, tuple(some)] = arm, part, some, metric
            versions[_name(d, a, some)] = str((of_data[d], of_arms[a], *of_all))
    if len(versions) < len(jobs) or len({*seeds}) < len(seeds):
        raise SettingError("two arms, data sets or seeds have one name: give each a name of its own")
    # With as many threads as here, processes round as a loop here would: the numbers do not depend on `workers`.
    threads = sys.modules["torch"].get_num_threads() if "torch" in sys.modules and workers is not None else 1
    place = {"workers": workers} if client is None or workers != 1 else {}
    how = {"progress": False, "threads": threads} | how | place
    found = each(_cell, dict(zip(versions, jobs.values())), client=client, out=out, version=versions, **how)
    done, failed = {}, {}
    for (d, a, some), name in zip(jobs, versions, strict=True):
        if isinstance(found[name], Failure):
            failed[name] = found[name].error
        else:
            done |= {(d, a, s): one for s, one in zip(some, found[name], strict=True)}
    return done, failed


def _name(data, arm, seeds):
    return ", ".join([*(str(part) for part in (data, arm) if part != ""), f"seed {' '.join(map(str, seeds))}"])


def _cell(job):
    """The rows, or without a metric the models, of one arm on one data set with some seeds."""
    arm, part, seeds, metric = job
    train, test = part(seeds[0]) if callable(part) else part
    if hasattr(arm, "fit_seeds"):
        models = arm.fit_seeds(train, seeds)
    elif hasattr(arm, "get_params"):
        fresh = clone(arm)
        models = [fresh.set_params(**dict.fromkeys(seeded_parts(fresh), seeds[0])).fit(*train)]
    else:
        models = [arm(train, seeds[0])]
    if metric is None:
        return models
    metric = metric if callable(metric) else functools.partial(_by_name, metric)
    return [_rows(metric(model, test, seed)) for model, seed in zip(models, seeds, strict=True)]


def _rows(found):
    if isinstance(found, Mapping):
        return [dict(found)]
    return [{"value": float(found)}] if np.isscalar(found) else [dict(row) for row in found]


def search(
    arms: Mapping, grid: Mapping[str, Iterable], data: Mapping, seeds, metric, *, change: Callable | None = None, **how
) -> tuple[dict, pd.DataFrame]:
    """Every arm with the value of one setting that serves it best: the same grid, data and seeds for each.

    Parameters
    ----------
    arms, data, seeds, metric, **how
        As :func:`run` takes them. `data` must hold no test row of the comparison to come, and one number, the higher
        the better, comes of `metric`.
    grid : dict of one setting to its values
        ``{"lr": [1e-3, 1e-2]}``. A warning names the arms whose best value is the first or last of three or more.
    change : callable, optional
        ``change(arm, lr=...)`` gives the arm with that setting; of estimators, ``set_params`` of a clone.

    Returns
    -------
    arms : dict of name to arm
        With the value that was chosen; of equal ones the first.
    table : DataFrame
        Mean of the metric, value × arm.
    """
    ((setting, values),) = grid.items()
    values = list(values)
    change = change or (lambda arm, **settings: clone(arm).set_params(**settings))
    tried = {(name, value): change(arm, **{setting: value}) for name, arm in arms.items() for value in values}
    found = run({str(key): arm for key, arm in tried.items()}, data, seeds, metric, **{"errors": "raise"} | how)
    if "value" not in found:
        raise SettingError("search compares one number: give one metric by its name, or a function that gives one")
    means = found.groupby("arm")["value"].mean()
    table = pd.DataFrame({name: [means[str((name, value))] for value in values] for name in arms}, values)
    table = table.rename_axis(setting)
    best = {name: table[name].idxmax() for name in arms}
    if edge := [name for name, value in best.items() if len(values) > 2 and value in (values[0], values[-1])]:
        warn(f"the best {setting} of {', '.join(map(str, edge))} is at the edge of the grid: widen it")
    return {name: tried[name, value] for name, value in best.items()}, table


def compare(
    table: pd.DataFrame, baseline: str, value: str = "value", unit: str | None = None, groups: Mapping | None = None
) -> pd.DataFrame:
    """By how much each arm differs from a baseline, with an interval over what the next study would vary.

    Parameters
    ----------
    table : DataFrame
        Of :func:`run`: a column ``arm``, and one for the unit.
    baseline : str
        The arm to subtract.
    value : str
        A column of numbers, averaged within each unit.
    unit : str, optional
        In place of the table's own.
    groups : mapping, optional
        What a unit belongs to, such as the study of a data set: those of one then count as one.

    Returns
    -------
    DataFrame
        For each other arm: ``difference`` with ``low`` and ``high`` (95 %, Student's t over units; NaN for one unit),
        ``wins``, and ``n``, how many units there are.

    Raises
    ------
    DataError
        If the baseline or a column is missing.
    """
    unit = table.attrs.get("unit", "data") if unit is None else unit
    if lacking := {"arm", unit, value} - {*table.columns}:
        raise DataError(f"the table has no column {', '.join(sorted(lacking))}: it has {', '.join(table.columns)}")
    mean = table.pivot_table(index=unit, columns="arm", values=value)
    if baseline not in mean:
        raise DataError(
            f"no arm is called {baseline!r}: choose of {', '.join(map(str, mean))}{nearest(baseline, mean)}"
        )
    ahead = mean.drop(columns=baseline).sub(mean[baseline], axis=0)
    ahead = ahead if groups is None else ahead.groupby(lambda name: groups.get(name, name)).mean()
    rows = {}
    for arm, values in ahead.items():
        values = values.dropna()
        got = over_seeds(values) if len(values) > 1 else Interval(float(values.mean()), np.nan, np.nan, 0.95, "", 1)
        rows[arm] = {"difference": got.value, "low": got.low, "high": got.high}
        rows[arm] |= {"wins": int((values > 0).sum()), "n": len(values)}
    return pd.DataFrame.from_dict(rows, orient="index")
