"""Work over many data sets: one function, a list of names, as many processes as the machine or a cluster has.

``each(function, names)`` runs ``function(name)`` in worker processes and gives the results by name. A sweep of hours
may be interrupted: with a folder ``out``, every result is written there when it comes, and the next call goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import json
import multiprocessing
import os
import re
import tempfile
import traceback
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import CancelledError
from dataclasses import asdict, dataclass
from pathlib import Path

import joblib

from shared.data.constraints import Maybe, Whole, require
from shared.data.errors import DataError, warn
from shared.data.genes import many, shown
from shared.data.store import made, read_note, write_note

TRIES = 2
# One thread a process: the processes fill the cores already.
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)
# A task is lost with its worker twice at most, and no task waits at a worker that another one brings down.
PLAN = {"distributed.scheduler.allowed-failures": TRIES - 1, "distributed.scheduler.worker-saturation": 1.0}


class SweepWarning(UserWarning):
    """Some items of a sweep failed; the others have results."""


@dataclass(frozen=True)
class Failure:
    """What stands in place of the result of an item that failed.

    Attributes
    ----------
    error : str
        The last error, in one line.
    trace : str
        Where it was raised; empty where the process was lost.
    tries : int
    """

    error: str
    trace: str
    tries: int

    def __bool__(self):
        return False


def each(
    function: Callable,
    items: Iterable | Mapping,
    *,
    client=None,
    workers: int | None = None,
    out=None,
    version: str = "1",
    progress: bool = True,
) -> dict:
    """Run ``function(item)`` for every item, several at a time.

    Parameters
    ----------
    function : function
        Of one argument. Worker processes import it, or get a copy where it was typed in a notebook. In a script, the
        call of ``each`` belongs under ``if __name__ == "__main__":``.
    items : iterable of str, int or Path, or mapping
        Names of the items, each once, which are also the arguments; a mapping gives each name an argument of its own.
    client : distributed.Client, optional
        Of a cluster: ``Client("tcp://10.0.0.1:8786")``. Its workers must be able to import `function`, and see the
        files it reads. Without it, processes of this machine, with one thread each, for the time of this call.
    workers : int, optional
        Processes on this machine, if there is no `client`; as many as it has cores if not given. 0 runs the items
        here, one after another, without Dask.
    out : path, optional
        Folder in which every finished item leaves one JSON file, at once and whole. Items that lie there already are
        not run again; items that failed are. Results are then what JSON holds: words, numbers, lists and dicts with
        words as keys (numpy's numbers and arrays become numbers and lists).
    version : str, default "1"
        Of what `function` does. Results of another version are left where they are, and not used.
    progress : bool, default True
        Show a bar, on a terminal.

    Returns
    -------
    dict
        The result of each item by its name, in the order of `items`. An item that raised, or whose process was lost,
        was tried once more; if that failed too, its result is a :class:`Failure`, which is false, and a
        :class:`SweepWarning` says so.

    Raises
    ------
    DataError
        If Dask is missing or cannot start, the cluster goes away, `out` cannot be written or holds results of another
        function, two items have one name, or a result does not fit in JSON.

    Examples
    --------
    >>> each(len, {"a": [1, 2], "b": []}, workers=0, progress=False)
    {'a': 2, 'b': 0}
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise DataError("a worker process began the sweep again: put each(...) under 'if __name__ == \"__main__\":'")
    if not callable(function):
        raise DataError(f"{function!r} is no function: give a function of one argument")
    if client is not None and workers is not None:
        raise DataError("the client brings its own workers: leave out workers=, or client=")
    if client is not None and not hasattr(client, "submit"):
        raise DataError(f"client should be a distributed.Client, not {type(client).__name__}: make one of the address")
    require(Maybe(Whole()), workers=workers)
    arguments = _named(items)
    store = None if out is None else _Store(made(Path(out)), str(version), function_name(function))
    found = {} if store is None else store.read(arguments)
    waiting = {name: item for name, item in arguments.items() if name not in found}
    if waiting:
        from tqdm import tqdm

        run = functools.partial(_attempt, function, store is not None)
        hide = None if progress else True  # None shows a bar on a terminal only
        with contextlib.ExitStack() as stack:
            if client is None and workers != 0:
                client = stack.enter_context(_local(min(workers or joblib.cpu_count(), len(waiting))))
            here = ((name, run(name, item)) for name, item in waiting.items())
            finished = here if client is None else _on_cluster(client, run, waiting)
            bar = stack.enter_context(
                tqdm(total=len(arguments), initial=len(found), unit="item", desc="sweep", disable=hide)
            )
            for name, value in stack.enter_context(contextlib.closing(finished)):
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
    if isinstance(items, (str, bytes)):
        raise DataError(f"items is one word, {items!r}: give a list of names")
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
    """The folder of results: a file an item and version."""

    folder: Path
    version: str
    function: str

    def _path(self, name) -> Path:
        key = hashlib.sha256(json.dumps([name, self.version]).encode()).hexdigest()[:12]
        # Part of the name is for people; the key tells apart what a file system would not.
        return self.folder / f"{re.sub(r'[^A-Za-z0-9_-]+', '-', name)[:60]}-{key}"

    def read(self, names) -> dict:
        """What is finished. A damaged file is as good as none: its item runs again."""
        notes = {name: read_note(self._path(name)) for name in names}
        notes = {name: note for name, note in notes.items() if note.get("item") == name and "result" in note}
        for note in notes.values():
            if note.get("function") != self.function:
                raise DataError(
                    f"{self.folder} holds results of {note.get('function')}, not of {self.function}: name another "
                    "folder or another version"
                )
        return {name: note["result"] for name, note in notes.items()}

    def write(self, name, value):
        told = {"failure": asdict(value)} if isinstance(value, Failure) else {"result": value}
        try:
            write_note(self._path(name), {"item": name, "version": self.version, "function": self.function} | told)
        except OSError as e:
            raise DataError(
                f"the result of {name!r} cannot be written to {self.folder} ({e.strerror}): make room or name another "
                "folder, and call again; what was written stays"
            ) from e


def _plain(value):
    """What JSON does not know: numpy's numbers and arrays."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(type(value).__name__)


def _line(error) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _attempt(function, as_json, name, item):
    """The result of one item, or a :class:`Failure`; only one that does not fit in JSON is raised."""
    for tries in range(1, TRIES + 1):
        try:
            value = function(item)
            break
        except (Exception, SystemExit) as e:
            # Not raised: an exception may be of a class that only the worker can import.
            failure = Failure(_line(e), "".join(traceback.format_exception(e)), tries)
    else:
        return failure
    try:
        return json.loads(json.dumps(value, default=_plain)) if as_json else value
    except (TypeError, ValueError, RecursionError) as e:
        raise DataError(
            f"the result of {name!r} does not fit in JSON ({' '.join(str(e).split())}): return words, numbers, lists "
            "and dicts with words as keys, or write the rest to a file of its own and return its name"
        ) from e


def _on_cluster(client, run, waiting):
    """Results as they come: each item once, whatever happens to workers."""
    from distributed import KilledWorker, as_completed
    from distributed.comm import CommClosedError

    running = {}
    try:
        for name, item in waiting.items():
            # Not pure: the same function must run again in another sweep.
            try:
                running[client.submit(run, name, item, pure=False)] = name
            except Exception as e:
                said = " ".join(str(e).split())[:200]
                raise DataError(
                    f"the function or the item {name!r} cannot be sent to another process ({said}): use a function "
                    "that needs nothing but its argument, and open files inside it"
                ) from e
        for future in as_completed(list(running)):
            name = running.pop(future)
            try:
                # Waits where a worker died with the result still in its hands: then the item is on its way again.
                value = future.result()
            except DataError:
                raise
            except (CancelledError, asyncio.CancelledError, CommClosedError) as e:
                raise DataError(
                    "the cluster went away: start it again, and call again; with out= finished items stay"
                ) from e
            except KilledWorker:
                # Dask has replaced the worker and tried the item again.
                value = Failure("its process was lost each time: too little memory?", "", TRIES)
            except Exception as e:
                value = Failure(_line(e), "", 1)
            yield name, value
    finally:
        client.cancel(list(running))


@contextlib.contextmanager
def _local(workers):
    """Worker processes of this machine, gone with all they left at the end."""
    try:
        import dask
        from distributed import Client
    except ImportError as e:
        raise DataError(
            'sweeps over processes need Dask: pip install "borrowed-strength[sweep]", or run here with workers=0'
        ) from e
    how = {"threads_per_worker": 1, "processes": True, "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    with tempfile.TemporaryDirectory(prefix="sweep-", ignore_cleanup_errors=True) as folder:
        try:
            # Dask logs a lost worker at length; what became of its item is said here.
            with dask.config.set(PLAN):
                client = Client(
                    n_workers=workers, local_directory=folder, env=ONE_THREAD, silence_logs="CRITICAL", **how
                )
        except (OSError, RuntimeError) as e:
            said = " ".join(str(e).split()) or type(e).__name__
            raise DataError(
                f"worker processes could not be started ({said}): in a script, call each(...) under "
                "'if __name__ == \"__main__\":', or run here with workers=0"
            ) from e
        with client:
            yield client
