"""A number is stored with its origin or not at all, and a changed number is noticed."""

import json
from types import SimpleNamespace

import nbformat
import pytest

from shared import results
from shared.results import ResultError, Run


@pytest.fixture
def run():
    return Run("demo", "smoke", seeds=(0, 1), device="cpu", data={"pbmc": "0" * 64})


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "folder", lambda: tmp_path)
    return tmp_path


def stored(run):
    return {"provenance": run.provenance(), "records": run.records}


def test_a_number_is_kept_with_all_of_its_origin(run):
    assert run.record("accuracy", 0.51234567, n=823) == 0.51234567
    assert run.records["accuracy"] == {"name": "accuracy", "value": 0.512346, "n": 823}
    origin = run.provenance()
    assert origin["seeds"] == [0, 1] and origin["data"] == {"pbmc": "0" * 64}
    assert origin["versions"]["numpy"] and len(origin["commit"]) >= 7


def test_an_interval_is_one_record(run):
    run.record(
        "accuracy", SimpleNamespace(value=0.5, low=0.4, high=0.6, n=30), published=0.7, source="who2020, table 1"
    )
    assert run.records["accuracy"] == {
        "name": "accuracy",
        "value": 0.5,
        "low": 0.4,
        "high": 0.6,
        "n": 30,
        "published": 0.7,
        "source": "who2020, table 1",
    }


@pytest.mark.parametrize(
    ("name", "value", "more", "says"),
    [
        ("two words", 1.0, {}, "cannot name"),
        ("x", float("nan"), {}, "must be finite"),
        ("x", float("inf"), {}, "must be finite"),
        ("x", [1, 2], {}, "holds a list"),
        ("x", True, {}, "holds a bool"),
        ("x", 1.0, {"published": 0.9}, "say where"),
    ],
)
def test_what_is_no_result_is_refused(run, name, value, more, says):
    with pytest.raises(ResultError, match=says):
        run.record(name, value, **more)
    assert not run.records


def test_a_name_holds_one_value(run):
    run.record("x", 1.0)
    run.record("x", 1.0)
    with pytest.raises(ResultError, match="recorded before"):
        run.record("x", 2.0)


def test_no_data_no_number():
    with pytest.raises(ResultError, match="no data behind it"):
        Run("demo", "smoke", (0,), "cpu").record("x", 1.0)


@pytest.mark.parametrize("bad", [{"profile": "quick"}, {"seeds": ()}, {"device": ""}, {"chapter": ""}])
def test_a_run_needs_its_origin(bad):
    with pytest.raises(ResultError):
        Run(**{"chapter": "demo", "profile": "smoke", "seeds": (0,), "device": "cpu"} | bad)


def test_profiles_are_stored_side_by_side(run, shelf):
    run.record("x", 1.5)
    results.save("demo", "smoke", stored(run))
    run.profile = "lesson"
    results.save("demo", "lesson", stored(run))
    assert list(results.load("demo")["profiles"]) == ["smoke", "lesson"]
    assert results.load("demo")["profiles"]["lesson"]["records"]["x"]["value"] == 1.5
    assert results.load("nothing") == {"chapter": "nothing", "profiles": {}}


def test_both_pages_of_a_chapter_share_a_file_and_no_name(run, shelf):
    run.record("x", 1.5)
    run.profile = "lesson"
    results.save("demo", "lesson", stored(run))
    study = Run("demo-study", "lesson", seeds=(0, 1, 2), device="cpu", data={"pbmc": "0" * 64})
    study.record("y", 2.5)
    path = results.save("demo-study", "lesson", stored(study))
    assert path.name == "demo.json" and results.load("demo-study") == results.load("demo")
    assert [*results.runs("demo")] == [*results.runs("demo-study")] == ["lesson"]
    assert {n: e["value"] for n, e in results.recorded("demo").items()} == {"x": 1.5, "y": 2.5}
    study.record("x", 1.5)
    with pytest.raises(ResultError, match="both pages of demo record x"):
        results.save("demo-study", "lesson", stored(study))
    assert "x" not in results.runs("demo-study")["lesson"]["records"], "nothing was stored"
    with pytest.raises(ResultError, match="not demo at lesson"):
        results.save("demo", "lesson", stored(study))


def test_a_study_shows_its_largest_run_and_a_lesson_its_lesson(shelf):
    for page in ("demo", "demo-study"):
        for profile, value in (("smoke", 1), ("lesson", 2), ("full", 3)):
            one = Run(page, profile, seeds=(0,), device="cpu", data={"pbmc": "0" * 64})
            one.record("x" if page == "demo" else "y", value)
            results.save(page, profile, stored(one))
    assert results.latest("demo")["records"]["x"]["value"] == 2
    assert results.latest("demo-study")["records"]["y"]["value"] == 3
    assert results.latest("other") == results.latest("other-study") == {}


