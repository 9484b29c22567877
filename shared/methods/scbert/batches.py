"""Batches of tokens from a table in memory, or from a stream of cells larger than it."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse

from shared.data.cells import digest
from shared.methods.scbert.tokens import mask_tokens
from shared.train.batches import Batches, part, seed_of


class CellBatches(Batches):
    """Batches of cells: tokens, genes, and what is masked of them, or labels.

    Every draw depends on the seed, the pass over the cells and the batch alone: neither on what was drawn before nor on
    how many processes share the batch.

    Parameters
    ----------
    cells : CSR, ndarray or shared.data.Stream
        Of a stream only a buffer is ever in memory.
    tokenizer : Tokenizer
    batch_size, seed : int
    device : torch.device
        Where the batches arrive.
    labels : int64 ndarray, optional
        Codes, one a cell, for a batch of tokens, genes and labels; without them genes are masked, for one of tokens,
        genes and what is to be predicted.
    steps : int, optional
        Batches of what is counted as an epoch; without it those of one pass over the cells. Progress is saved at its
        end.
    redraw : int, optional
        Batches between two draws of random features, whose number then ends each batch.
    mask : tuple of float
        `share` and `replace` of :func:`mask_tokens`.
    """

    rowwise, loss = True, ""  # a word on the loss tells a run's checkpoint from another's

    def __init__(
        self, cells, tokenizer, batch_size, seed, device, labels=None, steps=None, redraw=None, mask=(0.15, 0.9)
    ):
        self.cells, self.tokenizer, self.batch_size, self.seed = cells, tokenizer, batch_size, seed
        self.device, self.labels, self.redraw, self.mask = device, labels, redraw, mask
        self.n, self.a_pass = cells.shape[0], -(-cells.shape[0] // batch_size)
        self.steps = steps or self.a_pass
        self.label = "pre-training" if labels is None else "fine-tuning"

    def __call__(self, epoch, rank=0, world=1):
        first = (epoch - 1) * self.steps
        for number, (X, rows) in zip(range(first, first + self.steps), self.read(first)):
            mine = part(len(rows), rank, world) or range(1)
            yield tuple(p[mine.start : mine.stop].to(self.device) for p in self.prepare(X, rows, number)) + (
                () if self.redraw is None else (number // self.redraw,)
            )

    def read(self, number):
        """Cells of this batch and of all after it, pass after pass: a table, and row numbers."""
        while True:
            turn, start = divmod(number, self.a_pass)
            if hasattr(self.cells, "batches"):
                passing = self.cells.batches(self.batch_size, dense=False, seed=self.seed, epoch=turn)
                rest = passing.resume(passing.state() | {"position": start})
                drawn = ((X, rows) for X, _, rows in rest)
            else:
                order = np.random.default_rng((self.seed, turn)).permutation(self.n)
                starts = range(start * self.batch_size, self.n, self.batch_size)
                drawn = ((self.cells[r], r) for r in (order[i : i + self.batch_size] for i in starts))
            yield from drawn
            number += self.a_pass - start

    def prepare(self, X, rows, number):
        """The tensors of one batch."""
        generator = torch.Generator().manual_seed(seed_of(self.seed, number, 1))
        draw = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
        if self.labels is not None:
            return *self.tokenizer(X), torch.from_numpy(self.labels[rows])
        length = self.tokenizer.length
        tokens, genes = self.tokenizer(X, None if length is None else draw(*X.shape))
        read, target = mask_tokens(tokens, self.tokenizer.bins, draw(2, *tokens.shape), *self.mask)
        return read, genes, target

    def sizes(self, epoch):
        whole = np.full(self.a_pass, self.batch_size)
        whole[-1] = self.n - self.batch_size * (self.a_pass - 1)
        return whole[np.arange((epoch - 1) * self.steps, epoch * self.steps) % self.a_pass].tolist()

    def about(self):
        some = np.unique(np.linspace(0, self.n - 1, 64).astype(np.int64))
        X = self.cells.read(some) if hasattr(self.cells, "read") else self.cells[some]
        X = X.toarray() if sparse.issparse(X) else np.asarray(X)
        said = repr([self.cells.shape, self.steps, self.batch_size, self.redraw, self.mask, self.tokenizer, self.loss])
        return {"data": digest([said, X, np.zeros(0) if self.labels is None else self.labels])}
