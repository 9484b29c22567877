"""One thing, one word: house words that stand for a term of the field appear in no name, message, figure or result."""

import functools
import io
import json
import re
import tokenize
from pathlib import Path

import pytest

# The word, and what to say in its place.
BANNED = {
    r"rehears\w*|practis\w*|begun|lent|lenders?": "pre-train, pretrained",
    r"exams?|examin(?:e[ds]?|ing|ations?)|glanc\w*": "evaluate, evaluation episodes",
    r"noughts?": "zero",
    r"strangers?": "unknown class, open-set",
    r"warmed|timid\w*": "calibrated, temperature",
    r"put(?:s|ting)?[\s_]aside": "hold out, held out",
    r"with[_ ]rates": "select_lr",
    r"teams?|hand[_ ]back": "workers; stacked networks",
}
IN_NAMES = {r"settl\w*": "select, converge, convert"}  # good English elsewhere
METHODS = {"but": "dataclasses.replace"}


@functools.cache
def pattern(*words: str) -> re.Pattern:
    return re.compile(rf"(?<![a-z])(?:{'|'.join(words)})(?![a-z])", re.I)


def hits(text: str, *words: str) -> list[str]:
    """Banned words of a text or a name; ``fooExam`` and ``foo_exam`` are words too, ``example`` is not one."""
    return [m[0] for m in pattern(*words).finditer(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", text))]


def in_code(text: str) -> list[str]:
    """Banned words of a Python file: in names, comments and strings alike, and those that only a name may not be."""
    said = hits(text, *BANNED) + re.findall(rf"(?:\bdef |\.)(?:{'|'.join(METHODS)})\(", text)
    if hits(text, *IN_NAMES):
        names = (t.string for t in tokenize.generate_tokens(io.StringIO(text).readline) if t.type == tokenize.NAME)
        said += [hit for name in names for hit in hits(name, *IN_NAMES)]
    return said


def in_results(text: str) -> list[str]:
    """Banned words in the keys of a result file, and in the names under them."""

    def names(value):
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from (key, *names(inner))
        elif isinstance(value, list):
            for inner in value:
                yield from names(inner)
        elif isinstance(value, str):
            yield value

    return [hit for name in names(json.loads(text)) for hit in hits(name, *BANNED, *IN_NAMES)]


def in_page(text: str) -> list[str]:
    return hits(text, *BANNED)


READ = {"shared/**/*.py": in_code, "tests/**/*.py": in_code, "book/*.py": in_code}
READ |= {"book/**/*.md": in_page, "chapters/*/*.md": in_page, "book/results/*.json": in_results}


def problems(root: Path) -> dict[str, list[str]]:
    """Banned words of every file that has any, by its path below `root`."""
    found = {}
    for places, read in READ.items():
        for path in root.glob(places):
            if not {"_bundled", "vendor", "_build"} & {*path.parts} and path != Path(__file__).resolve():
                found[path.relative_to(root).as_posix()] = read(path.read_text(encoding="utf-8"))
    return {path: said for path, said in sorted(found.items()) if said}


def test_the_words_of_the_field_are_used(root):
    assert problems(root) == {}, f"say what a reader can look up: {BANNED | IN_NAMES | METHODS}"


# Each check on a bad example.


@pytest.mark.parametrize(
    "bad",
    [
        "def rehearse(): ...",
        "rehearsal_lr = 1",
        "x = 1  # weights that were lent",
        "def f():\n    'Has begun.'",
        "class RelationExam: ...",
        "exams = {}",
        "raise ValueError('examined on nought cells')",
        "f(glance=10)",
        "axes.set(title='Refusing a stranger')",
        "put_aside(x)",
        "x = 'Put aside ten'",
        "with_rates(x)",
        "def _settled(): ...",
        "recipe.but(lr=1)",
        "class A:\n    def but(self): ...",
        "team = 1",
        "net.hand_back()",
        "ece_warmed = 1",
    ],
)
def test_a_banned_word_is_seen(bad):
    assert in_code(bad)


@pytest.mark.parametrize(
    "good",
    [
        "example = 1  # AnnData settled on one layout",
        "silent, excellent, violently = 1, 2, 3",
        "'but (this) is fine'",
        "steam, practical, calendar = f(teamwork=1)",
        "f('out aside', computed, inputs, aside)",
    ],
)
def test_words_that_hold_a_banned_one_are_not(good):
    assert in_code(good) == []


def test_names_of_results_are_read():
    assert in_results('{"profiles": {"smoke": {"records": {"ece_warmed": {"value": 1}}}}}')
    assert in_results('{"claims": [{"name": "rehearsed_low"}]}')
    assert in_results('{"records": {"gain_clamped": {"value": 0.5, "name": "gain_clamped"}}}') == []
