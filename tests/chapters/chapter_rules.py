"""The house rules of a chapter, each a plain function that takes what it judges and returns a list of problems."""

from __future__ import annotations

import ast
import re
import statistics

from book.imports import without_magics
from book.notebooks import CHECKED, code_cells, source, tags
from book.plain import Context, plain, survey

FRONT = {"slug", "module", "gpu", "data", "goals", "claims"}
MORE = {"extras"}
CLAIM = {"id", "says", "metric", "above", "below", "includes"}
# The order of a chapter: what each heading must say, in the order in which they must appear.
SECTIONS = {
    "Run this": r"^Run this",
    "By hand": r"^By hand",
    "The idea": r"^The idea",
    "The experiment": r"^The experiment",
    "a negative control": r"negative control",
    "what is published": r"published",
    "what went wrong": r"went wrong|leaks?\b",
    "Takeaways": r"^Takeaways$",
    "Quiz": r"^Quiz$",
    "Exercises": r"^Exercises$",
    "Read next": r"^Read next$",
    "Versions and seeds": r"^Versions and seeds$",
}
NOT_CODE = {"parameters", "setup"}


def markdown(nb) -> str:
    """All text cells, one after the other."""
    return "\n\n".join(source(c) for c in nb["cells"] if c["cell_type"] == "markdown")


def lines_of(cell) -> int:
    """Lines of code that hold something."""
    return sum(bool(line.strip()) for line in source(cell).splitlines())


def headings(nb) -> list[str]:
    outside = re.sub(r"^(`{3,}).*?^\1`*\s*$", "", markdown(nb), flags=re.M | re.S)
    return [m.strip() for m in re.findall(r"^#{2,3} (.+)$", outside, re.M)]


def section(nb, title: str) -> str:
    """The text of one second-level section."""
    found = re.search(rf"^## {title}\s*$(.*?)(?=^## |\Z)", markdown(nb), re.M | re.S)
    return found[1] if found else ""


def front_matter(front: dict, slug: str) -> list[str]:
    """The ``book:`` block has every key and no other but ``extras``, and each holds what it should."""
    said = [f"the front matter lacks {k}" for k in sorted(FRONT - front.keys())]
    said += [f"the front matter's {k} is not known" for k in sorted(front.keys() - FRONT - MORE)]
    if said:
        return said
    if front["slug"] != slug:
        said.append(f"the slug is {front['slug']!r}, but the folder says {slug!r}")
    if not re.fullmatch(r"shared(\.\w+)+", str(front["module"])):
        said.append(f"the module {front['module']!r} is not a part of shared")
    if not isinstance(front["gpu"], bool):
        said.append("gpu is true or false")
    if not isinstance(front["data"], list) or not all(isinstance(d, str) for d in front["data"]):
        said.append("data is a list of names")
    if "extras" in front and not (front["extras"] and all(isinstance(e, str) for e in front["extras"])):
        said.append("extras is a list of extras of pyproject.toml; leave it out where there are none")
    if len(front["goals"]) != 3 or not all(isinstance(g, str) and len(g.split()) > 3 for g in front["goals"]):
        said.append("a chapter has three goals, each a sentence")
    for claim in front["claims"]:
        said += [f"a claim lacks {k}" for k in ("id", "says", "metric") if not claim.get(k)]
        said += [f"a claim's {k} is not known" for k in sorted(claim.keys() - CLAIM)]
        bounds = claim.keys() & {"above", "below", "includes"}
        if len(bounds) != 1 or not isinstance(claim[min(bounds)], (int, float)):
            said.append(f"the claim {claim.get('id')} needs one of above, below, includes, with a number")
    ids = [c.get("id") for c in front["claims"]]
    return said + [f"two claims are called {i}" for i in sorted({i for i in ids if ids.count(i) > 1})]


def goals_repeated(nb, front: dict) -> list[str]:
    """The numbered goals on the page are the front matter's, but for the first letter and the stop."""
    box = re.search(r"^(:{3,})\{admonition\} Goals[ ]*$(.*?)^\1[ ]*$", markdown(nb), re.M | re.S)
    shown = re.findall(r"^\d+\. (.+)$", box[2] if box else "", re.M)

    def words(goal):
        return goal[:1].lower() + goal[1:].rstrip(" .;")

    promised = front.get("goals", [])
    if len(shown) != len(promised):
        return [f"the page has {len(shown)} goals in its admonition, the front matter {len(promised)}"]
    return [
        f"goal {i} is {there!r} in the front matter and {here!r} on the page"
        for i, (here, there) in enumerate(zip(shown, promised, strict=True), 1)
        if words(here) != words(there)
    ]


