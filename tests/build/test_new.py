"""A new method: a draft that passes the checks in a copy of the repository, names that are refused, all or nothing."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "chapters"))

from chapter_rules import code_width

from book import build, new, notebooks
from book.notebooks import BookError

LONG = "abcdefgh_ijklmnop_qrstu"  # 23 letters, as long as a name may be


@pytest.fixture
def house(root, tmp_path):
    """A copy of the repository's text; the data and the recorded results are links to ours."""
    place = tmp_path / "house"
    no = shutil.ignore_patterns("__pycache__", "assets", "results", ".*")
    for folder in ("book", "chapters", "shared", "tests"):
        shutil.copytree(root / folder, place / folder, ignore=no)
    for name in ("data", "book/results", "pyproject.toml", "constraints.txt", "run.py", "environment.yml"):
        (place / name).symlink_to(root / name)
    return place


def run(house, *words):
    env = os.environ | {"PYTHONPATH": str(house), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *words], cwd=house, env=env, capture_output=True, text=True)


@pytest.mark.parametrize("name", ["abd", LONG])
def test_a_draft_is_well_formed_whatever_its_name(house, name):
    written = new.new(name, house)
    assert len(written) == len(set(written)) == 9 and all((house / path).exists() for path in written)
    for words in (["check"], ["format", "--check"]):
        done = run(house, "-m", "ruff", *words, "--quiet", "--no-cache", *(p for p in written if p.endswith(".py")))
        assert done.returncode == 0, done.stdout
    slug = name.replace("_", "-")
    for page in (slug, f"{slug}-study"):
        text = (house / f"chapters/07-{slug}/{page}.md").read_text()
        assert not re.search(r"@\w+@", text) and "draft: true" in text
        assert code_width(notebooks.parse(text)) == []
    assert f"file: book/api/{slug}" in (house / "book/_toc.yml").read_text()
    assert f"chapters/07-{slug}" not in (house / "book/_toc.yml").read_text(), "a draft is not in the contents"
    assert f"({slug}.md)" in (house / "book/api/index.md").read_text()


def test_a_draft_keeps_the_house_rules(house):
    """The rules of pages and the one name, in a process of the copy."""
    new.new("my_method", house)
    chosen = "my_method or my-method or contents or only_chapters or results_belong or half_of"
    places = ["tests/chapters/test_chapters.py", "tests/test_house.py"]
    done = run(house, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, *places)
    assert done.returncode == 0, done.stdout[-4000:]
    assert "my-method is a draft: the page has" in done.stdout, "what is missing is said"


def test_the_method_of_a_draft_passes_its_own_test(house, monkeypatch):
    new.new("my_method", house)
    for name, path in {"shared.methods.my_method": "shared/methods", "own": "tests/methods"}.items():
        file = house / path / ("test_" * (name == "own") + "my_method.py")
        spec = importlib.util.spec_from_file_location(name, file)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
    own = [check for name, check in vars(sys.modules["own"]).items() if name.startswith("test_")]
    assert len(own) == 3
    for check in own:
        check()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("my-method", "3 to 23 small letters"),
        ("MyMethod", "3 to 23 small letters"),
        ("2fast", "3 to 23 small letters"),
        ("my__method", "3 to 23 small letters"),
        ("ab", "3 to 23 small letters"),
        (LONG + "w", "3 to 23 small letters"),
        ("lambda", "taken by Python"),
        ("random", "taken by Python"),
        ("base", "or by the kit"),
        ("my_study", "the name of a study"),
        ("tmp", r"exists already: shared/methods/tmp"),
        ("projectr", r"exists already: shared/methods/projectr\.py"),
        ("evaluate", r"exists already: book/api/evaluate\.md"),
    ],
)
def test_names_that_cannot_be_used_are_refused(root, name, said):
    new.refuse("my_method", root)
    with pytest.raises(BookError, match=said):
        new.refuse(name, root)


def test_a_failure_on_the_way_leaves_nothing_behind(house, monkeypatch):
    def tree():
        return {p.relative_to(house): p.read_bytes() for p in house.rglob("*") if p.is_file()}

    before = tree()

    def fail(only, root):
        assert notebooks.pages(only, root), "the texts are there by now"
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "sync", fail)
    with pytest.raises(KeyboardInterrupt):
        new.new("my_method", house)
    assert tree() == before and not (house / "chapters/07-my-method").exists()
    (house / "book/api/index.md").write_text("# No table\n")
    with pytest.raises(BookError, match=r"no line begins with '\| \[evaluate\]\('"):
        new.new("my_method", house)
    assert not (house / "shared/methods/my_method.py").exists()


def test_an_answer_in_words(capsys):
    assert new.main("tmp") == 1
    assert "exists already" in capsys.readouterr().err
