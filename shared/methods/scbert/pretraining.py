"""Around pre-training: how often tokens occur, and how often masked ones are predicted right."""

from __future__ import annotations

import numpy as np
import torch

from shared.data.constraints import SettingError
from shared.methods.scbert.tokens import IGNORE


def sample_of(n: int, most: int = 4096) -> np.ndarray:
    """Rows spread evenly over a table of `n`, `most` of them where there are more."""
    return np.unique(np.linspace(0, n - 1, most).astype(np.int64))


def bins_of_cells(tokens: torch.Tensor, bins: int) -> torch.Tensor:
    """The most common bin above 0 of every cell, less 1, so that it can be a place in a table: int64, cells."""
    return torch.stack([(tokens == b).sum(1) for b in range(1, bins + 1)], 1).argmax(1)


def token_counts(tokens: torch.Tensor, bins: int) -> np.ndarray:
    """In how many cells each gene had each token, by the most common bin of the cell: int64, genes × (bins + 1) × bins.

    Cells whose most common bin is b are counted at place b - 1.
    """
    mode = bins_of_cells(tokens, bins)
    cells = [tokens[mode == place] for place in range(bins)]
    return torch.stack([torch.stack([(some == b).sum(0) for b in range(bins + 1)], 1) for some in cells], 2).numpy()


def load_state(net, pretrained: dict):
    """The network with the weights that were pre-trained.

    Raises
    ------
    SettingError
        If it is not of their settings.
    """
    try:
        net.load_state_dict(pretrained["state"])
    except RuntimeError as error:
        raise SettingError(
            "pre-trained was a network with other settings of bins, dim, depth, heads, width, attention or n_features: "
            "set them back, or pretrain again"
        ) from error
    return net


@torch.inference_mode()
def masked_scores(net, batches, counts) -> dict[str, float]:
    """Share of a cell's masked genes that are predicted right, in the mean over cells, with and without a network.

    The dict holds ``network``; ``most_common``, the bin above 0 that is the most common of all;
    ``most_common_of_gene``, that of each gene; ``most_common_of_cell``, that of the genes of the cell that are to be
    seen, which tells its depth; and ``most_common_of_gene_in_cell``, that of the gene in cells of pre-training whose
    most common bin is that of the cell, where each gene's bins in all cells count as two cells more. `batches` are of
    the cells to predict, masked; `counts` are of the cells of the pre-training, as :func:`token_counts` gives them.
    """
    counts = torch.as_tensor(counts)[:, 1:].to(batches.device)
    whole, right = counts.sum(2, keepdim=True), {}
    of_gene = whole.squeeze(2).argmax(1) + 1
    of_all = torch.full_like(of_gene, int(whole.sum(0).argmax()) + 1)
    in_cells = (counts + 2 * whole / whole.sum(1, keepdim=True).clamp(min=1)).argmax(1) + 1
    net.to(batches.device).eval()
    for tokens, genes, target in batches(1):
        chosen = target != IGNORE
        said = {"network": net(tokens, genes)[..., 1:-1].argmax(-1) + 1}
        mode = bins_of_cells(tokens, counts.shape[1])[:, None]
        said |= {"most_common": of_all[genes], "most_common_of_gene": of_gene[genes]}
        said |= {"most_common_of_cell": (mode + 1).expand(target.shape)}
        said |= {"most_common_of_gene_in_cell": in_cells[genes, mode]}
        for name, predicted in said.items():
            share = ((predicted == target) & chosen).sum(1) / chosen.sum(1)
            right.setdefault(name, []).append(share[chosen.any(1)])
    return {name: float(torch.cat(parts).mean()) for name, parts in right.items()}