def cell_lengths(nb) -> list[str]:
    """Median code cell at most 6 lines, nine of ten at most 20, none over 40, the chapter at most 300."""
    taught = [c for c in code_cells(nb) if not {*NOT_CODE, "solution"} & set(tags(c))]
    long = [
        f"a cell of {lines_of(c)} lines begins {source(c).strip().splitlines()[0]!r}"
        for c in code_cells(nb)
        if lines_of(c) > 40
    ]
    sizes = sorted(lines_of(c) for c in taught)
    if not sizes:
        return [*long, "the chapter has no code"]
    said = long
    if statistics.median(sizes) > 6:
        said.append(f"the median code cell has {statistics.median(sizes):g} lines, more than 6")
    if sum(s <= 20 for s in sizes) < 0.9 * len(sizes):
        said.append(f"{sum(s > 20 for s in sizes)} of {len(sizes)} code cells have more than 20 lines")
    if sum(sizes) > 300:
        said.append(f"the chapter has {sum(sizes)} lines of code, more than 300")
    return said


def code_width(nb, columns=88) -> list[str]:
    """No line of a code cell that is shown is wider than the page."""
    wide = [
        line
        for cell in code_cells(nb)
        if not {"hide-input", "hide-cell", "remove-input", "remove-cell"} & set(tags(cell))
        for line in source(cell).splitlines()
        if len(line) > columns
    ]
    return [f"a page shows {columns} columns of code; break the line of {len(line)}: {line.strip()!r}" for line in wide]


def set_order(nb) -> list[str]:
    """No loop goes over a set: its order of words differs from one run to the next, and then so do numbers."""
    said = []
    for cell in code_cells(nb):
        for node in ast.walk(ast.parse(without_magics(source(cell)))):
            looped = getattr(node, "iter", None)
            made = isinstance(looped, ast.Call) and getattr(looped.func, "id", "") in {"set", "frozenset"}
            if made or isinstance(looped, (ast.Set, ast.SetComp)):
                said.append(f"a loop goes over a set, in no fixed order: sort it: {ast.unparse(looped)!r}")
    return said


def word_count(nb) -> int:
    """Words of prose up to the exercises, as a reader meets them: no code, no markup."""
    text = markdown(nb)
    context = Context(cite=lambda key: ("", "", ""))
    survey(text, context)
    shown = plain(re.split(r"^## Exercises\s*$", text, flags=re.M)[0], context)
    shown = re.sub(r"^(`{3,}).*?^\1`*\s*$|\$\$.*?\$\$|\]\([^)]*\)", " ", shown, flags=re.M | re.S)
    return len([w for w in shown.split() if re.search(r"[A-Za-z]", w)])


def prose_length(nb, low=1500, high=3000) -> list[str]:
    """1,500 to 3,000 words of prose."""
    words = word_count(nb)
    return [] if low <= words <= high else [f"the chapter has {words} words of prose: aim at {low} to {high}"]


def section_order(nb) -> list[str]:
    """Every part of the template, in order; goals and a story come before the first of them."""
    said, at = [], 0
    titles = headings(nb)
    for name, pattern in SECTIONS.items():
        found = next((i for i in range(len(titles)) if re.search(pattern, titles[i])), None)
        later = next((i for i in range(at, len(titles)) if re.search(pattern, titles[i])), None)
        if found is None:
            said.append(f"the section {name!r} is missing")
        elif later is None:
            said.append(f"the section {name!r} comes too early")
        else:
            at = later + 1
    opening = re.split(r"^## ", markdown(nb), flags=re.M)[0]
    if not re.search(r"\{admonition\} Goals", opening):
        said.append("the goals are missing: an admonition titled Goals before the first section")
    if len(opening.split()) < 100:
        said.append("the story is missing: a hundred words before the first section")
    return said


