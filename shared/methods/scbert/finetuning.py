"""Fine-tuning: what is trained, what is computed once, and when to stop."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from shared.data.constraints import SettingError
from shared.data.errors import DataError
from shared.data.genes.lists import shown
from shared.methods.scbert.batches import CellBatches
from shared.methods.scbert.heads import AfterPrefix

CHUNK = 64  # cells at a time where nothing is trained
UNFREEZE = ("last", "second_to_last", "all", "head")


def parted(cells, held) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on, and those that are held out, in order.

    Raises
    ------
    DataError
        If `held` names no rows of these cells, or leaves a type without any.
    """
    held = np.unique(np.asarray(held))
    if held.dtype.kind not in "iu" or (len(held) and (held[0] < 0 or held[-1] >= len(cells))):
        raise DataError(f"held should be whole numbers of rows, from 0 to {len(cells) - 1}")
    kept = np.setdiff1d(np.arange(len(cells)), held)
    if lost := set(cells.classes) - set(cells.classes[cells.codes[kept]]):
        raise DataError(f"held leaves no cell of {shown(sorted(map(str, lost)))} to learn from: hold out fewer")
    return kept, held


def freeze(net, unfreeze: str) -> int:
    """Leave one block, the last norm and the head to be trained; returns how many blocks before them are not."""
    transformer, n = net.transformer, len(net.transformer.blocks)
    trained = {"all": range(n), "last": [n - 1], "second_to_last": [n - 2], "head": []}[unfreeze]
    if -1 in trained:
        raise SettingError("unfreeze='second_to_last' needs two blocks: set the depth to 2 or more")
    transformer.requires_grad_(unfreeze == "all")
    transformer.norm.requires_grad_(True)
    for i in trained:
        transformer.blocks[i].requires_grad_(True)
    transformer.genes.requires_grad_(False)
    transformer.out.requires_grad_(False)  # predicts tokens, which nobody asks for here
    return min(trained, default=n)


@torch.no_grad()
def prefixes(net, n, prepare, X, device) -> tuple[torch.Tensor, torch.Tensor]:
    """What the first `n` blocks make of every cell, cells × (genes + 1) × dim, and the genes."""
    transformer = net.to(device).eval().transformer
    parts = [prepare(X[i : i + CHUNK], device) for i in range(0, X.shape[0], CHUNK)]
    return torch.cat([transformer.blocks[:n](transformer.embed(*p)) for p in parts]), torch.cat([g for _, g in parts])


class PrefixBatches(CellBatches):
    """The batches of the same cells, of what the frozen blocks made of them."""

    def prepare(self, X, rows, number):
        return X, self.genes[rows], torch.from_numpy(self.labels[rows])


def worth_caching(model, n_cells: int, n_genes: int) -> bool:
    """Whether what frozen blocks make of the cells is the same in every epoch, and fits into ``model.cache_gib``."""
    takes = 4 * n_cells * (min(model.length or n_genes, n_genes) + 1) * model.dim / 2**30
    return model.unfreeze != "all" and not model.coupled and takes <= model.cache_gib


def from_prefixes(model, net, n, cells, kept, held, seed, device):
    """Network, batches and monitor of fine-tuning from what the `n` frozen blocks make of the cells, computed once."""
    of = partial(prefixes, net, n, model.rows)
    (x, genes), val = (of(cells.X[rows], device) if len(rows) else () for rows in (kept, held))
    batches = PrefixBatches(x, None, model.batch_size, seed, device, cells.codes[kept])
    batches.genes, val = genes, zip(*(column.split(CHUNK) for column in val))
    monitor = partial(judge, held=list(val), types=cells.codes[held], stop_by=model.stop_by)
    return AfterPrefix(net, n), batches, monitor


def from_cells(model, net, n, cells, kept, held, seed, device):
    """Network, batches and monitor of fine-tuning from the cells themselves."""
    tokenizer = model._tokenizer(cells.n_genes)
    batches = CellBatches(cells.X[kept], tokenizer, model.batch_size, seed, device, cells.codes[kept])
    parts = np.array_split(held, -(-len(held) // CHUNK) or 1)
    val = [model.rows(cells.X[rows], device) for rows in parts if len(rows)]
    return net, batches, partial(judge, held=val, types=cells.codes[held], stop_by=model.stop_by)


def judge(net, row, *, held, types, stop_by):
    """Loss and accuracy of held-out cells, whose batches are what `net` takes; the number to lower."""
    logits = torch.cat([net(*some) for some in held]).cpu()
    types = torch.as_tensor(types)
    row["val_loss"] = float(cross_entropy(logits, types))
    row["val_accuracy"] = float((logits.argmax(1) == types).float().mean())
    return row["val_loss"] if stop_by == "loss" else -row["val_accuracy"]
