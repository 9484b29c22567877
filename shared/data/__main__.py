"""``python -m shared.data``: the catalogue from a shell.

list                       every data set, one a line
show NAME                  what the catalogue says of one
get NAME...                fetch, so that later loads need no network
check [NAME...]            what is here, what would be fetched from where; fails only if something is damaged
mirror FOLDER [NAME...]    copy files into a folder for machines without a network (BORROWED_MIRROR=FOLDER)
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import textwrap
from pathlib import Path

from shared.data import catalogue, fetch, routes, store
from shared.data.catalogue import Entry, File, Route
from shared.data.errors import DataError, Unavailable
from shared.data.transfer import host

NARROW, ROOMY, WIDE = 80, 100, 120
FETCHED = ("package", "official")


# Tables


def width() -> int:
    """Columns to use: the terminal's, between NARROW and WIDE."""
    return min(max(shutil.get_terminal_size((WIDE, 24)).columns, NARROW), WIDE)


def size(n: int | None) -> str:
    """Bytes in a few letters."""
    if n is None:
        return "?"
    value, unit = float(n), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 999.5 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if value >= 10 or unit == "B" else f"{value:.1f} {unit}"


def table(head, rows, *, right=()) -> str:
    """Aligned columns; the last one takes what room is left, and is folded into it."""
    rows = [[str(c) for c in r] for r in rows]
    wide = [max(len(r[i]) for r in [head, *rows]) for i in range(len(head) - 1)]
    room = max(width() - sum(wide) - 2 * len(wide), 20)
    lines = []
    for row in [head, ["-" * w for w in wide] + ["-" * min(room, max(len(r[-1]) for r in [head, *rows]))], *rows]:
        cells = [c.rjust(w) if head[i] in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, wide))]
        folded = textwrap.wrap(row[-1], room, break_on_hyphens=False) or [""]
        lines.append("  ".join([*cells, folded[0]]).rstrip())
        lines += [" " * (sum(wide) + 2 * len(wide)) + more for more in folded[1:]]
    return "\n".join(lines)


# What is where


def state(entry: Entry, route: Route, index=None) -> dict:
    """What one route of an entry has here: ``state`` in a word, ``said`` in words, ``files`` one by one."""
    known = _readers()
    found = {"name": entry.name, "route": route.kind, "reader": route.reader, "readable": route.reader in known}
    found |= {"pinned": route.pinned, "files": []}
    if route.kind == "simulated":
        found["readable"] = _simulates(route.reader)
        return found | {"state": "simulated", "said": "made when it is loaded; nothing to fetch"}
    for file in route.files:
        seen = fetch.look(file, route.kind, index)
        origin = [host(u) for u in file.urls] or ["the package index"] * bool(file.package)
        one = {"name": file.name, "state": seen.state, "size": file.size, "sha256": store.known_sha256(file)}
        one |= {"pinned": bool(file.sha256), "said": seen.said, "hosts": list(dict.fromkeys(origin))}
        found["files"].append(one | {"path": str(seen.path) if seen.path else None})
    return found | _summary(entry, route, found["files"])


def _summary(entry, route, files) -> dict:
    states = [f["state"] for f in files]
    if "damaged" in states:
        return {"state": "damaged", "said": "; ".join(f["said"] for f in files if f["state"] == "damaged")}
    missing = [f for f in files if f["state"] == "absent"]
    made = routes.conversion(entry, route)
    notes = [f["said"] for f in missing if f["said"]]
    if made and made.state == "damaged":
        notes.append("the converted copy is damaged and will be made again")
    if missing and made and made.state == "converted":
        return {"state": "converted", "said": "; ".join(["the converted copy is ok", *notes])}
    if missing:
        hosts = list(dict.fromkeys(h for f in missing for h in f["hosts"]))
        some = f"{len(missing)} of {len(files)} files" if len(files) > 1 else "it"
        where = f"not here: {some} would be fetched from {' or '.join(hosts)}"
        return {"state": "absent", "said": "; ".join([where, *notes])}
    words = {"bundled": "bundled", "cached": "cached", "mirror": "in the mirror"}
    where = " and ".join(words[s] for s in dict.fromkeys(states))
    check = "sha256 ok" if route.pinned else "ok (by the hash of its first download)"
    converted = ", converted" if made and made.state == "converted" else ""
    return {"state": states[0], "said": "; ".join([f"{where}{converted}, {check}", *notes])}


def _readers() -> dict:
    try:
        return routes.readers()
    except ImportError:
        return {}


def _simulates(name: str) -> bool:
    try:
        from shared.data import simulate
    except ImportError:
        return False
    return hasattr(simulate, name)


def here(entry: Entry) -> str:
    """In a word, without reading any file: is the entry's first route on this machine?"""
    route = entry.routes[0]
    if route.kind in ("bundled", "simulated"):
        return "yes"
    there = [store.place(f).is_file() for f in route.files]
    return "yes" if all(there) else "part" if any(there) else "no"