def figures_described(nb) -> list[str]:
    """In an executed copy: every picture has a label, a caption and alternative text, and no two share a label."""
    said, names = [], []
    for cell in code_cells(nb):
        for output in cell["outputs"]:
            if not any(k.startswith("image/") for k in output.get("data", {})):
                continue
            figure = (output.get("metadata") or {}).get("figure") or {}
            name = figure.get("name", "")
            if not re.fullmatch(r"fig-[a-z0-9-]+", name):
                said.append(f"a picture has no label 'fig-…': {source(cell).strip().splitlines()[0]!r}")
                continue
            names.append(name)
            if len(figure.get("caption", "").split()) < 8:
                said.append(f"{name} has no caption of at least eight words")
            if len(figure.get("alt", "").split()) < 8:
                said.append(f"{name} has no alternative text of at least eight words")
    return said + [f"two figures are labelled {n}" for n in sorted({n for n in names if names.count(n) > 1})]


def figures_mentioned(nb) -> list[str]:
    """Every ``{numref}`` has its figure and every figure is mentioned; a picture in the text has alternative text."""
    text = markdown(nb)
    code = "\n".join(source(c) for c in code_cells(nb))
    made = set(re.findall(r"""["'](fig-[a-z0-9-]+)["']""", code))
    made |= set(re.findall(r"^:name: (fig-[a-z0-9-]+)$", text, re.M))
    used = set(re.findall(r"\{numref\}`(?:[^`<]*<)?(fig-[a-z0-9-]+)>?`", text))
    said = [f"{n} is mentioned, but no cell makes it" for n in sorted(used - made)]
    said += [f"{n} is never mentioned in the text" for n in sorted(made - used)]
    for block in re.findall(r"^[`:]{3,}\{(?:figure|image)\}.*?^[`:]{3,}\s*$", text, re.M | re.S):
        if not re.search(r"^:alt: \S.{20,}$", block, re.M):
            said.append(f"a picture in the text has no alternative text: {block.splitlines()[0]}")
    return said + [
        f"a picture in the text has no alternative text: ![]({m})" for m in re.findall(r"!\[\]\(([^)]*)\)", text)
    ]


def typed_numbers(text: str) -> list[str]:
    """Results typed by hand: a decimal, a percentage or a count of points in prose.

    A number that was computed is glued, one that was published stands in a sentence with its citation, and one that is
    a convention or a setting stands in a paragraph after a comment line ``% given: reason``. Code, formulas, links and
    the words "95 % interval" are no results. Whole numbers without a unit (cells, genes, years) are left to the eye.
    """
    said = []
    text = re.sub(r"^(`{3,}|~{3,})(?!\{)[^\n]*\n.*?^\1\s*$", "", text, flags=re.M | re.S)
    text = re.sub(r"^[ \t]*(?:[`:~]{3,}.*|:[\w-]+:.*)$", "", text, flags=re.M)
    text = re.sub(r"\$\$.*?\$\$", " ", text, flags=re.S)
    for block in re.split(r"\n\s*\n|\n(?=% given:|\s*(?:[-*]|\d+\.) )", text):
        if re.match(r"\s*% given:[ \t]*\S+([ \t]+\S+)+", block):
            continue
        block = re.sub(r"^%.*$", "", block, flags=re.M)
        kept = re.sub(r"\{cite[\w:]*\}`[^`]*`", "\1", block)
        kept = re.sub(r"\{[\w:.+-]+\}(`+).+?\1|(`+).+?\2|\$[^$]+\$|\]\([^)]*\)|https?://\S+", " ", kept, flags=re.S)
        kept = re.sub(r"\b95 ?%(?= (?:\w+ )?(?:confidence |bootstrap )?intervals?)", " ", kept)
        for sentence in re.split(r"(?<=[.?!])\s+(?=[A-Z\1*_])", kept):
            if "\1" in sentence:
                continue
            for number in re.findall(r"\d+\.\d+|\d+ ?(?:%|per cent|(?:percentage )?points?\b)", sentence):
                said.append(f"{number.strip()!r} is typed by hand in: {' '.join(sentence.split())[:90]}")
    return said


def _bare(node):
    """A definition without docstrings, annotations and positions, as text to compare."""
    node = ast.parse(ast.unparse(node)).body[0]
    for part in ast.walk(node):
        body = getattr(part, "body", None)
        if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            first = body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                part.body = body[1:] or [ast.Pass()]
        if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef)):
            part.returns = None
        if isinstance(part, ast.arg):
            part.annotation = None
    return ast.dump(node)


