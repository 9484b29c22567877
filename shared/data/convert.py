"""A file of your own: what it holds, what loading changes, the one command that mends it, and the clean copy.

``python -m shared.data check FILE`` and ``convert FILE OUT.h5ad`` print what :func:`judge` and :func:`convert` return.
"""

from __future__ import annotations

import contextlib
import csv
import io
import shlex
import tempfile
import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from shared.data.cache import written_whole
from shared.data.constraints import near
from shared.data.errors import DataError, DataWarning
from shared.data.genes.lists import many, shown, stamp
from shared.data.io import h5ad
from shared.data.io.tables import opened, separator_of
from shared.data.load import load
from shared.data.validate.checks import check
from shared.data.validate.findings import CheckReport

if TYPE_CHECKING:
    import anndata as ad

ANNOTATIONS = 20  # columns of words in a table of expression; a table with more is another table
# Of a gene, in what counts reads of genes.
OF_GENES = {"chr", "chromosome", "start", "end", "strand", "length", "gene_length", "exon_length"}
UNITS_OF = {"counts": "counts", "logged": "log", "per million": "tpm", "signed": "z", "linear": "none"}
WIDEST, NARROWEST = 80, 40


@dataclass(frozen=True)
class Options:
    """How a file of your own is read: the arguments of :func:`shared.data.load` and what is done afterwards.

    Attributes
    ----------
    transpose : bool
        Genes stand in rows.
    units, layer : str or None
    duplicates : str
    labels : str or None
        Column of ``obs`` with the classes; the copy has it as ``cell_type``.
    annotation : tuple of str
        Columns of a table that describe its rows: they go to ``obs``, or to ``var`` where it is transposed.
    drop_empty : bool
        Leave out cells without any expression.
    """

    transpose: bool = False
    units: str | None = None
    layer: str | None = None
    duplicates: str = "refuse"
    annotation: tuple[str, ...] = ()
    labels: str | None = None
    drop_empty: bool = False

    def words(self) -> list[str]:
        """As options of the command."""
        words = []
        for name, value in asdict(self).items():
            option = f"--{name.replace('_', '-')}"
            for one in value if isinstance(value, tuple) else [value] if value not in (None, False, "refuse") else []:
                words += [option] if one is True else [option, one]
        return words


@dataclass(frozen=True)
class Judgement:
    """What a file holds and what would mend it.

    Attributes
    ----------
    path : Path
    refused : str
        Why it cannot be loaded with these options; empty where it can.
    report : CheckReport or None
        Of what was loaded.
    changes : tuple of str
        What loading changed, and what :func:`convert` would.
    mend : Options or None
        Options with which the file is better; None where no option helps, or none is needed.
    left : tuple of str
        What is still found with them, in words.
    """

    path: Path
    refused: str
    report: CheckReport | None
    changes: tuple[str, ...] = ()
    mend: Options | None = None
    left: tuple[str, ...] = field(default=())

    @property
    def status(self) -> int:
        """0: nothing worse than a note; 1: warnings; 2: refused, or an error that has to be cured first."""
        if self.refused or self.report.errors:
            return 2
        return int(not self.report.ok)

    @property
    def command(self) -> str:
        """The command that writes the clean copy; empty where none would."""
        if self.mend is None:
            return ""
        name = self.path.name.removesuffix(".gz")
        target = f"{name if self.path.is_dir() else Path(name).stem}.h5ad"
        if self.path.suffix == ".h5ad":
            target = f"{self.path.stem}-clean.h5ad"
        words = ["python", "-m", "shared.data", "convert", str(self.path), target, *self.mend.words()]
        return shlex.join(words)

    def said(self, columns: int = WIDEST) -> str:
        """The judgement in lines of at most `columns` characters, commands apart."""
        room = min(max(columns, NARROWEST), WIDEST)
        lines = fold(f"refused: {self.refused}" if self.refused else f"{self.path.name}: {self.report.facts}", room)
        if not self.refused:
            for f in self.report.findings:
                lines += fold(f"{f.severity}: {f.problem}: {f.cure}", room)
            lines += ["nothing to complain of"] * (not self.report.findings)
            lines += ["", "changed on the way in:"] * bool(self.changes)
            lines += [line for change in self.changes for line in fold(f"- {change}", room)]
        if self.mend is not None:
            lines += ["", "one command mends it:", *parted(self.command, room)]
            lines += ["what is left then:"] * bool(self.left)
            lines += [line for left in self.left for line in fold(f"- {left}", room)]
        elif self.status and self.path.exists():
            lines += ["", *fold("no command mends this: do what is said above, in the file or in Python", room)]
        return "\n".join(lines)


def fold(text: str, room: int) -> list[str]:
    """Lines of at most `room` characters, all but the first set in."""
    return textwrap.wrap(text, room, subsequent_indent="  ", break_on_hyphens=False) or [""]


