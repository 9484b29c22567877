"""Batches of two domains: cells of the source with their labels beside cells of the target."""

from __future__ import annotations

import itertools

from shared.train.batches import Batches, Table


class DomainBatches(Batches):
    """A batch of source rows beside a batch of target rows, until the longer domain has been seen whole.

    The shorter domain is shuffled and drawn again as often as needed.

    Parameters
    ----------
    source, target : tuple of arrays
        As :func:`shared.train.fit` takes them; a batch is the columns of both, source first.
    batch_size, seed : int
        Rows of each domain in a batch, and the order of the rows.
    device : str or torch.device
        Where the batches arrive.
    """

    def __init__(self, source, target, batch_size: int, seed: int, device="cpu"):
        pairs = ((source, "source", seed), (target, "target", seed + 1))
        self.tables = [Table(columns, device, what, batch_size, s) for columns, what, s in pairs]
        self.steps = max(table.steps for table in self.tables)
        self.entries = sum(table.entries for table in self.tables)

    def __call__(self, epoch):
        source, target = (self._endless(table, epoch) for table in self.tables)
        return itertools.islice(((*a, *b) for a, b in zip(source, target)), self.steps)

    @staticmethod
    def _endless(table, epoch):
        # Each further pass over the shorter domain has an order of its own, as if epochs went on elsewhere.
        for again in itertools.count():
            yield from table(epoch + 2**20 * again)

    def about(self):
        return {name: table.about() for name, table in zip(("source", "target"), self.tables, strict=True)}
