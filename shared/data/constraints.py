"""What a setting may be: each constraint is a test and the words for it.

An estimator or a configuration declares ``constraints = {"lr": Positive(), "norm": OneOf("layer", "batch")}``, and
:func:`check` refuses a value by name, with what it should be.
"""

import difflib
import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np


class SettingError(ValueError):
    """A setting cannot be used; the message names it, its value and what it should be."""


class Constraint(NamedTuple):
    """What a setting may be: whether a value may be used, and the words that end the sentence "lr=-1 ...".

    `known` are the names it accepts, where it accepts names: the nearest is offered.
    """

    accepts: Callable[[object], bool]
    said: str
    known: tuple = ()


def Whole(least: int = 0) -> Constraint:
    """A whole number from `least` up."""
    return Constraint(
        lambda v: isinstance(v, (int, np.integer)) and not isinstance(v, (bool, np.bool_)) and v >= least,
        f"is not a whole number from {least} up",
    )


def Positive() -> Constraint:
    """A finite number above 0."""
    return Constraint(lambda v: is_number(v) and 0 < v < math.inf, "is not a positive number")


def NotNegative() -> Constraint:
    """A finite number from 0 up."""
    return Constraint(lambda v: is_number(v) and 0 <= v < math.inf, "is not a number from 0 up")


def Share() -> Constraint:
    """A number from 0 up to, but not, 1."""
    return Constraint(lambda v: is_number(v) and 0 <= v < 1, "is no share: give a number from 0 up to, but not, 1")


def Between(low: float, high: float) -> Constraint:
    """A number above `low` and below `high`."""
    return Constraint(lambda v: is_number(v) and low < v < high, f"is not a number between {low:g} and {high:g}")


def Probability() -> Constraint:
    """A number from 0 to 1."""
    return Constraint(lambda v: is_number(v) and 0 <= v <= 1, "is not a number from 0 to 1")


def OneOf(*values) -> Constraint:
    """One of some values, of the same type: 1 is not True."""
    plain = lambda v: v.item() if isinstance(v, np.generic) else v  # noqa: E731  a search hands over words of NumPy
    return Constraint(
        lambda v: any(isinstance(plain(v), type(plain(known))) and plain(v) == plain(known) for known in values),
        f"is not known: choose {', '.join(v if isinstance(v, str) else repr(v) for v in values)}",
        values,
    )


def Several(*values) -> Constraint:
    """A sequence of at least one of some names."""
    return Constraint(
        lambda v: isinstance(v, Iterable) and not isinstance(v, str) and len([*v]) > 0 and {*v} <= {*values},
        f"are not known: choose of {', '.join(values)}",
        values,
    )


def near(name, known: Iterable, n: int = 1) -> list[str]:
    """The `n` names of `known` that are nearest to `name`, in any case of its letters; fewer where none is near."""
    words = {str(k).casefold(): str(k) for k in known}
    return [words[k] for k in difflib.get_close_matches(str(name).casefold(), words, n)]


def nearest(name, known: Iterable) -> str:
    """The end of a message on a `name` that is not `known`: the nearest one that is, in any case of its letters."""
    return "".join(f"; did you mean {k!r}?" for k in near(name, known))


def Flag() -> Constraint:
    """True or False."""
    return Constraint(lambda v: isinstance(v, (bool, np.bool_)), "is neither True nor False")


def Seed() -> Constraint:
    """What scikit-learn takes for ``random_state``: None, a whole number below 2**32, or a RandomState."""
    whole = Whole().accepts
    return Constraint(
        lambda v: v is None or isinstance(v, np.random.RandomState) or (whole(v) and v < 2**32),
        "is no seed: give a whole number from 0 to 2**32 - 1, a RandomState, or None",
    )


def FilePath() -> Constraint:
    """The path of a file."""
    named = lambda v: isinstance(v, (str, os.PathLike)) and Path(v).name != ""  # noqa: E731
    return Constraint(named, "is no path of a file: give its name")


def Widths(least: int = 1) -> Constraint:
    """A sequence of at least `least` layers, each with a whole number of units from 1 up."""
    unit, kinds = Whole(1).accepts, (list, tuple, np.ndarray)
    return Constraint(
        lambda v: isinstance(v, kinds) and len(v) >= least and all(map(unit, v)),
        f"is no list of layers: give {least} or more, each a whole number of units from 1 up",
    )


def Maybe(constraint: Constraint) -> Constraint:
    """None, or what `constraint` accepts."""
    return Constraint(lambda v: v is None or constraint.accepts(v), f"{constraint.said}, or None", constraint.known)


def check(settings: Mapping[str, object], constraints: Mapping[str, Constraint]) -> None:
    """Raise :class:`SettingError`, with its name, value and what it should be, on the first setting that cannot be
    used."""
    for name, constraint in constraints.items():
        require(constraint, **{name: settings[name]})


def require(constraint: Constraint, /, **settings) -> None:
    """:func:`check` for settings with the same constraint: ``require(Whole(1), epochs=epochs, batch_size=size)``."""
    for name, value in settings.items():
        if not constraint.accepts(value):
            wrong = [value] if isinstance(value, str) or not isinstance(value, Iterable) else value
            hint = next((h for v in wrong if v not in constraint.known and (h := nearest(v, constraint.known))), "")
            raise SettingError(f"{name}={value!r} {constraint.said}{hint}")


def is_number(value) -> bool:
    """Whether a value is a real number; True and False are none."""
    return isinstance(value, (int, float, np.number)) and not isinstance(value, (bool, np.bool_))