def parted(command: str, room: int) -> list[str]:
    """A command on as many lines as it needs, as a shell takes them: what belongs to an option stays beside it."""
    parts, lines = [], [""]
    for word in map(shlex.quote, shlex.split(command)):
        if parts and parts[-1].startswith("-") and " " not in parts[-1] and not word.startswith("-"):
            parts[-1] += f" {word}"
        else:
            parts.append(word)
    for part in parts:
        if lines[-1] and len(lines[-1]) + len(part) + 3 > room:
            lines[-1] += " \\"
            lines.append("   ")
        lines[-1] += f" {part}" if lines[-1] else part
    return lines


def judge(path, options: Options | None = None, *, need=None, organism=None) -> Judgement:
    """Look at a file of your own; it is read, and nothing is written.

    Parameters
    ----------
    path : str or Path
        What :func:`shared.data.load` reads.
    options : Options, optional
        How to read it.
    need, organism : str, optional
        As :func:`shared.data.check` takes them.

    Returns
    -------
    Judgement
        Whatever is wrong with the file is told there; nothing is raised.
    """
    return _judged(Path(path), options or Options(), need, organism)[0]


def _judged(path, options, need=None, organism=None) -> tuple[Judgement, ad.AnnData | None]:
    """A file's judgement, and what was read where it can be."""
    try:
        adata, changes = _read(path, options)
    except DataError as e:
        return _mended(Judgement(path, str(e), None), options, _for_refused(path, options), need, organism), None
    except Exception as e:  # no file of anybody's ends in a traceback
        return Judgement(
            path, f"{path.name} cannot be read ({type(e).__name__}: {e}): is it what its name says?", None
        ), None
    report = check(adata, need=need, labels=options.labels, organism=organism)
    found = Judgement(path, "", report, changes)
    return _mended(found, options, _for_findings(path, report, adata, options, need), need, organism), adata


def _read(path, options) -> tuple[ad.AnnData, tuple[str, ...]]:
    """The file as the copy will have it, and what was changed on the way."""
    how = {"layer": options.layer, "duplicates": options.duplicates, "transpose": options.transpose}
    with warnings.catch_warnings(), _numbers_of(path, options.annotation) as (file, described):
        warnings.simplefilter("ignore", DataWarning)  # the report says it
        adata = load(file, units=options.units, **how)
    adata.uns["source"] = str(path)
    side = adata.var if options.transpose else adata.obs
    for column in options.annotation:
        side[column] = described[column].reindex(side.index)
    changes, notes = [], list(map(str, adata.uns["notes"]))[_notes_in(path) :]
    if options.units:
        changes.append(f"units are {options.units}, as asked for")
    if options.annotation:
        changes.append(f"{shown(options.annotation)} went to {'var' if options.transpose else 'obs'}")
    stripped = adata.var_names.str.strip()
    if stripped.is_unique and (stripped != adata.var_names).any():
        changes.append(f"spaces around {many(int((stripped != adata.var_names).sum()), 'gene name')} taken off")
        adata.var_names = stripped
    if options.drop_empty:
        there = np.asarray(np.abs(adata.X).sum(1)).ravel() > 0
        if not there.all():
            changes.append(f"{many(int((~there).sum()), 'cell')} without any expression left out")
            adata = adata[there].copy()
    if options.labels in adata.obs and options.labels != "cell_type":
        changes.append(f"obs[{options.labels!r}] is obs['cell_type'] too")
        adata.obs["cell_type"] = adata.obs[options.labels]
    stamp(adata, changes)
    return adata, (*notes, *changes)


@contextlib.contextmanager
def _numbers_of(path, columns) -> Iterator[tuple[Path, pd.DataFrame]]:
    """A table without some of its `columns`, in a file for the reader, and these columns, one row a name."""
    if not columns:
        yield path, pd.DataFrame()
        return
    with tempfile.TemporaryDirectory() as folder, _rows(path) as (header, rows, separator):
        missing = [c for c in columns if c not in header[1:]]
        if missing:
            raise DataError(f"{path.name} has no column {missing[0]!r}; it has {shown(header[1:])}")
        at = [header.index(c, 1) for c in columns]
        copy, kept = Path(folder) / path.name.removesuffix(".gz"), {}
        with copy.open("w", encoding="utf-8", newline="") as file:
            out = csv.writer(file, delimiter=separator, lineterminator="\n")
            out.writerow([h for i, h in enumerate(header) if i not in at])
            for row in rows:
                kept.setdefault(row[0] if row else "", [row[i] if i < len(row) else "" for i in at])
                out.writerow([v for i, v in enumerate(row) if i not in at])
        described = pd.DataFrame.from_dict(kept, orient="index", columns=list(columns)).replace("", np.nan)
        yield copy, described.apply(lambda c: c if _words(c.dropna()) else pd.to_numeric(c))


@contextlib.contextmanager
def _rows(path) -> Iterator[tuple[list[str], Iterator[list[str]], str]]:
    """The header of a table, one field for each of a row, its rows, and what parts them."""
    separator = separator_of(path)
    with opened(path, to_end=False) as stream, io.TextIOWrapper(stream, encoding="utf-8", newline="") as file:
        rows = csv.reader(file, delimiter=separator)
        header, first = next(rows, []), next(rows, [])
        if len(first) == len(header) + 1:  # R leaves out the first field of a header
            header = ["", *header]
        yield header, chain([first], rows), separator


