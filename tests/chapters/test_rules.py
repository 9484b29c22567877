"""Each house rule is shown a chapter that keeps it and one that breaks it."""

import copy

import pytest
from chapter_rules import (
    OLD_SECTIONS,
    SECTIONS,
    all_code,
    cell_lengths,
    claim_holds,
    claims_and_takeaways,
    code_width,
    colab_links,
    experiment_whole,
    figures_described,
    figures_mentioned,
    first_by_hand,
    fits_nothing,
    front_matter,
    glued_names,
    goals_repeated,
    ladder_used,
    long_cells,
    module_text,
    names_needed,
    networks_and_steps,
    no_whole_experiment,
    old_form,
    package_agrees,
    parameters,
    prose_length,
    results_per_sentence,
    section_order,
    seeds_recorded,
    set_order,
    set_up,
    shared_names,
    shown_code,
    solved_exercises,
    stored_outputs,
    study_cost,
    tables_described,
    taught_cells,
    taught_whole,
    typed_numbers,
    untested,
    word_count,
)

from book.notebooks import Page, parse

FENCE = "```"


def nb(*parts):
    return parse("\n\n".join(parts))


def code(text, *tags):
    options = f":tags: [{', '.join(tags)}]\n\n" if tags else ""
    return f"{FENCE}{{code-cell}} ipython3\n{options}{text}\n{FENCE}"


GOOD_FRONT = {
    "slug": "one",
    "modules": ["one"],
    "gpu": False,
    "data": ["cells"],
    "goals": ["Do the first thing well.", "Do the second thing well.", "Do the third thing well."],
    "claims": [{"id": "a", "says": "It is so.", "metric": "m", "above": 0.5}],
}


def test_front_matter():
    assert front_matter(GOOD_FRONT, "one") == []

    def broken(**changes):
        front = copy.deepcopy(GOOD_FRONT) | changes
        return " ".join(front_matter({k: v for k, v in front.items() if v is not None}, "one"))

    assert "lacks goals" in broken(goals=None)
    assert "minutes is not known" in broken(minutes=5)
    assert "the folder says" in broken(slug="two")
    assert "module is not known" in broken(module="shared.methods.one")
    assert "list of names" in broken(modules="one") and "list of names" in broken(modules=["shared.methods.one"])
    assert "not the chapter's name" in broken(modules=["two"]) and broken(modules=["two", "three"]) == ""
    assert broken(draft=True, untaught={"Net": "as in chapter one"}) == "" and "draft is true" in broken(draft=False)
    assert "true or false" in broken(gpu="no")
    assert "list of names" in broken(data="cells")
    assert broken(extras=["tune"]) == "" and "leave it out" in broken(extras=[])
    assert "three goals" in broken(goals=["One goal that is alone."])
    assert "needs one of above" in broken(claims=[{"id": "a", "says": "x", "metric": "m"}])
    assert "needs one of above" in broken(claims=[{"id": "a", "says": "x", "metric": "m", "above": "high"}])
    assert "two claims are called a" in broken(claims=GOOD_FRONT["claims"] * 2)
    assert "a claim lacks metric" in broken(claims=[{"id": "a", "says": "x", "above": 1}])


def test_front_matter_of_a_study():
    front = {k: GOOD_FRONT[k] for k in ("slug", "gpu", "data", "claims")}
    assert front_matter(front, "one", study=True) == []
    assert front_matter(front | {"goals": []}, "one", study=True) == ["the front matter's goals is not known"]
    assert front_matter({**front, "claims": []}, "one", study=True) == []


def test_goals_repeated():
    def page(*goals):
        return nb(
            "\n".join([":::{admonition} Goals", ":class: tip", "You can", "", *goals, ":::", "", "1. another list;"])
        )

    same = ["1. do the first thing well;", "2. do the second thing well;", "3. do the third thing well."]
    assert goals_repeated(page(*same), GOOD_FRONT) == []
    assert goals_repeated(page(*same[:2], "3. Do the third thing well"), GOOD_FRONT) == []
    other = goals_repeated(page(same[0], "2. do the second thing badly;", same[2]), GOOD_FRONT)
    assert len(other) == 1 and other[0].startswith("goal 2 is 'Do the second thing well.'")
    assert len(goals_repeated(page(same[1], same[0], same[2]), GOOD_FRONT)) == 2
    assert "the page has 2 goals" in goals_repeated(page(*same[:2]), GOOD_FRONT)[0]
    assert "the page has 0 goals" in goals_repeated(nb("\n".join(same)), GOOD_FRONT)[0]


