"""What every test shares: the repository's root on the path, and the same start however the tests were started."""

import signal
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from shared import load_triton  # noqa: E402  a test may load TensorFlow before any module of ours does

load_triton()

# A shell's background job ignores the interrupt and passes that on, and a child that ignores it cannot be interrupted.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT
