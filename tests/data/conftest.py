"""Real files, where they lie beside the checkout: a test that needs one skips with the reason elsewhere."""

import os
from pathlib import Path

import pytest

BESIDE = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture(scope="session")
def fixtures():
    """A function from a path below the folder of real files to where it lies; skips when it is not there."""
    folder = Path(os.environ.get("BORROWED_FIXTURES") or BESIDE)

    def find(name: str) -> Path:
        path = folder / name
        if not path.exists():
            pytest.skip(f"the real file {name} is not here: set BORROWED_FIXTURES to its folder")
        return path

    return find