def test_set_order():
    fine = "for t in sorted(set(kinds)):\n    t in {'a', 'b'}\n%time x = [t for t in np.unique(kinds)]"
    assert set_order(nb(code(fine))) == []
    assert len(set_order(nb(code("[t for t in set(kinds)]"), code("for t in {'a', 'b'}:\n    pass", "solution")))) == 2
    assert "sort it: 'set(kinds)'" in set_order(nb(code("[t for t in set(kinds)]")))[0]


def test_code_width():
    wide = "x = " + "1" * 85
    assert code_width(nb(code(wide[1:]), code(wide, "hide-input"))) == []
    assert len(code_width(nb(code(wide), code(wide + "\n" + wide, "solution")))) == 3
    assert "break the line of 89: 'x = 1111" in code_width(nb(code(wide)))[0]
    assert "80 columns" in code_width(nb(code(wide[8:], "stub")))[0]


def test_cell_lengths():
    short, long, huge = ("\n".join(f"x{i} = {i}" for i in range(n)) for n in (3, 21, 41))
    assert cell_lengths(nb(*[code(short)] * 9, code(long))) == []
    assert "median" in cell_lengths(nb(*[code(short + "\n" + short + "\n" + short)] * 3))[0]
    assert "more than 20 lines" in " ".join(cell_lengths(nb(*[code(short)] * 8, *[code(long)] * 2)))
    assert "a cell of 41 lines begins 'x0 = 0'" in cell_lengths(nb(*[code(short)] * 30, code(huge, "solution")))
    assert cell_lengths(nb("text")) == ["the page has no code"]
    assert long_cells(nb(code(huge))) and long_cells(nb(code(long))) == []
    assert all_code(nb(*[code(short)] * 100)) == [] and "more than 300" in all_code(nb(*[code(short)] * 101))[0]


def test_shown_code():
    ten = code("\n".join(f"x{i} = {i}" for i in range(10)))
    assert shown_code(nb(*[ten] * 8)) == [] and shown_code(nb(*[ten] * 20)) == []
    assert shown_code(nb(*[ten] * 7)) == ["the lesson shows 70 lines of code: aim at 100 to 180"]
    assert shown_code(nb(*[ten] * 21))
    folded = [code("x = 1", tag) for tag in ("hide-input", "solution", "setup", "parameters")]
    assert shown_code(nb(*[ten] * 20, *folded)) == []


def test_prose_length_counts_what_is_read():
    given = nb("One two\n\n% three\n\n$$four$$\n\n`five` {glue:text}`six` {term}`seven <eight>`", code("nine = 10"))
    assert word_count(given) == 5
    assert prose_length(given)
    assert prose_length(nb("word " * 1500)) == []
    assert prose_length(nb("word " * 2601)) and prose_length(nb("word " * 1199))
    assert prose_length(nb("word " * 1100, "## Exercises", "word " * 200))
    assert prose_length(nb("word " * 3000), 1500, 3000) == []


def test_results_per_sentence():
    records = {
        "a": {"value": 0.5, "low": 0.4, "high": 0.6},
        "b": {"value": 0.5},
        "c": {"value": 1.5},
        "n": {"value": 5},
    }

    def judge(text):
        return results_per_sentence(nb(text), records)

    def glue(*names):
        return " and ".join(f"{{glue:text}}`{n}:.2f`" for n in names)

    assert judge(f"It is {glue('a', 'a_low', 'a_high')}. Then {glue('b')} of {glue('n')} cells.") == []
    assert judge(f"Real lines add {glue('a')}; shuffled ones add {glue('b')}.") == []
    assert judge(f"| x | {glue('a')} | {glue('b')} | {glue('c')} |") == []
    assert judge(f"- one {glue('a')}\n- two {glue('b')}") == []
    assert "two results in one clause (a, b)" in judge(f"It is {glue('a')}, not {glue('b')}.")[0]
    assert (
        "3 results in one sentence (a, b, c); make a table" in judge(f"It is {glue('a')}; {glue('b')}; {glue('c')}.")[0]
    )
    assert judge(f"```{{note}}\nIt is {glue('a')}, not {glue('b')}.\n```")


