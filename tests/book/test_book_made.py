"""Pages made from files, the bibliography, the citation, the vendored script, the colours."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib

import pytest
import yaml
from book_site import ROOT

from book import pages, results_page, welcome_picture
from book.results_page import PageError

PROVENANCE = {
    "commit": "0123456789abcdef+changes",
    "profile": "lesson",
    "seeds": [0, 1, 2],
    "device": "cpu",
    "versions": {"python": "3.11.7", "numpy": "2.4.6"},
    "data": {"pbmc": "a" * 64},
    "machine": "Linux x86_64, 2 cores",
    "date": "2026-11-21",
    "seconds": 84.2,
    "peak_mib": 1228.8,
}
RECORDS = {
    "logistic": {"name": "logistic", "value": 0.7634, "low": 0.731, "high": 0.792, "n": 823, "unit": "recall"},
    "paper": {"name": "paper", "value": 0.41, "published": 0.5, "source": "park2021 Fig. 1C", "unit": "ARI | k-means"},
    "best": {"name": "best", "value": "logistic"},
}  # fmt: skip


def stored(folder, profiles=("smoke", "lesson"), **change):
    run = {p: {"provenance": {**PROVENANCE, "profile": p, **change}, "records": RECORDS} for p in profiles}
    (folder / "made.json").write_text(json.dumps({"chapter": "made", "profiles": run}), encoding="utf-8")
    return folder


def test_the_results_page_shows_what_was_recorded_and_where_it_came_from(tmp_path):
    text = results_page.results_markdown(stored(tmp_path))
    assert "| `logistic` | recall | 0.76 | [0.73, 0.79] | 823 |" in text
    assert "| ARI \\| k-means | 0.50 | 0.41 |  |  | {cite:t}`park2021` Fig. 1C |" in text
    assert "`0123456789ab` with uncommitted changes" in text and "3 seeds, 0 to 2" in text
    assert "sha256 `aaaaaaaaaaaa`" in text and "numpy 2.4.6" in text
    assert "smoke profile" not in text, "smoke numbers stand only where nothing better was recorded"
    assert "smoke profile" in results_page.results_markdown(stored(tmp_path, ("smoke",)))


def test_the_run_times_page_gives_time_memory_and_machine(tmp_path):
    text = results_page.times_markdown(stored(tmp_path))
    assert "| Made | lesson | 84 s | 1.2 GiB | cpu | Linux x86_64, 2 cores | 2026-11-21 |" in text
    assert text.count("| Made |") == 2


def test_the_runs_of_a_study_stand_below_those_of_its_lesson(tmp_path):
    held = json.loads((stored(tmp_path) / "made.json").read_text())
    study = {"provenance": {**PROVENANCE, "seconds": 9000}, "records": {"extra": {"name": "extra", "value": 0.25}}}
    (tmp_path / "made.json").write_text(json.dumps(held | {"study": {"full": study}}), encoding="utf-8")
    text = results_page.results_markdown(tmp_path)
    assert text.index("| `logistic` |") < text.index("### Made-study, full profile") < text.index("| `extra` |")
    assert "| Made-study | full | 2.5 h |" in results_page.times_markdown(tmp_path)


def test_a_draft_is_not_on_the_pages(tmp_path):
    chapter = tmp_path / "chapters" / "01-made"
    chapter.mkdir(parents=True)
    (chapter / "made.md").write_text("---\nbook: {draft: true}\n---\n\n# Made by hand\n")
    assert results_page.recorded_pages(stored(tmp_path), tmp_path) == []
    (chapter / "made.md").write_text("---\nbook: {draft: false}\n---\n\n# Made by hand\n")
    text = results_page.results_markdown(tmp_path, tmp_path)
    assert "## Made by hand" in text and "in [the lesson](../chapters/01-made/made)" in text


def test_pages_without_a_run_say_so(tmp_path):
    assert "No run has been recorded yet" in results_page.results_markdown(tmp_path)
    assert "No run has been recorded yet" in results_page.times_markdown(tmp_path)
    assert "No run has been recorded yet" in results_page.times_markdown(stored(tmp_path, seconds=None))


@pytest.mark.parametrize("text", ["{", "[]", '{"chapter": "x"}'])
def test_a_broken_record_is_named(tmp_path, text):
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(PageError, match=r"bad\.json is not a recorded result"):
        results_page.results_markdown(tmp_path)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.5, "0.50"), (0.0123, "0.0123"), (3, "3"), (12345, "12,345"), (1234.5, "1,234"), (-0.25, "-0.25"), ("A", "A")],
)
def test_numbers_are_shown_as_a_reader_wants_them(value, shown):
    assert results_page.number(value) == shown


@pytest.mark.parametrize(("seconds", "shown"), [(20, "20 s"), (150, "2.5 min"), (9000, "2.5 h")])
def test_times_are_said_in_the_unit_that_fits(seconds, shown):
    assert results_page.clock(seconds) == shown


def test_made_pages_are_left_alone_when_nothing_changed(tmp_path):
    made = pages.generate(tmp_path)
    pages_made = {p.name for p in made if p.suffix == ".md"}
    assert pages_made == {"results.md", "run-times.md", "data-sets.md", "cite.md", "data-licences.md"}
    before = {p: p.stat().st_mtime_ns for p in made}
    assert pages.generate(tmp_path) == made
    assert {p: p.stat().st_mtime_ns for p in made} == before


def test_the_citation_agrees_with_its_file_and_the_package():
    text = pages.citation()
    held = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert held["version"] == project["version"] and held["repository-code"] == project["urls"]["Homepage"]
    assert project["license"] in held["license"]
    assert held["title"] in text and f"version {held['version']}" in text and "@misc{borrowedstrength2026," in text


def test_a_citation_file_that_lacks_a_field_is_refused(tmp_path):
    (tmp_path / "CITATION.cff").write_text("title: x\n")
    with pytest.raises(PageError, match="lacks authors, version"):
        pages.citation(tmp_path)


def test_the_licences_of_the_catalogue_are_listed(tmp_path):
    assert "No data set" in pages.data_licences(tmp_path)
    (tmp_path / "data").mkdir()
    entry = {"cells": {"title": "Some | cells", "licence": "BSD-3-Clause", "citation": "Doe 2020"}}
    (tmp_path / "data" / "catalog.yml").write_text(yaml.safe_dump(entry))
    assert "| `cells` | Some \\| cells | BSD-3-Clause | Doe 2020 |" in pages.data_licences(tmp_path)


def test_the_bibliography_has_no_key_twice_and_every_article_a_year_and_a_place():
    text = (ROOT / "book" / "references.bib").read_text(encoding="utf-8")
    entries = re.findall(r"^@(\w+)\{([^,\s]+),(.*?)^\}", text, re.M | re.S)
    keys = [key for _, key, _ in entries]
    assert len(keys) == len(set(keys)) >= 30 and keys == sorted(keys)
    for kind, key, body in entries:
        assert re.fullmatch(r"[a-z]+\d{4}", key), key
        year = re.search(r"year\s*=\s*\{(\d{4})\}", body)[1]
        assert key.endswith(year), key
        assert re.search(r"author\s*=", body) and re.search(r"title\s*=", body), key
        assert kind != "article" or "journal" in body, key
        if doi := re.search(r"doi\s*=\s*\{(.*?)\}", body):
            assert re.fullmatch(r"10\.\d{4,}/\S+", doi[1]), key


def test_every_citation_on_the_pages_is_in_the_bibliography():
    keys = results_page.citation_keys(ROOT / "book" / "references.bib")
    for page in (ROOT / "book").rglob("*.md"):
        for group in re.findall(r"\{cite:?\w*\}`([^`]+)`", page.read_text(encoding="utf-8")):
            assert set(re.split(r"\s*,\s*", group)) <= keys, f"{page.name}: {group}"


def test_the_welcome_picture_is_what_its_script_draws():
    assert (ROOT / "book" / "welcome.svg").read_text(encoding="utf-8") == welcome_picture.draw()


def test_the_vendored_script_is_the_published_one():
    folder = ROOT / "book" / "assets" / "vendor" / "mathjax"
    digest = hashlib.sha256((folder / "tex-svg.js").read_bytes()).hexdigest()
    assert digest == MATHJAX, "tex-svg.js is not that of mathjax 3.2.2; replace it, or name the new version everywhere"
    assert "Apache License" in (folder / "LICENSE").read_text(encoding="utf-8")


MATHJAX = "d4295dc33744836935c1399feece5159577b34c5c8ffb9f1c6324cd82e03a882"


def colours(theme: str) -> dict[str, str]:
    css = (ROOT / "book" / "assets" / "book.css").read_text(encoding="utf-8")
    block = re.search(rf'html\[data-theme="{theme}"\] \{{(.*?)\n\}}', css, re.S)[1]
    return dict(re.findall(r"(--[\w-]+):\s*(#[0-9a-f]{6});", block))


def contrast(a: str, b: str) -> float:
    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


INKS = ["pst-color-text-base", "pst-color-text-muted", "pst-color-link", "pst-color-link-hover"]
INKS += ["pst-color-inline-code", "pst-color-primary", "bs-right", "bs-wrong"]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("ink", INKS)
@pytest.mark.parametrize("ground", ["bs-paper", "bs-soft", "bs-tip", "pst-color-surface"])
def test_text_can_be_read_on_every_ground(theme, ink, ground):
    held = colours(theme)
    assert contrast(held[f"--{ink}"], held[f"--{ground}"]) >= 4.5


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_marks_can_be_told_from_the_page(theme):
    from shared.figures import ROLES

    for role, (colour, _) in ROLES.items():
        assert contrast(colour, colours(theme)["--bs-paper"]) >= 3, role
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