@pytest.mark.parametrize("lost", ["commit", "seeds", "device", "versions", "data"])
def test_a_run_that_lost_its_origin_is_not_stored(run, shelf, lost):
    run.record("x", 1.5)
    broken = stored(run)
    broken["provenance"].pop(lost)
    with pytest.raises(ResultError, match=f"lacks {lost}"):
        results.save("demo", "smoke", broken)
    assert not list(shelf.iterdir())


def test_a_run_is_not_stored_as_another(run, shelf):
    run.record("x", 1.5)
    with pytest.raises(ResultError, match="not demo at lesson"):
        results.save("demo", "lesson", stored(run))
    with pytest.raises(ResultError, match="recorded no number"):
        results.save("demo", "smoke", {"provenance": run.provenance(), "records": {}})


def test_a_damaged_file_says_which_and_what_to_do(shelf):
    (shelf / "demo.json").write_text('{"chapter": "demo", ')
    with pytest.raises(ResultError, match=r"demo\.json is not valid JSON"):
        results.load("demo")


@pytest.mark.parametrize(
    ("old", "new", "differs"),
    [
        ({"value": 0.80}, {"value": 0.85}, False),
        ({"value": 0.80}, {"value": 0.90}, True),
        ({"value": 0.80, "tolerance": 0.01}, {"value": 0.82}, True),
        ({"value": 0.80, "low": 0.7}, {"value": 0.80, "low": 0.5}, True),
        ({"value": 11}, {"value": 12}, True),
        ({"value": 11, "tolerance": 2}, {"value": 12}, False),
        ({"value": "ridge"}, {"value": "lasso"}, True),
        ({"value": 0.8}, {"value": "lasso"}, True),
        ({"value": 0.8, "low": 0.7}, {"value": 0.8}, True),
        ({"value": 0.5, "published": 0.7}, {"value": 0.5, "published": 0.71}, True),
        ({"value": 0.5}, {"value": 0.5}, False),
    ],
)
def test_compare_holds_numbers_to_their_tolerance(old, new, differs):
    assert bool(results.compare({"x": new}, {"x": old})) is differs


@pytest.mark.parametrize(
    ("old", "new", "differs"),
    [
        ({"value": 0.80}, {"value": 0.95}, False),
        ({"value": 0.80}, {"value": 1.00}, True),
        ({"value": 0.80, "tolerance": 0.01}, {"value": 0.82}, False),
        ({"value": 11}, {"value": 12}, False),
        ({"value": 2}, {"value": 3}, True),
        ({"value": 0.1, "low": -0.4, "high": 0.6}, {"value": 0.5, "low": 0.4, "high": 0.6}, False),
        ({"value": 0.1, "low": 0.0, "high": 0.2}, {"value": 0.5, "low": 0.4, "high": 0.6}, True),
        ({"value": "ridge"}, {"value": "lasso"}, True),
        ({"value": 0.5, "published": 0.7}, {"value": 0.5, "published": 0.71}, True),
    ],
)
def test_compare_can_be_wider(old, new, differs):
    assert bool(results.compare({"x": new}, {"x": old}, wider=3)) is differs


def test_compare_names_what_appeared_and_what_went():
    assert results.compare({"a": {"value": 1}}, {"b": {"value": 1}}) == [
        "a: not recorded before",
        "b: recorded before, not now",
    ]


def test_a_notebook_gives_back_what_it_recorded(tmp_path, run):
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    InteractiveShell.instance()
    try:
        with capture_output() as seen:
            run.record("accuracy", SimpleNamespace(value=0.5, low=0.4, high=0.6))
    finally:
        InteractiveShell.clear_instance()
    outputs = [
        nbformat.v4.new_output("display_data", data=dict(o.data), metadata=dict(o.metadata)) for o in seen.outputs
    ]
    assert [o.metadata["scrapbook"]["name"] for o in outputs] == ["accuracy", "accuracy_low", "accuracy_high"]
    outputs.append(nbformat.v4.new_output("display_data", metadata={"provenance": run.provenance()}))
    cell = nbformat.v4.new_code_cell("…", outputs=outputs)
    nb = nbformat.v4.new_notebook(cells=[cell], metadata={"book": {"seconds": 1.5, "peak_mib": 200}})
    path = tmp_path / "demo.ipynb"
    nbformat.write(nb, path)  # validates: glue and papermill both need a valid notebook
    found = results.from_notebook(path)
    assert found["records"] == json.loads(json.dumps(run.records))
    assert found["provenance"]["seconds"] == 1.5 and found["provenance"]["commit"]
