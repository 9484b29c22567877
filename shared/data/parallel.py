"""Run one function over many items: in processes of this machine (joblib), or on a cluster by its address (Dask).

``each(function, names)`` gives ``function(name)`` by name. A sweep of hours may be interrupted: with a folder ``out``,
every result is written there when it comes, and the next call goes on.
"""

import asyncio
import contextlib
import copy
import functools
import hashlib
import json
import operator
import os
import re
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path

import joblib

from shared.data.cache import made, read_note, write_note
from shared.data.constraints import Maybe, OneOf, Whole, check
from shared.data.errors import DataError, warn
from shared.data.genes.lists import many, shown

TRIES = 2
SETTINGS = {"workers": Maybe(Whole()), "threads": Whole(1), "errors": OneOf("keep", "raise")}


class SweepWarning(UserWarning):
    """Some items of a sweep failed; the others have results."""


@dataclass(frozen=True)
class Failure:
    """What stands in place of the result of an item that failed, and is false: its error in one line, and the trace."""

    error: str
    trace: str = ""

    def __bool__(self):
        return False


def each(
    function: Callable, items: Iterable | Mapping, *, client=None, workers: int | None = None, threads: int = 1,
    out=None, version: str | Mapping[str, str] = "1", errors: str = "keep", progress: bool = True,
) -> dict:  # fmt: skip
    """Run ``function(item)`` for every item, several at a time.

    Parameters
    ----------
    function : function
        Of one argument, on which alone its draws may depend. Worker processes import it, or get a copy of it.
    items : iterable of str, int or Path, or mapping
        Names of the items, each once, which are also the arguments; a mapping gives each name an argument of its own.
    client : distributed.Client, optional
        Of a Dask cluster, whose workers must be able to import `function` and see the files it reads.
    workers : int, optional
        Processes on this machine, if there is no `client`; as many as it has cores if not given. 0 and 1 run the items
        here, one after another.
    threads : int, default 1
        Of each process. Sums are rounded by how many threads share them.
    out : path, optional
        Folder in which every finished item leaves one JSON file, at once and whole, and is not run again; items that
        failed are. Results are then what JSON holds (numpy's numbers and arrays become numbers and lists).
    version : str or mapping of name to str, default "1"
        Of what `function` does, or of each item. Results of another version are not used.
    errors : {"keep", "raise"}
        Give an item that raised, or whose process was lost twice, a :class:`Failure` for its result, and a
        :class:`SweepWarning`; or raise the first error.
    progress : bool, default True
        Show a bar, on a terminal.

    Returns
    -------
    dict
        The result of each item by its name, in the order of `items`.

    Raises
    ------
    DataError
        If the cluster goes away, `out` cannot be written or holds results of another function, two items have one name,
        a result does not fit in JSON, or something cannot be sent to another process.
    """
    from tqdm import tqdm

    if not callable(function):
        raise DataError(f"{function!r} is no function: give a function of one argument")
    if client is not None and workers is not None:
        raise DataError("the client brings its own workers: leave out workers=, or client=")
    if client is not None and not hasattr(client, "submit"):
        raise DataError(f"client should be a distributed.Client, not {type(client).__name__}: give Client(address)")
    check({"workers": workers, "threads": threads, "errors": errors}, SETTINGS)
    arguments = _named(items)
    versions = version if isinstance(version, Mapping) else dict.fromkeys(arguments, version)
    if lost := shown(name for name in arguments if name not in versions):
        raise DataError(f"version names no version of {lost}: give one of each item, or one of all")
    folder = None if out is None else made(Path(out), "name another folder as out=")
    store = None if out is None else _Store(folder, versions, function_name(function))
    found = {} if store is None else store.read(arguments)
    waiting = {name: item for name, item in arguments.items() if name not in found}
    run = functools.partial(_attempt, function, store is not None, errors == "raise")
    if waiting:
        hide = None if progress else True  # None shows a bar on a terminal only
        bar = tqdm(total=len(arguments), initial=len(found), unit="item", desc="sweep", disable=hide)
        if client is not None:
            finished = _on_cluster(client, run, waiting)
        elif workers is None or workers > 1:
            finished = _in_processes(run, waiting, workers or joblib.cpu_count(), threads)
        else:
            finished = ((name, run(name, item)) for name, item in waiting.items())
        with bar, contextlib.closing(finished):
            for name, value in finished:
                if isinstance(value, BaseException):
                    raise value
                if errors == "raise" and isinstance(value, Failure):
                    raise DataError(f"{name!r}: {value.error}")
                found[name] = value
                if store is not None:
                    store.write(name, value)
                bar.update()
    failed = [name for name in arguments if isinstance(found[name], Failure)]
    if failed:
        first = found[failed[0]].error
        said = f"{many(len(failed), 'item')} of {len(arguments):,} failed ({shown(failed)}); the first says: {first}"
        warn(said + (". Call again to retry them alone" if store else ""), SweepWarning)
    return {name: found[name] for name in arguments}


def _named(items) -> dict:
    if isinstance(items, (str, bytes)) or not isinstance(items, Iterable):
        raise DataError(f"items is {items!r:.80}: give a list of names, or a dict of names and arguments")
    arguments, mapping = {}, isinstance(items, Mapping)
    for item in items:
        if isinstance(item, bool) or not isinstance(item, (str, int, os.PathLike)):
            raise DataError(f"an item is {type(item).__name__}: give names, or a dict of names and arguments")
        name = os.fspath(item) if isinstance(item, os.PathLike) else str(item)
        if name in arguments:
            raise DataError(f"two items are named {name!r}: give each a name of its own")
        arguments[name] = items[item] if mapping else item
    return arguments


