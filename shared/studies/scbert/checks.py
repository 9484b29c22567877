"""What else may explain a result: pairs of genes that are counted, labels of a type's own, and what a network reads."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from sklearn.metrics import roc_auc_score

from shared.evaluate.metrics import accuracy
from shared.methods.scbert import ScBERT
from shared.methods.scbert.batches import CellBatches
from shared.methods.scbert.finetuning import CHUNK
from shared.methods.scbert.pretraining import bins_of_cells, token_counts
from shared.methods.scbert.tokens import IGNORE, Tokenizer
from shared.studies.scbert.arms import FIT_LENGTH, L1, L2, PRETRAINED, SCRATCH, SIZES, Learned, fitted, label_rows
from shared.studies.scbert.blood import AS_SORTED, SORTED, UNSORTED, Split, draw

PAIRS = "table and pairs"
WEIGHTS = 0.0, 0.05, 0.1, 0.2, 0.3, 0.5  # of the pairs beside the table
T_CELLS = [AS_SORTED[name] for name in ("CD8 T", "Memory CD4 T", "Naive CD4 T")]


def counted(X, tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """What is counted in some cells, without a network.

    The table, float64, genes × bins × bins, is the share of each bin above 0 (second axis) in cells whose most common
    bin is that of the third; bins of all cells count as two cells more. The pairs, float32, genes × (bins + 1) × genes
    × (bins + 1), are the cells in which a gene has one token and another gene has another.
    """
    tokens = tokenizer.tokens(X)
    table = token_counts(tokens, tokenizer.bins)[:, 1:]
    whole = table.sum(2, keepdims=True)
    table = table + 2 * whole / whole.sum(1, keepdims=True).clip(1)
    hot = np.eye(tokenizer.bins + 1, dtype=np.float32)[tokens.numpy()]
    return table / table.sum(1, keepdims=True).clip(1e-9), np.tensordot(hot, hot, (0, 0))


def log_odds(table, pairs, tokens, genes, masked) -> tuple[np.ndarray, np.ndarray]:
    """Of the masked genes of one cell the logarithms of their bins' odds: by the table, and by the genes in sight.

    The second is naive Bayes: over the genes in sight, the sum of the logarithms of how often each has its token where
    the masked gene has that bin; shares of all cells count as two cells more. Both are masked genes × bins, up to a
    constant.
    """
    bins, seen, asked = table.shape[1], ~masked, genes[masked]
    mode = int(bins_of_cells(torch.from_numpy(tokens[None]), bins)[0])
    alone = np.diagonal(np.diagonal(pairs, axis1=0, axis2=2), axis1=0, axis2=1)  # genes × (bins + 1)
    share = (alone + 0.5) / (alone.sum(1, keepdims=True) + 0.5 * (bins + 1))
    both = pairs[asked][:, 1:, genes[seen], tokens[seen]]  # masked × bins × in sight
    given = (both + 2 * share[genes[seen], tokens[seen]]) / (alone[asked, 1:, None] + 2)
    return np.log(table[asked, :, mode] + 1 / 400), np.log(given).sum(2)


def guesses(table, pairs, batches, weights=WEIGHTS) -> dict[float, float]:
    """For each weight of the pairs the share of a cell's masked genes that are predicted right, mean over cells."""
    right = {weight: [] for weight in weights}
    for batch in batches(1):
        for tokens, genes, target in zip(*(part.numpy() for part in batch), strict=True):
            masked = target != IGNORE
            if not masked.any():
                continue
            by_table, by_pairs = log_odds(table, pairs, tokens, genes, masked)
            for weight in weights:
                right[weight].append(((by_table + weight * by_pairs).argmax(1) + 1 == target[masked]).mean())
    return {weight: float(np.mean(found)) for weight, found in right.items()}


