"""The rooms of the house: one-way imports, one name for each method, a light front door, nothing unpickled."""

import ast
import functools
import importlib.util
import io
import os
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

from book import notebooks
from book.imports import imported, without_magics

ROOMS = ("data", "preprocess", "nn", "train", "methods", "evaluate", "studies", "results", "figures", "chapter")
KIT = {"__init__", "base", "protocols", "torch_method", "keras_method"}
HEAVY = {"torch", "tensorflow", "keras", "scanpy", "anndata", "sklearn", "scipy", "pandas", "matplotlib", "numpy"}
TESTS_OF_MORE = {  # test files that are named after no module
    "tests/data/test_bundled.py": "the files of data/ and the scripts that made them",
    "tests/data/test_campaign.py": "every door of the data room",
    "tests/methods/test_contract.py": "every estimator",
    "tests/methods/test_devices.py": "every torch estimator and study arm, on a pretended accelerator",
    "tests/train/test_fit.py": "the loop, and what is set, kept and read around it",
}
IMPORT_SECONDS = 0.3
CLONE_MB = 40
TEXT = {".py", ".md", ".toml", ".yml", ".yaml", ".txt", ".cfg", ".json", ".ipynb", ".bib", ".cff", ".css", ".csv", ""}


def tracked(root: Path) -> list[Path]:
    """Files git keeps, or would keep: tracked and new ones that are not ignored."""
    words = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [root / name for name in done.stdout.split("\0") if name and (root / name).is_file()]


def room(module: str) -> str:
    return module.split(".")[1] if module.count(".") else ""


parsed = functools.cache(ast.parse)


def prose(text: str) -> str:
    """The comments and strings of a module, docstrings among them, one after another."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    said = [t.string for t in tokens if t.type == tokenize.COMMENT]
    strings = (n.value for n in ast.walk(parsed(text)) if isinstance(n, ast.Constant))
    return "\n".join([*said, *(s for s in strings if isinstance(s, str))])


def defined(text: str) -> set[str]:
    """Public functions and classes at the top of a module."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {n.name for n in parsed(text).body if isinstance(n, kinds) and not n.name.startswith("_")}


