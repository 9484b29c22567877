"""Compare the outputs of a cell with stored ones: words must be equal, numbers may differ by a stated tolerance.

Text is split into words and numbers. The words, their order and the lines must be the same. A number written without a
point or exponent is whole and must be equal; other numbers may differ by one part in a million. A cell's tag
``tolerance=0.02`` allows every number in it that share of its stored value instead (a whole number, rounded down, so
that 40 stays exact at 0.02 and 100 may become 98). Digits attached to letters, as in ``run1``, belong to a word.
"""

from __future__ import annotations

import math
import re

NUMBER = re.compile(
    r"(?<![\w.])([-+−]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d*)?(?:[eE][-+]?\d+)?|[-+−]?\.\d+(?:[eE][-+]?\d+)?)(?![\w])"
)
FLOAT_TOLERANCE = 1e-6
SKIPPED = {"metadata", "execution_count", "output_type", "name", "traceback"}


def tolerance_of(tags: list[str]) -> float | None:
    """The number in a tag ``tolerance=…``, or None without one.

    Raises
    ------
    ValueError
        If it is not a number above 0 and below 1.
    """
    for tag in tags:
        if tag.startswith("tolerance="):
            try:
                value = float(tag.partition("=")[2])
            except ValueError:
                value = math.nan
            if not 0 < value < 1:
                raise ValueError(f"the tag {tag!r} states no tolerance: write a share above 0 and below 1")
            return value
    return None


def text_difference(stored: str, new: str, tolerance: float | None = None) -> str | None:
    """What differs between two texts beyond the tolerance, in one sentence; None when nothing does."""
    a, b = (re.sub(r"[ \t]+", " ", t).strip() for t in (stored, new))
    words_a, words_b = ([w.strip(" ") for w in NUMBER.split(t)[::2]] for t in (a, b))
    if words_a != words_b:
        where = next((i for i, (x, y) in enumerate(zip(words_a, words_b)) if x != y), min(len(words_a), len(words_b)))
        x, y = ((w[where] if where < len(w) else "the end")[:200] for w in (words_a, words_b))
        return f"the words differ: stored {x!r}, now {y!r}"
    for old, now in zip(NUMBER.findall(a), NUMBER.findall(b)):
        x, y = _value(old), _value(now)
        share = FLOAT_TOLERANCE if tolerance is None else tolerance
        allowed = share * abs(x) if x else share
        if _whole(old) and _whole(now):
            allowed = 0 if tolerance is None else math.floor(allowed + 1e-9)
        if abs(x - y) > allowed * (1 + 1e-9):
            return f"the number {old} became {now}; {allowed:.3g} is allowed"
    return None


def _value(text):
    return float(text.replace(",", "").replace("−", "-"))


def _whole(text):
    return not re.search(r"[.eE]", text)


def flatten(outputs: list[dict]) -> dict[str, list[str]]:
    """Outputs as a kind (``stdout``, ``text/plain``, ``text/html`` …) to its texts, in order; pictures are left out."""
    found: dict[str, list[str]] = {}

    def add(kind, value):
        text = value if isinstance(value, str) else "".join(value) if isinstance(value, list) else repr(value)
        found.setdefault(kind, []).append(text)

    for output in outputs:
        if "text" in output:
            name = output.get("name", "stdout")
            found[name] = ["".join(found.get(name, [])) + "".join(output["text"])]
        for kind, value in (output.get("data") or {}).items():
            if not kind.startswith(("image/", "application/vnd.jupyter.widget")):
                add(kind, value)
        for kind in ("ename", "evalue"):
            if kind in output:
                add(kind, output[kind])
    return found


def differences(new: list[dict], stored: list[dict], tolerance: float | None = None) -> list[str]:
    """What differs between a cell's outputs and the stored ones beyond the tolerance; empty when they agree."""
    a, b = flatten(stored), flatten(new)
    said = [f"stored {k}, but none now" for k in a if k not in b] + [
        f"{k} now, but none stored" for k in b if k not in a
    ]
    for kind in a.keys() & b.keys():
        if len(a[kind]) != len(b[kind]):
            said.append(f"{len(a[kind])} outputs of {kind} were stored, now there are {len(b[kind])}")
            continue
        for old, now in zip(a[kind], b[kind]):
            if problem := text_difference(old, now, tolerance):
                said.append(f"{kind}: {problem}")
    return sorted(said)
