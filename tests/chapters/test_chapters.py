"""Every chapter keeps the house rules; see ``chapter_rules.py`` for what each asks."""

import pytest
from chapter_rules import (
    cell_lengths,
    claims_and_takeaways,
    code_width,
    colab_links,
    figures_described,
    figures_mentioned,
    front_matter,
    glued_names,
    goals_repeated,
    ladder_used,
    markdown,
    module_text,
    parameters,
    prose_length,
    section_order,
    seeds_recorded,
    set_order,
    solved_exercises,
    stored_outputs,
    taught_cells,
    typed_numbers,
)

from book import build, execute, exercises, notebooks
from book.imports import module_file

CHAPTERS = notebooks.chapters()
PROFILES = ("smoke", "lesson", "full")
each = pytest.mark.parametrize("chapter", CHAPTERS, ids=[c.slug for c in CHAPTERS])


def agree(problems):
    assert not problems, "\n  " + "\n  ".join(problems)


@pytest.fixture(scope="module")
def text():
    """Reads a chapter's text once."""
    seen = {}

    def read(chapter):
        if chapter not in seen:
            seen[chapter] = notebooks.read(chapter)
        return seen[chapter]

    return read


@each
@pytest.mark.parametrize(
    "rule",
    [
        cell_lengths,
        code_width,
        set_order,
        prose_length,
        section_order,
        figures_mentioned,
        solved_exercises,
        parameters,
        ladder_used,
        lambda nb: typed_numbers(markdown(nb)),
    ],
    ids=lambda rule: rule.__name__ if rule.__name__ != "<lambda>" else "typed_numbers",
)
def test_text(chapter, rule, text):
    agree(rule(text(chapter)))


@each
def test_front_matter(chapter):
    agree(front_matter(notebooks.front_matter(chapter), chapter.slug))


@each
def test_goals_are_those_of_the_front_matter(chapter, text):
    agree(goals_repeated(text(chapter), notebooks.front_matter(chapter)))


@each
def test_each_claim_has_its_takeaway(chapter, text):
    agree(claims_and_takeaways(text(chapter), notebooks.front_matter(chapter)))


@each
def test_taught_cells_are_the_module_code(chapter, text, root):
    def module_source(name):
        path = module_file(name, root)
        return module_text(path) if path else None

    agree(taught_cells(text(chapter), module_source))


@each
def test_notebook_is_in_step_with_the_text(chapter):
    assert chapter.notebook.exists(), "there is no notebook yet: run 'python3 run.py refs'"
    same = chapter.notebook.read_bytes() == notebooks.synced(chapter)
    assert same, f"{chapter.notebook.name} is not what {chapter.text.name} makes it: run 'python3 run.py refs'"
    assert chapter.name not in build.out_of_step()


@each
def test_notebook_opens_in_colab(chapter):
    agree(colab_links(notebooks.load(chapter.notebook), f"{notebooks.addresses()['colab']}/{chapter.where}"))
    asks = notebooks.load(chapter.notebook)["metadata"].get("accelerator") == "GPU"
    assert asks == notebooks.front_matter(chapter)["gpu"]


@each
def test_stored_outputs(chapter):
    agree(stored_outputs(notebooks.load(chapter.notebook)))


@each
def test_glued_names_and_seeds_were_recorded(chapter, text):
    profiles = notebooks.results(chapter.slug)
    assert {"smoke", "lesson"} <= profiles.keys(), "no recorded run: run 'python3 run.py refs'"
    agree(glued_names(text(chapter), {"lesson": profiles["lesson"]}) + seeds_recorded(profiles))


@each
@pytest.mark.parametrize("profile", PROFILES)
def test_executed_copy(chapter, profile):
    """Numbers of a run on this machine agree with the recorded ones, and every figure is described."""
    from shared import results

    if not execute.is_current(chapter, profile):
        pytest.skip(f"not run at {profile} since it last changed: 'python3 run.py test' runs smoke, 'book' runs lesson")
    path = execute.executed(chapter, profile)
    agree(figures_described(notebooks.load(path)))
    if profile == "smoke":
        agree(exercises.problems(notebooks.load(path)["cells"], notebooks.tasks(chapter)))
    measured = results.from_notebook(path)["records"]
    stored = notebooks.results(chapter.slug).get(profile, {}).get("records", {})
    agree(results.compare(measured, stored) if stored or profile != "full" else [])