def named(text: str, package: str = "") -> set[str]:
    """Dotted names below ``shared`` that a module writes: in prose, as an attribute, from a string, in a lazy table."""
    dotted = re.findall(r"(?<![\w.])shared[./]\w+(?:[./]\w+)*", text)
    tree = parsed(text)
    short = [a.asname for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names if a.name == "shared"]
    for alias in filter(None, short):
        dotted += [f"shared.{name}" for name in re.findall(rf"(?<![\w.]){alias}\.(\w[\w.]*)", text)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and re.fullmatch(r"\.\.+\w+(\.\w+)*", str(node.value)):
            ups = len(node.value) - len(node.value.lstrip("."))
            dotted.append(".".join([*package.split(".")[: len(package.split(".")) - ups + 1], node.value[ups:]]))
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_HOMES":
            homes = [h.value for h in ast.walk(node.value) if isinstance(h, ast.Constant)]
            dotted += [f"{package}.{h}" for h in homes if re.fullmatch(r"\w+(\.\w+)*", str(h))]
    return {name.replace("/", ".") for name in dotted}


def homes(sources: dict[str, str]) -> dict[str, int]:
    """The first room of each public function and class, and of each module as ``room.module``."""
    found: dict[str, int] = {}
    for module, text in sorted(sources.items(), key=lambda s: ROOMS.index(room(s[0])) if room(s[0]) in ROOMS else -1):
        if room(module) in ROOMS:
            for name in (*defined(text), module.removeprefix("shared.")):
                found.setdefault(name, ROOMS.index(room(module)))
    return found


def told(text: str, here: int, known: dict[str, int]) -> set[str]:
    """What prose says of later rooms without ``shared.``: ``evaluate.splits``, ``chapter.load``, ``meta_train``."""
    words = prose(text)
    own = {getattr(n, "id", getattr(n, "attr", getattr(n, "arg", None))) for n in ast.walk(parsed(text))}
    pairs = re.findall(r"(?<![\w./])((\w+)[./](\w+))", words)
    said = {dotted for dotted, first, name in pairs if first in ROOMS[here + 1 :] and {dotted, name} & known.keys()}
    compound = re.findall(r"\b[a-z0-9]+_[a-z0-9_]+\b|\b[A-Z]\w*[a-z]\w*[A-Z]\w*\b", words)
    return said | {name for name in compound if known.get(name, 0) > here and name not in own}


def order_problems(sources: dict[str, str]) -> list[str]:
    """Where a room imports or speaks of a room after it; `sources` maps a module's dotted name to its text."""
    said, known = [], homes(sources)
    for module, text in sources.items():
        here = room(module)
        if here and here not in ROOMS:
            said.append(f"{module} is in no room: {', '.join(ROOMS)}")
            continue
        package = module if any(m.startswith(module + ".") for m in sources) else module.rpartition(".")[0]
        brought = {n for n in imported(text, package) if n.startswith("shared.")}
        spoken = named(text, package) - brought
        if not here:  # the front door tells of every room, and opens none
            spoken &= {n for n in spoken if n not in prose(text)}
        for does, names in (("imports", brought), ("names", spoken)):
            for name in names:
                there = room(name)
                if there in ROOMS and (not here or ROOMS.index(there) > ROOMS.index(here)):
                    said.append(f"{module} {does} {name}, a room to its right")
        if here:
            said += [f"{module} speaks of {n}, of a room to its right" for n in told(text, ROOMS.index(here), known)]
        if re.search(r"""\bshared\.(?:\{|["'] *[+%])""", text):
            said.append(f"{module} builds the name of a room from parts")
    return sorted(set(said))


def shared_sources(root: Path) -> dict[str, str]:
    found = {}
    for path in sorted((root / "shared").rglob("*.py")):
        if "_bundled" not in path.parts:
            name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
            found[name] = path.read_text(encoding="utf-8")
    return found


def unpickling(text: str, restricted: bool = False) -> list[str]:
    """Places where code may run from a file: pickle and what is built on it, ``torch.load``, ``np.load`` with pickles.

    With `restricted`, a class derived from ``Unpickler`` may stand when it says itself what it admits (``find_class``).
    """
    said = []
    tree = ast.parse(without_magics(text))
    guarded = {
        c.name
        for c in ast.walk(tree)
        if isinstance(c, ast.ClassDef)
        and any(ast.unparse(b).endswith("Unpickler") for b in c.bases)
        and any(isinstance(f, ast.FunctionDef) and f.name == "find_class" for f in c.body)
    }
    allowed = restricted and guarded
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{a.name}" for a in node.names} | {str(node.module)}
        else:
            names = set()
        for name in names:
            top = name.split(".")[0]
            if top in {"dill", "cloudpickle", "shelve", "marshal"} or (top in {"pickle", "_pickle"} and not allowed):
                said.append(f"line {node.lineno} imports {name}")
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in {"pickle.load", "pickle.loads", "torch.load", "joblib.load"} or called.endswith("read_pickle"):
                said.append(f"line {node.lineno} calls {called}")
            lets = [
                k for k in node.keywords if k.arg == "allow_pickle" and getattr(k.value, "value", True) is not False
            ]
            if lets:
                said.append(f"line {node.lineno} allows pickles")
        reads = isinstance(node, ast.ClassDef) and any(ast.unparse(b).endswith("Unpickler") for b in node.bases)
        if reads and node.name not in guarded:
            said.append(f"line {node.lineno}: {node.name} admits anything")
    return said


def local_paths(text: str) -> list[str]:
    """Paths that exist on somebody's machine only."""
    places = "home|Users|root|work|workspace|tmp|mnt|opt|private|scratch|data[0-9]"
    return re.findall(rf"(?<![\w.:/-])/(?:{places})/[\w.-]+|\b[A-Z]:\\\\?Users\\\\?\w+|file:///\w+", text)


# What every method has beside itself: what it declares, refuses, reads and keeps, and its example.
AROUND = {"example", "_fitted", "_forget", "_pretraining", "_read", "_restore", "_n_features_out", "_check_unchanged"}
AROUND |= {"__sklearn_tags__", "__sklearn_clone__", "save", "load"}
DECLARED = {"__all__", "accept_sparse", "allow_nan", "constraints", "dtype", "exempt", "expects", "kept", "nonnegative"}


def statements(node: ast.AST) -> int:
    """Statements of a tree; docstrings do not count."""
    found = (n for n in ast.walk(node) if isinstance(n, ast.stmt))
    return sum(not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)) for n in found)


