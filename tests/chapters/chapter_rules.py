"""The house rules of a page, each a plain function that takes what it judges and returns a list of problems."""

from __future__ import annotations

import ast
import re
import statistics

from book.imports import imported, module_file, without_magics
from book.notebooks import CHECKED, ROOT, code_cells, glued_values, source, tags
from book.plain import Context, plain, survey

# Chapters of one page, written before lessons and studies were told apart. The list only shrinks: a chapter that gets
# its study leaves it, and its lesson is then held to the rules of a lesson.
OLD_FORM = ("expression-data", "baselines", "autoencoder-transfer", "beyond-fine-tuning")

FRONT = {"slug", "modules", "gpu", "data", "goals", "claims"}
MORE = {"extras", "draft", "untaught"}
STUDY_FRONT = {"slug", "gpu", "data", "claims"}
STUDY_MORE = {"extras", "draft"}
CLAIM = {"id", "says", "metric", "above", "below", "includes"}
# The order of a lesson: what each heading must say, in the order in which they must appear.
TAKEAWAYS = "(?:Takeaways|What to remember)"
END = {
    "Takeaways": rf"^{TAKEAWAYS}$",
    "Quiz": r"^Quiz$",
    "Exercises": r"^Exercises$",
    "Read next": r"^Read next$",
    "Versions and seeds": r"^Versions and seeds$",
}
SECTIONS = {
    "Run this": r"^Run this",
    "By hand": r"^By hand",
    "The method": r"^The method",
    "The package": r"^The package",
    "The experiment": r"^The experiment",
    "Your own data": r"^Your own data",
    **END,
}
OLD_SECTIONS = {
    "Run this": r"^Run this",
    "By hand": r"^By hand",
    "The idea": r"^The idea",
    "The experiment": r"^The experiment",
    "a negative control": r"negative control",
    "what is published": r"published",
    "what went wrong": r"went wrong|leaks?\b",
    **END,
}
NOT_CODE = {"parameters", "setup", "stub", "check"}
FOLDED = {"hide-input", "hide-cell", "remove-input", "remove-cell"}


def markdown(nb) -> str:
    """All text cells, one after the other."""
    return "\n\n".join(source(c) for c in nb["cells"] if c["cell_type"] == "markdown")


def lines_of(cell) -> int:
    """Lines of code that hold something."""
    return sum(bool(line.strip()) for line in source(cell).splitlines())


def headings(nb) -> list[str]:
    outside = re.sub(r"^(`{3,}).*?^\1`*\s*$", "", markdown(nb), flags=re.M | re.S)
    return [m.strip() for m in re.findall(r"^#{2,3} (.+)$", outside, re.M)]


def shown(nb) -> list[dict]:
    """The code cells that a learner reads: not folded, no solution, not what every page begins with."""
    return [c for c in code_cells(nb) if not {*NOT_CODE, *FOLDED, "solution"} & set(tags(c))]


def cells_under(nb, title: str) -> list[dict]:
    """The code cells of the second-level section whose heading begins with `title`."""
    found, here = [], ""
    for cell in nb["cells"]:
        if cell["cell_type"] == "markdown":
            here = [here, *re.findall(r"^## (.+)$", source(cell), re.M)][-1]
        elif here.startswith(title):
            found.append(cell)
    return found


def tree(cells) -> ast.Module:
    """The code of some cells as one syntax tree."""
    return ast.parse("\n".join(without_magics(source(c)) for c in cells))


def called(tree: ast.AST) -> set[str]:
    """Last names of what a tree calls: ``ladder`` for ``evaluate.ladder(...)``."""
    calls = (n.func for n in ast.walk(tree) if isinstance(n, ast.Call))
    return {getattr(f, "attr", getattr(f, "id", "")) for f in calls}


def section(nb, title: str) -> str:
    """The text of one second-level section."""
    found = re.search(rf"^## {title}\s*$(.*?)(?=^## |\Z)", markdown(nb), re.M | re.S)
    return found[1] if found else ""


