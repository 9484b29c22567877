"""Members of an archive onto the disk, and nothing else: never outside the folder, never more than expected.

Zip (and wheels, which are zip) and tar (and source archives, which are tar) are read; what kind a file is its first
bytes say. pooch unpacks too, but trusts the names and sizes that an archive claims.
"""

from __future__ import annotations

import errno
import fnmatch
import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath

from shared.data.download import FULL
from shared.data.errors import DataError
from shared.data.store import CHUNK, head, unpacked

# Text of counts shrinks 5 to 50 times, a table that is almost all zeros 200 times; a bomb 1,000 times and more.
RATIO = 300
FLOOR = 64 << 20  # bytes that any archive may hold, whatever the ratio
TOTAL = 64 << 30  # bytes that no archive may hold
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError)


class _Refused(DataError):
    """The archive is not to be trusted, in words."""


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
        The folder they go to, under the names they have inside.

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
    if not path.is_file():
        raise DataError(f"there is no file {path} to unpack")
    into.parent.mkdir(parents=True, exist_ok=True)
    try:
        asked = {_inside(name).replace("[", "[[]"): name for name in names}
        with tempfile.TemporaryDirectory(prefix=f".{into.name[:40]}-", dir=into.parent) as folder:
            written = sorted(_written(path, asked, Path(folder)))
            found = [[n for n in written if fnmatch.fnmatchcase(n, pattern)] for pattern in asked or "*"]
            for name, fits in zip(asked.values(), found):
                if not fits:
                    raise _Refused(f"it has no file {name}; the archive may be another version")
            found = list(dict.fromkeys(n for fits in found for n in fits))
            _place(Path(folder), into, found)
    except DAMAGE as e:  # the errors of the libraries, and ours, which is a ValueError
        said = str(e) if isinstance(e, _Refused) else f"it is damaged, or no zip or tar archive ({e}); fetch it again"
        raise DataError(f"{path.name} is not unpacked: {said}") from e
    except OSError as e:
        if e.errno in FULL:
            raise DataError(f"{path.name} cannot be unpacked: the disk of {into.parent} is full; make room") from e
        raise DataError(f"{path.name} cannot be unpacked into {into} ({e}): it may be damaged, fetch it again") from e
    return [into / name for name in found]


def _inside(name: str) -> str:
    """A member's name without ``./``; one that leads outside, on any system, is refused."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not name or "\0" in name or name.startswith(("/", "\\")) or PureWindowsPath(name).drive or ".." in parts:
        raise _Refused(f"the name {name!r} leads outside the folder it is unpacked to; do not trust this archive")
    return "/".join(p for p in parts if p != ".")


def _count(path: Path, sizes) -> None:
    """Add bytes up; too many are a bomb."""
    limit, total = min(TOTAL, max(FLOOR, RATIO * path.stat().st_size)), 0
    for size in sizes:
        total += size
        if total > limit:
            raise _Refused(f"it unpacks to more than {limit / 1e6:,.0f} MB, too much for its size (a bomb?)")


def _files(path: Path):
    """Of every member that is no folder: its name, if it is a plain file, its bytes, and a function that opens it."""
    if head(path).startswith(b"PK"):  # not is_zipfile, which takes a tar for a zip that lies in it
        with zipfile.ZipFile(path) as archive:
            for i in (i for i in archive.infolist() if not i.is_dir()):
                plain = stat.S_IFMT(i.external_attr >> 16) in (0, stat.S_IFREG)
                yield i.filename, plain, i.file_size, lambda i=i: archive.open(i)
        return
    # Once through before anything is believed: a bomb may hide in a header, and the checksum stands at the end.
    with unpacked(path) as stream:
        _count(path, (len(chunk) for chunk in iter(lambda: stream.read(CHUNK), b"")))
    with tarfile.open(path) as archive:
        for i in (i for i in archive if not i.isdir()):
            yield i.name, i.isreg() and not i.issparse(), i.size, lambda i=i: archive.extractfile(i)


def _written(path: Path, asked, folder: Path) -> list[str]:
    """Write the members that were asked for below `folder`; their names."""
    written: dict[str, str] = {}  # by the name in small letters: some systems know no other
    total = 0
    for name, plain, size, opened in _files(path):
        inside = _inside(name)
        if asked and not any(fnmatch.fnmatchcase(inside, pattern) for pattern in asked):
            continue
        if inside.casefold() in written:
            raise _Refused(f"it holds {inside} twice")
        if not plain:
            raise _Refused(f"{name} is a link or a device and no file")
        total += size
        _count(path, [total])  # of a zip, too: no more than a member claims is read
        if size > shutil.disk_usage(folder).free:
            raise OSError(errno.ENOSPC, "too large for the disk")
        written[inside.casefold()] = inside
        (folder / inside).parent.mkdir(parents=True, exist_ok=True)
        with opened() as source, (folder / inside).open("xb") as out:
            shutil.copyfileobj(source, out, CHUNK)
    return list(written.values())


def _place(folder: Path, into: Path, names: list[str]) -> None:
    """Move what was unpacked to its place, where files may lie already."""
    into.mkdir(exist_ok=True)
    for name in names:
        target = into / name
        if not target.parent.resolve().is_relative_to(into.resolve()):
            raise _Refused(f"{target.parent} is a link that leads outside")
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(folder / name, target)
