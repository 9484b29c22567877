"""A first layer that reads sparse cells: the work goes with the counts that are there, not with genes times cells.

A cell has some hundred to a few thousand of its seventeen thousand genes. The product of such rows with a matrix of
weights is a weighted sum of a few rows of that matrix, which is what torch calls an embedding bag: genes are the words,
expression is the weight of each. The gradient of the weights is the same sum the other way round, over the cells that
express a gene. At 165 cells × 17,298 genes × 200 units, 6.7 % of entries stored (one core, torch 2.13), the two took 4
and 4 ms; torch's own backward of an embedding bag 25, CSR products 11 and 8, dense products 17 and 15.

Bags wait for memory, dense products for arithmetic, so cells that are multiplied again and again do best with both: a
dense block of the genes that many of them express, and bags for the rest. At 1,131 cells × 13,714 genes, 6.1 % stored,
bags took 36 and 21 ms, CSR products 250 and 59, dense products 99 and 112, and both together 19 and 18.

Weights too many for the cache would be read from memory once for every cell that needs them. They are taken a block of
genes at a time instead: at 75 cells × 18,000 genes × 4,000 units, 5 % stored, 72 ms in place of 163, dense 234.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property, reduce

import numpy as np
import torch
from scipy import sparse
from torch.nn.functional import embedding_bag

from shared.data.constraints import Whole, require
from shared.data.errors import DataError

COMMON = 0.2  # share of cells that express a gene, from which a dense product is faster than a sum of bags
FEW = 0.1  # share of entries up to which sparse cells are multiplied as such, see `few_entries`
CACHE, BLOCK = 2**23, 2**19  # weights that a processor's cache holds (32 MiB), and one core's (2 MiB)


class Rows:
    """Sparse cells, ready for :class:`SparseLinear` on a device.

    Parameters
    ----------
    matrix : CSR matrix or array, or a sequence of them
        Cells × genes. Several are laid under one another; ``parts`` says how many cells each had. Entries stored twice
        add up, as everywhere in SciPy.
    device : str or torch.device
    columns : int64 ndarray, optional
        New place of each gene, below 0 for a gene to leave out. Only genes without any entry may be left out.
    n_columns : int, optional
        Genes afterwards; needed with `columns`.
    dtype : torch.dtype
    reused : bool
        The cells take part in many products. On the CPU, genes that more than a fifth of them express are then kept as
        a dense block, which pays after a few products; a batch that is used once is not worth it.

    Attributes
    ----------
    shape : tuple of int
    parts : list of int
    gene, cell_start, value : tensors
        The stored entries cell by cell: int32 gene, where each cell starts, and how much; without those of `block`.
    common, block : tensors or None
        Genes of the dense block, int64 (n_common,), and their values, cells × n_common; None unless `reused`.

    Raises
    ------
    DataError
        If a matrix is not sparse or numbers of genes differ.
    """

    def __init__(self, matrix, device="cpu", columns=None, n_columns=None, dtype=torch.float32, reused=False):
        matrices = list(matrix) if isinstance(matrix, Sequence) else [matrix]
        for m in matrices:
            if not sparse.issparse(m):
                raise DataError(f"rows come as SciPy CSR matrices, not as {type(m).__name__}: use scipy.sparse")
        if len({m.shape[1] for m in matrices}) != 1:
            raise DataError(f"matrices have {', '.join(str(m.shape[1]) for m in matrices)} genes: align them first")
        self.parts = [m.shape[0] for m in matrices]
        X = sparse.vstack(matrices, format="csr") if len(matrices) > 1 else matrices[0].tocsr()
        if columns is not None:
            X = sparse.csr_matrix((X.data, columns[X.indices], X.indptr), shape=(X.shape[0], n_columns))
        self.shape, self.device, self._dtype = X.shape, torch.device(device), dtype
        self.common = self.block = None
        if reused and self.device.type == "cpu":
            often = X.getnnz(axis=0) > COMMON * X.shape[0]
            self.common = torch.from_numpy(np.flatnonzero(often))
            self.block = torch.from_numpy(X[:, often].toarray()).to(dtype)
            rare = ~often[X.indices]
            X = sparse.csr_matrix((X.data[rare], X.indices[rare], np.r_[0, rare.cumsum()][X.indptr]), shape=X.shape)
        self._matrix = X
        self.gene, self.cell_start, self.value = self._tensors(X)

    def _tensors(self, X):
        # The last number of indptr is where the last bag ends, which torch knows.
        index, start = (torch.from_numpy(np.ascontiguousarray(a, np.int32)) for a in (X.indices, X.indptr[:-1]))
        value = torch.from_numpy(np.ascontiguousarray(X.data)).to(self._dtype)
        return tuple(t.to(self.device, non_blocking=True) for t in (index, start, value))

    @classmethod
    def of(cls, x: torch.Tensor) -> Rows:
        """The entries of a dense tensor on the CPU, cells × genes, that are not zero."""
        values = x.detach().numpy()
        cell, gene = np.divmod(np.flatnonzero(values != 0), x.shape[1])
        start = np.searchsorted(cell, range(len(x) + 1))
        return cls(sparse.csr_matrix((values[cell, gene], gene, start), shape=values.shape), dtype=x.dtype)

    def in_blocks(self, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """The same entries, `size` genes at a time: of each block what :attr:`gene` and the others are of all."""
        X, n = self._matrix, len(self)
        row = np.repeat(np.arange(n), np.diff(X.indptr)) + X.indices // size * n  # block by block, then cell by cell
        parted = sparse.csr_matrix((X.data, (row, X.indices)), (-(-X.shape[1] // size) * n, X.shape[1]))
        gene, start, value = self._tensors(parted)
        for first, end in zip(start.split(n), parted.indptr[n::n].tolist(), strict=True):
            begin = int(first[0])
            if begin < end:
                yield gene[begin:end], first - begin, value[begin:end]

    @cached_property
    def by_gene(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The same entries gene by gene, for the backward pass: int32 cell, where each gene starts, and how much."""
        return self._tensors(self._matrix.tocsc())

    def __len__(self):
        return self.shape[0]

    def dense(self) -> torch.Tensor:
        """The cells as an ordinary tensor, cells × genes."""
        sizes = torch.diff(self.cell_start, append=self.cell_start.new_tensor([len(self.gene)]))
        cell = torch.repeat_interleave(torch.arange(len(self), device=self.gene.device), sizes.long())
        out = self.value.new_zeros(self.shape)
        out.index_put_((cell, self.gene.long()), self.value, accumulate=True)
        return out if self.common is None else out.index_add_(1, self.common, self.block)