def chosen(names) -> list[Entry]:
    """The entries of those names, or all of them."""
    return [catalogue.entry(n) for n in dict.fromkeys(names)] if names else list(catalogue.catalog().values())


# Commands


def list_(args) -> int:
    """One line an entry."""
    entries = chosen(args.names)
    rows = [
        {
            "name": e.name,
            "shape": e.shape,
            "units": e.units,
            "routes": [r.kind for r in e.routes],
            "size": e.size,
            "here": here(e),
            "pinned": e.routes[0].pinned,
            "title": e.title,
        }
        for e in entries
    ]
    if args.json:
        return say_json(rows)
    head = ["name", "cells × genes", "units", "route", "size", "here", "pinned", "title"]
    lines = [
        [
            r["name"],
            " × ".join(f"{n:,}" for n in r["shape"]) if r["shape"] else "?",
            r["units"],
            r["routes"][0],
            size(r["size"]) if r["routes"][0] != "simulated" else "-",
            r["here"],
            "yes" if r["pinned"] else "no",
            r["title"],
        ]
        for r in rows
    ]
    if width() < ROOMY:  # a title folded into a few letters helps nobody
        head, lines = head[:-1], [line[:-1] for line in lines]
    say(table(head, lines, right=("cells × genes", "size")))
    return 0


def show(args) -> int:
    """The card of one entry."""
    entry = catalogue.entry(args.name)
    shape = " × ".join(f"{n:,}" for n in entry.shape) + " (cells or samples × genes)" if entry.shape else "?"
    fields = ("organism", "assay", "units", "shape", "genes", "labels", "accession", "citation", "licence", "notes")
    card = {f: str(getattr(entry, f)) for f in fields} | {"shape": shape}
    index = store.mirror_index()
    states = [state(entry, r, index) for r in entry.routes]
    if args.croissant:
        from shared.data.croissant import document

        return say_json(document(entry))
    if args.json:
        plain = {f: getattr(entry, f) for f in fields} | {"name": entry.name, "title": entry.title, "routes": states}
        return say_json(plain)
    say(f"{entry.name}: {entry.title}\n")
    for name, text in card.items():
        if text.strip():
            say(textwrap.fill(text, width(), initial_indent=f"{name:10}  ", subsequent_indent=" " * 12))
    for route, found in zip(entry.routes, states):
        say(f"\n{route.kind}, read by {route.reader}" + ("" if found["readable"] else " (which does not exist yet)"))
        say(textwrap.indent(textwrap.fill(found["said"], width() - 2), "  "))
        for file, one in zip(route.files, found["files"]):
            say(f"  {file.name}  {size(file.size)}  sha256 {one['sha256'] or 'not known yet'}")
            for origin in [file.package] * bool(file.package) + list(file.urls):
                say(f"    {origin}")
            for member in file.members:
                say(f"    holds {member}")
    say(f'\nload it: shared.data.load("{entry.name}")')
    return 0


def _had(entry: Entry, kind: str | None, progress=True) -> tuple[Route, list[Path]]:
    """The files of the first route of `entry` that can be had."""
    said = []
    for route in entry.routes:
        if kind in (None, route.kind):
            if route.kind == "simulated":
                if said:
                    break
                return route, []
            try:
                return route, fetch.get_all(route.files, kind=route.kind, progress=progress)
            except Unavailable as e:
                said.append(str(e))
    if not said:
        has = ", ".join(r.kind for r in entry.routes)
        raise DataError(f"{entry.name} has no route {kind!r}; it has {has}")
    raise Unavailable("; ".join(said))


def get(args) -> int:
    """Fetch the files of every entry named; go on after one that fails."""
    results = []
    for entry in chosen(args.names):
        try:
            route, paths = _had(entry, args.route)
            one = {"name": entry.name, "route": route.kind, "paths": [str(p) for p in paths], "error": None}
        except DataError as e:
            one = {"name": entry.name, "route": args.route, "paths": [], "error": str(e)}
        results.append(one)
        if not args.json:
            say_got(one)
    if args.json:
        say_json(results)
    return 1 if any(r["error"] for r in results) else 0


def say_got(one) -> None:
    if one["error"]:
        print(f"{one['name']}: {one['error']}", file=sys.stderr)
        return
    say(f"{one['name']}: {one['route']}" + ("" if one["paths"] else ", nothing to fetch"))
    for path in one["paths"]:
        say(f"  {path}")


def check(args) -> int:
    """A table of every route of every entry; 1 if a file is damaged."""
    index = store.mirror_index()
    found = [state(e, r, index) for e in chosen(args.names) for r in e.routes]
    damaged = [f for f in found if f["state"] == "damaged"]
    if args.json:
        say_json(found)
        return 1 if damaged else 0
    rows = [
        [
            f["name"],
            f["route"],
            f["reader"] if f["readable"] else f"{f['reader']} (missing)",
            ("DAMAGED: " if f["state"] == "damaged" else "") + f["said"],
        ]
        for f in found
    ]
    say(table(["name", "route", "reader", "found"], rows))
    absent = sum(f["state"] == "absent" for f in found)
    usable = len(found) - absent - len(damaged)
    say(f"\n{len(found)} routes: {usable} usable, {absent} to fetch, {len(damaged)} damaged")
    return 1 if damaged else 0


