"""Notebooks made from text: the same bytes every time, in step, with the stored outputs kept."""

import json

import pytest

from book import build, notebooks
from book.notebooks import BookError, code_cells, source, tags


def test_the_same_text_makes_the_same_bytes(mini):
    alpha, _beta = notebooks.chapters(None, mini)
    assert notebooks.dump(notebooks.make(alpha, mini)) == notebooks.dump(notebooks.make(alpha, mini))
    assert build.sync(None, mini) == ["01-alpha", "02-beta"]
    assert build.sync(None, mini) == []
    assert build.out_of_step(mini) == []


def test_an_edit_changes_only_its_cell(mini, change):
    alpha = notebooks.chapters(["alpha"], mini)[0]
    before = [c["id"] for c in notebooks.make(alpha, mini)["cells"]]
    change(alpha.text, "Count to three.", "Count to four.")
    after = [c["id"] for c in notebooks.make(alpha, mini)["cells"]]
    assert sum(a != b for a, b in zip(before, after, strict=True)) == 1
    assert len(set(after)) == len(after)


def test_text_that_moved_on_is_out_of_step(mini, change):
    build.sync(None, mini)
    change(mini / "chapters/02-beta/beta.md", "# Beta", "# Gamma")
    assert build.out_of_step(mini) == ["02-beta"]
    build.sync(None, mini)
    assert build.out_of_step(mini) == []
    (mini / "chapters/01-alpha/alpha.ipynb").unlink()
    assert build.out_of_step(mini) == ["01-alpha"]


def test_what_a_hosted_notebook_needs(mini):
    alpha, beta = (notebooks.make(c, mini) for c in notebooks.chapters(None, mini))
    assert beta["metadata"]["accelerator"] == "GPU" and beta["metadata"]["colab"]["gpuType"] == "T4"
    assert "accelerator" not in alpha["metadata"]
    assert alpha["metadata"]["kernelspec"]["name"] == "python3"
    first = source(alpha["cells"][0])
    assert "colab.research.google.com/github/some-one/mini/blob/main/chapters/01-alpha/alpha.ipynb)" in first
    assert "https://some-one.github.io/mini/chapters/01-alpha/alpha.html" in first
    solution = next(c for c in code_cells(alpha) if "solution" in tags(c))
    assert solution["metadata"]["jupyter"]["source_hidden"] and solution["metadata"]["cellView"] == "form"
    text = "\n".join(source(c) for c in alpha["cells"] if c["cell_type"] == "markdown")
    assert "{" not in text
    assert "[Doe and van Berg, 2020](https://doi.org/10.1/x)" in text and "**computed** right" in text


def test_recorded_values_are_filled_in(mini):
    results = mini / "book" / "results" / "alpha.json"
    results.parent.mkdir()
    record = {"score": {"name": "score", "value": 0.7349, "low": 0.7, "high": 0.8}}
    results.write_text(json.dumps({"profiles": {"lesson": {"records": record, "provenance": {}}}}))
    alpha = notebooks.chapters(["1"], mini)[0]
    assert "**0.73** right" in source(notebooks.make(alpha, mini)["cells"][1])


def test_the_notebook_is_valid(mini):
    import nbformat

    for chapter in notebooks.chapters(None, mini):
        nbformat.validate(nbformat.reads(notebooks.dump(notebooks.make(chapter, mini)).decode(), as_version=4))


def test_stored_outputs_stay_until_their_code_changes(mini, change):
    alpha = notebooks.chapters(["alpha"], mini)[0]
    build.sync(None, mini)
    nb = notebooks.load(alpha.notebook)
    cell = next(c for c in code_cells(nb) if notebooks.CHECKED in tags(c))
    notebooks.store_outputs(cell, [{"output_type": "execute_result", "execution_count": 7, "data": {}, "metadata": {}}])
    assert cell["execution_count"] == cell["outputs"][0]["execution_count"] == 1
    alpha.notebook.write_bytes(notebooks.dump(nb))
    assert build.sync(None, mini) == []
    change(alpha.text, "# Alpha", "# Alef")
    build.sync(None, mini)
    assert sum(bool(c["outputs"]) for c in code_cells(notebooks.load(alpha.notebook))) == 1
    change(alpha.text, "scored 0.75", "scored 0.76")
    build.sync(None, mini)
    assert not any(c["outputs"] for c in code_cells(notebooks.load(alpha.notebook)))


def test_bad_sources_are_named(mini, change):
    with pytest.raises(BookError, match="no chapter is called 'gamma': there are alpha, beta"):
        notebooks.chapters(["gamma"], mini)
    change(mini / "chapters/01-alpha/alpha.md", "doe2020", "nobody1900")
    with pytest.raises(BookError, match=r"alpha\.md: the citation key 'nobody1900'"):
        build.sync(None, mini)
    (mini / "chapters/02-beta/beta.ipynb").write_text("<<<<<<< ours")
    with pytest.raises(BookError, match="is not a notebook"):
        build.sync(["beta"], mini)
    change(mini / "chapters/02-beta/beta.md", "gpu: true,", "gpu: [,")
    with pytest.raises(BookError, match=r"beta\.md"):
        notebooks.read(notebooks.chapters(["beta"], mini)[0])
    with pytest.raises(BookError, match="front matter is not YAML"):
        notebooks.front_matter(notebooks.chapters(["beta"], mini)[0])
    (mini / "chapters/03-gamma").mkdir()
    with pytest.raises(BookError, match=r"03-gamma has no gamma\.md"):
        notebooks.chapters(None, mini)


