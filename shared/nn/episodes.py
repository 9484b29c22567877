"""Few-shot episodes: small tasks drawn from a labelled table.

An episode draws a few classes, a few support rows of each to learn from, and some query rows to name::

    sampler = EpisodeSampler(unit_range(X), y, n_way=5, k_shot=5, n_query=10, seed=0)
    support, query, target = sampler.batch(4)  # 4 episodes × 5 classes × 5 rows × genes; 4 × 50 × genes; 4 × 50

Only row numbers are drawn. The rows are gathered from one table that stays where the network is, and what does not
depend on the episode, such as scaling a row to its own range, is done once, before.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse

from shared.data.cells import array_of, digest
from shared.data.constraints import Whole, require
from shared.data.errors import DataError
from shared.data.validate.structure import matrix_of, widened
from shared.nn.blocks import (  # noqa: F401  the layers for episodes, under one roof with the episodes
    NORMS,
    Blocks,
    EpisodeNorm,
    RowNorm,
    encode,
    encoder,
    use_statistics,
)


class Batch(NamedTuple):
    """Some episodes.

    Attributes
    ----------
    support : float32 tensor, episodes × classes × shots × genes
    query : float32 tensor, episodes × queries × genes
        Class after class, unless the sampler shuffles.
    target : int64 tensor, episodes × queries
        Place of the query's class among the episode's classes.
    """

    support: torch.Tensor
    query: torch.Tensor
    target: torch.Tensor


def unit_range(X):
    """Scale each row to [0, 1] by its own smallest and largest value.

    A row that is multiplied by a positive number, or shifted, comes out the same: depth of sequencing, the base of a
    logarithm and a scale factor leave no trace. A row of equal values becomes zeros.

    Parameters
    ----------
    X : ndarray, CSR matrix or torch tensor, cells × genes
        Any real values.

    Returns
    -------
    float32 ndarray, CSR matrix or tensor (on the same device)
        New memory. CSR stays CSR where the smallest value of every row is 0, as in counts and their logarithms.

    Raises
    ------
    DataError
        If `X` has not two dimensions, or holds NaN or infinities.
    """
    if X.ndim != 2:
        raise DataError(f"X has {X.ndim} dimensions: give cells in rows and genes in columns")
    if sparse.issparse(X):
        X = X.tocsr().astype(np.float32, copy=True)
        X.sum_duplicates()
        low, high = (np.asarray(m.toarray(), np.float32).ravel() for m in (X.min(axis=1), X.max(axis=1)))
        _finite(np.isfinite(low) & np.isfinite(high))
        if not low.any():
            X.data /= np.repeat(np.where(high > 0, high, 1), np.diff(X.indptr))
            return X
        X = X.toarray()
    if isinstance(X, torch.Tensor):
        low, high = X.amin(1, keepdim=True), X.amax(1, keepdim=True)
        _finite((torch.isfinite(low) & torch.isfinite(high)).cpu().numpy())
        spread = high - low
        return X.sub(low).div_(torch.where(spread > 0, spread, 1)).float()
    X = np.array(X, dtype=np.float32, order="C")
    low, high = X.min(1, keepdims=True), X.max(1, keepdims=True)
    _finite(np.isfinite(low) & np.isfinite(high))
    X -= low
    X /= np.where(high > low, high - low, 1)
    return X


def _finite(rows):
    if not rows.all():
        raise DataError(f"{int((~rows).sum())} rows hold NaN or infinities: fill or drop them first")


class EpisodeSampler:
    """Draw episodes from a labelled table.

    Classes are drawn uniformly, without replacement, among those with enough rows; support and query rows of a class
    are drawn uniformly and never overlap. One seed sets classes and rows.

    Parameters
    ----------
    X : float32 ndarray, SciPy CSR matrix or torch tensor, cells × genes
        Used as it is, without a copy where possible. A tensor is gathered from on its own device.
    y : array of str or int, cells
        Labels.
    n_way, k_shot, n_query : int
        Classes of an episode, and support and query rows of each class.
    seed : int
    shuffle : bool
        Shuffle the queries of each episode. The order is of no consequence to a loss; the published sampler does.
    device : str or torch.device, optional
        Where the table is kept and batches arrive. CSR stays on the host; its batches are sent.

    Attributes
    ----------
    classes_ : ndarray
        Labels with at least ``k_shot + n_query`` rows, sorted; the class numbers of :meth:`indices` count these.
    left_out : tuple
        Labels with fewer.

    Raises
    ------
    DataError
        If `X` and `y` do not fit together, or fewer than `n_way` classes have enough rows.
    SettingError
        If a size cannot be used.
    """

    def __init__(self, X, y, n_way=5, k_shot=5, n_query=10, seed=0, shuffle=False, device=None):
        sizes = {"n_way": n_way, "k_shot": k_shot, "n_query": n_query}
        require(Whole(1), **sizes)
        self.X, self.device = _table(X, device)
        y = array_of(y, "y")
        if y.shape != (self.X.shape[0],):
            raise DataError(f"y has shape {y.shape} and X has {self.X.shape[0]} rows: give one label a row")
        self.n_way, self.k_shot, self.n_query, self.shuffle = n_way, k_shot, n_query, shuffle
        labels, code, sizes = np.unique(y, return_inverse=True, return_counts=True)
        enough = sizes >= k_shot + n_query
        self.classes_, self.left_out = labels[enough], tuple(labels[~enough].tolist())
        if len(self.classes_) < n_way:
            raise DataError(
                f"{len(self.classes_)} of {len(labels)} classes have the {k_shot + n_query} rows that {k_shot} support "
                f"and {n_query} query rows need, and n_way={n_way}: ask for fewer classes or fewer rows"
            )
        # Rows sorted by class: row i of class c is order[start[c] + i].
        self._order = np.argsort(code, kind="stable")
        self._start, self._sizes = (np.cumsum(sizes) - sizes)[enough], sizes[enough]
        self._rng = np.random.default_rng(seed)

    def indices(self, n: int = 1, rng: np.random.Generator | None = None):
        """Row numbers of `n` episodes, all drawn at once.

        Parameters
        ----------
        n : int
            Episodes.
        rng : numpy Generator, optional
            Draw from this one in place of the sampler's own, which goes on from call to call.

        Returns
        -------
        support : int64 ndarray, n × n_way × k_shot
        query : int64 ndarray, n × n_way × n_query
        classes : int64 ndarray, n × n_way
            Numbers of the classes, in ``classes_``.
        """
        rng = self._rng if rng is None else rng
        need = self.k_shot + self.n_query
        classes = rng.random((n, len(self.classes_))).argsort(1)[:, : self.n_way]
        sizes = self._sizes[classes]
        # Floyd's way to draw without replacement: each pick is new, or is replaced by the last number of its range.
        picks = np.empty((n, self.n_way, need), np.int64)
        for i in range(need):
            last = sizes - need + i
            pick = (rng.random(sizes.shape) * (last + 1)).astype(np.int64)
            taken = (picks[:, :, :i] == pick[:, :, None]).any(2)
            picks[:, :, i] = np.where(taken, last, pick)
        # The set is uniform but its order is not, and the order decides who is support.
        picks = np.take_along_axis(picks, rng.random(picks.shape).argsort(2), 2)
        rows = self._order[self._start[classes][:, :, None] + picks]
        return rows[:, :, : self.k_shot], rows[:, :, self.k_shot :], classes

    def draw(self, n: int = 1, rng: np.random.Generator | None = None) -> tuple[torch.Tensor, ...]:
        """Row numbers of `n` episodes as :meth:`gather` takes them, on the device, and the queries' targets."""
        support, query, _ = self.indices(n, rng)
        target = np.arange(self.n_way).repeat(self.n_query)[None].repeat(n, 0)
        query = query.reshape(n, -1)
        if self.shuffle:
            order = (self._rng if rng is None else rng).random(query.shape).argsort(1)
            query, target = np.take_along_axis(query, order, 1), np.take_along_axis(target, order, 1)
        return tuple(torch.from_numpy(np.ascontiguousarray(a)).to(self.device) for a in (support, query, target))

    def stretch(self, n: int, seed: int, done: int) -> tuple[torch.Tensor, ...]:
        """Row numbers of the `n` episodes after the first `done` of a training run, which depend on its seed alone."""
        return self.draw(n, np.random.default_rng((seed, done)))

    def batch(self, n: int = 1, rng: np.random.Generator | None = None) -> Batch:
        """`n` episodes, gathered."""
        return self.gather(*self.draw(n, rng))

    def gather(self, support: torch.Tensor, query: torch.Tensor, target: torch.Tensor) -> Batch:
        """The rows with these numbers: support n × classes × shots, query and target n × queries."""
        if sparse.issparse(self.X):
            support_rows, query_rows = (
                torch.from_numpy(self.X[i.cpu().numpy().ravel()].toarray()).to(self.device, non_blocking=True)
                for i in (support, query)
            )
        else:
            support_rows, query_rows = (self.X.index_select(0, i.reshape(-1)) for i in (support, query))
        return Batch(
            *(rows.view(*i.shape, self.X.shape[1]) for rows, i in ((support_rows, support), (query_rows, query))),
            target,
        )

    def to(self, device: str | torch.device) -> EpisodeSampler:
        """The same sampler with its table on another device; both draw from one stream of random numbers."""
        moved = copy.copy(self)
        moved.device = torch.device(device)
        if isinstance(self.X, torch.Tensor):
            moved.X = self.X.to(device)
        return moved

    def digest(self) -> str:
        """Tells one sampler from another: sizes, labels, and every row."""
        sizes = tuple(self.X.shape), self.n_way, self.k_shot, self.n_query, self.shuffle
        rows = (self.X[i : i + 1024] for i in range(0, self.X.shape[0], 1024))
        rows = (some.toarray() if sparse.issparse(some) else some.cpu().numpy() for some in rows)
        return digest(chain((sizes, self._order, self._start, self._sizes), rows))