def module_text(path) -> str:
    """The text of a module; of a package that of all its modules, one after the other."""
    paths = sorted(path.parent.glob("*.py")) if path.name == "__init__.py" else [path]
    return "\n".join(p.read_text(encoding="utf-8") for p in paths)


def taught_cells(nb, module_source) -> list[str]:
    """A cell tagged ``teaches=MODULE`` defines what the module defines, the same code but for docstrings and types.

    `module_source` is a callable from a dotted name to the module's text, or None when there is none.
    """
    said = []
    for cell in code_cells(nb):
        for tag in [t for t in tags(cell) if t.startswith("teaches=")]:
            name = tag.partition("=")[2]
            text = module_source(name)
            if text is None:
                said.append(f"a cell teaches {name}, which does not exist")
                continue
            kinds = (ast.FunctionDef, ast.ClassDef)
            there = {n.name: _bare(n) for n in ast.parse(text).body if isinstance(n, kinds)}
            here = {n.name: _bare(n) for n in ast.parse(without_magics(source(cell))).body if isinstance(n, kinds)}
            if not here:
                said.append(f"a cell says that it teaches {name}, but defines nothing")
            said += [f"the cell defines {n}, which {name} does not have" for n in here if n not in there]
            said += [f"the cell's {n} is not {name}'s {n}" for n in here if n in there and here[n] != there[n]]
    return said


def claims_and_takeaways(nb, front: dict) -> list[str]:
    """Each takeaway names its claim in a comment line before it, and each claim has one takeaway."""
    named, last, said = [], None, []
    for line in section(nb, "Takeaways").splitlines():
        if found := re.match(r"^% claim:\s*(\S+)\s*$", line):
            last = found[1]
        elif re.match(r"^(?:[-*]|\d+\.) ", line):
            if last is None:
                said.append(f"a takeaway names no claim: {line[:60]}")
            named.append(last)
            last = None
        elif line.strip() and not line.startswith((" ", "%")) and last:
            said.append(f"the comment for {last} stands before no takeaway")
    ids = [c["id"] for c in front.get("claims", [])]
    said += [f"the claim {i} has no takeaway" for i in ids if i not in named]
    said += [f"a takeaway names {i}, which is no claim" for i in named if i and i not in ids]
    said += [f"two takeaways name {i}" for i in sorted({i for i in named if i and named.count(i) > 1})]
    return said if ids else [*said, "the chapter claims nothing"]


def exercises(nb) -> list[str]:
    """At least three exercises, from ★ to ★★★, each with a solution that holds a cell that runs."""
    said, stars, labels, solved, inside = [], [], [], {}, None
    for cell in nb["cells"]:
        if cell["cell_type"] == "code":
            if "solution" in tags(cell):
                if inside is None:
                    said.append(f"a solution cell stands outside a solution: {source(cell).strip().splitlines()[0]!r}")
                else:
                    solved[inside] += 1
            elif inside is not None:
                said.append(f"a cell in the solution of {inside} is not tagged 'solution'")
            continue
        pattern = r"^[`:]{3,}\{(exercise-start|solution-start|solution-end)\}[ ]*(.*)\n((?::[\w-]+:.*\n)*)"
        for kind, argument, options in re.findall(pattern, source(cell) + "\n", re.M):
            if kind == "exercise-start":
                found = re.match(r"^(★{1,3})(?!★)", argument)
                label = re.search(r":label: (\S+)", options)
                stars.append(len(found[1]) if found else 0)
                labels.append(label[1] if label else "")
                if not found:
                    said.append(f"the exercise {argument!r} has no ★, ★★ or ★★★ before its title")
            elif kind == "solution-start":
                inside = argument.strip()
                solved[inside] = 0
                if "dropdown" not in options:
                    said.append(f"the solution of {inside} is not hidden: give it ':class: dropdown'")
            else:
                inside = None
    if len(labels) < 3 or not {1, 2, 3} <= set(stars):
        said.append(f"there are {len(labels)} exercises marked {sorted(stars)}: at least three, with ★, ★★ and ★★★")
    said += [
        f"the exercise {name or '(without label)'} has no executed solution" for name in labels if not solved.get(name)
    ]
    return said + [f"the solution of {name} belongs to no exercise" for name in solved if name not in labels]


