"""``python -m shared.data``: the catalogue from a shell.

list                       every data set, one a line
show NAME                  what the catalogue says of one
get NAME...                fetch, so that later loads need no network; --unverified for files of no known sha256
check [NAME...]            what is here, what would be fetched from where; fails only if something is damaged
check FILE...              what a file of your own holds, what loading changes, and the command that mends it
convert FILE OUT.h5ad      write a file of your own as clean AnnData
mirror FOLDER [NAME...]    copy files into a folder for machines without a network (BORROWED_MIRROR=FOLDER)
"""

from __future__ import annotations

import argparse
import json
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


# Tables


def shell_columns() -> int:
    """Of the terminal."""
    return shutil.get_terminal_size((WIDE, 24)).columns


def width() -> int:
    """Columns to use: the terminal's, between NARROW and WIDE."""
    return min(max(shell_columns(), NARROW), WIDE)


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
    rows = [[str(c) for c in r] for r in rows]
    wide = [max(map(len, column)) for column in zip(head, *rows)]
    indent = sum(wide[:-1]) + 2 * len(wide[:-1])
    room = max(width() - indent, 20)
    lines = []
    for row in [head, ["-" * w for w in (*wide[:-1], min(wide[-1], room))], *rows]:
        cells = [c.rjust(w) if h in right else c.ljust(w) for h, c, w in zip(head, row[:-1], wide)]
        folded = textwrap.wrap(row[-1], room, break_on_hyphens=False) or [""]
        lines.append("  ".join([*cells, f"\n{' ' * indent}".join(folded)]).rstrip())
    return "\n".join(lines)


# What is where


def state(entry: Entry, route: Route) -> dict:
    """What one route of an entry has here: ``state`` in a word, ``said`` in words, ``files`` one by one."""
    found = {"name": entry.name, "route": route.kind, "reader": route.reader, "verified": route.verified, "files": []}
    if route.kind == "simulated":
        from shared.data import simulate

        said = {"state": "simulated", "said": "made when it is loaded; nothing to fetch"}
        return found | said | {"readable": hasattr(simulate, route.reader)}
    for file in route.files:
        seen = download.find(file, route.kind)
        origin = [download.host(u) for u in file.urls] or ["the package index"] * bool(file.package)
        one = {"name": file.name, "state": seen.state, "size": file.size, "sha256": cache.known_sha256(file)}
        one |= {"verified": bool(file.sha256), "said": seen.problem, "hosts": list(dict.fromkeys(origin))}
        found["files"].append(one | {"path": str(seen.path) if seen.path else None})
    state, said = _summary(entry, route, found["files"])
    return found | {"readable": route.reader in routes.readers(), "state": state, "said": "; ".join(said)}


def _summary(entry, route, files) -> tuple[str, list[str]]:
    """The state of a route in a word, and what there is to say of it."""
    states = list(dict.fromkeys(f["state"] for f in files))
    if "damaged" in states:
        return "damaged", [f["said"] for f in files if f["state"] == "damaged"]
    missing = [f for f in files if f["state"] == "absent"]
    notes = [f["said"] for f in missing if f["said"]]
    made = routes.conversion(entry, route)
    converted = made is not None and made.state == "converted"
    if made and made.state == "damaged":
        notes.append("the converted copy is damaged and will be made again")
    if missing and converted:
        return "converted", ["the converted copy is ok", *notes]
    if missing:
        hosts = " or ".join(dict.fromkeys(h for f in missing for h in f["hosts"]))
        some = f"{len(missing)} of {len(files)} files" if len(files) > 1 else "it"
        unverified = "" if route.verified else "unverified; "
        return "absent", [f"{unverified}not here: {some} would be fetched from {hosts}", *notes]
    where = " and ".join({"mirror": "in the mirror"}.get(s, s) for s in states) + ", converted" * converted
    check = "ok (by the sha256 of its first download)" if all(f["sha256"] for f in files) else "unverified"
    return states[0], [f"{where}, {'sha256 ok' if route.verified else check}", *notes]


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