WORDS = {
    "a negative control": "A negative control",
    "what is published": "What is published",
    "what went wrong": "What went wrong",
}


def sections(names):
    opening = ":::{admonition} Goals\nwell\n:::\n\n" + "story " * 100
    return nb("# T", opening, *[f"## {WORDS.get(n, n)}\n\ntext" for n in names])


@pytest.mark.parametrize("order", [SECTIONS, OLD_SECTIONS])
def test_section_order(order):
    names = list(order)
    assert section_order(sections(names), order) == []
    assert section_order(sections([n for n in names if n != "Quiz"]), order) == ["the section 'Quiz' is missing"]
    swapped = [*names[:-2], names[-1], names[-2]]
    assert section_order(sections(swapped), order) == ["the section 'Versions and seeds' comes too early"]
    assert any("goals" in p for p in section_order(nb("## Run this")))
    assert any("story" in p for p in section_order(nb("## Run this")))


def test_first_by_hand():
    assert first_by_hand(nb("## By hand: two cells", code("np.mean(x)"), "## The method", code("torch.ones(1)"))) == []
    assert "uses torch" in first_by_hand(nb("## By hand", "### A part", code("torch.ones(1)")))[0]
    assert "no code" in first_by_hand(nb("## By hand", "## The method", code("np.mean(x)")))[0]


def test_package_agrees():
    assert package_agrees(nb("## The package", code("assert np.allclose(a, b)"))) == []
    assert package_agrees(nb("## The package", code("np.testing.assert_allclose(a, b)"))) == []
    assert package_agrees(nb("## The method", code("assert x"), "## The package", code("np.allclose(a, b)")))


def test_experiment_whole():
    text = "## The experiment\n\nA negative control, and the network from scratch."
    good = code("evaluate.ladder(X)\nfigures.show(f, 'fig-a', 'c')")
    assert experiment_whole(nb(text, good)) == []
    assert "not call the ladder" in experiment_whole(nb(text, code("figures.show(f, 'fig-a', 'c')")))[0]
    assert "no negative control" in experiment_whole(nb(text.replace("negative", "positive"), good))[0]
    assert "no arm without transfer" in experiment_whole(nb(text.replace("from scratch", ""), good))[0]
    assert "one figure" in experiment_whole(nb(text, good, code("figures.show(f, 'fig-b', 'c')")))[0]
    assert len(experiment_whole(nb("## Quiz", good))) == 4


NAMES = """
from shared import evaluate, figures
from shared.chapter import setup
from shared.methods.tmp import TMP, RelationNet
from shared.methods import projectr as p
book = setup("one", profile=profile)
model = TMP(widths=(8,)).pretrain(X)
model.fit(X, y).predict(X)
model.network_.double()
net = RelationNet(4)
evaluate.ladder(evaluate.few_shot(y, 5), book.seeds)
p.ProjectR()
"""


def test_names_needed():
    used = {"setup", "TMP", "TMP.pretrain", "TMP.fit", "TMP.predict", "RelationNet", "evaluate.ladder"}
    used |= {"evaluate.few_shot", "book.seeds", "p.ProjectR"}
    page = nb(
        code(NAMES), code("figures.show(f)\nbook.record('a', 1)", "hide-input"), code("book.load('x')", "solution")
    )
    assert shared_names(page) == used
    assert names_needed(page) == [] and "10 names of shared, more than 9: RelationNet, TMP" in names_needed(page, 9)[0]


def test_no_whole_experiment():
    assert no_whole_experiment(nb(code("from shared.studies import tmp as study", "solution"))) == []
    assert no_whole_experiment(nb(code("from shared.studies import tmp as study", "hide-input")))


STUDY = """
from shared.studies import tmp as study
if book.reruns:
    cells = book.load("pbmc")
    book.record_all(study.arms(cells), "gain_")
"""


