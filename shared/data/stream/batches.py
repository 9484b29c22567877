"""Mini-batches of a :class:`shared.data.stream.Stream` in random order, and how random that order is."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy import sparse

from shared.data.constraints import Maybe, OneOf, Whole, require
from shared.data.errors import DataError, warn
from shared.data.genes.lists import gene_hash, many

BUFFER_BYTES = 64 << 20  # the shuffle buffer, unless its size is named
BUFFER_CELLS = 16_384
BLOCKS = 64  # blocks in a buffer at least: fewer would let one stretch of the file dominate a batch


class Batch(NamedTuple):
    """One mini-batch.

    Attributes
    ----------
    X : float32 ndarray or CSR of shape (n, n_genes)
    y : ndarray of shape (n,) or None
        Codes into ``batches.classes`` (int64), or the numbers themselves (int64 or float32).
    rows : int64 ndarray of shape (n,)
        Which cells these are: positions in ``stream.obs``.
    """

    X: np.ndarray | sparse.csr_matrix
    y: np.ndarray | None
    rows: np.ndarray


@dataclass(frozen=True)
class Mixing:
    """How evenly labels spread over batches: entropy in bits, the mean over full batches.

    Attributes
    ----------
    entropy : float
        Of the labels within a batch, as the batches come.
    shuffled : float
        The same after a true shuffle of all cells.
    in_order : float
        The same when the file is read from top to bottom.
    """

    entropy: float
    shuffled: float
    in_order: float

    @property
    def ratio(self) -> float:
        """1 for a true shuffle, 0 where a batch holds a single label."""
        return self.entropy / self.shuffled if self.shuffled else 1.0

    def __str__(self):
        return (
            f"{self.entropy:.3f} bits a batch; a true shuffle has {self.shuffled:.3f} ({self.ratio:.1%} of it), "
            f"the file's own order {self.in_order:.3f}"
        )


class Batches:
    """One epoch of mini-batches, made by :meth:`Stream.batches`; can be gone through again and again.

    Attributes
    ----------
    n_cells : int
        Cells of this worker.
    classes : tuple of str or None
        What the codes of ``y`` stand for.
    size, block, buffer : int
    position : int
        Batches handed out so far in the pass under way.
    """

    def __init__(self, stream, size, *, labels, shuffle, block, buffer, seed, epoch, start, cells, rank, world, **how):
        require(OneOf("block", "none"), shuffle=shuffle)
        require(Whole(1), size=size)
        require(Whole(), seed=seed)
        require(Maybe(Whole(1)), buffer=buffer, block=block)
        self.stream, self.shuffle = stream, shuffle
        self.dense, self.drop_last, self.prefetch = (bool(how[k]) for k in ("dense", "drop_last", "prefetch"))
        self.size, self.seed = int(size), int(seed)
        self.cells = stream._subset(cells)
        self.buffer, self.block = self._sizes(buffer, block)
        self._low, self._high = self._borders()
        self.y, self.classes = self._labels(labels)
        self._go(epoch, start, rank, world)

    def _go(self, epoch, start, rank, world):
        """Stand before a batch of an epoch, as one of the workers."""
        require(Whole(), rank=rank, epoch=epoch, start=start)
        require(Whole(1), world=world)
        self.rank, self.world, self.epoch, self.start = int(rank), int(world), int(epoch), int(start)
        self.position = self.start
        if self.rank >= self.world:
            raise DataError(f"rank={rank} is none of {world} workers: they count from 0")
        if self.start > len(self):
            raise DataError(f"start={start} is beyond the {len(self):,} batches of an epoch")

    def _sizes(self, buffer, block):
        if buffer is None:
            per_cell = self.stream._bytes_per_cell()
            buffer = max(self.size, min(BUFFER_CELLS, BUFFER_BYTES // per_cell))
        # Whole batches, so that none needs two buffers.
        buffer = -(-int(buffer) // self.size) * self.size
        # A compressed chunk is unpacked whole, whatever part of it a block needs.
        chunk = max((f.chunk_cells for f in self.stream.files if f.packed), default=0)
        if block is None:
            block = int(np.clip(2 * chunk, min(64, max(1, buffer // BLOCKS)), max(1, buffer // BLOCKS)))
        if self.shuffle == "block" and chunk > 4 * block:
            warn(
                f"each block of {block} cells unpacks {chunk:,.0f}: rewrite the file with shared.data.stream.to_rows, "
                "or name a larger block and buffer"
            )
        return buffer, int(block)

    def _borders(self):
        """First and one past the last position (in `cells`) of every block; none reaches into a second file."""
        starts = self.stream._starts
        edges = np.concatenate([*(np.arange(a, b, self.block) for a, b in pairwise(starts)), starts[-1:]])
        if self.cells is not None:
            edges = np.searchsorted(self.cells, edges)
        low, high = edges[:-1], edges[1:]
        return low[high > low], high[high > low]

    def _labels(self, labels):
        n = self.stream.shape[0]
        if labels is None:
            return None, None
        if isinstance(labels, str):
            y, classes = self.stream.labels(labels)
        else:
            y = np.asarray(labels)
            if y.shape[:1] != (n,):
                raise DataError(f"labels has shape {y.shape}, and there are {n:,} cells")
            classes = None
            if y.dtype.kind in "OUSb":
                found, y = np.unique(y.astype(str), return_inverse=True)
                classes = tuple(map(str, found))
            y = y.astype(np.float32 if y.dtype.kind == "f" else np.int64, copy=False)
        used = y if self.cells is None else y[self.cells]
        lost = int((~np.isfinite(used)).sum() if y.dtype.kind == "f" else (used < 0).sum() if classes else 0)
        if lost:
            raise DataError(f"{many(lost, 'cell')} of those chosen have no label: leave them out with cells=...")
        return y, classes

    @property
    def _range(self):
        """Which stretch of the epoch's sequence of cells is this worker's."""
        total = self.stream.shape[0] if self.cells is None else len(self.cells)
        return total * self.rank // self.world, total * (self.rank + 1) // self.world, total // self.world

    @property
    def n_cells(self):
        first, last, least = self._range
        return (least // self.size) * self.size if self.drop_last else last - first

    def __len__(self):
        return -(-self.n_cells // self.size)

    def _sequence(self):
        """Blocks in the order of this epoch, and where each begins in the sequence of cells."""
        order = np.arange(len(self._low))
        if self.shuffle == "block":
            order = np.random.default_rng([self.seed, self.epoch, 0, 0]).permutation(len(order))
        return order, np.concatenate([[0], np.cumsum((self._high - self._low)[order])])

    def _plan(self, window, order, begins):
        """Cells of one buffer (ascending), and the order to hand them out in."""
        first = self._range[0]
        p = first + window * self.buffer
        q = min(p + self.buffer, first + self.n_cells)
        a, b = np.searchsorted(begins, p, side="right") - 1, np.searchsorted(begins, q)
        blocks = order[a:b]
        low, high = self._low[blocks].copy(), self._high[blocks].copy()
        # A block that lies on a border of the buffer gives a part of its cells to either side.
        low[0] += p - begins[a]
        high[-1] -= begins[b] - q
        at = np.argsort(low)
        positions = np.concatenate([np.arange(i, j) for i, j in zip(low[at], high[at])])
        rows = positions if self.cells is None else self.cells[positions]
        if self.shuffle == "none":
            return rows, np.arange(len(rows))
        return rows, np.random.default_rng([self.seed, self.epoch, self.rank + 1, window]).permutation(len(rows))

    def order(self):
        """Which cells each batch holds, without reading them: yields int64 ndarrays of positions."""
        sequence = self._sequence()
        for window in range(-(-self.n_cells // self.buffer)):
            rows, mixed = self._plan(window, *sequence)
            for at in range(0, len(rows), self.size):
                yield rows[mixed[at : at + self.size]]

    def __iter__(self):
        sequence = self._sequence()
        per_window = self.buffer // self.size
        windows = range(self.start // per_window, -(-self.n_cells // self.buffer))

        def load(window):
            rows, mixed = self._plan(window, *sequence)
            return rows, mixed, self.stream.read(rows)

        self.position = self.start
        with contextlib.closing(_ahead(load, windows) if self.prefetch else (load(w) for w in windows)) as loaded:
            for window, (rows, mixed, X) in zip(windows, loaded):
                skip = max(0, self.start - window * per_window) * self.size
                for at in range(skip, len(rows), self.size):
                    chosen = mixed[at : at + self.size]
                    part, where = X[chosen], rows[chosen]
                    if self.dense and sparse.issparse(part):
                        part = part.toarray()
                    self.position += 1
                    yield Batch(part, None if self.y is None else self.y[where], where)

    def at(self, epoch, start=0, *, rank=None, world=None):
        """The same batches in another epoch, from another position, or as another worker.

        Parameters
        ----------
        epoch : int
            Counts from 0.
        start : int, default 0
            Batches to leave out.
        rank : int, optional
            This worker, if another.
        world : int, optional
            The number of workers, if another.

        Returns
        -------
        Batches
        """
        other = copy.copy(self)
        other._go(epoch, start, self.rank if rank is None else rank, self.world if world is None else world)
        return other

    def state(self) -> dict:
        """Where the pass under way stands, as words and numbers that JSON holds; :meth:`resume` goes on from it."""
        return {"epoch": self.epoch, "position": self.position, "plan": self._fingerprint()}

    def resume(self, state):
        """The batches that were still to come when `state` was taken.

        Parameters
        ----------
        state : dict
            From :meth:`state`, of batches made with the same arguments over the same files.

        Raises
        ------
        DataError
            If these batches would come in another order.
        """
        try:
            epoch, position, plan = state["epoch"], state["position"], state["plan"]
        except (KeyError, TypeError) as e:
            raise DataError("this is no state of batches: give what batches.state() returned") from e
        if plan != self._fingerprint():
            raise DataError(
                "the state belongs to other batches (files, cells, size, block, buffer, seed or workers differ): "
                "make them with the same arguments, or begin the epoch again"
            )
        return self.at(epoch, position)

    def _fingerprint(self):
        parts = [(f.shape, f.entries, gene_hash(f.genes)) for f in self.stream.files]
        told = [parts, gene_hash(self.stream.genes), self.size, self.block, self.buffer, self.shuffle]
        told += [self.seed, self.rank, self.world, self.drop_last]
        hashed = hashlib.sha256(json.dumps(told).encode())
        if self.cells is not None:
            hashed.update(self.cells.tobytes())
        return hashed.hexdigest()[:16]

    def mixing(self, labels=None):
        """How close these batches come to a true shuffle; reads no expression.

        Parameters
        ----------
        labels : str or ndarray of shape (n_cells,), optional
            Groups whose spread is measured; by default the labels of the batches.

        Returns
        -------
        Mixing
        """
        y = self.y if labels is None else self._labels(labels)[0]
        if y is None:
            raise DataError("name the labels whose mixing should be measured: mixing('cell_type')")
        _, y = np.unique(y, return_inverse=True)
        full = self.n_cells // self.size
        if not full:
            raise DataError(f"no batch of {self.size} is full: {self.n_cells} cells are too few to measure mixing")
        given = np.concatenate(list(self.order()))[: full * self.size]
        shuffled = np.random.default_rng([self.seed, self.epoch]).permutation(given)
        return Mixing(*(_entropy(y[rows], self.size) for rows in (given, shuffled, np.sort(given))))


def _entropy(y, size):
    """Mean entropy in bits of the labels of consecutive batches."""
    n, groups = len(y) // size, int(y.max()) + 1
    counts = np.bincount(np.repeat(np.arange(n), size) * groups + y, minlength=n * groups)
    p = counts[counts > 0] / size
    return float(-(p * np.log2(p)).sum() / n) + 0.0


def _ahead(function, items):
    """Like ``map``, with the next result worked out in a thread while the present one is used."""
    items = iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix="stream") as pool:
        waiting = [pool.submit(function, i) for i in [next(items, None)] if i is not None]
        while waiting:
            found = waiting.pop().result()
            waiting = [pool.submit(function, i) for i in [next(items, None)] if i is not None]
            yield found
            del found


def as_torch(batches):
    """The batches as ``torch.utils.data.IterableDataset``.

    Give it to ``DataLoader(dataset, batch_size=None, num_workers=...)``: the workers take disjoint shares, each with a
    buffer of its own. ``dataset.set_epoch(e)`` before each epoch changes the order.

    Parameters
    ----------
    batches : Batches
        With ``dense=True``.

    Returns
    -------
    IterableDataset
        Of tuples ``(X, y)``, float32 and int64 or float32 tensors, or of ``X`` alone where there are no labels.
    """
    if not batches.dense:
        raise DataError("torch needs dense batches: make them with dense=True")
    return _torch_class()(batches)


def _torch_class():
    import torch
    from torch.utils.data import IterableDataset, get_worker_info

    class Streamed(IterableDataset):
        def __init__(self, batches):
            self.batches = batches

        def __reduce__(self):  # a class made here cannot be named by another process
            return as_torch, (self.batches,)

        def set_epoch(self, epoch):
            self.batches = self.batches.at(epoch)

        def __iter__(self):
            worker, b = get_worker_info(), self.batches
            if worker is not None and worker.num_workers > 1:
                if b.start:
                    raise DataError("several workers cannot go on from the middle of an epoch: use one, or start=0")
                b = b.at(b.epoch, rank=b.rank * worker.num_workers + worker.id, world=b.world * worker.num_workers)
            for X, y, _ in b:
                yield torch.from_numpy(X) if y is None else (torch.from_numpy(X), torch.from_numpy(y))

    return Streamed
