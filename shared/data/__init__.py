"""Where expression data come in: every matrix through one door, as AnnData.

``load("pbmc")`` takes a data set of the catalogue, ``load("cells.h5ad")`` a file of your own. Both pass the same
checks; ``check(adata)`` says in words what else deserves a look. ``to_symbols``, ``to_ensembl``, ``to_human`` and
``to_mouse`` rename genes and report what was lost.
"""

from shared.data.catalogue import Entry, File, Route, bundled_path, catalog
from shared.data.corpus.corpus import Corpus, Step
from shared.data.errors import DataError, DataWarning
from shared.data.genes.kinds import GeneKind, gene_kind
from shared.data.genes.lists import Comparison, compare_genes, gene_hash, gene_table, stamp
from shared.data.genes.translate import GeneReport, merge_duplicates, to_ensembl, to_human, to_mouse, to_symbols
from shared.data.load import from_arrays, load, to_arrays
from shared.data.store import in_mirror
from shared.data.validate.checks import check
from shared.data.validate.findings import CheckReport, Finding

__all__ = [
    "CheckReport",
    "Comparison",
    "Corpus",
    "DataError",
    "DataWarning",
    "Entry",
    "File",
    "Finding",
    "GeneKind",
    "GeneReport",
    "Route",
    "Step",
    "bundled_path",
    "catalog",
    "check",
    "compare_genes",
    "from_arrays",
    "gene_hash",
    "gene_kind",
    "gene_table",
    "in_mirror",
    "load",
    "merge_duplicates",
    "stamp",
    "to_arrays",
    "to_ensembl",
    "to_human",
    "to_mouse",
    "to_symbols",
]