def function_name(function) -> str:
    """What a function is called, below any ``functools.partial`` around it."""
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__qualname__", type(function).__name__)


@dataclass(frozen=True)
class _Store:
    folder: Path
    versions: Mapping[str, str]
    function: str

    def _path(self, name) -> Path:
        key = hashlib.sha256(json.dumps([name, str(self.versions[name])]).encode()).hexdigest()[:12]
        # Part of the name is for people; the key tells apart what a file system would not.
        return self.folder / f"{re.sub(r'[^A-Za-z0-9_-]+', '-', name)[:60]}-{key}"

    def read(self, names) -> dict:
        """What is finished. A damaged file is as good as none: its item runs again."""
        notes = {name: read_note(self._path(name)) for name in names}
        notes = {name: note for name, note in notes.items() if note.get("item") == name and "result" in note}
        for other in (note.get("function") for note in notes.values()):
            if other != self.function:
                raise DataError(f"{self.folder} holds results of {other}, not of {self.function}: name another folder")
        return {name: note["result"] for name, note in notes.items()}

    def write(self, name, value):
        told = {"failure": asdict(value)} if isinstance(value, Failure) else {"result": value}
        note = {"item": name, "version": str(self.versions[name]), "function": self.function} | told
        try:
            write_note(self._path(name), note)
        except OSError as e:
            raise DataError(f"the result of {name!r} cannot be written ({e}): make room; what was written stays") from e


def _line(error) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _attempt(function, as_json, at_once, name, item):
    """The result of one item, a :class:`Failure`, or with `at_once` the exception as far as it can be sent."""
    try:
        value = function(item)
    except (Exception, SystemExit) as e:
        # Not raised: an exception may be of a class that only the worker can import.
        if not at_once:
            return Failure(_line(e), "".join(traceback.format_exception(e)))
        try:
            copy.copy(e)  # makes it again from its arguments, as another process would
            return e
        except Exception:
            return DataError(f"{name!r}: {_line(e)}")
    try:
        # JSON does not know numpy's numbers and arrays.
        return json.loads(json.dumps(value, default=operator.methodcaller("tolist"))) if as_json else value
    except (AttributeError, TypeError, ValueError, RecursionError) as e:
        raise DataError(f"the result of {name!r} does not fit in JSON ({e}): return words, numbers and lists") from e


LOST = Failure("its process was lost each time: too little memory?")


def _cannot_be_sent(name, error):
    said = " ".join(str(error).split())[:200]
    return DataError(f"the function or {name!r} cannot be sent to another process ({said}): open files inside it")


def _noted(run, name, item, sign):
    """One item in a process, which leaves a sign that it started."""
    sign.touch()
    return name, run(name, item)


@contextlib.contextmanager
def _ended(results):
    try:
        yield
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that some are cancelled
            results.close()


def _in_processes(run, waiting, workers, threads):
    """Results as they come. Where a process is lost, all that had started run once more, each alone."""
    lost, groups = Counter(), [list(waiting)]
    # One item a message: items sent together would share what they have in common, and could change it.
    parallel = {"batch_size": 1, "max_nbytes": None, "return_as": "generator_unordered"}
    with tempfile.TemporaryDirectory(prefix="sweep-") as folder:
        signs = {name: Path(folder, str(i)) for i, name in enumerate(waiting)}
        while groups:
            left = groups.pop()
            # Two processes at least: a single item may be one that ends its process.
            processes = max(2, min(workers, len(left)))
            jobs = [joblib.delayed(_noted)(run, name, waiting[name], signs[name]) for name in left]
            try:
                with joblib.parallel_config("loky", inner_max_num_threads=threads):
                    results = joblib.Parallel(processes, **parallel)(jobs)
                with _ended(results):
                    for name, value in results:
                        left.remove(name)
                        yield name, value
            except BrokenProcessPool:
                suspects = [name for name in left if signs[name].exists()]
                others = [name for name in left if name not in suspects]
                lost.update(suspects)
                groups += filter(None, [others, *([name] for name in suspects if lost[name] < TRIES)])
                for name in suspects:
                    signs[name].unlink()
                yield from ((name, LOST) for name in suspects if lost[name] == TRIES)
            except Exception as e:
                if "pickle" not in repr(e):
                    raise
                raise _cannot_be_sent(left[0], e) from e


def _on_cluster(client, run, waiting):
    """Results as they come: each item once, whatever happens to workers."""
    from distributed import KilledWorker, as_completed
    from distributed.comm import CommClosedError

    try:
        # Not pure: the same function must run again in another sweep.
        running = dict(zip(client.map(run, list(waiting), list(waiting.values()), pure=False), waiting))
    except Exception as e:
        raise _cannot_be_sent(next(iter(waiting)), e) from e
    try:
        for future in as_completed(list(running)):
            name = running.pop(future)
            try:
                # Waits where a worker died with the result still in its hands: then the item is on its way again.
                value = future.result()
            except DataError:
                raise
            except (CancelledError, asyncio.CancelledError, CommClosedError) as e:
                raise DataError("the cluster went away: start it and call again; with out= finished items stay") from e
            except KilledWorker:
                value = LOST  # Dask has replaced the worker and tried the item again
            except Exception as e:
                value = Failure(_line(e))
            yield name, value
    finally:
        client.cancel(list(running))