# Commands: each prints its words, or nothing but JSON, and gives the status


def list_(args) -> int:
    """One line an entry."""
    rows, lines, narrow = [], [], width() < ROOMY
    for e in chosen(args.names):
        kinds = [r.kind for r in e.routes]
        row = {"name": e.name, "shape": e.shape, "units": e.units, "routes": kinds, "size": e.size, "here": here(e)}
        rows.append(row | {"verified": e.routes[0].verified, "title": e.title})
        bytes_ = "-" if kinds[0] == "simulated" else size(e.size)
        verified = "sha256" if e.routes[0].verified else "unverified"
        large = shape(e).replace(" ", "") if narrow else shape(e)
        lines.append([e.name, large, e.units, kinds[0], bytes_, here(e), verified, e.title])
    head = ["name", "cells × genes", "units", "route", "size", "here", "held by", "title"]
    shown = len(head) - narrow  # a title folded into a few letters helps nobody
    words = table(head[:shown], [line[:shown] for line in lines], right=("cells × genes", "size"))
    return say(json_of(rows) if args.json else words)


def show(args) -> int:
    """The card of one entry."""
    entry = catalogue.entry(args.name)
    fields = ("organism", "assay", "units", "shape", "genes", "labels", "accession", "citation", "licence", "notes")
    card = {f: getattr(entry, f) for f in fields}
    states = [state(entry, r) for r in entry.routes]
    if args.json:
        return say(json_of(card | {"name": entry.name, "title": entry.title, "routes": states}))
    card["shape"] = shape(entry) + " (cells or samples × genes)" * bool(entry.shape)
    lines = [f"{entry.name}: {entry.title}\n"]
    indents = {"width": width(), "subsequent_indent": " " * 12}
    lines += [textwrap.fill(t, initial_indent=f"{name:10}  ", **indents) for name, t in card.items() if t.strip()]
    for route, found in zip(entry.routes, states):
        missing = "" if found["readable"] else " (which does not exist yet)"
        unverified = "" if route.verified else ", unverified: get it with --unverified"
        lines.append(f"\n{route.kind}, read by {route.reader}{missing}{unverified}")
        lines.append(textwrap.indent(textwrap.fill(found["said"], width() - 2), "  "))
        for file, one in zip(route.files, found["files"]):
            lines.append(f"  {file.name}  {size(file.size)}  sha256 {one['sha256'] or 'not known yet'}")
            lines += [f"    {origin}" for origin in (file.package, *file.urls) if origin]
            lines += [f"    holds {member}" for member in file.members]
    return say("\n".join([*lines, f'\nload it: shared.data.load("{entry.name}")']))


def _had(entry: Entry, kind: str | None, unverified: bool) -> tuple[Route, list[Path]]:
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


def _each(args, held, one, say_one) -> list[dict]:
    """What `one` gives of every entry named, its files under `held`; goes on after an entry that fails."""
    results = []
    for entry in chosen(args.names):
        result = {"name": entry.name, "route": args.route, held: [], "error": None}
        try:
            result |= one(entry)
        except (DataError, SettingError) as e:
            result["error"] = str(e)
        results.append(result)
        if not args.json:
            say_one(result)
    if args.json:
        say(json_of(results))
    return results


def get(args) -> int:
    """Fetch the files of every entry named; go on after one that fails."""

    def one(entry):
        route, paths = _had(entry, args.route, args.unverified)
        return {"route": route.kind, "paths": list(map(str, paths))}

    def say_one(result):
        nothing = "" if result["paths"] else ", nothing to fetch"
        if result["error"]:
            print(f"{result['name']}: {result['error']}", file=sys.stderr)
        else:
            say("\n  ".join([f"{result['name']}: {result['route']}{nothing}", *result["paths"]]))

    return int(any(r["error"] for r in _each(args, "paths", one, say_one)))


