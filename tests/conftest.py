"""What every test shares: the repository's root on the path, and the same start however the tests were started."""

import os
import signal
import subprocess
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


@pytest.fixture
def torchrun(tmp_path):
    """A function that runs a script in two processes; what ``rank 0`` and ``rank 1`` wrote must be equal.

    The script writes into the folder that it gets as its argument.
    """

    def run(script: str) -> None:
        (tmp_path / "script.py").write_text(script)
        words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", tmp_path / "script.py"]
        env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        ended = subprocess.run([sys.executable, *words, tmp_path], env=env, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr[-3000:]
        assert (tmp_path / "rank 0").read_text() == (tmp_path / "rank 1").read_text()

    return run


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
