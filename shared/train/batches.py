"""Batches: what the training loop needs to know of them, and those of a table of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch

from shared.data.cells import digest
from shared.train.settings import TrainingError


class Batches:
    """The batches of every epoch, and what the loop can know of them.

    A plain function of the epoch does where nothing is known. Parts are replaced one by one, by keyword or in a
    subclass::

        Batches(draw, label="pre-training", about=lambda: {"data": digest})

    Parameters
    ----------
    draw : callable
        ``draw(epoch)``, with epochs counted from 1, gives an iterable of tuples: the arguments of the step after the
        network. It is called with seeded generators and gives the same batches for the same epoch.
    **parts
        Attributes or methods to replace.

    Attributes
    ----------
    unit : str
        What the rows of the history count.
    label : str
        What the progress bar says.
    steps : int or None
        Batches of an epoch, where they are known before.
    look : int
        On an accelerator, batches between two looks at the loss: each makes it wait.
    entries : int
        Numbers in a batch, where they may be more than the largest weight has.
    rowwise : bool
        Whether the step's loss is a mean over the rows of a batch, which several processes may then share. `draw` takes
        ``(epoch, rank, world)`` too, for the :func:`part` of each batch that process `rank` of `world` trains on, and
        leaves the global generators alone; ``sizes`` gives the rows of whole batches.
    cure : str
        What to do when the loss is not finite.
    """

    unit, label, steps, look, entries, rowwise = "epoch", "training", None, 64, 0, False
    cure = "look at the data, or lower lr"

    def __init__(self, draw: Callable[[int], Iterable[tuple]], **parts):
        self.draw = draw
        vars(self).update(parts)

    def __call__(self, epoch: int, *share: int) -> Iterable[tuple]:
        """The batches of an epoch; with ``rank, world`` a process's share of them."""
        return self.draw(epoch, *share)

    def sizes(self, epoch: int) -> list[int] | None:
        """Rows of each batch of an epoch, which weigh its loss in the mean; None: all weigh alike."""
        return None

    def done(self, epoch: int, i: int = 0) -> int:
        """Units that are done before batch `i` of an epoch."""
        return epoch - 1

    def decayed(self, epoch: int, i: int = 0) -> int:
        """Units that count before batch `i` of an epoch where the learning rate falls every so many."""
        return self.done(epoch, i)

    def place(self, epoch: int, i: int) -> str:
        """Where batch `i` of an epoch is, for a message."""
        return f"at epoch {epoch}, batch {i + 1}" + (f" of {self.steps}" if self.steps else "")

    def about(self) -> dict:
        """What tells these batches from others, for a checkpoint: ``digest()`` of what draws them, where it has one."""
        return {"data": self.draw.digest() if hasattr(self.draw, "digest") else None}

    def refusal(self, rows: list[dict], epochs: int) -> str:
        """Why a run with these rows of history cannot go on to so many epochs, or the empty string."""
        return f"holds {len(rows)} epochs and epochs={epochs} asks for fewer" if len(rows) > epochs else ""


