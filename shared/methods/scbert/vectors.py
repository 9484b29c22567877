"""Vectors that say which gene a token is of: from co-expression, or from a published table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from sklearn.utils.extmath import randomized_svd

from shared.data.errors import DataError, warn
from shared.data.genes.lists import names_of


def ppmi(X) -> np.ndarray:
    """Positive pointwise mutual information of genes over cells: float32, genes × genes, symmetric.

    ln(share of cells that express both genes / product of the shares that express either), or 0 where that is negative.
    `X` is cells × genes, ndarray or CSR; what is above 0 is expressed.
    """
    expressed = sparse.csr_matrix(X > 0, dtype=np.float32)
    both = (expressed.T @ expressed).toarray()
    alone = np.maximum(both.diagonal(), 1)
    with np.errstate(divide="ignore"):
        return np.maximum(np.log(both * expressed.shape[0] / alone / alone[:, None]), 0).astype(np.float32)


def coexpression_vectors(X, dim: int = 200, seed: int = 0) -> np.ndarray:
    """Vectors of genes whose products approach :func:`ppmi`: float32, genes × `dim`, with a mean square of 1.

    Gene2vec learns vectors from pairs of co-expressed genes by skip-grams, which factorise a shifted PMI (Levy and
    Goldberg, 2014); here the PPMI is factorised directly, by its singular vectors. Genes × genes numbers are held for
    the while: 16 MB for 2,000 genes, 1.1 GB for 17,000.
    """
    table = ppmi(X)
    rank = min(dim, table.shape[0])
    left, values, _ = randomized_svd(table, rank, n_iter=4, random_state=seed)
    vectors = np.zeros((table.shape[0], dim), np.float32)
    vectors[:, :rank] = left * np.sqrt(values)
    return vectors / max(float(np.sqrt(np.mean(vectors**2))), 1e-9)


def read_gene2vec(path: str | Path | None = None) -> pd.DataFrame:
    """A published table of gene vectors: a line for each gene, its name and its numbers, as gene2vec and word2vec have.

    Parameters
    ----------
    path : path, optional
        Of a text file, gzipped or not. Without it gene2vec's own table is taken: the entry ``"gene2vec"`` of the
        catalogue, 24,447 human genes × 200. Nobody has verified that file, so it is fetched once, knowingly:
        ``python -m shared.data get gene2vec --unverified``.

    Returns
    -------
    DataFrame of float32, genes × numbers

    Raises
    ------
    DataError
        If the catalogue's file is not here and was not asked for so, or if a line is no name with as many numbers as
        the others, or a gene has two.
    """
    from shared.data import load
    from shared.data.sources import READERS

    table = load("gene2vec") if path is None else READERS["gene2vec"]([Path(path)])
    return table.to_df().T.rename_axis(None, axis=1)


def vectors_of(genes, vectors, dim: int) -> np.ndarray:
    """Given vectors in the order of `genes`: float32, genes × `dim`; a gene without one gets their mean.

    Raises
    ------
    DataError
        If their width is not `dim`, they are as many as no list here, or of other genes.
    """
    if not isinstance(vectors, pd.DataFrame):
        vectors = np.asarray(vectors, np.float32)
        if vectors.shape != (len(genes), dim):
            raise DataError(f"vectors is {vectors.shape}, and {len(genes)} genes × dim={dim} are needed")
        return vectors
    if vectors.shape[1] != dim:
        raise DataError(f"these vectors have {vectors.shape[1]} numbers, and dim={dim}: set dim to theirs")
    found = vectors.reindex(names_of(genes))
    lost = int(found.isna().any(axis=1).sum())
    if lost == len(found):
        raise DataError(f"no gene has a vector: the data have {genes[0]!r}, the vectors {vectors.index[0]!r}")
    if lost:
        warn(f"{lost} of {len(found)} genes have no vector, and get the mean of the others")
    return found.fillna(found.mean()).to_numpy(np.float32)


def set_vectors(embedding, cells, vectors, kind: str, seed: int) -> None:
    """Give an embedding of genes the vectors that are given, or those of that kind; its last row stays."""
    if vectors is None and kind == "gene2vec":
        vectors = read_gene2vec()
    if vectors is not None:
        found = vectors_of(cells.genes or range(cells.n_genes), vectors, embedding.embedding_dim)
    elif kind == "coexpression":
        found = coexpression_vectors(cells.X, embedding.embedding_dim, seed)
    else:
        return
    embedding.weight.data[:-1] = torch.from_numpy(found)
