"""Files of the catalogue: from the checkout, the cache, a local mirror or the network, and checked wherever they lie.

A file has its final name only when it is whole and right. What a broken or stopped download leaves is a ``.part`` file,
and the next one goes on from there.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from shared.data.catalogue import File, home
from shared.data.errors import DataError, Unavailable
from shared.data.store import (
    known_sha256,
    locked,
    mirror_index,
    offline,
    place,
    problem,
    sha256,
    write_note,
)
from shared.data.transfer import CONNECTIONS, Download


@dataclass(frozen=True)
class Found:
    """Where a file lies now.

    Attributes
    ----------
    state : str
        ``"bundled"``, ``"cached"`` or ``"mirror"`` for a file that is here and right; ``"damaged"``; ``"absent"``.
    path : Path or None
        Of a file that is here and right.
    said : str
        What is wrong, in words; empty for a right one.
    """

    state: str
    path: Path | None = None
    said: str = ""


def look(file: File, kind: str, index: dict[str, list[Path]] | None = None) -> Found:
    """Where a file lies now, its sha256 checked; the network is not asked.

    Parameters
    ----------
    file : File
        Of the catalogue.
    kind : str
        Of its route: a bundled file lies below ``data/``, any other in the cache or a mirror.
    index : dict, optional
        Of :func:`mirror_index`, to save a walk through the mirror for every file.
    """
    if kind == "bundled":
        path = home() / file.name
        if not path.is_file():
            return Found("damaged", said=f"{file.name} is missing: restore it with 'git checkout data', or reinstall")
        if sha256(path) != file.sha256:
            said = f"{path.name} is not the file the catalogue describes (its sha256 differs): restore it"
            return Found("damaged", said=said)
        return Found("bundled", path)
    path = place(file)
    said = problem(path, file) if path.is_file() else "it is absent"
    if not said:
        _remember(path, path, file)
        return Found("cached", path)
    found = _in_mirror(file, mirror_index() if index is None else index)
    if found.path or not path.is_file():
        return found
    return Found("damaged", said=f"the cached copy of {file.name} is damaged: {said}")


def _in_mirror(file: File, index) -> Found:
    """The file in a mirror folder, by name and sha256."""
    right, wrong = {}, ""
    for path in index.get(file.name, ()):
        said = problem(path, file)
        if not said:
            right.setdefault(sha256(path), path)
        wrong = said or wrong
    if len(right) == 1:
        (path,) = right.values()
        _remember(path, place(file), file)
        return Found("mirror", path)
    if right:
        return Found("absent", said=f"the mirror holds {len(right)} different files {file.name}: keep the right one")
    return Found("absent", said=f"a file {file.name} in the mirror is not the right one: {wrong}" if wrong else "")


def _remember(path: Path, beside: Path, file: File) -> None:
    """Keep the hash of an unpinned file, so that a later copy is held to it."""
    if known_sha256(file) is None:
        with contextlib.suppress(OSError):  # a cache that cannot be written still serves what a mirror holds
            beside.parent.mkdir(parents=True, exist_ok=True)
            write_note(beside, {"sha256": sha256(path), "size": path.stat().st_size})


def get(file: File, *, kind: str, progress: bool = True, stop: threading.Event | None = None) -> Path:
    """The path of a file on this machine, its sha256 checked; fetched where it is not here.

    Parameters
    ----------
    file : File
        Of the catalogue.
    kind : str
        ``"bundled"``, ``"package"`` or ``"official"``.
    progress : bool
        Draw a progress bar, where there is a terminal to draw it on.
    stop : Event, optional
        Once set, a transfer ends; what has arrived is kept.

    Returns
    -------
    Path
        In the checkout, a mirror folder or the cache: for reading only.

    Raises
    ------
    Unavailable
        If the file is not here and no address gives it now.
    DataError
        If what is here or what was sent is not the file, or the disk is full.
    """
    found = look(file, kind)
    if found.path:
        return found.path
    if kind == "bundled":
        raise DataError(found.said)
    if offline():
        where = found.said or f"{file.name} is neither in the cache nor in a mirror"
        cure = "unset it, or name a folder that holds the file in BORROWED_MIRROR"
        error = DataError if found.state == "damaged" else Unavailable
        raise error(f"{where}, and BORROWED_OFFLINE forbids to fetch it: {cure}")
    path = place(file)
    with locked(path, progress, stop):
        again = look(file, kind)  # another process may have fetched it while this one waited
        if again.path:
            return again.path
        damage = again.said if again.state == "damaged" else ""
        try:
            return Download(file, path, progress=progress, stop=stop or threading.Event(), damage=damage).run(kind)
        except Unavailable as e:
            if damage or not again.said:
                raise
            raise Unavailable(f"{again.said}; {e}") from e


def get_all(files, *, kind: str, progress: bool = True) -> list[Path]:
    """:func:`get` for several files of one route, at most CONNECTIONS at a time; the paths in the order of `files`.

    Ctrl-C stops every transfer, and the next call goes on from there.
    """
    files = list(files)
    if len(files) < 2 or kind == "bundled":
        return [get(f, kind=kind, progress=progress) for f in files]
    stop, todo = threading.Event(), deque(enumerate(files))
    results: list = [None] * len(files)

    def work():
        with contextlib.suppress(IndexError):  # nothing is left to do
            while not stop.is_set():
                i, file = todo.popleft()
                try:
                    results[i] = get(file, kind=kind, progress=progress, stop=stop)
                except Exception as e:
                    results[i] = e

    # Daemons, because a thread that waits for a silent server must not keep an interrupted program alive.
    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(CONNECTIONS, len(files)))]
    try:
        for t in threads:
            t.start()
        for t in threads:
            while t.is_alive():
                t.join(0.2)
    except BaseException:
        stop.set()
        raise
    wrong = [r for r in results if isinstance(r, Exception)]
    for e in sorted(wrong, key=lambda e: isinstance(e, Unavailable)):  # damage is the worse news
        raise e
    return results