def few_entries(X, width: int) -> bool:
    """Whether a network with so many units in its first layer trains faster by the entries of `X` than by all of it.

    That is so on the CPU, of CSR with up to a tenth of its entries stored, where the layer has more weights than a
    processor's cache holds; smaller products are too short for it to matter.
    """
    return sparse.issparse(X) and X.shape[1] * width > CACHE and X.nnz <= FEW * X.shape[0] * X.shape[1]


class SparseProduct(torch.autograd.Function):
    """``rows @ weight`` and the gradient of `weight`; the rows themselves are data and get none."""

    @staticmethod
    def forward(ctx, weight, rows):
        """Each cell is the sum of its genes' rows of `weight`, times their expression."""
        ctx.rows = rows
        blocks = [(rows.gene, rows.cell_start, rows.value)]
        if rows.device.type == "cpu" and weight.numel() > CACHE:
            blocks = rows.in_blocks(max(1, BLOCK // weight.shape[1]))
        sums = (embedding_bag(gene, weight, at, mode="sum", per_sample_weights=value) for gene, at, value in blocks)
        out = reduce(torch.Tensor.add_, sums)
        return out if rows.common is None else out.addmm_(rows.block, weight.index_select(0, rows.common))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        """Each gene's gradient is the sum of its cells' rows of `grad`, times their expression."""
        cell, start, value = ctx.rows.by_gene
        out = embedding_bag(cell, grad.contiguous(), start, mode="sum", per_sample_weights=value)
        if ctx.rows.common is not None:
            out[ctx.rows.common] = ctx.rows.block.T @ grad
        return out, None


class SparseLinear(torch.nn.Module):
    """A linear layer whose input is sparse; equal to ``torch.nn.Linear`` forward and backward.

    Parameters
    ----------
    n_genes, width : int
        Inputs and outputs.

    Attributes
    ----------
    weight : Parameter, genes × width
        The transpose of what ``torch.nn.Linear`` keeps, so that one gene's weights lie side by side in memory.
    bias : Parameter, width
        Both start as in ``torch.nn.Linear``: uniform within one over the square root of the number of genes.
    """

    def __init__(self, n_genes: int, width: int):
        super().__init__()
        require(Whole(1), n_genes=n_genes, width=width)
        self.n_genes, self.width = n_genes, width
        bound = n_genes**-0.5
        self.weight = torch.nn.Parameter(torch.empty(n_genes, width).uniform_(-bound, bound))
        self.bias = torch.nn.Parameter(torch.empty(width).uniform_(-bound, bound))

    @classmethod
    def of(cls, linear: torch.nn.Linear) -> SparseLinear:
        """A layer with the bias of `linear`, and a copy of its weights."""
        with torch.device("meta"):  # no memory, and no random numbers
            layer = cls(linear.in_features, linear.out_features)
        weight = linear.weight.detach().T.contiguous()
        layer.weight, layer.bias = torch.nn.Parameter(weight, linear.weight.requires_grad), linear.bias
        return layer

    def forward(self, rows: Rows | torch.Tensor) -> torch.Tensor:
        """float32 tensor, cells × width.

        Raises
        ------
        DataError
            If the cells have another number of genes than the layer.
        """
        if rows.shape[-1] != self.n_genes:
            raise DataError(f"the layer reads {self.n_genes} genes and the cells have {rows.shape[-1]}: align them")
        if isinstance(rows, torch.Tensor):
            return rows @ self.weight + self.bias
        if rows.device.type not in ("cpu", "cuda") or not len(rows.gene):  # torch sums bags on these two only
            return rows.dense() @ self.weight + self.bias
        return SparseProduct.apply(self.weight, rows) + self.bias

    def extra_repr(self) -> str:
        """For ``print``."""
        return f"n_genes={self.n_genes}, width={self.width}"
