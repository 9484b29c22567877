"""The catalogue and files of your own from a shell: ``python -m shared.data``."""

import argparse
import functools
import os
import shutil
import sys
import textwrap
from dataclasses import fields
from pathlib import Path

from shared.data import cache, catalogue, download, routes
from shared.data.catalogue import Entry, File, Route
from shared.data.constraints import SettingError
from shared.data.convert import Options, judge
from shared.data.convert import convert as write_clean
from shared.data.errors import DataError, Unavailable
from shared.data.genes.translate import DUPLICATES
from shared.data.load import own_path
from shared.data.validate.checks import NEEDS

NARROW, ROOMY, WIDE = 80, 100, 120


say = functools.partial(print, flush=True)


def width(least: int = NARROW) -> int:
    """Columns to use: the terminal's, between `least` and WIDE."""
    return min(max(shutil.get_terminal_size((WIDE, 24)).columns, least), WIDE)


def size(n: int | None) -> str:
    """Bytes in a few letters."""
    if n is None:
        return "?"
    power = next((p for p in range(4) if n < 999.5 * 1000**p), 4)
    value, unit = n / 1000**power, ("B", "kB", "MB", "GB", "TB")[power]
    return f"{value:.0f} {unit}" if value >= 10 or unit == "B" else f"{value:.1f} {unit}"


def shape(entry: Entry) -> str:
    """Cells × genes."""
    return " × ".join(f"{n:,}" for n in entry.shape) if entry.shape else "?"


def table(head, rows, *, right=()) -> str:
    """Aligned columns; the last one takes what room is left, and is folded into it."""
    wide = [max(map(len, column)) for column in zip(head, *rows)]
    indent = sum(wide[:-1]) + 2 * len(wide[:-1])
    room = max(width() - indent, 20)
    lines = []
    for row in [head, ["-" * w for w in (*wide[:-1], min(wide[-1], room))], *rows]:
        cells = [c.rjust(w) if h in right else c.ljust(w) for h, c, w in zip(head, row[:-1], wide)]
        folded = textwrap.wrap(row[-1], room, break_on_hyphens=False) or [""]
        lines.append("  ".join([*cells, f"\n{' ' * indent}".join(folded)]).rstrip())
    return "\n".join(lines)


def state(entry: Entry, route: Route) -> tuple[str, str]:
    """What is here of a route: in a word (``"damaged"``, ``"absent"`` or where it lies), and in words."""
    if route.kind == "simulated":
        return "simulated", "made when it is loaded; nothing to fetch"
    files = {f: download.find(f, route.kind) for f in route.files}
    states = list(dict.fromkeys(seen.state for seen in files.values()))
    notes = [seen.problem for seen in files.values() if seen.problem]
    if "damaged" in states:
        return "damaged", "; ".join(notes)
    made = routes.conversion(entry, route)
    converted = routes.whole(made)
    if made and made.is_file() and not converted:
        notes.append("the converted copy is damaged and will be made again")
    missing = [f for f, seen in files.items() if seen.state == "absent"]
    if missing and converted:
        return "converted", "; ".join(["the converted copy is ok", *notes])
    if missing:
        origins = [o for f in missing for o in (map(download.host, f.urls) if f.urls else ["the package index"])]
        some = f"{len(missing)} of {len(files)} files" if len(files) > 1 else "it"
        said = f"not here: {some} would be fetched from {' or '.join(dict.fromkeys(origins))}"
        return "absent", "; ".join(["unverified"] * (not route.verified) + [said, *notes])
    where = " and ".join({"mirror": "in the mirror"}.get(s, s) for s in states) + ", converted" * converted
    seen = "ok (by the sha256 of its first download)" if all(map(cache.known_sha256, files)) else "unverified"
    return states[0], "; ".join([f"{where}, {'sha256 ok' if route.verified else seen}", *notes])


def here(entry: Entry) -> str:
    """In a word, without reading any file: is the entry's first route on this machine?"""
    route = entry.routes[0]
    try:
        there = [route.kind == "bundled" or cache.place(f).is_file() for f in route.files]
    except DataError:  # without a folder for the cache, nothing lies in it
        there = [False]
    return "yes" if all(there) else "part" if any(there) else "no"


def chosen(names) -> list[Entry]:
    """The entries of those names, or all of them."""
    return [catalogue.entry(n) for n in dict.fromkeys(names)] if names else list(catalogue.catalog().values())