def check(args) -> int:
    """Files of your own are judged; of entries, a table of every route, 1 if a file is damaged."""
    own = [name for name in args.names if own_path(name) is not None]
    if not own:
        return _entries(args)
    if len(own) < len(args.names):
        known = next(name for name in args.names if name not in own)
        print(f"error: {known} is of the catalogue and {own[0]} a file: check one, then the other", file=sys.stderr)
        return 2
    found = [judge(name, _options(args), need=args.need, organism=args.organism) for name in own]
    say(json_of(list(map(_told, found))) if args.json else "\n\n".join(f.said(shell_columns()) for f in found))
    return max(f.status for f in found)


def convert(args) -> int:
    """The clean copy of a file of your own; 2 where it was refused and nothing was written."""
    found = write_clean(args.file, args.out, _options(args), overwrite=args.overwrite)
    done = f"written: {args.out}" if found.status < 2 else "nothing was written"
    say(json_of(_told(found) | {"out": args.out}) if args.json else f"{found.said(shell_columns())}\n\n{done}")
    return found.status


def _options(args) -> Options:
    given = {f.name: getattr(args, f.name) for f in fields(Options)}
    return Options(**given | {"annotation": tuple(args.annotation)})


def _told(found) -> dict:
    """A judgement for another program."""
    report = found.report
    told = {"file": str(found.path), "status": found.status, "refused": found.refused, "changes": found.changes}
    told |= {"shape": report and report.shape, "looks": report and report.looks}
    told["findings"] = report.to_frame().to_dict("records") if report else []
    return told | {"command": found.command, "left": found.left}


def _entries(args) -> int:
    found = [state(e, r) for e in chosen(args.names) for r in e.routes]
    rows = [
        [
            f["name"],
            f["route"],
            f["reader"] + ("" if f["readable"] else " (missing)"),
            ("DAMAGED: " if f["state"] == "damaged" else "") + f["said"],
        ]
        for f in found
    ]
    absent, damaged = (sum(f["state"] == s for f in found) for s in ("absent", "damaged"))
    usable = len(found) - absent - damaged
    words = table(["name", "route", "reader", "found"], rows)
    words += f"\n\n{len(found)} routes: {usable} usable, {absent} to fetch, {damaged} damaged"
    say(json_of(found) if args.json else words)
    return int(damaged > 0)


def mirror(args) -> int:
    """Copy the files that a machine without a network would need; 1 if some could not be had."""
    folder = Path(args.folder).expanduser()

    def one(entry):
        first = entry.routes[0].kind
        kind = args.route or (first if first in ("bundled", "simulated") else None)
        route, paths = _had(entry, kind, args.unverified)
        files = route.files if route.kind in ("package", "official") else ()
        return {"route": route.kind, "files": [str(copied(f, p, folder)) for f, p in zip(files, paths)]}

    def say_one(result):
        files = f"{len(result['files'])} files" if result["files"] else "needs none"
        route = f" {result['route']}" if result["route"] else ""
        say(f"{result['name']}:{route} {'could not be had' if result['error'] else files}")

    results = _each(args, "files", one, say_one)
    lacking = [r for r in results if r["error"]]
    if not args.json:
        for r in lacking:
            print(f"{r['name']} is not in the mirror: {r['error']}", file=sys.stderr)
        had = f"{len(results) - len(lacking)} of {len(results)} data sets"
        say(f"\n{folder}: {had}; use it with BORROWED_MIRROR={folder}")
    return int(bool(lacking))


