"""One encoder for many data sets: its networks, their losses, and how it moves to another list of genes.

The encoder is a single linear layer over sparse cells (:class:`shared.nn.sparse.SparseLinear`). Heads of many data sets
share it while it is pre-trained; a classifier starts from it afterwards, row by row of the genes it knows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from shared.data.errors import DataError, warn
from shared.data.genes import once
from shared.methods.torch_method import seeded
from shared.nn.sparse import Rows, SparseLinear


class MultiTaskNet(torch.nn.Module):
    """One linear encoder, and a softmax for each data set and granularity.

    Parameters
    ----------
    n_genes, width : int
        The encoder; both sources have 200 and nothing but a sigmoid between it and the heads.
    ks : list of tuple of int
        Clusters of each data set at each granularity.
    squash : bool
        Pass the logits through a second sigmoid, as the code does and the paper does not. They then lie between 0 and
        1, no cluster of k can be given more than e / (e + k - 1), and the loss cannot fall below
        ln(1 + (k - 1) / e): it keeps pulling at cells that are long right.
    heads : {"separate", "shared"}
        With ``"shared"`` one softmax a granularity runs over the clusters of all data sets, so that the encoder is paid
        for telling data sets apart. Paper and code have separate heads.
    """

    def __init__(self, n_genes, width=200, ks=((10, 20, 6),), squash=False, heads="separate"):
        super().__init__()
        self.ks, self.squash, self.shared = [tuple(k) for k in ks], squash, heads == "shared"
        self.encoder = SparseLinear(n_genes, width)
        sizes = [sum(map(sum, self.ks))] if self.shared else [sum(k) for k in self.ks]
        self.heads = torch.nn.ModuleList(torch.nn.Linear(width, k) for k in sizes)
        totals = np.sum(self.ks, axis=0)
        offset = np.cumsum(self.ks, axis=0) - np.array(self.ks)
        self.totals = totals.tolist() if self.shared else None
        self.register_buffer("offset", torch.as_tensor(offset * self.shared), persistent=False)

    def forward(self, rows: Rows) -> list[tuple[torch.Tensor, ...]]:
        """Logits: for each data set (``rows.parts``) and granularity one tensor, cells × clusters."""
        codes = torch.sigmoid(self.encoder(rows)).split(rows.parts)
        logits = [self.heads[0 if self.shared else i](code) for i, code in enumerate(codes)]
        logits = [torch.sigmoid(out) for out in logits] if self.squash else logits
        return [out.split(self.totals or k, dim=1) for out, k in zip(logits, self.ks, strict=True)]


def cluster_step(net: MultiTaskNet, rows: Rows, labels: Sequence[torch.Tensor]) -> torch.Tensor:
    """Loss of pre-training: over data sets and granularities, the sum of the mean cross-entropy of a set's cells.

    Every data set weighs alike. `labels` holds, for each of them, int64 cells × granularities.
    """
    total = 0.0
    for i, (parts, y) in enumerate(zip(net(rows), labels, strict=True)):
        for part, target in zip(parts, (y + net.offset[i]).unbind(1), strict=True):
            total = total + cross_entropy(part, target)
    return total


class CellTypeNet(torch.nn.Module):
    """The encoder with a small classifier: Linear, sigmoid, Linear to 100, sigmoid, Linear to the types.

    Parameters
    ----------
    n_genes, width, hidden, n_types : int
    norm : {"none", "layer"}
        Normalise the encoder's output before its sigmoid. Neither source does. Sums over a thousand genes move far in
        a few steps of size 0.002, and a sigmoid that is pinned to 0 or 1 learns no more.
    """

    def __init__(self, n_genes, width=200, hidden=100, n_types=2, norm="none"):
        super().__init__()
        self.encoder = SparseLinear(n_genes, width)
        self.norm = torch.nn.LayerNorm(width) if norm == "layer" else torch.nn.Identity()
        self.classify = torch.nn.Sequential(
            torch.nn.Sigmoid(), torch.nn.Linear(width, hidden), torch.nn.Sigmoid(), torch.nn.Linear(hidden, n_types)
        )

    def forward(self, rows: Rows) -> torch.Tensor:
        """Logits, cells × types."""
        return self.classify(self.norm(self.encoder(rows)))


def celltype_step(net: CellTypeNet, rows: Rows, target: torch.Tensor) -> torch.Tensor:
    """Loss of fine-tuning: mean cross-entropy of the types, int64 (n_cells,)."""
    return cross_entropy(net(rows), target)


def transplant(weight: np.ndarray, source: Sequence[str], target: np.ndarray, genes: Sequence[str]):
    """Copy the encoder's rows of shared genes into a weight for another list of genes.

    Parameters
    ----------
    weight : ndarray, genes of `source` × width
        Of the pre-trained encoder.
    source : sequence of str
        Its genes.
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

    Raises
    ------
    DataError
        If no gene is shared or a list names a gene twice. A :class:`~shared.data.DataWarning` is given where fewer than
        a tenth of the shorter list are shared.
    """
    for names, what in ((source, "the pre-trained encoder"), (genes, "the data")):
        once(names, what)
    place = {gene: i for i, gene in enumerate(source)}
    where = np.array([place.get(gene, -1) for gene in genes])
    shared = where >= 0
    if not shared.any():
        raise DataError(
            f"no gene is shared: the data have {genes[0]!r}, the encoder {source[0]!r}. Is it another species, or "
            "symbols against Ensembl identifiers? See shared.data.to_human and to_symbols"
        )
    if shared.sum() < min(len(source), len(genes)) / 10:  # as names of two kinds do
        warn(
            f"{shared.sum()} of the {len(source)} genes that the encoder knows are among these {len(genes)}, and it "
            "reads no others: are the names of one kind (shared.data.to_symbols)?"
        )
    out = np.array(target, np.float32)
    out[shared] = weight[where[shared]]
    return out, shared


def encoder_of(weight: np.ndarray, bias: np.ndarray) -> SparseLinear:
    """The encoder with these weights."""
    layer = seeded(lambda: SparseLinear(*weight.shape), 0)
    layer.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})
    return layer
