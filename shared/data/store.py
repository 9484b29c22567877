"""The cache of fetched and converted files, and the mirrors: where a file lies, its hash, the note beside it, its lock.

``BORROWED_CACHE`` says where the cache is; ``BORROWED_MIRROR`` names folders that are searched before the network.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import hashlib
import json
import os
import sys
import threading
import time
from functools import cache
from pathlib import Path

from shared.data.catalogue import File
from shared.data.errors import DataError

CHUNK = 1 << 20
SILENT = 2.0  # seconds of waiting for another process before it is said
CURE = "name a folder of yours in BORROWED_CACHE"
FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_mirrors: dict = {}  # folder to (when each folder in it was last changed, its files)


@cache
def quiet_pooch():
    """The library pooch, loaded when it is needed; it tells of every file it touches unless it is told not to."""
    import pooch

    pooch.get_logger().setLevel("WARNING")
    return pooch


@cache  # a relative folder stays where it is when the working directory changes
def _absolute(folder: str) -> Path:
    return Path(folder).expanduser().absolute()


@contextlib.contextmanager
def _at_home(variable: str):
    try:
        yield
    except RuntimeError as e:  # of pathlib and of the library below pooch
        raise DataError(f"no home folder is known here ({e}): name a folder of yours in {variable}") from e


def cache_folder() -> Path:
    """Where fetched and converted files lie: ``BORROWED_CACHE``, else in the system's folder for caches."""
    with _at_home("BORROWED_CACHE"):
        return _absolute(os.environ.get("BORROWED_CACHE") or str(quiet_pooch().os_cache("borrowed-strength")))


def place(file: File) -> Path:
    """The path a file has in the cache, there or not; files of one name from two places do not meet."""
    # Of the first address, so that a mirror added to the catalogue later does not hide what was fetched before it.
    origin = file.package or (file.urls[0] if file.urls else "")
    key = hashlib.sha256(f"{file.name}\n{origin}".encode()).hexdigest()[:12]
    return cache_folder() / "files" / key / file.name


def in_mirror(pattern: str) -> list[Path]:
    """Files in the folders of ``BORROWED_MIRROR``, at any depth, by a pattern of their names, sorted.

    Raises
    ------
    DataError
        If the variable names what is not a folder.

    Examples
    --------
    >>> in_mirror("labelled-*.h5ad")  # doctest: +SKIP
    """
    found = []
    for named in filter(None, os.environ.get("BORROWED_MIRROR", "").split(os.pathsep)):
        with _at_home("BORROWED_MIRROR"):
            folder = _absolute(named)
        if not folder.is_dir():
            raise DataError(f"BORROWED_MIRROR names {named}, which is not a folder here: correct or unset it")
        found += [p for p in _below(folder) if fnmatch.fnmatchcase(p.name, pattern) and p.is_file()]
    return sorted(found)


def _below(folder: Path) -> list[Path]:
    """All files of a mirror, which is walked once, and again only where a folder in it has changed."""
    changed, files = _mirrors.get(folder, ({}, []))
    with contextlib.suppress(OSError):  # a folder that is gone
        if changed and all(os.stat(top).st_mtime_ns == then for top, then in changed.items()):
            return files
    changed, files, now = {}, [], time.time_ns()
    for top, _, names in os.walk(folder):
        changed[top] = os.stat(top).st_mtime_ns
        files += [Path(top, name) for name in names]
    if max(changed.values(), default=now) < now - 10**9:  # else it may change again within the clock's resolution
        _mirrors[folder] = changed, files
    return files


def sha256(path: Path) -> str:
    """Of a file's bytes."""
    return quiet_pooch().file_hash(path)


def known_sha256(file: File) -> str | None:
    """The sha256 a file must have: the catalogue's, else that of its first download here; None before that."""
    return file.sha256 or read_note(place(file)).get("sha256")


def remember(path: Path, file: File, source: str) -> None:
    """Write down the sha256 of the first copy of a file, so that later ones are held to it."""
    note = {"sha256": known_sha256(file) or sha256(path), "from": source, "size": path.stat().st_size}
    try:
        write_note(made(place(file).parent) / file.name, note)
    except OSError as e:
        raise DataError(f"the sha256 of {file.name} cannot be written down ({e.strerror}): {CURE}") from e


def read_note(path: Path) -> dict:
    """What was written down beside `path`; empty where there is no note, or a damaged one."""
    try:
        note = json.loads(Path(f"{path}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def write_note(path: Path, note: dict) -> None:
    """Write down `note` beside `path`, whole or not at all."""
    with written_whole(Path(f"{path}.json")) as draft:
        draft.write_text(json.dumps(note, indent=1), encoding="utf-8")


@contextlib.contextmanager
def written_whole(path: Path):
    """A path beside `path` to write to; at the end it takes the place of `path`, after an error it is removed."""
    draft = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        yield draft
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def made(folder: Path) -> Path:
    """`folder`, made where it is missing; :class:`DataError` where it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise DataError(f"{folder} cannot be made ({e.strerror}): {CURE}") from e
    return folder


@contextlib.contextmanager
def locked(path: Path):
    """Hold the one right to write `path`; wait while another process or thread has it, and soon say so."""
    from filelock import FileLock, Timeout

    lock = FileLock(made(path.parent) / f"{path.name}.lock")
    try:
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=SILENT)
        if not lock.is_locked:
            print(f"another process fetches {path.name}: waiting for it", file=sys.stderr)
            lock.acquire()
    except (OSError, NotImplementedError) as e:
        raise DataError(f"{path.parent} takes no lock ({e}): {CURE}, on a local disk") from e
    try:
        yield
    finally:
        lock.release()