def copied(file: File, source: Path, folder: Path) -> Path:
    """A checked copy of `source` in the mirror folder, listed in its SHA256SUMS."""
    digest = cache.sha256(source)
    sums, target = folder / "SHA256SUMS", folder / file.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lines = sums.read_text(encoding="utf-8").splitlines() if sums.is_file() else []
        listed = {name: known for known, _, name in (line.partition("  ") for line in lines) if name}
        if listed.get(file.name, digest) != digest and target.exists() and cache.sha256(target) != digest:
            target = folder / cache.place(file).parent.name / file.name  # two sources may use one name
            target.parent.mkdir(exist_ok=True)
        if not target.exists() or cache.sha256(target) != digest:
            with cache.written_whole(target) as draft:
                shutil.copyfile(source, draft)
                if cache.sha256(draft) != digest:
                    raise DataError(f"the copy of {file.name} in {folder} is not right: is the disk all right?")
        listed[target.relative_to(folder).as_posix()] = digest
        with cache.written_whole(sums) as draft:
            draft.write_text("".join(f"{h}  {n}\n" for n, h in sorted(listed.items())), encoding="utf-8")
    except OSError as e:
        said = f"{file.name} cannot be copied to {folder}: {e.strerror or e}"
        raise DataError(f"{said}; make room, or choose another folder") from e
    return target


# The shell


def say(text: str) -> int:
    """Print at once; the status of a command that has nothing worse to tell."""
    print(text, flush=True)
    return 0


def json_of(what) -> str:
    return json.dumps(what, indent=1, ensure_ascii=False)


NAMES = ("names", {"nargs": "*", "metavar": "NAME"})
ROUTE = ("--route", {"choices": catalogue.ROUTES, "help": "take this route only"})
OWN = [
    ("--transpose", {"action": "store_true", "help": "genes stand in rows"}),
    ("--units", {"choices": catalogue.UNITS, "help": "what the file holds, where it does not say so"}),
    ("--layer", {"metavar": "NAME", "help": "take X from this layer of an .h5ad file"}),
    ("--duplicates", {"choices": DUPLICATES, "default": "refuse", "help": "what becomes of genes named twice"}),
    (
        "--annotation",
        {
            "metavar": "COLUMN",
            "action": "append",
            "default": [],
            "help": "a column of words in a table, for obs; again for more",
        },
    ),
    ("--labels", {"metavar": "COLUMN", "help": "column of obs with the classes; the copy has it as cell_type"}),
    ("--drop-empty", {"action": "store_true", "help": "leave out cells without any expression"}),
]
KNOWINGLY = (
    "also files whose sha256 is not in the catalogue; what is seen now is written down, and later copies held to it"
)
UNVERIFIED = ("--unverified", {"action": "store_true", "help": KNOWINGLY})
COMMANDS = {
    "list": (list_, "every data set, one a line", [NAMES]),
    "show": (show, "what the catalogue says of one data set", [("name", {"metavar": "NAME"})]),
    "get": (
        get,
        "fetch, so that later loads need no network",
        [("names", {"nargs": "+", "metavar": "NAME"}), ROUTE, UNVERIFIED],
    ),
    "check": (
        check,
        "what is here, and what would be fetched from where; or what a file of your own holds",
        [
            ("names", {"nargs": "*", "metavar": "NAME|FILE"}),
            *OWN,
            ("--need", {"choices": NEEDS, "help": "what the next step takes"}),
            ("--organism", {"choices": ("human", "mouse"), "help": "whose genes they should be"}),
        ],
    ),
    "convert": (
        convert,
        "write a file of your own as clean AnnData",
        [
            ("file", {"metavar": "FILE"}),
            ("out", {"metavar": "OUT.h5ad"}),
            *OWN,
            ("--overwrite", {"action": "store_true", "help": "take the place of a file that is there"}),
        ],
    ),
    "mirror": (
        mirror,
        "copy files into a folder for machines without a network",
        [("folder", {"metavar": "FOLDER"}), NAMES, ROUTE, UNVERIFIED],
    ),
}


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = argparse.ArgumentParser(
        prog="python -m shared.data", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (run, text, options) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        for option, how in [("--json", {"action": "store_true", "help": "print JSON for another program"}), *options]:
            command.add_argument(option, **how)
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
        print(f"error: {e}", file=sys.stderr)
        return 2 if args.command == "convert" else 1
    except KeyboardInterrupt:
        print("\nstopped; what has arrived is kept, and the same command goes on from there", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe, head for instance, has seen enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        return 0


if __name__ == "__main__":
    sys.exit(main())