class Table(Batches):
    """Columns with one length, in shuffled batches: tensors on the device, sparse matrices on the host.

    Parameters
    ----------
    columns : sequence of tensor, ndarray or SciPy CSR matrix
    device : torch.device
    what : str
        What errors call the columns.
    batch_size, seed : int
        A last batch of one row joins the batch before it.

    Raises
    ------
    TrainingError
        If columns cannot be used or do not fit together.
    """

    rowwise = True

    def __init__(self, columns, device, what, batch_size=256, seed=0):
        if hasattr(columns, "shape") or not isinstance(columns, Sequence) or not columns:
            raise TrainingError(f"{what} must be a tuple of arrays, such as (X, y), or a function of the epoch")
        self.columns = [column(c, f"{what}[{i}]").to(device) for i, c in enumerate(columns)]
        lengths = [c.shape[0] for c in self.columns]
        if len(set(lengths)) > 1:
            raise TrainingError(f"{what} have different numbers of rows: {', '.join(map(str, lengths))}")
        self.rows, self.device, self.batch_size, self.seed = lengths[0], device, batch_size, seed
        if not self.rows:
            raise TrainingError(f"{what} hold no rows")
        whole, last = divmod(self.rows, batch_size)
        self.steps = max(1, whole + (last > 1))
        self.entries = batch_size * sum(int(np.prod(c.shape[1:])) for c in self.columns)

    def __call__(self, epoch, rank=0, world=1):
        generator = torch.Generator().manual_seed(seed_of(self.seed, epoch))
        order = torch.randperm(self.rows, generator=generator).to(self.device)  # where the batches are gathered
        shares = ((rows, part(len(rows), rank, world)) for rows in order.split(self.sizes(epoch)))
        # A step needs a row: where there are fewer rows than processes, one that weighs nothing.
        return (self.take(rows[mine.start : mine.stop] if mine else rows[:1]) for rows, mine in shares)

    def sizes(self, epoch):
        size = self.batch_size
        return [size] * (self.steps - 1) + [self.rows - size * (self.steps - 1)]

    def take(self, rows):
        """The rows with these numbers, of every column."""
        return [c.take(rows, self.device) if isinstance(c, Sparse) else c.index_select(0, rows) for c in self.columns]

    @property
    def cure(self):
        bad = sum(int((~torch.isfinite(c)).sum()) for c in self.columns if not isinstance(c, Sparse))
        return f"the data hold {bad} values that are not finite: remove them" if bad else "lower lr, or set clip_norm"

    def about(self):
        return {"data": self.digest()}

    def digest(self):
        """Tells one data set from another: shapes and up to 256 rows, evenly spaced."""
        rows = torch.linspace(0, self.rows - 1, min(self.rows, 256), dtype=torch.float64).long().to(self.device)
        return digest([[tuple(c.shape) for c in self.columns], *(part.cpu().numpy() for part in self.take(rows))])


def part(rows: int, rank: int, world: int) -> range:
    """The rows of a batch of so many that process `rank` of `world` trains on; numbers differ by one at most."""
    return range(-(-rows * rank // world), -(-rows * (rank + 1) // world))


def seed_of(*key: int) -> int:
    """The seed for one purpose, such as an epoch, from that of the run and numbers: int from 0 to 2**32 - 1."""
    return int(np.random.SeedSequence(key).generate_state(1)[0])


class Sparse:
    """A CSR matrix on the host whose rows become dense when a batch needs them."""

    def __init__(self, matrix):
        self.matrix, self.shape = matrix, matrix.shape

    def to(self, device):
        return self

    def take(self, rows, device):
        return torch.from_numpy(self.matrix[rows.cpu().numpy()].toarray()).to(device, non_blocking=True)


def column(values, what):
    if hasattr(values, "tocsr"):
        return Sparse(values.tocsr().astype(np.float32, copy=False))
    if not isinstance(values, torch.Tensor):
        values = np.asarray(values)
        if values.dtype.kind not in "fiub":
            cure = "encode labels as whole numbers first (np.unique with return_inverse)"
            raise TrainingError(f"{what} has dtype {values.dtype}, which torch cannot use: {cure}")
        # A fresh array in the machine's byte order: torch takes neither read-only nor reversed memory.
        kind = {"f": np.float32, "b": np.bool_}.get(values.dtype.kind, np.int64)
        values = torch.from_numpy(np.array(values, dtype=kind, order="C"))
    values = values.detach()
    if values.is_complex() or values.ndim == 0:
        raise TrainingError(f"{what} must be real numbers with one row an entry, not {values.dtype} {values.shape}")
    if values.layout != torch.strided:
        raise TrainingError(f"{what} is a sparse torch tensor: pass a SciPy CSR matrix")
    return values if values.dtype == torch.bool else values.float() if values.is_floating_point() else values.long()