def front_matter(front: dict, slug: str, study: bool = False) -> list[str]:
    """The ``book:`` block has every key and no other but the optional ones, and each holds what it should."""
    needed, more = (STUDY_FRONT, STUDY_MORE) if study else (FRONT, MORE)
    said = [f"the front matter lacks {k}" for k in sorted(needed - front.keys())]
    said += [f"the front matter's {k} is not known" for k in sorted(front.keys() - needed - more)]
    if said:
        return said
    if front["slug"] != slug:
        said.append(f"the slug is {front['slug']!r}, but the folder says {slug!r}")
    modules = front.get("modules", [])
    if not study and not (isinstance(modules, list) and modules and all(str(m).isidentifier() for m in modules)):
        said.append("modules is a list of names of modules or folders of shared/methods")
    elif len(modules) == 1 and modules[0] != slug.replace("-", "_"):
        said.append(f"the one module is {modules[0]}, which is not the chapter's name")
    if not isinstance(front["gpu"], bool):
        said.append("gpu is true or false")
    if front.get("draft", True) is not True:
        said.append("draft is true; leave it out when the page is finished")
    if not isinstance(front["data"], list) or not all(isinstance(d, str) for d in front["data"]):
        said.append("data is a list of names")
    if "extras" in front and not (front["extras"] and all(isinstance(e, str) for e in front["extras"])):
        said.append("extras is a list of extras of pyproject.toml; leave it out where there are none")
    goals = front.get("goals", [])
    if not study and (len(goals) != 3 or not all(isinstance(g, str) and len(g.split()) > 3 for g in goals)):
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


def long_cells(nb) -> list[str]:
    """No code cell has more than 40 lines."""
    return [
        f"a cell of {lines_of(c)} lines begins {source(c).strip().splitlines()[0]!r}"
        for c in code_cells(nb)
        if lines_of(c) > 40
    ]


def cell_lengths(nb) -> list[str]:
    """Median code cell at most 6 lines, nine of ten at most 20, none over 40."""
    sizes = [lines_of(c) for c in code_cells(nb) if not {*NOT_CODE, "solution"} & set(tags(c))]
    said = long_cells(nb)
    if not sizes:
        return [*said, "the page has no code"]
    if statistics.median(sizes) > 6:
        said.append(f"the median code cell has {statistics.median(sizes):g} lines, more than 6")
    if sum(s <= 20 for s in sizes) < 0.9 * len(sizes):
        said.append(f"{sum(s > 20 for s in sizes)} of {len(sizes)} code cells have more than 20 lines")
    return said


def shown_code(nb, low=80, high=200) -> list[str]:
    """A lesson shows 80 to 200 lines of code."""
    lines = sum(map(lines_of, shown(nb)))
    return [] if low <= lines <= high else [f"the lesson shows {lines} lines of code: aim at 100 to 180"]


def all_code(nb, high=300) -> list[str]:
    """A chapter of the old form has at most 300 lines of code, folded ones too."""
    lines = sum(lines_of(c) for c in code_cells(nb) if not {*NOT_CODE, "solution"} & set(tags(c)))
    return [] if lines <= high else [f"the chapter has {lines} lines of code, more than {high}"]


def code_width(nb, columns=88, in_a_box=80) -> list[str]:
    """No line of a code cell that is shown is wider than the page, or than an exercise's box."""
    said = []
    for cell in code_cells(nb):
        most = in_a_box if {"stub", "check"} & set(tags(cell)) else columns
        if not FOLDED & set(tags(cell)):
            long = [line for line in source(cell).splitlines() if len(line) > most]
            said += [f"{most} columns of code are shown here; break the line of {len(x)}: {x.strip()!r}" for x in long]
    return said


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


def prose_length(nb, low=1200, high=2600, aim="1,500 to 2,200") -> list[str]:
    """A lesson has 1,200 to 2,600 words of prose."""
    words = word_count(nb)
    return [] if low <= words <= high else [f"the page has {words} words of prose: aim at {aim}"]


def results_per_sentence(nb, records: dict) -> list[str]:
    """A sentence gives one result, with its interval; two when a semicolon sets them side by side; three make a table.

    Names to entries tell a result from a setting: whole numbers and words without an interval are no results.
    """

    def results(text):
        names = {re.sub(r"_(low|high)$", "", n) for n in re.findall(r"\{glue:text\}`(\w+)", text)}
        settings = {n for n, e in records.items() if "low" not in e and not isinstance(e["value"], float)}
        return sorted(names - settings)

    said = []
    text = re.sub(r"^[ \t]*(?:\|.*|[`:~]{3,}.*|:[\w-]+:.*|%.*)$", "", markdown(nb), flags=re.M)
    for block in re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )", text):
        for sentence in re.split(r"(?<=[.?!])\s+(?=[A-Z*_`{\[(])", block):
            begins = " ".join(sentence.split())[:60]
            if len(found := results(sentence)) > 2:
                said.append(f"{len(found)} results in one sentence ({', '.join(found)}); make a table: {begins}")
            elif any(len(found := results(clause)) > 1 for clause in sentence.split(";")):
                said.append(f"two results in one clause ({', '.join(found)}); give each its own sentence: {begins}")
    return said


