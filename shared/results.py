"""A run's numbers with their provenance: record them, store them, load them, compare them.

A number counts only with the commit, profile, seeds, device, versions and data it came from. :class:`Run` refuses
to record one before it knows them, and :func:`save` refuses to store a run that lost them.

In a notebook, :meth:`Run.record` leaves the number in the cell's output in the form that ``{glue:text}`` reads, so
that prose quotes what was computed; :func:`from_notebook` collects the same outputs into ``book/results/``.

A chapter has one file there. The runs of its lesson stand under ``profiles``, those of its study, whose page is called
``<chapter>-study``, under ``study``; no name stands under both, so that either page may quote the other.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import date
from importlib import metadata
from pathlib import Path

PROFILES = ("smoke", "lesson", "full")
PACKAGES = (
    "numpy",
    "scipy",
    "pandas",
    "scikit-learn",
    "torch",
    "anndata",
    "matplotlib",
    "keras",
    "tensorflow",
    "scanpy",
)
STUDY = "-study"  # ends the name of a study's page
RECORDED = "recorded"  # the profile of a study that shows what was recorded, and measures nothing
MIME_PREFIX = "application/papermill.record/"


class ResultError(ValueError):
    """A number, or the record of its origin, is missing or malformed."""


@dataclass
class Run:
    """The numbers of one execution of one page.

    Parameters
    ----------
    chapter : str
        The page's one name: ``"baselines"`` for the lesson, ``"baselines-study"`` for the study.
    profile : {"smoke", "lesson", "full"}
    seeds : tuple of int
        Every seed that stochastic results were repeated over.
    device : str
        ``"cpu"`` or the accelerator's name.
    data : dict of str to str, optional
        Data set name to the sha256 of the file it came from; add to it as data are loaded.

    Raises
    ------
    ResultError
        If any part of the provenance is missing or malformed.
    """

    chapter: str
    profile: str
    seeds: tuple[int, ...]
    device: str
    data: dict[str, str] = field(default_factory=dict)
    records: dict[str, dict] = field(default_factory=dict)

    def __post_init__(self):
        self.seeds = tuple(int(s) for s in self.seeds)
        if self.profile not in PROFILES:
            raise ResultError(f"profile {self.profile!r} is not one of {', '.join(PROFILES)}")
        if not self.chapter or not self.seeds or not self.device:
            raise ResultError("a run needs a chapter, at least one seed and a device before it can record a number")

    def record(self, name, value, *, n=None, unit=None, published=None, source=None, tolerance=None):
        """Record one number, show nothing, and return it.

        Parameters
        ----------
        name : str
            A Python identifier, unique in the chapter.
        value : float, int, str or an interval
            An interval is any object with ``value``, ``low`` and ``high`` (see ``shared.evaluate.Interval``). It is
            stored as one record, and glued as ``name``, ``name_low``, ``name_high``.
        n : int, optional
            How many cells, samples or seeds it rests on.
        unit : str, optional
            For a reader, for example ``"balanced accuracy"``.
        published : float or str, optional
            What the paper reports for the same quantity; needs `source`.
        source : str, optional
            Where the paper reports it: citation key and table, figure or page.
        tolerance : float, optional
            Absolute difference another machine may show; the default is 0.02 plus 5 % of the value.

        Raises
        ------
        ResultError
            If the number is not finite, the name is unusable or already holds another value, no data were
            registered, or a published figure comes without its source.
        """
        if not str(name).isidentifier():
            raise ResultError(f"{name!r} cannot name a result: use letters, digits and underscores")
        if not self.data:
            raise ResultError(f"{name!r} has no data behind it: load its data set before recording")
        if published is not None and not source:
            raise ResultError(f"{name!r} quotes a published figure: say where it is published (source=...)")
        if not isinstance(value, str):
            n = n or getattr(value, "n", None) or None
        entry = {
            "name": name,
            **_plain(name, value),
            "n": n,
            "unit": unit,
            "published": published,
            "source": source,
            "tolerance": tolerance,
        }
        entry = {k: v for k, v in entry.items() if v is not None}
        if self.records.get(name, entry) != entry:
            raise ResultError(f"{name!r} was recorded before with another value: give each result its own name")
        self.records[name] = entry
        _emit(entry)
        return value

    def provenance(self) -> dict:
        """What another person needs to get these numbers again."""
        return {
            "chapter": self.chapter,
            "profile": self.profile,
            "seeds": list(self.seeds),
            "device": self.device,
            "data": dict(sorted(self.data.items())),
            "commit": commit(),
            "versions": versions(),
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            "date": date.today().isoformat(),
        }


def _plain(name, value):
    parts = {"value": value}
    if all(hasattr(value, a) for a in ("value", "low", "high")):
        parts = {"value": value.value, "low": value.low, "high": value.high}
    out = {}
    for key, v in parts.items():
        v = v.item() if hasattr(v, "item") else v
        if isinstance(v, bool) or not isinstance(v, (int, float, str)):
            raise ResultError(f"{name!r} holds a {type(v).__name__}: record a number, a word or an interval")
        if isinstance(v, float):
            if not math.isfinite(v):
                raise ResultError(f"{name!r} is {v}: a result must be finite; find out why before recording it")
            v = float(f"{v:.6g}")
        out[key] = v
    return out


def _emit(entry):
    """Leave the record in the notebook's output, in the form ``{glue:text}`` reads; outside a notebook do nothing."""
    if "IPython" not in sys.modules:
        return
    from IPython import get_ipython
    from IPython.display import display

    if get_ipython() is None:
        return
    for key, suffix in (("value", ""), ("low", "_low"), ("high", "_high")):
        if key in entry:
            meta = {"scrapbook": {"name": entry["name"] + suffix, "mime_prefix": MIME_PREFIX}}
            meta |= {"record": entry} if key == "value" else {}
            # An object under this key would be refused by nbformat; a JSON scalar as text is accepted.
            display({MIME_PREFIX + "text/plain": json.dumps(entry[key])}, raw=True, metadata=meta)


