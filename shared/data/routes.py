"""The routes of a data set, tried in order: bundled, package, official, simulated.

What a package or an official source holds is read once and converted into the cache as ``.h5ad``; later loads read that
and need neither the network nor the files it was made from.
"""

import hashlib
import json
import os
import tempfile
from pathlib import Path

from shared.data import download, unpack
from shared.data.cache import CURE, FULL, cache_folder, known_sha256, locked, made, read_note, sha256, sweep, write_note
from shared.data.catalogue import Entry, Route, joined_sha256
from shared.data.constraints import SettingError
from shared.data.errors import DataError, SimulatedWarning, Unavailable, warn

VERSION = 1  # of the conversion; a new number makes every converted file anew
CONVERTED = Route("bundled", "h5ad")  # how a converted file is read
PACKING = "lzf"  # reads several times faster than gzip and is a third larger


def obtain(entry: Entry, kind: str | None = None, *, progress: bool = True):
    """A data set by the first of its routes that can be used now, or by its route of that `kind`.

    Of the AnnData, ``uns["route"]`` is the route taken; ``uns["sha256"]`` of its file, of the sha256 of its files
    joined, or of simulated values; ``uns["simulated"]`` is True for simulated data and ``uns["unverified"]`` for files
    whose sha256 is not in the catalogue; both are absent elsewhere. :class:`SimulatedWarning` says it if simulated data
    stand in for real ones that could not be had. :class:`Unavailable` is raised if none of the routes can be used now
    (one with a file that is unverified, and not fetched knowingly before, cannot), :class:`DataError` if the entry has
    no such route, or a file is damaged or not the one the catalogue describes.
    """
    said = []
    for route in entry.routes_of(kind):
        try:
            adata = _by(entry, route, progress)
        except Unavailable as e:
            said.append(f"{route.kind}: {e}")
            continue
        if route.kind == "simulated" and said:
            warn(f"{entry.name}: no real data could be had, these are simulated ({'; '.join(said)})", SimulatedWarning)
        return adata
    raise Unavailable(f"{entry.name} cannot be had: {'; '.join(said)}")


def files(entry: Entry, route: Route, *, progress: bool = True, unverified: bool = False) -> list[Path]:
    """The files of a route, each with the sha256 that is known of it.

    Where none is known, :class:`Unavailable` is raised, or with `unverified` the one that is seen now is written down
    in the cache, and later copies are held to it.
    """
    unseen = [f.name for f in route.files if known_sha256(f) is None]
    if unseen and not unverified:
        cure = f"'python -m shared.data get {entry.name} --unverified' fetches it and holds later copies to what it saw"
        raise Unavailable(f"{unseen[0]} is unverified, because its sha256 is not in the catalogue: {cure}")
    return [download.get(file, kind=route.kind, progress=progress) for file in route.files]


def _by(entry: Entry, route: Route, progress: bool):
    if route.kind == "simulated":
        from shared.data import simulate
        from shared.data.load import matrix_sha256

        make = getattr(simulate, route.reader, None)
        if make is None:
            raise DataError(f"{entry.name}: shared.data.simulate has no {route.reader!r}; correct the catalogue")
        adata = make(**route.options)
        adata.uns |= {"route": "simulated", "simulated": True, "sha256": matrix_sha256(adata.X)}
        return adata
    if route.kind == "bundled" or _as_it_is(route):
        adata = _read(route, files(entry, route, progress=progress))
    else:
        adata = _converted(entry, route, progress)
    if hasattr(adata, "uns"):
        adata.uns |= {"route": route.kind, "sha256": joined_sha256([known_sha256(f) for f in route.files])}
        adata.uns |= {} if route.verified else {"unverified": True}
    return adata


def _as_it_is(route: Route) -> bool:
    return route.reader == "h5ad" and not any(f.members for f in route.files)


def _read(route: Route, paths: list[Path]):
    """What the route's reader makes of `paths`; every error of a library becomes a :class:`DataError`."""
    from shared.data.sources import READERS  # some bring heavy libraries along

    read = READERS.get(route.reader)
    if read is None:
        raise DataError(f"there is no reader {route.reader!r}; known are {', '.join(READERS)}")
    names = ", ".join(p.name for p in paths)
    try:
        return read(paths, **route.options)
    except (DataError, SettingError):
        raise
    except MemoryError as e:
        raise DataError(f"{names} does not fit into memory: use a machine with more, or a smaller data set") from e
    except Exception as e:
        raise DataError(f"{names} cannot be read as {route.reader} ({e}): a file may be damaged, fetch it again") from e


def conversion(entry: Entry, route: Route) -> Path | None:
    """Where the converted file of a route lies, there or not; None where it has none, or its files were never here."""
    hashes = [known_sha256(f) for f in route.files]
    if route.kind not in ("package", "official") or _as_it_is(route) or None in hashes:
        return None
    parts = [[h, *f.members] for h, f in zip(hashes, route.files)]
    what = json.dumps([VERSION, route.reader, dict(route.options), parts], sort_keys=True, default=str)
    key = hashlib.sha256(what.encode()).hexdigest()[:12]
    return cache_folder() / "converted" / f"{entry.name}-{key}.h5ad"


def whole(path: Path | None) -> bool:
    """Whether a converted file is there and is what was written."""
    return path is not None and path.is_file() and sha256(path) == read_note(path).get("sha256")


def _converted(entry: Entry, route: Route, progress: bool):
    path = conversion(entry, route)
    if whole(path):
        try:
            return _read(CONVERTED, [path])
        except DataError:
            path.unlink(missing_ok=True)
    paths = files(entry, route, progress=progress)
    path = conversion(entry, route)  # the hash of every file is known now
    with locked(path):
        if whole(path):  # by another process, while this one waited
            return _read(CONVERTED, [path])
        sweep(path)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=made(path.parent)) as folder:
            inputs, draft = [], Path(folder) / path.name
            for i, (file, source) in enumerate(zip(route.files, paths)):
                inputs += unpack.members(source, file.members, Path(folder) / str(i)) if file.members else [source]
            _write(_read(route, inputs), draft)
            digest = sha256(draft)
            os.replace(draft, path)
        # Last: a converted file without its note, or with another's, is not believed and made again.
        write_note(path, {"sha256": digest, "entry": entry.name, "route": route.kind})
    return _read(CONVERTED, [path])


def _write(adata, path: Path) -> None:
    from shared.data.io import h5ad

    try:
        h5ad.write(adata, path, PACKING)
    except Exception as e:
        full = getattr(e, "errno", None) in FULL or "No space" in str(e)  # h5py has no number
        cure = f"make room, or {CURE}" if full else "this is a mistake in the reader"
        raise DataError(f"the converted file {path.name} cannot be written ({e}): {cure}") from e
