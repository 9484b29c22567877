"""Mini-batches of a :class:`shared.data.stream.Stream` in random order."""

import copy
import hashlib
import json
from typing import NamedTuple

import numpy as np
from scipy import sparse

from shared.data.constraints import Maybe, Whole, require
from shared.data.errors import DataError, warn
from shared.data.genes.lists import gene_hash, many

BUFFER_BYTES = 64 << 20  # the shuffle buffer, unless its size is named
BUFFER_CELLS = 16_384
BLOCKS = 64  # blocks in a buffer at least: fewer would let one stretch of the file dominate a batch


class Batch(NamedTuple):
    """One mini-batch of n cells.

    `X` is a float32 ndarray or CSR of shape (n, n_genes); `y` None, or of shape (n,), codes into ``batches.classes``
    (int64) or numbers (int64 or float32); `rows`, int64 of shape (n,), are positions in ``stream.obs``.
    """

    X: np.ndarray | sparse.csr_matrix
    y: np.ndarray | None
    rows: np.ndarray


class Batches:
    """One epoch of mini-batches in random order, every cell exactly once; can be gone through again and again.

    Blocks of `block` neighbouring cells are read in random order until `buffer` cells are in memory; these are shuffled
    and handed out. ``n_cells`` are the cells of this worker, ``classes`` what the codes of ``y`` stand for, and
    ``position`` the batches handed out in the pass under way.

    Parameters
    ----------
    stream : Stream
    size : int, default 256
        Cells in a batch.
    labels : str, optional
        A column of obs.
    block : int, optional
        Cells read at once; 1 gives a true shuffle, and reads many times slower. Without it 64; in a compressed file
        about two of its own chunks, but no more than 1/64 of the buffer.
    buffer : int, optional
        Cells held for shuffling; rounded up to whole batches. Without it 16,384, or as many as take 64 MB.
    seed, epoch : int, default 0
        On which the order depends, and on nothing else.
    cells : int or bool ndarray, optional
        Only these cells, such as the training cells of a split.
    dense : bool, default True
        Give ndarrays; otherwise CSR where the file is sparse.
    rank, world : int, default 0 and 1
        This worker and the number of workers. Their shares are disjoint and differ by one cell at most.
    drop_last : bool, default False
        Leave out the last batch if it is not full, and what would give one worker more batches than another.
    """

    def __init__(
        self, stream, size=256, *, labels=None, block=None, buffer=None, seed=0, epoch=0, cells=None, dense=True,
        rank=0, world=1, drop_last=False,
    ):  # fmt: skip
        require(Whole(1), size=size, world=world)
        require(Whole(), seed=seed, epoch=epoch, rank=rank)
        require(Maybe(Whole(1)), buffer=buffer, block=block)
        if rank >= world:
            raise DataError(f"rank={rank} is none of {world} workers: they count from 0")
        self.stream, self.size, self.dense = stream, int(size), dense
        self.cells = stream._subset(cells)
        self.buffer, self.block = self._sizes(buffer, block)
        self.y, self.classes = (None, None) if labels is None else stream.labels(labels)
        used = () if labels is None else self.y[self.cells]
        if lost := int((used < 0).sum() if self.classes else np.isnan(used).sum()):
            raise DataError(f"{many(lost, 'cell')} of those chosen have no label: leave them out with cells=...")
        self.start = self.position = 0
        # This worker's stretch of the epoch's sequence of cells.
        total = len(self.cells)
        self._first = total * rank // world
        share = total * (rank + 1) // world - self._first
        self.n_cells = total // world // self.size * self.size if drop_last else share
        self.seed, self.rank, self.world, self.drop_last = int(seed), int(rank), int(world), bool(drop_last)
        self._arrange(int(epoch))

    def _sizes(self, buffer, block):
        if buffer is None:
            buffer = max(self.size, min(BUFFER_CELLS, BUFFER_BYTES // self.stream._bytes_per_cell()))
        # Whole batches, so that none needs two buffers.
        buffer = -(-int(buffer) // self.size) * self.size
        # A compressed chunk is unpacked whole, whatever part of it a block needs.
        chunk = self.stream.file.chunk_cells if self.stream.file.packed else 0
        if block is None:
            block = int(np.clip(2 * chunk, min(64, max(1, buffer // BLOCKS)), max(1, buffer // BLOCKS)))
        if chunk > 4 * block:
            warn(f"each block of {block} cells unpacks {chunk:,.0f}: name a larger block and buffer")
        return buffer, int(block)

    def _arrange(self, epoch):
        self.epoch, n = epoch, len(self.stream)
        edges = np.searchsorted(self.cells, np.append(np.arange(0, n, self.block), n))
        low, high = edges[:-1][np.diff(edges) > 0], edges[1:][np.diff(edges) > 0]
        order = np.random.default_rng([self.seed, epoch, 0, 0]).permutation(len(low))
        self._low, self._high = low[order], high[order]
        self._begins = np.concatenate([[0], np.cumsum(self._high - self._low)])  # in the sequence of cells

    def __len__(self):
        return -(-self.n_cells // self.size)

    def _plan(self, window):
        p = self._first + window * self.buffer
        q = min(p + self.buffer, self._first + self.n_cells)
        a, b = np.searchsorted(self._begins, p, side="right") - 1, np.searchsorted(self._begins, q)
        low, high = self._low[a:b].copy(), self._high[a:b].copy()
        # A block that lies on a border of the buffer gives a part of its cells to either side.
        low[0] += p - self._begins[a]
        high[-1] -= self._begins[b] - q
        at = np.argsort(low)
        rows = np.concatenate([self.cells[i:j] for i, j in zip(low[at], high[at])])
        return rows, np.random.default_rng([self.seed, self.epoch, self.rank + 1, window]).permutation(len(rows))

    def _planned(self, start=0):
        """From a batch on: cells of each buffer, and the places in it of each of its batches."""
        for window in range(start * self.size // self.buffer, -(-self.n_cells // self.buffer)):
            rows, mixed = self._plan(window)
            skip = max(0, start * self.size - window * self.buffer)
            yield rows, [mixed[at : at + self.size] for at in range(skip, len(rows), self.size)]

    def order(self):
        """Which cells each batch holds, without reading them: yields int64 ndarrays of positions."""
        for rows, batches in self._planned():
            yield from (rows[chosen] for chosen in batches)

    def __iter__(self):
        self.position = self.start
        for rows, batches in self._planned(self.start):
            X = self.stream.read(rows)
            for chosen in batches:
                part, where = X[chosen], rows[chosen]
                self.position += 1
                part = part.toarray() if self.dense and sparse.issparse(part) else part
                yield Batch(part, None if self.y is None else self.y[where], where)

    def state(self) -> dict:
        """Where the pass under way stands, as words and numbers that JSON holds; :meth:`resume` goes on from it."""
        return {"epoch": self.epoch, "position": self.position, "plan": self._fingerprint()}

    def resume(self, state):
        """The batches that were still to come when :meth:`state` was taken; those before are not read.

        The state may be of another epoch. :class:`DataError` says that it is of batches that come in another order.
        """
        known = isinstance(state, dict) and state.get("plan") == self._fingerprint()
        if not known or not all(Whole().accepts(state.get(name)) for name in ("epoch", "position")):
            raise DataError("this is no state of these batches, but perhaps of other batches: make them alike")
        rest = copy.copy(self)
        rest._arrange(state["epoch"])
        rest.start = rest.position = state["position"]
        return rest

    def _fingerprint(self):
        file = self.stream.file
        told = [file.shape, file.entries, gene_hash(file.genes), gene_hash(self.stream.genes)]
        told += [self.size, self.block, self.buffer, self.seed, self.rank, self.world, self.drop_last]
        return hashlib.sha256(json.dumps(told).encode() + self.cells.tobytes()).hexdigest()[:16]