def commit() -> str:
    """The commit of the checkout (with ``+changes`` when it has uncommitted ones), or of an installed copy."""
    root = Path(__file__).resolve().parent.parent
    if (root / ".git").exists():
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            head = _git(root, "rev-parse", "HEAD")
            changed = _git(root, "status", "--porcelain", "--", "shared", "chapters/*.md", "chapters/*/*.md", "data")
            return head + ("+changes" if changed else "")
    with contextlib.suppress(metadata.PackageNotFoundError):
        origin = json.loads(metadata.distribution("borrowed-strength").read_text("direct_url.json") or "{}")
        return origin.get("vcs_info", {}).get("commit_id") or "release " + metadata.version("borrowed-strength")
    return "unknown"


def _git(root, *words) -> str:
    return subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True).stdout.strip()


def versions() -> dict[str, str]:
    """Python and the packages a result may depend on, those that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def folder() -> Path:
    """Where recorded results live: ``book/results`` in a checkout, beside the package when it is installed."""
    here = Path(__file__).resolve().parent
    bundled = here / "_bundled" / "results"
    return bundled if bundled.is_dir() else here.parent / "book" / "results"


def load(chapter: str, shelf: Path | None = None) -> dict:
    """Everything recorded for one chapter, by either page's name: ``{"chapter", "profiles": {profile: run}, "study"}``.

    A run is ``{"provenance", "records"}``; ``"study"`` is there when the chapter's study was recorded. A chapter
    without a recorded run gives empty profiles. A file that is not valid JSON raises :class:`ResultError`.
    """
    slug = chapter.removesuffix(STUDY)
    path = (shelf or folder()) / f"{slug}.json"
    if not path.exists():
        return {"chapter": slug, "profiles": {}}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as e:
        raise ResultError(
            f"{path.name} is not valid JSON (line {e.lineno}): restore it, or run the chapter again"
        ) from e


def _key(page: str) -> str:
    return "study" if page.endswith(STUDY) else "profiles"


def runs(page: str, shelf: Path | None = None) -> dict[str, dict]:
    """The recorded runs of one page by profile; empty when none were recorded."""
    return load(page, shelf).get(_key(page), {})


def latest(page: str, shelf: Path | None = None) -> dict:
    """The run that a page shows: the lesson's at the lesson profile, the study's at the largest; empty without one."""
    found = runs(page, shelf)
    shown = reversed(PROFILES) if page.endswith(STUDY) else ["lesson"]
    return next((found[p] for p in shown if p in found), {})


def recorded(chapter: str, shelf: Path | None = None) -> dict[str, dict]:
    """What the two pages of a chapter may quote, name to entry: the records of the :func:`latest` run of each."""
    slug = chapter.removesuffix(STUDY)
    return {n: e for page in (slug, slug + STUDY) for n, e in latest(page, shelf).get("records", {}).items()}


def save(page: str, profile: str, run: dict) -> Path:
    """Store one profile's run (``{"provenance", "records"}``) of a page, replacing its last.

    Raises
    ------
    ResultError
        If the run has no records or its provenance lacks a part, or is another page's or profile's, or the chapter's
        other page recorded the same name.
    """
    provenance, records = run.get("provenance") or {}, run.get("records") or {}
    needed = ("commit", "profile", "seeds", "device", "versions", "data")
    missing = [k for k in needed if not provenance.get(k)]
    if missing:
        raise ResultError(f"{page} at {profile} lacks {', '.join(missing)}: a result is not stored without its origin")
    if (provenance["profile"], provenance["chapter"]) != (profile, page):
        raise ResultError(f"this run is {provenance['chapter']} at {provenance['profile']}, not {page} at {profile}")
    if not records:
        raise ResultError(f"{page} at {profile} recorded no number")
    stored = load(page)
    there = stored.setdefault(_key(page), {})
    there[profile] = {"provenance": provenance, "records": records}
    stored[_key(page)] = {p: there[p] for p in PROFILES if p in there}
    if twice := recorded_twice(stored):
        raise ResultError(f"both pages of {stored['chapter']} record {', '.join(twice)}: give each its own name")
    path = folder() / f"{stored['chapter']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".json.tmp")
    temporary.write_text(json.dumps(stored, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)
    return path


def recorded_twice(held: dict) -> list[str]:
    """Names that both pages of a chapter recorded, at whatever profile; `held` is what :func:`load` gives."""
    lesson, study = ({n for run in held.get(k, {}).values() for n in run["records"]} for k in ("profiles", "study"))
    return sorted(lesson & study)


def from_notebook(path) -> dict:
    """Collect what an executed notebook recorded: ``{"provenance": dict, "records": {name: entry}}``.

    The seconds and peak memory that the runner wrote into the notebook's metadata join the provenance.
    """
    nb = json.loads(Path(path).read_text(encoding="utf-8"))
    records, provenance = {}, {}
    for cell in nb["cells"]:
        for output in cell.get("outputs", ()):
            meta = output.get("metadata") or {}
            if "record" in meta:
                records[meta["record"]["name"]] = meta["record"]
            provenance = meta.get("provenance", provenance)
    measured = nb["metadata"].get("book", {})
    extra = {k: measured[k] for k in ("seconds", "peak_mib") if k in measured}
    return {"provenance": {**provenance, **extra} if provenance else {}, "records": records}


def compare(measured: dict, stored: dict, wider: float = 1) -> list[str]:
    """Differences between two ``records`` that pass the stated tolerances; an empty list when they agree.

    Numbers agree within the record's own absolute ``tolerance``, or 0.02 plus 5 % of the stored value without one.
    Whole numbers without a tolerance and words must be equal. Published figures must not change. With `wider`, for a
    run on another kind of device, every tolerance is that many times as large, and whole numbers have one too. Other
    random numbers are drawn there, so a value may lie anywhere in the stored interval, and its ends are not compared.
    """
    out = [f"{n}: recorded before, not now" for n in stored if n not in measured]
    out += [f"{n}: not recorded before" for n in measured if n not in stored]
    for name in measured.keys() & stored.keys():
        new, old = measured[name], stored[name]
        for key in ("published", "source", "value", *(("low", "high") if wider == 1 else ())):
            a, b = new.get(key), old.get(key)
            if wider != 1 and key == "value" and "low" in old and old["low"] <= a <= old["high"]:
                continue
            allowed = 0 if key in ("published", "source") else wider * _allowed(old, a, b, exact=wider == 1)
            if a != b and not (allowed and abs(a - b) <= allowed):
                out.append(f"{name}: {key} {b!r} became {a!r}" + (f" (tolerance {allowed:.2g})" if allowed else ""))
    return sorted(out)


def _allowed(old, a, b, exact=True) -> float:
    """The absolute difference allowed between two stored values of one record; zero means they must be equal."""
    if isinstance(a, str) or isinstance(b, str) or a is None or b is None:
        return 0
    if "tolerance" in old:
        return old["tolerance"]
    return 0 if exact and isinstance(a, int) and isinstance(b, int) else 0.02 + 0.05 * abs(b)
