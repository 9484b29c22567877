"""The cache of fetched and converted files: where a file lies there, its hash, the note beside it, and who may write.

Variables of the environment: ``BORROWED_CACHE`` is where the files lie, ``BORROWED_MIRROR`` names folders that are
searched before the network, ``BORROWED_OFFLINE=1`` forbids the network.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import threading
from pathlib import Path

import numpy as np
from scipy import sparse

from shared.data.catalogue import File
from shared.data.errors import DataError, Unavailable

CHUNK = 1 << 20
_ZIP, _HDF5 = (".zip", ".whl", ".xlsx", ".npz"), (".h5", ".h5ad", ".hdf5", ".loom")
_MAGIC = {
    **{".gz": b"\x1f\x8b", ".tgz": b"\x1f\x8b", ".bz2": b"BZh", ".xz": b"\xfd7zXZ\x00"},
    **dict.fromkeys(_ZIP, b"PK"),
    **dict.fromkeys(_HDF5, b"\x89HDF\r\n\x1a\n"),
}


def cache_folder() -> Path:
    """Where fetched and converted files lie: ``BORROWED_CACHE``, else in the system's folder for caches."""
    # The variable that names the system's folder, and where that folder lies where the variable is not set.
    systems = {"darwin": ("", "Library/Caches"), "win32": ("LOCALAPPDATA", "AppData/Local")}
    variable, usual = systems.get(sys.platform, ("XDG_CACHE_HOME", ".cache"))
    system = Path(os.environ.get(variable) or Path.home() / usual)
    return Path(os.environ.get("BORROWED_CACHE") or system / "borrowed-strength").expanduser().absolute()


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


def mirror_folders() -> list[Path]:
    """The folders of ``BORROWED_MIRROR``; one that does not exist raises :class:`DataError`."""
    folders = [Path(f).expanduser() for f in os.environ.get("BORROWED_MIRROR", "").split(os.pathsep) if f]
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"BORROWED_MIRROR names {folder}, which is not a folder here: correct or unset it")
    return folders


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
    return sorted(path for folder in mirror_folders() for path in folder.rglob(pattern) if path.is_file())


def mirror_index() -> dict[str, list[Path]]:
    """File name to paths, of everything below the mirror folders."""
    index: dict[str, list[Path]] = {}
    for top in mirror_folders():
        for folder, _, names in os.walk(top):
            for name in sorted(names):
                index.setdefault(name, []).append(Path(folder) / name)
    return index


def place(file: File) -> Path:
    """The path a file has in the cache, there or not; files of one name from two places do not meet."""
    # Of the first address, so that a mirror added to the catalogue later does not hide what was fetched before it.
    origin = file.package or (file.urls[0] if file.urls else "")
    key = hashlib.sha256(f"{file.name}\n{origin}".encode()).hexdigest()[:12]
    return cache_folder() / "files" / key / file.name


def sha256(path: Path) -> str:
    """Of a file's bytes."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


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
        with path.open("rb") as f:
            return head_problem(f.read(512), file) or body_problem(path)
    except OSError as e:
        return f"it cannot be read ({e.strerror})"


def head_problem(head: bytes, file: File) -> str:
    """What the first bytes give away; empty where nothing is wrong with them."""
    suffix = Path(file.name).suffix.lower()
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if suffix not in (".html", ".htm") and text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "it is a web page (HTML) and no data"
    magic = _MAGIC.get(suffix)
    if magic and not file.sha256 and not head.startswith(magic):
        return f"it is no {suffix} file" if head else "it is empty"
    return ""


def body_problem(path: Path) -> str:
    """Read a packed file to its end, so that one that was cut short is noticed; empty for a whole one."""
    import bz2
    import gzip
    import lzma
    import tarfile
    import zipfile

    suffix = Path(path.name.removesuffix(".part")).suffix.lower()
    unpack = {".gz": gzip.open, ".tgz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}.get(suffix)
    try:
        if unpack:
            with unpack(path) as f:
                while f.read(CHUNK):
                    pass
        elif suffix in _ZIP:
            with zipfile.ZipFile(path) as z:
                bad = z.testzip()
            return f"its member {bad} is damaged" if bad else ""
        elif suffix == ".tar":
            with tarfile.open(path, "r:") as t:
                t.getmembers()
        elif suffix in _HDF5:
            import h5py

            h5py.File(path, "r").close()
    except Exception as e:  # each library has errors of its own
        return f"it is cut short or damaged ({e})"
    return ""


@contextlib.contextmanager
def locked(path: Path, progress: bool = True, stop: threading.Event | None = None):
    """Hold the one right to write `path`; wait while another process or thread has it."""
    from filelock import FileLock, Timeout

    made(path.parent)
    lock, waits = FileLock(f"{path}.lock"), 0
    try:
        while not lock.is_locked:
            try:
                lock.acquire(timeout=1)
            except Timeout:
                waits += 1
                if stop and stop.is_set():
                    raise Unavailable(f"{path.name}: stopped before it was fetched") from None
                if waits == 2 and progress and sys.stderr.isatty():
                    print(f"waiting for another process that fetches {path.name}", file=sys.stderr)
    except (OSError, NotImplementedError) as e:
        cure = "name a folder of yours on a local disk in BORROWED_CACHE"
        raise DataError(f"{path.parent} takes no lock ({e}): {cure}") from e
    try:
        yield
    finally:
        lock.release()
