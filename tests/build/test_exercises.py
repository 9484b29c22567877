"""Exercises from one source: what the page shows, what is tried in the run, and what is refused."""

import re

import pytest

from book import exercises, notebooks
from book.exercises import ExerciseError, expand, problems, tasks, with_trials

MASTER = """---
book:
  slug: alpha
---
# Title

Before.

:::{task-start} ★ Sums
:label: ex-sums
:hint: Add along a row.
:::

Add each row of `rows`.

```{code-cell} ipython3
:tags: [task]

rows = [[1, 2], [3, 4]]
sums = [sum(row) for row in rows]  # SOLUTION
```

```{code-cell} ipython3
:tags: [check, points=2]

assert sums == [3, 7], "the first sum is 3"
```

```{code-cell} ipython3
:tags: [check, hidden]

assert isinstance(sums, list)
```

```{code-cell} ipython3
:tags: [wrong, loses=2]

sums = [row[0] for row in [[1, 2], [3, 4]]]  # takes the first
```

```{code-cell} ipython3
:tags: [wrong, loses=3]

sums = 10
```

Each row is a list.

:::{task-end}
:::

After.
"""


HEAD = MASTER[MASTER.index(":::{task-start}") : MASTER.index("\nAdd each row")]


def cells(text=MASTER):
    return notebooks.parse(text, "alpha.md")["cells"]


class Book:
    """Notes what a check says, as an output of the cell that runs."""

    def __init__(self):
        self.outputs = []

    def check(self, label):
        return _Check(self, label)


class _Check:
    def __init__(self, book, label):
        self.book, self.label = book, label

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.book.outputs.append({"metadata": {"check": {"label": self.label, "passed": kind is None}}})
        return True


def ran(made):
    """The cells with their outputs, run here."""
    book, names = Book(), {}
    for cell in made:
        if cell["cell_type"] == "code":
            book.outputs = cell["outputs"] = []
            exec(cell["source"], names | {"book": book}, names)
    return made


def test_the_page_has_stub_and_checks_then_the_folded_solution():
    made = expand(cells())
    kinds = [c["metadata"].get("tags", "text") for c in made]
    assert kinds == ["text", ["stub"], ["check"], "text", ["solution"], ["solution", "check"], "text"]
    text, stub, check, between, solution, again, after = (c["source"] for c in made)
    assert text.endswith("Add each row of `rows`.") and "{exercise-start} ★ Sums\n:label: ex-sums" in text
    assert stub == "rows = [[1, 2], [3, 4]]\nsums = ..."
    assert check == again == 'with book.check("ex-sums"):\n    assert sums == [3, 7], "the first sum is 3"'
    assert "Add along a row." in between and between.endswith("{solution-start} ex-sums\n:class: dropdown\n::::")
    assert solution == "rows = [[1, 2], [3, 4]]\nsums = [sum(row) for row in rows]"
    assert after.startswith("Each row is a list.") and after.endswith("After.")
    shown = "".join(c["source"] for c in made)
    assert "isinstance" not in shown and "takes the first" not in shown, "no reader sees what grades"


def test_a_page_without_exercises_is_left_as_it_is():
    plain = cells("# Title\n\nText.\n")
    assert expand(plain) == plain and tasks(plain) == []


def test_stub_fails_solution_passes_and_wrong_answers_lose_their_points():
    found = tasks(cells())
    assert (found[0].points, [c.hidden for c in found[0].checks]) == (3, [False, True])
    assert problems(ran(with_trials(expand(cells()), found)), found) == []


def test_trials_come_last_and_change_nothing_on_the_page():
    found = tasks(cells())
    made = with_trials(expand(cells()), found)
    assert made[: len(expand(cells()))] == expand(cells())
    assert all(exercises.TRIAL in c["metadata"]["tags"] for c in made[len(expand(cells())) :])
    assert [c["source"] for c in notebooks.code_cells({"cells": made})] == [
        c["source"] for c in notebooks.code_cells({"cells": expand(cells())})
    ]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("assert sums == [3, 7]", "assert sums", "the stub passes its checks"),
        ("sum(row) for row", "row[0] for row", "the solution fails a check"),
        ("[wrong, loses=2]", "[wrong, loses=1]", "wrong answer 1 loses 2 points, not 1"),
        ("sums = 10", "sums = [3, 7]", "wrong answer 2 loses 0 points, not 3"),
        ("assert isinstance(sums, list)", "assert isinstance(sums, tuple)", "the solution fails a check"),
    ],
)
def test_an_exercise_that_does_not_do_what_it_plans_is_told(old, new, said):
    assert old in MASTER
    found = tasks(cells(MASTER.replace(old, new)))
    made = ran(with_trials(expand(cells(MASTER.replace(old, new))), found))
    assert f"ex-sums: {said}" in problems(made, found)


