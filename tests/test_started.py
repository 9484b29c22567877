"""The tests pass however they are started: in the background of a shell, without a terminal, from another folder."""

import os
import subprocess
import sys
import textwrap

import pytest

PROBE = """
    import os, signal, subprocess, sys, time

    def test_a_child_can_be_interrupted():
        child = subprocess.Popen([sys.executable, "-c", "print(1, flush=True); import time; time.sleep(60)"],
                                 stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        child.stdout.readline()
        child.send_signal(signal.SIGINT)
        assert child.wait(20) != 0
"""


@pytest.mark.skipif(os.name == "nt", reason="signals are passed on in another way there")
def test_from_a_background_job_with_nothing_to_read_and_no_home(root, tmp_path):
    folder = tmp_path / "with spaces"
    folder.mkdir()
    (folder / "conftest.py").write_text((root / "tests" / "conftest.py").read_text())
    (folder / "test_probe.py").write_text(textwrap.dedent(PROBE))
    # What `sh -c "... &"` does to a child; `</dev/null` is not enough, since a closed stdin has no number at all.
    shell = f'trap "" INT; exec "{sys.executable}" -m pytest -q -p no:cacheprovider -p no:nbval "$1" <&-'
    env = {k: v for k, v in os.environ.items() if k not in ("HOME", "PYTEST_ADDOPTS")}
    env |= {"TMPDIR": str(folder), "PYTHONPATH": str(root)}
    words = ["sh", "-c", shell, "sh", str(folder)]
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