def _words(values) -> bool:
    return bool(pd.to_numeric(pd.Series(values, dtype=object), errors="coerce").isna().any())


def _described_by(path) -> tuple[str, ...]:
    """The columns of a table that describe its rows (words, a gene's length); none where it is none of numbers."""
    try:
        with _rows(path) as (header, rows, _):
            head = list(islice(rows, 50))
    except (OSError, ValueError, EOFError, csv.Error):
        return ()
    columns = {c: [row[i] for row in head if row[i : i + 1] not in ([], [""])] for i, c in enumerate(header) if i}
    words = tuple(c for c, values in columns.items() if _words(values) or c.lower() in OF_GENES)
    return words if len(words) <= min(ANNOTATIONS, len(columns) // 2) else ()


def _notes_in(path) -> int:
    """How many changes a file tells of itself: those of an earlier reading are not told again."""
    if path.suffix.lower() != ".h5ad":
        return 0
    import h5py

    with h5py.File(path) as file:
        return int(np.prod(file["uns/notes"].shape)) if "uns/notes" in file else 0


def _for_refused(path, options):
    """Options that may let a refused file in, the likeliest first."""
    words = _described_by(path) if path.is_file() and not options.annotation else ()
    if words:
        yield replace(options, annotation=words, labels=options.labels or (words[0] if len(words) == 1 else None))
        yield replace(options, annotation=words, transpose=True)
        options = replace(options, annotation=words)
    yield replace(options, duplicates="sum")
    yield replace(options, transpose=True)
    yield replace(options, transpose=True, duplicates="sum")
    yield replace(options, duplicates="first")
    yield replace(options, transpose=True, duplicates="first")


def _for_findings(path, report, adata, options, need):
    """Options that may cure what was found: all that apply at once."""
    checks, more = {f.check for f in report.findings if f.severity != "note"}, {}
    if "transposed" in checks:
        turned = replace(options, transpose=True, annotation=options.annotation or _described_by(path))
        yield turned
        yield replace(turned, duplicates="sum")
        return
    if "empty cells" in checks:
        more["drop_empty"] = True
    if need == "counts" and "not counts" in checks and options.layer is None:
        counted = [name for name in adata.layers if check(adata, layer=name).looks == "counts"]
        more |= {"layer": counted[0]} if counted else {}
    elif checks & {"not log", "not tpm"} and need is None and report.looks in UNITS_OF:
        more["units"] = UNITS_OF[report.looks]
    if "labels" in checks:
        meant = near(options.labels, adata.obs)
        more |= {"labels": meant[0]} if meant else {}
    if more:
        yield replace(options, **more)


def _mended(found: Judgement, options, candidates, need, organism) -> Judgement:
    """`found` with the first of the `candidates` that leaves less to complain of, and what it leaves."""
    for mend in candidates:
        if mend == options:
            continue
        try:
            adata, _ = _read(found.path, mend)
        except DataError:
            continue
        report = check(adata, need=need, labels=mend.labels, organism=organism)
        worse = [f for f in report.findings if f.severity != "note"]
        before = [] if found.refused else [f for f in found.report.findings if f.severity != "note"]
        if not report.errors and (found.status == 2 or len(worse) < len(before)):
            return replace(found, mend=mend, left=tuple(f"{f.severity}: {f.problem}" for f in worse))
    return found


def convert(path, out, options: Options | None = None, *, overwrite: bool = False) -> Judgement:
    """Write a file of your own as clean AnnData, whole or not at all.

    Parameters
    ----------
    path : str or Path
        What :func:`shared.data.load` reads.
    out : str or Path
        Ends in ``.h5ad``; its folder has to be there.
    options : Options, optional
        How to read it.
    overwrite : bool, default False
        Take the place of a file that is there.

    Returns
    -------
    Judgement
        Of the copy; where its status is 2, nothing was written.

    Raises
    ------
    DataError
        If `out` is there already, is `path` itself, does not end in ``.h5ad``, or cannot be written.
    """
    out, options = Path(out), options or Options()
    if out.suffix.lower() != ".h5ad":
        raise DataError(f"{out.name} does not end in .h5ad: name the copy {out.with_suffix('.h5ad').name}")
    if out.resolve() == Path(path).resolve():
        raise DataError(f"{out.name} is the file itself: give the copy another name, it is never written over")
    if out.exists() and not overwrite:
        raise DataError(f"{out} is there already: add --overwrite (overwrite=True), or give another name")
    if not out.parent.is_dir():
        raise DataError(f"there is no folder {out.parent}: make it first, or check the spelling")
    found, adata = _judged(Path(path), options)
    if found.status == 2:
        return found
    try:
        with written_whole(out) as draft:
            h5ad.write(adata, draft, "gzip")
    except Exception as e:
        why = getattr(e, "strerror", None) or e
        raise DataError(f"{out} cannot be written ({why}): make room, or write to another folder") from e
    return found
