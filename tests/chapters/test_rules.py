"""Each house rule is shown a chapter that keeps it and one that breaks it."""

import copy

import pytest
from chapter_rules import (
    SECTIONS,
    cell_lengths,
    claim_holds,
    claims_and_takeaways,
    code_width,
    colab_links,
    exercises,
    figures_described,
    figures_mentioned,
    front_matter,
    glued_names,
    goals_repeated,
    ladder_used,
    module_text,
    parameters,
    prose_length,
    section_order,
    seeds_recorded,
    set_order,
    stored_outputs,
    taught_cells,
    typed_numbers,
    word_count,
)

from book.notebooks import parse

FENCE = "```"


def nb(*parts):
    return parse("\n\n".join(parts))


def code(text, *tags):
    options = f":tags: [{', '.join(tags)}]\n\n" if tags else ""
    return f"{FENCE}{{code-cell}} ipython3\n{options}{text}\n{FENCE}"


GOOD_FRONT = {
    "slug": "one",
    "module": "shared.one",
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
    assert "not a part of shared" in broken(module="numpy")
    assert "true or false" in broken(gpu="no")
    assert "list of names" in broken(data="cells")
    assert broken(extras=["tune"]) == "" and "leave it out" in broken(extras=[])
    assert "three goals" in broken(goals=["One goal that is alone."])
    assert "needs one of above" in broken(claims=[{"id": "a", "says": "x", "metric": "m"}])
    assert "needs one of above" in broken(claims=[{"id": "a", "says": "x", "metric": "m", "above": "high"}])
    assert "two claims are called a" in broken(claims=GOOD_FRONT["claims"] * 2)
    assert "a claim lacks metric" in broken(claims=[{"id": "a", "says": "x", "above": 1}])


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


def test_cell_lengths():
    short, long, huge = ("\n".join(f"x{i} = {i}" for i in range(n)) for n in (3, 21, 41))
    assert cell_lengths(nb(*[code(short)] * 9, code(long))) == []
    assert "median" in cell_lengths(nb(*[code(short + "\n" + short + "\n" + short)] * 3))[0]
    assert "more than 20 lines" in " ".join(cell_lengths(nb(*[code(short)] * 8, *[code(long)] * 2)))
    assert "a cell of 41 lines begins 'x0 = 0'" in cell_lengths(nb(*[code(short)] * 30, code(huge, "solution")))
    assert "more than 300" in cell_lengths(nb(*[code(short)] * 101))[0]
    assert cell_lengths(nb("text")) == ["the chapter has no code"]


def test_prose_length_counts_what_is_read():
    given = nb("One two\n\n% three\n\n$$four$$\n\n`five` {glue:text}`six` {term}`seven <eight>`", code("nine = 10"))
    assert word_count(given) == 5
    assert prose_length(given)
    assert prose_length(nb("word " * 1500)) == []
    assert prose_length(nb("word " * 3001))
    assert prose_length(nb("word " * 1400, "## Exercises", "word " * 200))


WORDS = {
    "a negative control": "A negative control",
    "what is published": "What is published",
    "what went wrong": "What went wrong",
}


def sections(names):
    opening = ":::{admonition} Goals\nwell\n:::\n\n" + "story " * 100
    return nb("# T", opening, *[f"## {WORDS.get(n, n)}\n\ntext" for n in names])


def test_section_order():
    names = list(SECTIONS)
    assert section_order(sections(names)) == []
    assert section_order(sections([n for n in names if n != "Quiz"])) == ["the section 'Quiz' is missing"]
    swapped = [*names[:-2], names[-1], names[-2]]
    assert section_order(sections(swapped)) == ["the section 'Versions and seeds' comes too early"]
    assert any("goals" in p for p in section_order(nb("## Run this")))
    assert any("story" in p for p in section_order(nb("## Run this")))


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
    assert exercises(nb(*one, *two, *three)) == []
    assert "there are 2 exercises" in exercises(nb(*one, *two))[0]
    assert "there are 3 exercises" in exercises(nb(*one, *one, *two))[0]
    assert "ex-3 has no executed solution" in exercises(nb(*one, *two, *exercise("ex-3", "★★★", solution=False)))[0]
    assert "not tagged 'solution'" in exercises(nb(*one, *two, *exercise("ex-3", "★★★", tag="x")))[0]
    assert "not hidden" in exercises(nb(*one, *two, *exercise("ex-3", "★★★", hidden="")))[0]
    assert "has no ★" in exercises(nb(*one, *two, *three, *exercise("ex-4", "")))[0]
    assert "outside a solution" in exercises(nb(*one, *two, *three, code("1", "solution")))[0]


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


def test_ladder_used():
    assert ladder_used(nb(code("%matplotlib inline\nevaluate.ladder(X)"))) == []
    assert ladder_used(nb(code("ladder = 1")))


def run(seeds=(0, 1, 2), **records):
    return {"provenance": {"seeds": list(seeds)}, "records": records}


def test_seeds_and_glued_names():
    assert seeds_recorded({"smoke": run([0]), "lesson": run(), "full": run(range(10))}) == []
    assert seeds_recorded({"lesson": run([0, 0, 1])}) == ["the lesson run used 2 seeds: at least 3 are needed"]
    assert seeds_recorded({"full": run()}) == ["the full run used 3 seeds: at least 10 are needed"]
    profiles = {"lesson": run(a={"value": 1, "low": 0, "high": 2})}
    assert glued_names(nb("{glue:text}`a:.2f` {glue:text}`a_low`"), profiles) == []
    assert glued_names(nb("{glue:text}`b:.2f`"), profiles) == ["the text glues b, which no run recorded"]


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