def test_checks_that_did_not_run_are_told():
    found = tasks(cells())
    assert problems(expand(cells()), found) == ["ex-sums: 0 checks ran, not those of stub, solution and wrong answers"]


@pytest.mark.parametrize(
    ("code", "stub"),
    [
        ("x = f(1)  # SOLUTION", "x = ..."),
        ("x += f(y=1)  # SOLUTION", "..."),
        ("μ: float = f(1)  # SOLUTION", "μ: float = ..."),
        ("a = b = 1  # SOLUTION", "a = b = ..."),
        ("assert a != b  # SOLUTION", "..."),
        ('d["a=b"] = 3  # SOLUTION', 'd["a=b"] = ...'),
        ('d["a"] = 1 == 2  # SOLUTION', 'd["a"] = ...'),
        ("f(x=3)  # SOLUTION", "..."),
        ("def f(x):\n    return x + 1  # SOLUTION", "def f(x):\n    return ..."),
        ("def f(x):\n    # BEGIN SOLUTION\n    y = x\n    return y\n    # END SOLUTION", "def f(x):\n    ..."),
        ("a = 1\n# BEGIN SOLUTION\nb = 2\n# END SOLUTION\nc = 3", "a = 1\n...\nc = 3"),
    ],
)
def test_stub(code, stub):
    task = exercises.Task("ex-a", "★ A", "", "", code, (), ())
    assert task.stub == stub
    assert "SOLUTION" not in task.solution and len(task.solution.splitlines()) == len(
        [line for line in code.splitlines() if not re.search("(BEGIN|END) SOLUTION", line)]
    )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (":::{task-end}\n:::\n", "", "'★ Sums' has no task-end"),
        (
            ":::{task-start} ★ Sums\n:label: ex-sums\n:hint: Add along a row.\n:::\n",
            "",
            "'task' stands outside an exercise",
        ),
        ("After.", ":::{task-end}\n:::", "a task-end has no partner"),
        (":label: ex-sums\n", "", "needs ':label: ex-…'"),
        ("★ Sums", "Sums", "needs ★, ★★ or ★★★"),
        (":hint: Add along a row.\n", "", "needs a ':hint:'"),
        (":hint:", ":hin:", "an option 'hin'"),
        ("Add each row of `rows`.", "", "asks nothing"),
        ("  # SOLUTION", "", "needs one cell tagged 'task'"),
        ("[sum(row) for row in rows]  # SOLUTION", "[  # SOLUTION", "a solution that is no Python"),
        (":tags: [check, points=2]", ":tags: [check, points=2, hidden]", "tagged 'check' that is shown"),
        ('assert sums == [3, 7], "the first sum is 3"', "sums", "a check that asserts nothing"),
        ('"the first sum is 3"', '"""the first\nsum"""', "a text of several lines"),
        ("[wrong, loses=3]", "[wrong, loses=4]", "more than its 3 points"),
        ("[wrong, loses=3]", "[wrong]", "a wrong one loses=POINTS"),
        ("[wrong, loses=3]", "[worng, loses=3]", "tag it task, check or wrong"),
        ("rows = [[1, 2], [3, 4]]", "rows = [[1, 2], [3, 4]]  # SOLUTION: two", "a mark that is not known"),
        ("After.", "```{code-cell}\n:tags: [check, hidden]\n\nassert 1\n```", "'check' stands outside an exercise"),
    ],
)
def test_what_is_not_an_exercise_is_refused_by_name(old, new, said):
    assert old in MASTER
    with pytest.raises(ExerciseError, match=re.escape(said)):
        expand(cells(MASTER.replace(old, new)))


def test_labels_are_unique():
    task = MASTER[MASTER.index(":::{task-start}") : MASTER.index("After.")]
    with pytest.raises(ExerciseError, match="two exercises have the label 'ex-sums'"):
        tasks(cells(MASTER + "\n" + task))
