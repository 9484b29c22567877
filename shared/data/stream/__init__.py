"""Matrices larger than memory: a file read piece by piece, its cells shuffled on the way to a network."""

from shared.data.stream.batches import Batch, Batches
from shared.data.stream.stream import Stream

__all__ = ["Batch", "Batches", "Stream"]
