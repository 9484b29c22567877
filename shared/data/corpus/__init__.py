"""Many data sets over one list of genes, and the search for cells that stand in two of them."""

from shared.data.corpus.corpus import Corpus, Step

__all__ = ["Corpus", "Step"]
