"""Many data sets over one list of genes, and the search for cells that stand in two of them."""

from shared.data.corpus.corpus import Corpus

__all__ = ["Corpus"]
