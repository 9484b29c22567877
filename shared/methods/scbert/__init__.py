"""scBERT: a transformer that reads a cell as a sequence of genes, pre-trained to predict masked expression.

After Yang and others, *scBERT as a large-scale pretrained deep language model for cell type annotation of single-cell
RNA-seq data* (Nature Machine Intelligence, 2022), and for its attention Choromanski and others, *Rethinking attention
with Performers* (ICLR, 2021). Expression is cut into a few bins (:mod:`~shared.methods.scbert.tokens`); a token is the
sum of an embedding of its bin and a vector of its gene (:mod:`~shared.methods.scbert.vectors`); six blocks of attention
(:mod:`~shared.methods.scbert.attention`, :mod:`~shared.methods.scbert.network`) learn to predict masked bins
(:mod:`~shared.methods.scbert.batches`, :mod:`~shared.methods.scbert.pretraining`); then one block and a head learn to
name cell types (:mod:`~shared.methods.scbert.heads`, :mod:`~shared.methods.scbert.finetuning`). :class:`ScBERT` is all
of it (:mod:`~shared.methods.scbert.estimator`), and says which genes mattered (:mod:`~shared.methods.scbert.scores`).

Paper and code (the authors', 2022) differ in places. Each has an option here, and what the two do is said there. By
default a sequence holds a sample of the genes that a cell expresses, and attention is exact: the published full list is
nine tenths zeros, and pays for random features what it saves on them.
"""

from shared.methods.scbert.attention import chunked_favor, exact_attention, favor_attention, orthogonal_features
from shared.methods.scbert.estimator import ScBERT
from shared.methods.scbert.heads import CellTypeNet, PooledNet, classify_step
from shared.methods.scbert.network import Attention, Block, FavorAttention, GeneTransformer, masked_step
from shared.methods.scbert.pretraining import masked_scores
from shared.methods.scbert.settings import PUBLISHED
from shared.methods.scbert.tokens import Tokenizer, mask_tokens, quantile_tokens, sample_genes, tokenize
from shared.methods.scbert.vectors import coexpression_vectors, read_gene2vec

__all__ = [
    "PUBLISHED",
    "Attention",
    "Block",
    "CellTypeNet",
    "FavorAttention",
    "GeneTransformer",
    "PooledNet",
    "ScBERT",
    "Tokenizer",
    "chunked_favor",
    "classify_step",
    "coexpression_vectors",
    "exact_attention",
    "favor_attention",
    "mask_tokens",
    "masked_scores",
    "masked_step",
    "orthogonal_features",
    "quantile_tokens",
    "read_gene2vec",
    "sample_genes",
    "tokenize",
]
