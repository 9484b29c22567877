"""A hosted runtime keeps what it shipped with: the requirements admit it, and installing them moves nothing."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from book import notebooks

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PYTHON = "3.13"
KEPT = ("numpy", "torch", "tensorflow", "keras", "pandas", "scikit-learn", "scipy", "matplotlib")
# What the oldest runtime still on offer ships of the packages that matter (2025.07, Python 3.11).
OLDEST = {"numpy": "2.0.2", "torch": "2.6.0"}
UNREACHABLE = "error sending request|Failed to fetch|dns error|Could not connect|tcp connect error|timed out"


def shipped() -> dict[str, str]:
    lines = (HERE / "shipped.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def core(extras=()) -> list[str]:
    """What a page that asks for `extras` installs there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["dependencies"] + [r for e in extras for r in project["optional-dependencies"][e]]


def asked() -> list[tuple[str, ...]]:
    """The extras that pages install, each set once; none first."""
    return sorted(
        {tuple(notebooks.read(c)["metadata"]["book"].get("extras", ())) for c in notebooks.pages(drafts=True)} | {()}
    )


def refused(requirements: list[str], there: dict[str, str]) -> list[str]:
    """Requirements that the shipped version of their package does not meet; a package that is not there is new."""
    said = []
    for requirement in map(Requirement, requirements):
        version = there.get(canonicalize_name(requirement.name))
        if version and not requirement.specifier.contains(version, prereleases=True):
            said.append(f"{requirement}, but {version} is shipped")
    return said


def moved(resolved: dict[str, str], there: dict[str, str]) -> list[str]:
    """Packages that a resolution puts at another version than the shipped one."""
    both = sorted(resolved.keys() & there.keys())
    return [f"{n} {there[n]} became {resolved[n]}" for n in both if Version(resolved[n]) != Version(there[n])]


@pytest.fixture(scope="module")
def resolver(tmp_path_factory) -> str:
    """The resolver: the installed one, or one fetched for these tests, as it is too large for the environment."""
    beside = Path(sys.executable).with_name("uv")
    if beside.exists():
        return str(beside)
    pin = next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("uv=="))
    folder = tmp_path_factory.mktemp("resolver")
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder), pin]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    if done.returncode:
        pytest.skip("the resolver cannot be fetched: the package index cannot be reached")
    return str(folder / "bin" / "uv")


def compile_for(resolver, tmp_path, requirements, constraints):
    """Resolve for the hosted Python and system; returns the versions, or the resolver's words."""
    (tmp_path / "in.txt").write_text("\n".join(requirements))
    words = [resolver, "pip", "compile", str(tmp_path / "in.txt"), "-c", str(constraints), "--quiet"]
    words += ["--no-header", "--no-annotate", "--python-version", PYTHON, "--python-platform", "x86_64-manylinux_2_35"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    if done.returncode:
        if re.search(UNREACHABLE, done.stderr, re.I):
            pytest.skip("the package index cannot be reached")
        return done.stderr
    pairs = [line.split(";")[0].strip().split("==") for line in done.stdout.splitlines() if "==" in line]
    return {canonicalize_name(name): version for name, version in pairs}


def test_the_list_is_the_hosted_one():
    assert {canonicalize_name(n) for n in KEPT} <= shipped().keys()
    assert f"Python {PYTHON}." in (HERE / "shipped.txt").read_text(encoding="utf-8")
    assert "anndata" not in shipped(), "a package we believe is new there is shipped now: read the list again"


@pytest.mark.parametrize("there", [shipped(), OLDEST], ids=["current", "oldest"])
def test_the_requirements_admit_what_is_shipped(there):
    assert refused(core({e for extras in asked() for e in extras}), there) == []


@pytest.mark.network
@pytest.mark.parametrize("extras", asked(), ids="+".join)
def test_installing_moves_nothing(resolver, tmp_path, extras):
    found = compile_for(resolver, tmp_path, core(extras), HERE / "shipped.txt")
    assert isinstance(found, dict), found
    assert moved(found, shipped()) == []
    assert {"numpy", "torch", "pandas", "scikit-learn", "scipy", "matplotlib", "anndata"} <= found.keys()
    assert not {"torchvision", "tensorflow"} & found.keys()


@pytest.mark.network
def test_an_impossible_requirement_is_seen(resolver, tmp_path):
    found = compile_for(resolver, tmp_path, ["numpy>=2.2"], HERE / "shipped.txt")
    assert isinstance(found, str) and "No solution" in found


@pytest.mark.parametrize("page", notebooks.pages(drafts=True), ids=lambda p: p.stem)
def test_every_page_has_the_set_up_cell(page):
    nb = notebooks.read(page)
    cells = [c for c in notebooks.code_cells(nb) if "setup" in notebooks.tags(c)]
    assert [notebooks.source(c) for c in cells] == [notebooks.setup_cell(nb["metadata"]["book"].get("extras", ()))]


@pytest.mark.parametrize("there", [False, True], ids=["at home", "on Colab"])
def test_the_set_up_cell_runs_only_there(monkeypatch, there):
    from IPython.core.inputtransformer2 import TransformerManager

    ran = []

    class Shell:
        def run_line_magic(self, name, line, *more):
            ran.append((name, line))

    monkeypatch.setitem(sys.modules, "google.colab", object()) if there else None
    code = TransformerManager().transform_cell(notebooks.setup_cell())
    exec(compile(code, "setup", "exec"), {"get_ipython": Shell})
    repository = notebooks.addresses()["repository"]
    install = f'install -q -c shipped.txt "borrowed-strength @ git+{repository}"'
    assert ran == ([("pip", "list --format=freeze > shipped.txt"), ("pip", install)] if there else [])


# Each check on a bad example.


def test_a_bound_that_is_too_high_is_seen():
    assert refused(["numpy>=2.2", "new>=1"], {"numpy": "2.1.3"}) == ["numpy>=2.2, but 2.1.3 is shipped"]
    assert moved({"numpy": "2.2.0", "new": "1"}, {"numpy": "2.1.3"}) == ["numpy 2.1.3 became 2.2.0"]