def had(entry: Entry, kind: str | None, unverified: bool) -> tuple[Route, list[Path]]:
    """The files of the first route of `entry` that can be had; simulated data stand in for none that cannot."""
    said = []
    for route in entry.routes_of(kind):
        if route.kind == "simulated" and said:
            break
        try:
            return route, routes.files(entry, route, unverified=unverified)
        except Unavailable as e:
            said.append(str(e))
    raise Unavailable("; ".join(said))


def list_(args) -> int:
    """Every data set, one a line."""
    lines, narrow = [], width() < ROOMY
    for e in chosen(args.names):
        first = e.routes[0]
        bytes_ = "-" if first.kind == "simulated" else size(e.size)
        large = shape(e).replace(" ", "") if narrow else shape(e)
        held = "sha256" if first.verified else "unverified"
        lines.append([e.name, large, e.units, first.kind, bytes_, here(e), held, e.title])
    head = ["name", "cells × genes", "units", "route", "size", "here", "held by", "title"]
    shown = len(head) - narrow  # a title folded into a few letters helps nobody
    say(table(head[:shown], [line[:shown] for line in lines], right=("cells × genes", "size")))
    return 0


def show(args) -> int:
    """What the catalogue says of one data set."""
    entry = catalogue.entry(args.name)
    names = ("organism", "assay", "units", "shape", "genes", "labels", "accession", "citation", "licence", "notes")
    card = {name: getattr(entry, name) for name in names}
    card["shape"] = shape(entry) + " (cells or samples × genes)" * bool(entry.shape)
    lines = [f"{entry.name}: {entry.title}\n"]
    indents = {"width": width(), "subsequent_indent": " " * 12}
    lines += [textwrap.fill(t, initial_indent=f"{name:10}  ", **indents) for name, t in card.items() if t.strip()]
    for route in entry.routes:
        unverified = "" if route.verified else ", unverified: get it with --unverified"
        lines.append(f"\n{route.kind}, read by {route.reader}{unverified}")
        lines.append(textwrap.indent(textwrap.fill(state(entry, route)[1], width() - 2), "  "))
        for file in route.files:
            lines.append(f"  {file.name}  {size(file.size)}  sha256 {cache.known_sha256(file) or 'not known yet'}")
            lines += [f"    {origin}" for origin in (file.package, *file.urls) if origin]
            lines += [f"    holds {member}" for member in file.members]
    say("\n".join([*lines, f'\nload it: shared.data.load("{entry.name}")']))
    return 0


def get(args) -> int:
    """Fetch, so that later loads need no network."""

    def one(entry):
        route, paths = had(entry, args.route, args.unverified)
        return "\n  ".join([route.kind if paths else f"{route.kind}, nothing to fetch", *map(str, paths)])

    return int(each(chosen(args.names), one) > 0)


def each(entries: list[Entry], one) -> int:
    """Say what `one` gives of every entry, or why it cannot; how many failed."""
    failed = 0
    for entry in entries:
        try:
            say(f"{entry.name}: {one(entry)}")
        except (DataError, SettingError) as e:  # the others may be had
            say(f"{entry.name}: {e}", file=sys.stderr)
            failed += 1
    return failed


def check(args) -> int:
    """What is here, and what would be fetched from where; or what a file of your own holds, and what mends it."""
    own = [name for name in args.names if own_path(name) is not None]
    if not own:
        found = [(e.name, r.kind, r.reader, *state(e, r)) for e in chosen(args.names) for r in e.routes]
        states = [one for *_, one, _ in found]
        rows = [[*row, "DAMAGED: " * (one == "damaged") + said] for *row, one, said in found]
        absent, damaged = states.count("absent"), states.count("damaged")
        say(table(["name", "route", "reader", "found"], rows))
        usable = len(states) - absent - damaged
        say(f"\n{len(states)} routes: {usable} usable, {absent} to fetch, {damaged} damaged")
        return int(damaged > 0)
    if len(own) < len(args.names):
        known = next(name for name in args.names if name not in own)
        say(f"error: {known} is of the catalogue and {own[0]} a file: check one, then the other", file=sys.stderr)
        return 2
    found = [judge(name, options_of(args), need=args.need, organism=args.organism) for name in own]
    say("\n\n".join(f.said(width(0)) for f in found))
    return max(f.status for f in found)


def convert(args) -> int:
    """Write a file of your own as clean AnnData."""
    found = write_clean(args.file, args.out, options_of(args), overwrite=args.overwrite)
    done = f"written: {args.out}" if found.status < 2 else "nothing was written"
    say(f"{found.said(width(0))}\n\n{done}")
    return found.status


