"""One encoder for many data sets: its networks, their losses, and how it moves to another list of genes.

The encoder is a single linear layer, over sparse cells: `Encoder` is :class:`shared.nn.sparse.SparseLinear`, and
``torch.nn.Linear`` in its place computes the same from dense ones. Heads of many data sets share it while it is
pre-trained; a classifier starts from it afterwards, row by row of the genes it knows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from shared.methods.torch_method import seeded
from shared.nn.sparse import Rows
from shared.nn.sparse import SparseLinear as Encoder


class MultiTaskNet(torch.nn.Module):
    """One linear encoder, and a softmax for each data set and granularity (equation 6, sections 2.2 to 2.4).

    Parameters
    ----------
    n_genes, width : int
        The encoder; both sources have 200 and nothing but a sigmoid between it and the heads.
    ks : list of tuple of int
        Clusters of each data set at each granularity. The heads of one data set lie side by side in one linear layer,
        whose output is cut into its softmaxes.
    squash : bool
        Pass the logits through a second sigmoid, as the code does and the paper does not. They then lie between 0 and
        1, no cluster of k can be given more than e / (e + k - 1), and the loss cannot fall below
        ln(1 + (k - 1) / e): it keeps pulling at cells that are long right.
    """

    def __init__(self, n_genes, width=200, ks=((10, 20, 6),), squash=False):
        super().__init__()
        self.ks, self.squash = ks, squash
        self.encoder = Encoder(n_genes, width)
        self.heads = torch.nn.ModuleList(torch.nn.Linear(width, sum(k)) for k in ks)

    def forward(self, cells: Rows | torch.Tensor, sizes: Sequence[int]) -> list[tuple[torch.Tensor, ...]]:
        """Logits: for each data set and granularity one tensor, cells × clusters.

        `cells` holds the cells of all data sets under one another, `sizes` how many there are of each.
        """
        parts = torch.sigmoid(self.encoder(cells)).split(sizes)
        logits = [head(part) for head, part in zip(self.heads, parts)]
        logits = [torch.sigmoid(out) for out in logits] if self.squash else logits
        return [out.split(k, dim=1) for out, k in zip(logits, self.ks)]


def cluster_step(net: MultiTaskNet, cells: Rows | torch.Tensor, labels: Sequence[torch.Tensor]) -> torch.Tensor:
    """Loss of pre-training: over data sets and granularities, the sum of the mean cross-entropy of a set's cells.

    Every data set weighs alike. `labels` holds, for each of them, int64 cells × granularities.
    """
    outputs = net(cells, [len(y) for y in labels])
    return sum(cross_entropy(out, y[:, j]) for parts, y in zip(outputs, labels) for j, out in enumerate(parts))


class CellTypeNet(torch.nn.Module):
    """The encoder with a small classifier: Linear, sigmoid, Linear to 100, sigmoid, Linear to the types (section 2.5).

    Parameters
    ----------
    n_genes, width, hidden, n_types : int
    norm : {"none", "layer"}
        Normalise the encoder's output before its sigmoid. Neither source does. Sums over a thousand genes move far in
        a few steps of size 0.002, and a sigmoid that is pinned to 0 or 1 learns no more.
    """

    def __init__(self, n_genes, width=200, hidden=100, n_types=2, norm="none"):
        super().__init__()
        self.encoder = Encoder(n_genes, width)
        self.norm = torch.nn.LayerNorm(width) if norm != "none" else torch.nn.Identity()
        self.classify = torch.nn.Sequential(
            torch.nn.Sigmoid(), torch.nn.Linear(width, hidden), torch.nn.Sigmoid(), torch.nn.Linear(hidden, n_types)
        )

    def forward(self, cells: Rows | torch.Tensor) -> torch.Tensor:
        """Logits, cells × types."""
        return self.classify(self.norm(self.encoder(cells)))


def celltype_step(net: CellTypeNet, cells: Rows | torch.Tensor, types: torch.Tensor) -> torch.Tensor:
    """Loss of fine-tuning: mean cross-entropy of the types, int64 (n_cells,)."""
    return cross_entropy(net(cells), types)


def transplant(weight: np.ndarray, source: Sequence[str], target: np.ndarray, genes: Sequence[str]):
    """Copy the encoder's rows of shared genes into a weight for another list of genes.

    Parameters
    ----------
    weight : ndarray, genes of `source` × width
        Of the pre-trained encoder.
    source : sequence of str
        Its genes, each once.
    target : ndarray, `genes` × width
        What genes without a counterpart keep: random numbers to train from, or zeros to leave them out.
    genes : sequence of str
        Genes of the data.

    Returns
    -------
    weight : ndarray, `genes` × width
        New memory. The authors' code trains the checkpoint's own bias in place, so its second data set starts from
        what the first one changed.
    shared : bool ndarray, `genes`
        Which rows were copied.
    """
    place = {gene: i for i, gene in enumerate(source)}
    where = np.array([place.get(gene, -1) for gene in genes])
    out, shared = np.array(target, np.float32), where >= 0
    out[shared] = weight[where[shared]]
    return out, shared


def encoder_of(weight: np.ndarray, bias: np.ndarray) -> Encoder:
    """The encoder with these weights."""
    layer = seeded(lambda: Encoder(*weight.shape), 0)
    layer.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})
    return layer
