"""The catalogue: what ``data/catalog.yml`` says of every data set, and where its files lie."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from shared.data.errors import DataError

ROUTES = ("bundled",)


@dataclass(frozen=True)
class Route:
    """One way to a data set's file.

    Attributes
    ----------
    kind : str
        One of :data:`ROUTES`.
    path : str
        Of the file, inside the route's place.
    size : int
        Bytes.
    sha256 : str
        Of the file; another one is refused.
    """

    kind: str
    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Entry:
    """What the catalogue says of one data set. ``shape`` is (cells or samples, genes); ``units`` is counts or log."""

    name: str
    title: str
    organism: str
    assay: str
    units: str
    shape: tuple[int, int]
    genes: str
    labels: str
    accession: str
    citation: str
    licence: str
    routes: tuple[Route, ...]

    @property
    def size(self) -> int:
        """Bytes of the file that the first route yields."""
        return self.routes[0].size

    @property
    def sha256(self) -> str:
        """Of the file that the first route yields."""
        return self.routes[0].sha256


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
            routes = tuple(Route(**r) for r in fields.pop("routes"))
            entries[name] = Entry(name=name, **fields | {"shape": tuple(fields["shape"]), "routes": routes})
        except (TypeError, KeyError) as e:
            raise DataError(f"catalog.yml, entry {name!r}: {e}; compare it with another entry") from e
        unknown = [r.kind for r in routes if r.kind not in ROUTES]
        if unknown or not routes:
            raise DataError(f"catalog.yml, entry {name!r}: route {unknown or 'missing'}; known are {', '.join(ROUTES)}")
    return entries


def catalog() -> dict[str, Entry]:
    """Every data set of the book by name.

    Raises
    ------
    DataError
        If the catalogue is missing or an entry lacks a field.
    """
    path = home() / "catalog.yml"
    if not path.exists():
        raise DataError(f"there is no catalogue at {path}: run from a full checkout, or install the package again")
    return dict(_read(path))


def entry(name: str) -> Entry:
    """The entry called `name`; an unknown name raises :class:`DataError` with the nearest known one."""
    known = catalog()
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else "or a path to a .h5ad, .csv or .tsv file"
        raise DataError(f"{name!r} is not in the catalogue ({', '.join(known)}); {hint}")
    return known[name]


def bundled_path(entry: Entry) -> Path:
    """Where the bundled file of `entry` lies; :class:`DataError` if the entry has none or the file is gone."""
    route = next((r for r in entry.routes if r.kind == "bundled"), None)
    if route is None:
        raise DataError(f"{entry.name!r} is not bundled with the package")
    path = home() / route.path
    if not path.exists():
        raise DataError(f"the bundled file {route.path} is missing: restore it with 'git checkout data', or reinstall")
    return path
