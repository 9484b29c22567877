"""Exercises from one source: a question, its solution, its checks and answers known to be wrong.

In the text of a page, or of an assignment, an exercise stands between two marks, and its cells say by a tag what they
are::

    :::{task-start} ★ Depth leaves no trace
    :label: ex-depth
    :hint: Divide each row by its own largest value.
    :::

    Scale each row of `X` to its own range.

    ```{code-cell} ipython3
    :tags: [task]

    scaled = X / X.max(axis=1, keepdims=True)  # SOLUTION
    ```

    ```{code-cell} ipython3
    :tags: [check, points=2]

    assert np.allclose(scaled.max(axis=1), 1), "the largest value of a row is not 1"
    ```

    ```{code-cell} ipython3
    :tags: [wrong, loses=2]

    scaled = X / X.max()  # the range of the matrix, not of the row
    ```

    Any text here explains the solution.

    :::{task-end}
    :::

A line that ends in ``# SOLUTION``, and lines between ``# BEGIN SOLUTION`` and ``# END SOLUTION``, are left out of the
stub (the marks are those of Otter-Grader). :func:`expand` makes the page of it: the question with stub, checks and
hint, and the folded solution, which is checked too. A cell tagged ``check, hidden`` is for grading alone. When a page
runs at smoke, :func:`with_trials` has the wrong answers run after its last cell, and :func:`problems` tells, from the
one executed copy, whether the stub fails, the solution passes and each wrong answer loses what it should. Stub and
wrong answers must run: what is wrong with them the checks find.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MARK = re.compile(r"^(:{3,})\{task-(start|end)\}[ ]*(.*)\n((?:[ ]*:[\w-]+:.*\n)*)\1[ ]*(?:\n|\Z)", re.M)
BEGIN, END = "# BEGIN SOLUTION", "# END SOLUTION"
ODD = re.compile(r"#\s*(BEGIN |END )?SOLUTION")
OURS = {"task", "check", "wrong", "hidden"}
TRIAL = "trial"


class ExerciseError(ValueError):
    """An exercise is not written as it must be; the message names it and says how."""


@dataclass(frozen=True)
class Check:
    """A cell of assertions; `hidden` ones are not shown to who answers."""

    code: str
    points: int = 1
    hidden: bool = False


@dataclass(frozen=True)
class Wrong:
    """An answer known to be wrong, and the points it must lose."""

    code: str
    loses: int


@dataclass(frozen=True)
class Task:
    """One exercise.

    Attributes
    ----------
    label, title, hint : str
    question, comment : str
        Markdown: what is asked, and what is said of the solution.
    code : str
        The solution, with the marks.
    checks : tuple of Check
        Those that are shown first.
    wrong : tuple of Wrong
    """

    label: str
    title: str
    hint: str
    question: str
    code: str
    checks: tuple[Check, ...]
    wrong: tuple[Wrong, ...]
    comment: str = ""

    @property
    def solution(self) -> str:
        """The code without the marks."""
        lines = [line for line in self.code.splitlines() if line.strip() not in (BEGIN, END)]
        return "\n".join(re.sub(r"[ \t]*# SOLUTION[ \t]*$", "", line) for line in lines)

    @property
    def stub(self) -> str:
        """The code with three points in place of what is to be found."""
        kept, inside = [], False
        for line in self.code.splitlines():
            if line.strip() == BEGIN:
                kept.append(re.match(r"\s*", line)[0] + "...")
            if line.rstrip().endswith("# SOLUTION"):
                kept.append(_left_open(line))
            elif not inside and line.strip() not in (BEGIN, END):
                kept.append(line)
            inside = line.strip() == BEGIN or (inside and line.strip() != END)
        return "\n".join(kept)

    @property
    def points(self) -> int:
        return sum(check.points for check in self.checks)

    @property
    def shown(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if not check.hidden)


def tasks(cells: Sequence[dict]) -> list[Task]:
    """The exercises among the cells of a page, as :func:`book.notebooks.parse` returns them.

    Raises
    ------
    ExerciseError
        If a mark has no partner, or an exercise lacks something, or holds what it may not.
    """
    return [part for part in _parts(cells) if isinstance(part, Task)]


def expand(cells: Sequence[dict]) -> list[dict]:
    """The cells of the page: each exercise as the question, the stub and its checks, and the folded solution.

    The solution comes after the stub and is checked by the same cells, so a page may go on from it. Cells of a page
    without exercises of this form come back as they are. Raises as :func:`tasks`.
    """
    parts = list(_parts(cells))
    if not any(isinstance(part, Task) for part in parts):
        return list(cells)
    return _joined([cell for part in parts for cell in (_page(part) if isinstance(part, Task) else [part])])


def with_trials(cells: Sequence[dict], found: Sequence[Task]) -> list[dict]:
    """Expanded cells, and after the last of them those that try what no reader sees, so that nothing is changed by it.

    Each wrong answer runs with all checks, and, where a check is hidden, so does the solution. They meet the names as
    the page left them, so a wrong answer says all that it needs and is not surprised by a later exercise.
    """
    made = []
    for task in found:
        answers = [wrong.code for wrong in task.wrong] + ([task.solution] if len(task.checks) > len(task.shown) else [])
        for code in answers:
            made += [_cell(code, [TRIAL]), *(_checked(task, check, [TRIAL]) for check in task.checks)]
    return [*cells, *(cell | {"id": f"{TRIAL}-{i}"} for i, cell in enumerate(made))]


def problems(cells: Sequence[dict], found: Sequence[Task]) -> list[str]:
    """What an executed page with trials says against its exercises; empty when all is as planned."""
    passed: dict[str, list[bool]] = {task.label: [] for task in found}
    for cell in cells:
        for output in cell.get("outputs", []):
            if told := (output.get("metadata") or {}).get("check"):
                passed.setdefault(told["label"], []).append(told["passed"])
    said = []
    for task in found:
        shown, every = len(task.shown), len(task.checks)
        answers, tried = passed[task.label], len(task.wrong) + (every > shown)
        if len(answers) != 2 * shown + every * tried:
            said.append(f"{task.label}: {len(answers)} checks ran, not those of stub, solution and wrong answers")
            continue
        stub, solved, rest = answers[:shown], answers[shown : 2 * shown], answers[2 * shown :]
        trials = [rest[every * i : every * (i + 1)] for i in range(tried)]
        if all(stub):
            said.append(f"{task.label}: the stub passes its checks")
        for i, (wrong, held) in enumerate(zip(task.wrong, trials), 1):
            lost = sum(check.points for check, ok in zip(task.checks, held) if not ok)
            if lost != wrong.loses:
                said.append(f"{task.label}: wrong answer {i} loses {lost} points, not {wrong.loses}")
        if not all(solved) or (every > shown and not all(trials[-1])):
            said.append(f"{task.label}: the solution fails a check")
    return said


def _left_open(line):
    """A line of a solution with three points in place of its value, or of all of it."""
    indent, text = re.match(r"(\s*)(.*)", line).groups()
    try:
        (node,) = ast.parse(text).body
    except (SyntaxError, ValueError):
        return indent + "..."
    plain = isinstance(node, (ast.Assign, ast.AnnAssign, ast.Return)) and node.value is not None
    # Columns are counted in bytes.
    return indent + (text.encode()[: node.value.col_offset].decode() if plain else "") + "..."


# --- reading -------------------------------------------------------------------------------------------------------


def _parts(cells) -> Iterator[dict | Task]:
    """Cells outside exercises, cut at the marks, and exercises, each with a label of its own."""
    head, inside, labels = None, [], set()
    for piece in _pieces(cells):
        if isinstance(piece, dict):
            if head is not None:
                inside.append(piece)
            elif ours := sorted(OURS & set(_tags(piece))):
                raise ExerciseError(f"a cell tagged {ours[0]!r} stands outside an exercise: {piece['source'][:60]!r}")
            else:
                yield piece
            continue
        kind, title, options = piece
        if kind == "start" and head is None:
            head, inside = (title, options), []
        elif kind == "end" and head is not None:
            task = _task(*head, inside)
            if task.label in labels:
                raise ExerciseError(f"two exercises have the label {task.label!r}: give each its own")
            labels.add(task.label)
            yield task
            head = None
        else:
            raise ExerciseError(f"a task-{kind} has no partner" + (f": {title!r}" if title else ""))
    if head is not None:
        raise ExerciseError(f"the exercise {head[0]!r} has no task-end")


def _pieces(cells):
    for cell in cells:
        if cell["cell_type"] != "markdown":
            yield cell
            continue
        at, text = 0, cell["source"] + "\n"
        for mark in MARK.finditer(text):
            if text[at : mark.start()].strip():
                yield cell | {"source": text[at : mark.start()].strip("\n")}
            yield mark[2], mark[3].strip(), dict(re.findall(r"^[ ]*:([\w-]+):[ ]*(.*?)[ ]*$", mark[4], re.M))
            at = mark.end()
        if text[at:].strip():
            yield cell | {"source": text[at:].strip("\n")}


def _task(title, options, cells) -> Task:
    label = options.get("label", "")

    def refuse(what):
        raise ExerciseError(f"the exercise {label or title!r} {what}")

    if not re.fullmatch(r"ex-[a-z0-9-]+", label):
        refuse("needs ':label: ex-…', in small letters")
    if not re.match(r"★{1,3} \S", title):
        refuse("needs ★, ★★ or ★★★ and a title after its task-start")
    if unknown := sorted(options.keys() - {"label", "hint"}):
        refuse(f"has an option {unknown[0]!r}, which is not known")
    if not options.get("hint"):
        refuse("needs a ':hint:'")
    code, question, comment, checks, wrong = [], [], [], [], []
    for cell in cells:
        kind, numbers = _kind(cell)
        if kind == "text":
            (comment if checks else question).append(cell["source"])
        elif kind == "task":
            code.append(cell["source"])
        elif kind == "check":
            _whole(cell["source"], refuse)
            checks.append(Check(cell["source"], numbers.get("points", 1), "hidden" in _tags(cell)))
        elif kind == "wrong" and "loses" in numbers:
            wrong.append(Wrong(cell["source"], numbers["loses"]))
        else:
            refuse(f"has a cell tagged {_tags(cell)}: tag it task, check or wrong, and a wrong one loses=POINTS")
    task = Task(
        label, title, options["hint"], "\n\n".join(question), "\n".join(code),
        tuple(sorted(checks, key=lambda check: check.hidden)), tuple(wrong), "\n\n".join(comment),
    )  # fmt: skip
    if not task.question:
        refuse("asks nothing")
    if code and ODD.search(task.stub):
        refuse("has a mark that is not known: write '# SOLUTION' at the end of a line, '# BEGIN SOLUTION' on its own")
    if len(code) != 1 or task.stub == task.code:
        refuse(
            f"needs one cell tagged 'task' in which lines end in '# SOLUTION' or stand between {BEGIN!r} and {END!r}"
        )
    if [line.strip() for line in task.code.splitlines() if line.strip() in (BEGIN, END)] != [BEGIN, END] * (
        task.code.count(BEGIN)
    ):
        refuse(f"has a {BEGIN!r} without {END!r}, or the other way round")
    for name, text in {"stub": task.stub, "solution": task.solution}.items():
        try:
            ast.parse(text)
        except SyntaxError as error:
            refuse(f"has a {name} that is no Python: {error.msg} in {text.splitlines()[(error.lineno or 1) - 1]!r}")
    if not task.shown:
        refuse("needs a cell tagged 'check' that is shown")
    if not wrong:
        refuse("needs a wrong answer: a cell tagged [wrong, loses=POINTS]")
    if not all(1 <= answer.loses <= task.points for answer in wrong):
        refuse(f"has a wrong answer that loses none, or more than its {task.points} points")
    return task


def _kind(cell):
    if cell["cell_type"] == "markdown":
        return "text", {}
    numbers = {found[1]: int(found[2]) for t in _tags(cell) if (found := re.fullmatch(r"(points|loses)=(\d+)", t))}
    return next((t for t in _tags(cell) if t in ("task", "check", "wrong")), ""), numbers


def _whole(code, refuse):
    """A check is indented on the page, which a text of several lines would not survive."""
    try:
        tree = ast.parse(code)
    except SyntaxError as error:
        refuse(f"has a check that is no Python: {error.msg}")
    if not any(isinstance(node, ast.Assert) for node in ast.walk(tree)):
        refuse("has a check that asserts nothing")
    if any(
        isinstance(n, ast.Constant) and isinstance(n.value, str) and n.end_lineno > n.lineno for n in ast.walk(tree)
    ):
        refuse("has a check with a text of several lines: write it in one")


# --- writing -------------------------------------------------------------------------------------------------------


def _page(task):
    stub = [_cell(task.stub, ["stub"]), *(_checked(task, check) for check in task.shown)]
    solved = [_cell(task.solution, ["solution"]), *(_checked(task, check, ["solution"]) for check in task.shown)]
    return [
        _text(f"::::{{exercise-start}} {task.title}\n:label: {task.label}\n::::\n\n{task.question}"),
        *stub,
        _text(
            f":::{{admonition}} Hint\n:class: dropdown\n{task.hint}\n:::\n\n::::{{exercise-end}}\n::::\n\n"
            f"::::{{solution-start}} {task.label}\n:class: dropdown\n::::"
        ),
        *solved,
        _text("\n\n".join(filter(None, [task.comment, "::::{solution-end}\n::::"]))),
    ]


def _checked(task, check, tags=()):
    code = f'with book.check("{task.label}"):\n' + textwrap.indent(check.code, "    ")
    return _cell(code, [*tags, "check"])


def _cell(code, tags):
    return {"cell_type": "code", "metadata": {"tags": tags}, "source": code, "execution_count": None, "outputs": []}


def _text(source):
    return {"cell_type": "markdown", "metadata": {}, "source": source}


def _joined(cells):
    """Texts that now follow each other, as one cell."""
    made: list[dict] = []
    for cell in cells:
        if made and made[-1]["cell_type"] == cell["cell_type"] == "markdown":
            made[-1] = made[-1] | {"source": f"{made[-1]['source']}\n\n{cell['source']}"}
        else:
            made.append(cell)
    return made


def _tags(cell):
    return list(cell["metadata"].get("tags", []))


def _label(cell):
    found = re.match(r'with book\.check\("([\w-]+)"', cell["source"]) if cell["cell_type"] == "code" else None
    return found[1] if found else None