def _table(X, device):
    """`X` as a tensor on the device, or as CSR on the host; the place where batches arrive."""
    if sparse.issparse(X):
        X = widened(matrix_of(X)).tocsr().astype(np.float32, copy=False)
        values = X.data
    elif isinstance(X, torch.Tensor):
        X = values = X.detach().float().to(device or X.device)
    else:
        X = np.ascontiguousarray(matrix_of(X), dtype=np.float32)
        # torch takes no read-only memory, which is what shared or mapped arrays are.
        X = values = torch.from_numpy(X if X.flags.writeable else X.copy())
        X = X.to(device or "cpu")
    if X.ndim != 2 or not X.shape[0]:
        raise DataError(f"X has shape {tuple(X.shape)}: give cells in rows and genes in columns, one row or more")
    # One pass and no copy: a sum is finite only if every row is.
    total = values.sum(1) if isinstance(values, torch.Tensor) else values
    bad = int((~torch.isfinite(torch.as_tensor(total))).sum())
    if bad:
        raise DataError(
            f"X holds NaN or infinities in {bad} {'entries' if sparse.issparse(X) else 'rows'}: fill them first"
        )
    return X, torch.device(device or (X.device if isinstance(X, torch.Tensor) else "cpu"))


def episode_sizes(sizes: Sequence[int], n_way: int, k_shot: int, n_query: int) -> tuple[int, int, int] | None:
    """The largest episode, up to the one asked for, that classes of these sizes can fill; None if there is none.

    Classes too small for the whole episode are left out while enough others remain; then rows are saved, support and
    query in proportion, and then classes.
    """
    sizes = sorted(sizes, reverse=True)
    way = min(n_way, sum(size >= 2 for size in sizes))
    if way < 2:
        return None
    rows = min(k_shot + n_query, sizes[way - 1])
    shots = min(max(1, round(k_shot * rows / (k_shot + n_query))), rows - 1)
    return way, shots, rows - shots
