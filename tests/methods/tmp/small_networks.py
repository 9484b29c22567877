"""A small relation network, and profiles to train it on."""

import numpy as np
import torch

from shared.methods.tmp.network import RelationNet


def profiles(kinds=6, per_kind=20, genes=40, noise=0.3, seed=0, centres=0):
    """Profiles in which each kind has a centre of its own; `centres` seeds those."""
    y = np.repeat(np.arange(kinds), per_kind)
    centre = np.random.default_rng(centres).normal(size=(kinds, genes))
    X = centre[y] + noise * np.random.default_rng((seed, 1)).normal(size=(len(y), genes))
    return X.astype(np.float32), np.array([f"type {c}" for c in y])


def network(seed=0, dims=(40, 24, 12), relation=(10, 6), **options):
    torch.manual_seed(seed)
    return RelationNet(dims, relation, **options)
