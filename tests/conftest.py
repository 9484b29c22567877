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


def pytest_collection_modifyitems(items):
    """What has the book rendered begins, so that others need not wait for it; what looks at the pages ends."""
    items.sort(key=lambda item: 1 if item.path.parent.name != "book" else 2 * (item.path.name != "test_book_pages.py"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """``--dist loadfile`` in the order above; the pages in a browser are shared out one by one."""
    from xdist.scheduler import LoadFileScheduling

    class InTurn(LoadFileScheduling):
        def _split_scope(self, nodeid):
            return nodeid if "test_book_browser.py" in nodeid else super()._split_scope(nodeid)

    if config.getvalue("dist") == "loadfile":
        config.option.loadscopereorder = False
        return InTurn(config, log)
