"""The cache and the mirrors: where a file lies, its sha256, the note beside it, its lock.

``BORROWED_CACHE`` says where the cache is; ``BORROWED_MIRROR`` names folders that are searched before the network.
"""

import contextlib
import errno
import functools
import glob
import hashlib
import json
import os
import shutil
import threading
from pathlib import Path

from shared.data.catalogue import File
from shared.data.errors import DataError

CHUNK = 1 << 20
CURE = "name a folder of yours in BORROWED_CACHE"
FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


@functools.cache  # a relative folder stays where it is when the working directory changes
def _absolute(folder: str) -> Path:
    return Path(folder).expanduser().absolute()


def _folder(variable: str, named: str | None) -> Path:
    import pooch

    try:
        return _absolute(named or str(pooch.os_cache("borrowed-strength")))
    except RuntimeError as e:  # of pathlib and of the library below pooch
        raise DataError(f"no home folder is known here ({e}): name a folder of yours in {variable}") from e


def cache_folder() -> Path:
    """Where fetched and converted files lie: ``BORROWED_CACHE``, else in the system's folder for caches."""
    return _folder("BORROWED_CACHE", os.environ.get("BORROWED_CACHE"))


def place(file: File) -> Path:
    """The path a file has in the cache, there or not; files of one name from two places do not meet."""
    # Of the first address, so that a mirror added to the catalogue later does not hide what was fetched before it.
    origin = file.package or (file.urls[0] if file.urls else "")
    key = hashlib.sha256(f"{file.name}\n{origin}".encode()).hexdigest()[:12]
    return cache_folder() / "files" / key / file.name


def in_mirror(pattern: str) -> list[Path]:
    """Files in the folders of ``BORROWED_MIRROR``, by a pattern of their names; :class:`DataError` for others."""
    found = []
    for named in filter(None, os.environ.get("BORROWED_MIRROR", "").split(os.pathsep)):
        folder = _folder("BORROWED_MIRROR", named)
        if not folder.is_dir():
            raise DataError(f"BORROWED_MIRROR names {named}, which is not a folder here: correct or unset it")
        found += [p for p in folder.rglob(pattern) if p.is_file()]
    return sorted(found)


def sha256(path: Path) -> str:
    """Of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def known_sha256(file: File) -> str | None:
    """The sha256 a file must have: the catalogue's, else that of its first download here; None before that."""
    return file.sha256 or read_note(place(file)).get("sha256")


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


def sweep(path: Path) -> None:
    """Remove the drafts beside `path` that killed processes left: ours, pooch's, folders; its lock is held."""
    ours, of_pooch = f".{glob.escape(path.name)}*", "tmp" + 8 * "[a-z0-9_]"
    for old in (*path.parent.glob(ours), *path.parent.glob(of_pooch)):
        shutil.rmtree(old) if old.is_dir() else old.unlink(missing_ok=True)


def made(folder: Path, cure: str = CURE) -> Path:
    """`folder`, made where it is missing; :class:`DataError` with the `cure` where it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise DataError(f"{folder} cannot be made ({e.strerror}): {cure}") from e
    return folder


@contextlib.contextmanager
def locked(path: Path):
    """Hold the one right to write `path`; wait while another process or thread has it."""
    from filelock import FileLock

    lock = FileLock(made(path.parent) / f"{path.name}.lock")
    try:
        lock.acquire()
    except (OSError, NotImplementedError) as e:
        raise DataError(f"{path.parent} takes no lock ({e}): {CURE}, on a local disk") from e
    try:
        yield
    finally:
        lock.release()
