"""Where expression data come in: every matrix through one door, as AnnData.

``load("pbmc")`` takes a data set of the catalogue, ``load("cells.h5ad")`` a file of your own. Both pass the same
checks; ``check(adata)`` says in words what else deserves a look. ``to_symbols``, ``to_ensembl``, ``to_human`` and
``to_mouse`` rename genes and report what was lost.
"""

import importlib
import sys
import types

# Each name's module is imported when the name is first used: anndata, pandas and scipy take a second.
_HOMES = {
    "catalogue": ("Entry", "File", "Route", "bundled_path", "catalog"),
    "corpus.corpus": ("Corpus", "Step"),
    "errors": ("DataError", "DataWarning"),
    "genes.kinds": ("GeneKind", "gene_kind"),
    "genes.lists": ("Comparison", "compare_genes", "gene_hash", "gene_table", "stamp"),
    "genes.translate": ("GeneReport", "merge_duplicates", "to_ensembl", "to_human", "to_mouse", "to_symbols"),
    "load": ("from_arrays", "load", "to_arrays"),
    "store": ("in_mirror",),
    "validate.checks": ("check",),
    "validate.findings": ("CheckReport", "Finding"),
}
_HOME = {name: f"{__name__}.{module}" for module, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_HOME[name]), name)
    return value


def __dir__():
    return [*globals(), *__all__]


class _Package(types.ModuleType):
    """Keeps ``load`` the function: Python would put the module of that name in its place when it is imported."""

    def __setattr__(self, name, value):
        if name not in _HOME or not isinstance(value, types.ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
