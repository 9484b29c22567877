"""Which modules of ``shared`` a piece of code reaches, found without importing anything."""

from __future__ import annotations

import ast
import re
from pathlib import Path


def without_magics(code: str) -> str:
    """Replace lines that only a notebook understands (``%pip``, ``!ls``) by ``pass``, so that the rest parses."""
    if code.lstrip().startswith("%%"):
        return ""
    return re.sub(r"^(\s*)[%!].*$", r"\1pass", code, flags=re.M)


def imported(code: str, package: str = "") -> set[str]:
    """Dotted names that `code` imports anywhere in it; `package` resolves relative imports.

    ``from a import b`` gives both ``a`` and ``a.b``, because ``b`` may be a module.
    """
    names = set()
    for node in ast.walk(ast.parse(without_magics(code))):
        if isinstance(node, ast.Import):
            names |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join(filter(None, [*parts, base]))
            names |= {base} | {f"{base}.{a.name}" for a in node.names}
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "import_module":
            names |= {a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)}
    return names


def module_file(name: str, root: Path) -> Path | None:
    """The source file of a dotted name below `root`, or None when it is no module there."""
    base = root.joinpath(*name.split("."))
    for path in (base / "__init__.py", base.with_suffix(".py")):
        if path.is_file():
            return path
    return None


def reached(code: str, root: Path, package: str = "shared") -> list[Path]:
    """Every file of `package` below `root` that running `code` may load, sorted.

    A package whose ``__init__`` has a module-level ``__getattr__`` loads its parts by name, which cannot be followed,
    so all of it counts.
    """
    waiting = {n for n in imported(code) if n.split(".")[0] == package}
    seen: set[str] = set()
    files: set[Path] = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if "." in name:
            waiting.add(name.rpartition(".")[0])
        path = module_file(name, root)
        if path is None or path in files:
            continue
        files.add(path)
        text = path.read_text(encoding="utf-8")
        inside = name if path.name == "__init__.py" else name.rpartition(".")[0]
        waiting |= {n for n in imported(text, inside) if n.split(".")[0] == package}
        if path.name == "__init__.py" and re.search(r"^def __getattr__", text, re.M):
            parts = (p.relative_to(root).with_suffix("") for p in path.parent.rglob("*.py"))
            waiting |= {".".join(p.parts).removesuffix(".__init__") for p in parts}
    return sorted(files)