def refuses(node: ast.AST) -> bool:
    """True for a statement that does nothing but check, warn or raise."""
    if isinstance(node, ast.If):
        return not node.orelse and all(map(refuses, node.body))
    call = node.value if isinstance(node, ast.Expr) else None
    called = ast.unparse(call.func) if isinstance(call, ast.Call) else ""
    return isinstance(node, ast.Raise) or called in {"check", "require", "warn", "self._check_settings"}


def around(node: ast.AST) -> int:
    """Statements of a method's module that are not the method: imports, declared settings, refusals, housekeeping."""
    if isinstance(node, (ast.Import, ast.ImportFrom)) or (isinstance(node, ast.stmt) and refuses(node)):
        return statements(node)
    if isinstance(node, ast.FunctionDef) and node.name in AROUND:
        return statements(node)
    named = isinstance(node, ast.Assign) and {getattr(t, "id", None) for t in node.targets} & DECLARED
    return 1 if named or isinstance(node, ast.AnnAssign) else sum(map(around, ast.iter_child_nodes(node)))


def method_shares(root: Path) -> dict[str, float]:
    """Share of the statements of each method, module or folder, that are the method; of those of 50 or more."""
    trees: dict[str, list] = {}
    for path in sorted((root / "shared" / "methods").rglob("*.py")):
        name = path.relative_to(root / "shared" / "methods").parts[0].removesuffix(".py")
        if name not in KIT:
            trees.setdefault(name, []).append(parsed(path.read_text(encoding="utf-8")))
    sizes = {name: (sum(map(statements, some)), sum(map(around, some))) for name, some in trees.items()}
    return {name: 1 - beside / size for name, (size, beside) in sizes.items() if size >= 50}


def names_of(slug: str, modules: list[str], root: Path) -> dict[str, str]:
    """Every place that carries the name of a chapter, or of one of its modules in `shared.methods`."""
    found = {"result": f"book/results/{slug}.json"}
    for name in modules:
        folder = (root / "shared/methods" / name).is_dir()
        found[f"module {name}"] = f"shared/methods/{name}/__init__.py" if folder else f"shared/methods/{name}.py"
        found[f"test of {name}"] = f"tests/methods/test_{name}.py"
    return found


def stray_tests(modules: set[str], tests: set[str]) -> list[str]:
    """Tests of a room that bear the name of none of its modules and folders; a test in a folder is of that folder."""
    parts = [Path(m).with_suffix("").parts[1:] for m in modules]
    known = {
        (folder, name.strip("_")) for p in parts for i, name in enumerate(p) for folder in [p[:j] for j in range(i + 1)]
    }
    known |= {(folder, folder[-1]) for folder, _ in known if folder}
    return [
        test
        for test in sorted(tests)
        if (folder := Path(test).parts[1:-1]) and folder[0] in ROOMS
        if (folder, Path(test).stem.removeprefix("test_")) not in known
    ]


def test_tests_follow_the_modules(root):
    modules = {
        p.relative_to(root).as_posix() for p in tracked(root) if p.suffix == ".py" and p.is_relative_to(root / "shared")
    }
    tests = {p.relative_to(root).as_posix() for p in (root / "tests").rglob("test_*.py")}
    assert stray_tests(modules, tests) == sorted(TESTS_OF_MORE), (
        "name a test after its module; take off what needs no word"
    )
    assert [r for r in ROOMS if not any(t.startswith((f"tests/{r}/", f"tests/test_{r}.py")) for t in tests)] == []


def test_at_least_half_of_a_method_is_the_method(root):
    shares = method_shares(root)
    assert {"tmp", "scpretrain", "autoencoder_transfer"} <= shares.keys()
    assert {name: share for name, share in shares.items() if share < 0.5} == {}


