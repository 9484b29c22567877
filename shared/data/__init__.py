"""Where expression data come in: ten doors, every matrix through one of them, as AnnData.

``load("pbmc")`` takes a data set of the catalogue, ``load("cells.h5ad")`` a file of your own, ``from_arrays`` a matrix
in memory; all pass the same checks, and ``check(adata)`` says in words what else deserves a look. ``to_arrays`` takes
an AnnData apart. ``gene_table`` and ``to_symbols`` are for genes' names, ``Corpus`` for many data sets, ``Stream`` for
files larger than memory, ``simulate`` for data with known truth, ``parallel`` for one function over many items. All
else stands in the module that its name says: ``shared.data.errors``, ``shared.data.genes.translate``.
"""

import importlib
import sys
import types

# Each is imported when it is first used: anndata, pandas and scipy take a second.
_HOMES = {
    "load": "load",
    "from_arrays": "load",
    "to_arrays": "load",
    "check": "validate.checks",
    "gene_table": "genes.lists",
    "to_symbols": "genes.translate",
    "Corpus": "corpus.corpus",
    "simulate": "simulate",
    "Stream": "stream.stream",
    "parallel": "parallel",
}
__all__ = list(_HOMES)
_HOMES |= {"DataError": "errors", "in_mirror": "cache"}  # no doors: recorded pages of the book import them from here
_MODULES = {"simulate", "parallel"}


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    if name in _MODULES:
        return module
    value = globals()[name] = getattr(module, name)
    return value


def __dir__():
    return sorted({*globals(), *__all__})


class _Package(types.ModuleType):
    """Keeps ``load`` the function: Python would put the module of that name in its place when it is imported."""

    def __setattr__(self, name, value):
        if name in _MODULES or name not in _HOMES or not isinstance(value, types.ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
