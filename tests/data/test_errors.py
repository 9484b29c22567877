"""Messages name a cure that can be carried out: arguments that the function called has, functions that there are."""

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"
SAYS = {
    "warn",
    "Finding",
    "findings",
    "DataError",
    "SettingError",
    "ModelError",
    "TrainingError",
    "DownloadError",
    "LeakError",
}
# Who calls a function that speaks of arguments of its caller: every one of these has the argument.
CALLERS = {
    "data.corpus.aligned": ["data.corpus.corpus.Corpus"],
    "data.genes.translate": ["data.genes.translate.to_symbols", "data.genes.translate.merge_duplicates"],
    "data.load": ["data.from_arrays"],
    "data.parallel": ["data.parallel.each"],
    "data.stream.batches": ["data.stream.batches.Batches"],
    "evaluate.episodes": ["evaluate.episodes.few_shot_accuracy"],
    "methods.base": ["methods.scpretrain.estimator.ScPretrain"],
    "methods.domain_adaptation.transport": ["methods.domain_adaptation.TransportMap"],
    "methods.protocols": ["methods.tmp.estimator.TMP"],
    "methods.scpretrain.finetuning": ["methods.scpretrain.estimator.ScPretrain"],
    "methods.scpretrain.rounds": ["methods.scpretrain.estimator.ScPretrain"],
    "methods.tmp.stacked": ["train.episodes.MetaConfig", "methods.tmp.network.RelationNet"],
    "nn.blocks": ["methods.tmp.network.RelationNet"],
    "nn.meta": ["methods.tmp.network.RelationNet"],
    "train.distributed": ["train.settings.Config", "train.distributed.Batches"],
    "train.episodes": ["train.episodes.MetaConfig"],
}
# What is no argument of ours: scikit-learn's words and those of the environment.
OTHERS = {"n_samples", "n_features", "n_jobs", "profile"}


def words(node) -> str:
    """The text of a string with its blanks for values."""
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def arguments(function: ast.FunctionDef) -> set[str]:
    return {a.arg for a in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)}


def messages():
    """Module, arguments in sight, and words of each message: of what is raised, warned of or found."""
    for path in sorted(SHARED.rglob("*.py")):
        module = ".".join(path.relative_to(SHARED).with_suffix("").parts)

        def walk(node, sight, module=module):
            if isinstance(node, ast.FunctionDef):
                sight = sight | arguments(node)
            elif isinstance(node, ast.ClassDef):
                fields = {
                    n.target.id for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
                }
                sight = sight.union(fields, *(arguments(n) for n in node.body if isinstance(n, ast.FunctionDef)))
            name = getattr(getattr(node, "func", None), "id", "")
            if isinstance(node, ast.Raise) or name in SAYS:
                yield from ((module, sight, said) for part in ast.walk(node) if (said := words(part)))
            for part in ast.iter_child_nodes(node):
                yield from walk(part, sight)

        tree = ast.parse(path.read_text(encoding="utf-8"))
        yield from walk(tree, frozenset())
        # Words that stand by themselves and go into several messages.
        for node in tree.body:
            if isinstance(node, ast.Assign) and (said := words(node.value)) and module != "figures.tables":
                yield module, frozenset(), said


def resolved(name: str):
    """What a dotted name below ``shared`` stands for."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(["shared", *parts[:cut]]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            found = getattr(found, part)
        return found if cut < len(parts) or not hasattr(found, parts[-1]) else getattr(found, parts[-1])
    raise AttributeError(name)


def takes(name: str) -> set[str]:
    return {*inspect.signature(resolved(name)).parameters}


def test_every_argument_that_a_message_names_exists():
    wrong = []
    for module, sight, said in messages():
        functions = set(re.findall(r"shared\.((?:\w+\.)*\w+)\(", said)) | {
            f"data.{name}" for name in re.findall(r"(?<![\w.])(load|from_arrays|to_symbols|Corpus|gene_table)\(", said)
        }
        for name in re.findall(r"(?<![\w.'\"\[{}])([a-z]\w+)=(?![=>])", said):
            elsewhere = set().union(*(takes(f) for f in functions)) | OTHERS
            callers = CALLERS.get(module, [])
            if name not in sight | elsewhere and not any(name in takes(c) for c in callers):
                wrong.append(f"{module}: {name}= in {said!r}")
    assert not wrong


def test_every_function_that_a_message_names_exists():
    wrong = []
    for module, _, said in messages():
        for name in re.findall(r"\bshared\.((?:\w+\.)*\w+)\b(?! \d)", said):
            try:
                resolved(name)
            except AttributeError:
                wrong.append(f"{module}: shared.{name} in {said!r}")
    assert not wrong


@pytest.mark.parametrize("caller", sorted({c for callers in CALLERS.values() for c in callers}))
def test_the_callers_are_there(caller):
    assert takes(caller)
