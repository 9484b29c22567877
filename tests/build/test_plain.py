"""Plain Markdown for hosted notebooks: every kind of markup becomes what a reader would see, or is refused."""

import re

import pytest

from book.plain import Context, PlainError, plain, survey

VALUES = {"score": 0.7349, "score_low": 0.7, "loss": -0.081, "n": 1336, "word": "ridge"}


def context():
    def cite(key):
        known = {"a": ("Doe and Roe", "2020", "https://doi.org/10.1/a"), "b": ("Poe et al.", "2021", "")}
        if key not in known:
            raise PlainError(f"the citation key {key!r} is not in book/references.bib")
        return known[key]

    return Context(record=VALUES.get, cite=cite, here="chapters/02-b", site="https://s.io/r", raw="https://raw/r/main")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("It is {glue:text}`score:.2f` now", "It is 0.73 now"),
        ("{glue:text}`score:+.1%` {glue:text}`n:,.0f` {glue:text}`word`", "+73.5% 1,336 ridge"),
        ("{glue:text}`loss:+.2f` {glue:text}`loss:.1%`", "\N{MINUS SIGN}0.08 \N{MINUS SIGN}8.1%"),
        ("{glue:text}`other:.2f`", "computed"),
        ("{cite:p}`a,b`", "([Doe and Roe, 2020](https://doi.org/10.1/a); Poe et al., 2021)"),
        ("{cite:t}`b` say", "Poe et al. (2021) say"),
        ("a {term}`prototype <proto>` and {term}`ARI`", "a prototype and ARI"),
        ("{numref}`fig-learning-curve`", "the figure “learning curve”"),
        ("{ref}`sec-one` and {ref}`this <sec-one>`", "one and this"),
        ("{doc}`/book/notation`", "[notation](https://s.io/r/book/notation.html)"),
        ("{doc}`next <../03-c/c>`", "[next](https://s.io/r/chapters/03-c/c.html)"),
        ("[it](../../book/glossary.md#term-x)", "[it](https://s.io/r/book/glossary.html#term-x)"),
        ("[it](https://x.org/a.md)", "[it](https://x.org/a.md)"),
        ("[below](#fig-x) and [](#fig-x-y)", "below and the figure “x y”"),
        ("![alt](pic.svg)", "![alt](https://raw/r/main/chapters/02-b/pic.svg)"),
        ("{math}`x^2` and H{sub}`2`O", "$x^2$ and H<sub>2</sub>O"),
        ("`{glue:text}` is code, `{{x}}` too", "`{glue:text}` is code, `{{x}}` too"),
        ("{func}`~shared.data.load`", "`shared.data.load`"),
        ("**{glue:text}`n`** of [{glue:text}`n`](https://x.org)", "**1336** of [1336](https://x.org)"),
        ("% a comment\ntext\n% claim: x\nmore", "text\nmore"),
        ("(label)=\n## Title", "## Title"),
        ("{.wide}\ntext", "text"),
        ("text <!-- hidden\nstill --> end", "text  end"),
        ("$$\nx = 1\n$$ (eq-x)", "$$\nx = 1\n$$"),
        ("$$ x $$ (eq-x)", "$$ x $$"),
        ("```python\n% not a comment {cite:p}`a`\n```", "```python\n% not a comment {cite:p}`a`\n```"),
        ("```{note}\nOne.\n\nTwo.\n```", "> **Note**\n>\n> One.\n>\n> Two."),
        (":::{admonition} Goals\n:class: tip\n1. a\n:::", "> **Goals**\n>\n> 1. a"),
        ("::::{tip}\n:::{note}\nin\n:::\n::::", "> **Tip**\n>\n> > **Note**\n> >\n> > in"),
        ("```{math}\n:label: e\nx\n```", "$$\nx\n$$"),
        (
            "```{figure} a.svg\n:alt: A line.\n\nCaption {term}`x`.\n```",
            "![A line.](https://raw/r/main/chapters/02-b/a.svg)\n\n*Caption x.*",
        ),
        ("::::{tab-set}\n:::{tab-item} One\nbody\n:::\n::::", "**One**\n\nbody"),
        ("```{bibliography}\n:filter: x\n```", ""),
    ],
)
def test_shown(text, shown):
    assert plain(text, context()) == shown


def test_exercises_and_solutions_are_numbered():
    text = (
        "```{exercise-start} ★ One\n:label: ex-one\n```\n\nDo it.\n\n```{exercise-end}\n```\n\n"
        "```{solution-start} ex-one\n:class: dropdown\n```\n\nDone.\n\n```{solution-end}\n```\n\n"
        "```{exercise} ★★ Two\n:label: ex-two\n\nMore, after {ref}`ex-one`.\n```"
    )
    filled = context()
    survey(text, filled)
    assert filled.exercises == {"ex-one": 1, "ex-two": 2}
    said = plain(text, filled)
    assert "### Exercise 1 ★ One\n\nDo it." in said
    assert "#### Solution to exercise 1\n\nDone." in said
    assert said.endswith("### Exercise 2 ★★ Two\n\nMore, after exercise 1.")


def test_labels_take_the_heading_they_stand_before():
    filled = context()
    survey("(sec-one)=\n## The first", filled)
    assert plain("See {ref}`sec-one`.", filled) == "See The first."


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("```{unknown} x\n```", "the directive {unknown} has no plain form"),
        ("{unknown}`x`", "the role {unknown} has no plain form"),
        ("```{note}\nnever closed", "is never closed"),
        ("{cite:p}`zzz`", "'zzz' is not in"),
        ("{glue:text}`word:.2f`", "which the format '.2f' cannot show"),
        ("```{solution-start} ex-none\n```", "'ex-none', which this chapter does not have"),
    ],
)
def test_refused(text, said):
    with pytest.raises(PlainError, match=re.escape(said)):
        plain(text, context())
