"""One rendered book for all tests of this folder; see ``book_site``."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from book_site import PATIENCE, Site, build


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Site:
    if given := os.environ.get("BORROWED_SITE"):
        return Site(Path(given).resolve())
    base = tmp_path_factory.getbasetemp()
    base = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    root = base / "book-site"
    try:
        os.close(os.open(base / "book-site.lock", os.O_CREAT | os.O_EXCL))
        build(root)
    except FileExistsError:
        pass
    waited = time.monotonic()
    while not (root / "state").exists():
        if time.monotonic() - waited > PATIENCE:
            pytest.fail(f"another worker did not finish the book within {PATIENCE} s")
        time.sleep(0.2)
    state, log = (root / "state").read_text(), (root / "build.log").read_text()
    if state != "done":
        pytest.fail(f"the book did not build ({state}):\n{log[-4000:]}")
    return Site(root / "_build" / "html", log)