def test_a_chapter_has_a_lesson_and_perhaps_a_study(study):
    lesson, page, beta = notebooks.pages(None, study)
    assert [p.name for p in (lesson, page, beta)] == ["01-alpha", "01-alpha-study", "02-beta"]
    assert lesson.slug == page.slug == "alpha" and page.stem == "alpha-study" and page.other == lesson
    assert beta.other is None and notebooks.Page.of(page.text) == page
    assert notebooks.chapters(None, study) == [lesson, beta]
    for word in ("alpha", "1", "01", "01-alpha"):
        assert notebooks.pages([word], study) == [lesson, page]
    for word in ("alpha-study", "01-alpha-study"):
        assert notebooks.pages([word], study) == [page]
    with pytest.raises(BookError, match="no chapter is called 'beta-study'"):
        notebooks.pages(["beta-study"], study)
    (study / "chapters/03-x-study").mkdir()
    with pytest.raises(BookError, match="03-x-study has the name of a study"):
        notebooks.pages(None, study)


def test_each_page_leads_to_the_other_and_quotes_both(study):
    assert build.sync(None, study) == ["01-alpha", "01-alpha-study", "02-beta", "book/_toc.yml"]
    lesson, page, beta = (notebooks.load(p.notebook) for p in notebooks.pages(None, study))
    first = [source(nb["cells"][0]) for nb in (lesson, page, beta)]
    assert "is in [the study](https://some-one.github.io/mini/chapters/01-alpha/alpha-study.html)" in first[0]
    assert "in [the lesson](https://some-one.github.io/mini/chapters/01-alpha/alpha.html)" in first[1]
    assert "main/chapters/01-alpha/alpha-study.ipynb)" in first[1] and "the study" not in first[2]
    assert "gain is 0.50, and the lesson says 0.8" in source(page["cells"][1])
    assert lesson["metadata"]["book"]["slug"] == "alpha" and page["metadata"]["book"]["source"] == "alpha-study.md"


def test_the_contents_are_written_from_the_folders(study, change):
    build.sync(None, study)
    toc = (study / "book/_toc.yml").read_text()
    assert toc.endswith(
        """    chapters:
      - file: chapters/01-alpha/alpha
        sections:
          - file: chapters/01-alpha/alpha-study
      - file: chapters/02-beta/beta
"""
    )
    assert build.sync(None, study) == []
    change(study / "chapters/02-beta/beta.md", "gpu: true", "draft: true, gpu: true")
    assert build.sync(None, study) == ["book/_toc.yml"]
    assert "beta" not in (study / "book/_toc.yml").read_text()
    (study / "book/_toc.yml").write_text("root: book/index\n")
    with pytest.raises(BookError, match="no part with the caption Chapters"):
        build.sync(None, study)


def test_a_draft_is_left_out_until_it_is_named(study, change):
    change(study / "chapters/01-alpha/alpha.md", "gpu: false", "draft: true\n  gpu: false")
    assert [p.name for p in notebooks.pages(None, study)] == ["02-beta"], "the study of a draft is one too"
    assert [p.name for p in notebooks.pages(["alpha"], study)] == ["01-alpha", "01-alpha-study"]
    assert len(notebooks.pages(None, study, drafts=True)) == 3
    assert "01-alpha" in build.out_of_step(study), "but it is kept in step"
    change(study / "chapters/01-alpha/alpha.md", "draft: true\n  gpu", "gpu")
    change(study / "chapters/01-alpha/alpha-study.md", "gpu: false", "draft: true, gpu: false")
    lesson = notebooks.chapters(["alpha"], study)[0]
    assert "the study" not in source(notebooks.make(lesson, study)["cells"][0]), "no link to what is not there"


def test_a_draft_study_is_not_named_with_its_finished_lesson(study, change):
    change(notebooks.pages(["alpha-study"], study)[0].text, "gpu: false", "gpu: false, draft: true")
    assert [p.stem for p in notebooks.pages(["alpha"], study)] == ["alpha"]
    assert [p.stem for p in notebooks.pages(["alpha-study"], study)] == ["alpha-study"]


def test_addresses_come_from_one_place(mini, change, root):
    import yaml

    notebooks.addresses.cache_clear()
    change(mini / "pyproject.toml", "https://github.com/some-one/mini", "https://example.org/x")
    with pytest.raises(BookError, match="is not a GitHub repository"):
        notebooks.addresses(mini)
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    assert config["repository"]["url"] == notebooks.addresses(root)["repository"]
    base = (config.get("html") or {}).get("baseurl")
    assert base is None or base.rstrip("/") == notebooks.addresses(root)["site"]