def mirror(args) -> int:
    """Copy the files that a machine without a network would need; 1 if some could not be had."""
    folder = Path(args.folder).expanduser()
    results = []
    for entry in chosen(args.names):
        one = {"name": entry.name, "files": [], "error": None}
        try:
            route, paths = _had(entry, args.route or _needed(entry))
            one["route"] = route.kind
            if route.kind in FETCHED:
                one["files"] = [str(copied(f, p, folder)) for f, p in zip(route.files, paths)]
        except DataError as e:
            one |= {"route": args.route, "error": str(e)}
        results.append(one)
        if not args.json:
            said = (
                "could not be had" if one["error"] else f"{len(one['files'])} files" if one["files"] else "needs none"
            )
            say(f"{entry.name}: {one['route'] or ''} {said}".replace(":  ", ": "))
    lacking = [r for r in results if r["error"]]
    if args.json:
        say_json(results)
        return 1 if lacking else 0
    for r in lacking:
        print(f"{r['name']} is not in the mirror: {r['error']}", file=sys.stderr)
    say(f"\n{folder}: {len(results) - len(lacking)} of {len(results)} data sets; use it with BORROWED_MIRROR={folder}")
    return 1 if lacking else 0


def _needed(entry: Entry) -> str | None:
    return entry.routes[0].kind if entry.routes[0].kind in ("bundled", "simulated") else None


def copied(file: File, source: Path, folder: Path) -> Path:
    """A checked copy of `source` in the mirror folder, listed in its SHA256SUMS."""
    digest = store.sha256(source)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / file.name
        if target.exists() and store.sha256(target) != digest and _listed(folder).get(file.name) not in (None, digest):
            target = folder / store.place(file).parent.name / file.name  # two sources may use one name
            target.parent.mkdir(exist_ok=True)
        if not target.exists() or store.sha256(target) != digest:
            draft = target.with_name(f".{target.name}.{os.getpid()}")
            try:
                shutil.copyfile(source, draft)
                if store.sha256(draft) != digest:
                    raise DataError(f"the copy of {file.name} in {folder} is not right: is the disk all right?")
                os.replace(draft, target)
            finally:
                draft.unlink(missing_ok=True)
        sums = _listed(folder) | {target.relative_to(folder).as_posix(): digest}
        draft = folder / f".SHA256SUMS.{os.getpid()}"
        draft.write_text("".join(f"{h}  {n}\n" for n, h in sorted(sums.items())), encoding="utf-8")
        os.replace(draft, folder / "SHA256SUMS")
    except OSError as e:
        said = f"{file.name} cannot be copied to {folder}: {e.strerror or e}"
        raise DataError(f"{said}; make room, or choose another folder") from e
    return target


def _listed(folder: Path) -> dict[str, str]:
    """File name to sha256, of what the mirror's list holds."""
    path = folder / "SHA256SUMS"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines) if name}


# The shell


def say(text: str) -> None:
    print(text, flush=True)


def say_json(what) -> int:
    say(json.dumps(what, indent=1, ensure_ascii=False))
    return 0


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = argparse.ArgumentParser(
        prog="python -m shared.data", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name, run, help):
        made = commands.add_parser(name, help=help, description=help)
        made.add_argument("--json", action="store_true", help="print JSON for another program")
        made.set_defaults(run=run)
        return made

    command("list", list_, "every data set, one a line").add_argument("names", nargs="*", metavar="NAME")
    shown = command("show", show, "what the catalogue says of one data set")
    shown.add_argument("name", metavar="NAME")
    shown.add_argument("--croissant", action="store_true", help="print its Croissant 1.1 card (JSON-LD)")
    fetching = command("get", get, "fetch, so that later loads need no network")
    fetching.add_argument("names", nargs="+", metavar="NAME")
    checking = command("check", check, "what is here, and what would be fetched from where")
    checking.add_argument("names", nargs="*", metavar="NAME")
    mirroring = command("mirror", mirror, "copy files into a folder for machines without a network")
    mirroring.add_argument("folder", metavar="FOLDER")
    mirroring.add_argument("names", nargs="*", metavar="NAME")
    for c in (fetching, mirroring):
        c.add_argument("--route", choices=catalogue.ROUTES, help="take this route only")
    return top


def main(words=None) -> int:
    """Run one command; the status: 0, 1 for damage or what could not be had, 2 for a wrong call, 130 for Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that knows no × still shows the rest
    args = parser().parse_args(words)
    try:
        return args.run(args)
    except DataError as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; what has arrived is kept, and the same command goes on from there", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe, head for instance, has seen enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        return 0


if __name__ == "__main__":
    sys.exit(main())
