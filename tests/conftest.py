"""What every test shares: the repository's root on the path, so that the book's tools can be imported."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from shared import load_triton  # noqa: E402  a test may load TensorFlow before any module of ours does

load_triton()


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT
