"""Every page keeps the house rules; see ``chapter_rules.py`` for what each asks.

A draft keeps them as far as it has got: what asks how much there is, or for a recorded run, is skipped for it, with
what is missing as the reason.
"""

import json

import pytest
from chapter_rules import (
    OLD_FORM,
    OLD_SECTIONS,
    all_code,
    cell_lengths,
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
    markdown,
    module_text,
    names_needed,
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
    shown_code,
    solved_exercises,
    stored_outputs,
    study_cost,
    tables_described,
    taught_cells,
    taught_whole,
    typed_numbers,
    untested,
)

from book import execute, exercises, notebooks
from book.imports import module_file
from shared import results

PAGES = notebooks.pages(drafts=True)
STUDIES = [p for p in PAGES if p.study]
LESSONS = [p for p in PAGES if not p.study]
NEW, OLD = ([p for p in LESSONS if (p.slug in OLD_FORM) is old] for old in (False, True))
PROFILES = ("smoke", "lesson", "full", "recorded")


def each(pages, name="page"):
    return pytest.mark.parametrize(name, pages, ids=[p.stem for p in pages])


def rules(*some):
    return pytest.mark.parametrize("rule", some, ids=lambda rule: rule.__name__)


def agree(problems):
    assert not problems, "\n  " + "\n  ".join(problems)


def agree_when_finished(page, problems):
    """For what a draft does not have yet."""
    if page.draft and problems:
        pytest.skip(f"{page.stem} is a draft: {'; '.join(problems)}")
    agree(problems)


@pytest.fixture(scope="module")
def text():
    """Reads a page's text once."""
    seen = {}

    def read(page):
        if page not in seen:
            seen[page] = notebooks.read(page)
        return seen[page]

    return read


def typed(nb):
    return typed_numbers(markdown(nb))


def old_length(nb):
    return prose_length(nb, 1500, 3000, "1,500 to 3,000")


def old_order(nb):
    return section_order(nb, OLD_SECTIONS)


@each(PAGES)
@rules(code_width, long_cells, set_order, figures_mentioned, parameters, typed)
def test_every_page(page, rule, text):
    agree(rule(text(page)))


@each(LESSONS)
@rules(cell_lengths, solved_exercises, ladder_used)
def test_every_lesson(page, rule, text):
    agree(rule(text(page)))


@each(OLD)
@rules(all_code, old_length, old_order)
def test_chapters_of_the_old_form(page, rule, text):
    agree(rule(text(page)))


@each(NEW)
@rules(section_order, first_by_hand, package_agrees, experiment_whole, names_needed, no_whole_experiment)
def test_lessons(page, rule, text):
    agree(rule(text(page)))


@each(NEW)
def test_exercises_come_from_one_source(page, text):
    asked = markdown(text(page)).count("{exercise-start}")
    assert len(notebooks.tasks(page)) == asked, "write every exercise between task-start and task-end"


@each(NEW)
@rules(prose_length, shown_code)
def test_length_of_lessons(page, rule, text):
    agree_when_finished(page, rule(text(page)))


@each(STUDIES)
@rules(fits_nothing, untested)
def test_studies(page, rule, text):
    agree(rule(text(page)))


def test_only_chapters_without_a_study_are_of_the_old_form():
    """The list shrinks with each study that is written, and no later chapter may join it."""
    agree(old_form(LESSONS))


def test_the_contents_list_the_chapters(root):
    assert (root / "book" / "_toc.yml").read_text(encoding="utf-8") == notebooks.contents(), "run 'python3 run.py refs'"


def test_results_belong_to_a_chapter_and_no_name_to_both_pages(root):
    for path in (root / "book" / "results").glob("*.json"):
        assert path.stem in {p.slug for p in PAGES}, f"{path.name} belongs to no chapter"
        assert not results.recorded_twice(json.loads(path.read_text(encoding="utf-8"))), path.name


@each(PAGES)
def test_front_matter(page):
    agree(front_matter(notebooks.front_matter(page), page.slug, page.study))


@each(PAGES)
def test_pages_set_themselves_up_by_their_name(page, text):
    agree(set_up(text(page), page.stem))


@each(LESSONS)
def test_goals_are_those_of_the_front_matter(page, text):
    agree(goals_repeated(text(page), notebooks.front_matter(page)))


@each(LESSONS)
def test_each_claim_has_its_takeaway(page, text):
    agree(claims_and_takeaways(text(page), notebooks.front_matter(page)))


@pytest.fixture(scope="module")
def module_source(root):
    """The text of a module by its dotted name, or None."""

    def find(name):
        path = module_file(name, root)
        return module_text(path) if path else None

    return find


@each(PAGES)
def test_taught_cells_are_the_module_code(page, text, module_source):
    agree(taught_cells(text(page), module_source))


@each(NEW)
def test_lessons_teach_the_whole_method(page, text, module_source):
    agree(taught_whole(text(page), notebooks.front_matter(page), module_source))


@each(PAGES)
def test_notebook_is_in_step_with_the_text(page):
    assert page.notebook.exists(), "there is no notebook yet: run 'python3 run.py refs'"
    same = page.notebook.read_bytes() == notebooks.synced(page)
    assert same, f"{page.notebook.name} is not what {page.text.name} makes it: run 'python3 run.py refs'"


@each(PAGES)
def test_notebook_opens_in_colab(page):
    agree(colab_links(notebooks.load(page.notebook), f"{notebooks.addresses()['colab']}/{page.where}"))
    asks = notebooks.load(page.notebook)["metadata"].get("accelerator") == "GPU"
    assert asks == notebooks.front_matter(page)["gpu"]


@each(PAGES)
def test_stored_outputs(page):
    agree_when_finished(page, stored_outputs(notebooks.load(page.notebook), page.study))


@each(PAGES)
def test_glued_names_and_seeds_were_recorded(page, text):
    profiles = notebooks.results(page.stem)
    missing = [] if {"smoke", "lesson"} <= profiles.keys() else ["no recorded run: run 'python3 run.py refs'"]
    agree_when_finished(page, missing)
    agree(glued_names(text(page), notebooks.quotable(page.slug)) + seeds_recorded(profiles))


@each([*NEW, *STUDIES])
def test_results_stand_one_to_a_sentence(page, text):
    agree(results_per_sentence(text(page), notebooks.quotable(page.slug)))


@each(PAGES)
@pytest.mark.parametrize("profile", PROFILES)
def test_executed_copy(page, profile):
    """Numbers of a run on this machine agree with the recorded ones; figures and tables are described."""
    if not page.study and profile == "recorded":
        pytest.skip("a lesson always measures")
    if not execute.is_current(page, profile):
        pytest.skip(
            f"not run at {profile} since it last changed: 'python3 run.py test' runs lessons at smoke, 'book' at lesson"
        )
    path = execute.executed(page, profile)
    nb = notebooks.load(path)
    agree(figures_described(nb) + (tables_described(nb) if page.study else []))
    if profile == "smoke":
        agree(exercises.problems(nb["cells"], notebooks.tasks(page)))
    if profile == "recorded":
        agree(study_cost(nb))
        return
    measured = results.from_notebook(path)["records"]
    stored = notebooks.results(page.stem).get(profile, {}).get("records", {})
    agree(results.compare(measured, stored) if stored or profile != "full" else [])
