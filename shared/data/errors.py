"""The one error that data raise."""


class DataError(ValueError):
    """Data cannot be used as they are; the message names the problem and the cure."""