def test_fits_nothing():
    shows = code('book.table(frame(book.recorded_all("gain_")), "c")')
    assert fits_nothing(nb(code(STUDY), shows)) == []
    assert "study.arms is called" in fits_nothing(nb(code(STUDY), code("study.arms(cells)"), shows))[0]
    assert "Ridge().fit is called" in fits_nothing(nb(code(STUDY + "else:\n    Ridge().fit(X, y)"), shows))[0]
    assert "evaluate.ladder is called" in fits_nothing(nb(code("def f():\n    evaluate.ladder(X)"), shows))[0]
    assert "studies.run is called" in fits_nothing(nb(code("from shared import studies\nstudies.run(a)"), shows))[0]
    assert fits_nothing(nb(code(STUDY))) == [
        "the study reads nothing that was recorded: book.recorded(name) or book.recorded_all(prefix)",
        "the study shows no table and no figure",
    ]


def shown_table(page, source="book.table(x)"):
    found = nb(code(source))
    found["cells"][0]["outputs"] = [{"output_type": "display_data", "data": {"text/html": page}, "metadata": {}}]
    return found


def test_tables_described():
    table = '<table class="dataframe">\n<caption>{}</caption></table>'
    assert tables_described(shown_table(table.format("What was done on what cells"))) == []
    assert "no caption" in tables_described(shown_table(table.format("A table")))[0]
    assert "no caption" in tables_described(shown_table('<table class="dataframe"></table>'))[0]
    assert tables_described(shown_table('<table class="dataframe"></table>', "book.close()")) == []
    assert tables_described(shown_table("<p>words</p>")) == []


def test_study_cost():
    page = nb(code("1"))
    page["metadata"]["book"] = {"cpu_after_setup": 9.9}
    assert study_cost(page) == []
    page["metadata"]["book"] = {"cpu_after_setup": 10.1}
    assert "more than 5" in study_cost(page)[0]


def test_old_form(tmp_path):
    for name in ("01-one", "02-two", "03-three", "07-seven"):
        (tmp_path / name).mkdir()
        text = "---\nbook: {draft: true}\n---\n" if name == "03-three" else "# T\n"
        (tmp_path / name / f"{name[3:]}.md").write_text(text)
    (tmp_path / "02-two/two-study.md").write_text("# S\n")
    lessons = [Page(p) for p in sorted(tmp_path.iterdir())]
    assert old_form(lessons[:3], ["one"]) == []
    assert old_form(lessons[:3], ["one", "two"]) == ["two has a study now: take it off OLD_FORM"]
    assert old_form(lessons, ["one"]) == ["07-seven has no study: finish one, seven-study.md"]
    (tmp_path / "07-seven/seven-study.md").write_text("---\nbook: {draft: true}\n---\n")
    assert old_form(lessons, ["one", "seven"]) == ["07-seven is too late to be of the old form"]