def test_imports_go_one_way(root):
    sources = shared_sources(root)
    assert {"shared", "shared.results", "shared.chapter"} <= sources.keys()
    assert order_problems(sources) == []


DOORS = {"load", "to_arrays", "from_arrays", "check", "gene_table", "to_symbols"}
DOORS |= {"Corpus", "simulate", "Stream", "parallel"}
RECORDED = {"DataError", "in_mirror"}  # cells of chapters whose outputs are recorded import these from shared.data too


def taken_from_data(source: str) -> set[str]:
    """What a file imports by ``from shared.data import ...`` that is neither a door nor a module."""
    nodes = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.ImportFrom) and n.module == "shared.data"]
    names = {a.name for n in nodes for a in n.names} - DOORS
    return {n for n in names if importlib.util.find_spec(f"shared.data.{n}") is None}


def test_the_data_room_has_ten_doors(root):
    from shared import data

    assert set(data.__all__) == DOORS <= set(dir(data)) and all(hasattr(data, name) for name in DOORS)
    with pytest.raises(AttributeError, match="no attribute 'to_human'"):
        _ = data.to_human
    files = [p for room in ("shared", "book", "tests") for p in (root / room).rglob("*.py")]
    taken = {p.name: taken_from_data(p.read_text(encoding="utf-8")) for p in files}
    assert {name: names for name, names in taken.items() if names} == {}
    assert taken_from_data("from shared.data import DataError, load, catalogue") == {"DataError"}
    cells = [cell for c in notebooks.pages(drafts=True) for cell in notebooks.code_cells(notebooks.read(c))]
    asked = [taken_from_data(without_magics(notebooks.source(cell))) for cell in cells]
    assert set().union(*asked) == RECORDED and all(hasattr(data, name) for name in RECORDED)


@pytest.mark.parametrize("chapter", notebooks.chapters(drafts=True), ids=lambda c: c.slug)
def test_one_name_runs_through(root, chapter):
    places = names_of(chapter.slug, notebooks.front_matter(chapter)["modules"], root)
    if chapter.draft:  # nothing is recorded yet
        del places["result"]
    assert [f"{what}: {path}" for what, path in places.items() if not (root / path).exists()] == []


def import_seconds(root, module="shared") -> tuple[float, set[str]]:
    """Seconds to import `module`, the least of several fresh processes, and the heavy libraries it brought along."""
    code = f"import sys, time; t = time.perf_counter(); import {module}; t = time.perf_counter() - t\n"
    code += f"print(t, *({HEAVY!r} & sys.modules.keys()))"
    seconds, brought = [], set()
    for _ in range(5):
        env = {**os.environ, "PYTHONPATH": str(root)}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
        first, *rest = done.stdout.split()
        seconds.append(float(first))
        brought |= set(rest)
    return min(seconds), brought


@pytest.mark.parametrize("module", ["shared", "shared.data"])
def test_the_front_door_is_light(root, module):
    seconds, brought = import_seconds(root, module)
    assert not brought, f"import {module} also loads {', '.join(sorted(brought))}"
    assert seconds <= IMPORT_SECONDS


def test_a_heavy_import_is_seen(root, tmp_path):
    (tmp_path / "heavy.py").write_text("import numpy\n")
    assert import_seconds(tmp_path, "heavy")[1] == {"numpy"}


def test_nothing_is_unpickled(root):
    said = []
    for path in tracked(root):
        inside = path.relative_to(root)
        if path.suffix == ".py" and inside.parts[0] in {"shared", "book", "data"}:
            restricted = inside.parts[0] == "data" or inside.parts[:2] == ("shared", "data")
            said += [f"{inside}: {p}" for p in unpickling(path.read_text(encoding="utf-8"), restricted)]
    for page in notebooks.pages(drafts=True):
        cells = notebooks.code_cells(notebooks.read(page))
        said += [f"{page.stem}: {p}" for p in unpickling("\n\n".join(map(notebooks.source, cells)))]
    assert said == []


