"""Where expression data come in: ten doors, every matrix through one of them, as AnnData.

``load("pbmc")`` takes a data set of the catalogue, ``load("cells.h5ad")`` a file of your own, ``from_arrays`` a matrix
in memory; all pass the same checks, and ``check(adata)`` says in words what else deserves a look. ``to_arrays`` takes
an AnnData apart. ``gene_table`` and ``to_symbols`` are for genes' names, ``Corpus`` for many data sets, ``Stream`` for
files larger than memory, ``simulate`` for data with known truth, ``parallel`` for one function over many items. All
else stands in the module that its name says: ``shared.data.errors``, ``shared.data.genes.translate``.
"""

import importlib

from shared.data.corpus.corpus import Corpus
from shared.data.genes.lists import gene_table
from shared.data.genes.translate import to_symbols
from shared.data.load import from_arrays, load, to_arrays
from shared.data.validate.checks import check

__all__ = [  # noqa: RUF022 (the order of the page)
    "load", "from_arrays", "to_arrays", "check", "gene_table", "to_symbols", "Corpus", "simulate", "Stream", "parallel",
]  # fmt: skip

# Imported when they are asked for. The last two are no doors: recorded pages of the book import them from here.
_LATER = {
    "simulate": "simulate",
    "parallel": "parallel",
    "Stream": "stream.stream",
    "DataError": "errors",
    "in_mirror": "store",
}


def __getattr__(name):
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_LATER[name]}")
    return module if _LATER[name] == name else getattr(module, name)


def __dir__():
    return sorted({*globals(), *__all__})
