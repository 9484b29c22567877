"""The errors and warnings that data raise, and where a warning points."""

import os
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

# What is run on the way from a reader's line to a warning: this package, and pipelines and searches.
PACKAGES = (Path(__file__).parents[1], *(Path(find_spec(name).origin).parent for name in ("sklearn", "joblib")))
INSIDE = tuple(f"{folder}{os.sep}" for folder in PACKAGES)


class DataError(ValueError):
    """Data cannot be used as they are; the message names the problem and the cure."""


class Unavailable(DataError):
    """A file cannot be had by this route now (no network, no answer, nothing cached); another route may serve."""


class SimulatedWarning(UserWarning):
    """No real data could be had, and simulated data of the same form stand in; the message says why."""


class DataWarning(UserWarning):
    """Data were loaded, but something about them deserves a look."""


def warn(message: str, category: type[Warning] = DataWarning) -> None:
    """Warn at the line of the caller outside of this package, which is the line to change."""
    frame, level = sys._getframe(1), 2
    while frame.f_back and frame.f_code.co_filename.startswith(INSIDE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
