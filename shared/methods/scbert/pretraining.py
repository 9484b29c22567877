"""Around pre-training: how often tokens occur, and how often masked ones are predicted right."""

from __future__ import annotations

import numpy as np
import torch

from shared.data.constraints import SettingError
from shared.methods.scbert.tokens import IGNORE


def sample_of(n: int, most: int = 4096) -> np.ndarray:
    """Rows spread evenly over a table of `n`, `most` of them where there are more."""
    return np.unique(np.linspace(0, n - 1, most).astype(np.int64))


def token_counts(tokens: torch.Tensor, bins: int) -> np.ndarray:
    """In how many cells each gene had each token: int64, genes × (bins + 1)."""
    return torch.stack([(tokens == b).sum(0) for b in range(bins + 1)], 1).numpy()


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
    ``most_common_of_gene``, that of each gene; and ``most_common_of_cell``, that of the genes of the cell that are to
    be seen, which tells its depth. `batches` are of the cells to predict, masked; `counts` are the tokens of the cells
    of the pre-training, int64, genes × (bins + 1).
    """
    counts = torch.as_tensor(counts)[:, 1:].to(batches.device)
    of_gene, right = counts.argmax(1) + 1, {}
    of_all = torch.full_like(of_gene, int(counts.sum(0).argmax()) + 1)
    net.to(batches.device).eval()
    for tokens, genes, target in batches(1):
        chosen = target != IGNORE
        said = {"network": net(tokens, genes)[..., 1:-1].argmax(-1) + 1}
        seen = torch.stack([(tokens == b).sum(1) for b in range(1, counts.shape[1] + 1)], 1)
        said |= {"most_common": of_all[genes], "most_common_of_gene": of_gene[genes]}
        said["most_common_of_cell"] = (seen.argmax(1, keepdim=True) + 1).expand(target.shape)
        for name, predicted in said.items():
            share = ((predicted == target) & chosen).sum(1) / chosen.sum(1)
            right.setdefault(name, []).append(share[chosen.any(1)])
    return {name: float(torch.cat(parts).mean()) for name, parts in right.items()}
