"""Matrices larger than memory: a file read piece by piece, its cells shuffled on the way to a network."""

from shared.data.stream.batches import Batch, Batches, Mixing, as_torch
from shared.data.stream.convert import to_rows
from shared.data.stream.moments import Statistics
from shared.data.stream.stream import Stream

__all__ = ["Batch", "Batches", "Mixing", "Statistics", "Stream", "as_torch", "to_rows"]
