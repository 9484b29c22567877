"""Members of an archive onto the disk, and nothing else: never outside the folder, never more than expected.

Zip (and wheels, which are zip) and tar (and source archives, which are tar) are read; what kind a file is its first
bytes say. Members land in a temporary folder first, and get their place when all of them are there.
"""

from __future__ import annotations

import bz2
import contextlib
import errno
import fnmatch
import gzip
import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath

from shared.data.errors import DataError

CHUNK = 1 << 20
# Text of counts shrinks 5 to 50 times, a table that is almost all zeros 200 times; a bomb 1,000 times and more.
RATIO = 300
FLOOR = 64 << 20  # bytes that any archive may hold, whatever the ratio
TOTAL = 64 << 30  # bytes that no archive may hold
# First bytes of an archive, where they stand, and what opens it; zips open their members themselves.
OPENERS = (
    *((b"PK\x03\x04", 0, None), (b"PK\x05\x06", 0, None), (b"\x1f\x8b", 0, gzip.open), (b"BZh", 0, bz2.open)),
    *((b"\xfd7zXZ\x00", 0, lzma.open), (b"ustar", 257, open)),
)
DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, gzip.BadGzipFile),
    *(EOFError, NotImplementedError, RuntimeError, ValueError),
)


class _Bad(Exception):
    """The archive is refused, in words."""


def members(path: Path, names, into: Path) -> list[Path]:
    """Take files out of an archive.

    Parameters
    ----------
    path : Path
        A zip or tar archive; a tar may be packed with gzip, bzip2 or xz.
    names : sequence of str
        Paths inside the archive. A name with ``*`` or ``?`` means every file that it fits, one at least; no names mean
        every file.
    into : Path
        The folder they go to, under the names they have inside; made when all of them are there.

    Returns
    -------
    list of Path
        In the order of `names`, and by name where a pattern fits several.

    Raises
    ------
    DataError
        If a name is not there, is a link, a device or there twice; if any name of the archive leads outside; if it
        unpacks to more than it may; if it is damaged, or the disk is full. Then nothing is left behind.
    """
    path, into = Path(path), Path(into)
    into.parent.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(names))
    try:
        for name in names:
            _inside(name)
        with tempfile.TemporaryDirectory(prefix=f".{into.name[:40]}-", dir=into.parent) as folder:
            opener = _opener(path)
            out = _Out(path, names, Path(folder) / "out")
            _untar(path, opener, out) if opener else _unzip(path, out)
            found = out.found()
            _place(out.folder, into, found)
    except _Bad as e:
        raise DataError(f"{path.name} is not unpacked: {e}") from None
    except DAMAGE as e:
        raise DataError(f"{path.name} is not unpacked: it is damaged ({e}); fetch it again") from e
    except OSError as e:
        if e.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
            raise DataError(f"{path.name} cannot be unpacked: the disk of {into.parent} is full; make room") from e
        raise DataError(f"{path.name} cannot be unpacked into {into} ({e}): it may be damaged, fetch it again") from e
    return [into / name for name in found]


def _inside(name: str) -> str:
    """A member's name without ``./``; one that leads outside, on any system, is refused."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not name or "\0" in name or name.startswith(("/", "\\")) or PureWindowsPath(name).drive or ".." in parts:
        raise _Bad(f"the name {name!r} leads outside the folder it is unpacked to; do not trust this archive")
    return "/".join(p for p in parts if p != ".")


def _opener(path: Path):
    """What opens a tar for reading its unpacked bytes; None for a zip."""
    if not path.is_file():
        raise _Bad(f"there is no file {path}")
    with path.open("rb") as f:
        head = f.read(262)
    for magic, at, opener in OPENERS:
        if head.startswith(magic, at):
            return opener
    raise _Bad("it is no zip or tar archive; the download may be a web page, or damaged")


class _Out:
    """Where members are written, and what has been written; holds the limits."""

    def __init__(self, path: Path, names: list[str], folder: Path):
        self.names, self.folder = names, folder
        self.limit = min(TOTAL, max(FLOOR, RATIO * path.stat().st_size))
        self.free = shutil.disk_usage(folder.parent).free
        self.bytes = 0
        self.written: dict[str, str] = {}  # by the name in small letters: some systems know no other

    def wants(self, name: str, is_folder: bool, is_file: bool) -> bool:
        """True for a file that was asked for; it must be a plain one, and come once."""
        inside = _inside(name)
        if is_folder or (self.names and not any(self._fits(inside, n) for n in self.names)):
            return False
        if inside.casefold() in self.written:
            raise _Bad(f"it holds {inside} twice")
        if not is_file:
            raise _Bad(f"{name} is a link or a device and no file")
        return True

    @staticmethod
    def _fits(name: str, asked: str) -> bool:
        if "*" in asked or "?" in asked:
            return fnmatch.fnmatchcase(name, asked.replace("[", "[[]"))
        return name == _inside(asked)

    def count(self, n: int) -> None:
        """Add unpacked bytes; too many are a bomb."""
        self.bytes += n
        if self.bytes > self.limit:
            raise _Bad(f"it unpacks to more than {self.limit / 1e6:,.0f} MB, too much for its size (a bomb?)")

    def copy(self, name: str, source, size: int) -> None:
        """Write one member."""
        if size > self.free:
            raise OSError(errno.ENOSPC, "too large for the disk")
        name = _inside(name)
        self.written[name.casefold()] = name
        target = self.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as f:
            shutil.copyfileobj(source, f, CHUNK)
        if target.stat().st_size != size:
            raise _Bad(f"its member {name} has not the size it claims; fetch it again")

    def found(self) -> list[str]:
        """Names written, in the order asked; each asked one must be there."""
        written = sorted(self.written.values())
        if not self.names:
            return written
        found: dict[str, None] = {}
        for asked in self.names:
            fits = [n for n in written if self._fits(n, asked)]
            if not fits:
                raise _Bad(f"it has no file {asked}; the archive may be another version")
            found |= dict.fromkeys(fits)
        return list(found)


def _unzip(path: Path, out: _Out) -> None:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            is_file = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)
            if out.wants(info.filename, info.is_dir(), is_file):
                if info.flag_bits & 1:
                    raise _Bad(f"{info.filename} is encrypted")
                out.count(info.file_size)  # no more than that is read
                with archive.open(info) as source:
                    out.copy(info.filename, source, info.file_size)


class _Counted:
    """A stream whose every unpacked byte is counted, the headers' too."""

    def __init__(self, source, out: _Out):
        self.source, self.out = source, out

    def read(self, size: int) -> bytes:
        got = self.source.read(size)
        self.out.count(len(got))
        return got


def _untar(path: Path, opener, out: _Out) -> None:
    with opener(path, "rb") as source:
        stream = _Counted(source, out)
        # One pass from start to end: nothing is unpacked twice, and the checksum at the end is met.
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for info in archive:
                if out.wants(info.name, info.isdir(), info.isreg() and not info.issparse()):
                    out.copy(info.name, archive.extractfile(info), info.size)
        while stream.read(CHUNK):
            pass


def _place(folder: Path, into: Path, names: list[str]) -> None:
    """Move what was unpacked to its place: the folder at once, or into one that has files already, file by file."""
    folder.mkdir(exist_ok=True)
    with contextlib.suppress(OSError):
        if not into.is_symlink():
            with contextlib.suppress(FileNotFoundError):
                into.rmdir()  # an empty one makes room
            os.rename(folder, into)
            return
    for name in names:
        target = into / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.parent.resolve().is_relative_to(into.resolve()):
            raise _Bad(f"{target.parent} is a link that leads outside")
        os.replace(folder / name, target)