def options_of(args) -> Options:
    given = {f.name: getattr(args, f.name) for f in fields(Options)}
    return Options(**given | {"annotation": tuple(args.annotation)})


def mirror(args) -> int:
    """Copy files into a folder for machines without a network (BORROWED_MIRROR=FOLDER)."""
    folder, entries = Path(args.folder).expanduser(), chosen(args.names)
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file: name the folder to copy to")

    def one(entry):
        first = entry.routes[0].kind
        kind = args.route or (first if first in ("bundled", "simulated") else None)
        route, paths = had(entry, kind, args.unverified)
        if route.kind in ("bundled", "simulated"):
            return f"{route.kind} needs none"
        for file, path in zip(route.files, paths):
            copied(file, path, folder)
        return f"{route.kind} {len(paths)} files"

    lacking = each(entries, one)
    say(f"\n{folder}: {len(entries) - lacking} of {len(entries)} data sets; use it with BORROWED_MIRROR={folder}")
    return int(lacking > 0)


def copied(file: File, source: Path, folder: Path) -> None:
    """A copy of `source` in the mirror folder, whole or not at all; what loads it checks it."""
    target = folder / file.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not target.exists() or cache.sha256(target) != cache.sha256(source):
            with cache.written_whole(target) as draft:
                shutil.copyfile(source, draft)
    except OSError as e:
        raise DataError(f"{file.name} cannot be copied to {folder} ({e.strerror or e}): choose another folder") from e


FLAG = {"action": "store_true"}
OPTIONS = {
    "--route": {"choices": catalogue.ROUTES, "help": "take this route only"},
    "--unverified": FLAG | {"help": "also files of no known sha256; later copies are held to the one that is seen now"},
    "--transpose": FLAG | {"help": "genes stand in rows"},
    "--units": {"choices": catalogue.UNITS, "help": "what the file holds, where it does not say so"},
    "--layer": {"metavar": "NAME", "help": "take X from this layer of an .h5ad file"},
    "--duplicates": {"choices": DUPLICATES, "default": "refuse", "help": "what becomes of genes named twice"},
    "--annotation": {"metavar": "COLUMN", "action": "append", "default": [], "help": "a column of words, or several"},
    "--labels": {"metavar": "COLUMN", "help": "column of obs with the classes; the copy has it as cell_type"},
    "--drop-empty": FLAG | {"help": "leave out cells without any expression"},
    "--need": {"choices": NEEDS, "help": "what the next step takes"},
    "--organism": {"choices": ("human", "mouse"), "help": "whose genes they should be"},
    "--overwrite": FLAG | {"help": "take the place of a file that is there"},
}
FETCH = ("--route", "--unverified")
OWN = ("--transpose", "--units", "--layer", "--duplicates", "--annotation", "--labels", "--drop-empty")
COMMANDS = {  # what stands in a place of its own (its name here and in the help, and how many), and options
    list_: [("names", "NAME", "*")],
    show: [("name", "NAME", None)],
    get: [("names", "NAME", "+"), *FETCH],
    check: [("names", "NAME|FILE", "*"), *OWN, "--need", "--organism"],
    convert: [("file", "FILE", None), ("out", "OUT.h5ad", None), *OWN, "--overwrite"],
    mirror: [("folder", "FOLDER", None), ("names", "NAME", "*"), *FETCH],
}


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = argparse.ArgumentParser(prog="python -m shared.data", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for run, takes in COMMANDS.items():
        command = commands.add_parser(run.__name__.rstrip("_"), help=run.__doc__, description=run.__doc__)
        command.set_defaults(run=run)
        for one in takes:
            if one in OPTIONS:
                command.add_argument(one, **OPTIONS[one])
            else:
                name, metavar, number = one
                command.add_argument(name, metavar=metavar, nargs=number)
    return top


def main(words=None) -> int:
    """Run one command; the status: 0, 1 for damage or what could not be had, 2 for a wrong call, 130 for Ctrl-C.

    For files of your own: 1 for warnings, 2 where they are refused.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that knows no × still shows the rest
    args = parser().parse_args(words)
    try:
        return args.run(args)
    except (DataError, SettingError) as e:
        say(f"error: {e}", file=sys.stderr)
        return 2 if args.command == "convert" else 1
    except KeyboardInterrupt:
        say("\nstopped; what has arrived is kept, and the same command goes on from there", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe, head for instance, has seen enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        return 0


if __name__ == "__main__":
    sys.exit(main())
