"""The errors and warnings that data raise."""


class DataError(ValueError):
    """Data cannot be used as they are; the message names the problem and the cure."""


class Unavailable(DataError):
    """A file cannot be had by this route now (no network, no answer, nothing cached); another route may serve."""


class SimulatedWarning(UserWarning):
    """No real data could be had, and simulated data of the same form stand in; the message says why."""


class DataWarning(UserWarning):
    """Data were loaded, but something about them deserves a look."""
