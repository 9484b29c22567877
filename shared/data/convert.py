"""A file of your own: what it holds, what loading changes, the one command that mends it, and the clean copy.

``python -m shared.data check FILE`` and ``convert FILE OUT.h5ad`` print what :func:`judge` and :func:`convert` return.
"""

from __future__ import annotations

import re
import shlex
import textwrap
import warnings
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pandas as pd

from shared.data.cache import written_whole
from shared.data.constraints import near
from shared.data.errors import DataError, DataWarning
from shared.data.genes.lists import many, shown, stamp, tidy
from shared.data.io import h5ad
from shared.data.io.tables import beginning, fields, opened, separator_of
from shared.data.load import load_own
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
    """How a file of your own is read: arguments of :func:`shared.data.load`, and what is done afterwards.

    `annotation` names columns of a table that describe its rows: they go to ``obs``, or to ``var`` where it is
    transposed. `labels` is the column of ``obs`` with the classes, which the copy has as ``cell_type``. `drop_empty`
    leaves out cells without any expression.
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
            if value is True:
                words.append(option)
            elif value not in (None, False, "refuse"):
                words += [w for one in ([value] if isinstance(value, str) else value) for w in (option, one)]
        return words


@dataclass(frozen=True)
class Judgement:
    """What a file holds and what would mend it.

    `refused` says why it cannot be loaded with these options; empty where it can. `report` is the CheckReport of what
    was loaded, or None, and `changes` what loading changed and :func:`convert` would. `mend` are the Options with which
    the file is better, None where no option helps, or none is needed; `left` is what is still found with them, in
    words.
    """

    path: Path
    refused: str
    report: CheckReport | None
    changes: tuple[str, ...] = ()
    mend: Options | None = None
    left: tuple[str, ...] = ()

    @property
    def status(self) -> int:
        """0: nothing worse than a note; 1: warnings; 2: refused, or an error that has to be cured first."""
        return 2 if self.refused or self.report.errors else int(not self.report.ok)

    def said(self, columns: int = WIDEST) -> str:
        """The judgement in lines of at most `columns` characters, commands apart."""
        room, said = min(max(columns, NARROWEST), WIDEST), [f"refused: {self.refused}"]
        if not self.refused:
            said = [f"{self.path.name}: {self.report.facts}"]
            said += [f"{f.severity}: {f.problem}: {f.cure}" for f in self.report.findings] or ["nothing to complain of"]
            said += ["", "changed on the way in:"] * bool(self.changes) + [f"- {change}" for change in self.changes]
        if self.mend is not None:
            name = self.path.name.removesuffix(".gz")
            stem = name if self.path.is_dir() else Path(name).stem
            target = f"{stem}-clean.h5ad" if self.path.suffix == ".h5ad" else f"{stem}.h5ad"
            words = ["python", "-m", "shared.data", "convert", str(self.path), target, *self.mend.words()]
            said += ["", "one command mends it:", *parted(shlex.join(words), room)]
            said += ["what is left then:"] * bool(self.left) + [f"- {left}" for left in self.left]
        elif self.status and self.path.exists():
            said += ["", "no command mends this: do what is said above, in the file or in Python"]
        # Lines of a command are as they have to be.
        how = {"subsequent_indent": "  ", "break_on_hyphens": False}
        return "\n".join(line if len(line) <= room else textwrap.fill(line, room, **how) for line in said)


def parted(command: str, room: int) -> list[str]:
    """A command on as many lines as it needs, as a shell takes them: what belongs to an option stays beside it."""
    quoted = " ".join(shlex.quote(word).replace(" ", "\0") for word in shlex.split(command))
    together = re.sub(r"(?<= )(-\S+) (?!-)", "\\1\0", quoted)
    how = {"subsequent_indent": "    ", "break_long_words": False, "break_on_hyphens": False}
    *lines, last = textwrap.wrap(together, room - 2, **how)
    return [line.replace("\0", " ") for line in (*(f"{line} \\" for line in lines), last)]


def judge(path, options: Options | None = None, *, need=None, organism=None) -> Judgement:
    """Look at a file of your own, any that :func:`shared.data.load` reads; nothing is written, and nothing raised.

    `need` and `organism` are those of :func:`shared.data.check`.
    """
    return _judged(Path(path), options or Options(), need, organism)[0]


def _judged(path, options, need=None, organism=None) -> tuple[Judgement, ad.AnnData | None]:
    try:
        adata, changes = _read(path, options)
    except DataError as e:
        return _mended(Judgement(path, str(e), None), options, _for_refused(path, options), need, organism), None
    except Exception as e:  # no file of anybody's ends in a traceback
        return Judgement(path, f"{path.name} cannot be read ({type(e).__name__}: {e}): is it what it says?", None), None
    report = check(adata, need=need, labels=options.labels, organism=organism)
    found = Judgement(path, "", report, changes)
    return _mended(found, options, _for_findings(path, report, adata, options, need), need, organism), adata


def _read(path, options) -> tuple[ad.AnnData, tuple[str, ...]]:
    """The file as the copy will have it, and what was changed on the way."""
    choices = {"layer": options.layer, "annotation": options.annotation}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # the report says it
        adata = load_own(path, choices, options.duplicates, options.transpose, options.units)
    changes, notes = [], list(map(str, adata.uns["notes"]))
    if path.suffix.lower() == ".h5ad":
        with h5py.File(path) as file:  # what it tells of itself, of an earlier reading, is not told again
            notes = notes[int(np.prod(file["uns/notes"].shape)) if "uns/notes" in file else 0 :]
    if options.units:
        changes.append(f"units are {options.units}, as asked for")
    if options.annotation:
        changes.append(f"{shown(options.annotation)} went to {'var' if options.transpose else 'obs'}")
    for axis, what in (("var_names", "gene name"), ("obs_names", "cell name")):
        names, tidied = getattr(adata, axis), getattr(adata, axis).map(tidy)
        if tidied.is_unique and (tidied != names).any():
            changes.append(f"spaces around {many(int((tidied != names).sum()), what)} taken off")
            setattr(adata, axis, tidied)
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


def _described_by(path) -> tuple[str, ...]:
    """The columns of a table that describe its rows (words, a gene's length); none where it is none of numbers."""
    try:
        separator = separator_of(path)
        with opened(path, to_end=False) as stream:
            head, row, lines, _ = beginning(stream, separator)
            table = pd.DataFrame([fields(line, separator) for line in (row, *islice(lines, 49))]).iloc[:, 1:]
        table = table.replace("", np.nan).set_axis(fields(head, separator)[-table.shape[1] :], axis=1)
    except (DataError, ValueError):
        return ()
    # A gene with a word in some rows is damaged, and no column that describes them.
    wordy = [pd.to_numeric(table.iloc[:, i].dropna(), errors="coerce").isna().mean() > 0.5 for i in range(len(table.T))]
    words = tuple(c for c, is_word in zip(table, wordy) if is_word or c.lower() in OF_GENES)
    few = len(words) <= min(ANNOTATIONS, table.shape[1] // 2) or {c.lower() for c in words} <= OF_GENES
    return words if few and len(words) < table.shape[1] else ()


def _for_refused(path, options):
    words = _described_by(path) if path.is_file() and not options.annotation else ()
    if words:
        yield replace(options, annotation=words, labels=options.labels or (words[0] if len(words) == 1 else None))
        yield replace(options, annotation=words, transpose=True)
        options = replace(options, annotation=words)
    for transpose, duplicates in ((False, "sum"), (True, "refuse"), (True, "sum"), (False, "first"), (True, "first")):
        yield replace(options, transpose=transpose or options.transpose, duplicates=duplicates)


def _for_findings(path, report, adata, options, need):
    checks, more = {f.check for f in report.serious}, {}
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
        if not report.errors and (found.status == 2 or len(report.serious) < len(found.report.serious)):
            return replace(found, mend=mend, left=tuple(f"{f.severity}: {f.problem}" for f in report.serious))
    return found


def convert(path, out, options: Options | None = None, *, overwrite: bool = False) -> Judgement:
    """Write a file of your own, any that :func:`shared.data.load` reads, as clean AnnData, whole or not at all.

    `out` ends in ``.h5ad``, in a folder that is there; a file that is there gives way with `overwrite` only. Returned
    is the judgement of the copy; where its status is 2, nothing was written. :class:`DataError` is raised if `out` is
    there already, is `path` itself, does not end in ``.h5ad``, or cannot be written.
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