def test_untested(tmp_path):
    for name in ("shared/studies/one.py", "shared/studies/two/__init__.py", "tests/studies/test_one.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    page = nb(code("from shared.studies import one, two\nfrom shared.studies.one import f"))
    assert untested(page, tmp_path) == [
        "the study calls shared.studies.two, which has no test tests/studies/test_two.py"
    ]


def test_set_up():
    last = code("book.close()")
    assert set_up(nb(code('book = setup("one-study", profile=profile)'), last), "one-study") == []
    assert "not one" in set_up(nb(code('book = setup("one", profile=profile)'), last), "one-study")[0]
    assert "not never" in set_up(nb(last), "one")[0]
    assert set_up(nb(code('book = setup("one")'), last, code("1")), "one") == ["the last cell is book.close()"]


def figure(**metadata):
    found = nb(code("show()"))
    output = {"output_type": "display_data", "data": {"image/svg+xml": "<svg/>"}, "metadata": {"figure": metadata}}
    found["cells"][0]["outputs"] = [output]
    return found


def test_figures_described():
    words = "eight words that say what can be seen"
    assert figures_described(figure(name="fig-a", caption=words, alt=words)) == []
    assert "no label" in figures_described(figure())[0]
    assert "no caption" in figures_described(figure(name="fig-a", caption="short", alt=words))[0]
    assert "no alternative" in figures_described(figure(name="fig-a", caption=words, alt=""))[0]
    twice = figure(name="fig-a", caption=words, alt=words)
    twice["cells"] *= 2
    assert figures_described(twice) == ["two figures are labelled fig-a"]


def test_figures_mentioned():
    made = code('show(f, "fig-a", "c")')
    assert figures_mentioned(nb("See {numref}`fig-a`.", made)) == []
    assert figures_mentioned(nb("See {numref}`the line <fig-a>`.", made)) == []
    assert figures_mentioned(nb("See.", made)) == ["fig-a is never mentioned in the text"]
    assert figures_mentioned(nb("See {numref}`fig-b`.")) == ["fig-b is mentioned, but no cell makes it"]
    assert "no alternative" in figures_mentioned(nb(f"{FENCE}{{figure}} a.svg\n:name: x\n\nwords\n{FENCE}"))[0]
    assert "no alternative" in figures_mentioned(nb("![](a.svg)"))[0]


@pytest.mark.parametrize(
    "fine",
    [
        "It reached {glue:text}`score:.2f` of cells.",
        "The paper reports 0.83 {cite:p}`x2020`.",
        "% given: a convention of the field\nA threshold of 0.05 is usual.",
        "We took 75 cells of each of 11 types in 2020.",
        "Use `0.5` and $p < 0.05$ and [this](https://x.org/1.2).",
        "$$x = 0.5$$",
        "The 95 % bootstrap interval is wide, and a 95 % interval is not.",
        "```{admonition} T\n:class: w-0.5\nwords\n```",
        "```python\nx = 0.5\n```",
    ],
)
def test_numbers_that_may_stand_in_prose(fine):
    assert typed_numbers(fine) == []


@pytest.mark.parametrize(
    "bad",
    [
        "It reached an accuracy of 0.83 on run 2.",
        "It named 83 % of cells.",
        "It named 83% of cells.",
        "It gained 6 points.",
        "The paper reports 0.83 {cite:p}`x2020`. We measured 0.79.",
        "% given:\nA threshold of 0.05 is usual.",
        "% given: a convention of the field\nA threshold of 0.05 is usual.\n\nWe got 0.04.",
        "```{note}\nWe got 0.04.\n```",
        "- fine\n- not 0.5",
    ],
)
def test_numbers_that_may_not(bad):
    assert len(typed_numbers(bad)) == 1


MODULE = '''
def f(x: int) -> int:
    """Say it."""
    return x + 1
'''


def test_taught_cells():
    def judge(text):
        return taught_cells(nb(code(text, "teaches=shared.one")), {"shared.one": MODULE}.get)

    assert judge("def f(x):\n    return x + 1   # the next\n\nf(2)") == []
    assert judge("def f(x):\n    return x + 2") == ["the cell's f is not shared.one's f"]
    assert judge("def f(x, y=1):\n    return x + 1") == ["the cell's f is not shared.one's f"]
    assert judge("def g(x):\n    return x") == ["the cell defines g, which shared.one does not have"]
    assert judge("x = 1") == ["a cell says that it teaches shared.one, but defines nothing"]
    assert "does not exist" in taught_cells(nb(code("def f(): pass", "teaches=shared.no")), {}.get)[0]


def test_types_of_variables_are_no_difference():
    module = "class A:\n    n: int = 1\n    def f(self):\n        x: int = 2\n        return x"
    cell = "class A:\n    n = 1\n    def f(self):\n        x = 2\n        return x"
    assert taught_cells(nb(code(cell, "teaches=m")), {"m": module}.get) == []
    assert taught_cells(nb(code(cell.replace("x = 2", "x = 3"), "teaches=m")), {"m": module}.get)


METHOD = """
class Net(torch.nn.Module):
    n = 1
class Deep(Net):
    n = 2
class Estimator(Classifier, TorchMethod):
    n = 3
def net_step(net, X):
    return net(X)
def helper(x):
    return x
"""


def test_taught_whole():
    assert networks_and_steps(METHOD) == {"Net", "Deep", "net_step"}
    tag, front = "teaches=shared.methods.one", {"modules": ["one"]}
    cells = [
        code(f"class {n}({b}):\n    n = {i}", tag) for i, (n, b) in enumerate([("Net", "nn.Module"), ("Deep", "Net")])
    ]
    cells.append(code("def net_step(net, X):\n    return net(X)", tag))
    loop = ["## The method", code("loss.backward()")]

    def judge(*parts, **more):
        return taught_whole(nb(*parts), front | more, {"shared.methods.one": METHOD}.get)

    assert judge(*cells, *loop) == []
    assert judge(cells[0], cells[2], *loop) == [
        f"no cell shows Deep: tag one {tag}, or name it under untaught with the reason"
    ]
    assert judge(cells[0], cells[2], *loop, untaught={"Deep": "one layer more"}) == []
    assert judge(cells[0], cells[2], *loop, untaught={"Deep": "longer"}) == ["Deep is untaught without a reason"]
    assert judge(*cells, *loop, untaught={"Deep": "one layer more"}) == ["Deep is untaught, yet a cell shows it"]
    assert judge(*cells, *loop, untaught={"Old": "gone for good"}) == [
        "Old is untaught, but no module of the chapter has it"
    ]
    assert "shows the loop" in judge(*cells, "## The method", code("loss(x)"))[0]
    folded = code("class Deep(Net):\n    n = 1", f"{tag}, hide-input")
    assert "no cell shows Deep" in judge(cells[0], folded, cells[2], *loop)[0]


def test_what_a_package_teaches_is_what_its_modules_define(tmp_path):
    for name, text in {
        "__init__.py": "from one.two import f\n",
        "two.py": f"from __future__ import x\n{MODULE}",
    }.items():
        (tmp_path / name).write_text(text)
    there = {"shared.one": module_text(tmp_path / "__init__.py")}.get
    assert taught_cells(nb(code("def f(x):\n    return x + 1", "teaches=shared.one")), there) == []
    assert module_text(tmp_path / "two.py").endswith(MODULE)


def test_claims_and_takeaways():
    front = {"claims": [{"id": "a"}, {"id": "b"}]}
    good = "## Takeaways\n\n% claim: a\n- One.\n  more\n% claim: b\n- Two."
    assert claims_and_takeaways(nb(good, "## Quiz\n\n- not one"), front) == []
    assert claims_and_takeaways(nb(good.replace("% claim: b\n", "")), front)[0] == "a takeaway names no claim: - Two."
    assert "the claim b has no takeaway" in claims_and_takeaways(nb("## Takeaways\n\n% claim: a\n- One."), front)
    assert "a takeaway names c, which is no claim" in claims_and_takeaways(nb(good + "\n% claim: c\n- C."), front)
    assert "two takeaways name b" in claims_and_takeaways(nb(good.replace("claim: a", "claim: b")), front)
    assert claims_and_takeaways(nb("## Takeaways"), {"claims": []}) == ["the chapter claims nothing"]


def exercise(label, stars, solution=True, tag="solution", hidden=":class: dropdown\n"):
    parts = [
        f"{FENCE}{{exercise-start}} {stars} Title\n:label: {label}\n{FENCE}",
        "Do.",
        f"{FENCE}{{exercise-end}}\n{FENCE}",
    ]
    if solution:
        parts += [
            f"{FENCE}{{solution-start}} {label}\n{hidden}{FENCE}",
            code("1", tag),
            f"{FENCE}{{solution-end}}\n{FENCE}",
        ]
    return parts


def test_exercises():
    one, two, three = (exercise(f"ex-{i}", "★" * i) for i in (1, 2, 3))
    assert solved_exercises(nb(*one, *two, *three)) == []
    assert "there are 2 exercises" in solved_exercises(nb(*one, *two))[0]
    assert "there are 3 exercises" in solved_exercises(nb(*one, *one, *two))[0]
    assert (
        "ex-3 has no executed solution" in solved_exercises(nb(*one, *two, *exercise("ex-3", "★★★", solution=False)))[0]
    )
    assert "not tagged 'solution'" in solved_exercises(nb(*one, *two, *exercise("ex-3", "★★★", tag="x")))[0]
    assert "not hidden" in solved_exercises(nb(*one, *two, *exercise("ex-3", "★★★", hidden="")))[0]
    assert "has no ★" in solved_exercises(nb(*one, *two, *three, *exercise("ex-4", "")))[0]
    assert "outside a solution" in solved_exercises(nb(*one, *two, *three, code("1", "solution")))[0]


def test_colab_links():
    here = "https://colab.research.google.com/github/o/r/blob/main/chapters/01-a/a.ipynb"
    assert colab_links(nb(f"[![x](https://colab.research.google.com/assets/b.svg)]({here})"), here) == []
    assert colab_links(nb("nothing"), here) == [f"the first cell has no link to {here}"]
    assert len(colab_links(nb(f"[x]({here}) [y]({here.replace('a.ipynb', 'b.ipynb')})"), here)) == 1


def test_parameters():
    good = code('profile = "auto"   # or\nseed = 0\ndevice = "auto"', "parameters")
    assert parameters(nb(good, code("1", "setup"))) == []
    assert parameters(nb(code("1", "setup"), good)) == []
    assert "0 cells" in parameters(nb(code("1")))[0]
    for bad in ('profile = "auto"\nseed = 0', 'profile = "lesson"\nseed = 0\ndevice = "auto"'):
        assert "the parameters cell is" in parameters(nb(code(bad, "parameters"), code("1", "setup")))[0]
    assert "first two" in parameters(nb(good, code("1"), code("1", "setup")))[0]


def test_stored_outputs():
    found = nb(code("1", "nbval-check-output"), code("2"))
    assert "no stored output" in stored_outputs(found)[0]
    found["cells"][0] |= {"outputs": [{"data": {}}], "execution_count": 1}
    assert stored_outputs(found) == []
    found["cells"][1] |= {"outputs": [{"data": {}}]}
    assert "not checked holds outputs" in stored_outputs(found)[0]
    assert "no cell is tagged" in stored_outputs(nb(code("2")))[0]
    assert stored_outputs(nb(code("2")), study=True) == []
    found["cells"].pop()
    assert stored_outputs(found, study=True) == ["a cell is tagged nbval-check-output"]


def test_ladder_used():
    assert ladder_used(nb(code("%matplotlib inline\nevaluate.ladder(X)"))) == []
    assert ladder_used(nb(code("ladder = 1")))


def run(seeds=(0, 1, 2), **records):
    return {"provenance": {"seeds": list(seeds)}, "records": records}


def test_seeds_and_glued_names():
    assert seeds_recorded({"smoke": run([0]), "lesson": run(), "full": run(range(10))}) == []
    assert seeds_recorded({"lesson": run([0, 0, 1])}) == ["the lesson run used 2 seeds: at least 3 are needed"]
    assert seeds_recorded({"full": run()}) == ["the full run used 3 seeds: at least 10 are needed"]
    records = {"a": {"value": 1, "low": 0, "high": 2}}
    assert glued_names(nb("{glue:text}`a:.2f` {glue:text}`a_low`"), records) == []
    assert glued_names(nb("{glue:text}`b:.2f`"), records) == ["the text glues b, which no run recorded"]


@pytest.mark.parametrize(
    ("bound", "entry", "holds"),
    [
        ({"above": 0.5}, {"value": 0.7, "low": 0.6, "high": 0.8}, True),
        ({"above": 0.5}, {"value": 0.7, "low": 0.4, "high": 0.8}, False),
        ({"above": 0.5}, {"value": 0.5}, False),
        ({"below": 0.5}, {"value": 0.3, "low": 0.2, "high": 0.4}, True),
        ({"below": 0.5}, {"value": 0.3, "low": 0.2, "high": 0.6}, False),
        ({"includes": 0}, {"value": 0.1, "low": -0.1, "high": 0.3}, True),
        ({"includes": 0}, {"value": 0.1, "low": 0.05, "high": 0.3}, False),
    ],
)
def test_claim_holds(bound, entry, holds):
    said = claim_holds({"id": "c", "metric": "m", **bound}, {"m": entry})
    assert (said == []) is holds
    assert claim_holds({"id": "c", "metric": "n", **bound}, {"m": entry}) == [
        "the claim c needs n, which was not recorded"
    ]