def colab_links(nb, expected: str) -> list[str]:
    """The first cell opens this file in Colab, and no link in the notebook opens another place."""
    links = re.findall(r"https://colab\.research\.google\.com/(?!assets)[^\s)\]\"'>]+", markdown(nb))
    first = source(nb["cells"][0]) if nb["cells"] else ""
    said = [] if f"({expected})" in first else [f"the first cell has no link to {expected}"]
    return said + [f"a link opens {link}" for link in links if link != expected]


def parameters(nb) -> list[str]:
    """One cell tagged ``parameters`` sets profile, seed and device; it and the set-up cell come first."""
    cells = code_cells(nb)
    marked = [c for c in cells if "parameters" in tags(c)]
    if len(marked) != 1:
        return [f"{len(marked)} cells are tagged parameters: one must be"]
    said = []
    values = {
        n.targets[0].id: ast.literal_eval(n.value)
        for n in ast.parse(source(marked[0])).body
        if isinstance(n, ast.Assign)
    }
    if values != {"profile": "auto", "seed": 0, "device": "auto"}:
        said.append('the parameters cell is: profile = "auto", seed = 0 and device = "auto"')
    if not any("setup" in tags(c) for c in cells[:2]) or marked[0] not in cells[:2]:
        said.append("the first two code cells are the set-up cell and the parameters cell")
    return said


def stored_outputs(nb) -> list[str]:
    """The committed notebook holds outputs in the checked cells and in no other."""
    said = []
    for cell in code_cells(nb):
        begins = (source(cell).strip().splitlines() or [""])[0]
        if CHECKED in tags(cell):
            if not cell["outputs"] or cell["execution_count"] != 1:
                said.append(f"a checked cell has no stored output, run 'make refs': {begins!r}")
        elif cell["outputs"] or cell["execution_count"] is not None:
            said.append(f"a cell that is not checked holds outputs: {begins!r}")
    if not any(CHECKED in tags(c) for c in code_cells(nb)):
        said.append(f"no cell is tagged {CHECKED}")
    return said


def ladder_used(nb) -> list[str]:
    """The experiment climbs the ladder of baselines, through the chapter's own module."""
    code = "\n".join(without_magics(source(c)) for c in code_cells(nb))
    calls = {
        getattr(n.func, "attr", getattr(n.func, "id", "")) for n in ast.walk(ast.parse(code)) if isinstance(n, ast.Call)
    }
    return [] if "ladder" in calls else ["no cell calls the ladder of baselines"]


def seeds_recorded(profiles: dict) -> list[str]:
    """Recorded runs used at least 3 seeds at lesson and 10 at full."""
    said = []
    for profile, least in {"lesson": 3, "full": 10}.items():
        if profile in profiles:
            seeds = profiles[profile]["provenance"].get("seeds", [])
            if len(set(seeds)) < least:
                said.append(f"the {profile} run used {len(set(seeds))} seeds: at least {least} are needed")
    return said


def glued_names(nb, profiles: dict) -> list[str]:
    """Every name the text glues was recorded."""
    known = set()
    for run in profiles.values():
        for name, entry in run["records"].items():
            known |= {name} | {f"{name}_{end}" for end in ("low", "high") if end in entry}
    used = set(re.findall(r"\{glue:text\}`([\w]+)(?::[^`]*)?`", markdown(nb)))
    return [f"the text glues {n}, which no run recorded" for n in sorted(used - known)]


def claim_holds(claim: dict, records: dict) -> list[str]:
    """A recorded value or interval is above, below or around the claimed bound.

    The whole interval must lie on the claimed side; a value without an interval stands for itself.
    """
    entry = records.get(claim["metric"])
    if entry is None:
        return [f"the claim {claim['id']} needs {claim['metric']}, which was not recorded"]
    low, high = entry.get("low", entry["value"]), entry.get("high", entry["value"])
    shown = f"{entry['value']} [{low}, {high}]"
    if "above" in claim and not low > claim["above"]:
        return [f"the claim {claim['id']} says above {claim['above']}; recorded {shown}"]
    if "below" in claim and not high < claim["below"]:
        return [f"the claim {claim['id']} says below {claim['below']}; recorded {shown}"]
    if "includes" in claim and not low <= claim["includes"] <= high:
        return [f"the claim {claim['id']} says that it includes {claim['includes']}; recorded {shown}"]
    return []