def packed_mb(root: Path, scratch: Path) -> float:
    """Megabytes of the history as a clone of the current branch brings it: packed, without what is loose."""
    words = ["git", "clone", "--quiet", "--bare", "--single-branch", "--no-tags", root.as_uri(), str(scratch / "clone")]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    except FileNotFoundError:
        pytest.skip("git is not installed")
    if done.returncode:
        pytest.skip(f"there is no history to clone: {done.stderr.strip()[-200:]}")
    return sum(p.stat().st_size for p in (scratch / "clone" / "objects").rglob("*") if p.is_file()) / 1e6


def test_a_clone_stays_small(root, tmp_path):
    files = sum(p.stat().st_size for p in tracked(root)) / 1e6
    history = packed_mb(root, tmp_path)
    assert files + history <= CLONE_MB, f"{files:.1f} MB of files and {history:.1f} MB of history"


def test_history_counts_and_loose_objects_do_not(tmp_path):
    """A file that was committed and removed still weighs; one that was only staged does not."""
    here = tmp_path / "here"
    git = ["git", "-C", str(here), "-c", "user.name=a", "-c", "user.email=a@b"]
    here.mkdir()
    with pytest.raises(pytest.skip.Exception, match="no history"):
        packed_mb(here, tmp_path)
    for words, size in (
        (["init", "-q"], 0),
        (["add", "."], 200_000),
        (["commit", "-qm", "x"], 0),
        (["add", "."], 300_000),
    ):
        if size:
            (here / "big").write_bytes(os.urandom(size))
        subprocess.run([*git, *words], check=True)
    (here / "big").unlink()
    subprocess.run([*git, "commit", "-qam", "y"], check=True)
    assert 0.2 < packed_mb(here, tmp_path) < 0.25


def test_text_names_no_machine_and_no_torchvision(root):
    said = []
    for path in tracked(root):
        inside = path.relative_to(root)
        if path.suffix not in TEXT or "vendor" in inside.parts or path == Path(__file__).resolve():
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        said += [f"{inside} names {found}" for found in local_paths(text)]
        if inside.parts[0] not in {"tests"} and re.search(
            r"^\s*(?:import|from) torchvision|^torchvision\b", text, re.M
        ):
            said.append(f"{inside} uses torchvision")
    assert said == []


# Each check on a bad example.


def test_names_follow_the_modules_of_a_chapter(tmp_path):
    (tmp_path / "shared/methods/one").mkdir(parents=True)
    assert names_of("a-b", ["one", "two"], tmp_path) == {
        "result": "book/results/a-b.json",
        "module one": "shared/methods/one/__init__.py",
        "test of one": "tests/methods/test_one.py",
        "module two": "shared/methods/two.py",
        "test of two": "tests/methods/test_two.py",
    }


def test_wrong_way_imports_are_seen():
    good = {"shared": "", "shared.train": "from shared.data import load", "shared.data": "import numpy"}
    assert order_problems(good) == []
    bad = {"shared.data": "def f():\n    from shared.train import fit"}
    assert order_problems(bad) == [
        "shared.data imports shared.train, a room to its right",
        "shared.data imports shared.train.fit, a room to its right",
    ]
    assert order_problems({"shared.nn.losses": "from ..evaluate import metrics"})
    assert order_problems({"shared.attic": ""}) == [f"shared.attic is in no room: {', '.join(ROOMS)}"]
    assert order_problems({"shared": "import shared.data"})
    assert order_problems({"shared": '_HOMES = {"load": "data"}'})


