"""pyproject.toml, constraints.txt and environment.yml say the same, and the core stays free of copyleft packages."""

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from pip._internal.exceptions import PipError
from pip._internal.network.session import PipSession
from pip._internal.req import parse_requirements
from pip._internal.req.constructors import install_req_from_line

import shared

ROOT = Path(__file__).resolve().parent.parent
CONDA_TO_PIP = {"pytorch": "torch", "matplotlib-base": "matplotlib"}
NOT_PYTHON = {"python", "pip", "make"}
IN_CONDA = ("book", "test", "lab", "single-cell", "sweep", "distributed", "keras", "tune", "explain")
PYTHONS = ("3.11", "3.12", "3.13")


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def declared(*extras) -> dict[str, Requirement]:
    """The core's requirements and those of the extras named, by canonical name."""
    found = project()["project"]
    lines = found["dependencies"] + [r for e in extras for r in found["optional-dependencies"][e]]
    return {canonicalize_name(r.name): r for r in map(Requirement, lines)}


def pins(text: str) -> dict[str, str]:
    """Name to version of a constraints file."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return {canonicalize_name(r.name): str(r.specifier).removeprefix("==") for r in map(Requirement, lines)}


def conda(text: str) -> dict[str, Requirement]:
    """The requirements of an environment file, by their name on the Python index."""
    found = {}
    for entry in yaml.safe_load(text)["dependencies"]:
        for line in entry["pip"] if isinstance(entry, dict) else [entry]:
            if line.startswith("-"):
                continue
            name, spec = re.fullmatch(r"([A-Za-z0-9_.-]+?)\s*([=<>!~].*)?", line.strip()).groups()
            spec = re.sub(r"^=(?!=)(\S+?)(\.\*)?$", r"==\1.*", spec or "")
            found[canonicalize_name(CONDA_TO_PIP.get(name, name))] = Requirement(
                f"{CONDA_TO_PIP.get(name, name)}{spec}"
            )
    return found


def pip_part(text: str) -> list[str]:
    """The lines of an environment file that conda hands to pip as a requirements file."""
    entries = yaml.safe_load(text)["dependencies"]
    return [line for entry in entries if isinstance(entry, dict) for line in entry["pip"]]


def pip_reads(lines: list[str], folder: Path) -> list[str]:
    """The requirements that pip's own parser finds in a requirements file of these lines."""
    file = folder / "requirements.txt"
    file.write_text("\n".join(lines))
    found = list(parse_requirements(str(file), session=PipSession()))
    return [f"-e {r.requirement}" if r.is_editable else str(install_req_from_line(r.requirement).req) for r in found]


def disagreements(wanted: dict, offered: dict) -> list[str]:
    """Names in one and not in the other, and names whose bounds differ."""
    said = [f"{n} is missing" for n in sorted(wanted.keys() - offered.keys())]
    said += [f"{n} is not asked for" for n in sorted(offered.keys() - wanted.keys() - NOT_PYTHON)]
    both = sorted(wanted.keys() & offered.keys())
    return said + [f"{offered[n]} is not {wanted[n]}" for n in both if wanted[n].specifier != offered[n].specifier]


def unsatisfied(wanted: dict, pinned: dict) -> list[str]:
    """Requirements without a pin, and pins outside their bounds."""
    said = []
    for name, requirement in wanted.items():
        if requirement.marker and "== 'darwin'" in str(requirement.marker).replace('"', "'"):
            continue
        if name not in pinned:
            said.append(f"{name} has no pin")
        elif not requirement.specifier.contains(pinned[name], prereleases=True):
            said.append(f"{requirement} but the pin is {pinned[name]}")
    return said


def constraints() -> str:
    return (ROOT / "constraints.txt").read_text(encoding="utf-8")


def test_conda_asks_for_the_same():
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    wanted = declared(*IN_CONDA)
    del wanted["tensorflow"]  # the Mac's name on the index; conda has one name for all systems
    assert disagreements(wanted, conda(text)) == []


def test_pip_accepts_what_conda_hands_it(tmp_path):
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    assert pip_reads(pip_part(text), tmp_path) == pip_part(text)
    # The package in place, with its own dependencies: conda's packages satisfy them, so pip adds none.
    assert "-e ." in pip_part(text)
    assert declared().keys() <= conda(text).keys() - {Requirement(r).name for r in pip_part(text) if r[0] != "-"}
    assert {"jupyter", "jupyterlab"} <= conda(text).keys()


def test_every_requirement_has_a_pin_within_its_bounds():
    assert unsatisfied(declared(*project()["project"]["optional-dependencies"]), pins(constraints())) == []


def test_the_pinned_set_names_no_machine():
    assert not re.search(r"\+|@|://|^-|nvidia-|triton", re.sub(r"^#.*$", "", constraints(), flags=re.M), re.M)
    assert not {"torchvision", "torchaudio"} & pins(constraints()).keys()


def test_jupyter_book_stays_at_one():
    # Version 2 reads another configuration, builds nothing from this one, and still succeeds.
    assert str(declared("book")["jupyter-book"].specifier) == "==1.0.4.post1"


