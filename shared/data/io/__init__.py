"""Formats of files: what reads a 10x folder, an HDF5 file, a table; ``shared.data.sources`` builds on it."""