def section_order(nb, sections=SECTIONS) -> list[str]:
    """Every part of a lesson, in order; goals and a story come before the first of them."""
    said, at = [], 0
    titles = headings(nb)
    for name, pattern in sections.items():
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


def first_by_hand(nb) -> list[str]:
    """The smallest example is worked by hand, in NumPy."""
    cells = cells_under(nb, "By hand")
    used = {n.id for n in ast.walk(tree(cells)) if isinstance(n, ast.Name)} & {"torch", "keras", "tensorflow", "tf"}
    said = [f"the example by hand uses {', '.join(sorted(used))}: work it in NumPy"] if used else []
    return said if cells else ["no code stands under 'By hand'"]


def package_agrees(nb) -> list[str]:
    """The package does what the page's own code does, and a cell asserts it."""
    found = tree(cells_under(nb, "The package"))
    asserts = any(isinstance(n, ast.Assert) for n in ast.walk(found))
    asserts |= any(name.startswith("assert_") for name in called(found))
    return [] if asserts else ["no cell under 'The package' asserts that it does the same"]


def experiment_whole(nb) -> list[str]:
    """One experiment and one figure: the method, the same network without transfer, a negative control, the ladder."""
    cells = cells_under(nb, "The experiment")
    text = section(nb, r"The experiment[^\n]*") + "\n".join(map(source, cells))
    said = [] if "ladder" in called(tree(cells)) else ["the experiment does not call the ladder of baselines"]
    if "negative control" not in text:
        said.append("the experiment names no negative control")
    if not re.search(r"from scratch|without (?:transfer|pre-training|adaptation)", text):
        said.append("the experiment has no arm without transfer: 'from scratch' or 'without pre-training'")
    if len(re.findall(r"""["']fig-[a-z0-9-]+["']""", "\n".join(map(source, cells)))) != 1:
        said.append("the experiment shows one figure")
    return said


def names_needed(nb, limit=12, root=ROOT) -> list[str]:
    """A learner needs at most twelve names of ``shared``: what the shown cells use, methods and ``book.`` counted."""
    used = shared_names(nb, root)
    return [] if len(used) <= limit else [f"{len(used)} names of shared, more than {limit}: {', '.join(sorted(used))}"]


def shared_names(nb, root=ROOT) -> set[str]:
    """Names of ``shared`` that the shown cells use: ``evaluate.ladder``, ``TMP``, ``TMP.fit``, ``book.record``."""
    known: dict[str, str] = {}
    for node in ast.walk(tree(code_cells(nb))):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "shared":
            known |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
        elif isinstance(node, ast.Import):
            known |= {a.asname: a.name for a in node.names if a.asname and a.name.split(".")[0] == "shared"}
    modules = {name for name, dotted in known.items() if module_file(dotted, root)}
    used = tree(shown(nb))
    made = {}  # variables that hold an object of a class of shared
    for node in ast.walk(used):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            kind = _root(node.value)
            if kind in known and kind not in modules and kind[:1].isupper():
                made |= {t.id: kind for t in node.targets if isinstance(t, ast.Name)}
    found = set()
    for node in ast.walk(used):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in known.keys() - modules:
            found.add(node.id)
        if isinstance(node, ast.Attribute):
            owner = _root(node.value)
            if isinstance(node.value, ast.Name) and owner in {*modules, "book"}:
                found.add(f"{owner}.{node.attr}")
            elif not re.search(r"_\b", ast.unparse(node)):  # what was fitted is data
                kind = made.get(owner, owner if isinstance(node.value, ast.Call) else "")
                found |= {f"{kind}.{node.attr}"} if kind in known and kind[:1].isupper() else set()
    return found