def test_python_versions_agree(root):
    sys.path.insert(0, str(root))
    import run

    asked = SpecifierSet(project()["project"]["requires-python"])
    assert all(asked.contains(v) for v in PYTHONS)
    assert not asked.contains("3.10") and not asked.contains("3.14")
    assert (
        tuple(map(int, PYTHONS[0].split("."))) == run.OLDEST and tuple(map(int, PYTHONS[-1].split("."))) == run.NEWEST
    )
    assert conda((root / "environment.yml").read_text())["python"].specifier == asked
    said = {c.rpartition(":: ")[2] for c in project()["project"]["classifiers"] if "Python :: 3." in c}
    assert said == set(PYTHONS)
    assert set(run.EXTRAS.split(",")) == set(IN_CONDA)


@pytest.mark.skipif(Path(sys.prefix).parent != ROOT, reason="only the environment that run.py makes is pinned")
def test_what_is_installed_is_what_is_pinned():
    wrong = []
    for name, wanted in pins(constraints()).items():
        try:
            if metadata.version(name).split("+")[0] != wanted:
                wrong.append(f"{name} {metadata.version(name)}, pinned {wanted}")
        except metadata.PackageNotFoundError:
            pass
    assert wrong == []


def licence(meta) -> str:
    """What a package says its licence is, by its expression, else its classifiers, else its one-line field."""
    if meta.get("License-Expression"):
        return meta["License-Expression"]
    found = [c for c in meta.get_all("Classifier") or [] if c.startswith("License ::")]
    field = meta.get("License") or ""
    return "; ".join(found) or (field if len(field) < 100 else "")


def is_copyleft(text: str) -> bool:
    """True for the GPL and AGPL; the lesser GPL and the compiler runtime's exception do not bind a user."""
    text = re.sub(r"GPL[\w.-]* WITH [\w.-]*exception[\w.-]*", "", text, flags=re.I)
    text = re.sub(r"LGPL|Lesser General Public|Library or Lesser", "", text, flags=re.I)
    return bool(re.search(r"\bA?GPL|General Public License", text, re.I))


def resolved(names) -> set[str]:
    """The names and everything they need here, as installed."""
    waiting, seen = list(names), set()
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in seen:
            continue
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        seen.add(name)
        parsed = map(Requirement, needs)
        waiting += [r.name for r in parsed if r.marker is None or r.marker.evaluate({"extra": ""})]
    return seen


def test_core_has_no_copyleft_package():
    core = resolved(declared())
    assert {"numpy", "torch", "anndata"} <= core
    assert [n for n in sorted(core) if is_copyleft(licence(metadata.metadata(n)))] == []
    assert not {"torchvision", "tensorflow", "tensorflow-cpu", "scanpy"} & core


# Each check on a bad example.


@pytest.mark.parametrize("line", ["--no-deps", "a => 1"])
def test_a_line_that_pip_refuses_is_seen(tmp_path, line):
    with pytest.raises(PipError):
        pip_reads(["b", line], tmp_path)


def test_disagreements_are_seen():
    wanted = {"a": Requirement("a>=1"), "b": Requirement("b")}
    assert disagreements(wanted, conda("dependencies: [a>=1, b, python]")) == []
    assert disagreements(wanted, conda("dependencies: [a=2, b, c]")) == ["c is not asked for", "a==2.* is not a>=1"]
    assert disagreements(wanted, conda("dependencies: [{pip: [a>=1, -e .]}]")) == ["b is missing"]


def test_bad_pins_are_seen():
    pinned = pins("# head\na==0.9\n")
    assert unsatisfied({"a": Requirement("a>=1")}, pinned) == ["a>=1 but the pin is 0.9"]
    assert unsatisfied({"b": Requirement("b")}, pinned) == ["b has no pin"]
    assert unsatisfied({"b": Requirement("b; sys_platform == 'darwin'")}, pinned) == []


@pytest.mark.parametrize(
    "text", ["GPL-3.0-only", "License :: OSI Approved :: GNU General Public License v3 (GPLv3)", "AGPL-3.0", "GPLv2"]
)
def test_copyleft_is_seen(text):
    assert is_copyleft(text)


@pytest.mark.parametrize(
    "text", ["MIT", "LGPL-2.1-or-later", "BSD AND GPL-3.0-or-later WITH GCC-exception-3.1", "MPL-2.0 AND MIT"]
)
def test_permissive_passes(text):
    assert not is_copyleft(text)


@pytest.mark.nightly
def test_triton_is_loaded_before_tensorflow(tmp_path):
    """A triton loaded after TensorFlow ends the process; a stand-in says what was loaded before it."""
    pytest.importorskip("keras", reason="install the extra: pip install 'borrowed-strength[keras]'")
    (tmp_path / "triton.py").write_text("import sys; print({'tensorflow', 'keras', 'jax'} & set(sys.modules))")
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run([sys.executable, "-c", "import shared.nn.keras_net"], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "set()"), done.stderr[-600:]


@pytest.mark.parametrize("first", ["", "import tensorflow; "])
def test_torch_and_tensorflow_live_in_one_process(first):
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed: it comes with a torch for CUDA")
    pytest.importorskip("keras")
    code = first + "import shared.nn.keras_net, torch; torch.optim.Adam([torch.zeros(1, requires_grad=True)])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-600:]


def test_a_late_triton_is_barred(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", sys)
    monkeypatch.setitem(sys.modules, "triton", None)  # so that what is there now comes back
    del sys.modules["triton"]
    shared.load_triton()
    with pytest.raises(ImportError):
        importlib.import_module("triton")


def test_the_absence_of_triton_is_no_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    shared.load_triton()
