"""What a run costs is measured with its child processes, gathered from every worker, and held to the budget."""

import json
import os
import subprocess
import sys
import textwrap

import pytest

from book import budget, execute, notebooks

PROBES = """
    import subprocess, sys, time

    def burn():
        until = time.process_time() + 0.4
        while time.process_time() < until:
            pass

    def test_here():
        burn()

    def test_in_a_child():
        subprocess.run([sys.executable, "-c", "import time\\nwhile time.process_time() < 0.4: pass"], check=True)

    def test_in_a_child_that_is_left_running():
        child = subprocess.Popen([sys.executable, "-c", "import time\\nwhile time.process_time() < 0.4: pass\\n"
                                  "print(1, flush=True); time.sleep(60)"], stdout=subprocess.PIPE)
        child.stdout.readline()
        globals()["left"] = child

    def test_the_end_of_that_child():
        left.kill()
        left.communicate()

    def test_idle():
        time.sleep(0.6)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="this system keeps no account of running children")
@pytest.mark.parametrize("workers", [[], ["-n", "1"]], ids=["alone", "xdist"])
def test_a_test_is_charged_for_what_it_and_its_children_compute(root, tmp_path, workers):
    (tmp_path / "test_probes.py").write_text(textwrap.dedent(PROBES))
    code = "import pathlib, sys; from book import budget; budget.ROOT = pathlib.Path(sys.argv.pop(1)); import pytest; "
    code += "sys.exit(pytest.main(sys.argv[1:]))"
    words = [sys.executable, "-c", code, str(tmp_path), "-q", "-p", "no:nbval", "-p", "book.budget", *workers]
    env = {**os.environ, "PYTHONPATH": str(root)}
    words += ["--budget-step", "some step", "--rootdir", ".", "."]
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    costs = json.loads((tmp_path / "_build" / "budget" / "some step.json").read_text())
    costs = {name.rpartition("::")[2]: seconds for name, seconds in costs.items()}
    assert all(costs[f"test_{name}"] >= 0.35 for name in ("here", "in_a_child", "in_a_child_that_is_left_running"))
    assert costs["test_idle"] < 0.3 and costs["test_the_end_of_that_child"] < 0.3
    assert sum(name.startswith("imports and collection") for name in costs) == 1


def test_the_budget_grows_by_chapter_and_not_below_six():
    assert [budget.limit(n) for n in (0, 6, 7, 20)] == [1500, 1500, 1590, 2760]


@pytest.mark.parametrize(
    ("tests", "enforce", "fine", "said"),
    [
        (1234, False, True, "budget: 1,244 of 1,500 CPU seconds"),
        (1600, False, True, "OVER BUDGET by 110"),
        (1600, True, False, "OVER BUDGET by 110"),
        (2995, False, False, "This fails above 3,000"),
    ],
)
def test_more_than_the_budget_is_said_and_much_more_fails(tests, enforce, fine, said):
    items = {f"test_{i}": float(i) for i in range(30)}
    text, passed = budget.report({"style": 10, "tests": tests}, items, 6, enforce)
    assert passed is fine and said in text
    assert "test_29" in text and "test_10" in text and "test_9\n" not in text, "the slowest twenty are listed"


def test_a_chapter_that_ran_before_is_counted_and_a_stale_one_is_not(mini, monkeypatch, capsys):
    alpha, beta = notebooks.chapters(None, mini)
    for chapter, key in ((alpha, execute.key(alpha, "smoke", mini)), (beta, "stale")):
        nb = notebooks.make(chapter, mini)
        nb["metadata"]["book"] |= {"key": key, "cpu_seconds": 1490.0}
        notebooks.write(execute.executed(chapter, "smoke", mini), notebooks.dump(nb))
    (mini / "_build" / "budget").mkdir()
    (mini / "_build" / "budget" / "tests.json").write_text('{"a.py::test_a": 20.0}')
    (mini / "_build" / "budget" / "an old step.json").write_text('{"b.py::test_b": 9999.0}')
    monkeypatch.delenv("BORROWED_BUDGET", raising=False)
    words = ["style=1.0", "chapters at smoke=0.4", "tests=12.0"]
    assert budget.main(words, mini) == 0
    said = capsys.readouterr().out
    assert "budget: 1,511 of 1,500" in said and "01-alpha" in said and "02-beta" not in said and "test_b" not in said
    monkeypatch.setenv("BORROWED_BUDGET", "enforce")
    assert budget.main(words, mini) == 1
