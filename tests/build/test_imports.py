"""What a chapter reaches in the package, without importing anything."""

import pytest

from book.imports import imported, reached, without_magics


def names(files, root):
    return [p.relative_to(root).as_posix() for p in files]


def test_relative_and_late_imports_are_followed(mini):
    both = ["shared/__init__.py", "shared/one.py", "shared/two.py"]
    assert names(reached("from shared.one import first", mini), mini) == both
    assert names(reached("def f():\n    import shared.one", mini), mini) == both
    assert names(reached("from shared import two", mini), mini) == ["shared/__init__.py", "shared/two.py"]
    assert names(reached("import_module('shared.other')", mini), mini) == ["shared/__init__.py", "shared/other.py"]
    assert reached("import numpy, os.path", mini) == []


def test_a_package_that_loads_by_name_counts_whole(mini):
    folder = mini / "shared" / "evaluate"
    folder.mkdir()
    (folder / "__init__.py").write_text("def __getattr__(name):\n    raise AttributeError\n")
    (folder / "metrics.py").write_text("from shared import other\n")
    found = names(reached("from shared.evaluate import anything", mini), mini)
    assert found == [
        "shared/__init__.py",
        "shared/evaluate/__init__.py",
        "shared/evaluate/metrics.py",
        "shared/other.py",
    ]


@pytest.mark.parametrize("code", ["%pip install x", "if a:\n    %pip install x\n", "!ls", "%%bash\nls -l"])
def test_magics_do_not_stop_it(code):
    assert imported(without_magics(code)) == set()


def test_relative_imports_climb():
    assert imported("from ..train import fit", "shared.methods") == {"shared.train", "shared.train.fit"}
    assert imported("from . import losses", "shared.nn") == {"shared.nn", "shared.nn.losses"}
