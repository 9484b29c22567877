"""The cache of fetched and converted files: where a file lies there, its hash, the note beside it, and who may write.

Variables of the environment: ``BORROWED_CACHE`` is where the files lie, ``BORROWED_MIRROR`` names folders that are
searched before the network, ``BORROWED_OFFLINE=1`` forbids the network.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import json
import lzma
import os
import sys
import tarfile
import threading
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
from scipy import sparse

from shared.data.catalogue import File
from shared.data.errors import DataError

CHUNK = 1 << 20
SILENT = 2.0  # seconds of waiting for another process before it is said
OPENERS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
WEB_PAGES, GZIP = (".html", ".htm"), (".gz", ".tgz")
ZIP, HDF5 = (".zip", ".whl", ".xlsx", ".npz"), (".h5", ".h5ad", ".hdf5", ".loom")
MAGIC = {
    **dict.fromkeys(GZIP, b"\x1f\x8b") | {".bz2": b"BZh", ".xz": b"\xfd7zXZ\x00"},
    **dict.fromkeys(ZIP, b"PK") | dict.fromkeys(HDF5, b"\x89HDF\r\n\x1a\n"),
}


@cache
def quiet_pooch():
    """The library pooch, loaded when it is needed; it tells of every file it touches unless it is told not to."""
    import pooch

    pooch.get_logger().setLevel("WARNING")
    return pooch


def cache_folder() -> Path:
    """Where fetched and converted files lie: ``BORROWED_CACHE``, else in the system's folder for caches."""
    folder = os.environ.get("BORROWED_CACHE") or quiet_pooch().os_cache("borrowed-strength")
    return Path(folder).expanduser().absolute()


def offline() -> bool:
    """True where ``BORROWED_OFFLINE`` forbids the network."""
    return os.environ.get("BORROWED_OFFLINE", "").lower() not in ("", "0", "no", "false")


def made(folder: Path) -> Path:
    """`folder`, made where it is missing; :class:`DataError` where it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise DataError(f"{folder} cannot be made ({e.strerror}): name a folder of yours in BORROWED_CACHE") from e
    return folder


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
    folders = [Path(f).expanduser() for f in os.environ.get("BORROWED_MIRROR", "").split(os.pathsep) if f]
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"BORROWED_MIRROR names {folder}, which is not a folder here: correct or unset it")
    return sorted(path for folder in folders for path in folder.rglob(pattern) if path.is_file())


def place(file: File) -> Path:
    """The path a file has in the cache, there or not; files of one name from two places do not meet."""
    # Of the first address, so that a mirror added to the catalogue later does not hide what was fetched before it.
    origin = file.package or (file.urls[0] if file.urls else "")
    key = hashlib.sha256(f"{file.name}\n{origin}".encode()).hexdigest()[:12]
    return cache_folder() / "files" / key / file.name


def sha256(path: Path) -> str:
    """Of a file's bytes."""
    return quiet_pooch().file_hash(path)


def matrix_sha256(X, genes=()) -> str:
    """Of the names of genes and of a matrix, CSR or ndarray, for data that are in no file."""
    digest = hashlib.sha256("\n".join(genes).encode())
    digest.update(str(X.shape).encode())
    for part in (X.data, X.indices, X.indptr) if sparse.issparse(X) else (X,):
        digest.update(np.ravel(part))
    return digest.hexdigest()


def read_note(path: Path) -> dict:
    """What was written down beside `path`; empty where there is no note, or a damaged one."""
    try:
        note = json.loads(Path(f"{path}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


@contextlib.contextmanager
def written_whole(path: Path):
    """A path beside `path` to write to; at the end it takes the place of `path`, after an error it is removed."""
    draft = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        yield draft
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write_note(path: Path, note: dict) -> None:
    """Write down `note` beside `path`, whole or not at all."""
    with written_whole(Path(f"{path}.json")) as draft:
        draft.write_text(json.dumps(note, indent=1), encoding="utf-8")


def remember(path: Path, file: File, source: str = "") -> None:
    """Keep the hash of a file that was fetched, or that is not pinned, so that a later copy is held to it."""
    if source or known_sha256(file) is None:
        with contextlib.suppress(OSError):  # a cache that cannot be written still serves what a mirror holds
            place(file).parent.mkdir(parents=True, exist_ok=True)
            digest = known_sha256(file) or sha256(path)
            write_note(place(file), {"sha256": digest, "from": source, "size": path.stat().st_size})


def known_sha256(file: File) -> str | None:
    """The sha256 a file must have: the catalogue's, else that of its first download here; None before that."""
    return file.sha256 or read_note(place(file)).get("sha256")


def problem(path: Path, file: File) -> str:
    """What is wrong with a file's bytes; empty for a right one. An unpinned one is read to its end."""
    expected = known_sha256(file)
    try:
        if file.sha256 and file.size not in (None, path.stat().st_size):
            return "its size differs"
        if expected:
            return "" if sha256(path) == expected else "its sha256 differs"
        return head_problem(path, file) or body_problem(path, file)
    except OSError as e:
        return f"it cannot be read ({e.strerror})"


def head(path: Path) -> bytes:
    """The first bytes of a file, enough to tell what it is."""
    with path.open("rb") as f:
        return f.read(512)


def head_problem(path: Path, file: File) -> str:
    """What the first bytes give away; empty where nothing is wrong with them."""
    suffix, start = Path(file.name).suffix.lower(), head(path)
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if suffix not in WEB_PAGES and text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "it is a web page (HTML) and no data"
    if not file.sha256 and not start.startswith(MAGIC.get(suffix, b"")):
        return f"it is no {suffix} file" if start else "it is empty"
    return ""


def unpacked(path: Path):
    """A stream of the bytes of a file without their gzip, bzip2 or xz packing, which the first bytes tell."""
    return next((opener for magic, opener in OPENERS.items() if head(path).startswith(magic)), open)(path, "rb")


def body_problem(path: Path, file: File) -> str:
    """Read a file to its end, so that a packed one that was cut short is noticed; empty for a whole one."""
    suffix = Path(file.name).suffix.lower()
    try:
        if suffix in ZIP:
            with zipfile.ZipFile(path) as z:
                bad = z.testzip()
            return f"its member {bad} is damaged" if bad else ""
        if suffix in HDF5:
            import h5py

            h5py.File(path, "r").close()
        elif suffix == ".tar":
            with tarfile.open(path, "r:") as t:
                t.getmembers()
        else:
            with unpacked(path) as f:
                while f.read(CHUNK):
                    pass
    except Exception as e:  # each library has errors of its own
        return f"it is cut short or damaged ({e})"
    return ""


@contextlib.contextmanager
def locked(path: Path):
    """Hold the one right to write `path`; wait while another process or thread has it, and soon say so."""
    from filelock import FileLock, Timeout

    made(path.parent)
    lock = FileLock(f"{path}.lock")
    try:
        try:
            lock.acquire(timeout=SILENT)
        except Timeout:
            print(f"another process fetches {path.name}: waiting for it", file=sys.stderr)
            lock.acquire()
    except (OSError, NotImplementedError) as e:
        cure = "name a folder of yours on a local disk in BORROWED_CACHE"
        raise DataError(f"{path.parent} takes no lock ({e}): {cure}") from e
    try:
        yield
    finally:
        lock.release()