EARLY = {  # what a module of `nn` may not say of `train`, `evaluate` or `chapter`, and how
    "docstring": '"""Any of them; see :func:`shared.train.loop.fit`."""',
    "comment": "x = 1  # as shared.evaluate.splits has it",
    "path": "x = 1  # as shared/evaluate/splits.py has it",
    "message": 'raise ValueError(f"{x} is short: shared.train.fit stops it")',
    "annotation": 'def f(x: "shared.evaluate.Interval"): ...',
    "attribute": "import shared\nshared.evaluate.splits.few(1)",
    "alias": "import shared as s\ns.evaluate.splits.few(1)",
    "by name": 'import importlib\nimportlib.import_module("shared.train")',
    "by relative name": 'import importlib\nimportlib.import_module("..train", __package__)',
    "lazy table": '_HOMES = {"fit": "shared.train.loop"}',
    "relative table": '_HOMES = {"fit": "..train.loop"}',
    "built": 'import importlib\nroom = "train"\nimportlib.import_module(f"shared.{room}")',
    "added": 'room = "train"\n__import__("shared." + room)',
    "room and module": '"""Split as ``evaluate.splits`` does."""',
    "room and function": "x = 1  # chapter.setup says which",
    "function": '"""Give it to ``meta_train``."""',
    "class": "x = 1  # a MetaConfig",
}
HOUSE = {
    "shared": '"""Rooms: ``shared.data``, ``shared.chapter``."""',
    "shared.nn": "",
    "shared.nn.meta": "",
    "shared.train": "",
    "shared.train.loop": "def fit(): ...\ndef meta_train(): ...\nclass MetaConfig: ...",
    "shared.evaluate.splits": '"""After :mod:`shared.nn.meta` and ``meta_train``."""\ndef few(): ...',
    "shared.chapter": "def setup(): ...",
}


@pytest.mark.parametrize("source", EARLY.values(), ids=EARLY)
def test_a_word_of_a_later_room_is_seen(source):
    assert order_problems(HOUSE) == []
    assert order_problems({**HOUSE, "shared.nn.meta": source})


def test_a_test_of_no_module_is_seen():
    modules = {"shared/data/load.py", "shared/data/sources/geo.py", "shared/data/__main__.py", "shared/nn/heads.py"}
    good = {
        "tests/data/test_load.py",
        "tests/data/sources/test_geo.py",
        "tests/data/test_geo.py",
        "tests/data/test_main.py",
    }
    good |= {
        "tests/data/test_sources.py",
        "tests/data/test_data.py",
        "tests/book/test_pages.py",
        "tests/test_results.py",
    }
    assert stray_tests(modules, good) == []
    bad = {
        "tests/data/test_heads.py",
        "tests/data/readers/test_load.py",
        "tests/data/test_load_more.py",
        "tests/nn/test_data.py",
    }
    assert stray_tests(modules, bad | good) == sorted(bad)


def test_a_method_that_is_mostly_plumbing_is_seen(tmp_path):
    (tmp_path / "shared" / "methods").mkdir(parents=True)
    check = "    if X is None:\n        raise ValueError('no X')\n"
    for name, some in (("thin", 20), ("whole", 1)):
        text = "import numpy\n\n\ndef fit(X):\n" + check * some + "    y = X * 2\n" * 50
        (tmp_path / "shared" / "methods" / f"{name}.py").write_text(text if name == "whole" else text[: -40 * 14])
    shares = method_shares(tmp_path)
    assert shares["thin"] < 0.5 < shares["whole"]


def test_plain_words_and_own_names_are_no_word_of_a_later_room():
    fine = '"""Fit it; results.json, chapter 3, evaluate/this."""\ndef f(meta_train): "From `meta_train`."\n'
    assert order_problems({**HOUSE, "shared.nn.meta": fine}) == []


@pytest.mark.parametrize(
    "bad",
    [
        "import pickle",
        "from pickle import loads",
        "import dill",
        "torch.load('a')",
        "joblib.load('a')",
        "pd.read_pickle('a')",
        "np.load('a', allow_pickle=True)",
        "np.load('a', allow_pickle=flag)",
        "%matplotlib inline\nimport pickle",
        "class U(x.Unpickler):\n    pass",
    ],
)
def test_unpickling_is_seen(bad):
    assert unpickling(bad)


def test_a_restricted_reader_may_stand_with_the_data():
    reader = "import pickle\nclass R(pickle.Unpickler):\n    def find_class(self, m, n):\n        raise ValueError\n"
    assert unpickling(reader, restricted=True) == []
    assert unpickling(reader)
    assert unpickling(reader + "pickle.loads(b'')", restricted=True)
    assert unpickling("np.load('a', allow_pickle=False)") == []


def test_local_paths_are_seen():
    for bad in ("/ho" + "me/ann/x", "see /wo" + "rk/main", "C:\\Us" + "ers\\ann", "file:/" + "//x"):
        assert local_paths(f"text {bad} text"), bad
    assert local_paths("https://x.org/home/a and data/work/b and ~/x") == []