def pair_rows(split: Split, seed: int, sizes=None) -> list[dict]:
    """Masked genes by counts in the corpus: the table of gene and depth, and pairs of genes beside it.

    Rows are those of :func:`shared.studies.scbert.beyond.masked_rows`, by the masks of the networks there. The weight
    of the pairs is the best on an eighth of the corpus, counted without it; no test cell has a say.
    """
    model = ScBERT(**SIZES | (sizes or {}), logged=True)
    tokenizer = Tokenizer(len(split.chosen), model.bins, logged=True, length=model.length)
    masks = lambda X: CellBatches(X, tokenizer, CHUNK, seed, torch.device("cpu"), mask=(model.mask, 1.0))  # noqa: E731
    mixed = np.random.default_rng((seed, 13)).permutation(split.corpus.shape[0])
    out, kept = np.split(mixed, [len(mixed) // 8])
    found = guesses(*counted(split.corpus[kept], tokenizer), masks(split.corpus[out]))
    weight, counts, rows = max(found, key=found.get), counted(split.corpus, tokenizer), []
    for group in np.unique(split.test.groups):
        X = split.test.X[split.test.groups == group][:, split.chosen]
        row = {"what": "masked", "arm": PAIRS, "group": group, "value": weight, "cells": X.shape[0]}
        rows.append(row | {"masked": guesses(*counts, masks(X), (weight,))[weight]})
    return rows


def as_read(split: Split, length: int) -> tuple[Split, dict]:
    """The split with zero for every gene that a sequence of `length` leaves out of a cell, and what that takes away.

    Of the test cells ``over`` is the share that expresses more genes than `length`, ``cut`` that of what is left out.
    """
    tokenizer, seen = Tokenizer(len(split.chosen), SIZES["bins"], logged=True, length=length), []
    for one in (split.train, split.test):
        X = one.X[:, split.chosen].toarray()
        mask = np.zeros(X.shape, bool)
        np.put_along_axis(mask, tokenizer(X)[1].numpy(), True, 1)
        seen.append(one._replace(X=sparse.csr_matrix(X * mask)))
    n = (X > 0).sum(1)
    lost = {"over": float((n > length).mean()), "cut": float(1 - (X * mask > 0).sum() / n.sum())}
    return split._replace(train=seen[0], test=seen[1], chosen=np.arange(len(split.chosen))), lost


def labelled_rows(learned: Learned, seed: int, values, share: float, left_out: int = 2) -> list[dict]:
    """The same measures of the types of :func:`shared.studies.scbert.beyond.unknown_rows` where they have labels."""
    split, rows = learned.split, []
    kinds, few = np.unique(split.train.y), draw(split.train.y, share, seed)
    for arm, value in values.items():
        best = fitted(learned, arm, value, few, seed)[0].predict_proba(split.test.X[:, split.chosen]).max(1)
        for kind in kinds[[(seed * left_out + i) % len(kinds) for i in range(left_out)]]:
            here = split.test.y == kind
            row = {"what": "labelled", "arm": arm, "type": kind, "auroc": roc_auc_score(here, -best)}
            rows.append(row | {"unknown_rejected": (best[here] < 0.5).mean()})
    return rows


def unlearned(split: Split, seed: int) -> Learned:
    """A split from which nothing was learned: regressions need no more."""
    return Learned(split, None, None, None, {}, FIT_LENGTH)


def check_rows(learned: Learned, _, seed: int, *, shares, task: str, sizes=None, lengths=(FIT_LENGTH,), unknown=0.5):
    """All that counts and regressions say of one seed beside :func:`shared.studies.scbert.all_rows`."""
    split, done, rows = learned.split, {}, pair_rows(learned.split, seed, sizes)
    label_rows(learned, seed, shares, (L1, L2), done)
    for length in lengths:
        seen, lost = as_read(split, length)
        rows.append({"what": "cut", "arm": f"at {length}", **lost})
        rows += _renamed(f"at {length}", label_rows(unlearned(seen, seed), seed, shares, (L2,)))
    if task == SORTED:
        rows += labelled_rows(learned, seed, {arm: value for arm, (_, value) in done.items()}, unknown)
        six = [one.at(np.flatnonzero(np.isin(one.y, [*AS_SORTED.values()]))) for one in (split.train, split.test)]
        if len(six[0].y):  # simulated types have other names
            some = unlearned(split._replace(train=six[0], test=six[1]), seed)
            rows += _renamed("six types", label_rows(some, seed, shares, (L1, L2)))
    for arm, (model, _) in done.items() if task == UNSORTED else ():
        called = model.predict(split.test.X[:, split.chosen])
        one = [np.where(np.isin(y, T_CELLS), "T", y) for y in (split.test.y, called)]
        rows.append({"what": "T cells as one", "arm": arm, "accuracy": accuracy(*one)})
    return rows


def length_rows(learned: Learned, _, seed: int, *, shares):
    """Accuracy of the pre-trained network and of the one from scratch, at the `fit_length` of what was learned."""
    return _renamed(f"at {learned.fit_length}", label_rows(learned, seed, shares, (PRETRAINED, SCRATCH)))


def _renamed(name, rows):
    return [row | {"what": f"{row['what']}, {name}"} for row in rows]
