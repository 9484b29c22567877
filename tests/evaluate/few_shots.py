"""Simulated classes to draw episodes from, and answers made by hand."""

import numpy as np

from shared.evaluate.episodes import FewShot
from shared.nn.episodes import EpisodeSampler

G = 30


def sampler(kinds=8, rows=30, apart=0.6, seed=0, **sizes):
    """Gaussian classes of types t0, t1, ..."""
    rng = np.random.default_rng(seed)
    y = np.repeat([f"t{i}" for i in range(kinds)], rows)
    X = apart * rng.normal(size=(kinds, G)).repeat(rows, 0) + rng.normal(size=(len(y), G))
    return EpisodeSampler(X.astype(np.float32), y, **{"n_way": 4, "k_shot": 3, "n_query": 5} | sizes)


def answers(target, scores, classes=None, names=None, **options):
    """A result made by hand."""
    target, scores = np.asarray(target), np.asarray(scores, np.float32)
    C = scores.shape[2] + options.get("unknown", 0)
    classes = np.tile(np.arange(C), (len(target), 1)) if classes is None else np.asarray(classes)
    names = np.array([f"t{i}" for i in range(classes.max() + 1)]) if names is None else names
    return FewShot(names, classes, target, scores, **options)


def from_accuracy(classes, recall, N, queries=10):
    """A result whose classes have this share of right calls (episodes × classes of an episode)."""
    n, C = classes.shape
    right = np.arange(queries) < np.round(recall * queries)[:, :, None]
    target = np.arange(C)[None, :, None].repeat(queries, 2).repeat(n, 0)
    called = np.where(right, target, (target + 1) % C).reshape(n, -1)
    return answers(target.reshape(n, -1), np.eye(C)[called], classes, np.array([f"t{i}" for i in range(N)]))
