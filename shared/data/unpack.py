"""Archives are opened here: their members onto the disk, never outside the folder, never more than expected.

Zip (and wheels, which are zip) and tar (and source archives, which are tar) are read; what kind a file is its first
bytes say. pooch unpacks too, but trusts the names, links and sizes that an archive claims.
"""

import bz2
import gzip
import io
import lzma
import shutil
import stat
import tarfile
import zipfile
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath

from shared.data.cache import CHUNK, FULL
from shared.data.errors import DataError

# Text of counts shrinks 5 to 50 times, a table that is almost all zeros 200 times; a bomb 1,000 times and more.
RATIO = 300
FLOOR = 64 << 20  # bytes that any archive may hold, whatever the ratio
TOTAL = 64 << 30  # bytes that no archive may hold
# By how a file begins: is_zipfile takes a tar for a zip that lies in it.
OPENERS = {b"PK": zipfile.ZipFile, b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}


class _Refused(DataError):
    """The archive is not to be trusted, in words."""


def members(path: Path, names, into: Path) -> list[Path]:
    """Take files out of a zip or tar archive; a tar may be packed with gzip, bzip2 or xz.

    `names` are paths inside the archive, `into` is a new folder, made here. Returned are the files in it, in the order
    of `names`. :class:`DataError`, with nothing left behind: if a name is not there, is a link, a device or there
    twice; if any name of the archive leads outside; if it unpacks to more than it may; if it is damaged, or the disk is
    full.
    """
    path, into = Path(path), Path(into)
    if not path.is_file():
        raise DataError(f"there is no file {path} to unpack")
    into.mkdir(parents=True)
    try:
        read_through(path)
        found = {_inside(name): into / _inside(name) for name in names}
        for name, plain, opened in _files(path):
            target = found.get(_inside(name))
            if target is None:
                continue
            if not plain or target.exists():
                raise _Refused(f"it holds {name} twice" if plain else f"{name} is a link or a device and no file")
            target.parent.mkdir(parents=True, exist_ok=True)
            with opened() as source, target.open("xb") as out:
                shutil.copyfileobj(source, out, CHUNK)
        for name in (name for name, target in found.items() if not target.is_file()):
            raise _Refused(f"it has no file {name}; the archive may be another version")
    except Exception as e:  # each library has errors of its own
        shutil.rmtree(into)
        said = str(e) if isinstance(e, _Refused) else f"it is damaged, or no zip or tar archive ({e}); fetch it again"
        if getattr(e, "errno", None) in FULL:
            said = f"the disk of {into.parent} is full; make room"
        raise DataError(f"{path.name} cannot be unpacked: {said}") from e
    return list(found.values())


def read_through(path: Path) -> None:
    """Read a file to its end before anything in it is believed: checksums stand there, and bombs hide there."""
    total, limit = 0, min(TOTAL, max(FLOOR, RATIO * path.stat().st_size))
    with _opened(path) as file:
        zipped = isinstance(file, zipfile.ZipFile)  # no more of its members is read than they claim
        sizes = (i.file_size for i in file.infolist()) if zipped else map(len, iter(lambda: file.read(CHUNK), b""))
        for size in sizes:
            total += size
            if total > limit:
                raise _Refused(f"it unpacks to more than {limit / 1e6:,.0f} MB, too much for its size (a bomb?)")


def _opened(path: Path):
    """A zip archive, or the bytes as they come out of their packing, by how the file begins."""
    with path.open("rb") as f:
        start = f.read(6)
    return next((opener for magic, opener in OPENERS.items() if start.startswith(magic)), io.FileIO)(path)


def _files(path: Path):
    """Of every member that is no folder: its name, whether it is a plain file, and a function that opens it."""
    with _opened(path) as file:
        if isinstance(file, zipfile.ZipFile):
            for i in (i for i in file.infolist() if not i.is_dir()):
                yield i.filename, stat.S_IFMT(i.external_attr >> 16) in (0, stat.S_IFREG), partial(file.open, i)
        else:
            archive = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115  closed with the file
            for i in (i for i in archive if not i.isdir()):
                yield i.name, i.isreg() and not i.issparse(), partial(archive.extractfile, i)


def _inside(name: str) -> str:
    """A member's name without ``./``; one that leads outside, on any system, is refused."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not name or "\0" in name or PureWindowsPath(name).anchor or ".." in parts:
        raise _Refused(f"the name {name!r} leads outside the folder it is unpacked to; do not trust this archive")
    return "/".join(p for p in parts if p != ".")