def _root(node):
    """The name that a chain of calls and attributes begins with: ``TMP`` of ``TMP(...).fit(X)``."""
    while isinstance(node, (ast.Call, ast.Attribute)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return getattr(node, "id", "")


def no_whole_experiment(nb) -> list[str]:
    """A lesson's experiment stands on the page: none of its cells calls a study."""
    code = "\n".join(source(c) for c in code_cells(nb) if "solution" not in tags(c))
    return ["a cell of the lesson uses shared.studies: show the experiment"] if "shared.studies" in code else []


FITS = {"fit", "fit_transform", "fit_predict", "partial_fit", "pretrain", "train", "record", "record_all"}
FITS |= {"ladder", "learning_curve", "cross_val_score", "cross_val_predict"}


def fits_nothing(nb) -> list[str]:
    """A study measures under ``if book.reruns:`` alone, and shows what was recorded in a table or a figure."""
    whole = tree(code_cells(nb))
    studies = {
        a.asname or a.name
        for n in ast.walk(whole)
        if isinstance(n, ast.ImportFrom) and f"{n.module}.".startswith("shared.studies.")
        for a in n.names
    } | {
        a.asname or a.name
        for n in ast.walk(whole)
        if isinstance(n, ast.ImportFrom) and n.module == "shared"
        for a in n.names
        if a.name == "studies"
    }
    said = []

    def walk(node):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "book.reruns":
            for other in node.orelse:
                walk(other)
            return
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in FITS or _root(node.func) in studies:
                said.append(
                    f"{ast.unparse(node.func)} is called when the book is built: put it under 'if book.reruns:'"
                )
        for child in ast.iter_child_nodes(node):
            walk(child)

    walk(whole)
    calls = called(whole)
    if not {"recorded", "recorded_all"} & calls:
        said.append("the study reads nothing that was recorded: book.recorded(name) or book.recorded_all(prefix)")
    if not {"table", "show"} & calls:
        said.append("the study shows no table and no figure")
    return said


def tables_described(nb) -> list[str]:
    """In an executed study: every table has a caption, but for the last one, of versions and seeds."""
    return [
        f"a table has no caption of at least five words: {source(cell).strip().splitlines()[-1]!r}; use book.table"
        for cell in code_cells(nb)
        for output in cell["outputs"]
        if 'class="dataframe"' in (page := "".join(output.get("data", {}).get("text/html", "")))
        and len("".join(re.findall(r"<caption>(.*?)</caption>", page, re.S)).split()) < 5
        and "book.close()" not in source(cell)
    ]


STUDY_SECONDS = 5
SLOW_MACHINE = 2  # times slower than the one that the limit is meant for


def study_cost(nb) -> list[str]:
    """In an executed study: five seconds of processor time beyond imports at most, twice that on a slow machine."""
    seconds = nb["metadata"]["book"]["cpu_after_setup"]
    if seconds <= STUDY_SECONDS * SLOW_MACHINE:
        return []
    return [f"the page took {seconds} s beyond its imports, more than {STUDY_SECONDS}: record what takes long"]


def old_form(lessons, old=OLD_FORM) -> list[str]:
    """The chapters of the old form are those without a finished study; no chapter after the sixth is one."""
    without = {p.slug: p for p in lessons if not p.draft and (p.other is None or p.other.draft)}
    said = [f"{slug} has a study now: take it off OLD_FORM" for slug in old if slug not in without]
    said += [f"{p.name} has no study: finish one, {p.stem}-study.md" for p in without.values() if p.slug not in old]
    late = [p.name for p in without.values() if p.slug in old and p.folder.name[:2] > "06"]
    return said + [f"{name} is too late to be of the old form" for name in late]


def untested(nb, root=ROOT) -> list[str]:
    """What a study calls of ``shared.studies`` has a test under ``tests/studies``."""
    said = []
    for name in sorted(imported("\n".join(source(c) for c in code_cells(nb)))):
        path = module_file(name, root) if name.startswith("shared.studies.") else None
        if path:
            parts = path.relative_to(root / "shared").with_suffix("").parts
            *folders, module = [p for p in parts if p != "__init__"]
            test = "/".join(["tests", *folders, f"test_{module}.py"])
            said += [] if (root / test).exists() else [f"the study calls {name}, which has no test {test}"]
    return said


def set_up(nb, stem: str) -> list[str]:
    """The page sets itself up by its own name, once, and ends with its provenance."""
    found = re.findall(r"^book = setup\(\s*[\"']([\w-]+)[\"']", "\n".join(source(c) for c in code_cells(nb)), re.M)
    said = [] if found == [stem] else [f'the page says setup("{stem}", ...) once, not {", ".join(found) or "never"}']
    return said if "close" in called(tree(code_cells(nb)[-1:])) else [*said, "the last cell is book.close()"]


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
    return ast.dump(_Untyped().visit(node))


class _Untyped(ast.NodeTransformer):
    """Turns ``x: int = 1`` into ``x = 1``, and ``x: int`` into ``x``."""

    def visit_AnnAssign(self, node):
        if node.value is None:
            return ast.Expr(node.target)
        return ast.Assign([node.target], node.value)


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


NETWORKS = {"Module", "Model", "Layer"}


def networks_and_steps(text: str) -> set[str]:
    """Names of the networks (subclasses of torch's Module or Keras's Model and Layer) and ``*_step`` functions."""
    body = ast.parse(text).body
    found = {n.name for n in body if isinstance(n, ast.FunctionDef) and n.name.endswith("_step")}
    networks, grew = set(NETWORKS), True
    while grew:
        more = {
            n.name
            for n in body
            if isinstance(n, ast.ClassDef) and {getattr(b, "attr", getattr(b, "id", "")) for b in n.bases} & networks
        }
        grew = not more <= networks
        networks |= more
    return found | (networks - NETWORKS)


def taught_whole(nb, front: dict, module_source) -> list[str]:
    """The lesson shows every network and every training step of its modules, and the loop that trains them.

    The front matter names what is left out under ``untaught``, each with its reason.
    """
    said, left = [], dict(front.get("untaught") or {})
    for module in front["modules"]:
        name = f"shared.methods.{module}"
        cells = [c for c in shown(nb) if f"teaches={name}" in tags(c)]
        taught = {n.name for n in tree(cells).body if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
        for one in sorted(networks_and_steps(module_source(name) or "")):
            reason = left.pop(one, None)
            if reason is not None and one in taught:
                said.append(f"{one} is untaught, yet a cell shows it")
            elif reason is not None and len(str(reason).split()) < 3:
                said.append(f"{one} is untaught without a reason")
            elif reason is None and one not in taught:
                said.append(f"no cell shows {one}: tag one teaches={name}, or name it under untaught with the reason")
        if taught & networks_and_steps(module_source(name) or "") and not {"backward", "fit"} & called(
            tree([c for c in cells_under(nb, "The method") if c in shown(nb)])
        ):
            said.append("no cell under 'The method' shows the loop: loss.backward(), or Keras's fit")
    return said + [f"{one} is untaught, but no module of the chapter has it" for one in left]


def claims_and_takeaways(nb, front: dict) -> list[str]:
    """Each takeaway names its claim in a comment line before it, and each claim has one takeaway."""
    named, last, said = [], None, []
    for line in section(nb, TAKEAWAYS).splitlines():
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


def solved_exercises(nb) -> list[str]:
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


def stored_outputs(nb, study: bool = False) -> list[str]:
    """A committed notebook holds outputs in the checked cells and in no other; a study, which has results, in none."""
    said = []
    for cell in code_cells(nb):
        begins = (source(cell).strip().splitlines() or [""])[0]
        if CHECKED in tags(cell):
            if not cell["outputs"] or cell["execution_count"] != 1:
                said.append(f"a checked cell has no stored output, run 'make refs': {begins!r}")
        elif cell["outputs"] or cell["execution_count"] is not None:
            said.append(f"a cell that is not checked holds outputs: {begins!r}")
    if any(CHECKED in tags(c) for c in code_cells(nb)) == study:
        said.append(f"{'a' if study else 'no'} cell is tagged {CHECKED}")
    return said


def ladder_used(nb) -> list[str]:
    """The experiment climbs the ladder of baselines, through the chapter's own module."""
    return [] if "ladder" in called(tree(code_cells(nb))) else ["no cell calls the ladder of baselines"]


def seeds_recorded(profiles: dict) -> list[str]:
    """Recorded runs used at least 3 seeds at lesson and 10 at full."""
    said = []
    for profile, least in {"lesson": 3, "full": 10}.items():
        if profile in profiles:
            seeds = profiles[profile]["provenance"].get("seeds", [])
            if len(set(seeds)) < least:
                said.append(f"the {profile} run used {len(set(seeds))} seeds: at least {least} are needed")
    return said


def glued_names(nb, records: dict) -> list[str]:
    """Every name the text glues was recorded by one of the chapter's pages."""
    used = set(re.findall(r"\{glue:text\}`([\w]+)(?::[^`]*)?`", markdown(nb)))
    return [f"the text glues {n}, which no run recorded" for n in sorted(used - glued_values(records).keys())]


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
